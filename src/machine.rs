//! How much of this machine is ours to use.
//!
//! A container or a CI runner often shows all cores of its host and lets a process use only some of them. A worker that
//! offered them all would be throttled in the middle of every job, so slots are counted from what the kernel really grants:
//! the scheduling affinity (which cpusets lower too) and the CPU quotas of every cgroup above this process.

use std::{fs, path::Path};

use sysinfo::{CpuRefreshKind, System};

pub use namespaces::namespaces;
use quota::{Milli, QuotaFile};

pub mod access;
mod cgroup;
pub mod clock;
pub mod cpu;
pub mod end;
pub mod lease;
pub mod memory;
mod namespaces;
pub mod processes;
mod quota;

/// How many compiles at once this machine can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    /// At least 1.
    pub count: u32,
    /// What the number comes from, for a person.
    pub reason: String,
}

/// Counts the cores that this process may really use.
pub fn slots() -> Slots {
    let cores = cores();
    slots_of(cores, allowed_cores(), granted())
}

/// The cores that this process may use; a quota grants a part of one.
pub fn granted_cores() -> f64 {
    let cores = cores();
    let allowed = allowed_cores().unwrap_or(cores).clamp(1, cores.max(1));
    let quota = granted().map_or(f64::INFINITY, Milli::as_cores);
    f64::from(allowed).min(quota)
}

/// The slots of a machine with so many cores, of which the affinity allows some and a quota grants a share.
fn slots_of(cores: u32, allowed: Option<u32>, quota: Option<Milli>) -> Slots {
    // An affinity may name more cores than are online.
    let allowed = allowed.unwrap_or(cores).clamp(1, cores.max(1));
    match quota {
        Some(quota) if quota < Milli::cores(allowed) => Slots {
            count: quota.rounded_up(),
            reason: quota_reason(quota, cores),
        },
        _ if allowed < cores => Slots {
            count: allowed,
            reason: format!("{allowed} of {} (affinity)", counted(cores)),
        },
        _ => Slots {
            count: allowed,
            reason: counted(allowed),
        },
    }
}

/// A part of a core is rounded up: a compile waits for its disk and its input too.
fn quota_reason(quota: Milli, cores: u32) -> String {
    if quota.is_whole() {
        format!("{quota} of {} (cgroup quota)", counted(cores))
    } else {
        format!("{quota} cores (cgroup quota), rounded up")
    }
}

fn counted(cores: u32) -> String {
    match cores {
        1 => "1 core".to_owned(),
        more => format!("{more} cores"),
    }
}

fn cores() -> u32 {
    let mut system = System::new();
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    u32::try_from(system.cpus().len())
        .unwrap_or(u32::MAX)
        .max(1)
}

#[cfg(target_os = "linux")]
fn allowed_cores() -> Option<u32> {
    Some(rustix::thread::sched_getaffinity(None).ok()?.count())
}

#[cfg(not(target_os = "linux"))]
fn allowed_cores() -> Option<u32> {
    None
}

/// The tightest quota above this process; `None` where there is none, or no cgroups.
fn granted() -> Option<Milli> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    quota::files(&cgroups, &mounts)
        .iter()
        .filter_map(read_quota)
        .min()
}

fn read_quota(file: &QuotaFile) -> Option<Milli> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    match file {
        QuotaFile::V2 { max } => quota::parse_v2(&read(max)?),
        QuotaFile::V1 { quota, period } => quota::parse_v1(&read(quota)?, &read(period)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cores: u32, allowed: Option<u32>, quota: Option<u64>) -> (u32, String) {
        let quota = quota.map(|milli| quota::parse_v2(&format!("{milli} 1000")).unwrap());
        let slots = slots_of(cores, allowed, quota);
        (slots.count, slots.reason)
    }

    #[test]
    fn the_tightest_bound_decides_and_is_named() {
        assert_eq!(of(8, None, None), (8, "8 cores".into()));
        assert_eq!(of(1, Some(1), None), (1, "1 core".into()));
        assert_eq!(of(8, Some(2), None), (2, "2 of 8 cores (affinity)".into()));
        assert_eq!(
            of(8, Some(8), Some(2000)),
            (2, "2 of 8 cores (cgroup quota)".into())
        );
        assert_eq!(
            of(8, Some(4), Some(2000)),
            (2, "2 of 8 cores (cgroup quota)".into())
        );
        assert_eq!(
            of(8, Some(2), Some(4000)),
            (2, "2 of 8 cores (affinity)".into())
        );
        assert_eq!(of(8, None, Some(64_000)), (8, "8 cores".into()));
    }

    #[test]
    fn a_part_of_a_core_is_rounded_up() {
        assert_eq!(
            of(8, None, Some(1500)),
            (2, "1.5 cores (cgroup quota), rounded up".into())
        );
        assert_eq!(
            of(8, None, Some(50)),
            (1, "0.05 cores (cgroup quota), rounded up".into())
        );
    }

    #[test]
    fn there_is_always_one_slot() {
        assert_eq!(of(0, Some(0), Some(0)).0, 1);
    }

    #[test]
    fn this_machine_has_slots_and_no_more_than_its_cores() {
        let slots = slots();
        assert!((1..=cores()).contains(&slots.count), "{slots:?}");
    }
}
