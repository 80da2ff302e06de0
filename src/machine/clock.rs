//! Clocks that all processes of this machine share, and moments that timers of this process share.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the system's monotonic clock: what another process read after this one is never smaller.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (now.tv_sec as u64, now.tv_nsec as u64);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// How long this machine has been suspended since it started: what the monotonic clock does not count.
#[cfg(target_os = "linux")]
pub fn suspended() -> Duration {
    let at = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    // In this order, so that the time between the two calls is not taken for a suspend.
    let [boot, monotonic] = [ClockId::Boottime, ClockId::Monotonic].map(at);
    boot.saturating_sub(monotonic)
}

/// Elsewhere the peers' silence after a suspend has to do.
#[cfg(not(target_os = "linux"))]
pub fn suspended() -> Duration {
    Duration::ZERO
}

/// Says when the runtime was made, at once when it was: its timer wheel turns since. Only the first counts.
pub fn start_steps(now: Instant) {
    let _ = STARTED.set(now);
}

/// The first moment, not before this one, at which tokio's wheel turns by a step of 64 ms anyhow. A timer between two steps wakes its thread
/// twice, when the wheel turns and when it is due; those that have no hurry take a step each, and share it. A wake-up of a machine that
/// idles costs more than most of what is done in it.
#[must_use]
pub fn in_step(due: Instant) -> Instant {
    STARTED.get().map_or(due, |started| step(*started, due))
}

fn step(started: Instant, due: Instant) -> Instant {
    let since = due.saturating_duration_since(started) + EARLY;
    let steps = since.as_nanos().div_ceil(STEP.as_nanos());
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    (started + STEP * steps - EARLY).max(due)
}

static STARTED: OnceLock<Instant> = OnceLock::new();

/// A slot of the wheel's second level (`tokio/src/runtime/time/wheel`).
const STEP: Duration = Duration::from_millis(64);

/// tokio rounds up to a millisecond of its own, which began a moment earlier than ours: some ten microseconds, with threads to start some
/// hundred.
const EARLY: Duration = Duration::from_micros(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment serves as the first")]
    fn a_moment_is_put_off_to_the_next_step_and_never_brought_forward() {
        let started = Instant::now();
        let at = |us: u64| started + Duration::from_micros(us);
        for (due, step_us) in [
            (0, 63_500),
            (63_500, 63_500),
            (63_501, 127_500),
            (1_000_000, 1_023_500),
        ] {
            assert_eq!(step(started, at(due)), at(step_us), "{due}");
        }
    }
}
