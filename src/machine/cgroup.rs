//! Linux's control groups: where the kernel says what a process may use.

use std::path::{Path, PathBuf};

/// Version 1 has a hierarchy for each controller, version 2 one for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// The directories of a process's cgroups that can have limits of this controller (`cpu`, `memory`), and of all their ancestors that can
/// be seen, by the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
pub(super) fn directories(
    controller: &str,
    cgroups: &str,
    mounts: &str,
) -> Vec<(Version, PathBuf)> {
    let mounts = mounts.lines();
    let mounts: Vec<Mount> = mounts
        .filter_map(|line| Mount::parse(line, controller))
        .collect();
    cgroups
        .lines()
        .filter_map(|line| Membership::parse(line, controller))
        .filter_map(|group| Some((group.version, group.directories(&mounts)?)))
        .flat_map(|(version, directories)| directories.into_iter().map(move |dir| (version, dir)))
        .collect()
}

/// A line of `/proc/self/cgroup` that can limit it: `4:cpu,cpuacct:/docker/f00` (version 1) or `0::/user.slice`.
struct Membership<'a> {
    version: Version,
    path: &'a Path,
}

impl<'a> Membership<'a> {
    fn parse(line: &'a str, controller: &str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let version = if controllers.split(',').any(|name| name == controller) {
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

/// A mounted cgroup hierarchy that can limit it.
#[derive(Debug)]
struct Mount {
    version: Version,
    /// The cgroup that the mount point shows.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// `36 35 98:0 ROOT POINT rw,noatime master:1 - cgroup2 cgroup rw`, see proc(5).
    fn parse(line: &str, controller: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let (filesystem, _source, options) = (kind.next()?, kind.next()?, kind.next()?);
        let version = match filesystem {
            "cgroup2" => Version::V2,
            "cgroup" if options.split(',').any(|option| option == controller) => Version::V1,
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
        let number = |version| match version {
            Version::V1 => 1,
            Version::V2 => 2,
        };
        directories("cpu", cgroups, mounts)
            .into_iter()
            .map(|(version, path)| {
                // Joined with nothing, a path gets a slash more.
                let path: PathBuf = path.components().collect();
                (number(version), path.display().to_string())
            })
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
        let memory = "777 774 0:34 /docker /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let found = directories("memory", &cgroups, &(mounts + memory));
        let expected = ["/sys/fs/cgroup/memory/3f1e9c0a", "/sys/fs/cgroup/memory"];
        assert_eq!(found, expected.map(|path| (Version::V1, path.into())));
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
}
