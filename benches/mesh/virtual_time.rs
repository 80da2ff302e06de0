//! The mesh alone, in virtual time: what finding paths costs the processor.

use std::time::Duration;

use distmesh::session::Role;
use serde::Serialize;

use crate::{
    measure::usage::Usage,
    nat::{ADDRESS_AND_PORT, Behaviour, INDEPENDENT},
    world::{HostId, World},
};

/// What one size came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Virtual {
    workers: usize,
    /// Virtual milliseconds until the primary has a path to every worker, and each to it.
    paths: Option<u128>,
    /// Milliseconds of real CPU for each node, the virtual network's part included: until then, and in a minute of rest.
    finding: f64,
    resting: f64,
}

/// One primary and so many workers, all behind NATs of their own, start at once.
pub(crate) fn measure(workers: usize) -> Virtual {
    let mut world = World::new(1);
    let mut node = |role| {
        let nat = world.add_nat(Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT));
        world.add_node(role, Some(nat))
    };
    let primary = node(Role::Primary);
    let all: Vec<HostId> = (0..workers).map(|_| node(Role::Worker)).collect();
    let nodes = (workers + 1) as f64;
    let began = Usage::of_this_process().cpu;
    for node in all.iter().chain([&primary]) {
        world.start(*node);
    }
    let linked = |world: &World| all.iter().all(|one| world.are_connected(primary, *one));
    let paths = world.run_until(LIMIT, linked);
    let found = Usage::of_this_process().cpu;
    world.run_for(REST);
    let rested = Usage::of_this_process().cpu;
    let each = |span: Duration| span.as_secs_f64() * 1e3 / nodes;
    Virtual {
        workers,
        paths: paths.map(|took| took.as_millis()),
        finding: each(found - began),
        resting: each(rested - found),
    }
}

impl Virtual {
    /// Every pair has found a path.
    pub(crate) fn is_whole(&self) -> bool {
        self.paths.is_some()
    }
}

pub(crate) fn tell(rows: &[Virtual]) {
    println!(
        "Virtual time: the same machines without sockets, WireGuard and QUIC, in one process; 20 ms from any to any, and a rendezvous\n\
         that takes a second. CPU is real, for each node, with the virtual network's part in it.\n"
    );
    println!(
        "{:>7} {:>10} {:>16} {:>20}",
        "workers", "paths ms", "CPU ms to paths", "CPU ms in a minute"
    );
    for row in rows {
        println!(
            "{:>7} {:>10} {:>16.2} {:>20.2}",
            row.workers,
            row.paths.map_or("never".to_owned(), |ms| ms.to_string()),
            row.finding,
            row.resting,
        );
    }
}

const LIMIT: Duration = Duration::from_secs(30);
const REST: Duration = Duration::from_secs(60);
