//! Directories that live as long as the process that made them, even if it is killed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use super::{PathError, SessionDir};

/// A private directory of this process; dropping it removes it. What a killed process left is removed by the next one
/// that makes a directory in the same session.
#[derive(Debug)]
pub struct PrivateDir {
    path: PathBuf,
    _lock: File,
}

impl SessionDir {
    /// Makes a directory of our own, called after `kind`, and removes those whose processes are gone.
    pub fn private(&self, kind: &str) -> Result<PrivateDir, PathError> {
        // Held while directories come and go, so that nobody takes one that is just being made for a dead one.
        let _gate = locked(
            &self.path().join("private.lock"),
            FlockOperation::LockExclusive,
        )?;
        sweep(self.path());
        let io = |source| PathError::Io {
            path: self.path().to_owned(),
            source,
        };
        let path = self.make(kind).map_err(io)?;
        let lock = locked(&path.join(LOCK), FlockOperation::NonBlockingLockExclusive)?;
        Ok(PrivateDir { path, _lock: lock })
    }

    /// The lowest number that is free: of builds that follow one another, each finds the paths of tools that the one before has written
    /// down.
    fn make(&self, kind: &str) -> io::Result<PathBuf> {
        let mut number = 1;
        loop {
            let path = self.path().join(format!("{PREFIX}{kind}-{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                made => return made.map(|()| path),
            }
        }
    }
}

impl PrivateDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // A compiler that is just being asked may still write there. What cannot be removed now is removed by the next start in this
        // session.
        for _ in 0..REMOVALS {
            match fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    thread::sleep(BETWEEN_REMOVALS);
                }
                Ok(()) | Err(_) => return,
            }
        }
    }
}

/// A second in all.
const REMOVALS: u32 = 50;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(20);

/// Removes the directories that nobody holds.
fn sweep(session: &Path) {
    let Ok(entries) = fs::read_dir(session) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let ours = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if ours && locked(&path.join(LOCK), FlockOperation::NonBlockingLockExclusive).is_ok() {
            drop(fs::remove_dir_all(&path));
        }
    }
}

fn locked(path: &Path, how: FlockOperation) -> Result<File, PathError> {
    let io = |source| PathError::Io {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    flock(&file, how).map_err(|error| io(io::Error::from(error)))?;
    Ok(file)
}

/// What the sweep may remove begins so.
const PREFIX: &str = "own-";

/// Held by the owner; the kernel releases it when the process ends in any way.
const LOCK: &str = "lock";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::RuntimeDir;

    fn session(dir: &Path) -> SessionDir {
        let dir = dir.to_owned();
        let runtime =
            RuntimeDir::locate(move |name| (name == "DISTMESH_RUNTIME_DIR").then(|| dir.clone()));
        runtime.unwrap().session(&"s".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_directory_goes_with_its_owner_and_not_before() {
        let tmp = tempfile::tempdir().unwrap();
        let session = session(&tmp.path().join("r"));
        let first = session.private("build").unwrap();
        let second = session.private("build").unwrap();
        assert!(first.path().is_dir() && first.path() != second.path());
        let gone = first.path().to_owned();
        drop(first);
        assert!(!gone.exists() && second.path().is_dir());
        let third = session.private("build").unwrap();
        assert_eq!(
            third.path(),
            gone,
            "what has its path written down finds it again"
        );
    }

    #[test]
    fn what_a_killed_process_left_is_swept_by_the_next() {
        let tmp = tempfile::tempdir().unwrap();
        let session = session(&tmp.path().join("r"));
        let mut killed = session.private("worker").unwrap();
        let left = std::mem::take(&mut killed.path);
        fs::write(left.join("litter"), "x").unwrap();
        drop(killed);
        assert!(
            left.exists(),
            "the test takes the path away, so that the drop removes nothing"
        );
        let next = session.private("worker").unwrap();
        assert!(!left.join("litter").exists());
        assert_eq!(next.path(), left, "its number is free again");
    }
}
