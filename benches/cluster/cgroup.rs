//! A share of a core and an account of what was used of it, by cgroup v1 (`cpu`, `cpuacct`) or v2.

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
    /// Where v1 counts the time, if not in the same hierarchy.
    account: Option<PathBuf>,
}

fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if is_v2() {
        return vec![root.to_owned()];
    }
    let (cpu, account) = (root.join("cpu"), root.join("cpuacct"));
    // Most systems mount both together, under two names.
    if fs::canonicalize(&cpu).ok() == fs::canonicalize(&account).ok() {
        vec![cpu]
    } else {
        vec![cpu, account]
    }
}

/// Removes what a killed run has left; a group with processes stays.
pub(crate) fn sweep() {
    let of = |hierarchy| fs::read_dir(hierarchy).into_iter().flatten().flatten();
    for group in hierarchies().into_iter().flat_map(of) {
        if group.file_name().to_string_lossy().starts_with(PREFIX) {
            drop(fs::remove_dir(group.path()));
        }
    }
}

impl Cgroup {
    pub(crate) fn new(name: &str, cores: f64) -> io::Result<Self> {
        let mut dirs = hierarchies();
        for dir in &mut dirs {
            dir.push(format!("{PREFIX}{}-{name}", std::process::id()));
            // In a namespace of processes the own number is always 1: another run's group of this name is litter or alive.
            drop(fs::remove_dir(&dir));
            fs::create_dir(&dir)?;
        }
        let account = dirs.get(1).cloned();
        let at = dirs.swap_remove(0);
        let quota = (cores * PERIOD as f64).round() as u64;
        if is_v2() {
            fs::write(Path::new(ROOT).join("cgroup.subtree_control"), "+cpu")?;
            fs::write(at.join("cpu.max"), format!("{quota} {PERIOD}"))?;
        } else {
            fs::write(at.join("cpu.cfs_period_us"), PERIOD.to_string())?;
            fs::write(at.join("cpu.cfs_quota_us"), quota.to_string())?;
        }
        Ok(Self { at, account })
    }

    /// Where a process writes its number to enter.
    pub(crate) fn entrances(&self) -> Vec<String> {
        let dirs = std::iter::once(&self.at).chain(&self.account);
        dirs.map(|dir| dir.join("cgroup.procs").display().to_string())
            .collect()
    }

    /// Seconds of CPU that its processes have used.
    pub(crate) fn used(&self) -> f64 {
        let account = self.account.as_ref().unwrap_or(&self.at);
        if let Ok(text) = fs::read_to_string(account.join("cpuacct.usage")) {
            return text.trim().parse::<f64>().unwrap_or(f64::NAN) / 1e9;
        }
        self.stat("usage_usec ")
            .map_or(f64::NAN, |usec| usec as f64 / 1e6)
    }

    fn stat(&self, name: &str) -> Option<u64> {
        let stat = fs::read_to_string(self.at.join("cpu.stat")).ok()?;
        let line = stat.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    }

    /// In how many of the periods in which it ran it reached its quota.
    pub(crate) fn throttled(&self) -> String {
        match (self.stat("nr_throttled "), self.stat("nr_periods ")) {
            (Some(throttled), Some(periods)) => format!("{throttled}/{periods}"),
            _ => "unknown".to_owned(),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in std::iter::once(&self.at).chain(&self.account) {
            drop(fs::remove_dir(dir));
        }
    }
}
