//! The wrapped command with the real make and the real compilers, without a worker.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use distmesh::build::{BuildError, BuildOptions, BuildOutcome, run};
use distmesh::event::{BuildUpdate, Load};
use tokio::sync::mpsc;

async fn built(shell: &str, at: &Path, load: Load) -> Result<BuildOutcome, BuildError> {
    let dir = at.join("build-dir");
    let mut env: Vec<(OsString, OsString)> = std::env::vars_os()
        .filter(|(name, _)| name != "MAKEFLAGS")
        .collect();
    env.push(("XDG_DATA_HOME".into(), at.join("data").into()));
    let script = format!("cd '{}' && {shell}", at.display());
    let options = BuildOptions {
        command: vec!["sh".into(), "-c".into(), script.into()],
        dir,
        exe: PathBuf::from(env!("CARGO_BIN_EXE_distmesh")),
        env,
        local_slots: 2,
        reconfigure: false,
    };
    let (updates, received) = mpsc::channel(8);
    let (feedback, _feedback) = mpsc::channel(8);
    let (notices, _notices) = mpsc::channel(8);
    updates.send(BuildUpdate::Load(load)).await.unwrap();
    run(options, received, feedback, notices).await
}

/// Twelve recipes; each writes how many were running when it began.
fn makefile(at: &Path) {
    let recipe = "all: $(addprefix t,1 2 3 4 5 6 7 8 9 10 11 12)\nt%:\n\t@mkdir run.$*; ls -d run.* | wc -l >> seen; sleep 0.1; rmdir run.$*\n";
    std::fs::write(at.join("Makefile"), recipe).unwrap();
}

fn most_at_once(at: &Path) -> u32 {
    let seen = std::fs::read_to_string(at.join("seen")).unwrap();
    assert_eq!(seen.lines().count(), 12);
    seen.lines()
        .map(|line| line.trim().parse().unwrap())
        .max()
        .unwrap()
}

#[tokio::test]
async fn make_never_runs_more_local_recipes_than_the_limit_however_it_is_called() {
    let calls = [
        "make",
        "make -j",
        "make -j8",
        "MAKEFLAGS=-j make",
        "python3 -c 'import subprocess; subprocess.run([\"make\"])'",
    ];
    for call in calls {
        let at = tempfile::tempdir().unwrap();
        makefile(at.path());
        let outcome = built(
            call,
            at.path(),
            Load {
                capacity: 8,
                ..Load::default()
            },
        )
        .await
        .unwrap();
        assert_eq!((outcome.exit, most_at_once(at.path())), (0, 2), "{call}");
    }
}

#[tokio::test]
async fn a_serial_make_stays_serial() {
    let at = tempfile::tempdir().unwrap();
    makefile(at.path());
    built("make -j1", at.path(), Load::default()).await.unwrap();
    assert_eq!(most_at_once(at.path()), 1);
}

#[tokio::test]
async fn a_compile_without_a_worker_is_made_here_and_counted() {
    let at = tempfile::tempdir().unwrap();
    std::fs::write(at.path().join("a.c"), "int main(void) { return 0; }\n").unwrap();
    let outcome = built(
        "gcc -c a.c -o a.o && gcc a.o -o a && ./a",
        at.path(),
        Load::default(),
    )
    .await
    .unwrap();
    assert_eq!((outcome.exit, outcome.seen, outcome.remote), (0, 1, 0));
    assert!(outcome.explain().unwrap().contains("no worker"));
    assert!(!at.path().join("build-dir").exists());
}

#[tokio::test]
async fn exit_codes_and_signals_pass_through() {
    let at = tempfile::tempdir().unwrap();
    assert_eq!(
        built("exit 7", at.path(), Load::default())
            .await
            .unwrap()
            .exit,
        7
    );
    assert_eq!(
        built("kill -TERM $$", at.path(), Load::default())
            .await
            .unwrap()
            .exit,
        143
    );
}

#[tokio::test]
async fn a_cmake_tree_configured_here_builds_afterwards_without_a_session() {
    let at = tempfile::tempdir().unwrap();
    std::fs::write(
        at.path().join("CMakeLists.txt"),
        "cmake_minimum_required(VERSION 3.16)\nproject(t C)\nadd_executable(t a.c)\n",
    )
    .unwrap();
    std::fs::write(at.path().join("a.c"), "int main(void) { return 0; }\n").unwrap();
    let outcome = built(
        "cmake -S . -B out >/dev/null && cmake --build out",
        at.path(),
        Load::default(),
    )
    .await
    .unwrap();
    assert_eq!((outcome.exit, outcome.seen > 0), (0, true));
    let cache = std::fs::read_to_string(at.path().join("out/CMakeCache.txt")).unwrap();
    assert!(
        !cache.contains("build-dir"),
        "the cache names only what outlives the session"
    );
    let again = std::process::Command::new("cmake")
        .arg("--build")
        .arg(at.path().join("out"))
        .arg("--clean-first")
        .status();
    assert!(again.unwrap().success());
}
