//! Many workers, many jobs.

use std::{thread::sleep, time::Duration};

use distmesh::session::Descriptor;
use serde::Serialize;

use crate::{
    load,
    overhead::Sizes,
    primary::{self, Over, Report},
    role::{Process, Role},
    talk::Talk,
};

/// How much.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Scale {
    pub(crate) workers: usize,
    /// Of each.
    pub(crate) slots: u32,
    /// Jobs a second, and for how many seconds.
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
    pub(crate) sizes: Sizes,
    /// Milliseconds that a compile takes on average.
    pub(crate) compile: u64,
    /// The workers are reached through tunnels, not by TCP.
    pub(crate) tunnel: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) scale: Scale,
    pub(crate) load: load::Report,
    /// Attempts that dispatch made for all jobs.
    pub(crate) attempts: u64,
    /// Milliseconds of CPU a job, of the process with dispatch.
    pub(crate) cpu: f64,
    /// Its memory in MiB: with all workers and no job, at the most, and with all workers after the last job.
    pub(crate) idle: f64,
    pub(crate) peak: f64,
    pub(crate) after: f64,
}

pub(crate) fn run(scale: Scale) -> Outcome {
    let talk = Talk {
        compiler: COMPILER.to_owned(),
        source: scale.sizes.source,
        object: scale.sizes.object,
        compile: Duration::from_millis(scale.compile),
    };
    let mut load = Process::start(&Role::Load(load::Task {
        workers: scale.workers,
        tunnel: scale.tunnel,
        talk,
        rate: scale.rate,
        jobs: scale.rate * scale.seconds,
    }));
    let over = match scale.tunnel {
        true => Over::Tunnel(load.hear()),
        false => Over::Tcp(load.hear()),
    };
    let mut primary = Process::start(&Role::Primary(primary::Task {
        slots: scale.slots,
        compiler: COMPILER.to_owned(),
        over,
    }));
    if scale.tunnel {
        load.tell(&primary.hear::<Descriptor>());
    }
    drive(scale, load, primary)
}

fn drive(scale: Scale, mut load: Process, mut primary: Process) -> Outcome {
    let ports: Vec<u16> = primary.hear();
    sleep(SETTLED);
    let idle: Report = primary.ask();
    load.tell(&ports);
    let load: load::Report = load.hear();
    sleep(SETTLED);
    let after: Report = primary.ask();
    let cpu = (after.usage.cpu - idle.usage.cpu).as_secs_f64() * 1e3;
    Outcome {
        scale,
        load,
        attempts: after.attempts,
        cpu: cpu / f64::from(scale.rate * scale.seconds),
        idle: idle.usage.rss_mib,
        peak: after.usage.peak_mib,
        after: after.usage.rss_mib,
    }
}

const COMPILER: &str = "/usr/bin/gcc";
/// Long enough for what comes late.
const SETTLED: Duration = Duration::from_secs(1);
