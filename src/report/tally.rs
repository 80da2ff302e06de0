//! Facts counted.

use std::{collections::BTreeMap, time::Duration};

use super::{Incident, Jobs, Progress, Refusal, Report, WorkerReport};
use crate::event::{
    Admission, BuildUpdate, Compiler, Event, JobOutcome, JobRecord, LinkChange, LinkState, Load,
    Record, Route, WorkerView,
};

/// Counts what happens during one build. Every fact is to be told once.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    expected: Option<u32>,
    /// Compiler calls that were given to distcc.
    sent: u64,
    /// Compiler calls that never came that far, by reason.
    kept: BTreeMap<String, u64>,
    outcomes: BTreeMap<JobOutcome, u64>,
    reattempted: u64,
    hedged: u64,
    /// Compiles made, by worker.
    made: BTreeMap<String, u64>,
    workers: BTreeMap<String, WorkerView>,
    refusals: BTreeMap<(String, Compiler), String>,
    load: Option<Load>,
    incidents: Vec<Incident>,
    incidents_left_out: u64,
    away: Duration,
}

/// How the wrapped command ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Its exit code.
    pub exit_code: i32,
    /// How long it ran.
    pub wall: Duration,
}

impl Tally {
    /// Nothing has happened yet. `expected` is the number of workers that the person said would come.
    pub fn new(expected: Option<u32>) -> Self {
        Self {
            expected,
            ..Self::default()
        }
    }

    /// Something happened.
    pub fn handle(&mut self, record: &Record) {
        match &record.event {
            Event::Link(change) => self.handle_link(change, record.at_ms),
            Event::Admission(admission) => self.handle_admission(admission),
            Event::CompileSeen(seen) => self.handle_route(&seen.route),
            Event::Job(job) => self.handle_job(job),
            Event::Incident { text } => self.incident(record.at_ms, text.clone()),
        }
    }

    /// Dispatch told its build something.
    pub fn handle_update(&mut self, update: &BuildUpdate) {
        match update {
            BuildUpdate::Job(job) => self.handle_job(job),
            BuildUpdate::Worker(worker) => self.handle_worker(worker),
            BuildUpdate::Load { load, .. } => self.load = Some(*load),
            BuildUpdate::Hosts { .. }
            | BuildUpdate::Admitted { .. }
            | BuildUpdate::Refused { .. }
            // Its reader knows when it came; see `handle`.
            | BuildUpdate::Event(_) => {}
        }
    }

    /// A compiler was called.
    pub fn handle_route(&mut self, route: &Route) {
        match route {
            Route::Distcc => self.sent += 1,
            Route::Local(reason) => self.handle_local(reason, 1),
            Route::NotACompile => {}
        }
    }

    /// Compilers were called and counted by somebody else: so many calls were given to distcc, so many were not, by reason.
    pub fn handle_calls(&mut self, sent: u64, kept: &BTreeMap<String, u64>) {
        self.sent += sent;
        for (reason, count) in kept {
            self.handle_local(reason, *count);
        }
    }

    /// A remote job ended.
    pub fn handle_job(&mut self, job: &JobRecord) {
        *self.outcomes.entry(job.outcome).or_default() += 1;
        // A hedge alone is no sign of trouble.
        if job.attempts > 1 + u32::from(job.hedged) {
            self.reattempted += 1;
        }
        self.hedged += u64::from(job.hedged);
        if let (JobOutcome::Compiled, Some(worker)) = (job.outcome, &job.worker) {
            *self.made.entry(worker.clone()).or_default() += 1;
            self.away += job.ran;
        }
    }

    /// Workers are as these views show them.
    pub fn handle_workers(&mut self, workers: &[WorkerView]) {
        workers.iter().for_each(|worker| self.handle_worker(worker));
    }

    /// A worker is as this view shows it. One that is gone offers nothing any more, and not everybody knows everything: what was known
    /// of it stays.
    pub fn handle_worker(&mut self, worker: &WorkerView) {
        let known = self
            .workers
            .entry(worker.name.clone())
            .or_insert_with(|| worker.clone());
        let before = std::mem::replace(known, worker.clone());
        if known.slots == 0 {
            known.slots = before.slots;
        }
        known.path = known.path.take().or(before.path);
        known.nat = known.nat.take().or(before.nat);
        known.up_after_ms = known.up_after_ms.or(before.up_after_ms);
        known.rtt_us = known.rtt_us.or(before.rtt_us);
    }

    /// How far the build is.
    pub fn progress(&self) -> Progress {
        let up = |worker: &&WorkerView| matches!(worker.state, LinkState::Up | LinkState::Suspect);
        let workers: Vec<_> = self.workers.values().filter(up).collect();
        let slots = workers.iter().map(|worker| worker.slots).sum();
        Progress {
            workers: u32::try_from(workers.len()).unwrap_or(u32::MAX),
            expected: self.expected,
            slots: self.load.map_or(slots, |load| load.capacity),
            remote: self.count(JobOutcome::Compiled),
            local: self.kept.values().sum::<u64>() + self.came_back(),
            running: self.load.map_or(0, |load| load.in_dispatch),
        }
    }

    /// What became of the build.
    pub fn report(&self, end: End) -> Report {
        let local_reasons = self.local_reasons();
        Report {
            wall_s: seconds(end.wall),
            exit_code: end.exit_code,
            jobs: Jobs {
                seen: self.asked() + self.kept.values().sum::<u64>(),
                remote: self.count(JobOutcome::Compiled),
                local: local_reasons.values().sum(),
                cancelled: self.count(JobOutcome::Cancelled),
                reattempted: self.reattempted,
                hedged: self.hedged,
            },
            local_reasons,
            workers: self.worker_reports(),
            expected_workers: self.expected,
            refused: self.refused(),
            incidents: self.incidents.clone(),
            incidents_left_out: self.incidents_left_out,
            away_s: seconds(self.away),
            cpu: None,
        }
    }

    fn handle_link(&mut self, change: &LinkChange, at_ms: u64) {
        let before = match self.workers.get_mut(&change.peer) {
            Some(worker) => Some(std::mem::replace(&mut worker.state, change.state)),
            None => None,
        };
        // What is said of it again and again is one thing that happened.
        if change.state == LinkState::Down && before != Some(LinkState::Down) {
            let text = format!("the link to {} is down: {}", change.peer, change.reason);
            self.incident(at_ms, text);
        }
    }

    /// The last word counts: a worker may have been given the right compiler since.
    fn handle_admission(&mut self, admission: &Admission) {
        let key = (admission.worker.clone(), admission.compiler.clone());
        match &admission.refused {
            Some(reason) => self.refusals.insert(key, reason.clone()),
            None => self.refusals.remove(&key),
        };
    }

    fn handle_local(&mut self, reason: &str, count: u64) {
        // Reasons are a handful of fixed sentences; should one carry a file's name, the map still stays small.
        let known = self.kept.len() < MAX_REASONS || self.kept.contains_key(reason);
        let reason = if known { reason } else { OTHER_REASON };
        *self.kept.entry(reason.to_owned()).or_default() += count;
    }

    fn incident(&mut self, at_ms: u64, text: String) {
        if self.incidents.len() >= MAX_INCIDENTS {
            self.incidents_left_out += 1;
            return;
        }
        self.incidents.push(Incident { at_ms, text });
    }

    fn count(&self, outcome: JobOutcome) -> u64 {
        self.outcomes.get(&outcome).copied().unwrap_or(0)
    }

    /// Calls that were given to distcc, or must have been, because their jobs arrived. A returned job is no proof of a call of its
    /// own: distcc may offer a compile to a second port.
    fn asked(&self) -> u64 {
        let returned = self.count(JobOutcome::ReturnedToClient);
        let arrived = self.outcomes.values().sum::<u64>();
        match self.sent {
            0 => arrived,
            sent => sent.max(arrived - returned),
        }
    }

    /// Jobs that the client compiles here after all.
    fn came_back(&self) -> u64 {
        [
            JobOutcome::CompileError,
            JobOutcome::ReturnedToClient,
            JobOutcome::CalledBack,
        ]
        .map(|outcome| self.count(outcome))
        .iter()
        .sum()
    }

    fn local_reasons(&self) -> BTreeMap<String, u64> {
        let mut reasons = self.kept.clone();
        let mut left = self.asked();
        let mut take = |count: u64| {
            let taken = count.min(left);
            left -= taken;
            taken
        };
        take(self.count(JobOutcome::Compiled) + self.count(JobOutcome::Cancelled));
        let errors = take(self.count(JobOutcome::CompileError));
        let called = take(self.count(JobOutcome::CalledBack));
        let returned = take(self.count(JobOutcome::ReturnedToClient));
        for (reason, count) in [
            (COMPILE_ERROR, errors),
            (CALLED_BACK, called),
            (RETURNED, returned),
            (KEPT_BY_DISTCC, left),
        ] {
            if count > 0 {
                *reasons.entry(reason.to_owned()).or_default() += count;
            }
        }
        reasons
    }

    fn worker_reports(&self) -> Vec<WorkerReport> {
        let report = |worker: &WorkerView| WorkerReport {
            name: worker.name.clone(),
            slots: worker.slots,
            jobs: self.made.get(&worker.name).copied().unwrap_or(0),
            state: worker.state,
            path: worker.path.clone(),
            relay: worker.relay.clone(),
            nat: worker.nat.clone(),
            rtt_ms: worker.rtt_us.map(|us| us as f64 / 1e3),
            reason: worker.reason.clone(),
            up_after_s: worker.up_after_ms.map(Duration::from_millis).map(seconds),
        };
        self.workers.values().map(report).collect()
    }

    fn refused(&self) -> Vec<Refusal> {
        let refusal = |((worker, compiler), reason): (&(String, Compiler), &String)| Refusal {
            worker: worker.clone(),
            compiler: compiler.clone(),
            reason: reason.clone(),
        };
        self.refusals.iter().map(refusal).collect()
    }
}

/// Whole milliseconds: what is finer is noise.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

const COMPILE_ERROR: &str = "the compiler reported an error (compiled again here to show it)";
const CALLED_BACK: &str = "late at its worker while this machine was idle";
const RETURNED: &str = "no worker could take it";
const KEPT_BY_DISTCC: &str = "distcc kept it here";
const OTHER_REASON: &str = "other reasons";

/// A page of reasons is as many as anybody reads.
const MAX_REASONS: usize = 64;

/// A link that flaps all day must fill neither the memory nor the report.
const MAX_INCIDENTS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::tests::{job, worker};

    const END: End = End {
        exit_code: 0,
        wall: Duration::from_millis(12_345),
    };

    fn record(event: Event) -> Record {
        Record { at_ms: 7, event }
    }

    #[test]
    fn what_was_known_of_a_worker_that_is_gone_stays() {
        let mut tally = Tally::new(None);
        tally.handle_worker(&worker("w", 4, LinkState::Up));
        tally.handle_worker(&WorkerView {
            path: None,
            up_after_ms: None,
            ..worker("w", 0, LinkState::Down)
        });
        let [gone] = &tally.report(END).workers[..] else {
            panic!("one worker")
        };
        assert_eq!((gone.slots, gone.state), (4, LinkState::Down));
        assert_eq!(gone.up_after_s, Some(1.25));
        assert_eq!(gone.path.as_deref(), Some("direct"));
    }

    #[test]
    fn every_compile_that_was_seen_is_remote_local_or_cancelled() {
        let mut tally = Tally::new(None);
        for _ in 0..10 {
            tally.handle_route(&Route::Distcc);
        }
        tally.handle_route(&Route::Local("-march=native".into()));
        tally.handle_route(&Route::NotACompile);
        for outcome in [
            JobOutcome::Compiled,
            JobOutcome::Compiled,
            JobOutcome::CompileError,
            JobOutcome::ReturnedToClient,
            JobOutcome::Cancelled,
        ] {
            tally.handle_job(&job(outcome, 1));
        }
        let report = tally.report(END);
        let jobs = report.jobs;
        assert_eq!(
            (jobs.seen, jobs.remote, jobs.local, jobs.cancelled),
            (11, 2, 8, 1)
        );
        assert_eq!(jobs.seen, jobs.remote + jobs.local + jobs.cancelled);
        let reasons: Vec<_> = report
            .local_reasons
            .iter()
            .map(|(r, n)| (r.as_str(), *n))
            .collect();
        assert_eq!(
            reasons,
            [
                ("-march=native", 1),
                (KEPT_BY_DISTCC, 5),
                (RETURNED, 1),
                (COMPILE_ERROR, 1)
            ]
        );
    }

    #[test]
    fn a_compile_that_was_returned_before_another_worker_took_it_is_counted_once() {
        let mut tally = Tally::new(None);
        tally.handle_calls(2, &BTreeMap::new());
        for outcome in [
            JobOutcome::ReturnedToClient,
            JobOutcome::ReturnedToClient,
            JobOutcome::Compiled,
        ] {
            tally.handle_job(&job(outcome, 1));
        }
        let jobs = tally.report(END).jobs;
        assert_eq!((jobs.seen, jobs.remote, jobs.local), (2, 1, 1));
    }

    proptest::proptest! {
        #[test]
        fn whatever_happens_in_whatever_order_no_compile_is_lost_or_counted_twice(
            facts in proptest::collection::vec(0_u8..7, 0..200),
        ) {
            let mut tally = Tally::new(None);
            for fact in facts {
                match fact {
                    0 | 1 => tally.handle_route(&Route::Distcc),
                    2 => tally.handle_route(&Route::Local("x".into())),
                    3 => tally.handle_job(&job(JobOutcome::Compiled, 1)),
                    4 => tally.handle_job(&job(JobOutcome::CompileError, 1)),
                    5 => tally.handle_job(&job(JobOutcome::Cancelled, 1)),
                    _ => tally.handle_job(&job(JobOutcome::ReturnedToClient, 1)),
                }
            }
            let jobs = tally.report(END).jobs;
            proptest::prop_assert_eq!(jobs.seen, jobs.remote + jobs.local + jobs.cancelled);
        }
    }

    #[test]
    fn jobs_without_a_seen_call_are_counted_all_the_same() {
        let mut tally = Tally::new(None);
        tally.handle(&record(Event::Job(job(JobOutcome::Compiled, 2))));
        let report = tally.report(END);
        assert_eq!((report.jobs.seen, report.jobs.remote), (1, 1));
        assert_eq!(report.jobs.reattempted, 1);
    }

    #[test]
    fn a_worker_is_credited_with_this_builds_compiles_only() {
        let mut tally = Tally::new(Some(2));
        tally.handle_worker(&worker("attic", 4, LinkState::Up));
        tally.handle_job(&job(JobOutcome::Compiled, 1));
        tally.handle_job(&job(JobOutcome::CompileError, 1));
        let report = tally.report(END);
        assert_eq!(report.workers[0].jobs, 1);
        assert_eq!(report.workers[0].up_after_s, Some(1.25));
        assert_eq!(report.wall_s, 12.345);
    }

    #[test]
    fn the_last_word_on_an_admission_counts() {
        let mut tally = Tally::new(None);
        let mut admission = Admission {
            worker: "attic".into(),
            compiler: "/usr/bin/cc".into(),
            refused: Some("gcc 11 there, gcc 12 here".into()),
        };
        tally.handle(&record(Event::Admission(admission.clone())));
        assert_eq!(tally.report(END).refused.len(), 1);
        admission.refused = None;
        tally.handle(&record(Event::Admission(admission)));
        assert_eq!(tally.report(END).refused, []);
    }

    #[test]
    fn a_link_that_goes_down_is_an_incident_and_a_flood_of_them_is_bounded() {
        let mut tally = Tally::new(None);
        let down = record(Event::Link(LinkChange {
            peer: "attic".into(),
            state: LinkState::Down,
            reason: "silent for 10 s".into(),
        }));
        for _ in 0..MAX_INCIDENTS + 5 {
            tally.handle(&down);
        }
        let report = tally.report(END);
        assert_eq!(
            report.incidents[0].text,
            "the link to attic is down: silent for 10 s"
        );
        assert_eq!(report.incidents.len(), MAX_INCIDENTS);
        assert_eq!(report.incidents_left_out, 5);
    }

    #[test]
    fn a_worker_that_is_down_is_one_incident_however_often_that_is_said() {
        let mut tally = Tally::new(None);
        tally.handle_worker(&worker("attic", 4, LinkState::Up));
        let change = |state| {
            record(Event::Link(LinkChange {
                peer: "attic".into(),
                state,
                reason: "silent for 10 s".into(),
            }))
        };
        let (up, down) = (LinkState::Up, LinkState::Down);
        for (state, incidents) in [(down, 1), (down, 1), (up, 1), (down, 2)] {
            tally.handle(&change(state));
            assert_eq!(tally.report(END).incidents.len(), incidents);
        }
    }

    #[test]
    fn reasons_that_differ_by_file_do_not_fill_the_report() {
        let mut tally = Tally::new(None);
        for n in 0..10 * MAX_REASONS {
            tally.handle_route(&Route::Local(format!("reason {n}")));
        }
        let report = tally.report(END);
        assert!(report.local_reasons.len() <= MAX_REASONS + 1);
        assert_eq!(report.jobs.local, 10 * MAX_REASONS as u64);
    }

    #[test]
    fn the_json_has_the_promised_fields() {
        let mut tally = Tally::new(None);
        tally.handle_worker(&worker("attic", 4, LinkState::Up));
        tally.handle(&record(Event::Incident { text: "x".into() }));
        let json = serde_json::to_value(tally.report(END)).unwrap();
        for path in [
            "/wall_s",
            "/exit_code",
            "/jobs/seen",
            "/jobs/remote",
            "/jobs/local",
            "/jobs/reattempted",
            "/jobs/hedged",
            "/local_reasons",
            "/workers/0/name",
            "/workers/0/slots",
            "/workers/0/jobs",
            "/workers/0/up_after_s",
            "/incidents/0/text",
        ] {
            assert!(json.pointer(path).is_some(), "{path} is missing");
        }
        assert_eq!(json.pointer("/workers/0/state").unwrap(), "up");
        assert_eq!(json.pointer("/workers/0/path").unwrap(), "direct");
    }
}
