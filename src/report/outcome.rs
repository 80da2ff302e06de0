//! What became of a build, as data. Scripts read it: fields are added, never changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Cpu;
use crate::event::{Compiler, LinkState};

/// What became of a build: the contents of `report.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How long the wrapped command ran, in seconds.
    pub wall_s: f64,
    /// Its exit code.
    pub exit_code: i32,
    /// How many compiles went where.
    pub jobs: Jobs,
    /// Why compiles were local, and how many.
    pub local_reasons: BTreeMap<String, u64>,
    /// The workers that were seen, by name.
    pub workers: Vec<WorkerReport>,
    /// How many workers were expected, if anybody said.
    pub expected_workers: Option<u32>,
    /// The workers that were not used for a compiler.
    pub refused: Vec<Refusal>,
    /// What a person should know of, in order.
    pub incidents: Vec<Incident>,
    /// Incidents beyond those that are kept.
    pub incidents_left_out: u64,
    /// Seconds that jobs were at workers, added up.
    #[serde(default)]
    pub away_s: f64,
    /// CPU time on the primary.
    #[serde(default)]
    pub cpu: Option<Cpu>,
}

impl Report {
    /// Sets how many compiles were made where, as the one who saw every call has counted them.
    #[must_use]
    pub fn with_calls(
        mut self,
        remote: u64,
        local: &BTreeMap<String, u64>,
        cancelled: u64,
    ) -> Self {
        self.jobs.remote = remote;
        self.jobs.local = local.values().sum();
        self.jobs.cancelled = cancelled;
        self.jobs.seen = self.jobs.remote + self.jobs.local + self.jobs.cancelled;
        self.local_reasons = local.clone();
        self
    }
}

/// How many compiles went where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jobs {
    /// Asked for by the wrapped command.
    pub seen: u64,
    /// Made by a worker.
    pub remote: u64,
    /// Made here.
    pub local: u64,
    /// Given up by the wrapped command while a worker had them.
    pub cancelled: u64,
    /// Those of the remote and local ones that more than one worker tried.
    pub reattempted: u64,
    /// Those that a second worker was given while the first still had it.
    pub hedged: u64,
}

/// What a worker did for this build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Its label.
    pub name: String,
    /// Compiles at once.
    pub slots: u32,
    /// Compiles that it made.
    pub jobs: u64,
    /// Its link's state at the end.
    pub state: LinkState,
    /// `direct` or `relayed`; `None` if there never was a path.
    pub path: Option<String>,
    /// The worker that forwarded at the end.
    pub relay: Option<String>,
    /// What its NAT does, as far as it knows.
    pub nat: Option<String>,
    /// Round-trip time of the link in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Why the link was in that state.
    pub reason: Option<String>,
    /// From the session's start until its link was first up, in seconds.
    pub up_after_s: Option<f64>,
}

/// A worker that was not used for a compiler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The worker's label.
    pub worker: String,
    /// The primary's compiler.
    pub compiler: Compiler,
    /// Why, with the cure.
    pub reason: String,
}

/// Something a person should know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// One sentence.
    pub text: String,
}
