//! How much memory is left, and how many jobs it allows.

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

/// Memory that could be had without swapping, on the machine and in our control group, where the system tells.
pub fn available_kib() -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(file).ok();
    let machine = read("/proc/meminfo").and_then(|text| parse(&text));
    // In a container its own group is the root of what it sees.
    let group = || {
        let [max, current, stat] = ["memory.max", "memory.current", "memory.stat"]
            .map(|name| read(&format!("/sys/fs/cgroup/{name}")));
        group_available_kib(&max?, &current?, &stat?)
    };
    [machine, group()].into_iter().flatten().min()
}

/// What a control group of version 2 may still take: file pages that nobody uses are given back on demand.
fn group_available_kib(max: &str, current: &str, stat: &str) -> Option<u64> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let unused = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "));
    let used = number(current)?.saturating_sub(unused.and_then(number).unwrap_or(0));
    Some(number(max)?.saturating_sub(used) >> 10)
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
        let stat = format!("anon 5\ninactive_file {}\n", mib(200));
        let left = |max: &str| group_available_kib(max, &mib(900), &stat);
        assert_eq!(left(&mib(1000)), Some(300 << 10));
        assert_eq!(left("max\n"), None);
    }

    #[test]
    fn the_kernel_s_table_is_read() {
        assert_eq!(parse("MemTotal: 9 kB\nMemAvailable:   123 kB\n"), Some(123));
        assert_eq!(parse("MemTotal: 9 kB\n"), None);
    }
}
