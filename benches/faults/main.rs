//! What a fault of one worker costs: 1 + 4 machines, one of them fails when a quarter of the objects is there.
//!
//! distmesh and stock distcc build the same tree under the same quotas, in turn. The bound of a faulted build is
//! `t + (T − t)·C/(C − c) + 3 s + the longest job lost`: `T` the undisturbed build of the same arm, `t` the moment of the fault, `C` the
//! slots of all workers, `c` those of the one that failed.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark is a program of its own: it prints, and reads the clock and its environment"
)]

#[expect(
    dead_code,
    reason = "shared with another benchmark, which uses the rest"
)]
#[path = "../cluster/mod.rs"]
mod cluster;
mod faults;
#[expect(
    dead_code,
    reason = "shared with another benchmark, which uses the rest"
)]
#[path = "../measure/figures.rs"]
mod figures;
mod garbage;
#[path = "../measure/median.rs"]
mod median;
mod runs;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;

use cluster::{
    Cluster, Size, isolate,
    site::Site,
    tree::{REDIS, SMALL, Tree},
};
use faults::Fault;
use runs::{Arm, Run, Stage};

/// Builds redis on 1 + 4 throttled machines while one of them fails.
#[derive(Debug, Parser)]
struct Args {
    /// Runs of each arm and fault
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Only these faults
    #[arg(long, value_enum, value_delimiter = ',')]
    fault: Vec<Fault>,
    /// Only these arms
    #[arg(long, value_enum, value_delimiter = ',')]
    arm: Vec<Arm>,
    /// Cores of each machine
    #[arg(long, default_value_t = 0.3)]
    quota: f64,
    /// Let the primary compile what a worker could, where that is quicker
    #[arg(long)]
    adapt: bool,
    /// A build that takes longer, in seconds, hangs and is ended
    #[arg(long, default_value_t = 900)]
    patience: u64,
    /// Write all runs to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// A small tree, no quotas, once: whether builds end well, not when
    #[arg(long)]
    quick: bool,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn quicken(&mut self) {
        if self.quick {
            self.runs = 1;
            self.arm = vec![Arm::Distmesh];
            self.fault = vec![Fault::Killed, Fault::CutOff, Fault::AllGone];
        }
    }
}

pub(crate) const WORKERS: usize = 4;
const SLOTS: u32 = 2;

fn main() -> ExitCode {
    if let Some(done) = garbage::serve_if_asked() {
        return done;
    }
    let mut args = Args::parse();
    args.quicken();
    let recipe = if args.quick { SMALL } else { REDIS };
    if let Err(error) = Tree::fetch(recipe) {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    if let Err(code) = isolate() {
        return code;
    }
    let size = Size {
        workers: WORKERS,
        quota: (!args.quick).then_some(args.quota),
        slots: SLOTS,
        own_slots: Some(SLOTS),
    };
    let mut site = Site::new(Cluster::new(size), recipe);
    site.patience = Duration::from_secs(args.patience);
    let stage = Stage {
        site,
        adapt: args.adapt,
    };
    let chosen = |fault: &Fault| args.fault.is_empty() || args.fault.contains(fault);
    let arms = if args.arm.is_empty() {
        vec![Arm::Distmesh, Arm::Stock]
    } else {
        args.arm.clone()
    };
    let faults: Vec<_> = Fault::ALL.into_iter().filter(chosen).collect();

    let local = faults.contains(&Fault::AllGone).then(|| stage.local());
    let mut all: Vec<Run> = Vec::new();
    for _ in 0..args.runs {
        for arm in &arms {
            all.push(stage.run(*arm, None));
        }
        for fault in &faults {
            for arm in &arms {
                all.push(stage.run(*arm, Some(*fault)));
            }
        }
    }
    println!(
        "\nthrottled periods: {}",
        stage.site.cluster.throttled().join(", ")
    );
    let local = local.filter(|_| !args.quick);
    let good = runs::tell(&all, local.as_ref(), args.quick);
    if let Some(path) = args.json {
        figures::write_json(&path, &all);
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
