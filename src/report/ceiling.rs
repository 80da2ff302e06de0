//! Whether more workers would make the build faster. Pure.
//!
//! Preprocessing, the distcc client and links stay on the primary: whatever the workers do, the build takes as long as that takes.

use serde::{Deserialize, Serialize};

use super::WorkerReport;

/// CPU time on the primary while the wrapped command ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Of the command and all that it started, in seconds.
    pub build_s: f64,
    /// Of distmesh itself, in seconds.
    pub distmesh_s: f64,
    /// How long compiles in `build_s` ran that were done here only because this machine had nothing else to do, in seconds, added up.
    pub spare_s: f64,
    /// The cores that it could use.
    pub cores: f64,
}

/// What the workers did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Away {
    /// Seconds that jobs were at workers, added up.
    pub(super) seconds: f64,
    pub(super) jobs: u64,
}

impl Cpu {
    /// The share of the machine that was busy with what only it can do, from 0 to 1.
    fn share(&self, wall_s: f64) -> f64 {
        let busy = self.needed() / (wall_s * self.cores);
        if busy.is_finite() {
            busy.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    fn needed(&self) -> f64 {
        // A compile takes a core while it runs, or the part of one that there is.
        let spare = self.spare_s * self.cores.min(1.0);
        (self.build_s + self.distmesh_s - spare).max(self.distmesh_s)
    }

    /// How many slots of workers keep this machine busy: what they did, in the least time that it needs.
    fn worthwhile_slots(&self, away: Away) -> f64 {
        away.seconds * self.cores / self.needed()
    }

    pub(super) fn line(&self, wall_s: f64, away: Away, workers: &[WorkerReport]) -> Option<String> {
        let used: Vec<_> = workers.iter().filter(|worker| worker.jobs > 0).collect();
        let slots: u32 = used.iter().map(|worker| worker.slots).sum();
        if away.jobs < ENOUGH_JOBS || slots == 0 || self.needed() <= 0.0 {
            return None;
        }
        let each = f64::from(slots) / used.len() as f64;
        let worth = (self.worthwhile_slots(away) / each).ceil().max(1.0);
        let workers = match worth as u64 {
            1 => "1 worker like these keeps".to_owned(),
            more => format!("{more} workers like these keep"),
        };
        let share = self.share(wall_s);
        let percent = (share * 100.0).round();
        let own = self.distmesh_s * 100.0 / (self.build_s + self.distmesh_s);
        let what = format!(
            "this machine was busy for {percent} % of the time with what only it can do (distmesh: {own:.1} % of its work)"
        );
        Some(if share >= BOTTLENECK {
            format!(
                "{what}: it is the bottleneck; about {workers} it busy, and more make nothing faster"
            )
        } else {
            format!("{what}; about {workers} it busy")
        })
    }
}

/// Fewer tell nothing.
const ENOUGH_JOBS: u64 = 20;
/// A build begins and ends with what nobody can share.
const BOTTLENECK: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::LinkState,
        report::{End, Tally, summary::tests::worker},
    };

    fn workers(count: usize) -> Vec<WorkerReport> {
        let mut tally = Tally::new(None);
        for n in 0..count {
            tally.handle_worker(&worker(&format!("w{n}"), 2, LinkState::Up));
        }
        let mut workers = tally.report(End::default()).workers;
        workers.iter_mut().for_each(|worker| worker.jobs = 10);
        workers
    }

    const AWAY: Away = Away {
        seconds: 400.0,
        jobs: 40,
    };

    #[test]
    fn a_busy_primary_is_said_to_be_the_bottleneck_and_how_many_workers_it_can_feed() {
        let cpu = Cpu {
            build_s: 95.0,
            distmesh_s: 1.0,
            spare_s: 0.0,
            cores: 1.0,
        };
        insta::assert_snapshot!(cpu.line(100.0, AWAY, &workers(4)).unwrap(), @"this machine was busy for 96 % of the time with what only it can do (distmesh: 1.0 % of its work): it is the bottleneck; about 3 workers like these keep it busy, and more make nothing faster");
    }

    #[test]
    fn a_primary_that_waits_for_its_workers_says_how_many_it_could_feed() {
        let cpu = Cpu {
            build_s: 60.0,
            distmesh_s: 0.5,
            spare_s: 40.0,
            cores: 1.0,
        };
        let text = cpu.line(100.0, AWAY, &workers(4)).unwrap();
        assert!(text.contains("for 21 %"), "{text}");
        assert!(
            text.ends_with("; about 10 workers like these keep it busy"),
            "{text}"
        );
    }

    #[test]
    fn a_handful_of_jobs_or_no_worker_tells_nothing() {
        let cpu = Cpu {
            build_s: 1.0,
            ..Cpu::default()
        };
        let few = Away { jobs: 3, ..AWAY };
        assert_eq!(cpu.line(1.0, few, &workers(1)), None);
        assert_eq!(cpu.line(1.0, AWAY, &[]), None);
        assert_eq!(Cpu::default().line(0.0, AWAY, &workers(1)), None);
    }
}
