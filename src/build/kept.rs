//! The compiles that run here by a permit.

use std::time::{Duration, Instant};

use super::home::Permit;
use super::pulse::Pulse;

#[derive(Debug, Default)]
pub(super) struct Kept(Vec<Compile>);

#[derive(Debug)]
struct Compile {
    pulse: Pulse,
    permit: Permit,
    since: Instant,
}

impl Kept {
    pub(super) fn handle_begin(&mut self, pid: u32, permit: Permit, now: Instant) {
        self.0.push(Compile {
            pulse: Pulse::of(pid),
            permit,
            since: now,
        });
    }

    /// Forgets those that have ended, and tells how long they took.
    pub(super) fn reap(&mut self, now: Instant) -> Vec<(Permit, Duration)> {
        let ended = self.0.extract_if(.., |compile| !compile.pulse.beats());
        ended
            .map(|compile| (compile.permit, now.duration_since(compile.since)))
            .collect()
    }

    /// How many run by this permit.
    pub(super) fn count(&self, permit: Permit) -> u32 {
        let running = self.0.iter().filter(|compile| compile.permit == permit);
        u32::try_from(running.count()).unwrap_or(u32::MAX)
    }
}
