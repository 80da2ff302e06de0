//! The ways in which a worker fails.

use clap::ValueEnum;
use rustix::process::Signal;
use serde::Serialize;

use crate::{
    cluster::{
        Cluster,
        runner::{Runner, leads_distccd, session_of},
    },
    garbage,
};

/// What happens to the first worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    /// distccd, its children and their compilers are killed.
    Killed,
    /// The same are stopped.
    Stopped,
    /// Everything on the machine is stopped.
    Frozen,
    /// Its cable is pulled.
    CutOff,
    /// 60 % of its packets are lost, in each direction.
    Lossy,
    /// Its distccd answers with noise.
    Garbage,
    /// All four workers are killed.
    AllGone,
}

const LOSS: u32 = 60;

impl Fault {
    pub(crate) const ALL: [Self; 7] = [
        Self::Killed,
        Self::Stopped,
        Self::Frozen,
        Self::CutOff,
        Self::Lossy,
        Self::Garbage,
        Self::AllGone,
    ];

    /// How many workers are lost.
    pub(crate) fn lost(self) -> usize {
        if self == Self::AllGone { 4 } else { 1 }
    }

    pub(crate) fn happen(self, cluster: &Cluster) {
        let first = &cluster.workers[0];
        match self {
            Self::Killed => signal_distccd(first, Signal::KILL),
            Self::Stopped => signal_distccd(first, Signal::STOP),
            Self::Frozen => {
                first.signal(Signal::STOP, |_| true);
            }
            Self::CutOff => first.cut(),
            Self::Lossy => first.lose(LOSS),
            Self::Garbage => garbage::begin(),
            Self::AllGone => cluster.workers.iter().for_each(Runner::clear),
        }
    }
}

fn signal_distccd(runner: &Runner, signal: Signal) {
    let leader = runner
        .processes()
        .into_iter()
        .find(|process| leads_distccd(*process));
    let leader = leader.expect("distccd runs on the worker");
    runner.signal(signal, |process| session_of(process) == Some(leader));
}
