//! Machines that meet in a store, as separate processes of the real program.

use std::{
    ops::{Deref, DerefMut},
    path::Path,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::Instant,
};

use crate::{
    crew::{Crew, LOOK, PATIENCE},
    server::Server,
};

/// A secret that no text has by chance.
pub const SECRET: &str = "correct-horse-battery-staple-91bd";

/// The machines of one session.
pub struct Stage {
    /// Variables of every machine.
    pub env: Vec<(&'static str, String)>,
    crew: Crew,
}

impl Stage {
    /// Machines that meet on this server.
    pub fn at(server: &Server) -> Self {
        let mut env = server.env();
        env.push(("DISTMESH_RENDEZVOUS", server.url()));
        env.push(("ENCRYPTION_KEY", SECRET.to_owned()));
        Self {
            env,
            crew: Crew::new(),
        }
    }

    /// Gives a variable another value, on every machine that starts from now on.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.env.retain(|(other, _)| *other != name);
        self.env.push((name, value.to_owned()));
    }

    /// distmesh on a machine, without what this one has in its environment.
    pub fn machine(&self, name: &str, args: &[&str]) -> Command {
        let home = self.home(name);
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
        let mut command = self.machine(name, &["worker", "--slots", "1", "--name", name]);
        command.args(args);
        self.start(name, command);
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
            sleep(LOOK);
        }
    }

    /// Kills a worker, so that it withdraws nothing.
    pub fn kill(&mut self, name: &str) {
        let mut worker = self.leave(name);
        worker.kill().unwrap();
        worker.wait().unwrap();
    }

    /// Builds a project once so many workers are up.
    pub fn build(&self, workers: u32, project: &Path, args: &[&str]) -> Output {
        let primary = self.machine("primary", &["build"]);
        self.crew.build(primary, workers, project, args)
    }
}

impl Deref for Stage {
    type Target = Crew;

    fn deref(&self) -> &Crew {
        &self.crew
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Crew {
        &mut self.crew
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
