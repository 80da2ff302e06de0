//! What a process has used.

use std::{fs, time::Duration};

use distmesh::machine::cpu;
use serde::{Deserialize, Serialize};

/// CPU time since a process began, and its memory now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Of all its threads, those that have ended too; what the kernel did for it is in it.
    pub(crate) cpu: Duration,
    pub(crate) rss_mib: f64,
    /// The most that it ever was.
    pub(crate) peak_mib: f64,
}

impl Usage {
    /// To the nanosecond, by the process's own CPU clock.
    pub(crate) fn of_this_process() -> Self {
        Self {
            cpu: cpu::own(),
            ..Self::memory("self")
        }
    }

    /// The memory alone, of any process.
    pub(crate) fn memory(process: &str) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
            kib.unwrap_or(f64::NAN) / 1024.0
        };
        Self {
            cpu: Duration::ZERO,
            rss_mib: mib("VmRSS:"),
            peak_mib: mib("VmHWM:"),
        }
    }
}
