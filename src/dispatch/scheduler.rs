//! Which job runs on which worker. Pure.
//!
//! A job has one attempt at a time, unless its worker is in doubt: silent, failing, or much slower than others would be. Then a
//! second one runs beside it, and the first answer wins.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

mod doubt;
mod home;

use super::standing::Standing;
use crate::{event::Compiler, session::PeerId};

/// One job, in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Whether a worker's link carries jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Live,
    /// It has been silent for a moment: it gets no new job, and its jobs are attempted elsewhere too.
    Silent,
    /// It does not: its jobs' streams are gone.
    #[default]
    Gone,
}

/// What a worker can do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// Compiles at once.
    pub slots: u32,
    /// Its link.
    pub presence: Presence,
    /// The primary's compilers that it was admitted for.
    pub compilers: BTreeSet<Compiler>,
}

/// A whole request, as far as scheduling goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// The primary's compiler.
    pub compiler: Compiler,
    /// The worker that distcc would like.
    pub preferred: Option<PeerId>,
    /// Length of the request.
    pub bytes: u64,
    /// Length of the source without what it includes, if that is known.
    pub source_bytes: Option<u64>,
}

/// What the shell does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Attempt the job there; an attempt elsewhere goes on.
    Assign {
        /// The job.
        job: JobId,
        /// Where.
        worker: PeerId,
        /// Only because the attempt that runs is slow.
        hedge: bool,
    },
    /// Stop the attempt there, whose worker is gone.
    Abandon {
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

#[derive(Debug, Default)]
struct Worker {
    can: Capability,
    running: BTreeSet<JobId>,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attempt {
    on: PeerId,
    since: Instant,
}

#[derive(Debug)]
struct Job {
    spec: JobSpec,
    /// Whose fault an attempt was that failed.
    tried: Vec<PeerId>,
    /// Oldest first.
    attempts: Vec<Attempt>,
    hedged: bool,
    stranded: bool,
    given_up: bool,
    arrived: Instant,
    /// Before which it should begin, see [`Turn`].
    begin_by: Instant,
}

/// A place in the queue. A job that takes long should begin early, or the build waits for it alone at its end; but nobody waits for
/// ever. So a job goes before those that came earlier by no more than four times what it takes longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    begin_by: Instant,
    job: JobId,
}

/// Assigns jobs to workers: least loaded by capacity and measured speed, never more than a worker's slots.
#[derive(Debug, Default)]
pub struct Scheduler {
    workers: BTreeMap<PeerId, Worker>,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs without an attempt.
    waiting: BTreeSet<Turn>,
    /// Jobs whose attempt is in doubt, and for which no slot was free.
    overdue: BTreeSet<JobId>,
    decisions: VecDeque<Decision>,
    /// Seconds per unit of cost over all workers, smoothed, and from how many answers.
    typical: f64,
    answers: u32,
    /// Cost of a job, smoothed; 0 before the first. And from how many jobs.
    usual_cost: f64,
    costs: u32,
    /// Seconds that a job of usual cost takes on the machine that it comes from.
    at_home: Option<f64>,
}

impl Scheduler {
    /// A worker came, changed, or went.
    pub fn handle_worker(&mut self, peer: PeerId, can: Capability, now: Instant) {
        let worker = self.workers.entry(peer).or_default();
        let mended = worker.can.slots == 0 || worker.can.presence == Presence::Gone;
        worker.can = can;
        if mended {
            worker.standing.forgive();
        }
        match worker.can.presence {
            Presence::Gone => self.end_attempts_on(peer),
            Presence::Live => self.trust_attempts_on(peer),
            Presence::Silent => {}
        }
        self.serve_waiting(now);
        self.double_doubtful(now);
    }

    /// A worker will never come back.
    pub fn handle_ghost(&mut self, peer: PeerId, now: Instant) {
        self.handle_worker(peer, Capability::default(), now);
        self.workers.remove(&peer);
    }

    /// A whole request was read.
    pub fn handle_job(&mut self, job: JobId, spec: JobSpec, now: Instant) {
        let mut new = Job {
            spec,
            tried: Vec::new(),
            attempts: Vec::new(),
            hedged: false,
            stranded: false,
            given_up: false,
            arrived: now,
            begin_by: now + LONGEST * HASTE,
        };
        let expected = self.expected(new.cost()).unwrap_or_default();
        new.begin_by -= expected * HASTE;
        self.note_usual_cost(new.cost());
        self.waiting.insert(new.turn(job));
        self.jobs.insert(job, new);
        self.serve_waiting(now);
    }

    /// The attempt failed by its worker's fault.
    pub fn handle_attempt_failed(
        &mut self,
        job: JobId,
        worker: PeerId,
        reason: &str,
        now: Instant,
    ) {
        let Some(attempt) = self.end_attempt(job, worker) else {
            return;
        };
        let Some(failed) = self.jobs.get_mut(&job) else {
            return;
        };
        if let Some(on) = self.workers.get_mut(&worker) {
            on.standing.handle_fault(attempt.since, now);
        }
        failed.tried.push(worker);
        if failed.attempts.is_empty() {
            if failed.tried.len() >= MAX_ATTEMPTS {
                failed.given_up = true;
                let reason = reason.to_owned();
                self.decisions.push_back(Decision::GiveUp { job, reason });
            } else {
                self.waiting.insert(failed.turn(job));
            }
        }
        self.serve_waiting(now);
    }

    /// The job was answered after so many seconds on this worker.
    pub fn handle_done(&mut self, job: JobId, worker: PeerId, seconds: f64, now: Instant) {
        if let Some(done) = self.jobs.get(&job) {
            let cost = done.cost();
            let winner = done.attempts.iter().find(|attempt| attempt.on == worker);
            let began = winner.map_or(now, |attempt| attempt.since);
            let outrun: Vec<_> = done
                .attempts
                .iter()
                .filter(|attempt| attempt.on != worker && attempt.since < began)
                .copied()
                .collect();
            self.note_typical(seconds / cost);
            if let Some(winner) = self.workers.get_mut(&worker) {
                winner.standing.handle_done(cost, seconds, now);
            }
            for attempt in outrun {
                self.note_outrun(attempt, cost, now);
            }
        }
        self.handle_cancel(job, now);
    }

    /// The client went away, or its job was handed back.
    pub fn handle_cancel(&mut self, job: JobId, now: Instant) {
        if let Some(ended) = self.jobs.remove(&job) {
            self.waiting.remove(&ended.turn(job));
            for attempt in ended.attempts {
                self.leave(job, attempt.on);
            }
        }
        self.serve_waiting(now);
    }

    /// Looks for jobs that take too long, and for workers that have served their time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.serve_waiting(now);
        self.double_doubtful(now);
    }

    /// How soon to call [`Scheduler::handle_timeout`], while there is anything to look for.
    pub fn look_again(&self) -> Option<Duration> {
        (!self.jobs.is_empty()).then_some(LOOK)
    }

    /// What to do next; drain it after every input.
    pub fn poll_event(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    /// No live worker can do this job.
    pub fn is_stranded(&self, job: JobId) -> bool {
        let job = self.jobs.get(&job);
        job.is_some_and(|job| job.stranded || job.given_up)
    }

    /// Slots of all live workers that are of use. A moment on the bench doesn't count.
    pub fn capacity(&self, now: Instant) -> u32 {
        let useful = |worker: &Worker| match self.rests_for(worker, now) {
            rest if rest.is_zero() || rest > SHORT_BENCH => self.useful_slots(worker, now),
            _ => worker.can.slots,
        };
        let live = self.workers.values().filter(|worker| worker.is_live());
        live.fold(0, |sum, worker| sum.saturating_add(useful(worker)))
    }

    /// Attempts that run on a worker now.
    pub fn running_on(&self, peer: PeerId) -> usize {
        self.workers
            .get(&peer)
            .map_or(0, |worker| worker.running.len())
    }

    fn useful_slots(&self, worker: &Worker, now: Instant) -> u32 {
        let slots = match self.helps_too_little(worker) {
            true if !self.rests_for(worker, now).is_zero() => 0,
            true => worker.can.slots.min(1),
            false => worker.can.slots,
        };
        worker.standing.useful_slots(slots, self.typical, now)
    }

    /// A generated source may be a hundred times as long as others: it counts as one that is four times as long.
    fn note_usual_cost(&mut self, cost: f64) {
        let most = match self.costs >= ENOUGH {
            true => self.usual_cost * COUNTS_AT_MOST,
            false => f64::INFINITY,
        };
        self.costs = self.costs.saturating_add(1);
        let weight = NEWEST.max(1.0 / f64::from(self.costs));
        self.usual_cost += weight * (cost.min(most) - self.usual_cost);
    }

    fn note_typical(&mut self, pace: f64) {
        self.answers = self.answers.saturating_add(1);
        let weight = NEWEST.max(1.0 / f64::from(self.answers));
        self.typical += weight * (pace - self.typical);
    }

    /// Somebody else answered first. A worker that answered nothing at all meanwhile is not slow but stuck.
    fn note_outrun(&mut self, attempt: Attempt, cost: f64, now: Instant) {
        let stuck = self.is_stuck(attempt, cost, now);
        // One that is silent is not slow: that says nothing of what it will be when it is back.
        let loser = self.workers.get_mut(&attempt.on);
        let Some(loser) = loser.filter(|loser| loser.is_live()) else {
            return;
        };
        let seconds = now.saturating_duration_since(attempt.since).as_secs_f64();
        loser.standing.handle_outrun(cost, seconds);
        if stuck {
            loser.standing.handle_fault(attempt.since, now);
        }
    }

    /// The silence is the link's: it does not count as an attempt of the job.
    fn end_attempts_on(&mut self, peer: PeerId) {
        let Some(worker) = self.workers.get_mut(&peer) else {
            return;
        };
        for id in std::mem::take(&mut worker.running) {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.attempts.retain(|attempt| attempt.on != peer);
                if job.attempts.is_empty() {
                    self.waiting.insert(job.turn(id));
                }
            }
            let worker = peer;
            self.decisions
                .push_back(Decision::Abandon { job: id, worker });
        }
    }

    /// Back from a silence: the attempts never stopped.
    fn trust_attempts_on(&mut self, peer: PeerId) {
        let Some(worker) = self.workers.get(&peer) else {
            return;
        };
        for id in &worker.running {
            if let Some(job) = self.jobs.get_mut(id) {
                job.stranded = false;
            }
        }
    }

    fn end_attempt(&mut self, job: JobId, on: PeerId) -> Option<Attempt> {
        let attempts = &mut self.jobs.get_mut(&job)?.attempts;
        let index = attempts.iter().position(|attempt| attempt.on == on)?;
        let ended = attempts.remove(index);
        self.leave(job, on);
        Some(ended)
    }

    fn leave(&mut self, job: JobId, on: PeerId) {
        if let Some(worker) = self.workers.get_mut(&on) {
            worker.running.remove(&job);
        }
    }

    /// Gives every job without an attempt one, each in its turn.
    fn serve_waiting(&mut self, now: Instant) {
        self.double_overdue(now);
        // Jobs of one compiler have the same workers: when those are busy, they are for all of them.
        let mut busy = BTreeSet::new();
        for Turn { job: id, .. } in self.waiting.clone() {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            if busy.contains(&job.spec.compiler) {
                self.set_stranded(id, false);
                continue;
            }
            match self.choose(job, now) {
                Choice::Worker(worker) => self.assign(id, worker, false, now),
                Choice::Wait => {
                    if job.tried.is_empty() {
                        busy.insert(job.spec.compiler.clone());
                    }
                    self.set_stranded(id, false);
                }
                Choice::Nobody => self.set_stranded(id, true),
            }
        }
    }

    fn assign(&mut self, job: JobId, worker: PeerId, hedge: bool, now: Instant) {
        if let Some(assigned) = self.jobs.get_mut(&job) {
            self.waiting.remove(&assigned.turn(job));
            assigned.attempts.push(Attempt {
                on: worker,
                since: now,
            });
            assigned.hedged |= hedge;
            assigned.stranded = false;
        }
        if let Some(chosen) = self.workers.get_mut(&worker) {
            chosen.running.insert(job);
        }
        self.decisions
            .push_back(Decision::Assign { job, worker, hedge });
    }

    fn set_stranded(&mut self, id: JobId, stranded: bool) {
        if let Some(job) = self.jobs.get_mut(&id)
            && std::mem::replace(&mut job.stranded, stranded) != stranded
            && stranded
        {
            self.decisions.push_back(Decision::Strand { job: id });
        }
    }

    /// A worker that failed this job gets it again only when every other admitted one failed it as often.
    fn choose(&self, job: &Job, now: Instant) -> Choice {
        let failures = |peer: &PeerId| job.tried.iter().filter(|tried| *tried == peer).count();
        let has_it = |peer: &PeerId| job.attempts.iter().any(|attempt| attempt.on == *peer);
        let able = || {
            self.workers.iter().filter(|(peer, worker)| {
                worker.is_live()
                    && worker.can.slots > 0
                    && worker.can.compilers.contains(&job.spec.compiler)
                    && !has_it(peer)
            })
        };
        let bench = able().map(|(_, worker)| self.rests_for(worker, now));
        match bench.min() {
            Some(shortest) if shortest <= SHORT_BENCH => {}
            Some(_) | None => return Choice::Nobody,
        }
        let ready = || able().filter(|(_, worker)| self.useful_slots(worker, now) > 0);
        let Some(fewest) = ready().map(|(peer, _)| failures(peer)).min() else {
            return Choice::Wait;
        };
        let free = ready().filter(|(peer, worker)| {
            failures(peer) == fewest
                && worker.running.len() < self.useful_slots(worker, now) as usize
        });
        let best = free.min_by(|a, b| {
            let by_load = self.load(a.1).total_cmp(&self.load(b.1));
            let unwanted = |peer: &PeerId| job.spec.preferred != Some(*peer);
            by_load.then_with(|| unwanted(a.0).cmp(&unwanted(b.0)))
        });
        best.map_or(Choice::Wait, |(peer, _)| Choice::Worker(*peer))
    }

    /// How full the worker would be, weighted by how slow it is against the others.
    fn load(&self, worker: &Worker) -> f64 {
        let share = (worker.running.len() + 1) as f64 / f64::from(worker.can.slots);
        share * worker.standing.slowness(self.typical)
    }
}

impl Worker {
    fn is_live(&self) -> bool {
        self.can.presence == Presence::Live
    }
}

impl Job {
    /// How long it takes beside others, counted in bytes of source. What is included is mostly declarations: over the 331 compiles of
    /// redis, jemalloc and cppcheck the source's own length tells more of the time (correlation 0.88 to 0.91) than the request's
    /// (0.50 to 0.64), and most tells this sum (0.84 to 0.92).
    fn cost(&self) -> f64 {
        let included = self.spec.bytes as f64 * INCLUDED;
        let source = self.spec.source_bytes.map(|bytes| bytes as f64);
        FIXED_COST + included + source.unwrap_or(included * 2.0)
    }

    fn turn(&self, job: JobId) -> Turn {
        let begin_by = self.begin_by;
        Turn { begin_by, job }
    }
}

enum Choice {
    Worker(PeerId),
    Wait,
    Nobody,
}

/// A job that kills four compilers will kill a fifth; the local compile tells why.
const MAX_ATTEMPTS: usize = 4;
/// Weight of the newest answer in what is typical, once there are some.
const NEWEST: f64 = 0.05;
/// Answers before a prediction is worth anything.
const ENOUGH: u32 = 8;
const COUNTS_AT_MOST: f64 = 4.0;
/// What a compile takes besides its source, counted in bytes of source: starting the compiler and the way there.
const FIXED_COST: f64 = 10_000.0;
/// What a compressed byte of the request weighs beside one of the source itself.
const INCLUDED: f64 = 0.125;
/// What a second of compiling weighs beside one of waiting. With 1, redis-cli.c, which takes 7 s, waited for 20 short ones that had
/// come up to 7 s earlier, and ended 5 s after all else. Simulated with 32 jobs prepared ahead, redis on 1 + 4 takes 40.7 s with 1,
/// 38.4 with 4 and 40.0 by length alone.
const HASTE: u32 = 4;
/// No translation unit takes longer.
const LONGEST: Duration = Duration::from_secs(600);
/// A job rather waits this long than goes home.
const SHORT_BENCH: Duration = Duration::from_secs(1);
/// How often late jobs are looked for: none is before half a second.
const LOOK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::home::{TRIAL_EVERY, WAITS_AT_MOST};
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn gcc(slots: u32, presence: Presence) -> Capability {
        let compilers = BTreeSet::from(["gcc".into()]);
        Capability {
            slots,
            presence,
            compilers,
        }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A scheduler and its clock.
    struct Desk {
        s: Scheduler,
        now: Instant,
    }

    impl Desk {
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant will do as the epoch"
        )]
        fn new(workers: &[(u8, u32)]) -> Self {
            let mut desk = Self {
                s: Scheduler::default(),
                now: Instant::now(),
            };
            for (n, slots) in workers {
                desk.worker(*n, *slots, Presence::Live);
            }
            desk
        }

        fn worker(&mut self, n: u8, slots: u32, presence: Presence) {
            self.s
                .handle_worker(peer(n), gcc(slots, presence), self.now);
        }

        fn job(&mut self, id: u64) {
            self.job_for(id, None);
        }

        fn job_of(&mut self, id: u64, source_bytes: u64) {
            let source_bytes = Some(source_bytes);
            self.hand_in(id, None, source_bytes);
        }

        fn job_for(&mut self, id: u64, preferred: Option<u8>) {
            self.hand_in(id, preferred, None);
        }

        fn hand_in(&mut self, id: u64, preferred: Option<u8>, source_bytes: Option<u64>) {
            let spec = JobSpec {
                compiler: "gcc".into(),
                preferred: preferred.map(peer),
                bytes: 0,
                source_bytes,
            };
            self.s.handle_job(JobId(id), spec, self.now);
        }

        fn fails(&mut self, id: u64, on: u8) {
            self.s
                .handle_attempt_failed(JobId(id), peer(on), "x", self.now);
        }

        fn done(&mut self, id: u64, on: u8, seconds: u64) {
            self.s
                .handle_done(JobId(id), peer(on), seconds as f64, self.now);
        }

        fn wait(&mut self, span: Duration) -> Vec<Decision> {
            self.now += span;
            self.s.handle_timeout(self.now);
            self.drain()
        }

        fn better_at_home(&self) -> Vec<u64> {
            let all = self.s.jobs.keys().copied();
            let better = self.s.better_at_home(all, usize::MAX, self.now);
            better.into_iter().map(|job| job.0).collect()
        }

        fn drain(&mut self) -> Vec<Decision> {
            std::iter::from_fn(|| self.s.poll_event()).collect()
        }

        /// Makes a second per job typical.
        fn practise(&mut self) {
            for id in 1_000..1_000 + u64::from(ENOUGH) {
                self.job_for(id, Some(1));
                let Some(Decision::Assign { worker, .. }) = self.drain().pop() else {
                    panic!("nobody is free");
                };
                self.now += secs(1);
                self.s.handle_done(JobId(id), worker, 1.0, self.now);
            }
        }
    }

    fn assign(job: u64, worker: u8) -> Decision {
        Decision::Assign {
            job: JobId(job),
            worker: peer(worker),
            hedge: false,
        }
    }

    fn hedge(job: u64, worker: u8) -> Decision {
        Decision::Assign {
            job: JobId(job),
            worker: peer(worker),
            hedge: true,
        }
    }

    #[test]
    fn a_source_that_is_out_of_all_proportion_does_not_say_what_is_usual() {
        let mut scheduler = Scheduler::default();
        (0..40).for_each(|_| scheduler.note_usual_cost(75_000.0));
        scheduler.note_usual_cost(9_300_000.0);
        assert!(scheduler.usual_cost < 90_000.0, "{}", scheduler.usual_cost);
        let mut scheduler = Scheduler::default();
        scheduler.note_usual_cost(9_300_000.0);
        (0..99).for_each(|_| scheduler.note_usual_cost(75_000.0));
        assert!(scheduler.usual_cost < 150_000.0, "{}", scheduler.usual_cost);
    }

    #[test]
    fn a_job_waits_when_slots_are_full_and_runs_when_one_is_free() {
        let mut desk = Desk::new(&[(1, 1)]);
        desk.job(1);
        desk.job(2);
        assert_eq!(desk.drain(), [assign(1, 1)]);
        desk.done(1, 1, 1);
        assert_eq!(desk.drain(), [assign(2, 1)]);
    }

    #[test]
    fn a_failed_attempt_goes_to_an_untried_worker_and_the_fourth_is_the_last() {
        let mut desk = Desk::new(&[(1, 4), (2, 4)]);
        desk.job_for(1, Some(2));
        assert_eq!(desk.drain(), [assign(1, 2)]);
        desk.fails(1, 2);
        assert_eq!(desk.drain(), [assign(1, 1)]);
        for worker in [1, 2] {
            desk.fails(1, worker);
            let next = desk.wait(secs(1));
            assert!(matches!(next[..], [Decision::Assign { .. }]), "{next:?}");
        }
        desk.fails(1, 1);
        desk.fails(1, 2);
        assert!(matches!(desk.drain()[..], [.., Decision::GiveUp { .. }]));
        assert!(desk.s.is_stranded(JobId(1)));
    }

    #[test]
    fn a_stranded_job_is_dispatched_when_an_admitted_worker_comes() {
        let mut desk = Desk::new(&[]);
        desk.job(1);
        assert_eq!(desk.drain(), [Decision::Strand { job: JobId(1) }]);
        let other = Capability {
            compilers: BTreeSet::new(),
            ..gcc(1, Presence::Live)
        };
        desk.s.handle_worker(peer(1), other, desk.now);
        assert_eq!(desk.drain(), []);
        desk.worker(2, 1, Presence::Live);
        assert_eq!(desk.drain(), [assign(1, 2)]);
        desk.worker(2, 1, Presence::Gone);
        let abandon = Decision::Abandon {
            job: JobId(1),
            worker: peer(2),
        };
        assert_eq!(desk.drain(), [abandon, Decision::Strand { job: JobId(1) }]);
    }

    #[test]
    fn jobs_of_a_silent_worker_are_doubled_and_the_first_answer_wins() {
        let mut desk = Desk::new(&[(1, 2), (2, 1)]);
        desk.job_for(1, Some(1));
        assert_eq!(desk.drain(), [assign(1, 1)]);
        desk.worker(1, 2, Presence::Silent);
        assert_eq!(desk.drain(), [assign(1, 2)], "the attempt on 1 goes on");
        desk.worker(1, 2, Presence::Live);
        assert_eq!(desk.s.running_on(peer(1)), 1);
        desk.done(1, 1, 1);
        assert_eq!(desk.s.running_on(peer(1)), 0);
        assert_eq!(desk.s.running_on(peer(2)), 0);
    }

    #[test]
    fn jobs_of_the_only_worker_are_stranded_while_it_is_silent_and_no_longer() {
        let mut desk = Desk::new(&[(1, 2)]);
        desk.job(1);
        desk.worker(1, 2, Presence::Silent);
        assert!(desk.s.is_stranded(JobId(1)));
        desk.worker(1, 2, Presence::Live);
        assert!(!desk.s.is_stranded(JobId(1)));
        assert_eq!(desk.s.running_on(peer(1)), 1);
    }

    #[test]
    fn a_worker_whose_answers_are_nonsense_is_asked_less_and_less() {
        let mut desk = Desk::new(&[(1, 4), (2, 4)]);
        let mut asked = 0;
        for id in 0..1_000 {
            desk.job_for(id, Some(1));
            for decision in desk.drain() {
                if decision == assign(id, 1) {
                    asked += 1;
                    desk.fails(id, 1);
                }
            }
            desk.drain();
            desk.done(id, 2, 0);
            desk.wait(Duration::from_millis(100));
        }
        assert!((5..=15).contains(&asked), "{asked} of 1,000 in 100 s");
    }

    #[test]
    fn with_nobody_else_a_moment_on_the_bench_is_waited_for_and_a_long_one_strands() {
        let mut desk = Desk::new(&[(1, 4)]);
        desk.job(1);
        desk.fails(1, 1);
        assert!(!desk.s.is_stranded(JobId(1)));
        assert_eq!(desk.s.capacity(desk.now), 4);
        for _ in 0..3 {
            desk.drain();
            desk.done(1, 2, 1);
            desk.job(1);
            desk.wait(secs(8));
            desk.fails(1, 1);
        }
        assert!(desk.s.is_stranded(JobId(1)));
        assert_eq!(desk.s.capacity(desk.now), 0);
        // The health check's news count more than old faults.
        desk.worker(1, 0, Presence::Live);
        desk.worker(1, 4, Presence::Live);
        assert_eq!(desk.s.capacity(desk.now), 4);
    }

    #[test]
    fn an_idle_slot_races_against_a_job_that_takes_twice_as_long_as_expected() {
        let mut desk = Desk::new(&[(1, 2), (2, 2)]);
        desk.practise();
        desk.job_for(1, Some(1));
        let Some(Decision::Assign { worker, .. }) = desk.drain().pop() else {
            panic!("not assigned");
        };
        let other = if worker == peer(1) { 2 } else { 1 };
        assert_eq!(desk.wait(Duration::from_millis(1_900)), []);
        assert_eq!(desk.wait(Duration::from_millis(200)), [hedge(1, other)]);
        assert_eq!(desk.wait(secs(60)), [], "one is enough");
        desk.done(1, other, 1);
        assert_eq!(desk.s.running_on(worker), 0);
    }

    #[test]
    fn a_worker_that_answers_nothing_loses_its_jobs_to_others_even_if_they_are_busy() {
        let mut desk = Desk::new(&[(1, 2), (2, 2)]);
        desk.practise();
        for id in 1..=40 {
            desk.job(id);
        }
        let on_one: Vec<u64> = (1..=40)
            .filter(|id| {
                desk.s.jobs[&JobId(*id)]
                    .attempts
                    .iter()
                    .any(|a| a.on == peer(1))
            })
            .collect();
        assert_eq!(on_one.len(), 2);
        let (mut answered, mut benched) = (0, false);
        // 2 answers each second; 1 is stopped.
        for _ in 0..30 {
            desk.wait(secs(1));
            let running: Vec<_> = desk.s.workers[&peer(2)].running.iter().copied().collect();
            for job in running {
                desk.s.handle_done(job, peer(2), 1.0, desk.now);
                answered += 1;
            }
            let standing = &desk.s.workers[&peer(1)].standing;
            benched |= !standing.benched_for(desk.now).is_zero();
        }
        assert_eq!(answered, 40);
        assert!(desk.s.jobs.is_empty());
        assert!(benched);
    }

    /// While others wait a free slot never lies idle until the next look.
    #[test]
    fn a_stuck_job_does_not_wait_until_the_queue_is_empty() {
        let mut desk = Desk::new(&[(1, 2), (2, 2)]);
        desk.practise();
        (1..=80).for_each(|id| desk.job(id));
        let is_on = |desk: &Desk, id: u64, worker: u8| {
            let job = desk.s.jobs.get(&JobId(id));
            job.is_some_and(|job| job.attempts.iter().any(|a| a.on == peer(worker)))
        };
        let stuck: Vec<u64> = (1..=80).filter(|id| is_on(&desk, *id, 1)).collect();
        for _ in 0..20 {
            desk.wait(secs(1));
            let running: Vec<_> = desk.s.workers[&peer(2)].running.iter().copied().collect();
            for job in running {
                desk.s.handle_done(job, peer(2), 1.0, desk.now);
            }
        }
        assert!(!desk.s.waiting.is_empty(), "the queue is still long");
        let open = stuck
            .iter()
            .filter(|id| desk.s.jobs.contains_key(&JobId(**id)));
        assert_eq!(open.count(), 0);
    }

    #[test]
    fn a_job_at_two_silent_workers_goes_to_a_third_or_home() {
        let mut desk = Desk::new(&[(1, 1), (2, 1)]);
        desk.job(1);
        desk.drain();
        desk.worker(1, 1, Presence::Silent);
        desk.worker(2, 1, Presence::Silent);
        assert!(desk.s.is_stranded(JobId(1)), "nobody else is there");
        desk.worker(3, 1, Presence::Live);
        let job = &desk.s.jobs[&JobId(1)];
        assert!(job.attempts.iter().any(|attempt| attempt.on == peer(3)));
        assert_eq!(job.attempts.len(), 2);
        assert!(!desk.s.is_stranded(JobId(1)));
    }

    #[test]
    fn a_worker_that_is_no_help_beside_the_home_machine_gets_a_job_now_and_then() {
        let mut desk = Desk::new(&[(1, 2)]);
        desk.s.handle_home(1.0);
        for (id, negligible) in [(1, false), (2, false), (3, false), (4, false), (5, true)] {
            desk.job(id);
            assert_eq!(desk.drain(), [assign(id, 1)]);
            desk.done(id, 1, 20);
            assert_eq!(desk.s.is_negligible(peer(1)), negligible);
        }
        desk.job(6);
        assert_eq!(desk.drain(), [Decision::Strand { job: JobId(6) }]);
        assert_eq!(desk.s.capacity(desk.now), 0);
        assert_eq!(desk.wait(TRIAL_EVERY), [assign(6, 1)], "a trial");
        desk.job(7);
        assert_eq!(desk.drain(), [], "one is enough");
        // Quick again: the mean follows.
        for id in 6..30 {
            desk.done(id, 1, 1);
            desk.job(id + 2);
            desk.wait(TRIAL_EVERY);
        }
        assert!(!desk.s.is_negligible(peer(1)));
        assert_eq!(desk.s.capacity(desk.now), 2);
    }

    #[test]
    fn a_worker_that_fell_silent_is_not_taken_for_a_slow_one() {
        let mut desk = Desk::new(&[(1, 1)]);
        desk.s.handle_home(1.0);
        for id in 1..=5 {
            desk.job(id);
            desk.done(id, 1, 1);
        }
        for id in 6..=9 {
            desk.worker(1, 1, Presence::Live);
            desk.job(id);
            desk.worker(1, 1, Presence::Silent);
            desk.wait(secs(60));
            desk.s.handle_called_back(JobId(id), desk.now);
        }
        assert!(!desk.s.is_negligible(peer(1)));
        desk.worker(1, 1, Presence::Live);
        assert!(!desk.s.is_negligible(peer(1)));
    }

    #[test]
    fn an_idle_home_machine_takes_back_what_waits_and_what_is_late() {
        let mut desk = Desk::new(&[(1, 1)]);
        desk.job(1);
        desk.job(2);
        assert_eq!(desk.drain(), [assign(1, 1)]);
        assert!(desk.better_at_home().is_empty());
        desk.wait(WAITS_AT_MOST);
        assert_eq!(desk.better_at_home(), [2]);
        desk.wait(secs(3_600));
        let better = desk.better_at_home();
        assert_eq!(better, [2], "nobody knows how long it takes at home");
        desk.s.handle_home(1_000.0);
        assert_eq!(desk.better_at_home(), [1, 2]);
        desk.s.handle_called_back(JobId(1), desk.now);
        assert_eq!(desk.wait(secs(1)), [assign(2, 1)]);
    }

    #[test]
    fn what_would_end_sooner_at_home_goes_there_from_the_end_of_the_queue() {
        let mut desk = Desk::new(&[(1, 1)]);
        desk.practise();
        let second = FIXED_COST as u64;
        // The first is at the worker; the others are two of one second and one of three, which goes before them.
        for (id, seconds) in [(1, 1), (2, 1), (3, 1), (4, 3)] {
            desk.job_of(id, (seconds - 1) * second);
        }
        let usual = desk.s.usual_cost / FIXED_COST;
        desk.s.handle_home(usual);
        assert_eq!(desk.better_at_home(), [3, 2, 4]);
        // What waits takes the worker five seconds, so that as the last of the queue one of a second would end after six.
        desk.s.handle_home(usual * 5.9);
        assert_eq!(desk.better_at_home(), [3, 2]);
        desk.s.handle_home(usual * 6.1);
        assert!(desk.better_at_home().is_empty());
        // A queue may last longer than any one job.
        for id in 5..705 {
            desk.job(id);
        }
        desk.s.handle_home(desk.s.usual_cost / FIXED_COST * 700.0);
        assert_eq!(desk.better_at_home().first(), Some(&704));
    }

    #[test]
    fn what_takes_long_goes_first_and_holds_nobody_up_for_ever() {
        let mut desk = Desk::new(&[(1, 1)]);
        desk.practise();
        let second = FIXED_COST as u64;
        desk.job(1);
        assert_eq!(desk.drain(), [assign(1, 1)]);
        let came = [(2, 0), (3, 0), (4, 5 * second), (5, 3 * second)];
        for (id, bytes) in came {
            desk.wait(secs(1) * HASTE);
            desk.job_of(id, bytes);
        }
        desk.wait(secs(3) * HASTE);
        desk.job_of(6, 6 * second);
        let order = std::iter::successors(Some(1), |last| {
            desk.done(*last, 1, 1);
            desk.drain().iter().find_map(|decision| match decision {
                Decision::Assign { job, .. } => Some(job.0),
                Decision::Abandon { .. } | Decision::Strand { .. } | Decision::GiveUp { .. } => {
                    None
                }
            })
        });
        // 6 came 24 s after 2 and 20 s after 3, and takes 6 s longer.
        assert_eq!(order.collect::<Vec<_>>(), [1, 4, 2, 5, 6, 3]);
    }

    #[test]
    fn a_large_job_stays_where_it_is_as_fast_as_at_home() {
        for (seconds, outdone) in [(1, false), (4, false), (6, true)] {
            let mut desk = Desk::new(&[(1, 2)]);
            desk.s.handle_home(1.0);
            for id in 0..8 {
                desk.job(id);
                desk.done(id, 1, seconds);
            }
            desk.job(8);
            desk.job(9);
            desk.wait(secs(4));
            desk.done(9, 1, 4);
            let late = |desk: &Desk| desk.better_at_home().contains(&8);
            assert_eq!(late(&desk), outdone, "a worker that takes {seconds} s");
            desk.wait(secs(60));
            assert_eq!(late(&desk), outdone, "it answers others");
            desk.job(10);
            desk.wait(secs(60));
            let other = desk.s.jobs[&JobId(10)].attempts[0];
            assert!(desk.s.is_stuck(other, 1.0, desk.now));
            assert!(
                desk.better_at_home().contains(&10),
                "it has answered nothing since"
            );
        }
    }

    proptest! {
        #[test]
        fn no_worker_is_overfull_and_no_job_is_lost(
            steps in prop::collection::vec((0u8..6, 0u8..4, any::<bool>()), 1..120)
        ) {
            let (mut desk, mut next, mut open) = (Desk::new(&[]), 0, BTreeSet::new());
            for (what, n, flag) in steps {
                let job = JobId(u64::from(n) * 3);
                let on = desk.s.jobs.get(&job).and_then(|job| Some(job.attempts.first()?.on));
                let on = on.unwrap_or(peer(n));
                let presence = match (flag, n % 2) {
                    (true, _) => Presence::Live,
                    (false, 0) => Presence::Silent,
                    (false, _) => Presence::Gone,
                };
                desk.now += Duration::from_millis(u64::from(n) * 700);
                match what {
                    0 => desk.worker(n, u32::from(n), presence),
                    1 => { desk.job_for(next, Some(n)); open.insert(JobId(next)); next += 1; }
                    2 => desk.s.handle_attempt_failed(job, on, "x", desk.now),
                    3 => { desk.s.handle_done(job, on, 1.0, desk.now); open.remove(&job); }
                    4 => desk.s.handle_timeout(desk.now),
                    _ => { desk.s.handle_cancel(job, desk.now); open.remove(&job); }
                }
                desk.drain();
                for worker in desk.s.workers.values() {
                    prop_assert!(worker.running.len() <= worker.can.slots as usize || what == 0 || !worker.is_live());
                    prop_assert!(worker.can.presence != Presence::Gone || worker.running.is_empty());
                }
                for (id, job) in &desk.s.jobs {
                    prop_assert!(job.attempts.len() <= 2);
                    prop_assert!(job.attempts.iter().all(|a| desk.s.workers[&a.on].running.contains(id)));
                    prop_assert_eq!(job.attempts.is_empty() && !job.given_up, desk.s.waiting.contains(&job.turn(*id)));
                }
                let running: usize = desk.s.workers.values().map(|worker| worker.running.len()).sum();
                let attempts: usize = desk.s.jobs.values().map(|job| job.attempts.len()).sum();
                prop_assert_eq!(running, attempts);
                prop_assert!(desk.s.jobs.keys().eq(open.iter()));
            }
        }
    }
}
