//! Whether anything of distccd moves: its log, its processes, their CPU time.
//!
//! A canary alone cannot tell a hung distccd from a machine that starves; both are silent. A hung one consumes nothing.

use std::time::Duration;

use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System};
use tokio::{sync::watch, time::sleep};

use super::process::Journal;
use crate::machine::processes::tree;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Looks without a change while jobs run, before a canary asks.
const QUIET_LOOKS: u32 = 2;
/// Looks without a change while a canary waits for its answer: a starving process gets a tick (10 ms) in that time.
const STALLED_LOOKS: u32 = 3;

/// Looks at one session.
#[derive(Clone, Debug)]
pub(super) struct Vitals {
    session: u32,
    journal: Journal,
    /// Jobs that were handed to distccd and are not answered.
    jobs: watch::Receiver<u32>,
}

/// What a look saw; it lives if the next one differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    lines: u64,
    processes: usize,
    /// Milliseconds of all living processes together.
    cpu: u64,
}

impl Vitals {
    pub(super) fn new(session: u32, journal: Journal, jobs: watch::Receiver<u32>) -> Self {
        Self {
            session,
            journal,
            jobs,
        }
    }

    pub(super) fn lines(&self) -> u64 {
        self.journal.lines()
    }

    /// Ends when jobs run and nothing of distccd moves.
    pub(super) async fn quiet(&mut self) {
        loop {
            // Nobody left who could hand over jobs: the supervisor is about to be told to stop.
            if self.jobs.wait_for(|jobs| *jobs > 0).await.is_err() {
                return std::future::pending().await;
            }
            if self.unmoved(QUIET_LOOKS).await && *self.jobs.borrow() > 0 {
                return;
            }
        }
    }

    /// Ends when nothing of distccd moves although it is asked.
    pub(super) async fn stalled(&self) -> Duration {
        while !self.unmoved(STALLED_LOOKS).await {}
        LOOK * STALLED_LOOKS
    }

    /// Counts looks, not time: after a suspend of the whole machine all of us have stood still.
    async fn unmoved(&self, looks: u32) -> bool {
        let before = look(self.session, self.lines());
        for _ in 0..looks {
            sleep(LOOK).await;
            if self.lines() != before.lines || look(self.session, before.lines) != before {
                return false;
            }
        }
        true
    }
}

fn look(session: u32, lines: u64) -> Look {
    let mut look = Look {
        lines,
        processes: 0,
        cpu: 0,
    };
    let count = |process: &Process| {
        look.processes += 1;
        look.cpu += process.accumulated_cpu_time();
    };
    // With the table of all processes, twice a second, a worker opened 12,500 files in a build of redis instead of 2,000.
    let family: Vec<Pid> = tree(session)
        .into_keys()
        .filter(|process| *process != session)
        .map(Pid::from_u32)
        .collect();
    if family.is_empty() {
        with_session(session, count);
    } else {
        living(ProcessesToUpdate::Some(&family), |_| true, count);
    }
    look
}

/// Calls `with` for every process of the session.
pub(super) fn with_session(session: u32, with: impl FnMut(&Process)) {
    let of_session = |process: &Process| {
        let id = process.session_id();
        id.is_some_and(|id| id.as_u32() == session)
    };
    living(ProcessesToUpdate::All, of_session, with);
}

/// Calls `with` for those of these processes. The dead whom nobody reaped do not count.
fn living(
    which: ProcessesToUpdate<'_>,
    of_ours: impl Fn(&Process) -> bool,
    with: impl FnMut(&Process),
) {
    let mut system = System::new();
    let kind = ProcessRefreshKind::nothing().with_cpu().without_tasks();
    system.refresh_processes_specifics(which, true, kind);
    let processes = system.processes().values();
    processes
        .filter(|process| process.status() != ProcessStatus::Zombie && of_ours(process))
        .for_each(with);
}
