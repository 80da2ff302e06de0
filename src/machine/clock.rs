//! Clocks that all processes of this machine share.

use std::time::Duration;

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
