//! How much of this machine is ours to use.
//!
//! A container or a CI runner often shows all cores of its host and lets a process use only some of them. A worker that
//! offered them all would be throttled in the middle of every job, so slots are counted from what the kernel really grants:
//! the scheduling affinity (which cpusets lower too) and the CPU quotas of every cgroup above this process.

use std::{fs, path::Path};

use sysinfo::{CpuRefreshKind, System};

use quota::{Milli, QuotaFile};

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
