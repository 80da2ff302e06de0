//! Whose build dir is whose: a lock that the kernel lets go of when its owner dies.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Held while the session lives.
#[derive(Debug)]
pub(super) struct Lease {
    _locked: File,
}

impl Lease {
    /// Takes the build dir for this process.
    pub(super) fn take(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        if is_held(dir) {
            return Err(io::Error::other("another build is using it"));
        }
        // Locked before it gets its name: whoever sweeps finds it held, or not at all.
        let file = File::create(dir.join("lease.new"))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        std::fs::rename(dir.join("lease.new"), dir.join("lease"))?;
        Ok(Self { _locked: file })
    }
}

/// Removes the build dirs beside this one whose owners are dead.
pub(super) fn sweep(dir: &Path) {
    let beside = dir
        .parent()
        .and_then(|parent| std::fs::read_dir(parent).ok());
    for entry in beside.into_iter().flatten().filter_map(Result::ok) {
        if entry.path().join("lease").exists() && !is_held(&entry.path()) {
            tracing::info!(dir = %entry.path().display(), "removing what a dead session left");
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn is_held(dir: &Path) -> bool {
    let Ok(file) = File::open(dir.join("lease")) else {
        return false;
    };
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dirs_of_the_dead_are_swept() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        let alive = Lease::take(&at("alive")).unwrap();
        drop(Lease::take(&at("dead")).unwrap());
        std::fs::create_dir(at("someone-else's")).unwrap();
        sweep(&at("mine"));
        let left = ["alive", "dead", "someone-else's"].map(|name| at(name).exists());
        assert_eq!(left, [true, false, true]);
        assert!(Lease::take(&at("alive")).is_err());
        drop(alive);
        assert!(Lease::take(&at("alive")).is_ok());
    }
}
