//! Jobs whose only attempt is in doubt, and their second attempts.

use std::time::{Duration, Instant};

use super::{Attempt, Choice, Decision, ENOUGH, Job, JobId, LONGEST, Presence, Scheduler, Worker};
use crate::session::PeerId;

impl Scheduler {
    /// Gives another attempt to jobs that have none but doubtful ones.
    pub(super) fn double_doubtful(&mut self, now: Instant) {
        self.overdue.clear();
        let mut doubtful: Vec<_> = self
            .jobs
            .iter()
            .filter_map(|(id, job)| Some((*id, self.doubt(job, now)?)))
            .collect();
        doubtful.sort_by_key(|(id, doubt)| (*doubt, *id));
        let mut hedges = self.jobs.values().filter(|job| job.hedged).count();
        let most = (self.capacity(now) as usize / HEDGED_SHARE).max(1);
        for (id, doubt) in doubtful {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            let hedge = doubt != Doubt::Silent;
            let idle = self.waiting.is_empty();
            let allowed = |worker| match doubt {
                Doubt::Silent => true,
                Doubt::Stuck => idle || hedges < most,
                Doubt::Slow => idle && self.has_time(worker),
            };
            match self.choose(job, now) {
                Choice::Worker(worker) if allowed(worker) => {
                    self.double(id, worker, hedge, now);
                    hedges += usize::from(hedge);
                }
                Choice::Nobody if doubt == Doubt::Silent => self.set_stranded(id, true),
                Choice::Worker(_) | Choice::Wait | Choice::Nobody => {
                    self.set_stranded(id, false);
                    // A slot that becomes free goes to who waits in the same moment: to this one first.
                    let quota = hedges + self.overdue.len() < most;
                    if doubt == Doubt::Silent || doubt == Doubt::Stuck && quota {
                        self.overdue.insert(id);
                    }
                }
            }
        }
    }

    /// Gives those a slot first for which there was none when they were found.
    pub(super) fn double_overdue(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.overdue) {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            let doubt = self.doubt(job, now);
            match (doubt, self.choose(job, now)) {
                (Some(doubt @ (Doubt::Silent | Doubt::Stuck)), Choice::Worker(worker)) => {
                    self.double(id, worker, doubt != Doubt::Silent, now);
                }
                (Some(_), _) => drop(self.overdue.insert(id)),
                (None, _) => {}
            }
        }
    }

    /// Two attempts at a time are enough: of two at silent workers the older one ends.
    fn double(&mut self, id: JobId, worker: PeerId, hedge: bool, now: Instant) {
        let attempts = self.jobs.get(&id).map(|job| job.attempts.as_slice());
        if let Some([oldest, _]) = attempts {
            let worker = oldest.on;
            self.end_attempt(id, worker);
            self.decisions
                .push_back(Decision::Abandon { job: id, worker });
        }
        self.assign(id, worker, hedge, now);
    }

    /// A race costs nobody anything. A slot is not a core: with more of them than that, each further job slows the others.
    fn has_time(&self, peer: PeerId) -> bool {
        let worker = self.workers.get(&peer);
        worker.is_some_and(|worker| worker.running.len() * 2 < worker.can.slots as usize)
    }

    /// Why a job's attempt is in doubt, if it is; of two, both have to be at workers that are silent.
    fn doubt(&self, job: &Job, now: Instant) -> Option<Doubt> {
        let is_silent = |attempt: &Attempt| {
            let worker = self.workers.get(&attempt.on);
            worker.is_some_and(|worker| worker.can.presence == Presence::Silent)
        };
        if !job.attempts.is_empty() && job.attempts.iter().all(is_silent) {
            return Some(Doubt::Silent);
        }
        let [attempt] = job.attempts[..] else {
            return None;
        };
        if self.is_stuck(attempt, job.cost(), now) {
            return Some(Doubt::Stuck);
        }
        let age = now.saturating_duration_since(attempt.since);
        let late = self.expected(job.cost())? * LATE;
        (age >= late.max(LATE_AT_LEAST)).then_some(Doubt::Slow)
    }

    /// The attempt is far too late, and its worker has answered nothing since it began.
    pub(super) fn is_stuck(&self, attempt: Attempt, cost: f64, now: Instant) -> bool {
        let age = now.saturating_duration_since(attempt.since);
        let expected = self.expected(cost).unwrap_or(UNKNOWN);
        let worker = self.workers.get(&attempt.on);
        let answers = |worker: &Worker| worker.standing.has_answered_since(attempt.since);
        age >= (expected * FAR_TOO_LATE).max(STUCK_AT_LEAST) && !worker.is_some_and(answers)
    }

    /// How long a job of this cost takes; `None` until enough have been seen.
    pub(super) fn expected(&self, cost: f64) -> Option<Duration> {
        let seconds = (self.typical * cost).clamp(0.0, LONGEST.as_secs_f64());
        (self.answers >= ENOUGH).then(|| Duration::from_secs_f64(seconds))
    }
}

/// Why a job's only attempt may never be answered; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    /// Its worker's link is silent.
    Silent,
    /// Its worker answers nothing.
    Stuck,
    /// It takes longer than others of its size.
    Slow,
}

/// A slot that nobody wants, of a worker that is not half busy, may race against an attempt this many times longer than expected, …
const LATE: u32 = 2;
const LATE_AT_LEAST: Duration = Duration::from_millis(500);
/// … and one that is wanted, where nothing comes from a worker for so long: compile times of equal sizes differ by less.
const FAR_TOO_LATE: u32 = 5;
const STUCK_AT_LEAST: Duration = Duration::from_secs(3);
/// What is expected of a job as long as nothing is known: a translation unit that takes longer is rare.
const UNKNOWN: Duration = Duration::from_secs(4);
/// At most a quarter of the slots races while others wait.
const HEDGED_SHARE: usize = 4;
