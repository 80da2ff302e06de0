//! Whether a process that is not our child still runs.

use rustix::process::Pid;

/// Watches one process.
#[derive(Debug)]
pub(super) struct Pulse {
    pid: Option<Pid>,
    /// A number is given to another process later; this is not.
    #[cfg(target_os = "linux")]
    handle: Option<std::os::fd::OwnedFd>,
}

impl Pulse {
    pub(super) fn of(pid: u32) -> Self {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Self {
            pid,
            #[cfg(target_os = "linux")]
            handle: pid.and_then(|pid| {
                rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
            }),
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn beats(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let Some(handle) = &self.handle else {
            return self.exists();
        };
        let mut ended = [PollFd::new(handle, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        !matches!(poll(&mut ended, Some(&at_once)), Ok(1..))
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn beats(&self) -> bool {
        self.exists()
    }

    fn exists(&self) -> bool {
        self.pid
            .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
    }
}
