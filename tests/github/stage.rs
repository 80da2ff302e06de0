//! Jobs of a run as separate processes of the real program.

use std::{
    ops::{Deref, DerefMut},
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::{crew::Crew, fake::Fake};

/// A secret that no text has by chance.
pub const SECRET: &str = "correct-horse-battery-staple-5f3a";

/// The runners of one attempt.
pub struct Stage {
    pub fake: Fake,
    pub attempt: u32,
    /// Variables of every job, beside the runner's.
    pub env: Vec<(&'static str, String)>,
    crew: Crew,
}

impl Stage {
    pub fn new(fake: Fake, attempt: u32) -> Self {
        Self {
            fake,
            attempt,
            env: vec![("ENCRYPTION_KEY", SECRET.to_owned())],
            crew: Crew::new(),
        }
    }

    /// distmesh in a job of the run.
    pub fn job(&self, job: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distmesh"));
        let home = self.home(job);
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
        let mut command = self.job(job, &["worker", "--slots", "1"]);
        command.args(args);
        self.start(job, command);
    }

    /// Builds a project in job 0 once so many workers are up.
    pub fn build(&self, workers: u32, project: &Path, args: &[&str]) -> Output {
        self.crew
            .build(self.job("0", &["build"]), workers, project, args)
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
