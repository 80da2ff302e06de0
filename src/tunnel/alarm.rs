//! The one timer of the tunnel's loop.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep_until};

use crate::machine::clock::in_step;

/// Rings at the earliest moment that it was set for. Too soon costs one turn of the loop; to set it anew in each, as acknowledgements move
/// the deadline to and fro, costs more.
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    set_for: Instant,
}

impl Alarm {
    /// Rings at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sleep: Box::pin(sleep_until(now.into())),
            set_for: now,
        }
    }

    /// Rings then, or before.
    pub(super) fn set(&mut self, deadline: Instant, now: Instant) {
        if deadline >= self.set_for && !self.sleep.is_elapsed() {
            return;
        }
        self.set_for = deadline;
        let patient = deadline.saturating_duration_since(now) >= PATIENT;
        let at = if patient { in_step(deadline) } else { deadline };
        self.sleep.as_mut().reset(at.into());
    }

    /// Waits for it.
    pub(super) async fn rung(&mut self) {
        self.sleep.as_mut().await;
    }
}

/// A deadline so far away is none of an acknowledgement or of a loss on a short path: it may be some tens of milliseconds late.
const PATIENT: Duration = Duration::from_millis(150);
