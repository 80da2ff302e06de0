//! How many slots a worker offers now. Pure.

use std::time::{Duration, Instant};

use crate::machine::memory::affordable;

/// Memory comes and goes with every compile; a person wants to know that it is scarce, not each time.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What was configured, and what stands in its way.
#[derive(Debug)]
pub(super) struct Slots {
    full: u32,
    healthy: bool,
    told: Option<Instant>,
}

impl Slots {
    pub(super) fn new(full: u32) -> Self {
        Self {
            full,
            healthy: false,
            told: None,
        }
    }

    pub(super) fn handle_health(&mut self, healthy: bool) {
        self.healthy = healthy;
    }

    /// What to offer while so many jobs run and so much memory is left: nothing unless distccd compiles.
    pub(super) fn offer(&self, running: u32, available_kib: Option<u64>) -> u32 {
        if self.healthy {
            affordable(self.full, running, available_kib)
        } else {
            0
        }
    }

    /// A sentence for a person when memory has lowered the offer, now and then.
    pub(super) fn tell(
        &mut self,
        offer: u32,
        available_kib: Option<u64>,
        now: Instant,
    ) -> Option<String> {
        let just_told = self
            .told
            .is_some_and(|told| now.duration_since(told) < TELL_EVERY);
        if !self.healthy || offer >= self.full || just_told {
            return None;
        }
        self.told = Some(now);
        let left = available_kib.unwrap_or(0) >> 10;
        let full = self.full;
        Some(format!(
            "memory is scarce ({left} MiB left): offering {offer} of {full} slots; fewer --slots or more memory would avoid that"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_offered_until_distccd_compiles_and_less_when_memory_is_scarce() {
        let mut slots = Slots::new(4);
        let mib = |mib: u64| Some(mib << 10);
        assert_eq!(slots.offer(0, mib(99_999)), 0);
        slots.handle_health(true);
        assert_eq!(slots.offer(0, mib(99_999)), 4);
        assert_eq!(slots.offer(0, None), 4);
        assert_eq!(slots.offer(2, mib(10)), 2);
        assert_eq!(slots.offer(0, mib(0)), 1);
        slots.handle_health(false);
        assert_eq!(slots.offer(2, mib(99_999)), 0);
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do as the epoch"
    )]
    fn scarce_memory_is_told_once_in_a_while() {
        let mut slots = Slots::new(4);
        let now = Instant::now();
        assert_eq!(slots.tell(0, Some(0), now), None);
        slots.handle_health(true);
        assert_eq!(slots.tell(4, Some(0), now), None);
        let told = slots.tell(2, Some(300 << 10), now).unwrap();
        assert!(told.contains("300 MiB") && told.contains("2 of 4"));
        assert_eq!(slots.tell(1, Some(0), now + TELL_EVERY / 2), None);
        assert!(slots.tell(1, Some(0), now + TELL_EVERY).is_some());
    }
}
