//! When something that failed is tried again: the same for every service. Pure.

use std::time::{Duration, Instant};

/// How long to wait before try number `tries + 1`; `None` when it was the last. `jitter` is from 0 to 1.
pub(super) fn again(tries: u32, jitter: f64) -> Option<Duration> {
    (tries < TRIES).then(|| spread(FIRST_RETRY * 3_u32.pow(tries.saturating_sub(1)), jitter))
}

/// How long to wait before the next look, after so many looks while somebody was missing.
pub(super) fn pace(quick: bool, looks: u32, jitter: f64) -> Duration {
    let steady = if quick {
        (QUICK + QUICK / 4 * looks.min(100)).min(QUICK_LATER)
    } else {
        CALM
    };
    swayed(steady, jitter)
}

/// Machines that started together must not look together for ever. `jitter` is from 0 to 1.
pub(super) fn swayed(wait: Duration, jitter: f64) -> Duration {
    wait.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
}

/// Twenty runners that were refused together must not come back together.
fn spread(wait: Duration, jitter: f64) -> Duration {
    wait.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// Something that failed and is tried again later, each time later still.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    /// It failed; `least` is how long to wait at least.
    pub(super) fn handle_failure(&mut self, least: Duration, jitter: f64, now: Instant) {
        let doubled = FIRST_PAUSE * 2_u32.pow(self.failures.min(6));
        self.failures += 1;
        self.not_before = Some(now + spread(doubled.min(LONGEST_BACKOFF), jitter).max(least));
    }

    /// It worked.
    pub(super) fn handle_success(&mut self) {
        *self = Self::default();
    }

    /// How often it failed since it last worked.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// How long it must still rest.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        let rest = self.not_before?.checked_duration_since(now)?;
        (!rest.is_zero()).then_some(rest)
    }
}

/// While somebody is missing: soon at first, when everybody starts at once, and then at a pace that twenty runners can keep up
/// without being refused by GitHub, whose limits are not public, and that costs a node half a cent an hour at S3's prices.
const QUICK: Duration = Duration::from_secs(1);
const QUICK_LATER: Duration = Duration::from_secs(5);

/// While all is well, links themselves tell what changes: this is for those who come late, and for the release.
pub(super) const CALM: Duration = Duration::from_secs(30);

/// The first retry is after half a second, the second after one and a half.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const TRIES: u32 = 3;

/// A refusal without a time: 1 s, 2 s, … 1 min.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "some moment to begin with")]
    fn some_time() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_request_is_made_three_times_and_not_at_once() {
        let waits: Vec<_> = (1..5).map(|tries| again(tries, 0.5)).collect();
        assert_eq!(
            waits,
            [
                Some(Duration::from_millis(500)),
                Some(Duration::from_millis(1500)),
                None,
                None
            ]
        );
        assert!(again(1, 0.0) < again(1, 1.0));
    }

    #[test]
    fn looks_are_quick_at_first_then_slower_and_rare_when_all_is_well() {
        let waits = [0, 4, 16, 1_000].map(|looks| pace(true, looks, 0.5).as_secs());
        assert_eq!(waits, [1, 2, 5, 5]);
        assert_eq!(pace(false, 0, 0.5).as_secs(), 30);
        assert_eq!(swayed(Duration::from_secs(10), 0.0).as_secs(), 8);
        assert_eq!(swayed(Duration::from_secs(10), 1.0).as_secs(), 12);
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_are_forgotten_after_a_success() {
        let now = some_time();
        let mut backoff = Backoff::default();
        assert_eq!(backoff.rest(now), None);
        for secs in [1, 2, 4, 8, 16, 32, 60, 60] {
            backoff.handle_failure(Duration::ZERO, 0.5, now);
            assert_eq!(backoff.rest(now), Some(Duration::from_secs(secs)));
        }
        assert_eq!(backoff.rest(now + Duration::from_secs(60)), None);
        backoff.handle_success();
        backoff.handle_failure(Duration::from_secs(300), 0.5, now);
        assert_eq!(backoff.rest(now), Some(Duration::from_secs(300)));
    }
}
