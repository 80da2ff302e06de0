//! A clock that all processes of this machine share.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the system's monotonic clock: what another process read after this one is never smaller.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (now.tv_sec as u64, now.tv_nsec as u64);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}
