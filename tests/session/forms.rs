//! Every way in which people start their builds.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::cluster::{Cluster, project, run_program, until};

const FILES: u32 = 24;
/// 0 + 1 + … + 23.
const SUM: u32 = FILES * (FILES - 1) / 2;
/// The sources and `main.c`.
const COMPILES: u64 = FILES as u64 + 1;

fn two_workers() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.worker("w1", 2);
    cluster.worker("w2", 2);
    cluster
}

#[test]
fn make_compiles_on_every_worker_and_links_here() {
    let (cluster, project) = (two_workers(), project(FILES));
    let built = cluster.build(2, project.path(), &["make", "-j"]);
    built.exits(0);
    assert_eq!(run_program(&project.path().join("program")), SUM);
    assert_eq!(built.number("/jobs/remote"), COMPILES, "{}", built.stderr());
    assert_eq!(built.number("/jobs/local"), 0);
    assert!(
        built.jobs_of("w1") > 0 && built.jobs_of("w2") > 0,
        "{}",
        built.report
    );
}

#[test]
fn the_second_and_the_third_build_find_the_same_workers() {
    let (cluster, project) = (two_workers(), project(FILES));
    for _ in 0..3 {
        let built = cluster.build(2, project.path(), &["make", "-j"]);
        built.exits(0);
        assert_eq!(built.number("/jobs/remote"), COMPILES, "{}", built.stderr());
        assert!(
            Command::new("make")
                .arg("clean")
                .current_dir(project.path())
                .output()
                .unwrap()
                .status
                .success()
        );
    }
}

/// As configure does it.
#[test]
fn what_one_build_writes_down_of_a_tool_s_path_holds_in_the_next() {
    let (cluster, project) = (Cluster::new(), project(1));
    cluster.up(0);
    let find = "command -v make >made && command -v gcc >compiled && ls -d $(cat made compiled)";
    for script in [find, "$(cat made) -j && $(cat compiled) --version"] {
        let built = cluster.build(0, project.path(), &["sh", "-c", script]);
        built.exits(0);
    }
    let made = fs::read_to_string(project.path().join("made")).unwrap();
    assert!(made.contains("/tools/make"), "{made}");
}

#[test]
fn a_session_that_runs_says_that_another_rendezvous_is_ignored() {
    let (cluster, project) = (Cluster::new(), project(1));
    cluster.up(0);
    let same = cluster.distmesh(&["up"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&same.stderr).contains("ignored"));
    let other = ["--rendezvous", "dir:/elsewhere"];
    let up = cluster.distmesh(&["up", other[0], other[1]]).output();
    let build = cluster
        .build_command(project.path(), &other, &["make"])
        .output();
    for output in [up, build].map(Result::unwrap) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("dir:/elsewhere is ignored"), "{said}");
    }
}

#[test]
fn a_build_that_is_not_wrapped_is_distributed_by_the_printed_hosts_whatever_compiler_it_names() {
    let (cluster, project) = (two_workers(), project(FILES));
    let up = cluster.distmesh(&["up", "--min-workers", "2"]).output();
    assert!(up.unwrap().status.success());
    let jobs = || {
        let status = cluster.distmesh(&["status", "--json"]).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let workers = status["workers"].as_array().unwrap();
        let jobs = workers
            .iter()
            .map(|worker| worker["jobs"].as_u64().unwrap());
        jobs.sum::<u64>()
    };
    for compiler in ["/usr/bin/gcc", "/usr/bin/clang"] {
        until(compiler, || {
            let before = jobs();
            let hosts = cluster.distmesh(&["hosts"]).output().unwrap();
            let hosts = String::from_utf8(hosts.stdout).unwrap();
            let make = Command::new("make")
                .args(["-B", "-j4", &format!("CC=distcc {compiler}")])
                .env("DISTCC_HOSTS", hosts.trim())
                .env("DISTCC_DIR", cluster.path())
                .env("DISTCC_BACKOFF_PERIOD", "1")
                .current_dir(project.path())
                .output()
                .unwrap();
            assert!(make.status.success(), "{make:?}");
            assert_eq!(run_program(&project.path().join("program")), SUM);
            jobs().saturating_sub(before) == COMPILES
        });
    }
    let down = cluster.distmesh(&["down"]).output().unwrap();
    assert!(down.status.success());
}

#[test]
fn every_form_of_make_is_distributed() {
    let (cluster, project) = (two_workers(), project(FILES));
    let script = project.path().join("build.sh");
    fs::write(&script, "#!/bin/sh\nexec make -j4\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let forms: [&[&str]; 7] = [
        &["make", "-j"],
        &["make", "-j8"],
        &["make", "-j1"],
        &["make"],
        &["env", "MAKEFLAGS=-j", "make"],
        &["./build.sh"],
        &[
            "python3",
            "-c",
            "import subprocess; subprocess.run(['make'], check=True)",
        ],
    ];
    for form in forms {
        let built = cluster.build(2, project.path(), form);
        built.exits(0);
        assert_eq!(
            built.number("/jobs/remote"),
            COMPILES,
            "{form:?}: {}",
            built.stderr()
        );
        assert_eq!(run_program(&project.path().join("program")), SUM);
        clean(project.path());
    }
}

fn clean(project: &Path) {
    assert!(
        Command::new("make")
            .arg("clean")
            .current_dir(project)
            .output()
            .unwrap()
            .status
            .success()
    );
}

#[test]
fn a_cmake_tree_is_distributed_and_still_builds_without_distmesh() {
    for generator in ["Unix Makefiles", "Ninja"] {
        let (cluster, project) = (two_workers(), project(FILES));
        let out = project.path().join("out");
        let configure = format!("cmake -G '{generator}' -S . -B out && cmake --build out -j");
        let built = cluster.build(2, project.path(), &["sh", "-c", &configure]);
        built.exits(0);
        assert!(
            built.number("/jobs/remote") >= COMPILES,
            "{generator}: {}\n{}",
            built.report,
            built.stderr()
        );
        assert_eq!(run_program(&out.join("program")), SUM);
        fs::remove_file(out.join("program")).unwrap();
        fs::write(
            project.path().join("f0.c"),
            "int f0(void) { return 1000; }\n",
        )
        .unwrap();
        let plain = Command::new("cmake")
            .args(["--build", "out"])
            .current_dir(project.path())
            .output()
            .unwrap();
        assert!(
            plain.status.success(),
            "{}",
            String::from_utf8_lossy(&plain.stderr)
        );
        assert_eq!(run_program(&out.join("program")), SUM + 1000);
    }
}

#[test]
fn ninja_is_distributed() {
    let (cluster, project) = (two_workers(), project(FILES));
    let built = cluster.build(
        2,
        project.path(),
        &["sh", "-c", "cmake -G Ninja -S . -B out && ninja -C out"],
    );
    built.exits(0);
    assert!(
        built.number("/jobs/remote") >= COMPILES,
        "{}\n{}",
        built.report,
        built.stderr()
    );
    assert_eq!(run_program(&project.path().join("out/program")), SUM);
}

#[test]
fn a_compile_error_is_shown_once_and_exactly_as_here() {
    let (cluster, project) = (two_workers(), project(FILES));
    fs::write(
        project.path().join("f7.c"),
        "#include <stdio.h>\nint f7(void) { return undeclared; }\n",
    )
    .unwrap();
    let plain = Command::new("make")
        .args(["-k"])
        .current_dir(project.path())
        .output()
        .unwrap();
    clean(project.path());
    let built = cluster.build(2, project.path(), &["make", "-k", "-j"]);
    built.exits(plain.status.code().unwrap());
    let diagnostics = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.contains("f7.c") || line.contains("undeclared"))
            .map(str::to_owned)
            .collect()
    };
    let local: Vec<_> = diagnostics(&String::from_utf8_lossy(&plain.stderr));
    let ours: Vec<_> = diagnostics(&built.stderr());
    assert_eq!(
        ours.iter().filter(|line| line.contains("error:")).count(),
        1,
        "{ours:?}"
    );
    for line in local
        .iter()
        .filter(|line| line.contains("error:") || line.contains("note:"))
    {
        assert!(ours.contains(line), "{line} is missing in {ours:?}");
    }
    assert_eq!(
        built.number("/jobs/remote"),
        COMPILES - 1,
        "{}",
        built.stderr()
    );
}
