//! A scaled-down cluster on one machine: network namespaces on one bridge, each with a share of a core.
//!
//! Everything runs in namespaces of its own for processes and network, so that nothing outlives the benchmark.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

pub(crate) mod cgroup;
pub(crate) mod mesh;
pub(crate) mod namespaces;
pub(crate) mod nat;
pub(crate) mod runner;
pub(crate) mod site;
pub(crate) mod stock;
pub(crate) mod tree;
pub(crate) mod watch;

pub(crate) use namespaces::run;
use nat::Wan;
use runner::{Network, Runner};

/// Cores as a share of this machine's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) workers: usize,
    /// Cores of each machine; `None`: all there are.
    pub(crate) quota: Option<f64>,
    /// Compiles at once on each worker of others.
    pub(crate) slots: u32,
    /// On each worker of distmesh; `None`: as many as it thinks right.
    pub(crate) own_slots: Option<u32>,
}

/// The first runner is the primary.
pub(crate) struct Cluster {
    pub(crate) size: Size,
    pub(crate) primary: Runner,
    pub(crate) workers: Vec<Runner>,
    /// Those that are not asked to work now.
    idle: Vec<Runner>,
    wan: Option<Wan>,
}

/// What every benchmark on a cluster needs, and Debian's packages that have it.
const TOOLS: [(&str, &str); 6] = [
    ("nsenter", "util-linux"),
    ("turnserver", "coturn"),
    ("distcc", "distcc"),
    ("distccd", "distcc"),
    ("make", "make"),
    ("gcc", "gcc"),
];

/// Runs the benchmark in namespaces of its own: the caller goes on only inside of them.
pub(crate) fn isolate() -> Result<(), ExitCode> {
    namespaces::enter(&TOOLS)
}

impl Cluster {
    pub(crate) fn new(size: Size) -> Self {
        cgroup::sweep();
        run("ip link add lan type bridge");
        run("ip link set lan up");
        let runner = |n| Runner::new(n, size.quota);
        Self {
            size,
            primary: runner(0),
            workers: (1..=size.workers).map(runner).collect(),
            idle: Vec::new(),
            wan: None,
        }
    }

    /// Lets only so many work.
    pub(crate) fn employ(&mut self, workers: usize) {
        self.workers.append(&mut self.idle);
        self.idle = self.workers.split_off(workers);
    }

    /// Puts all machines into a network.
    pub(crate) fn join(&mut self, network: Network) {
        if network == Network::BehindNat && self.wan.is_none() {
            self.wan = Some(Wan::new(&scratch("wan")));
        }
        let workers = self.workers.iter_mut().chain(&mut self.idle);
        for runner in workers.chain([&mut self.primary]) {
            runner.join(network);
        }
    }

    /// Compiles at once on all workers.
    pub(crate) fn slots(&self) -> u32 {
        self.workers.len() as u32 * self.size.slots
    }

    /// How often, of all periods in which it ran, each machine reached its quota.
    pub(crate) fn throttled(&self) -> Vec<String> {
        let all = std::iter::once(&self.primary).chain(&self.workers);
        let told = |runner: &Runner| {
            let throttled = runner.cgroup.as_ref()?.throttled();
            Some(format!("{}: {throttled}", runner.name))
        };
        all.filter_map(told).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["link", "del", "lan"]).status());
    }
}

/// A directory of the benchmark's own that is empty.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(fs::remove_dir_all(&dir));
    fs::create_dir_all(&dir)
        .unwrap_or_else(|error| panic!("cannot make {}: {error}", dir.display()));
    dir
}
