//! The user that distccd runs as, and the directory that it works in.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tokio::process::Command;

use super::{DaemonConfig, DaemonError};
use crate::machine::{
    access::is_open_to_all,
    lease::{self, Lease},
};

/// Debian's user, Homebrew's and Fedora's, and one that exists everywhere: what distccd itself would fall back to.
const USERS: [&str; 3] = ["distccd", "distcc", "nobody"];
/// Where a directory can be made that another user reaches, when ours is closed to it.
const SHARED: [&str; 2] = ["/tmp", "/var/tmp"];
/// How the directories' names begin.
const PREFIX: &str = "distmesh-distccd-";
/// The file that is locked while the worker lives.
const LEASE: &str = "distccd.lease";

/// Whom root's distccd becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: &'static str,
    uid: u32,
    gid: u32,
}

impl User {
    /// `None` for an ordinary user, who runs distccd as himself.
    pub(super) async fn find() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        for name in USERS {
            let (uid, gid) = (id("-u", name).await, id("-g", name).await);
            if let (Some(uid), Some(gid)) = (uid, gid) {
                return Some(Self { name, uid, gid });
            }
        }
        None
    }
}

/// `id` asks whatever directory service the system has; macOS prints nobody's -2 as a negative number in places.
async fn id(which: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([which, name]).output().await.ok()?;
    let number: i64 = std::str::from_utf8(&output.stdout)
        .ok()?
        .trim()
        .parse()
        .ok()?;
    output.status.success().then_some(number as u32)
}

/// distccd's own directory: the command list, and a `TMPDIR` that belongs to its user.
#[derive(Debug)]
pub(super) struct Home {
    dir: TempDir,
    /// Whoever dies without removing his directory lets go of it: the next worker clears it away.
    _lease: Lease,
}

impl Home {
    pub(super) fn make(config: &DaemonConfig, user: Option<&User>) -> Result<Self, DaemonError> {
        let parent = parent(&config.dir, user);
        let error = |source| DaemonError::Home {
            path: parent.clone(),
            source,
        };
        lease::sweep(&parent, PREFIX, LEASE);
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&parent)
            .map_err(error)?;
        let lease = Lease::take(dir.path(), LEASE).map_err(error)?;
        let home = Self { dir, _lease: lease };
        home.fill(user).map_err(error)?;
        home.write_list(&config.compilers)?;
        Ok(home)
    }

    fn fill(&self, user: Option<&User>) -> io::Result<()> {
        if user.is_some() {
            // The list stays root's: a job can make distccd write files, but not choose what distccd may run.
            fs::set_permissions(self.path(), fs::Permissions::from_mode(0o711))?;
        }
        self.empty_tmp(user)
    }

    /// Writes what the next distccd may run.
    pub(super) fn write_list(&self, compilers: &[PathBuf]) -> Result<(), DaemonError> {
        let list = command_list(compilers)?;
        let written = fs::write(self.list(), list)
            .and_then(|()| fs::set_permissions(self.list(), fs::Permissions::from_mode(0o644)));
        written.map_err(|source| DaemonError::Home {
            path: self.list(),
            source,
        })
    }

    /// What a killed distccd had begun is of no use to the next one.
    pub(super) fn empty_tmp(&self, user: Option<&User>) -> io::Result<()> {
        if let Err(error) = fs::remove_dir_all(self.tmp())
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        fs::create_dir(self.tmp())?;
        fs::set_permissions(self.tmp(), fs::Permissions::from_mode(0o700))?;
        let Some(user) = user else { return Ok(()) };
        chown(self.tmp(), Some(user.uid), Some(user.gid))
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    pub(super) fn list(&self) -> PathBuf {
        self.dir.path().join("commands")
    }
}

/// Where the directory goes: into the worker's own, unless another user has to reach it and cannot.
fn parent(own: &Path, user: Option<&User>) -> PathBuf {
    if user.is_none() {
        return own.to_owned();
    }
    let system = std::env::temp_dir();
    let places = [own, &system].into_iter().chain(SHARED.map(Path::new));
    let mut open = places.filter(|place| place.is_absolute() && is_open_to_all(place));
    open.next().unwrap_or(&system).to_owned()
}

/// One path a line.
fn command_list(compilers: &[PathBuf]) -> Result<String, DaemonError> {
    let mut list = String::new();
    for path in compilers {
        let plain = path.to_str().filter(|text| {
            path.is_absolute() && !text.contains(char::is_control) && text.trim() == *text
        });
        let plain = plain.ok_or_else(|| DaemonError::CompilerPath(path.clone()))?;
        list += plain;
        list.push('\n');
    }
    if list.is_empty() {
        return Err(DaemonError::NoCompiler);
    }
    Ok(list)
}

/// `DISTCC_CMDLIST_NUMWORDS`: how many of a path's last parts distccd compares. With more than the longest entry has, only
/// the whole path matches: a longer request is compared by more parts than any entry has.
pub(super) fn words(compilers: &[PathBuf]) -> usize {
    let parts = compilers.iter().map(|path| path.components().count());
    parts.max().unwrap_or_default() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_takes_only_absolute_paths_of_one_line() {
        let list = |path: &str| command_list(&[PathBuf::from(path)]);
        assert_eq!(list("/usr/bin/gcc").unwrap(), "/usr/bin/gcc\n");
        for bad in ["gcc", "/usr/bin/g\ncc", "/usr/bin/gcc ", "/usr/\rbin/gcc"] {
            assert!(
                matches!(list(bad), Err(DaemonError::CompilerPath(_))),
                "{bad:?}"
            );
        }
        assert!(matches!(command_list(&[]), Err(DaemonError::NoCompiler)));
    }

    #[test]
    fn a_closed_directory_is_not_offered_to_another_user() {
        let own = tempfile::tempdir().unwrap();
        fs::set_permissions(own.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let user = User {
            name: "nobody",
            uid: 65534,
            gid: 65534,
        };
        assert_eq!(parent(own.path(), None), own.path());
        assert_ne!(parent(own.path(), Some(&user)), own.path());
        assert!(!is_open_to_all(&own.path().join("missing")));
    }
}
