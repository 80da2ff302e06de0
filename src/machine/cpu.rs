//! CPU time that was spent.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time since a process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Of this process, all threads.
    pub own: Duration,
    /// Of its descendants that have ended and were waited for; zero where the system doesn't tell.
    pub descendants: Duration,
}

impl CpuTime {
    /// As it is now.
    pub fn now() -> Self {
        Self {
            own: own(),
            descendants: descendants(),
        }
    }

    /// What was spent after an earlier moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            own: self.own.saturating_sub(earlier.own),
            descendants: self.descendants.saturating_sub(earlier.descendants),
        }
    }
}

/// CPU time of this process, all threads: one system call.
pub fn own() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

#[cfg(target_os = "linux")]
fn descendants() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = parse_stat(&stat).unwrap_or(0);
    let each = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_secs_f64(ticks as f64 / each as f64)
}

#[cfg(not(target_os = "linux"))]
fn descendants() -> Duration {
    Duration::ZERO
}

/// The sum of `cutime` and `cstime`, the 16th and 17th field (proc_pid_stat(5)). The second is a name that may hold anything.
#[cfg(target_os = "linux")]
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(13);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn time_of_descendants_is_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 5";
        assert_eq!(parse_stat(stat), Some(70));
        assert_eq!(parse_stat("7 (a) S 1 7"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn what_is_computed_is_counted() {
        let before = CpuTime::now();
        let mut sum = 0_u64;
        while CpuTime::now().since(before).own < Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(sum > 0);
        assert_eq!(before.since(CpuTime::now()).own, Duration::ZERO);
    }
}
