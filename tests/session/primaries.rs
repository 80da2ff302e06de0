//! Several builds and several primaries.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::cluster::{Cluster, project, until};

/// Machines that share a rendezvous and a key, each with a runtime directory of its own.
struct Shared {
    cluster: Cluster,
    options: Vec<String>,
}

impl Shared {
    fn new() -> Self {
        let cluster = Cluster::new();
        let key = cluster.path().join("key");
        let made = cluster.distmesh(&["keygen"]).output().unwrap();
        fs::write(&key, made.stdout).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let rendezvous = format!("dir:{}", cluster.path().join("rendezvous").display());
        let options = [
            "--rendezvous",
            &rendezvous,
            "--session",
            "shared",
            "--stun",
            "none",
            "--secret-file",
            key.to_str().unwrap(),
        ];
        let options = options.map(str::to_owned).to_vec();
        Self { cluster, options }
    }

    fn worker(&mut self, name: &str, options: &[&str]) {
        let mut args: Vec<&str> = self.options.iter().map(String::as_str).collect();
        args.extend(["--slots", "2"]);
        args.extend(options);
        self.cluster.worker_with(name, &args);
    }

    /// A build on a machine of this name.
    fn build(&self, machine: &str, project: &Path, args: &[&str], command: &[&str]) -> Command {
        let report = self.report(machine);
        let mut build = self
            .cluster
            .distmesh(&["build", "--report", report.to_str().unwrap()]);
        build
            .env("DISTMESH_RUNTIME_DIR", self.cluster.path().join(machine))
            .args(&self.options)
            .args(args)
            .arg("--")
            .args(command)
            .current_dir(project)
            .stdin(Stdio::null());
        build
    }

    fn report(&self, machine: &str) -> PathBuf {
        self.cluster.path().join(format!("report-{machine}"))
    }

    fn remote(&self, machine: &str) -> u64 {
        let text = fs::read(self.report(machine).join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&text).unwrap();
        report["jobs"]["remote"].as_u64().unwrap()
    }
}

/// A build that ends with the test.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a build that holds its workers until a file appears.
fn hold(shared: &Shared, machine: &str, project: &Path) -> (Held, PathBuf) {
    let [began, end] = ["began", "end"].map(|what| shared.cluster.path().join(what));
    let script = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.1; done",
        began.display(),
        end.display()
    );
    let required = ["--require-workers", "1"];
    let mut build = shared.build(machine, project, &required, &["sh", "-c", &script]);
    let held = Held(build.spawn().unwrap());
    until("the first primary has its worker", || began.exists());
    (held, end)
}

#[test]
fn a_second_primary_waits_for_the_first_and_is_told_why() {
    let (mut shared, project) = (Shared::new(), project(4));
    // As in CI: it ends with its primary, but not with one that it does not serve, and not while another waits.
    shared.worker("w", &["--once"]);
    let (mut first, end) = hold(&shared, "first", project.path());

    let without = shared
        .build(
            "second",
            project.path(),
            &["--wait", "3s", "--min-workers", "1"],
            &["true"],
        )
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(without.status.success(), "{said}");
    for word in [
        "worker w serves another primary",
        "distmesh up",
        "--session",
    ] {
        assert!(said.contains(word), "{word} is missing: {said}");
    }

    // The first ends while another second one waits.
    let linked = || {
        let said = fs::read_to_string(shared.cluster.log("w")).unwrap();
        said.matches(" is up: ").count()
    };
    let before = linked();
    let waits = ["--require-workers", "1", "--wait", "60s"];
    let second = shared
        .build("third", project.path(), &waits, &["make", "-j"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the third primary is linked", || linked() > before);
    fs::write(end, "").unwrap();
    assert!(first.0.wait().unwrap().success());
    let built = second.wait_with_output().unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    assert_eq!(shared.remote("third"), 5);
    assert_eq!(shared.cluster.ended("w"), Some(0), "nobody is left");
}

#[test]
fn a_killed_primary_frees_its_worker_for_the_next() {
    let (mut shared, project) = (Shared::new(), project(4));
    shared.worker("w", &[]);
    let (mut first, end) = hold(&shared, "first", project.path());
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    let waits = ["--require-workers", "1", "--wait", "60s"];
    let built = shared
        .build("second", project.path(), &waits, &["make", "-j"])
        .output()
        .unwrap();
    fs::write(end, "").unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    assert_eq!(shared.remote("second"), 5);
}

#[test]
fn two_builds_at_once_share_a_session_and_its_workers() {
    let mut cluster = Cluster::new();
    let projects = [project(12), project(12)];
    cluster.worker("w", 2);
    cluster.up(1);
    let builds: Vec<Child> = projects
        .iter()
        .map(|project| {
            let report = project.path().join("report");
            cluster
                .distmesh(&[
                    "build",
                    "--report",
                    report.to_str().unwrap(),
                    "--",
                    "make",
                    "-j",
                ])
                .current_dir(project.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for (build, project) in builds.into_iter().zip(&projects) {
        let built = build.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        assert!(built.status.success(), "{said}");
        let text = fs::read(project.path().join("report/report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(report["jobs"]["remote"], 13, "{said}");
    }
    let down = cluster.distmesh(&["down"]).output().unwrap();
    assert!(down.status.success());
}
