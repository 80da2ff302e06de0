//! Workers that are missing, late, or go.

use rustix::process::Signal;

use crate::cluster::{Cluster, project, run_program, until};

const FILES: u32 = 40;
const SUM: u32 = FILES * (FILES - 1) / 2;

#[test]
fn without_a_worker_the_build_is_local_and_says_so() {
    let (cluster, project) = (Cluster::new(), project(FILES));
    let built = cluster.run(cluster.build_command(project.path(), &[], &["make", "-j"]));
    built.exits(0);
    assert_eq!(run_program(&project.path().join("program")), SUM);
    assert_eq!(built.number("/jobs/remote"), 0);
    assert_eq!(
        built.number("/jobs/local"),
        u64::from(FILES) + 1,
        "{}",
        built.report
    );
}

#[test]
fn too_few_workers_are_an_error_only_when_they_are_required() {
    let (cluster, project) = (Cluster::new(), project(1));
    let command = cluster.build_command(
        project.path(),
        &["--require-workers", "1", "--wait", "1s"],
        &["make"],
    );
    cluster.run(command).exits(97);
    assert!(!project.path().join("program").exists());
    let command = cluster.build_command(
        project.path(),
        &["--min-workers", "1", "--wait", "1s"],
        &["make"],
    );
    cluster.run(command).exits(0);
    assert_eq!(run_program(&project.path().join("program")), 0);
}

/// A Makefile whose compiles take a while, so that there is a middle of the build.
fn slow_make(project: &std::path::Path) {
    let makefile = std::fs::read_to_string(project.join("Makefile")).unwrap();
    let slow = makefile.replace("\t$(CC) -O1", "\t@sleep 0.3\n\t@$(CC) -O1");
    std::fs::write(project.join("Makefile"), slow).unwrap();
}

#[test]
fn a_worker_that_comes_late_takes_jobs() {
    let (mut cluster, project) = (Cluster::new(), project(FILES));
    slow_make(project.path());
    let mut build = cluster.build_command(project.path(), &[], &["make", "-j"]);
    let running = std::thread::spawn(move || build.output().unwrap());
    let path = project.path().to_owned();
    until("the build began", || {
        path.join("f0.o").exists() || path.join("f1.o").exists() || path.join("f10.o").exists()
    });
    cluster.worker("late", 4);
    let output = running.join().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = std::fs::read(cluster.path().join("report/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert!(report["jobs"]["remote"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(run_program(&project.path().join("program")), SUM);
}

#[test]
fn a_worker_that_goes_costs_no_job() {
    for signal in [Signal::TERM, Signal::KILL] {
        let (mut cluster, project) = (Cluster::new(), project(FILES));
        slow_make(project.path());
        cluster.worker("stays", 2);
        cluster.worker("goes", 2);
        let mut build =
            cluster.build_command(project.path(), &["--require-workers", "2"], &["make", "-j"]);
        let running = std::thread::spawn(move || build.output().unwrap());
        let log = cluster.log("goes");
        until("the worker compiles", || {
            std::fs::read_to_string(&log)
                .unwrap_or_default()
                .contains(".c")
        });
        cluster.signal("goes", signal);
        let output = running.join().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        assert_eq!(run_program(&project.path().join("program")), SUM);
        let report = std::fs::read(cluster.path().join("report/report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(
            report["jobs"]["remote"],
            u64::from(FILES) + 1,
            "{report}\n{stderr}"
        );
        if signal == Signal::TERM {
            assert_eq!(cluster.ended("goes"), Some(0));
        }
    }
}
