//! Jobs of a run as separate processes of the real program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::fake::Fake;

/// A secret that no text has by chance.
pub const SECRET: &str = "correct-horse-battery-staple-5f3a";

/// The runners of one attempt.
pub struct Stage {
    pub fake: Fake,
    pub dir: TempDir,
    pub attempt: u32,
    /// Variables of every job, beside the runner's.
    pub env: Vec<(&'static str, String)>,
    workers: Vec<(String, Child)>,
}

impl Stage {
    pub fn new(fake: Fake, attempt: u32) -> Self {
        let dir = tempfile::Builder::new().prefix("dm").tempdir().unwrap();
        Self {
            fake,
            dir,
            attempt,
            env: vec![("ENCRYPTION_KEY", SECRET.to_owned())],
            workers: Vec::new(),
        }
    }

    /// distmesh in a job of the run.
    pub fn job(&self, job: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distmesh"));
        let home = self.dir.path().join(job);
        fs::create_dir_all(home.join("tmp")).unwrap();
        for inherited in [
            "MAKEFLAGS",
            "MFLAGS",
            "MAKELEVEL",
            "CARGO_MAKEFLAGS",
            "ENCRYPTION_KEY",
        ] {
            command.env_remove(inherited);
        }
        command
            .args(args)
            .env("CI", "true")
            .envs(self.fake.env(self.attempt, job))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("DISTMESH_STUN", "none")
            .env("DISTMESH_NO_ADAPT", "1")
            .env("DISTMESH_RUNTIME_DIR", home.join("r"))
            .env("TMPDIR", home.join("tmp"))
            .stdin(Stdio::null());
        command
    }

    /// Starts a worker.
    pub fn worker(&mut self, job: &str, args: &[&str]) {
        let log = fs::File::create(self.log(job)).unwrap();
        let mut command = self.job(job, &["worker", "--slots", "1"]);
        command
            .args(args)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.workers
            .push((job.to_owned(), command.spawn().unwrap()));
    }

    pub fn log(&self, job: &str) -> PathBuf {
        self.dir.path().join(format!("{job}.log"))
    }

    pub fn said(&self, job: &str) -> String {
        fs::read_to_string(self.log(job)).unwrap_or_default()
    }

    /// Waits for a worker's end; its exit code.
    pub fn ended(&mut self, job: &str) -> Option<i32> {
        let at = self
            .workers
            .iter()
            .position(|(name, _)| name == job)
            .unwrap();
        let patience = Instant::now() + Duration::from_secs(90);
        while Instant::now() < patience {
            if let Some(status) = self.workers[at].1.try_wait().unwrap() {
                self.workers.remove(at);
                return status.code();
            }
            sleep(Duration::from_millis(50));
        }
        panic!("{job} does not end:\n{}", self.said(job));
    }

    /// Builds a project in job 0 once so many workers are up.
    pub fn build(&self, workers: u32, project: &Path, args: &[&str]) -> Output {
        let wanted = workers.to_string();
        let report = self.dir.path().join("report");
        let mut command = self.job("0", &["build", "--report", report.to_str().unwrap()]);
        command.args(["--require-workers", &wanted, "--wait", "90s"]);
        command
            .args(args)
            .args(["--", "make", "-j"])
            .current_dir(project);
        command.output().unwrap()
    }

    /// Compiles that workers did.
    pub fn remote(&self) -> u64 {
        let report = fs::read(self.dir.path().join("report/report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        report["jobs"]["remote"].as_u64().unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for (_, worker) in &self.workers {
            let _ = kill_process(Pid::from_child(worker), Signal::TERM);
        }
        for (name, mut worker) in std::mem::take(&mut self.workers) {
            let _ = worker.wait();
            if std::thread::panicking() {
                eprintln!("--- {name}\n{}", self.said(&name));
            }
        }
    }
}

/// A C project of some files and one program.
pub fn project(files: u32) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    for n in 0..files {
        write(
            &format!("f{n}.c"),
            &format!("#include <stdio.h>\nint f{n}(void) {{ return {n}; }}\n"),
        );
    }
    write("main.c", "int main(void) { return 0; }\n");
    write(
        "Makefile",
        "program: $(patsubst %.c,%.o,$(wildcard *.c))\n\t$(CC) -o $@ $^\n",
    );
    dir
}
