//! Probing one candidate: when to ping, which pong counts, how far away it is.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{probe::Size, route::Route, transaction::TransactionId};
use crate::session::CandidateKind;

/// How eagerly a candidate is pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cadence {
    /// No path yet: fast while the filters open, then each second, for ever.
    Knock,
    /// The path in use.
    Path,
    /// Another address of a peer that has a path: keep the mapping, notice a better way.
    Standby,
    /// The peer went silent: find any way to it.
    Burst,
}

/// The probing of one candidate.
#[derive(Debug)]
pub(super) struct Punch {
    pub(super) route: Route,
    pub(super) kind: CandidateKind,
    next: Instant,
    last_sent: Option<Instant>,
    knocks: u32,
    outstanding: VecDeque<Outstanding>,
    unanswered: u32,
    last_answer: Option<Instant>,
    /// When a short ping was answered, and it was not known whether a full one would be.
    narrow_answer: Option<Instant>,
    /// When a ping came from here, or the candidate was learnt.
    mentioned: Instant,
    rtt: Option<Duration>,
    /// Until then its probes are not to arrive.
    near_until: Option<Instant>,
    width: Width,
}

/// Whether full datagrams get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// So many have been sent since it was in doubt.
    Asked(u32),
    /// One was answered.
    Proven,
}

/// What a pong says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing that was asked, or nothing new.
    Stray,
    /// Short packets get through; whether full ones do is not known.
    Narrow,
    /// The candidate can be used.
    Usable,
}

/// A ping that was not answered yet.
#[derive(Debug)]
struct Outstanding {
    id: TransactionId,
    sent: Instant,
    /// This node ran all the time since, so the time until the pong is the path's.
    timed: bool,
}

impl Punch {
    /// Starts at once.
    pub(super) fn new(route: Route, kind: CandidateKind, now: Instant) -> Self {
        Self {
            route,
            kind,
            next: now,
            last_sent: None,
            knocks: 0,
            outstanding: VecDeque::new(),
            unanswered: 0,
            last_answer: None,
            narrow_answer: None,
            mentioned: now,
            rtt: None,
            near_until: None,
            width: Width::Asked(0),
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// Whether the next ping has no hurry: nobody waits for one that only says "still here".
    pub(super) fn is_patient(&self) -> bool {
        self.last_sent.is_some_and(|sent| self.next >= sent + EACH)
    }

    /// Whether it is time for a ping if others go at the same time. A patient one goes with that of another link's path, or with the
    /// answer to the peer's, so that the pings of all links soon go in one wake-up.
    pub(super) fn may_join(&self, now: Instant) -> bool {
        self.is_patient() && self.next <= now + LEEWAY
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// How long the next ping has to be. Full ones are many only as long as there is hope.
    pub(super) fn size(&self) -> Size {
        let rarely = self.knocks % RARELY == RARELY - 1;
        match self.width {
            Width::Asked(full) if full < MANY || rarely => Size::Full,
            Width::Asked(_) | Width::Proven => Size::Short,
        }
    }

    /// What is between may be another thing from now on.
    pub(super) fn doubt_width(&mut self) {
        self.width = Width::Asked(0);
    }

    /// Begins with pings that are no longer than the one that was heard from there.
    pub(super) fn begin_short(&mut self) {
        self.width = Width::Asked(MANY);
    }

    /// Whether short packets got through lately, and no full one has since that is in doubt.
    pub(super) fn is_narrow(&self, now: Instant) -> bool {
        let lately = |at| now.saturating_duration_since(at) <= NARROW_FOR;
        self.width != Width::Proven && self.narrow_answer.is_some_and(lately)
    }

    /// A ping of that size is on its way.
    pub(super) fn handle_sent(
        &mut self,
        (id, size): (TransactionId, Size),
        cadence: Cadence,
        now: Instant,
    ) {
        let meant_to_arrive = !self.is_near(now);
        if let (Size::Full, Width::Asked(full)) = (size, &mut self.width)
            && meant_to_arrive
        {
            *full = full.saturating_add(1);
        }
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(Outstanding {
            id,
            sent: now,
            timed: true,
        });
        self.next = now + self.gap(cadence);
        self.last_sent = Some(now);
        self.knocks = self.knocks.saturating_add(1);
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// Takes a pong from this address.
    pub(super) fn handle_answer(
        &mut self,
        (id, size): (&TransactionId, Size),
        now: Instant,
    ) -> Answer {
        let Some(index) = self.outstanding.iter().position(|ping| ping.id == *id) else {
            return Answer::Stray;
        };
        let ping = self.outstanding.remove(index);
        if size == Size::Full {
            self.width = Width::Proven;
        }
        if let Width::Asked(full) = self.width {
            // The first in a while: the way has just opened.
            let full = if self.is_narrow(now) { full } else { 0 };
            self.width = Width::Asked(full);
            self.narrow_answer = Some(now);
            if full < MANY {
                self.hurry(now);
            }
            return Answer::Narrow;
        }
        if let Some(ping) = ping.filter(|ping| ping.timed) {
            self.measure(now.saturating_duration_since(ping.sent));
        }
        self.unanswered = 0;
        self.last_answer = Some(now);
        Answer::Usable
    }

    /// The path in use answered: it is asked again a second after the last ping, whatever was planned when that was sent.
    pub(super) fn rest(&mut self) {
        if let Some(sent) = self.last_sent {
            self.next = sent + EACH;
        }
    }

    /// The peer was heard without a ping. One that only says "still here" waits for as long again, but not for ever: pings also measure.
    pub(super) fn handle_traffic(&mut self, now: Instant) {
        if let Some(sent) = self.last_sent
            && self.is_patient()
        {
            self.next = self.next.max((now + EACH).min(sent + STANDBY));
        }
    }

    /// A ping came from here.
    pub(super) fn handle_mention(&mut self, now: Instant) {
        self.mentioned = now;
    }

    /// For a while the probes are only to open our own NAT.
    pub(super) fn keep_near(&mut self, until: Instant) {
        self.near_until = Some(until);
    }

    pub(super) fn is_near(&self, now: Instant) -> bool {
        self.near_until.is_some_and(|until| now < until)
    }

    /// Not now.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.next = now + EACH;
    }

    /// Pings next no later than `at`, but never faster than a burst.
    pub(super) fn hurry(&mut self, at: Instant) {
        let earliest = self.last_sent.map_or(at, |sent| at.max(sent + BURST));
        self.next = self.next.min(earliest);
    }

    /// Knocks as if the candidate was new.
    pub(super) fn restart(&mut self, now: Instant) {
        self.knocks = 0;
        if self.width != Width::Proven {
            self.doubt_width();
        }
        self.hurry(now);
    }

    /// This node was not running: what comes now says nothing about the round-trip time, and nothing was left unanswered.
    pub(super) fn handle_stall(&mut self) {
        for ping in &mut self.outstanding {
            ping.timed = false;
        }
        self.unanswered = 0;
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Pings since the last pong.
    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Whether a pong came within `span`.
    pub(super) fn answered_within(&self, span: Duration, now: Instant) -> bool {
        self.last_answer
            .is_some_and(|at| now.saturating_duration_since(at) <= span)
    }

    /// Since anybody said or showed that the peer is here.
    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        let latest = self.last_answer.unwrap_or(self.mentioned);
        now.saturating_duration_since(latest.max(self.mentioned))
    }

    fn gap(&self, cadence: Cadence) -> Duration {
        match cadence {
            Cadence::Knock => knock_gap(self.knocks),
            Cadence::Path => self.path_retry(),
            Cadence::Standby => STANDBY,
            Cadence::Burst => BURST,
        }
    }

    fn path_retry(&self) -> Duration {
        let patience = self.rtt.unwrap_or_default() * 3 / 2;
        patience.clamp(PATH_RETRY, EACH)
    }

    /// Smoothed as TCP does it (RFC 6298): one slow answer doesn't move a path.
    fn measure(&mut self, sample: Duration) {
        self.rtt = Some(self.rtt.map_or(sample, |smooth| (smooth * 7 + sample) / 8));
    }
}

/// Pings at 0, 200, 500 and 1,000 ms open two filters within a second; then one a second, since a mapping may appear at any time.
fn knock_gap(sent: u32) -> Duration {
    let ms = [200, 300, 500].get(sent as usize).copied();
    ms.map_or(EACH, Duration::from_millis)
}

const EACH: Duration = Duration::from_secs(1);
/// Half of it: then one of two nodes that ping each other is always drawn to the other, and pings of one node to each other.
const LEEWAY: Duration = Duration::from_millis(500);
/// An unanswered ping on the path is repeated soon: eight of them fit into the 3 s that make a peer suspect, so that loss alone
/// hardly ever does. A long path is given its time.
const PATH_RETRY: Duration = Duration::from_millis(250);
/// NAT mappings live 30 s and more (RFC 4787 asks for 120); 5 s keeps several tries in hand, and 256 workers cheap.
const STANDBY: Duration = Duration::from_secs(5);
/// Five a second and candidate, only while a peer is suspect.
const BURST: Duration = Duration::from_millis(200);
/// The knocks of the first second, that open two filters: a kilobyte each.
const MANY: u32 = 4;
/// A way that is too narrow is asked whether it still is every few seconds.
const RARELY: u32 = 5;
/// Three standby rounds of 5 s: a way that has answered nothing for longer may have been shut, and another since.
const NARROW_FOR: Duration = Duration::from_secs(15);
/// Three seconds of burst: an answer that takes longer is no use.
const MAX_OUTSTANDING: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do as the epoch"
    )]
    fn punch() -> (Punch, Instant) {
        let now = Instant::now();
        let remote = Route::Direct("192.0.2.1:4000".parse().unwrap());
        (Punch::new(remote, CandidateKind::Host, now), now)
    }

    fn sent(punch: &mut Punch, n: u8, cadence: Cadence, now: Instant) {
        punch.handle_sent(([n; 12], Size::Full), cadence, now);
    }

    fn answered(punch: &mut Punch, n: u8, now: Instant) -> bool {
        punch.handle_answer((&[n; 12], Size::Full), now) == Answer::Usable
    }

    #[test]
    fn knocks_at_0_200_500_and_1000_ms_then_each_second_for_ever() {
        let (mut punch, start) = punch();
        let mut knocks = Vec::new();
        for n in 0..100 {
            let now = punch.poll_timeout();
            assert!(punch.is_due(now));
            knocks.push((now - start).as_millis());
            sent(&mut punch, n, Cadence::Knock, now);
        }
        assert_eq!(knocks[..6], [0, 200, 500, 1_000, 2_000, 3_000]);
        assert_eq!(knocks[99], 97_000);
    }

    #[test]
    fn the_path_is_pinged_each_second_while_it_answers_and_sooner_when_not() {
        let (mut punch, start) = punch();
        sent(&mut punch, 1, Cadence::Path, start);
        assert_eq!(punch.poll_timeout(), start + PATH_RETRY);
        assert!(!punch.is_due(start + PATH_RETRY - Duration::from_millis(1)));
        assert!(answered(&mut punch, 1, start + Duration::from_millis(30)));
        punch.rest();
        assert_eq!(punch.poll_timeout(), start + EACH);
    }

    #[test]
    fn a_path_that_answers_is_pinged_with_others_but_not_twice_as_often() {
        let (mut punch, start) = punch();
        sent(&mut punch, 1, Cadence::Path, start);
        assert!(answered(&mut punch, 1, start));
        punch.rest();
        assert!(!punch.may_join(start + LEEWAY - Duration::from_millis(1)));
        assert!(punch.may_join(start + LEEWAY));
        assert!(!punch.is_due(start + LEEWAY), "nor alone");
        punch.hurry(start + LEEWAY * 3 / 2);
        assert!(
            !punch.may_join(start + LEEWAY),
            "in trouble it has a time of its own"
        );
    }

    #[test]
    fn a_path_that_carries_traffic_is_pinged_a_second_after_it_and_every_five_at_the_least() {
        let (mut punch, start) = punch();
        let after = |ms: u64| start + Duration::from_millis(ms);
        sent(&mut punch, 1, Cadence::Path, start);
        punch.handle_traffic(after(100));
        assert_eq!(punch.poll_timeout(), start + PATH_RETRY, "not answered yet");
        assert!(answered(&mut punch, 1, after(100)));
        punch.rest();
        punch.handle_traffic(after(700));
        assert_eq!(punch.poll_timeout(), after(1_700));
        for ms in (1_000..8_000).step_by(100) {
            punch.handle_traffic(after(ms));
        }
        assert_eq!(punch.poll_timeout(), start + STANDBY);
    }

    #[test]
    fn a_standby_that_becomes_the_path_is_pinged_as_one() {
        let (mut punch, start) = punch();
        sent(&mut punch, 1, Cadence::Standby, start);
        assert!(answered(&mut punch, 1, start));
        punch.rest();
        assert_eq!(punch.poll_timeout(), start + EACH);
    }

    #[test]
    fn a_pong_counts_once_and_only_for_an_outstanding_ping() {
        let (mut punch, now) = punch();
        sent(&mut punch, 1, Cadence::Knock, now);
        assert!(!answered(&mut punch, 2, now));
        assert!(answered(&mut punch, 1, now));
        assert!(!answered(&mut punch, 1, now), "replayed");
    }

    #[test]
    fn outstanding_pings_are_bounded_and_the_oldest_is_forgotten() {
        let (mut punch, now) = punch();
        for n in 0..=16 {
            sent(&mut punch, n, Cadence::Burst, now);
        }
        assert_eq!(punch.outstanding.len(), MAX_OUTSTANDING);
        assert!(!answered(&mut punch, 0, now));
        assert!(answered(&mut punch, 1, now));
    }

    #[test]
    fn a_stall_of_our_own_is_not_a_slow_path() {
        let (mut punch, now) = punch();
        sent(&mut punch, 1, Cadence::Path, now);
        punch.handle_stall();
        assert!(answered(&mut punch, 1, now + Duration::from_secs(5)));
        assert_eq!(punch.rtt(), None);
    }

    #[test]
    fn hurrying_never_exceeds_the_burst_rate() {
        let (mut punch, now) = punch();
        sent(&mut punch, 1, Cadence::Standby, now);
        punch.hurry(now);
        assert_eq!(punch.poll_timeout(), now + BURST);
    }

    #[test]
    fn a_way_that_answers_short_pings_alone_is_of_no_use_and_is_asked_less_and_less() {
        let (mut punch, mut now) = punch();
        let mut full = Vec::new();
        for n in 0..40 {
            let size = punch.size();
            punch.handle_sent(([n; 12], size), Cadence::Knock, now);
            match size {
                Size::Full => full.push(n),
                Size::Short => {
                    let answer = punch.handle_answer((&[n; 12], Size::Short), now);
                    assert_eq!(answer, Answer::Narrow);
                    assert!(punch.is_narrow(now));
                }
            }
            now += EACH;
        }
        // After the first short answer there is hope once more.
        assert_eq!(full, [0, 1, 2, 3, 4, 6, 7, 8, 9, 14, 19, 24, 29, 34, 39]);
        assert_eq!(
            (punch.rtt(), punch.answered_within(EACH * 60, now)),
            (None, false)
        );
        sent(&mut punch, 40, Cadence::Knock, now);
        assert!(answered(&mut punch, 40, now));
        assert!(!punch.is_narrow(now));
        assert_eq!(punch.size(), Size::Short, "proven");
        punch.doubt_width();
        assert_eq!(punch.size(), Size::Full);
    }

    #[test]
    fn a_short_ping_from_nowhere_gets_nothing_longer_until_it_is_answered() {
        let (mut punch, now) = punch();
        punch.begin_short();
        assert_eq!(punch.size(), Size::Short);
        punch.handle_sent(([1; 12], Size::Short), Cadence::Knock, now);
        punch.handle_answer((&[1; 12], Size::Short), now);
        assert_eq!(punch.size(), Size::Full);
    }

    #[test]
    fn what_dies_on_the_way_does_not_count() {
        let (mut punch, now) = punch();
        punch.keep_near(now + EACH);
        for n in 0..6 {
            punch.handle_sent(([n; 12], Size::Full), Cadence::Knock, now);
        }
        assert_eq!(punch.size(), Size::Full);
    }

    #[test]
    fn a_short_answer_is_followed_by_a_full_ping_at_once() {
        let (mut punch, now) = punch();
        punch.handle_sent(([1; 12], Size::Short), Cadence::Standby, now);
        assert_eq!(
            punch.handle_answer((&[1; 12], Size::Short), now),
            Answer::Narrow
        );
        assert_eq!(
            (punch.poll_timeout(), punch.size()),
            (now + BURST, Size::Full)
        );
    }
}
