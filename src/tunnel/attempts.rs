//! When a connection is tried again that did not last. Pure.
//!
//! A peer that will not connect (another version, a key that is not its descriptor's) will not a moment later either. Whoever begins may
//! see its connection stand before the peer has judged it (TLS 1.3), so one that ends soon has failed, too.

use std::time::{Duration, Instant};

/// The connections to one peer, one after the other.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    stands_since: Option<Instant>,
    /// Those that failed since one lasted.
    failures: u32,
    not_before: Option<Instant>,
}

impl Attempts {
    /// One stands.
    pub(super) fn handle_connected(&mut self, now: Instant) {
        self.stands_since = Some(now);
    }

    /// It has ended, or never stood; returns when the next may begin.
    pub(super) fn handle_closed(&mut self, now: Instant) -> Instant {
        let stood = self.stands_since.take();
        if stood.is_some_and(|since| now >= since + LASTING) {
            *self = Self::default();
            return now;
        }
        let pause = RETRY * 2_u32.saturating_pow(self.failures.min(DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        *self.not_before.insert(now + pause)
    }

    /// There is a new path: what stood in the way may be gone.
    pub(super) fn handle_path(&mut self) {
        self.not_before = None;
    }

    /// Lets time pass.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.not_before.take_if(|at| *at <= now);
    }

    /// When [`Attempts::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.not_before
    }

    /// Whether the next may begin.
    pub(super) fn may_begin(&self) -> bool {
        self.not_before.is_none()
    }

    /// Whether the last failure makes it worth telling: it is no chance any more.
    pub(super) fn are_in_vain(&self) -> bool {
        self.failures == IN_VAIN
    }
}

/// Longer than any round trip: by then the peer has judged.
const LASTING: Duration = Duration::from_secs(2);

/// After a failure by chance the next attempt is a second later; a peer that refuses for good costs a handshake every half minute.
const RETRY: Duration = Duration::from_secs(1);
const DOUBLINGS: u32 = 5;

const IN_VAIN: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do as the epoch"
    )]
    fn pauses_double_to_half_a_minute_until_a_connection_lasts() {
        let start = Instant::now();
        let (mut attempts, mut now) = (Attempts::default(), start);
        let mut pauses = Vec::new();
        for n in 0..8 {
            // As seen by whoever begins: it stands for a moment.
            if n % 2 == 0 {
                attempts.handle_connected(now);
            }
            let due = attempts.handle_closed(now);
            assert_eq!(attempts.are_in_vain(), n == 2);
            assert_eq!(attempts.poll_timeout(), Some(due));
            assert!(!attempts.may_begin());
            pauses.push((due - now).as_secs());
            now = due;
            attempts.handle_timeout(now);
            assert!(attempts.may_begin());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
        attempts.handle_connected(now);
        assert_eq!(attempts.handle_closed(now + LASTING), now + LASTING);
        assert!(attempts.may_begin());
        assert_eq!(attempts.handle_closed(now), now + RETRY);
        attempts.handle_path();
        assert!(attempts.may_begin());
    }
}
