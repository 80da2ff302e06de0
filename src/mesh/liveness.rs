//! Is the peer there? From its signs of life to one of four states.
//!
//! ```text
//! punching ──answer──▶ up ──3 s silent──▶ suspect ──10 s silent──▶ down
//!                      ▲────2 answers────────┘                       │
//!                      └────────────────2 answers───────────────────┘
//! ```

use std::time::{Duration, Instant};

/// What is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It never answered.
    Punching,
    /// It answers.
    Up,
    /// It has been silent for a while.
    Suspect,
    /// It has been silent for long.
    Down,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// From punching or down.
    Up,
    /// From up.
    Suspect { silent_for: Duration },
    /// From suspect to up.
    Recovered,
    /// From suspect.
    Down,
}

/// One peer's liveness.
#[derive(Debug)]
pub(super) struct Liveness {
    state: State,
    heard: Instant,
    /// While suspect or down: the answer that still needs a second one.
    first_answer: Option<Instant>,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Punching,
            heard: now,
            first_answer: None,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// The peer answered a ping.
    pub(super) fn handle_answer(&mut self, now: Instant) -> Option<Change> {
        self.heard = now;
        match self.state {
            State::Punching => Some(self.rise(Change::Up)),
            State::Up => None,
            State::Suspect => self.is_second(now).then(|| self.rise(Change::Recovered)),
            State::Down => self.is_second(now).then(|| self.rise(Change::Up)),
        }
    }

    /// The peer sent authenticated data. It proves only that its packets reach us, so it keeps a path, but makes none.
    pub(super) fn handle_traffic(&mut self, now: Instant) -> Option<Change> {
        match self.state {
            State::Up | State::Suspect => self.handle_answer(now),
            State::Punching | State::Down => None,
        }
    }

    /// Moves on when the peer has been silent for too long. Call until it returns `None`.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Change> {
        self.poll_timeout().filter(|due| *due <= now)?;
        self.first_answer = None;
        if self.state == State::Up {
            self.state = State::Suspect;
            let silent_for = now.saturating_duration_since(self.heard);
            return Some(Change::Suspect { silent_for });
        }
        self.state = State::Down;
        Some(Change::Down)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Up => Some(self.heard + SUSPECT_AFTER),
            State::Suspect => Some(self.heard + DOWN_AFTER),
            State::Punching | State::Down => None,
        }
    }

    /// This node itself was not running for `gap`: that silence is not the peer's.
    pub(super) fn extend(&mut self, gap: Duration, now: Instant) {
        self.heard = (self.heard + gap).min(now);
    }

    fn rise(&mut self, change: Change) -> Change {
        self.state = State::Up;
        self.first_answer = None;
        change
    }

    fn is_second(&mut self, now: Instant) -> bool {
        let Some(first) = self.first_answer else {
            self.first_answer = Some(now);
            return false;
        };
        let apart = now.saturating_duration_since(first);
        if apart > ANSWERS_TOGETHER {
            self.first_answer = Some(now);
        }
        (ANSWERS_APART..=ANSWERS_TOGETHER).contains(&apart)
    }
}

/// At 20 % loss each way, eight unanswered pings (see `punch.rs`) are 3 in 10,000; a job is worth a duplicate then.
const SUSPECT_AFTER: Duration = Duration::from_secs(3);
/// A NAT that lost its state needs about this long to be found again through the rendezvous.
const DOWN_AFTER: Duration = Duration::from_secs(10);
/// Answers of one burst to several candidates are one sign of life, not two.
const ANSWERS_APART: Duration = Duration::from_millis(100);
/// Two answers further apart than this are two accidents, not a working path.
const ANSWERS_TOGETHER: Duration = Duration::from_millis(1_500);

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do as the epoch"
    )]
    fn up() -> (Liveness, Instant) {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        assert_eq!(liveness.handle_answer(start), Some(Change::Up));
        (liveness, start)
    }

    fn suspect() -> (Liveness, Instant) {
        let (mut liveness, start) = up();
        liveness.handle_timeout(start + ms(3_000)).unwrap();
        (liveness, start)
    }

    #[test]
    fn three_seconds_of_silence_are_suspect_and_ten_are_down() {
        let (mut liveness, start) = up();
        assert_eq!(liveness.handle_timeout(start + ms(2_999)), None);
        let silent_for = ms(3_000);
        assert_eq!(
            liveness.handle_timeout(start + silent_for),
            Some(Change::Suspect { silent_for })
        );
        assert_eq!(liveness.handle_timeout(start + ms(9_999)), None);
        assert_eq!(
            liveness.handle_timeout(start + ms(10_000)),
            Some(Change::Down)
        );
        assert_eq!(liveness.poll_timeout(), None);
    }

    #[test]
    fn suspicion_ends_with_two_answers_that_are_apart_but_not_far() {
        let (mut liveness, start) = suspect();
        assert_eq!(liveness.handle_answer(start + ms(4_000)), None);
        assert_eq!(
            liveness.handle_answer(start + ms(4_050)),
            None,
            "same burst"
        );
        assert_eq!(liveness.handle_answer(start + ms(6_000)), None, "too late");
        assert_eq!(
            liveness.handle_answer(start + ms(6_200)),
            Some(Change::Recovered)
        );
    }

    #[test]
    fn a_path_that_answers_now_and_then_is_neither_up_nor_down() {
        let (mut liveness, start) = suspect();
        for second in (4..60).step_by(4) {
            let now = start + Duration::from_secs(second);
            assert_eq!(liveness.handle_timeout(now), None);
            assert_eq!(liveness.handle_answer(now), None);
        }
        assert_eq!(liveness.state(), State::Suspect);
    }

    #[test]
    fn traffic_keeps_a_path_but_makes_none() {
        let (mut liveness, start) = up();
        for second in 1..20 {
            let now = start + Duration::from_secs(second);
            assert_eq!(liveness.handle_traffic(now), None);
            assert_eq!(liveness.handle_timeout(now), None);
        }
        let mut fresh = Liveness::new(start);
        assert_eq!(fresh.handle_traffic(start), None);
        assert_eq!(fresh.state(), State::Punching);
    }

    #[test]
    fn an_own_stall_moves_the_deadline_but_never_into_the_future() {
        let (mut liveness, start) = up();
        let now = start + ms(6_000);
        liveness.extend(ms(5_000), now);
        assert_eq!(liveness.handle_timeout(now), None);
        assert_eq!(liveness.poll_timeout(), Some(start + ms(8_000)));
        liveness.extend(ms(60_000), now);
        assert_eq!(liveness.poll_timeout(), Some(now + SUSPECT_AFTER));
    }
}
