//! What a worker has shown of itself: how fast it is, and whether its attempts fail. Pure.

use std::time::{Duration, Instant};

/// A worker's measured speed and its recent faults.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Seconds per unit of cost, smoothed.
    pace: Option<f64>,
    /// Attempts that failed in a row; those that broke together count once.
    faults: u32,
    last_fault: Option<Instant>,
    last_done: Option<Instant>,
    measured: u32,
}

impl Standing {
    /// An attempt was answered.
    pub(super) fn handle_done(&mut self, cost: f64, seconds: f64, now: Instant) {
        self.measure(seconds / cost);
        self.faults = 0;
        self.last_fault = None;
        self.last_done = Some(now);
    }

    /// An attempt that began `since` failed by the worker's fault.
    pub(super) fn handle_fault(&mut self, since: Instant, now: Instant) {
        if self.last_fault.is_none_or(|last| since >= last) {
            self.faults = self.faults.saturating_add(1);
            self.last_fault = Some(now);
        }
    }

    /// A second attempt elsewhere was faster; this one had not ended after so many seconds.
    pub(super) fn handle_outrun(&mut self, cost: f64, seconds: f64) {
        if self.pace.is_some_and(|pace| pace < seconds / cost) {
            self.measure(seconds / cost);
        }
    }

    /// Whatever went wrong before has been mended.
    pub(super) fn forgive(&mut self) {
        self.faults = 0;
        self.last_fault = None;
    }

    /// Its pace, once that is no accident.
    pub(super) fn proven_pace(&self) -> Option<f64> {
        self.pace.filter(|_| self.measured >= PROVEN)
    }

    /// How much longer it rests when it is to have a job only so often.
    pub(super) fn rests_for(&self, every: Duration, now: Instant) -> Duration {
        let until = self.last_done.map(|done| done + every);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Whether anything was answered since then.
    pub(super) fn has_answered_since(&self, then: Instant) -> bool {
        self.last_done.is_some_and(|done| done > then)
    }

    /// How much longer it gets no job; zero if it gets some.
    pub(super) fn benched_for(&self, now: Instant) -> Duration {
        let Some(fault) = self.last_fault else {
            return Duration::ZERO;
        };
        (fault + penalty(self.faults)).saturating_duration_since(now)
    }

    /// How much slower than `typical` it is; 1 until it is known.
    pub(super) fn slowness(&self, typical: f64) -> f64 {
        let known = self.pace.filter(|_| typical > 0.0);
        known.map_or(1.0, |pace| (pace / typical).clamp(FASTEST, SLOWEST))
    }

    /// How many of its slots are of use: one while it has to prove itself again, fewer when it is much slower than others.
    pub(super) fn useful_slots(&self, slots: u32, typical: f64, now: Instant) -> u32 {
        if !self.benched_for(now).is_zero() {
            return 0;
        }
        if self.faults > 0 {
            return slots.min(1);
        }
        let share = (STILL_FULL / self.slowness(typical)).min(1.0);
        // Rounded: of two slots the second goes only when that much of it is of no use.
        let useful = (f64::from(slots) * share).round() as u32;
        useful.max(slots.min(1))
    }

    fn measure(&mut self, pace: f64) {
        self.measured = self.measured.saturating_add(1);
        let mean = self.pace.unwrap_or(pace);
        // One job that hung says little of the next; a worker that has become slow is found out by some.
        let pace = if self.measured > PROVEN {
            pace.min(mean * DOUBTFUL)
        } else {
            pace
        };
        self.pace = Some(mean + NEWEST * (pace - mean));
    }
}

/// A quarter of a second after the first fault, twice as long after each that follows.
fn penalty(faults: u32) -> Duration {
    let doublings = faults.saturating_sub(1).min(16);
    (FIRST_PENALTY * 2_u32.pow(doublings)).min(LONGEST_PENALTY)
}

/// Answers after which one source that is harder than others no longer decides.
const PROVEN: u32 = 5;
/// What takes so many times as long as usual counts as if it had taken no longer.
const DOUBTFUL: f64 = 8.0;
/// Weight of the newest measurement.
const NEWEST: f64 = 0.2;
/// Sources differ, so one worker's luck counts for no more than this …
const FASTEST: f64 = 0.5;
/// … and a worker this slow is as good as none.
const SLOWEST: f64 = 64.0;
/// Up to twice as slow as others a worker is worth all of its slots.
const STILL_FULL: f64 = 2.0;
/// A broken stream is forgotten before anybody notices; a distccd that answers nonsense is asked less and less.
const FIRST_PENALTY: Duration = Duration::from_millis(250);
const LONGEST_PENALTY: Duration = Duration::from_secs(30);

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

    #[test]
    fn faults_in_a_row_bench_for_longer_and_longer_until_one_job_succeeds() {
        let (mut standing, mut now) = (Standing::default(), epoch());
        let mut penalties = Vec::new();
        for _ in 0..9 {
            standing.handle_fault(now, now);
            penalties.push(standing.benched_for(now).as_millis());
            assert_eq!(standing.useful_slots(4, 1.0, now), 0);
            now += standing.benched_for(now);
            assert_eq!(standing.useful_slots(4, 1.0, now), 1, "on trial");
        }
        assert_eq!(penalties[..4], [250, 500, 1_000, 2_000]);
        assert_eq!(penalties[8], 30_000);
        standing.handle_done(1.0, 1.0, now);
        assert_eq!(standing.useful_slots(4, 1.0, now), 4);
    }

    #[test]
    fn what_breaks_together_is_one_fault() {
        let (mut standing, start) = (Standing::default(), epoch());
        let broke = start + ms(500);
        for n in 0..8 {
            standing.handle_fault(start, broke + ms(n));
        }
        assert_eq!(standing.benched_for(broke), FIRST_PENALTY);
    }

    #[test]
    fn one_job_that_hung_does_not_make_a_worker_slow_and_some_slow_ones_do() {
        let (mut standing, now) = (Standing::default(), epoch());
        for _ in 0..10 {
            standing.handle_done(1.0, 1.0, now);
        }
        standing.handle_done(1.0, 600.0, now);
        assert_eq!(standing.useful_slots(4, 1.0, now), 3);
        for _ in 0..8 {
            standing.handle_done(1.0, 60.0, now);
        }
        assert_eq!(standing.useful_slots(4, 1.0, now), 1);
    }

    #[test]
    fn a_slow_worker_gets_what_it_can_chew() {
        for (seconds, slots) in [(0.5, 8), (2.0, 8), (4.0, 4), (16.0, 1), (900.0, 1)] {
            let (mut standing, now) = (Standing::default(), epoch());
            standing.handle_done(1.0, seconds, now);
            assert_eq!(standing.useful_slots(8, 1.0, now), slots, "{seconds}");
        }
    }
}
