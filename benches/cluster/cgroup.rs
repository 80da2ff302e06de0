//! A share of a core, by cgroup v1 (`cpu`) or v2.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "distmesh-bench-";
/// Microseconds. Short, so that a share of a core behaves like a slow core: at the default of 100 ms it would be a fast one
/// that stands still most of the time.
const PERIOD: u64 = 10_000;

/// One group; removed when dropped.
pub(crate) struct Cgroup {
    at: PathBuf,
}

fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn hierarchy() -> PathBuf {
    let root = Path::new(ROOT);
    if is_v2() {
        root.to_owned()
    } else {
        root.join("cpu")
    }
}

/// Removes what a killed run has left; a group with processes stays.
pub(crate) fn sweep() {
    let groups = fs::read_dir(hierarchy()).into_iter().flatten().flatten();
    for group in groups {
        if group.file_name().to_string_lossy().starts_with(PREFIX) {
            drop(fs::remove_dir(group.path()));
        }
    }
}

impl Cgroup {
    pub(crate) fn new(name: &str, cores: f64) -> io::Result<Self> {
        let at = hierarchy().join(format!("{PREFIX}{}-{name}", std::process::id()));
        // In a namespace of processes the own number is always 1: another run's group of this name is litter or alive.
        drop(fs::remove_dir(&at));
        fs::create_dir(&at)?;
        let quota = (cores * PERIOD as f64).round() as u64;
        if is_v2() {
            fs::write(Path::new(ROOT).join("cgroup.subtree_control"), "+cpu")?;
            fs::write(at.join("cpu.max"), format!("{quota} {PERIOD}"))?;
        } else {
            fs::write(at.join("cpu.cfs_period_us"), PERIOD.to_string())?;
            fs::write(at.join("cpu.cfs_quota_us"), quota.to_string())?;
        }
        Ok(Self { at })
    }

    /// Where a process writes its number to enter.
    pub(crate) fn entrance(&self) -> PathBuf {
        self.at.join("cgroup.procs")
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.entrance()).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    pub(crate) fn throttled(&self) -> String {
        let stat = fs::read_to_string(self.at.join("cpu.stat")).unwrap_or_default();
        let number = |name: &str| {
            let line = stat.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse::<u64>().ok())
        };
        match (number("nr_throttled "), number("nr_periods ")) {
            (Some(throttled), Some(periods)) => format!("{throttled}/{periods}"),
            _ => "unknown".to_owned(),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.at));
    }
}
