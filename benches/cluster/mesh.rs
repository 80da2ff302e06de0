//! distmesh on the cluster.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use super::{Cluster, run, runner::Runner, watch::until};

/// The files that a session's nodes share, and those of each.
pub(crate) struct Mesh {
    dir: PathBuf,
    /// Where sockets are: their names may not be long, and a build directory's may be.
    run: tempfile::TempDir,
    /// Whether the primary may compile what a worker could.
    pub(crate) adapt: bool,
    /// For `--stun`.
    pub(crate) stun: String,
}

impl Mesh {
    /// A session that nobody has used.
    pub(crate) fn new(dir: PathBuf) -> Self {
        let exe = env!("CARGO_BIN_EXE_distmesh");
        let key = Command::new(exe)
            .arg("keygen")
            .output()
            .expect("distmesh keygen");
        std::fs::write(dir.join("key"), key.stdout).expect("a key file");
        run(&format!("chmod 600 {}", dir.join("key").display()));
        Self {
            dir,
            run: tempfile::tempdir().expect("a directory for sockets"),
            adapt: true,
            stun: "none".to_owned(),
        }
    }

    /// distmesh on this machine.
    pub(crate) fn command(&self, runner: &Runner, args: &[&str]) -> Command {
        let mut command = runner.command(env!("CARGO_BIN_EXE_distmesh"));
        command
            .args(args)
            .env("DISTMESH_RUNTIME_DIR", self.run.path().join(&runner.name))
            .env(
                "DISTMESH_RENDEZVOUS",
                format!("dir:{}", self.dir.join("rendezvous").display()),
            )
            .env("DISTMESH_SECRET_FILE", self.dir.join("key"))
            .env("DISTMESH_SESSION", "bench")
            .env("DISTMESH_NO_ADAPT", if self.adapt { "" } else { "1" })
            .env("DISTMESH_STUN", &self.stun);
        for inherited in [
            "MAKEFLAGS",
            "MAKELEVEL",
            "CI",
            "GITHUB_ACTIONS",
            "ENCRYPTION_KEY",
        ] {
            command.env_remove(inherited);
        }
        command
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// Starts all workers, each of which may be given more arguments.
    pub(crate) fn workers(
        &self,
        cluster: &Cluster,
        more: impl Fn(usize) -> Vec<String>,
    ) -> Vec<Child> {
        let start = |(n, runner): (usize, &Runner)| {
            let mut worker = self.worker(cluster, n, &more(n));
            let ready = || {
                let ended = worker.try_wait().expect("a worker's status");
                let log = self.log(&runner.name);
                assert!(ended.is_none(), "see {}: {ended:?}", log.display());
                !runner.processes().is_empty()
            };
            until("a worker runs", Duration::from_secs(10), ready);
            worker
        };
        cluster.workers.iter().enumerate().map(start).collect()
    }

    /// Starts a worker, with more arguments.
    fn worker(&self, cluster: &Cluster, number: usize, more: &[String]) -> Child {
        let runner = &cluster.workers[number];
        let slots = cluster.size.own_slots.map(|slots| slots.to_string());
        let slots = slots.iter().flat_map(|slots| ["--slots", slots]);
        let log = File::create(self.log(&runner.name)).expect("a log file");
        self.command(runner, &["worker", "--name", &runner.name])
            .args(slots)
            .args(more)
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("distmesh worker")
    }

    /// A build that waits for all workers. Its report goes to `report` beside the logs.
    pub(crate) fn build<S: AsRef<OsStr>>(
        &self,
        cluster: &Cluster,
        at: &Path,
        what: &[S],
    ) -> Command {
        let workers = cluster.workers.len().to_string();
        let mut command = self.command(
            &cluster.primary,
            &[
                "build",
                "--require-workers",
                &workers,
                "--wait",
                "60s",
                "--report",
            ],
        );
        command
            .arg(self.report())
            .arg("--")
            .args(what)
            .current_dir(at);
        command
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.dir.join("report")
    }
}
