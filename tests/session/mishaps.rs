//! What goes wrong at people's hands, and what they are told.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::cluster::{Cluster, project, run_program, until};

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let cluster = Cluster::new();
    let built = cluster.run(cluster.build_command(cluster.path(), &[], &["no-such-command"]));
    says(&built.exits(96).stderr(), &["no-such-command", "because:"]);
}

#[test]
fn no_command_is_a_usage_error() {
    let output = Cluster::new().distmesh(&["build", "--"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    says(
        &String::from_utf8_lossy(&output.stderr),
        &["COMMAND", "distmesh build"],
    );
}

#[test]
fn the_commands_exit_code_and_signal_pass_through() {
    let cluster = Cluster::new();
    for (command, code) in [
        ("exit 7", 7),
        ("kill -TERM $$", 143),
        ("kill -SEGV $$", 139),
    ] {
        let built = cluster.run(cluster.build_command(cluster.path(), &[], &["sh", "-c", command]));
        built.exits(code);
    }
}

#[test]
fn standard_output_is_the_commands_alone() {
    let cluster = Cluster::new();
    let built = cluster.run(cluster.build_command(cluster.path(), &[], &["echo", "hello"]));
    assert_eq!(built.exits(0).stdout(), "hello\n");
}

#[test]
fn both_sides_say_that_the_secrets_differ() {
    let mut cluster = Cluster::new();
    let wrong = cluster.path().join("other-key");
    fs::write(&wrong, "quite another secret, as long as it should be").unwrap();
    cluster.worker_with("stranger", &["--secret-file", wrong.to_str().unwrap()]);
    let command = cluster.build_command(
        cluster.path(),
        &["--min-workers", "1", "--wait", "6s"],
        &["sleep", "3"],
    );
    let built = cluster.run(command);
    says(&built.exits(0).stderr(), &["stranger", "secret"]);
    says(
        &fs::read_to_string(cluster.log("stranger")).unwrap(),
        &["does not open", "--secret-file"],
    );
}

#[test]
fn an_unusable_rendezvous_stops_a_worker_and_not_a_build() {
    let cluster = Cluster::new();
    let file = cluster.path().join("file");
    fs::write(&file, "").unwrap();
    let rendezvous = format!("dir:{}/below", file.display());
    let output = cluster
        .distmesh(&["worker", "--rendezvous", &rendezvous, "--stun", "none"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(96));
    says(&String::from_utf8_lossy(&output.stderr), &["below", "try:"]);
    let project = project(2);
    let build = cluster.build_command(
        project.path(),
        &["--rendezvous", &rendezvous, "--stun", "none"],
        &["make"],
    );
    says(
        &cluster.run(build).exits(0).stderr(),
        &["on this machine alone", "below"],
    );
    assert_eq!(run_program(&project.path().join("program")), 1);
}

#[test]
fn junk_in_the_rendezvous_is_passed_over_and_said() {
    let mut cluster = Cluster::new();
    cluster.worker("honest", 2);
    let rendezvous = cluster.path().join("r/rendezvous");
    until("the worker published", || {
        fs::read_dir(&rendezvous).is_ok_and(|entries| entries.count() > 0)
    });
    let junk = |name: &str, bytes: &[u8]| fs::write(rendezvous.join(name), bytes).unwrap();
    junk("readme.txt", b"what is this?");
    junk("distmesh~default~worker~liar~1700000000000~1", &[0x55; 700]);
    junk("distmesh~default~worker~torn~1700000000000~1", b"x");
    junk("distmesh~default~worker~empty~1700000000000~1", b"");
    let project = project(4);
    let built = cluster.build(1, project.path(), &["make", "-j"]);
    assert_eq!(built.exits(0).number("/jobs/remote"), 5);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let cluster = Cluster::new();
    let output = cluster
        .distmesh(&["worker", "--bind", &addr])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(96));
    says(&String::from_utf8_lossy(&output.stderr), &[&addr, "--bind"]);
    let built = cluster.run(cluster.build_command(cluster.path(), &["--bind", &addr], &["true"]));
    says(&built.exits(0).stderr(), &[&addr, "alone"]);
}

#[test]
fn without_distcc_the_build_is_local_and_a_worker_does_not_start() {
    let (cluster, project) = (Cluster::new(), project(3));
    let path = path_without(cluster.path(), &["distcc", "distccd"]);
    let mut build = cluster.build_command(project.path(), &[], &["make"]);
    build.env("PATH", &path);
    says(
        &cluster.run(build).exits(0).stderr(),
        &["distcc", "install"],
    );
    assert_eq!(run_program(&project.path().join("program")), 3);
    let output = cluster
        .distmesh(&["worker"])
        .env("PATH", &path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(96));
    says(
        &String::from_utf8_lossy(&output.stderr),
        &["distccd", "apt-get install distcc"],
    );
}

/// A directory of links to everything on the usual path but these.
fn path_without(dir: &Path, names: &[&str]) -> std::path::PathBuf {
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    for entry in fs::read_dir("/usr/bin").unwrap().flatten() {
        if !names.contains(&entry.file_name().to_str().unwrap_or_default()) {
            let _ = std::os::unix::fs::symlink(entry.path(), bin.join(entry.file_name()));
        }
    }
    bin
}

#[test]
fn exported_distcc_settings_are_dropped_and_said() {
    let mut cluster = Cluster::new();
    cluster.worker("w", 2);
    let project = project(3);
    let mut build =
        cluster.build_command(project.path(), &["--require-workers", "1"], &["make", "-j"]);
    build
        .env("DISTCC_HOSTS", "192.0.2.1/5")
        .env("DISTCC_FALLBACK", "0");
    let built = cluster.run(build);
    says(&built.exits(0).stderr(), &["DISTCC_HOSTS"]);
    assert_eq!(built.number("/jobs/remote"), 4);
}

#[test]
fn a_compiler_called_by_its_path_is_not_passed_over_in_silence() {
    let mut cluster = Cluster::new();
    cluster.worker("w", 2);
    let project = project(3);
    let built = cluster.build(1, project.path(), &["make", "-j", "CC=/usr/bin/gcc"]);
    says(&built.exits(0).stderr(), &["CC="]);
    assert_eq!(run_program(&project.path().join("program")), 3);
}

#[test]
fn an_interrupt_ends_the_command_and_leaves_nothing() {
    let cluster = Cluster::new();
    let marker = cluster.path().join("began");
    // Nothing is forked after the mark: an interrupt that comes meanwhile is lost on dash.
    let script = format!(": > {}; exec sleep 60", marker.display());
    let mut build = cluster.build_command(cluster.path(), &[], &["sh", "-c", &script]);
    let mut running = build
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the command began", || marker.exists());
    // As a terminal does: to the whole group.
    kill_process_group(Pid::from_child(&running), Signal::INT).unwrap();
    let status = running.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()));
    let mut said = String::new();
    running
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(said, "");
    until("no private directory is left", || {
        own_dirs(cluster.path()).is_empty()
    });
}

#[test]
fn a_signal_for_distmesh_alone_reaches_the_command() {
    let cluster = Cluster::new();
    let marker = cluster.path().join("began");
    let script = format!(
        "trap 'exit 9' TERM; touch {}; while :; do sleep 0.1; done",
        marker.display()
    );
    let mut running = cluster
        .build_command(cluster.path(), &[], &["sh", "-c", &script])
        .spawn()
        .unwrap();
    until("the command began", || marker.exists());
    kill_process(Pid::from_child(&running), Signal::TERM).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(9));
}

#[test]
fn a_killed_primary_leaves_nothing_that_the_next_start_does_not_clean() {
    let (mut cluster, project) = (Cluster::new(), project(3));
    cluster.worker("w", 2);
    let marker = cluster.path().join("began");
    let script = format!("echo $$ > {}; exec sleep 60", marker.display());
    let mut build = cluster.build_command(
        project.path(),
        &["--require-workers", "1"],
        &["sh", "-c", &script],
    );
    let mut running = build.spawn().unwrap();
    until("the command began", || {
        fs::read_to_string(&marker).is_ok_and(|pid| pid.ends_with('\n'))
    });
    running.kill().unwrap();
    running.wait().unwrap();
    let orphan = fs::read_to_string(&marker).unwrap().trim().parse().unwrap();
    let built = cluster.build(1, project.path(), &["make", "-j"]);
    assert_eq!(built.exits(0).number("/jobs/remote"), 4);
    assert_eq!(
        own_dirs(cluster.path()).len(),
        1,
        "the worker's: {:?}",
        own_dirs(cluster.path())
    );
    // The command itself may outlive distmesh; it is not ours to lose track of.
    let _ = kill_process(Pid::from_raw(orphan).unwrap(), Signal::KILL);
}

#[test]
fn a_build_whose_session_is_killed_goes_on_by_itself() {
    let (mut cluster, project) = (Cluster::new(), project(200));
    cluster.worker("w", 2);
    cluster.up(1);
    let status = || -> serde_json::Value {
        let status = cluster.distmesh(&["status", "--json"]).output().unwrap();
        serde_json::from_slice(&status.stdout).unwrap()
    };
    let pid = status()["pid"].as_i64().unwrap();
    let build = cluster
        .build_command(project.path(), &["--require-workers", "1"], &["make", "-j"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("some jobs are done", || {
        status()["workers"][0]["jobs"].as_u64() > Some(5)
    });
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    let built = build.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "{said}");
    says(&said, &["the session has ended"]);
    assert_eq!(run_program(&project.path().join("program")), 199 * 100);
}

#[test]
fn a_build_whose_session_does_not_answer_is_a_build_all_the_same() {
    let (cluster, project) = (Cluster::new(), project(2));
    cluster.up(0);
    let status = cluster.distmesh(&["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let pid = Pid::from_raw(status["pid"].as_i64().unwrap() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    // Each of its threads stops when it is next looked at.
    until("the session is stopped", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())).unwrap();
        tasks.flatten().all(|task| {
            let stat = fs::read_to_string(task.path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(") T "))
        })
    });
    let built = cluster.run(cluster.build_command(project.path(), &[], &["make"]));
    kill_process(pid, Signal::KILL).unwrap();
    says(&built.exits(0).stderr(), &["on this machine alone"]);
    assert_eq!(run_program(&project.path().join("program")), 1);
}

#[test]
fn a_report_that_cannot_be_written_leaves_the_commands_exit_code_alone() {
    let cluster = Cluster::new();
    let report = cluster.path().join("report");
    let script = format!("rm -r {0} && : > {0}; exit 3", report.display());
    let built = cluster.run(cluster.build_command(cluster.path(), &[], &["sh", "-c", &script]));
    says(&built.exits(3).stderr(), &["report"]);
}

fn own_dirs(cluster: &Path) -> Vec<std::path::PathBuf> {
    let session = cluster.join("r/sessions/default");
    let entries = fs::read_dir(session).into_iter().flatten().flatten();
    let own = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("own-"));
    own.map(|entry| entry.path()).collect()
}

#[test]
fn a_secret_file_that_is_missing_or_empty_is_named_with_the_cure() {
    let cluster = Cluster::new();
    let empty = cluster.path().join("empty");
    fs::write(&empty, "").unwrap();
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o600)).unwrap();
    for file in [empty.to_str().unwrap(), "/no/such/key"] {
        let output = cluster
            .distmesh(&["worker", "--secret-file", file])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(96));
        says(
            &String::from_utf8_lossy(&output.stderr),
            &[file, "distmesh keygen"],
        );
    }
}

#[test]
fn a_session_in_the_background_serves_several_builds() {
    let (mut cluster, project) = (Cluster::new(), project(6));
    cluster.worker("w", 2);
    cluster.up(1);
    for _ in 0..2 {
        let built = cluster.build(1, project.path(), &["make", "-j"]);
        assert_eq!(
            built.exits(0).number("/jobs/remote"),
            7,
            "{}",
            built.stderr()
        );
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
    let hosts = cluster.distmesh(&["hosts"]).output().unwrap();
    says(
        &String::from_utf8_lossy(&hosts.stdout),
        &["127.0.0.1:", "/2,lzo"],
    );
    let status = cluster.distmesh(&["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["workers"][0]["jobs"], 14, "{status}");
    assert!(
        cluster
            .distmesh(&["down"])
            .output()
            .unwrap()
            .status
            .success()
    );
    let gone = cluster.distmesh(&["status"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(96));
    std::io::stderr().flush().unwrap();
}

/// A shell goes on when what it waited for takes an interrupt for itself.
#[test]
fn an_interrupt_ends_the_script_around_a_build() {
    let cluster = Cluster::new();
    let began = cluster.path().join("began");
    let command = format!(": > {}; exec sleep 60", began.display());
    let build = cluster.build_command(cluster.path(), &[], &["sh", "-c", &command]);
    // Where the tests run in the background, interrupts are ignored.
    let mut script = Command::new("env");
    script
        .args(["--default-signal=INT", "bash", "-c"])
        .args([r#""$@"; echo went on with $?"#, "script"])
        .arg(build.get_program())
        .args(build.get_args())
        .current_dir(cluster.path())
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    for (name, value) in build.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let running = script.spawn().unwrap();
    until("the command began", || began.exists());
    kill_process_group(Pid::from_child(&running), Signal::INT).unwrap();
    let ended = running.wait_with_output().unwrap();
    assert_eq!(ended.status.signal(), Some(Signal::INT.as_raw()));
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "");
}
