//! Which job runs on which worker. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::session::PeerId;

/// One job, in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// What a worker can do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// Compiles at once.
    pub slots: u32,
    /// Its link is up: neither suspect nor down.
    pub live: bool,
    /// The compilers (the primary's paths) that it was admitted for.
    pub compilers: BTreeSet<String>,
}

/// What the shell does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Attempt the job there; an attempt elsewhere that still runs is abandoned.
    Assign {
        /// The job.
        job: JobId,
        /// Where.
        worker: PeerId,
    },
    /// No live worker can do the job now.
    Strand {
        /// The job.
        job: JobId,
    },
    /// The job failed too often: it is stranded for good.
    GiveUp {
        /// The job.
        job: JobId,
        /// The last fault.
        reason: String,
    },
}

/// A job that kills four compilers will kill a fifth; the local compile tells why.
const MAX_ATTEMPTS: u32 = 4;
/// Weight of the newest measurement in a worker's mean duration.
const NEWEST: f64 = 0.2;

#[derive(Debug, Default)]
struct Worker {
    can: Capability,
    running: BTreeSet<JobId>,
    mean_s: Option<f64>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Queued,
    Running(PeerId),
    Stranded,
    GivenUp,
}

#[derive(Debug)]
struct Job {
    compiler: String,
    preferred: Option<PeerId>,
    tried: Vec<PeerId>,
    state: State,
}

/// Assigns jobs to workers: least loaded by capacity and measured speed, never more than a worker's slots.
#[derive(Debug, Default)]
pub struct Scheduler {
    workers: BTreeMap<PeerId, Worker>,
    jobs: BTreeMap<JobId, Job>,
    waiting: BTreeSet<JobId>,
    decisions: VecDeque<Decision>,
}

impl Scheduler {
    /// A worker came, changed, or went (`live` is false).
    pub fn handle_worker(&mut self, peer: PeerId, can: Capability) {
        let worker = self.workers.entry(peer).or_default();
        worker.can = can;
        if !worker.can.live {
            self.move_jobs_off(peer);
        }
        self.schedule();
    }

    /// A whole request was read.
    pub fn handle_job(&mut self, job: JobId, compiler: String, preferred: Option<PeerId>) {
        let new = Job {
            compiler,
            preferred,
            tried: Vec::new(),
            state: State::Queued,
        };
        self.jobs.insert(job, new);
        self.waiting.insert(job);
        self.schedule();
    }

    /// The attempt failed by its worker's fault.
    pub fn handle_attempt_failed(&mut self, job: JobId, reason: &str) {
        let Some(peer) = self.release(job) else {
            return;
        };
        let Some(failed) = self.jobs.get_mut(&job) else {
            return;
        };
        failed.tried.push(peer);
        if failed.tried.len() as u32 >= MAX_ATTEMPTS {
            failed.state = State::GivenUp;
            let reason = reason.to_owned();
            self.decisions.push_back(Decision::GiveUp { job, reason });
        } else {
            failed.state = State::Queued;
            self.waiting.insert(job);
        }
        self.schedule();
    }

    /// The job was answered after so many seconds on its worker.
    pub fn handle_done(&mut self, job: JobId, seconds: f64) {
        if let Some(worker) = self
            .release(job)
            .and_then(|peer| self.workers.get_mut(&peer))
        {
            let mean = worker.mean_s.unwrap_or(seconds);
            worker.mean_s = Some(mean + NEWEST * (seconds - mean));
        }
        self.handle_cancel(job);
    }

    /// The client went away, or its job was handed back.
    pub fn handle_cancel(&mut self, job: JobId) {
        self.release(job);
        self.jobs.remove(&job);
        self.waiting.remove(&job);
        self.schedule();
    }

    /// What to do next; drain it after every input.
    pub fn poll_event(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    /// No live worker can do this job.
    pub fn is_stranded(&self, job: JobId) -> bool {
        let state = self.jobs.get(&job).map(|job| &job.state);
        matches!(state, Some(State::Stranded | State::GivenUp))
    }

    /// Slots of all live workers.
    pub fn capacity(&self) -> u32 {
        let live = self.workers.values().filter(|worker| worker.can.live);
        live.fold(0, |sum, worker| sum.saturating_add(worker.can.slots))
    }

    /// Jobs that run on a worker now.
    pub fn running_on(&self, peer: PeerId) -> usize {
        self.workers
            .get(&peer)
            .map_or(0, |worker| worker.running.len())
    }

    /// The silence is the link's: it does not count as an attempt of the job.
    fn move_jobs_off(&mut self, peer: PeerId) {
        let Some(worker) = self.workers.get_mut(&peer) else {
            return;
        };
        for job in std::mem::take(&mut worker.running) {
            if let Some(moved) = self.jobs.get_mut(&job) {
                moved.state = State::Queued;
                self.waiting.insert(job);
            }
        }
    }

    fn release(&mut self, job: JobId) -> Option<PeerId> {
        let State::Running(peer) = self.jobs.get(&job)?.state else {
            return None;
        };
        self.workers.get_mut(&peer)?.running.remove(&job);
        Some(peer)
    }

    fn schedule(&mut self) {
        for id in self.waiting.clone() {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            match self.choose(job) {
                Choice::Worker(worker) => self.assign(id, worker),
                Choice::Wait => self.set_state(id, State::Queued),
                Choice::Nobody => {
                    if job.state != State::Stranded {
                        self.decisions.push_back(Decision::Strand { job: id });
                    }
                    self.set_state(id, State::Stranded);
                }
            }
        }
    }

    fn assign(&mut self, job: JobId, worker: PeerId) {
        self.waiting.remove(&job);
        self.set_state(job, State::Running(worker));
        if let Some(chosen) = self.workers.get_mut(&worker) {
            chosen.running.insert(job);
        }
        self.decisions.push_back(Decision::Assign { job, worker });
    }

    fn set_state(&mut self, job: JobId, state: State) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.state = state;
        }
    }

    /// A worker that failed this job gets it again only when every other admitted one failed it as often.
    fn choose(&self, job: &Job) -> Choice {
        let failures = |peer: &PeerId| job.tried.iter().filter(|tried| *tried == peer).count();
        let able = || {
            self.workers.iter().filter(|(_, worker)| {
                worker.can.live
                    && worker.can.slots > 0
                    && worker.can.compilers.contains(&job.compiler)
            })
        };
        let Some(fewest) = able().map(|(peer, _)| failures(peer)).min() else {
            return Choice::Nobody;
        };
        let free = able().filter(|(peer, worker)| {
            failures(peer) == fewest && worker.running.len() < worker.can.slots as usize
        });
        let best = free.min_by(|a, b| {
            let by_load = self.load(a.1).total_cmp(&self.load(b.1));
            by_load.then_with(|| (job.preferred != Some(*a.0)).cmp(&(job.preferred != Some(*b.0))))
        });
        best.map_or(Choice::Wait, |(peer, _)| Choice::Worker(*peer))
    }

    /// How full the worker would be, weighted by how slow it is against the others. Sources differ, so speed counts for
    /// no more than a factor of two.
    fn load(&self, worker: &Worker) -> f64 {
        let means: Vec<f64> = self
            .workers
            .values()
            .filter_map(|worker| worker.mean_s)
            .collect();
        let all = means.iter().sum::<f64>() / means.len().max(1) as f64;
        let slowness = worker
            .mean_s
            .filter(|_| all > 0.0)
            .map_or(1.0, |mean| (mean / all).clamp(0.5, 2.0));
        (worker.running.len() + 1) as f64 / f64::from(worker.can.slots) * slowness
    }
}

enum Choice {
    Worker(PeerId),
    Wait,
    Nobody,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn gcc(slots: u32, live: bool) -> Capability {
        let compilers = BTreeSet::from(["gcc".to_owned()]);
        Capability {
            slots,
            live,
            compilers,
        }
    }

    fn drain(scheduler: &mut Scheduler) -> Vec<Decision> {
        std::iter::from_fn(|| scheduler.poll_event()).collect()
    }

    fn assign(job: u64, worker: u8) -> Decision {
        Decision::Assign {
            job: JobId(job),
            worker: peer(worker),
        }
    }

    #[test]
    fn a_job_waits_when_slots_are_full_and_runs_when_one_is_free() {
        let mut s = Scheduler::default();
        s.handle_worker(peer(1), gcc(1, true));
        s.handle_job(JobId(1), "gcc".into(), None);
        s.handle_job(JobId(2), "gcc".into(), None);
        assert_eq!(drain(&mut s), [assign(1, 1)]);
        s.handle_done(JobId(1), 1.0);
        assert_eq!(drain(&mut s), [assign(2, 1)]);
    }

    #[test]
    fn a_failed_attempt_goes_to_an_untried_worker_and_the_fourth_is_the_last() {
        let mut s = Scheduler::default();
        s.handle_worker(peer(1), gcc(4, true));
        s.handle_worker(peer(2), gcc(4, true));
        s.handle_job(JobId(1), "gcc".into(), Some(peer(2)));
        assert_eq!(drain(&mut s), [assign(1, 2)]);
        s.handle_attempt_failed(JobId(1), "x");
        assert_eq!(drain(&mut s), [assign(1, 1)]);
        s.handle_attempt_failed(JobId(1), "x");
        s.handle_attempt_failed(JobId(1), "x");
        drain(&mut s);
        s.handle_attempt_failed(JobId(1), "x");
        assert!(matches!(drain(&mut s)[..], [Decision::GiveUp { .. }]));
        assert!(s.is_stranded(JobId(1)));
    }

    #[test]
    fn a_stranded_job_is_dispatched_when_an_admitted_worker_comes() {
        let mut s = Scheduler::default();
        s.handle_job(JobId(1), "gcc".into(), None);
        assert_eq!(drain(&mut s), [Decision::Strand { job: JobId(1) }]);
        s.handle_worker(
            peer(1),
            Capability {
                compilers: BTreeSet::new(),
                ..gcc(1, true)
            },
        );
        assert_eq!(drain(&mut s), []);
        s.handle_worker(peer(2), gcc(1, true));
        assert_eq!(drain(&mut s), [assign(1, 2)]);
        s.handle_worker(peer(2), gcc(1, false));
        assert_eq!(drain(&mut s), [Decision::Strand { job: JobId(1) }]);
    }

    proptest! {
        #[test]
        fn no_worker_is_overfull_and_no_job_is_lost(steps in prop::collection::vec((0u8..5, 0u8..4, any::<bool>()), 1..80)) {
            let (mut s, mut next, mut open) = (Scheduler::default(), 0, BTreeSet::new());
            for (what, n, flag) in steps {
                let job = JobId(u64::from(n) * 3);
                match what {
                    0 => { s.handle_worker(peer(n), gcc(u32::from(n), flag)); }
                    1 => { s.handle_job(JobId(next), "gcc".into(), Some(peer(n))); open.insert(JobId(next)); next += 1; }
                    2 => s.handle_attempt_failed(job, "x"),
                    3 => { s.handle_done(job, 1.0); open.remove(&job); }
                    _ => { s.handle_cancel(job); open.remove(&job); }
                }
                drain(&mut s);
                for worker in s.workers.values() {
                    prop_assert!(!worker.can.live || worker.running.len() <= worker.can.slots as usize || what == 0);
                    prop_assert!(worker.can.live || worker.running.is_empty());
                }
                let running: usize = s.workers.values().map(|worker| worker.running.len()).sum();
                let given_up = s.jobs.values().filter(|job| job.state == State::GivenUp).count();
                prop_assert_eq!(running + given_up + s.waiting.len(), open.len());
            }
        }
    }
}
