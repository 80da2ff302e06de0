//! What became of the command, and of its compiles.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::event::{CompileSeen, JobOutcome, JobRecord, Route};

/// What became of the command.
#[derive(Clone, Debug, Default)]
pub struct BuildOutcome {
    /// Its exit code; 128 + n after signal n.
    pub exit: i32,
    /// The signal that ended it, if it was sent to us as well. Whoever called us ought to see us end by it.
    pub signal: Option<i32>,
    /// Compiles seen: `remote`, all of `local`, and `cancelled`.
    pub seen: u64,
    /// Of them, compiled by a worker.
    pub remote: u64,
    /// Of them, done here, by reason.
    pub local: BTreeMap<String, u64>,
    /// Of them, given up by whoever wanted them, when a worker had them.
    pub cancelled: u64,
    /// Why compiles were not seen, and the cure.
    pub blind: BTreeSet<String>,
    /// The jobs that dispatch reported.
    pub jobs: Vec<JobRecord>,
    /// How long compiles ran here only because this machine had nothing else to do.
    pub spare: Duration,
    /// CPU time of our own processes before each compiler call.
    pub shims: Duration,
}

impl BuildOutcome {
    /// Why nothing was distributed, if nothing was.
    #[must_use]
    pub fn explain(&self) -> Option<String> {
        if self.remote > 0 {
            return None;
        }
        let blind = (!self.blind.is_empty())
            .then(|| self.blind.iter().cloned().collect::<Vec<_>>().join("; "));
        let most = self.local.iter().max_by_key(|(_, count)| **count);
        Some(match (blind, most) {
            (Some(blind), _) => {
                format!("0 of {} compiles seen were distributed: {blind}", self.seen)
            }
            (None, Some((reason, count))) => {
                let seen = self.seen;
                format!("0 of {seen} compiles were distributed; {count} because: {reason}")
            }
            (None, None) => "no compile was seen: everything was up to date, or the build calls its compiler by an absolute \
                             path that a makefile sets (pass CC=gcc CXX=g++)"
                .to_owned(),
        })
    }
}

/// Counts while the command runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    local: BTreeMap<String, u64>,
    sent: u64,
    asked_cache: u64,
    cache_missed: u64,
    pub(super) blind: BTreeSet<String>,
    pub(super) jobs: Vec<JobRecord>,
    pub(super) spare: Duration,
    shims: Duration,
}

impl Tally {
    pub(super) fn handle_compile(&mut self, seen: &CompileSeen) {
        self.shims += Duration::from_micros(seen.spent_us);
        match &seen.route {
            Route::NotACompile => {}
            Route::Distcc => self.sent += 1,
            Route::Local(reason) => *self.local.entry(reason.clone()).or_default() += 1,
        }
    }

    pub(super) fn handle_asked_cache(&mut self) {
        self.asked_cache += 1;
    }

    pub(super) fn handle_cache_missed(&mut self, seen: &CompileSeen) {
        self.cache_missed += 1;
        self.handle_compile(seen);
    }

    /// Whether dispatch may still have a job to report.
    pub(super) fn awaits_records(&self) -> bool {
        (self.jobs.len() as u64) < self.sent
    }

    pub(super) fn finish(self, exit: i32) -> BuildOutcome {
        let ended = |outcome| {
            self.jobs
                .iter()
                .filter(|job| job.outcome == outcome)
                .count() as u64
        };
        let remote = ended(JobOutcome::Compiled);
        let wrong = ended(JobOutcome::CompileError);
        let returned = ended(JobOutcome::ReturnedToClient);
        let mut local = self.local;
        let mut add = |reason: &str, count: u64| {
            if count > 0 {
                *local.entry(reason.to_owned()).or_default() += count;
            }
        };
        add(
            "the worker's compiler reported an error: repeated here, to show it",
            wrong,
        );
        add("no worker could do it", returned);
        let called = ended(JobOutcome::CalledBack);
        add("late at its worker while this machine was idle", called);
        let cancelled = ended(JobOutcome::Cancelled);
        let arrived = remote + wrong + returned + called + cancelled;
        let kept = self.sent.saturating_sub(arrived);
        add(
            "distcc kept it: a preprocessing error, an option of its own list, or no host",
            kept,
        );
        let hits = self.asked_cache.saturating_sub(self.cache_missed);
        add("ccache had it", hits);
        BuildOutcome {
            exit,
            signal: None,
            seen: remote + local.values().sum::<u64>() + cancelled,
            remote,
            local,
            cancelled,
            blind: self.blind,
            jobs: self.jobs,
            spare: self.spare,
            shims: self.shims,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(route: Route) -> CompileSeen {
        CompileSeen {
            compiler: "/usr/bin/gcc".into(),
            source: None,
            source_bytes: None,
            route,
            spent_us: 0,
        }
    }

    fn job(outcome: JobOutcome) -> JobRecord {
        JobRecord {
            job: 1,
            compiler: "".into(),
            source: None,
            source_bytes: None,
            worker: None,
            outcome,
            attempts: 1,
            hedged: false,
            prepared: Duration::ZERO,
            queued: Duration::ZERO,
            ran: Duration::ZERO,
            bytes_up: 0,
            bytes_down: 0,
        }
    }

    #[test]
    fn remote_is_what_workers_compiled_and_every_compile_is_counted_once() {
        let mut tally = Tally::default();
        (0..5).for_each(|_| tally.handle_compile(&seen(Route::Distcc)));
        tally.handle_compile(&seen(Route::Local("-flto".into())));
        tally.handle_compile(&seen(Route::NotACompile));
        tally.jobs = [
            JobOutcome::Compiled,
            JobOutcome::Compiled,
            JobOutcome::CompileError,
            JobOutcome::Cancelled,
        ]
        .map(job)
        .into();
        assert!(tally.awaits_records());
        let outcome = tally.finish(0);
        assert_eq!((outcome.seen, outcome.remote), (6, 2));
        assert_eq!(outcome.local["-flto"], 1);
        assert_eq!(outcome.local.values().sum::<u64>(), 3);
        assert_eq!(outcome.cancelled, 1);
        assert_eq!(outcome.explain(), None);
    }

    #[test]
    fn cached_compiles_count_once_whether_hit_or_missed() {
        let mut tally = Tally::default();
        (0..3).for_each(|_| tally.handle_asked_cache());
        tally.handle_cache_missed(&seen(Route::Distcc));
        tally.jobs.push(job(JobOutcome::Compiled));
        let outcome = tally.finish(0);
        assert_eq!(
            (outcome.seen, outcome.remote, outcome.local["ccache had it"]),
            (3, 1, 2)
        );
    }

    #[test]
    fn the_explanation_names_what_blinded_us_before_what_we_saw() {
        let mut tally = Tally::default();
        tally.handle_compile(&seen(Route::Local("-flto".into())));
        assert!(tally.clone().finish(0).explain().unwrap().contains("-flto"));
        tally.blind.insert("the tree has no launcher".into());
        assert!(
            tally
                .finish(0)
                .explain()
                .unwrap()
                .contains("the tree has no launcher")
        );
        assert!(
            Tally::default()
                .finish(0)
                .explain()
                .unwrap()
                .starts_with("no compile was seen")
        );
    }
}
