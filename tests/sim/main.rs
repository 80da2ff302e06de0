//! A whole mesh in virtual time, over a virtual network that is a function of one seed.
//!
//! The nodes are the very [`distmesh::mesh::Mesh`] of the program. Between them stand NAT boxes in the terms of RFC 4787
//! (`nat.rs`) and a network with delay, jitter and loss (`world.rs`); the rendezvous is a delay after which everybody sees
//! what was published. An hour takes milliseconds, and a failure names the seed that repeats it.
//!
//! A simulation says "path", never "link up": WireGuard keeps its own clock and stays outside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connect;
mod hostile;
mod liveness;
#[path = "../nat/mod.rs"]
mod nat;
mod properties;
mod relay;
mod rows;
mod stun_server;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

/// Runs a scenario in several worlds; a failure names the seed of the world that failed.
fn for_each_seed(seeds: u64, scenario: impl Fn(u64)) {
    for seed in 0..seeds {
        let run = AssertUnwindSafe(|| scenario(seed));
        if let Err(cause) = catch_unwind(run) {
            let text = cause.downcast_ref::<String>().cloned();
            let text = text.or_else(|| cause.downcast_ref::<&str>().map(ToString::to_string));
            panic!("with seed {seed}: {}", text.unwrap_or_default());
        }
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
