//! Machines of one session as separate processes of the real program, and a project for them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Their directory, and the workers among them.
pub struct Crew {
    pub dir: TempDir,
    workers: Vec<(String, Child)>,
}

impl Crew {
    pub fn new() -> Self {
        Self {
            dir: tempfile::Builder::new().prefix("dm").tempdir().unwrap(),
            workers: Vec::new(),
        }
    }

    /// A machine's own directory, with room for its temporary files in `tmp`.
    pub fn home(&self, name: &str) -> PathBuf {
        let home = self.dir.path().join(name);
        fs::create_dir_all(home.join("tmp")).unwrap();
        home
    }

    /// Starts a worker of this name. One that comes again says more in the same file.
    pub fn start(&mut self, name: &str, mut command: Command) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log(name))
            .unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.workers
            .push((name.to_owned(), command.spawn().unwrap()));
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    pub fn said(&self, name: &str) -> String {
        fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// Waits for a worker's end; its exit code.
    pub fn ended(&mut self, name: &str) -> Option<i32> {
        let mut worker = self.leave(name);
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience {
            if let Some(status) = worker.try_wait().unwrap() {
                return status.code();
            }
            sleep(LOOK);
        }
        let _ = worker.kill();
        let _ = worker.wait();
        panic!("{name} does not end:\n{}", self.said(name));
    }

    /// A worker that somebody else now waits for.
    pub fn leave(&mut self, name: &str) -> Child {
        let at = self.workers.iter().position(|(other, _)| other == name);
        self.workers.remove(at.unwrap()).1
    }

    /// Builds a project with this machine's `build` once so many workers are up.
    pub fn build(
        &self,
        mut primary: Command,
        workers: u32,
        project: &Path,
        args: &[&str],
    ) -> Output {
        primary
            .arg("--report")
            .arg(self.dir.path().join("report"))
            .args(["--require-workers", &workers.to_string(), "--wait", "90s"])
            .args(args)
            .args(["--", "make", "-j"])
            .current_dir(project);
        primary.output().unwrap()
    }

    /// Compiles that workers did.
    pub fn remote(&self) -> u64 {
        let report = fs::read(self.dir.path().join("report/report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        report["jobs"]["remote"].as_u64().unwrap()
    }
}

impl Drop for Crew {
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

/// A machine that does nothing else would need a tenth of it.
pub const PATIENCE: Duration = Duration::from_secs(90);
pub const LOOK: Duration = Duration::from_millis(50);
