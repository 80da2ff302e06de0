//! How much memory is left, and how many jobs it allows.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::cgroup::{Version, directories};

/// A C++ translation unit or a link with debug information takes a few hundred MiB; fewer jobs are better than swapping.
const PER_JOB_KIB: u64 = 384 << 10;

/// Jobs that may run: those that run have their memory already, each further one needs room in what is free.
#[must_use]
pub fn affordable(wanted: u32, running: u32, available_kib: Option<u64>) -> u32 {
    let Some(available) = available_kib else {
        return wanted;
    };
    let more = u32::try_from(available / PER_JOB_KIB).unwrap_or(u32::MAX);
    running.saturating_add(more).clamp(1, wanted.max(1))
}

/// Memory that could be had without swapping, on the machine and in our control groups, where the system tells.
pub fn available_kib() -> Option<u64> {
    // This is asked every second, and a process seldom gets another group, or its group a limit that it did not have.
    static LIMITED: OnceLock<Vec<Group>> = OnceLock::new();
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| parse(&text));
    let groups = LIMITED.get_or_init(limited).iter();
    groups.filter_map(Group::available_kib).chain(machine).min()
}

/// A control group of this process, or one above it.
#[derive(Debug)]
struct Group {
    version: Version,
    directory: PathBuf,
}

/// The groups that limit memory now.
fn limited() -> Vec<Group> {
    let [cgroups, mounts] = ["cgroup", "mountinfo"]
        .map(|file| fs::read_to_string(Path::new("/proc/self").join(file)).unwrap_or_default());
    let all = directories("memory", &cgroups, &mounts).into_iter();
    let groups = all.map(|(version, directory)| Group { version, directory });
    groups
        .filter(|group| group.available_kib().is_some())
        .collect()
}

impl Group {
    fn available_kib(&self) -> Option<u64> {
        let (limit, used, unused) = match self.version {
            Version::V2 => ("memory.max", "memory.current", "inactive_file"),
            Version::V1 => (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            ),
        };
        let read = |file: &str| fs::read_to_string(self.directory.join(file)).ok();
        let limit = parse_limit(&read(limit)?)?;
        left_kib(limit, &read(used)?, &read("memory.stat")?, unused)
    }
}

/// `max`, or in version 1 a number near the largest, is no limit.
fn parse_limit(text: &str) -> Option<u64> {
    const NO_LIMIT: u64 = 1 << 60;
    let limit = text.trim().parse().ok()?;
    (limit < NO_LIMIT).then_some(limit)
}

/// What a control group may still take: file pages that nobody uses are given back on demand.
fn left_kib(limit: u64, used: &str, stat: &str, unused: &str) -> Option<u64> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let mut stat = stat.lines().filter_map(|line| line.split_once(' '));
    let unused = stat.find(|(name, _)| *name == unused);
    let unused = unused.and_then(|(_, bytes)| number(bytes)).unwrap_or(0);
    let used = number(used)?.saturating_sub(unused);
    Some(limit.saturating_sub(used) >> 10)
}

fn parse(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scarce_memory_lowers_the_limit_and_never_to_nothing() {
        let mib = |mib: u64| Some(mib << 10);
        assert_eq!(affordable(8, 0, None), 8);
        assert_eq!(affordable(8, 0, mib(64 << 10)), 8);
        assert_eq!(affordable(8, 0, mib(800)), 2);
        assert_eq!(affordable(8, 5, mib(800)), 7);
        assert_eq!(affordable(8, 3, mib(10)), 3);
        assert_eq!(affordable(8, 0, mib(0)), 1);
    }

    #[test]
    fn a_control_group_counts_unused_file_pages_as_free() {
        let mib = |mib: u64| (mib << 20).to_string();
        for (version, [limit, used, unused]) in [
            (
                Version::V2,
                ["memory.max", "memory.current", "inactive_file"],
            ),
            (
                Version::V1,
                [
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    "total_inactive_file",
                ],
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
            let group = Group {
                version,
                directory: dir.path().to_owned(),
            };
            assert_eq!(group.available_kib(), None);
            write(used, &mib(900));
            write("memory.stat", &format!("anon 5\n{unused} {}\n", mib(200)));
            for (text, left) in [
                (mib(1000), Some(300 << 10)),
                ("max\n".to_owned(), None),
                ("9223372036854771712\n".to_owned(), None),
            ] {
                write(limit, &text);
                assert_eq!(group.available_kib(), left, "{text}");
            }
        }
    }

    #[test]
    fn the_kernel_s_table_is_read() {
        assert_eq!(parse("MemTotal: 9 kB\nMemAvailable:   123 kB\n"), Some(123));
        assert_eq!(parse("MemTotal: 9 kB\n"), None);
    }
}
