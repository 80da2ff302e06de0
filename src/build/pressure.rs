//! How many jobs the memory allows.

/// A C++ translation unit or a link with debug information takes a few hundred MiB; fewer jobs are better than swapping.
const PER_JOB_KIB: u64 = 384 << 10;

/// Jobs that may run here: those that run have their memory already, each further one needs room in what is free.
#[must_use]
pub fn local_limit(wanted: u32, here: u32, available_kib: Option<u64>) -> u32 {
    let Some(available) = available_kib else {
        return wanted;
    };
    let more = u32::try_from(available / PER_JOB_KIB).unwrap_or(u32::MAX);
    here.saturating_add(more).clamp(1, wanted.max(1))
}

/// Memory that could be had without swapping, where the system tells.
pub(super) fn available_kib() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
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
        assert_eq!(local_limit(8, 0, None), 8);
        assert_eq!(local_limit(8, 0, mib(64 << 10)), 8);
        assert_eq!(local_limit(8, 0, mib(800)), 2);
        assert_eq!(local_limit(8, 5, mib(800)), 7);
        assert_eq!(local_limit(8, 3, mib(10)), 3);
        assert_eq!(local_limit(8, 0, mib(0)), 1);
    }

    #[test]
    fn the_kernel_s_table_is_read() {
        assert_eq!(parse("MemTotal: 9 kB\nMemAvailable:   123 kB\n"), Some(123));
        assert_eq!(parse("MemTotal: 9 kB\n"), None);
    }
}
