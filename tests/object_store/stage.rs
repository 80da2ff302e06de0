//! Machines as separate processes of the real program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::server::Server;

/// A secret that no text has by chance.
pub const SECRET: &str = "correct-horse-battery-staple-91bd";

/// The machines of one session.
pub struct Stage {
    pub dir: TempDir,
    /// Variables of every machine.
    pub env: Vec<(&'static str, String)>,
    workers: Vec<(String, Child)>,
}

impl Stage {
    /// Machines that meet on this server.
    pub fn at(server: &Server) -> Self {
        let mut env = server.env();
        env.push(("DISTMESH_RENDEZVOUS", server.url()));
        env.push(("ENCRYPTION_KEY", SECRET.to_owned()));
        Self {
            dir: tempfile::Builder::new().prefix("dm").tempdir().unwrap(),
            env,
            workers: Vec::new(),
        }
    }

    /// Gives a variable another value, on every machine that starts from now on.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.env.retain(|(other, _)| *other != name);
        self.env.push((name, value.to_owned()));
    }

    /// distmesh on a machine, without what this one has in its environment.
    pub fn machine(&self, name: &str, args: &[&str]) -> Command {
        let home = self.dir.path().join(name);
        fs::create_dir_all(home.join("tmp")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_distmesh"));
        for (inherited, _) in std::env::vars_os() {
            let text = inherited.to_string_lossy();
            if [
                "AWS_",
                "DISTMESH_",
                "GITHUB_",
                "ACTIONS_",
                "MAKE",
                "MFLAGS",
                "CARGO_MAKE",
            ]
            .iter()
            .any(|head| text.starts_with(head))
            {
                command.env_remove(&inherited);
            }
        }
        command
            .args(args)
            .env("CI", "true")
            .env("DISTMESH_STUN", "none")
            .env("DISTMESH_NO_ADAPT", "1")
            .env("DISTMESH_RUNTIME_DIR", home.join("r"))
            .env("TMPDIR", home.join("tmp"))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Starts a worker of this name.
    pub fn worker(&mut self, name: &str, args: &[&str]) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log(name))
            .unwrap();
        let mut command = self.machine(name, &["worker", "--slots", "1", "--name", name]);
        command
            .args(args)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.workers
            .push((name.to_owned(), command.spawn().unwrap()));
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    pub fn said(&self, name: &str) -> String {
        fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// Waits until a worker has said something.
    pub fn hears(&self, name: &str, words: &str) {
        let patience = Instant::now() + PATIENCE;
        while !self.said(name).contains(words) {
            assert!(
                Instant::now() < patience,
                "{name} does not say {words:?}:\n{}",
                self.said(name)
            );
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits for a worker's end; its exit code.
    pub fn ended(&mut self, name: &str) -> Option<i32> {
        let at = self.workers.iter().position(|(other, _)| other == name);
        let (_, mut worker) = self.workers.remove(at.unwrap());
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience {
            if let Some(status) = worker.try_wait().unwrap() {
                return status.code();
            }
            sleep(Duration::from_millis(50));
        }
        let _ = worker.kill();
        panic!("{name} does not end:\n{}", self.said(name));
    }

    /// Kills a worker, so that it withdraws nothing.
    pub fn kill(&mut self, name: &str) {
        let at = self.workers.iter().position(|(other, _)| other == name);
        let (_, mut worker) = self.workers.remove(at.unwrap());
        worker.kill().unwrap();
        worker.wait().unwrap();
    }

    /// Builds a project once so many workers are up.
    pub fn build(&self, workers: u32, project: &Path, args: &[&str]) -> Output {
        let report = self.dir.path().join("report");
        let mut command = self.machine("primary", &["build", "--report"]);
        command
            .arg(&report)
            .args(["--require-workers", &workers.to_string(), "--wait", "90s"])
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

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A machine that does nothing else would need a tenth of it.
const PATIENCE: Duration = Duration::from_secs(90);
