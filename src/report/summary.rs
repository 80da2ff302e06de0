//! What became of a build, in lines for a person.

use super::{Jobs, Report, WorkerReport, ceiling::Away, progress::counted};
use crate::event::LinkState;

impl Report {
    /// The lines that are shown when the wrapped command has ended.
    pub fn summary(&self) -> Vec<String> {
        let mut lines = vec![self.headline()];
        lines.extend(self.reasons());
        lines.extend(self.workers_missing());
        lines.extend(worker_lines(&self.workers));
        lines.extend(self.ceiling());
        lines.extend(self.refusals());
        if self.jobs.reattempted > 0 {
            let jobs = counted(self.jobs.reattempted, "job");
            lines.push(format!("{jobs} needed a second attempt"));
        }
        lines.extend(self.incident_lines());
        lines
    }

    fn headline(&self) -> String {
        let Jobs {
            seen,
            remote,
            local,
            cancelled,
            ..
        } = self.jobs;
        let time = wall(self.wall_s);
        let exit = match self.exit_code {
            0 => String::new(),
            code => format!(", exit code {code}"),
        };
        if seen == 0 {
            return format!("no compile was seen in {time}{exit}: {NOTHING_SEEN}");
        }
        if remote == 0 && local > 0 {
            let reason = self.most_frequent().map_or("", |(reason, _)| reason);
            let seen = counted(seen, "compile");
            return format!("0 of {seen} remote in {time}{exit}, because: {reason}");
        }
        let cancelled = match cancelled {
            0 => String::new(),
            count => format!(", {count} cancelled"),
        };
        let share = remote * 100 / seen;
        let seen = counted(seen, "compile");
        format!("{seen} in {time}: {remote} remote ({share} %), {local} local{cancelled}{exit}")
    }

    /// Why compiles were local, the most frequent reason first.
    fn reasons(&self) -> Vec<String> {
        let width = self
            .most_frequent()
            .map_or(0, |(_, count)| count.to_string().len());
        let line = |(reason, count): (&str, u64)| format!("  {count:>width$} local: {reason}");
        self.by_frequency().into_iter().map(line).collect()
    }

    fn most_frequent(&self) -> Option<(&str, u64)> {
        self.by_frequency().first().copied()
    }

    fn by_frequency(&self) -> Vec<(&str, u64)> {
        let mut reasons: Vec<_> = self
            .local_reasons
            .iter()
            .map(|(reason, count)| (reason.as_str(), *count))
            .collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reasons
    }

    fn workers_missing(&self) -> Option<String> {
        let came = self
            .workers
            .iter()
            .filter(|worker| worker.up_after_s.is_some());
        let came = u32::try_from(came.count()).unwrap_or(u32::MAX);
        let expected = self.expected_workers.filter(|expected| *expected > came);
        expected.map(|expected| format!("{came} of {} came", counted(expected, "expected worker")))
    }

    fn ceiling(&self) -> Option<String> {
        let away = Away {
            seconds: self.away_s,
            jobs: self.jobs.remote,
        };
        self.cpu?.line(self.wall_s, away, &self.workers)
    }

    fn refusals(&self) -> Vec<String> {
        let line = |refusal: &super::Refusal| {
            let super::Refusal {
                worker,
                compiler,
                reason,
            } = refusal;
            format!("  {worker} was not used for {compiler}: {reason}")
        };
        self.refused.iter().map(line).collect()
    }

    fn incident_lines(&self) -> Vec<String> {
        let shown = self.incidents.iter().take(SHOWN_INCIDENTS);
        let mut lines: Vec<_> = shown
            .map(|incident| format!("  ! {}", incident.text))
            .collect();
        let hidden = self.incidents.len().saturating_sub(SHOWN_INCIDENTS) as u64;
        let hidden = hidden + self.incidents_left_out;
        if hidden > 0 {
            lines.push(format!("  ! and {hidden} more"));
        }
        lines
    }
}

fn worker_lines(workers: &[WorkerReport]) -> Vec<String> {
    let name = workers
        .iter()
        .map(|worker| worker.name.len())
        .max()
        .unwrap_or(0);
    let jobs = |worker: &WorkerReport| counted(worker.jobs, "job");
    let width = workers
        .iter()
        .map(|worker| jobs(worker).len())
        .max()
        .unwrap_or(0);
    let line = |worker: &WorkerReport| {
        let slots = counted(worker.slots, "slot");
        format!(
            "  {:name$}  {slots:>8}  {:>width$}  {}",
            worker.name,
            jobs(worker),
            link(worker)
        )
    };
    workers.iter().map(line).collect()
}

/// `up after 1.2 s, direct`; and the state, when it is another than up.
fn link(worker: &WorkerReport) -> String {
    let because = || match &worker.reason {
        Some(reason) => format!(": {reason}"),
        None => String::new(),
    };
    let Some(up_after) = worker.up_after_s else {
        return format!("never up{}", because());
    };
    let path = match (&worker.path, &worker.relay) {
        (Some(path), Some(relay)) => format!(", {path} by {relay}"),
        (Some(path), None) => format!(", {path}"),
        (None, _) => String::new(),
    };
    let state = match worker.state {
        LinkState::Up => String::new(),
        LinkState::Punching | LinkState::Handshaking | LinkState::Down => {
            format!(", down at the end{}", because())
        }
        LinkState::Suspect => format!(", silent at the end{}", because()),
    };
    format!("up after {up_after:.1} s{path}{state}")
}

/// `9.3 s`, `2 min 05 s`, `1 h 02 min`.
fn wall(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..=99 => format!("{seconds:.1} s"),
        100..=3599 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// What a person can do about it, when not one compiler call came through distmesh.
const NOTHING_SEEN: &str = "nothing had to be compiled, or the compiler is called by its path (CC=/usr/bin/gcc: use CC=gcc), or the \
    CMake tree was configured without distmesh (--reconfigure cures it)";

/// The rest is in `report.json`.
const SHOWN_INCIDENTS: usize = 10;

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        event::{JobOutcome, JobRecord, Route, WorkerView},
        report::{End, Tally},
    };

    pub(in crate::report) fn job(outcome: JobOutcome, attempts: u32) -> JobRecord {
        JobRecord {
            job: 1,
            compiler: "gcc".into(),
            source: None,
            source_bytes: None,
            worker: Some("attic".into()),
            outcome,
            attempts,
            hedged: false,
            prepared: Duration::ZERO,
            queued: Duration::ZERO,
            ran: Duration::from_secs(1),
            bytes_up: 1,
            bytes_down: 1,
        }
    }

    pub(in crate::report) fn worker(name: &str, slots: u32, state: LinkState) -> WorkerView {
        WorkerView {
            name: name.into(),
            slots,
            jobs: 99,
            state,
            path: Some("direct".into()),
            relay: None,
            nat: None,
            reason: None,
            up_after_ms: Some(1250),
            rtt_us: None,
        }
    }

    fn summary(tally: &Tally, exit_code: i32) -> String {
        let wall = Duration::from_millis(72_340);
        tally.report(End { exit_code, wall }).summary().join("\n")
    }

    fn called(tally: &mut Tally, times: usize, route: &Route) {
        for _ in 0..times {
            tally.handle_route(route);
        }
    }

    #[test]
    fn the_summary_says_how_many_compiles_went_where_and_why() {
        let mut tally = Tally::new(Some(3));
        called(&mut tally, 120, &Route::Distcc);
        called(
            &mut tally,
            2,
            &Route::Local("-march=native means this machine".into()),
        );
        called(&mut tally, 10, &Route::Local("assembler source".into()));
        for n in 0..118 {
            tally.handle_job(&job(JobOutcome::Compiled, if n < 3 { 2 } else { 1 }));
        }
        tally.handle_worker(&worker("attic", 4, LinkState::Up));
        tally.handle_worker(&worker("cellar-2", 16, LinkState::Down));
        insta::assert_snapshot!(summary(&tally, 0), @r"
        132 compiles in 72.3 s: 118 remote (89 %), 14 local
          10 local: assembler source
           2 local: -march=native means this machine
           2 local: distcc kept it here
        2 of 3 expected workers came
          attic      4 slots  118 jobs  up after 1.2 s, direct
          cellar-2  16 slots    0 jobs  up after 1.2 s, direct, down at the end
        3 jobs needed a second attempt
        ");
    }

    #[test]
    fn a_build_that_stayed_local_says_so_first_with_the_reason() {
        let mut tally = Tally::new(None);
        called(&mut tally, 411, &Route::Local("no worker was up".into()));
        called(&mut tally, 1, &Route::Local("assembler source".into()));
        insta::assert_snapshot!(summary(&tally, 2), @r"
        0 of 412 compiles remote in 72.3 s, exit code 2, because: no worker was up
          411 local: no worker was up
            1 local: assembler source
        ");
    }

    #[test]
    fn a_build_that_was_not_seen_says_what_hides_it() {
        let text = summary(&Tally::new(None), 0);
        assert!(
            text.starts_with("no compile was seen in 72.3 s: "),
            "{text}"
        );
        assert!(
            text.contains("CC=/usr/bin/gcc") && text.contains("--reconfigure"),
            "{text}"
        );
    }

    #[test]
    fn refusals_and_incidents_are_shown_and_a_flood_is_cut() {
        let mut report = Tally::new(None).report(End {
            exit_code: 0,
            wall: Duration::ZERO,
        });
        report.refused.push(crate::report::Refusal {
            worker: "attic".into(),
            compiler: "/usr/bin/clang".into(),
            reason: "clang 14 here, clang 15 there".into(),
        });
        let incident = crate::report::Incident {
            at_ms: 1,
            text: "odd".into(),
        };
        report.incidents = vec![incident; 12];
        let text = report.summary().join("\n");
        assert!(
            text.contains("attic was not used for /usr/bin/clang: clang 14 here"),
            "{text}"
        );
        assert_eq!(text.matches("! odd").count(), SHOWN_INCIDENTS);
        assert!(text.ends_with("! and 2 more"), "{text}");
    }

    #[test]
    fn times_are_as_long_as_they_need_to_be() {
        assert_eq!(wall(9.34), "9.3 s");
        assert_eq!(wall(125.0), "2 min 05 s");
        assert_eq!(wall(3725.0), "1 h 02 min");
    }
}
