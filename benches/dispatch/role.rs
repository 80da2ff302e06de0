//! The benchmark's own processes: what distmesh does is done in processes apart, so that its CPU time and memory are told from the
//! clients' and the load generator's.
//!
//! Each is this program once more. It is told what it is by its environment, speaks in lines of JSON, and ends with its
//! standard input.

use std::{
    env,
    io::{BufRead, BufReader, Write, stdin, stdout},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::runtime::Runtime;

use crate::{load, primary, worker};

const ROLE: &str = "DISTMESH_BENCH_ROLE";

/// What a process is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// dispatch.
    Primary(primary::Task),
    /// A worker's relay.
    Worker(worker::Task),
    /// Clients and pretended workers.
    Load(load::Task),
}

/// A process that plays a role.
pub(crate) struct Process {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(role: &Role) -> Self {
        let own = env::current_exe().expect("own path");
        let mut child = Command::new(own)
            .env(ROLE, serde_json::to_string(role).expect("a plain task"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("own program");
        let from = child.stdout.take().expect("a pipe");
        Self {
            to: child.stdin.take(),
            from: BufReader::new(from),
            child,
        }
    }

    /// Tells it something.
    pub(crate) fn tell(&mut self, what: &impl Serialize) {
        let line = serde_json::to_string(what).expect("plain data");
        let to = self.to.as_mut().expect("it lives");
        writeln!(to, "{line}").expect("it listens");
    }

    /// The next that it says.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> T {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("a pipe");
        assert!(!line.is_empty(), "a process of the benchmark has failed");
        serde_json::from_str(&line).expect("what was asked for")
    }

    /// What it says when it is asked how it is.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self) -> T {
        self.tell(&());
        self.hear()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.to.take());
        drop(self.child.wait());
    }
}

/// Plays its role, if it was given one.
pub(crate) fn play_if_asked() -> Option<ExitCode> {
    let role = env::var(ROLE).ok()?;
    let runtime = distmesh::commands::runtime().expect("threads");
    let _inside = runtime.enter();
    match serde_json::from_str(&role).expect("a role") {
        Role::Primary(task) => primary::live(&runtime, task),
        Role::Worker(task) => worker::live(&runtime, &task),
        Role::Load(task) => load::live(&runtime, &task),
    }
    runtime.shutdown_background();
    Some(ExitCode::SUCCESS)
}

/// Says something to whoever started this process.
pub(crate) fn say(what: &impl Serialize) {
    let line = serde_json::to_string(what).expect("plain data");
    // Nobody listens when the benchmark was broken off.
    drop(writeln!(stdout(), "{line}"));
}

/// What this process is told next; `None` at the end. Waits in the runtime: one of a single thread does nothing while nobody does.
pub(crate) fn told<T: DeserializeOwned + Send + 'static>(runtime: &Runtime) -> Option<T> {
    let heard = runtime.spawn_blocking(|| {
        let mut line = String::new();
        stdin().lock().read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    });
    runtime.block_on(heard).ok()?
}

/// Answers whenever it is asked, until the end.
pub(crate) fn answer<T: Serialize>(runtime: &Runtime, mut how: impl FnMut() -> T) {
    while told::<()>(runtime).is_some() {
        say(&how());
    }
}
