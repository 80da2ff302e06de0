//! Whole runs: a primary and workers as separate processes, with a build.

use std::{fs, path::Path, time::Duration};

use crate::{
    crew::project,
    fake::{Artifact, Fake},
    nodes::Nodes,
    stage::{SECRET, Stage},
};

const WORKERS: [&str; 4] = ["1", "2", "3", "4"];

fn release(fake: &Fake, attempt: u32) {
    let mut state = fake.lock();
    let run = state.store.run_backend(attempt);
    let job = format!("job-{attempt}-0");
    let (name, finalized) = ("release".to_owned(), true);
    state.store.add(Artifact {
        attempt,
        run,
        job,
        name,
        finalized,
        ..Artifact::default()
    });
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_primary_and_four_workers_build_and_end_at_the_release_beside_an_earlier_attempts_litter() {
    let fake = Fake::start();
    litter(&fake);
    let mut stage = Stage::new(fake.clone(), 2);
    for job in WORKERS {
        // They would outlive the primary: the release ends them.
        stage.worker(job, &["--once=false", "--until-artifact", "release"]);
    }
    let project = project(30);
    let built = stage.build(4, project.path(), &[]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    assert_eq!(stage.remote(), 31, "{}", text(&built.stderr));
    release(&fake, 2);
    for job in WORKERS {
        assert_eq!(stage.ended(job), Some(0), "{}", stage.said(job));
        let said = stage.said(job);
        assert!(
            said.contains("worker stopped: artifact release has appeared"),
            "{said}"
        );
    }
    println!("requests of the whole run: {:#?}", fake.counts());
    assert!(fake.charged() <= 30, "{:?}", fake.counts());
}

/// A first attempt with a release, whose nodes died without deleting anything.
fn litter(fake: &Fake) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut nodes = Nodes::start(fake, 1, 5);
        assert!(nodes.form(Duration::from_secs(60)).await);
        nodes.kill();
    });
    runtime.shutdown_background();
    release(fake, 1);
    let mut state = fake.lock();
    state.counts.clear();
    let left = state
        .store
        .artifacts
        .iter()
        .filter(|artifact| artifact.is_visible());
    assert_eq!(left.count(), 6, "five descriptors and the release");
}

#[test]
fn workers_end_at_the_primarys_goodbye_or_with_its_job() {
    let fake = Fake::start();
    let mut stage = Stage::new(fake.clone(), 1);
    stage.worker("1", &[]);
    stage.worker("2", &["--once=false"]);
    let project = project(2);
    let built = stage.build(2, project.path(), &[]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    let job = serde_json::json!({"status": "completed", "conclusion": "failure", "runner_name": "GitHub Actions 0"});
    fake.lock().store.jobs = vec![job];
    for (job, reason) in [
        ("1", "worker stopped: the primary is done"),
        ("2", "worker stopped: the primary's job has ended: failure"),
    ] {
        assert_eq!(stage.ended(job), Some(0));
        assert!(stage.said(job).contains(reason), "{}", stage.said(job));
    }
}

#[test]
fn a_worker_ends_when_no_primary_comes() {
    let mut stage = Stage::new(Fake::start(), 1);
    stage.worker("1", &["--wait-primary", "2s"]);
    assert_eq!(stage.ended("1"), Some(0));
    let said = stage.said("1");
    assert!(said.contains("worker stopped: no primary for 2s"), "{said}");
}

#[test]
fn an_expired_token_ends_a_worker_that_has_no_primary() {
    let fake = Fake::start();
    let mut stage = Stage::new(fake.clone(), 1);
    fake.lock().faults.add("401", 1000);
    stage.worker("1", &[]);
    assert_eq!(stage.ended("1"), Some(0));
    assert!(
        stage
            .said("1")
            .contains("worker stopped: the job's token has expired"),
        "{}",
        stage.said("1")
    );
}

#[test]
fn a_run_without_a_secret_builds_here_with_one_notice_and_its_workers_are_no_failure() {
    let mut stage = Stage::new(Fake::start(), 1);
    stage.env.clear();
    let project = project(2);
    let build = |args: &[&str]| {
        let mut command = stage.job("0", &["build"]);
        command
            .args(args)
            .args(["--", "sh", "-c", "make && exit 7"]);
        command.current_dir(project.path()).output().unwrap()
    };
    let built = build(&[]);
    let said = text(&built.stderr);
    assert_eq!(built.status.code(), Some(7), "the command's own: {said}");
    assert_eq!(
        said.matches("warning: building on this").count(),
        1,
        "{said}"
    );
    for words in ["on this machine alone", "ENCRYPTION_KEY", "--trust-run"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(build(&["--require-workers", "1"]).status.code(), Some(96));
    for command in ["worker", "up"] {
        let output = stage.job("1", &[command]).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(
            said.contains("builds are local") && said.contains("ENCRYPTION_KEY"),
            "{said}"
        );
    }
    assert!(stage.fake.counts().is_empty(), "{:?}", stage.fake.counts());
}

#[test]
fn a_step_that_cannot_publish_says_what_can() {
    let stage = Stage::new(Fake::start(), 1);
    let worker = stage
        .job("1", &["worker"])
        .env("ACTIONS_RUNTIME_TOKEN", "")
        .output()
        .unwrap();
    let said = text(&worker.stderr);
    assert_eq!(worker.status.code(), Some(96), "{said}");
    assert!(
        said.contains("ACTIONS_RUNTIME_TOKEN") && said.contains("action"),
        "{said}"
    );
    let mut build = stage.job("0", &["build", "--", "true"]);
    let built = build.env("ACTIONS_RESULTS_URL", "").output().unwrap();
    let said = text(&built.stderr);
    assert!(
        built.status.success() && said.contains("on this machine alone"),
        "{said}"
    );
}

#[test]
fn a_step_without_secret_and_token_builds_in_the_session_that_another_step_started() {
    let mut stage = Stage::new(Fake::start(), 1);
    stage.worker("1", &[]);
    let up = stage
        .job("0", &["up", "--min-workers", "1"])
        .output()
        .unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let project = project(5);
    let report = stage.dir.path().join("report");
    let built = stage
        .job(
            "0",
            &[
                "build",
                "--report",
                report.to_str().unwrap(),
                "--",
                "make",
                "-j",
            ],
        )
        .env("ACTIONS_RUNTIME_TOKEN", "")
        .env("ENCRYPTION_KEY", "")
        .current_dir(project.path())
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
    assert_eq!(stage.remote(), 6, "{}", text(&built.stderr));
    assert!(stage.job("0", &["down"]).output().unwrap().status.success());
    assert_eq!(stage.ended("1"), Some(0));
}

#[test]
fn a_run_that_is_trusted_needs_no_secret_and_publishes_none() {
    let mut stage = Stage::new(Fake::start(), 1);
    stage.env = vec![("DISTMESH_TRUST_RUN", "true".to_owned())];
    stage.worker("1", &[]);
    let project = project(5);
    let built = stage.build(1, project.path(), &[]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    assert_eq!(stage.remote(), 6);
    assert_eq!(stage.ended("1"), Some(0));
    let elsewhere = stage
        .job(
            "2",
            &[
                "worker",
                "--rendezvous",
                "dir:/nowhere",
                "--until-artifact",
                "x",
            ],
        )
        .output()
        .unwrap();
    assert_ne!(elsewhere.status.code(), Some(0));
}

/// Every file below a directory.
fn files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Addresses of this machine that its peers use.
fn addresses() -> Vec<String> {
    let networks = sysinfo::Networks::new_with_refreshed_list();
    let ips = networks
        .values()
        .flat_map(|network| network.ip_networks().iter());
    let outside = ips
        .map(|network| network.addr)
        .filter(|ip| !ip.is_loopback());
    outside.map(|ip| ip.to_string()).collect()
}

#[test]
fn nothing_that_a_run_writes_at_the_highest_level_has_a_secret_a_token_or_an_address() {
    for directives in ["", "trace"] {
        let mut stage = Stage::new(Fake::start(), 1);
        stage.env.push(("DISTMESH_LOG", directives.to_owned()));
        stage.worker("1", &["-vvv"]);
        stage.worker("2", &["-vvv"]);
        stage.fake.lock().faults.add("502", 2);
        stage.fake.lock().faults.add("reset", 2);
        let project = project(4);
        let built = stage.build(2, project.path(), &["-vvv"]);
        assert!(built.status.success(), "{}", text(&built.stderr));
        fs::write(stage.log("0"), [built.stdout, built.stderr].concat()).unwrap();
        for job in ["1", "2"] {
            assert_eq!(stage.ended(job), Some(0));
        }
        assert!(stage.said("1").contains("DEBUG"), "it says what it does");
        forbid(&stage);
    }
}

fn forbid(stage: &Stage) {
    let mut forbidden: Vec<String> = vec![SECRET.to_owned(), crate::fake::GITHUB_TOKEN.to_owned()];
    forbidden.extend(["0", "1", "2"].map(|job| {
        let token = stage.fake.token(1, job);
        token.split('.').nth(1).unwrap().to_owned()
    }));
    // The blob store is asked by signed addresses only.
    forbidden.push(stage.fake.blobs.clone());
    forbidden.extend(["sig=", "c2VjcmV0LXNpZ25hdHVyZQ", "Bearer"].map(str::to_owned));
    let addresses = addresses();
    assert!(
        !addresses.is_empty(),
        "this machine has an address outside of loopback"
    );
    forbidden.extend(addresses);
    let mut written = Vec::new();
    files(stage.dir.path(), &mut written);
    assert!(written.len() >= 4, "{written:?}");
    for file in written {
        let Ok(bytes) = fs::read(&file) else { continue };
        let text = text(&bytes);
        for word in &forbidden {
            let line = text.lines().find(|line| line.contains(word.as_str()));
            assert!(line.is_none(), "{word} in {}: {line:?}", file.display());
        }
    }
}
