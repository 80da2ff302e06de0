//! Waiting.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

const LOOK: Duration = Duration::from_millis(20);

pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until it holds.
///
/// # Panics
/// When the limit is over.
pub(crate) fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let since = now();
    while !holds() {
        assert!(since.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(LOOK);
    }
}
