//! Whose directory is whose: a lock that the kernel lets go of when its owner dies.

use std::{
    fs,
    fs::File,
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

/// Held while the owner of a directory lives.
#[derive(Debug)]
pub struct Lease {
    _locked: File,
}

impl Lease {
    /// Takes the directory for this process, by a locked file of that name in it.
    pub fn take(dir: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if is_held(dir, name) {
            return Err(io::Error::other("another process is using it"));
        }
        // Locked before it gets its name: whoever sweeps finds it held, or not at all.
        let new = dir.join(format!("{name}.new"));
        let file = File::create(&new)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(&new, dir.join(name))?;
        Ok(Self { _locked: file })
    }
}

/// Removes the directories in `parent` that begin with `prefix` and whose owners, processes of this user, are dead: those with such a
/// file. `parent` may be open to everybody, as `/tmp` is: what others could have put there is left alone.
pub fn sweep(parent: &Path, prefix: &str, name: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let dir = entry.path();
        let named = entry.file_name().as_bytes().starts_with(prefix.as_bytes());
        if named && is_ours(&dir, name) && !is_held(&dir, name) {
            tracing::info!(dir = %dir.display(), "removing what a dead process left");
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// Whether a directory and the file in it are this user's, and no other user could have made the file.
fn is_ours(dir: &Path, name: &str) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let [dir, file] = [dir, &dir.join(name)].map(|path| fs::symlink_metadata(path).ok());
    let dir = dir.filter(|dir| dir.is_dir() && dir.uid() == own && dir.mode() & OTHERS_WRITE == 0);
    dir.is_some() && file.is_some_and(|file| file.is_file() && file.uid() == own)
}

const OTHERS_WRITE: u32 = 0o002;

fn is_held(dir: &Path, name: &str) -> bool {
    let Ok(file) = File::open(dir.join(name)) else {
        return false;
    };
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const NAME: &str = "a.lease";

    #[test]
    fn only_dirs_of_the_dead_are_swept() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        let alive = Lease::take(&at("alive"), NAME).unwrap();
        drop(Lease::take(&at("dead"), NAME).unwrap());
        drop(Lease::take(&at("dead-of-another-kind"), "another.lease").unwrap());
        fs::create_dir(at("no-lease")).unwrap();
        drop(Lease::take(&at("open-to-all"), NAME).unwrap());
        fs::set_permissions(at("open-to-all"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::create_dir(at("a-link")).unwrap();
        symlink("../alive/a.lease", at("a-link").join(NAME)).unwrap();
        sweep(parent.path(), "nothing", NAME);
        assert!(at("dead").exists());
        sweep(parent.path(), "", NAME);
        assert!(!at("dead").exists());
        let left = [
            "alive",
            "dead-of-another-kind",
            "no-lease",
            "open-to-all",
            "a-link",
        ];
        assert!(left.iter().all(|name| at(name).exists()));
        assert!(Lease::take(&at("alive"), NAME).is_err());
        drop(alive);
        assert!(Lease::take(&at("alive"), NAME).is_ok());
    }
}
