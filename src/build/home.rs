//! Which compiles this machine does itself although a worker could. Pure.
//!
//! A mesh may do harm in three ways; each has a measure and a remedy, so that a build with workers is never slower than one
//! without:
//!
//! - **The workers are full and this machine idles.** Then a compile runs here beside the others: a **spare** one, at the
//!   lowest priority and above the local limit, so that nothing that feeds the workers waits for it. No long one: it would be the
//!   last of the build to end.
//! - **Sending a compile takes this machine longer than compiling it.** Now and then one compile is done here to know: a
//!   **sample**. When that is the cheaper way, compiles **stay**; from time to time one is sent to see whether it still is.
//!   So they do while no worker takes any.
//! - **Nothing is left to start.** Then jobs that would end sooner here are called back, see [`Idle`]; dispatch also asks less of a
//!   worker that is so slow that this machine hardly notices it.
//!
//! A shim takes a **permit** to compile here from a pipe that only this policy fills, as make takes tokens.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::event::Load;

/// How a compile may run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permit {
    /// As any local job.
    Ordinary,
    /// At the lowest priority, beside the local limit.
    Spare,
}

/// Permits that should lie in the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Of which kind; all of them are.
    pub permit: Permit,
    /// How many.
    pub count: u32,
}

/// The build at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The clock.
    pub now: Instant,
    /// Jobs this machine may run at once.
    pub local: u32,
    /// Jobs that it runs, spare compiles aside.
    pub here: u32,
    /// Spare compiles that run.
    pub spare: u32,
    /// Others that run by a permit.
    pub kept: u32,
    /// The workers.
    pub load: Load,
}

/// What a job cost this machine and took its worker.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Until the whole request was in dispatch's hands.
    pub prepared: Duration,
    /// At the worker, the way there and back included.
    pub ran: Duration,
}

/// The policy, and what it has measured.
#[derive(Debug, Default)]
pub struct Home {
    sending: Mean,
    away: Mean,
    samples: Mean,
    spares: Mean,
    spare_weights: Mean,
    /// Seconds that spare compiles took.
    spared: f64,
    sources: Sources,
    /// Seconds that samples took.
    spent: f64,
    began: Option<Instant>,
    stays: bool,
    /// Since when one compile is wanted away, while they stay.
    last_sent: Option<Instant>,
    sampling: bool,
    idle_ticks: u32,
    /// The workers were full at the last look.
    full: bool,
}

impl Home {
    /// A compile of a source of this length goes to distcc.
    pub fn handle_sent(&mut self, source_bytes: Option<u64>, now: Instant) {
        if let Some(bytes) = source_bytes {
            self.sources.add(bytes);
        }
        self.began.get_or_insert(now);
        self.last_sent = Some(now);
    }

    /// A worker has answered.
    pub fn handle_answered(&mut self, sent: Sent) {
        self.sending.add((sent.prepared + CLIENT).as_secs_f64());
        self.away.add(sent.ran.as_secs_f64());
        self.judge();
    }

    /// A permit was taken.
    pub fn handle_kept(&mut self, permit: Permit) {
        self.sampling |= permit == Permit::Ordinary;
    }

    /// A compile by permit, of a source of this length, has ended.
    pub fn handle_compiled(&mut self, permit: Permit, took: Duration, source_bytes: Option<u64>) {
        let seconds = took.as_secs_f64();
        match permit {
            Permit::Spare => {
                self.spares.add(seconds);
                self.spared += seconds;
                let source_bytes = source_bytes.unwrap_or(self.sources.mean());
                self.spare_weights.add(weight(source_bytes));
            }
            Permit::Ordinary => {
                self.samples.add(seconds);
                self.spent += seconds;
                self.sampling = false;
            }
        }
        self.judge();
    }

    /// How long a compile takes here, once that is known. A spare one takes longer than it would alone.
    pub fn compile_time(&self) -> Option<Duration> {
        let known = self.time_here().or(self.samples.known(1));
        known.map(Duration::from_secs_f64)
    }

    /// By some samples, or else by spare compiles: one sample may be of any source.
    fn time_here(&self) -> Option<f64> {
        self.samples.known(ENOUGH_SAMPLES).or(self.spare_time())
    }

    /// The longest source that a spare compile may have: of usual length, or what it was if that is still about right.
    pub fn spare_at_most(&self, before: Option<u64>) -> Option<u64> {
        self.sources.usual(before)
    }

    /// How long a source of usual length takes, by the spare compiles, whose sources are the short ones.
    fn spare_time(&self) -> Option<f64> {
        let seconds = self.spares.known(ENOUGH_SAMPLES)?;
        let usual = weight(self.sources.mean()) / self.spare_weights.value;
        (self.spared >= ENOUGH_SPARED).then_some(seconds * usual)
    }

    /// Sending is what costs.
    pub fn stays(&self) -> bool {
        self.stays
    }

    /// For a person, while compiles stay: what sending one costs and what compiling one.
    pub fn verdict(&self) -> Option<(Duration, Duration)> {
        let sending = Duration::from_secs_f64(self.sending.known(1)?);
        self.stays
            .then(|| Some((sending, self.compile_time()?)))
            .flatten()
    }

    /// Whether the next look may offer what this one did not: idleness is believed only after some.
    pub fn is_settling(&self) -> bool {
        self.full && (1..STEADY_TICKS).contains(&self.idle_ticks)
    }

    /// How many permits should lie ready. Ask at every tick.
    pub fn offer(&mut self, moment: &Moment) -> Offer {
        let idle = moment.here + moment.spare < moment.local;
        // The load is a few milliseconds old: one tick of idleness is none.
        self.idle_ticks = if idle { self.idle_ticks + 1 } else { 0 };
        self.full = moment.load.in_dispatch > moment.load.capacity;
        if self.stays || moment.load.capacity == 0 {
            return self.offer_to_stay(moment);
        }
        if self.wants_sample(moment) {
            return Offer::ordinary(1);
        }
        Offer {
            permit: Permit::Spare,
            count: u32::from(self.full && self.idle_ticks >= STEADY_TICKS),
        }
    }

    /// More than make has tokens for, so that no compile meets an empty pipe, and no more, for ninja has no tokens; none when one
    /// is to go and see.
    fn offer_to_stay(&self, moment: &Moment) -> Offer {
        let due = |last: Instant| moment.now.duration_since(last) >= SEE_AGAIN;
        let look = self.last_sent.is_none_or(due);
        let most = if look { 0 } else { moment.local * 2 };
        Offer::ordinary(most.saturating_sub(moment.kept))
    }

    /// Only where sending may be the dearer way: a worker that takes many times as long as the sending compiles in earnest.
    fn wants_sample(&self, moment: &Moment) -> bool {
        let (Some(began), Some(sending), Some(away)) = (
            self.began,
            self.sending.known(ENOUGH_SENT),
            self.away.known(ENOUGH_SENT),
        ) else {
            return false;
        };
        let elapsed = moment.now.duration_since(began).as_secs_f64();
        let afforded = elapsed * f64::from(moment.local) * SAMPLES_SHARE;
        !self.sampling && away < sending * IN_EARNEST && self.spent <= afforded
    }

    fn judge(&mut self) {
        let sending = self.sending.known(ENOUGH_SENT);
        if let (Some(sending), Some(here)) = (sending, self.time_here()) {
            let margin = if self.stays { 1.0 / MARGIN } else { MARGIN };
            self.stays = sending > here * margin;
        }
    }
}

impl Offer {
    fn ordinary(count: u32) -> Self {
        Self {
            permit: Permit::Ordinary,
            count,
        }
    }
}

/// Finds out when this machine has nothing to do but wait for its workers.
#[derive(Debug, Default)]
pub struct Idle {
    since: Option<Instant>,
    called: Option<Instant>,
}

impl Idle {
    /// Something wants to start here.
    pub fn handle_wanted(&mut self) {
        self.since = None;
    }

    /// Whether jobs may come back without anything that happens.
    pub fn is_counting(&self) -> bool {
        self.since.is_some()
    }

    /// Nothing wants to start, jobs are away, and there is so much room here. Returns how many of them may come back now.
    pub fn handle_tick(&mut self, room: u32, now: Instant) -> u32 {
        let since = *self.since.get_or_insert(now);
        let rests = |since: Instant, span| now.duration_since(since) < span;
        if room == 0
            || rests(since, IDLE_FOR)
            || self.called.is_some_and(|called| rests(called, ARRIVES))
        {
            return 0;
        }
        self.called = Some(now);
        room
    }
}

/// How long sources are, to keep the long ones from a machine that compiles them beside other work.
#[derive(Debug, Default)]
struct Sources {
    total: u64,
    count: u64,
}

impl Sources {
    fn add(&mut self, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
        self.count += 1;
    }

    /// Zero before the first.
    fn mean(&self) -> u64 {
        self.total / self.count.max(1)
    }

    /// Their mean length once some are known, or what it was if that is still about right: shims read it from a file.
    fn usual(&self, before: Option<u64>) -> Option<u64> {
        if self.count < ENOUGH_SOURCES {
            return before;
        }
        let mean = self.mean();
        let near = |before: &u64| mean.abs_diff(*before) <= mean / 5;
        before.filter(near).or(Some(mean))
    }
}

/// What a compile of a source of this length takes beside others. Dispatch's guess is better, for it sees the request, too; a spare
/// compile makes none.
fn weight(source_bytes: u64) -> f64 {
    source_bytes as f64 + INCLUDED
}

/// An exponentially weighted mean that knows how many values are in it.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    value: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: f64) {
        // A stopped terminal, a dead file system: what stood still for minutes says nothing of the next compile.
        let known = self.count >= ENOUGH_TO_DOUBT && self.value > 0.0;
        let value = if known {
            value.min(self.value * DOUBTFUL)
        } else {
            value
        };
        self.count = self.count.saturating_add(1);
        let weight = NEWEST.max(1.0 / f64::from(self.count));
        self.value += weight * (value - self.value);
    }

    fn known(&self, enough: u32) -> Option<f64> {
        (self.count >= enough).then_some(self.value)
    }
}

/// After so many values one that is so many times the mean counts as if it were no more.
const ENOUGH_TO_DOUBT: u32 = 8;
const DOUBTFUL: f64 = 4.0;
/// What starting a shim and distcc takes, measured at 5 ms on an idle core: it comes before the request begins.
const CLIENT: Duration = Duration::from_millis(5);
/// A source takes ten times as long as another, so no single one decides.
const NEWEST: f64 = 0.1;
const ENOUGH_SENT: u32 = 8;
const ENOUGH_SOURCES: u64 = 8;
/// What a compile takes besides its source, in bytes of source: what it includes.
const INCLUDED: f64 = 20_000.0;
const ENOUGH_SAMPLES: u32 = 3;
/// Seconds of spare compiles: a short one may run in the burst that a CPU quota allows, three times as fast as all else.
const ENOUGH_SPARED: f64 = 1.0;
/// Of this machine's time; a large source then has none after it for a while.
const SAMPLES_SHARE: f64 = 0.02;
/// At a worker that is as fast as this machine the compiler would take that much longer than the preprocessor.
const IN_EARNEST: f64 = 4.0;
/// A difference that is worth a change.
const MARGIN: f64 = 1.1;
/// How long compiles stay before one is sent again.
const SEE_AGAIN: Duration = Duration::from_secs(10);
/// With ticks of 5 ms, against dispatch's 3 ms of gathering changes.
const STEADY_TICKS: u32 = 3;
/// A build that waits for its last jobs waits longer than this. make starts the next job within milliseconds; where a quota throttles
/// it, after some periods of it (100 ms each, `sched-bwc.rst` of the kernel).
const IDLE_FOR: Duration = Duration::from_millis(500);
/// Until a job that was called back is seen to run here.
const ARRIVES: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do as the epoch"
    )]
    fn epoch() -> Instant {
        Instant::now()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn moment(now: Instant, here: u32, spare: u32, capacity: u32, in_dispatch: u32) -> Moment {
        Moment {
            now,
            local: 2,
            here,
            spare,
            kept: 0,
            load: Load {
                capacity,
                in_dispatch,
                stranded: 0,
            },
        }
    }

    /// The offer once a situation lasts.
    fn steadily(home: &mut Home, moment: &Moment) -> Offer {
        for _ in 1..STEADY_TICKS {
            home.offer(moment);
        }
        home.offer(moment)
    }

    fn send(home: &mut Home, count: u32, prepared: u64, ran: u64) {
        for _ in 0..count {
            home.handle_answered(Sent {
                prepared: ms(prepared),
                ran: ms(ran),
            });
        }
    }

    /// Two clients were preprocessing when somebody stopped the terminal for five minutes.
    #[test]
    fn what_stood_still_decides_nothing() {
        let mut home = Home::default();
        send(&mut home, 20, 300, 2_000);
        for _ in 0..ENOUGH_SAMPLES {
            home.handle_compiled(Permit::Ordinary, ms(1_000), None);
        }
        send(&mut home, 2, 300_000, 2_000);
        assert!(!home.stays());
        send(&mut home, 40, 3_000, 2_000);
        assert!(home.stays(), "what lasts does");
    }

    #[test]
    fn a_spare_compile_is_offered_while_workers_are_full_and_this_machine_idles() {
        let (mut home, now) = (Home::default(), epoch());
        let spare = |count| Offer {
            permit: Permit::Spare,
            count,
        };
        for (here, running, capacity, in_dispatch, count) in [
            (0, 0, 8, 9, 1),
            (1, 0, 8, 9, 1),
            (0, 1, 8, 9, 1),
            (1, 1, 8, 9, 0),
            (2, 0, 8, 9, 0),
            (0, 0, 8, 8, 0),
        ] {
            let moment = moment(now, here, running, capacity, in_dispatch);
            assert_eq!(steadily(&mut home, &moment), spare(count), "{moment:?}");
        }
        home.offer(&moment(now, 2, 0, 8, 9));
        assert_eq!(home.offer(&moment(now, 0, 0, 8, 9)), spare(0), "not steady");
    }

    #[test]
    fn compiles_stay_when_sending_costs_more_and_go_again_when_it_no_longer_does() {
        let (mut home, start) = (Home::default(), epoch());
        home.handle_sent(None, start);
        send(&mut home, ENOUGH_SENT, 100, 50);
        let away = |now| moment(now, 1, 0, 8, 8);
        let mut now = start;
        for _ in 0..ENOUGH_SAMPLES {
            now += Duration::from_secs(10);
            assert_eq!(home.offer(&away(now)), Offer::ordinary(1), "a sample");
            home.handle_kept(Permit::Ordinary);
            assert_eq!(home.offer(&away(now)).count, 0, "one at a time");
            home.handle_compiled(Permit::Ordinary, ms(60), None);
        }
        assert!(home.stays());
        assert_eq!(home.verdict(), Some((ms(105), ms(60))));
        home.handle_sent(None, now);
        assert_eq!(home.offer(&away(now)), Offer::ordinary(4));
        let crowded = Moment {
            kept: 4,
            ..away(now)
        };
        assert_eq!(home.offer(&crowded), Offer::ordinary(0));
        assert_eq!(home.offer(&away(now + SEE_AGAIN)), Offer::ordinary(0));
        send(&mut home, 40, 10, 50);
        assert!(!home.stays());
        assert_eq!(home.verdict(), None);
    }

    #[test]
    fn samples_take_no_more_than_their_share_and_none_where_workers_compile_in_earnest() {
        let (mut home, start) = (Home::default(), epoch());
        home.handle_sent(None, start);
        send(&mut home, ENOUGH_SENT, 100, 500);
        assert_eq!(home.offer(&moment(start, 1, 0, 8, 8)).count, 0);

        let mut home = Home::default();
        home.handle_sent(None, start);
        send(&mut home, ENOUGH_SENT, 100, 100);
        let (mut samples, mut now) = (0, start);
        for _ in 0..10_000 {
            now += ms(10);
            if home.offer(&moment(now, 1, 0, 8, 8)) == Offer::ordinary(1) {
                home.handle_kept(Permit::Ordinary);
                home.handle_compiled(Permit::Ordinary, ms(1_000), None);
                samples += 1;
            }
        }
        // 100 s on two cores: 4 s of samples, and the first that was not yet known.
        assert_eq!(samples, 5);
        assert!(!home.stays());
    }

    #[test]
    fn what_spare_compiles_take_counts_by_the_length_of_their_sources() {
        let (mut home, start) = (Home::default(), epoch());
        home.handle_sent(Some(180_000), start);
        let spare = |home: &mut Home| {
            home.handle_compiled(Permit::Spare, ms(400), Some(20_000));
            home.compile_time()
        };
        assert_eq!([spare(&mut home), spare(&mut home)], [None; 2]);
        let usual = spare(&mut home).unwrap();
        assert_eq!(
            usual.as_millis(),
            2_000,
            "200 KB with what it includes, not 40"
        );
        home.handle_compiled(Permit::Spare, ms(400), None);
        assert!(home.compile_time().unwrap() < usual);
    }

    #[test]
    fn the_usual_length_of_sources_changes_only_when_it_is_no_longer_about_right() {
        let mut sources = Sources::default();
        for _ in 1..ENOUGH_SOURCES {
            sources.add(1_000);
        }
        assert_eq!(sources.usual(None), None);
        sources.add(1_000);
        assert_eq!(sources.usual(None), Some(1_000));
        sources.add(2_000);
        assert_eq!(sources.usual(Some(1_000)), Some(1_000));
        sources.add(9_000);
        assert_eq!(sources.usual(Some(1_000)), Some(1_900));
    }

    #[test]
    fn jobs_come_back_after_some_idle_time_and_then_whenever_there_is_room() {
        let (mut idle, start) = (Idle::default(), epoch());
        assert_eq!(idle.handle_tick(2, start), 0);
        idle.handle_wanted();
        assert_eq!(idle.handle_tick(2, start + ms(200)), 0);
        assert_eq!(idle.handle_tick(2, start + ms(600)), 0);
        assert_eq!(idle.handle_tick(2, start + ms(700)), 2);
        let seen = idle.handle_tick(2, start + ms(800));
        assert_eq!(seen, 0, "they are on their way");
        assert_eq!(idle.handle_tick(0, start + ms(850)), 0);
        assert_eq!(idle.handle_tick(1, start + ms(860)), 1);
        idle.handle_wanted();
        assert_eq!(idle.handle_tick(1, start + ms(1_100)), 0);
    }
}
