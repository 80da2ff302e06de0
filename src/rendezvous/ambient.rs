//! What the shells of services take from around them: the clock, chance, and a lock.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under a lock is whole before anything in it can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clock that tokio's tests can move.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// From 0 to 1. Without randomness everybody waits equally long, which is no more than unfortunate.
pub(super) fn jitter() -> f64 {
    let mut byte = [128];
    let _ = getrandom::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}
