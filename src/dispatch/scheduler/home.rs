//! What the machine that the jobs come from can do for itself, and so whether others are of use.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use super::{Attempt, Job, JobId, LONGEST, Scheduler, Worker};
use crate::session::PeerId;

impl Scheduler {
    /// The jobs' own machine compiles one of usual cost in so long.
    pub fn handle_home(&mut self, seconds: f64) {
        self.at_home = Some(seconds);
    }

    /// Of these jobs so many that their own machine, which is idle, should take back: first what a worker should have answered long
    /// ago, the oldest first; then what waits and would end sooner there, the last of the queue first.
    pub fn better_at_home(
        &self,
        jobs: impl Iterator<Item = JobId>,
        most: usize,
        now: Instant,
    ) -> Vec<JobId> {
        let known = jobs.filter_map(|id| Some((id, self.jobs.get(&id)?)));
        let (mut waiting, away): (Vec<_>, Vec<_>) =
            known.partition(|(_, job)| job.attempts.is_empty());
        waiting.sort_by_key(|(id, job)| Reverse(job.turn(*id)));
        let queue = self.queue_lasts(now);
        let late = away.iter().filter(|(_, job)| self.is_late(job, now));
        let waiting = waiting
            .iter()
            .filter(|(_, job)| self.ends_sooner_at_home(job, queue, now));
        late.chain(waiting).map(|(id, _)| *id).take(most).collect()
    }

    /// Whether it has been with workers for much longer than it takes at home. A job that takes long at a worker as fast as this
    /// machine is a long one, and would take as long here once more.
    fn is_late(&self, job: &Job, now: Instant) -> bool {
        let newest = job.attempts.iter().map(|attempt| attempt.since).max();
        let (Some(newest), Some(home)) = (newest, self.pace_at_home()) else {
            return false;
        };
        let late = (home * job.cost() * LATE_FOR_HOME).min(LONGEST.as_secs_f64());
        let late = Duration::from_secs_f64(late).max(LATE_FOR_HOME_AT_LEAST);
        let outdone = |attempt: &Attempt| {
            let worker = self.workers.get(&attempt.on);
            let pace = worker.and_then(|worker| worker.standing.proven_pace());
            pace.is_none_or(|pace| pace >= home * OUTDONE)
                || self.is_stuck(*attempt, job.cost(), now)
        };
        now.saturating_duration_since(newest) >= late && job.attempts.iter().all(outdone)
    }

    /// Whether a job that waits would end sooner at home than as the last one of the queue, which takes so long to begin.
    fn ends_sooner_at_home(&self, job: &Job, queue: Option<Duration>, now: Instant) -> bool {
        let away = queue.and_then(|queue| Some(queue + self.expected(job.cost())?));
        match (self.pace_at_home(), away) {
            (Some(home), Some(away)) => home * job.cost() <= away.as_secs_f64(),
            _ => now.saturating_duration_since(job.arrived) >= WAITS_AT_MOST,
        }
    }

    /// How long the workers need for what waits; `None` until enough jobs have been seen.
    fn queue_lasts(&self, now: Instant) -> Option<Duration> {
        let waiting = self.waiting.iter().map(|turn| self.jobs.get(&turn.job));
        let times = waiting.flatten().map(|job| self.expected(job.cost()));
        Some(times.sum::<Option<Duration>>()? / self.capacity(now).max(1))
    }

    /// The job goes home because it is late: that counts as a measurement of those who have it.
    pub fn handle_called_back(&mut self, job: JobId, now: Instant) {
        if let Some(late) = self.jobs.get(&job) {
            let cost = late.cost();
            for attempt in late.attempts.clone() {
                self.note_outrun(attempt, cost, now);
            }
        }
        self.handle_cancel(job, now);
    }

    /// Workers so slow that the jobs' own machine hardly notices their help: they are only tried now and then.
    pub fn is_negligible(&self, peer: PeerId) -> bool {
        let worker = self.workers.get(&peer);
        worker.is_some_and(|worker| worker.is_live() && self.helps_too_little(worker))
    }

    /// How much longer it gets no job.
    pub(super) fn rests_for(&self, worker: &Worker, now: Instant) -> Duration {
        let benched = worker.standing.benched_for(now);
        match self.helps_too_little(worker) {
            true => benched.max(worker.standing.rests_for(TRIAL_EVERY, now)),
            false => benched,
        }
    }

    /// All its slots together are worth less than a small part of one core at home.
    pub(super) fn helps_too_little(&self, worker: &Worker) -> bool {
        let (Some(home), Some(pace)) = (self.pace_at_home(), worker.standing.proven_pace()) else {
            return false;
        };
        f64::from(worker.can.slots) * home < pace * NEGLIGIBLE
    }

    /// Seconds per unit of cost on the jobs' own machine.
    fn pace_at_home(&self) -> Option<f64> {
        let known = self.at_home.filter(|_| self.usual_cost > 0.0);
        known.map(|seconds| seconds / self.usual_cost)
    }
}

/// An idle machine takes back what nobody has begun for so long, where nobody knows better, …
pub(super) const WAITS_AT_MOST: Duration = Duration::from_millis(500);
/// … and what has taken this many times as long as it would at home, …
const LATE_FOR_HOME: f64 = 4.0;
/// … from a worker that takes longer than that and then the time at home: from any other nothing would be won.
const OUTDONE: f64 = LATE_FOR_HOME + 1.0;
const LATE_FOR_HOME_AT_LEAST: Duration = Duration::from_secs(2);
/// A worker that is worth less than this part of one of the primary's cores: its last job would cost more than all it did.
const NEGLIGIBLE: f64 = 0.25;
/// How often such a worker gets a job, to see whether it has become quicker.
pub(super) const TRIAL_EVERY: Duration = Duration::from_secs(30);
