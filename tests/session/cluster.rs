//! Real processes of the real program: workers, builds, and the project that they build.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A session of its own: runtime directory, workers, builds. Dropping it ends every worker and fails if a temporary file is
/// left.
pub struct Cluster {
    dir: TempDir,
    workers: Vec<Worker>,
}

struct Worker {
    name: String,
    process: Child,
}

/// What a build did.
pub struct Built {
    pub output: Output,
    pub report: Value,
}

impl Cluster {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("dm").tempdir().unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        Self {
            dir,
            workers: Vec::new(),
        }
    }

    /// Starts a worker; it is up when a build waits for it.
    pub fn worker(&mut self, name: &str, slots: u32) {
        self.worker_with(name, &["--slots", &slots.to_string()]);
    }

    /// Starts a worker with options of its own.
    pub fn worker_with(&mut self, name: &str, args: &[&str]) {
        let mut command = self.distmesh(&["worker", "--name", name]);
        command.args(args);
        self.spawn(name, command);
    }

    /// Starts a worker with two slots and a PATH of its own.
    pub fn worker_on(&mut self, name: &str, path: &str) {
        let mut command = self.distmesh(&["worker", "--name", name, "--slots", "2"]);
        command.env("PATH", path);
        self.spawn(name, command);
    }

    fn spawn(&mut self, name: &str, mut command: Command) {
        let log = fs::File::create(self.log(name)).unwrap();
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.workers.push(Worker {
            name: name.to_owned(),
            process,
        });
    }

    /// Starts a session in the background, and waits for its workers.
    #[track_caller]
    pub fn up(&self, workers: u32) {
        let workers = workers.to_string();
        let up = self.distmesh(&["up", "--min-workers", &workers]).output();
        let up = up.unwrap();
        let said = String::from_utf8_lossy(&up.stderr);
        assert!(up.status.success(), "{said}");
    }

    /// The program with this cluster's environment.
    pub fn distmesh(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distmesh"));
        command
            .args(args)
            .env("DISTMESH_RUNTIME_DIR", self.dir.path().join("r"))
            // Tests count what workers compile; this machine would now and then be quicker.
            .env("DISTMESH_NO_ADAPT", "1")
            .env("TMPDIR", self.dir.path().join("tmp"));
        for inherited in [
            "MAKEFLAGS",
            "MFLAGS",
            "MAKELEVEL",
            "CARGO_MAKEFLAGS",
            "ENCRYPTION_KEY",
            "CI",
            "GITHUB_ACTIONS",
        ] {
            command.env_remove(inherited);
        }
        command
    }

    /// A build command, for tests that change it before it runs.
    pub fn build_command(&self, project: &Path, args: &[&str], command: &[&str]) -> Command {
        let report = self.dir.path().join("report");
        let mut build = self.distmesh(&["build", "--report", report.to_str().unwrap()]);
        build
            .args(args)
            .arg("--")
            .args(command)
            .current_dir(project);
        build
    }

    /// Builds, once `workers` are up.
    pub fn build(&self, workers: u32, project: &Path, command: &[&str]) -> Built {
        let wanted = workers.to_string();
        self.run(self.build_command(project, &["--require-workers", &wanted], command))
    }

    /// Runs a build and reads its report.
    pub fn run(&self, mut build: Command) -> Built {
        let output = build.output().unwrap();
        let report = fs::read(self.dir.path().join("report/report.json"));
        let report = report
            .map(|text| serde_json::from_slice(&text).unwrap())
            .unwrap_or_default();
        Built { output, report }
    }

    /// Where a worker's output goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Sends a worker a signal.
    pub fn signal(&self, name: &str, signal: Signal) {
        let worker = self
            .workers
            .iter()
            .find(|worker| worker.name == name)
            .unwrap();
        kill_process(pid(&worker.process), signal).unwrap();
    }

    /// Waits for a worker's end; its exit code.
    pub fn ended(&mut self, name: &str) -> Option<i32> {
        let at = self
            .workers
            .iter()
            .position(|worker| worker.name == name)
            .unwrap();
        let mut worker = self.workers.remove(at);
        end_of(&mut worker.process).and_then(|status| status.code())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A session that a test has left, for it runs in a process of its own; mostly there is none.
        let _ = self.distmesh(&["down"]).output();
        for worker in &self.workers {
            let _ = kill_process(pid(&worker.process), Signal::TERM);
        }
        for worker in &mut self.workers {
            if end_of(&mut worker.process).is_none() {
                let _ = worker.process.kill();
                let _ = worker.process.wait();
            }
            if std::thread::panicking() {
                let log = fs::read_to_string(self.dir.path().join(format!("{}.log", worker.name)));
                eprintln!("--- {}\n{}", worker.name, log.unwrap_or_default());
            }
        }
        if !std::thread::panicking() {
            let left: Vec<_> = fs::read_dir(self.dir.path().join("tmp"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert!(left.is_empty(), "temporary files are left: {left:?}");
        }
    }
}

impl Built {
    /// A number of the report, by JSON pointer.
    pub fn number(&self, pointer: &str) -> u64 {
        let value = self.report.pointer(pointer).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("no number {pointer} in {}\n{}", self.report, self.stderr()))
    }

    /// The jobs of each worker.
    pub fn jobs_of(&self, name: &str) -> u64 {
        let workers = self.report["workers"].as_array().unwrap();
        let worker = workers.iter().find(|worker| worker["name"] == name);
        worker.unwrap_or_else(|| panic!("no worker {name} in {}", self.report))["jobs"]
            .as_u64()
            .unwrap()
    }

    /// Why a worker was not used for a compiler, as the report says it.
    #[track_caller]
    pub fn refused(&self, worker: &str, compiler: &str) -> String {
        let refusal = self.refusal(worker, compiler);
        refusal.unwrap_or_else(|| panic!("{compiler} was not refused: {}", self.report))
    }

    /// The same, if it was refused.
    #[track_caller]
    pub fn refusal(&self, worker: &str, compiler: &str) -> Option<String> {
        let refused = self.report["refused"].as_array().unwrap();
        let found = refused
            .iter()
            .find(|refusal| refusal["worker"] == worker && refusal["compiler"] == compiler)?;
        let reason = found["reason"].as_str().unwrap().to_owned();
        assert!(self.stderr().contains(&reason), "{}", self.stderr());
        Some(reason)
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// Fails unless the command exited so.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(
            self.output.status.code(),
            Some(code),
            "{}\n{}",
            self.stdout(),
            self.stderr()
        );
        self
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Waits for a process, for as long as any of these may take on a busy machine.
fn end_of(child: &mut Child) -> Option<std::process::ExitStatus> {
    let patience = Instant::now() + Duration::from_secs(40);
    while Instant::now() < patience {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        sleep(Duration::from_millis(20));
    }
    None
}

/// Waits until something holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(40);
    while !holds() {
        assert!(Instant::now() < patience, "never: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// A C project of `files` sources and one program that sums what they return.
pub fn project(files: u32) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
    for n in 0..files {
        write(
            &format!("f{n}.c"),
            format!(
                "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint f{n}(void) {{ return {n}; }}\n"
            ),
        );
    }
    let calls: String = (0..files)
        .map(|n| format!("    sum += f{n}();\n"))
        .collect();
    let names: String = (0..files).map(|n| format!("int f{n}(void);\n")).collect();
    write(
        "main.c",
        format!(
            "#include <stdio.h>\n{names}int main(void) {{\n    int sum = 0;\n{calls}    printf(\"%d\\n\", sum);\n    return 0;\n}}\n"
        ),
    );
    write("Makefile", "OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))\nprogram: $(OBJECTS)\n\t$(CC) -o $@ $(OBJECTS)\n%.o: %.c\n\t$(CC) -O1 -c -o $@ $<\nclean:\n\trm -f *.o program\n".to_owned());
    write("CMakeLists.txt", "cmake_minimum_required(VERSION 3.16)\nproject(sample C)\nfile(GLOB sources ${CMAKE_SOURCE_DIR}/*.c)\nadd_executable(program ${sources})\n".to_owned());
    dir
}

/// What the project's program prints.
pub fn run_program(path: &Path) -> u32 {
    let output = Command::new(path).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}
