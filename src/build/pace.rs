//! When to look at tokens again. Pure.
//!
//! What makes room tells of itself: a token comes back through a pipe, a job comes and goes through dispatch. So the desk sleeps
//! until something happens. On a primary with a share of a core, a clock of 5 ms took a quarter of that share.

use std::time::{Duration, Instant};

/// The next look, by the last one and by what has happened since.
#[derive(Debug)]
pub(super) struct Pace {
    last: Instant,
    due: Instant,
}

/// How soon something that happened wants a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stir {
    /// It changes nothing.
    None,
    /// What follows will stir again; a look sees to what does not follow.
    Lazy,
    /// At once.
    Now,
}

/// What another look may find although nothing happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Something is under way that tells nothing of itself.
    Changing,
    /// Tokens that one make leaves and another would take: neither tells.
    Shared,
    /// Something that ends, or falls due, without a word.
    Waiting,
    /// Only what time brings.
    Still,
}

/// Changes come in swarms: one look sees all of 5 ms, which is short beside any compile.
const SOON: Duration = Duration::from_millis(5);
const SHARED: Duration = Duration::from_millis(50);
/// A client whose job has ended writes its object, ends, and its make returns its token.
const LAZY: Duration = Duration::from_millis(30);
/// Nothing that waits for time alone waits for less than half a second.
const WAITING: Duration = Duration::from_millis(250);
/// Memory, and what nobody told of. A look in an idle moment finds its caches cold, and costs 0.15 ms of CPU for that.
const STILL: Duration = Duration::from_secs(1);

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: now,
            due: now,
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Something happened.
    pub(super) fn handle_stir(&mut self, stir: Stir, now: Instant) {
        let due = match stir {
            Stir::None => return,
            Stir::Lazy => now + LAZY,
            Stir::Now => (self.last + SOON).max(now),
        };
        self.due = self.due.min(due);
    }

    /// A look is done.
    pub(super) fn handle_tick(&mut self, outlook: Outlook, now: Instant) {
        self.last = now;
        self.due = now
            + match outlook {
                Outlook::Changing => SOON,
                Outlook::Shared => SHARED,
                Outlook::Waiting => WAITING,
                Outlook::Still => STILL,
            };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment serves as the first")]
    fn a_look_comes_at_once_after_a_quiet_time_and_not_too_often_in_a_busy_one() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut pace = Pace::new(start);
        pace.handle_tick(Outlook::Still, at(0));
        assert_eq!(pace.due(), at(1_000));
        pace.handle_stir(Stir::Lazy, at(10));
        pace.handle_stir(Stir::Lazy, at(15));
        assert_eq!(pace.due(), at(40));
        pace.handle_stir(Stir::None, at(16));
        pace.handle_stir(Stir::Now, at(20));
        assert_eq!(pace.due(), at(20));
        pace.handle_tick(Outlook::Shared, at(20));
        assert_eq!(pace.due(), at(70));
        pace.handle_stir(Stir::Now, at(22));
        pace.handle_stir(Stir::Now, at(24));
        assert_eq!(pace.due(), at(25));
        pace.handle_tick(Outlook::Changing, at(25));
        assert_eq!(pace.due(), at(30));
    }
}
