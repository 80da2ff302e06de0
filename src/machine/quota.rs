//! CPU quotas in the words of Linux's cgroups.

use std::{
    fmt,
    path::{Path, PathBuf},
};

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
    let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
    cgroups
        .lines()
        .filter_map(Membership::parse)
        .filter_map(|group| Some((group.version, group.directories(&mounts)?)))
        .flat_map(|(version, directories)| {
            directories.into_iter().map(move |dir| version.file(&dir))
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    fn file(self, directory: &Path) -> QuotaFile {
        match self {
            Self::V2 => QuotaFile::V2 {
                max: directory.join("cpu.max"),
            },
            Self::V1 => QuotaFile::V1 {
                quota: directory.join("cpu.cfs_quota_us"),
                period: directory.join("cpu.cfs_period_us"),
            },
        }
    }
}

/// A line of `/proc/self/cgroup` that can limit the CPU: `4:cpu,cpuacct:/docker/f00` (version 1) or `0::/user.slice`.
struct Membership<'a> {
    version: Version,
    path: &'a Path,
}

impl<'a> Membership<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let version = if controllers.split(',').any(|name| name == "cpu") {
            Version::V1
        } else if id == "0" && controllers.is_empty() {
            Version::V2
        } else {
            return None;
        };
        Some(Self {
            version,
            path: Path::new(path),
        })
    }

    /// The cgroup's directory and those above it up to the mount point. In a container the path may lie outside what is
    /// mounted; then the mount point is the nearest that can be seen.
    fn directories(&self, mounts: &[Mount]) -> Option<Vec<PathBuf>> {
        let mut mine = mounts.iter().filter(|mount| mount.version == self.version);
        let inside = mine.clone().find_map(|mount| {
            let below = self.path.strip_prefix(&mount.root).ok()?;
            Some((mount, below))
        });
        let (mount, below) = match inside {
            Some(inside) => inside,
            None => (mine.next()?, Path::new("")),
        };
        if below.components().any(|part| part.as_os_str() == "..") {
            return Some(vec![mount.point.clone()]);
        }
        let groups = below.ancestors();
        Some(groups.map(|group| mount.point.join(group)).collect())
    }
}

/// A mounted cgroup hierarchy that can limit the CPU.
#[derive(Debug)]
struct Mount {
    version: Version,
    /// The cgroup that the mount point shows.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// `36 35 98:0 ROOT POINT rw,noatime master:1 - cgroup2 cgroup rw`, see proc(5).
    fn parse(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let (filesystem, _source, options) = (kind.next()?, kind.next()?, kind.next()?);
        let version = match filesystem {
            "cgroup2" => Version::V2,
            "cgroup" if options.split(',').any(|option| option == "cpu") => Version::V1,
            _ => return None,
        };
        Some(Self {
            version,
            root: unescape(root).into(),
            point: unescape(point).into(),
        })
    }
}

/// Blanks in mountinfo are octal: `\040`.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut plain, part| {
        let code = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
        plain
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The directories that are looked into, by version.
    fn looked_into(cgroups: &str, mounts: &str) -> Vec<(u8, String)> {
        files(cgroups, mounts)
            .into_iter()
            .map(|file| match file {
                QuotaFile::V2 { max } => (2, max),
                QuotaFile::V1 { quota, .. } => (1, quota),
            })
            .map(|(version, file)| (version, file.parent().unwrap().display().to_string()))
            .collect()
    }

    fn paths(version: u8, paths: &[&str]) -> Vec<(u8, String)> {
        paths
            .iter()
            .map(|path| (version, (*path).to_owned()))
            .collect()
    }

    #[test]
    fn a_service_under_systemd_is_limited_by_every_slice_above_it() {
        let cgroups = "0::/system.slice/system-runner.slice/runner@1.service\n";
        let mounts = "23 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw\n\
            30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        let expected = [
            "/sys/fs/cgroup/system.slice/system-runner.slice/runner@1.service",
            "/sys/fs/cgroup/system.slice/system-runner.slice",
            "/sys/fs/cgroup/system.slice",
            "/sys/fs/cgroup",
        ];
        assert_eq!(looked_into(cgroups, mounts), paths(2, &expected));
    }

    #[test]
    fn a_docker_container_with_its_own_cgroup_namespace_sees_its_limit_at_the_mount_point() {
        let mounts = "1062 1061 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n";
        assert_eq!(looked_into("0::/\n", mounts), paths(2, &["/sys/fs/cgroup"]));
    }

    #[test]
    fn a_docker_container_on_version_1_is_found_below_its_mounts_root() {
        let id = "/docker/3f1e9c0a";
        let cgroups = format!(
            "12:memory:{id}\n11:cpuset:{id}\n5:cpu,cpuacct:{id}\n1:name=systemd:{id}\n0::/system.slice/containerd.service\n"
        );
        let mounts = format!(
            "775 774 0:31 {id} /sys/fs/cgroup/cpuset ro,nosuid shared:11 master:15 - cgroup cgroup rw,cpuset\n\
             776 774 0:33 {id} /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:16 - cgroup cgroup rw,cpu,cpuacct\n"
        );
        assert_eq!(
            looked_into(&cgroups, &mounts),
            paths(1, &["/sys/fs/cgroup/cpu,cpuacct"])
        );
    }

    #[test]
    fn both_hierarchies_count_where_both_are_mounted() {
        let cgroups = "9:name=systemd:/\n3:cpuset:/\n1:cpu:/jobs/7\n0::/\n";
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let mut expected = paths(
            1,
            &[
                "/sys/fs/cgroup/cpu/jobs/7",
                "/sys/fs/cgroup/cpu/jobs",
                "/sys/fs/cgroup/cpu",
            ],
        );
        expected.extend(paths(2, &["/sys/fs/cgroup/unified"]));
        assert_eq!(looked_into(cgroups, mounts), expected);
    }

    #[test]
    fn a_cgroup_outside_of_what_is_mounted_falls_back_to_the_mount_point() {
        let mounts = "41 31 0:38 /mine /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            looked_into("0::/other/group\n", mounts),
            paths(2, &["/sys/fs/cgroup"])
        );
        let mounts = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            looked_into("0::/../sibling\n", mounts),
            paths(2, &["/sys/fs/cgroup"])
        );
    }

    #[test]
    fn a_mount_point_with_a_blank_is_read() {
        let mounts = "41 31 0:38 / /my\\040cgroups rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            looked_into("0::/a\n", mounts),
            paths(2, &["/my cgroups/a", "/my cgroups"])
        );
    }

    #[test]
    fn a_group_whose_name_has_a_colon_is_read() {
        let mounts = "41 31 0:38 / /c rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            looked_into("0::/a:b\n", mounts),
            paths(2, &["/c/a:b", "/c"])
        );
    }

    #[test]
    fn without_cgroups_nothing_is_looked_into() {
        assert_eq!(looked_into("", ""), []);
        assert_eq!(looked_into("0::/\n", "garbage\n - \n1 2 3 - cgroup2\n"), []);
    }

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
