//! However it ends: the right exit code, and nothing left behind.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use distmesh::build::{BuildError, BuildOptions};
use distmesh::event::Load;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::stage::Stage;

#[tokio::test]
async fn exit_codes_and_signals_pass_through_and_nothing_is_left() {
    for (script, exit) in [("exit 7", 7), ("kill -TERM $$", 143), ("true", 0)] {
        let stage = Stage::new(&[]);
        assert_eq!(stage.build(script, 0).await.outcome.exit, exit, "{script}");
        assert_eq!(
            std::fs::read_dir(stage.path("sessions")).unwrap().count(),
            0
        );
    }
}

#[tokio::test]
async fn a_command_that_cannot_run_is_an_error_with_a_hint_and_leaves_nothing() {
    let stage = Stage::new(&[("plain.txt", "")]);
    let plain = stage.path("plain.txt").into_os_string();
    for (command, hint) in [
        ("no-such-command".into(), "installed"),
        ("make -j".into(), "separate words"),
        (plain, "chmod +x"),
    ] {
        let options = BuildOptions {
            command: vec![command],
            ..stage.options.clone()
        };
        let error = stage.try_build(options, Load::default()).await.unwrap_err();
        assert!(matches!(error, BuildError::Spawn { .. }));
        assert!(error.to_string().contains(hint), "{error}");
        assert_eq!(
            std::fs::read_dir(stage.path("sessions")).unwrap().count(),
            0
        );
    }
    let nothing = stage.options.clone();
    let error = stage.try_build(nothing, Load::default()).await.unwrap_err();
    assert!(matches!(error, BuildError::NoCommand));
}

/// What [`a_session_in_a_process_of_its_own`] is told.
const AT: &str = "DISTMESH_TEST_AT";
const SCRIPT: &str = "DISTMESH_TEST_SCRIPT";

#[tokio::test]
#[ignore = "other tests run it as a process of its own"]
async fn a_session_in_a_process_of_its_own() {
    let mut stage = Stage::new(&[]);
    stage.options.dir = std::path::Path::new(&std::env::var(AT).unwrap()).join("build");
    let told = stage.build(&std::env::var(SCRIPT).unwrap(), 0).await;
    std::process::exit(told.outcome.exit);
}

fn session(stage: &Stage, script: &str) -> Command {
    let mut session = Command::new(std::env::current_exe().unwrap());
    let name = "ending::a_session_in_a_process_of_its_own";
    // It makes a stage of its own, and does not live to clear it away.
    let own = stage.path("own");
    std::fs::create_dir_all(&own).unwrap();
    session
        .env("TMPDIR", own)
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(AT, stage.path("sessions"))
        .env(
            SCRIPT,
            format!("cd '{}'; {script}", stage.at.path().display()),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    session
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number as i32).unwrap()
}

/// Processes that the script named in a file, one a line.
fn named(stage: &Stage, count: usize) -> Vec<Pid> {
    until("the script began", || stage.numbers("pids").len() == count);
    stage.numbers("pids").into_iter().map(pid).collect()
}

fn gone(pids: &[Pid]) -> bool {
    pids.iter().all(|pid| {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        test_kill_process(*pid).is_err() || state.is_ok_and(|stat| stat.contains(") Z "))
    })
}

const TWO: &str = "sleep 60 & echo $! >> pids; echo $$ >> pids; wait";

#[test]
fn a_killed_session_leaves_no_process_and_no_file() {
    let stage = Stage::new(&[]);
    let mut session = session(&stage, TWO).spawn().unwrap();
    let pids = named(&stage, 2);
    session.kill().unwrap();
    session.wait().unwrap();
    until("the command ended", || gone(&pids));
    until("what was made for the build went", || {
        !stage.path("sessions").exists()
    });
}

#[test]
fn a_signal_to_the_session_reaches_the_whole_command() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let stage = Stage::new(&[]);
        let mut session = session(&stage, TWO).spawn().unwrap();
        let pids = named(&stage, 2);
        kill_process(pid(session.id()), signal).unwrap();
        let status = session.wait().unwrap();
        // A shell's background job ignores SIGINT, as without distmesh.
        let expected = if signal == Signal::INT {
            &pids[1..]
        } else {
            &pids[..]
        };
        until("the command ended", || gone(expected));
        assert_eq!(status.code(), Some(code));
        let _ = kill_process(pids[0], Signal::KILL);
    }
}

#[test]
fn the_second_signal_of_a_kind_kills() {
    let stage = Stage::new(&[]);
    let stubborn = "trap '' INT TERM; sleep 60 & echo $! >> pids; echo $$ >> pids; wait";
    let mut session = session(&stage, stubborn).spawn().unwrap();
    let pids = named(&stage, 2);
    for _ in 0..2 {
        kill_process(pid(session.id()), Signal::INT).unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(session.wait().unwrap().code(), Some(137));
    until("the command ended", || gone(&pids));
}

#[test]
fn on_a_terminal_the_first_interrupt_comes_once_and_from_the_terminal() {
    let stage = Stage::new(&[]);
    let counting = "trap 'echo x >> interrupts' INT; echo $$ >> pids; for n in 1 2 3 4 5 6 7 8 9 10; do sleep 0.2; done; exit 5";
    let inner = session(&stage, counting);
    // dash does not replace itself by the only command it has, and would end with 130 itself.
    let mut words = vec![
        "exec".to_owned(),
        inner.get_program().to_str().unwrap().to_owned(),
    ];
    words.extend(inner.get_args().map(|arg| arg.to_str().unwrap().to_owned()));
    let mut terminal = Command::new("script")
        .args(["-qefc", &words.join(" "), "/dev/null"])
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    named(&stage, 1);
    terminal.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    let status = terminal.wait().unwrap();
    assert_eq!(
        (status.code(), stage.read("interrupts").as_str()),
        (Some(5), "x\n")
    );
}

#[tokio::test]
async fn what_a_dead_session_left_is_swept_by_the_next() {
    let stage = Stage::new(&[
        ("sessions/dead/build.lease", ""),
        ("sessions/other/file", ""),
    ]);
    stage.build("true", 0).await;
    assert!(!stage.path("sessions/dead").exists());
    assert!(stage.path("sessions/other").exists());
}
