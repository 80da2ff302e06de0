//! CPU quotas in the words of Linux's cgroups.

use std::{fmt, path::PathBuf};

use super::cgroup::{Version, directories};

/// Thousandths of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Milli(u64);

impl Milli {
    pub(super) fn cores(cores: u32) -> Self {
        Self(u64::from(cores) * 1000)
    }

    /// Time granted in a period; a period of zero is none.
    fn share(quota: u64, period: u64) -> Option<Self> {
        Some(Self(quota.checked_mul(1000)?.checked_div(period)?.max(1)))
    }

    pub(super) fn rounded_up(self) -> u32 {
        u32::try_from(self.0.div_ceil(1000))
            .unwrap_or(u32::MAX)
            .max(1)
    }

    pub(super) fn as_cores(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    pub(super) fn is_whole(self) -> bool {
        self.0.is_multiple_of(1000)
    }
}

impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:03}", self.0 % 1000);
        match decimals.trim_end_matches('0') {
            "" => write!(f, "{}", self.0 / 1000),
            part => write!(f, "{}.{part}", self.0 / 1000),
        }
    }
}

/// Where the kernel says how much one cgroup may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum QuotaFile {
    V2 { max: PathBuf },
    V1 { quota: PathBuf, period: PathBuf },
}

/// The quota files of a process's cgroups and of all their ancestors that can be seen, by the texts of `/proc/self/cgroup`
/// and `/proc/self/mountinfo`. Some of them may not exist.
pub(super) fn files(cgroups: &str, mounts: &str) -> Vec<QuotaFile> {
    let directories = directories("cpu", cgroups, mounts).into_iter();
    directories
        .map(|(version, directory)| match version {
            Version::V2 => QuotaFile::V2 {
                max: directory.join("cpu.max"),
            },
            Version::V1 => QuotaFile::V1 {
                quota: directory.join("cpu.cfs_quota_us"),
                period: directory.join("cpu.cfs_period_us"),
            },
        })
        .collect()
}

/// `150000 100000` or `max 100000`.
pub(super) fn parse_v2(text: &str) -> Option<Milli> {
    let (quota, period) = text.trim().split_once(' ')?;
    Milli::share(quota.parse().ok()?, period.trim().parse().ok()?)
}

/// Microseconds each; the quota is -1 when there is none.
pub(super) fn parse_v1(quota: &str, period: &str) -> Option<Milli> {
    Milli::share(quota.trim().parse().ok()?, period.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_of_version_2_are_read() {
        assert_eq!(parse_v2("150000 100000\n"), Some(Milli(1500)));
        assert_eq!(parse_v2("max 100000\n"), None);
        for garbage in ["", "1", "1 0", "-1 100000", "x y", "18446744073709551615 1"] {
            assert_eq!(parse_v2(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn quotas_of_version_1_are_read() {
        assert_eq!(parse_v1("200000\n", "100000\n"), Some(Milli(2000)));
        assert_eq!(parse_v1("-1\n", "100000\n"), None);
        assert_eq!(parse_v1("200000\n", "0\n"), None);
    }

    #[test]
    fn parts_of_cores_are_shown_without_idle_zeros() {
        let shown: Vec<_> = [1500, 2000, 50, 1]
            .map(|milli| Milli(milli).to_string())
            .into();
        assert_eq!(shown, ["1.5", "2", "0.05", "0.001"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_read(cgroups in "[0:/.,cpu\n]*", place in "[/.\\\\0-9\u{e9} ]*", kind in "(cgroup2?)? [cpu, ]*") {
            files(&cgroups, &format!("1 2 3 {place} - {kind}\n"));
            parse_v2(&place);
        }
    }
}
