//! The compiles that run here by a permit.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::home::Permit;
use super::pause::{resume, stop};
use super::pulse::Pulse;

#[derive(Debug, Default)]
pub(super) struct Kept(Vec<Compile>);

#[derive(Debug)]
struct Compile {
    pid: u32,
    pulse: Pulse,
    permit: Permit,
    source_bytes: Option<u64>,
    since: Instant,
    /// Since when it is stopped, and of which processes it consists.
    stopped: Option<(Instant, Vec<Pid>)>,
    rested: Duration,
}

/// Longer no compile is stopped, all times together: somebody waits for it, too.
const RESTS_AT_MOST: Duration = Duration::from_secs(5);

impl Kept {
    pub(super) fn handle_begin(
        &mut self,
        pid: u32,
        permit: Permit,
        source_bytes: Option<u64>,
        now: Instant,
    ) {
        self.0.push(Compile {
            pid,
            pulse: Pulse::of(pid),
            permit,
            source_bytes,
            since: now,
            stopped: None,
            rested: Duration::ZERO,
        });
    }

    /// Forgets those that have ended, and tells how long they took, and how long their sources were.
    pub(super) fn reap(&mut self, now: Instant) -> Vec<(Permit, Duration, Option<u64>)> {
        let ended = self.0.extract_if(.., |compile| !compile.pulse.beats());
        ended
            .map(|compile| (compile.permit, compile.ran(now), compile.source_bytes))
            .collect()
    }

    /// Spare compiles stop while this machine has something better to do.
    pub(super) fn let_rest(&mut self, busy: bool, now: Instant) {
        let spare = |compile: &&mut Compile| compile.permit == Permit::Spare;
        for compile in self.0.iter_mut().filter(spare) {
            let tired = compile.rested_until(now) >= RESTS_AT_MOST;
            match (busy && !tired, compile.stopped.is_some()) {
                (true, false) if STOPS => compile.stopped = Some((now, stop(compile.pid))),
                (false, true) => compile.resume(now),
                (true | false, _) => {}
            }
        }
    }

    /// Whether a compile is stopped.
    pub(super) fn is_resting(&self) -> bool {
        self.0.iter().any(|compile| compile.stopped.is_some())
    }

    /// How many run by this permit.
    pub(super) fn count(&self, permit: Permit) -> u32 {
        let running = self.0.iter().filter(|compile| compile.permit == permit);
        u32::try_from(running.count()).unwrap_or(u32::MAX)
    }
}

/// Elsewhere nobody tells what a process has started.
const STOPS: bool = cfg!(target_os = "linux");

impl Compile {
    fn resume(&mut self, now: Instant) {
        self.rested = self.rested_until(now);
        if let Some((_, processes)) = self.stopped.take() {
            resume(&processes);
        }
    }

    fn rested_until(&self, now: Instant) -> Duration {
        let stopped = self.stopped.as_ref();
        let stopped = stopped.map(|(since, _)| now.duration_since(*since));
        self.rested + stopped.unwrap_or_default()
    }

    fn ran(&self, now: Instant) -> Duration {
        now.duration_since(self.since)
            .saturating_sub(self.rested_until(now))
    }
}

/// A build that ends early leaves nothing stopped behind, nor does somebody who kills a driver and not its compiler.
impl Drop for Compile {
    fn drop(&mut self) {
        if let Some((_, processes)) = self.stopped.take() {
            resume(&processes);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    fn state_of(pid: u32) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    fn becomes(pid: u32, state: char) -> bool {
        (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            state_of(pid) == Some(state)
        })
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment serves as the first")]
    fn a_spare_compile_rests_while_there_is_better_to_do_but_not_for_ever() {
        let mut driver = Command::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .spawn()
            .unwrap();
        let (mut kept, start) = (Kept::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        kept.handle_begin(driver.id(), Permit::Spare, None, start);
        kept.let_rest(true, at(0));
        assert!(becomes(driver.id(), 'T'));
        kept.let_rest(false, at(3_000));
        assert!(becomes(driver.id(), 'S'));
        kept.let_rest(true, at(4_000));
        assert!(becomes(driver.id(), 'T'));
        kept.let_rest(true, at(6_000));
        assert!(becomes(driver.id(), 'S'), "it rested for 5 s");
        kept.let_rest(true, at(7_000));
        assert!(kept.0[0].stopped.is_none());
        assert_eq!(kept.0[0].ran(at(7_000)), Duration::from_secs(2));
        for process in stop(driver.id()) {
            rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        }
        driver.wait().unwrap();
        assert_eq!(kept.reap(at(8_000)).len(), 1);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment serves as the first")]
    fn a_compiler_whose_driver_is_killed_while_it_rests_goes_on() {
        let mut driver = Command::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .spawn()
            .unwrap();
        let now = Instant::now();
        let below = || crate::machine::processes::children(driver.id());
        assert!((0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            !below().is_empty()
        }));
        let compiler = below()[0];
        let mut kept = Kept::default();
        kept.handle_begin(driver.id(), Permit::Spare, None, now);
        kept.let_rest(true, now);
        assert!(becomes(compiler, 'T'));
        driver.kill().unwrap();
        driver.wait().unwrap();
        assert_eq!(kept.reap(now).len(), 1);
        assert!(becomes(compiler, 'S'));
        let compiler = Pid::from_raw(compiler as i32).unwrap();
        rustix::process::kill_process(compiler, rustix::process::Signal::KILL).unwrap();
    }
}
