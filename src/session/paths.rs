//! Where a session keeps its private files.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{Secret, SecretError, SessionName};

/// The directory of one user on one machine under which all sessions live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDir(PathBuf);

/// The private directory of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDir(PathBuf);

/// Held by the session's primary for as long as it lives; the kernel releases it when the process ends in any way.
#[derive(Debug)]
pub struct PrimaryLock(#[expect(dead_code, reason = "held, not used")] File);

/// A private directory or file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// It cannot be made, read or written.
    #[error("cannot use {path}")]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could read or replace what lies in it.
    #[error(
        "{path} is not private: {why}. Remove it, or set DISTMESH_RUNTIME_DIR to a directory of your own"
    )]
    NotPrivate {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The secret in a file is none.
    #[error("the secret file {path} cannot be used")]
    Secret {
        /// The path.
        path: PathBuf,
        /// Why.
        source: SecretError,
    },
    /// The operating system gave no random bytes for a fresh secret.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
    /// A socket below it could not be bound: the kernel's addresses are short.
    #[error(
        "{path} is too long a name: sockets below it need {SOCKET_NAME} more bytes and may have {MAX_SOCKET} in all. Use a \
         shorter --session, or set DISTMESH_RUNTIME_DIR to a shorter directory"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Another primary of this session lives on this machine.
    #[error("process {0} already is this session's primary")]
    Held(String),
}

impl RuntimeDir {
    /// Finds the runtime directory by the environment: `DISTMESH_RUNTIME_DIR`, else `distmesh` below `XDG_RUNTIME_DIR`
    /// (XDG Base Directory Specification), else `distmesh-UID` below `TMPDIR`, or below `/tmp` where that is too long for sockets; makes it
    /// if it is missing.
    pub fn locate(env: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, PathError> {
        let uid = rustix::process::getuid().as_raw();
        let path = env("DISTMESH_RUNTIME_DIR")
            .or_else(|| {
                env("XDG_RUNTIME_DIR")
                    .filter(|dir| dir.is_absolute())
                    .map(|dir| dir.join("distmesh"))
            })
            .unwrap_or_else(|| temporary(env("TMPDIR"), uid));
        private_dir(&path)?;
        Ok(Self(path))
    }

    /// The secret that processes of this user share when none is given.
    pub fn secret_file(&self) -> PathBuf {
        self.0.join("secret")
    }

    /// The rendezvous that processes of this user share when none is given.
    pub fn rendezvous(&self) -> PathBuf {
        self.0.join("rendezvous")
    }

    /// The directory of one session; makes it if it is missing.
    pub fn session(&self, name: &SessionName) -> Result<SessionDir, PathError> {
        let sessions = self.0.join("sessions");
        private_dir(&sessions)?;
        let path = sessions.join(name.as_str());
        if path.as_os_str().len() + SOCKET_NAME > MAX_SOCKET {
            return Err(PathError::TooLong { path });
        }
        private_dir(&path)?;
        Ok(SessionDir(path))
    }
}

/// macOS has a `TMPDIR` of 49 bytes, below which no session's sockets would have room.
fn temporary(tmpdir: Option<PathBuf>, uid: u32) -> PathBuf {
    let name = format!("distmesh-{uid}");
    let has_room = |path: &PathBuf| {
        let session = path.as_os_str().len() + "/sessions/".len() + USUAL_NAME;
        session + SOCKET_NAME <= MAX_SOCKET
    };
    tmpdir
        .map(|dir| dir.join(&name))
        .filter(has_room)
        .unwrap_or_else(|| Path::new("/tmp").join(name))
}

impl SessionDir {
    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The primary's control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// The session's events, one a line.
    pub fn events_file(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }

    /// Makes this process the session's primary on this machine. A lock that a killed process left is free again.
    pub fn lock_primary(&self) -> Result<PrimaryLock, PathError> {
        let path = self.0.join("primary.lock");
        let io = |source| PathError::Io {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(io)?;
            return Err(PathError::Held(holder.trim().to_owned()));
        }
        file.set_len(0).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(PrimaryLock(file))
    }
}

impl Secret {
    /// Reads a secret from a file.
    pub fn read(path: &Path) -> Result<Self, PathError> {
        let bytes = fs::read(path).map_err(|source| PathError::Io {
            path: path.to_owned(),
            source,
        })?;
        Self::new(bytes).map_err(|source| PathError::Secret {
            path: path.to_owned(),
            source,
        })
    }

    /// Reads the secret that lies at `path`, or puts a fresh one there. Two processes that start together agree: the file
    /// appears complete, by a link, and the one that comes second reads the first one's.
    pub fn read_or_create(path: &Path) -> Result<Self, PathError> {
        let io = |source| PathError::Io {
            path: path.to_owned(),
            source,
        };
        if path.exists() {
            return Self::read(path);
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|_| PathError::NoRandomness)?;
        let dir = path.parent().unwrap_or(Path::new("."));
        // `tempfile` makes files of mode 0600.
        let mut fresh = tempfile::NamedTempFile::new_in(dir).map_err(io)?;
        fresh
            .write_all(Self::from_random(&random).expose())
            .map_err(io)?;
        match fresh.persist_noclobber(path) {
            Ok(_) => Self::read(path),
            Err(lost) if lost.error.kind() == io::ErrorKind::AlreadyExists => Self::read(path),
            Err(failed) => Err(io(failed.error)),
        }
    }
}

/// Makes a directory that only this user can enter, or checks that the one that stands there is such.
fn private_dir(path: &Path) -> Result<(), PathError> {
    let io = |source| PathError::Io {
        path: path.to_owned(),
        source,
    };
    match DirBuilder::new().mode(0o700).recursive(false).create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(path)).map_err(io)?;
            DirBuilder::new().mode(0o700).create(path).map_err(io)?;
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io(error)),
        Ok(()) | Err(_) => {}
    }
    let not_private = |why| PathError::NotPrivate {
        path: path.to_owned(),
        why,
    };
    let meta = fs::symlink_metadata(path).map_err(io)?;
    if !meta.is_dir() {
        return Err(not_private("it is not a directory"));
    }
    if meta.uid() != rustix::process::getuid().as_raw() {
        return Err(not_private("it belongs to another user"));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(not_private("others may write to it"));
    }
    Ok(())
}

/// What a socket's address may have: 104 bytes with the final zero on macOS, 108 on Linux (`sockaddr_un`).
const MAX_SOCKET: usize = 103;

/// The longest socket below a session: that of a build's private directory, `/own-build-` and six digits, `/b/record.sock`.
const SOCKET_NAME: usize = 32;

/// A session's name: that of a run of GitHub Actions has 13 bytes.
const USUAL_NAME: usize = 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn runtime(dir: &Path) -> Result<RuntimeDir, PathError> {
        let dir = dir.to_owned();
        RuntimeDir::locate(move |name| (name == "DISTMESH_RUNTIME_DIR").then(|| dir.clone()))
    }

    #[test]
    fn the_runtime_directory_is_made_private() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = runtime(&tmp.path().join("a/b")).unwrap();
        let mode = fs::metadata(tmp.path().join("a/b")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(dir.secret_file().starts_with(tmp.path().join("a/b")));
    }

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let open = tmp.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(runtime(&open), Err(PathError::NotPrivate { .. })));
        let link = tmp.path().join("link");
        symlink(tmp.path(), &link).unwrap();
        assert!(matches!(runtime(&link), Err(PathError::NotPrivate { .. })));
    }

    #[test]
    fn processes_that_start_together_agree_on_one_secret() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("secret");
        let secrets: Vec<Secret> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Secret::read_or_create(&path).unwrap()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(secrets.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(tmp.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn a_name_that_no_socket_could_have_is_refused_with_the_cure() {
        let tmp = tempfile::tempdir().unwrap();
        let deep = runtime(&tmp.path().join("d".repeat(80))).unwrap();
        let error = deep.session(&"s".parse().unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("DISTMESH_RUNTIME_DIR"),
            "{error}"
        );
    }

    #[test]
    fn a_temporary_directory_that_is_too_long_for_sockets_is_passed_over() {
        let of = |dir: &str| temporary(Some(dir.into()), 501);
        assert_eq!(of("/var/tmp"), Path::new("/var/tmp/distmesh-501"));
        let macos = format!("/var/folders/xx/{}/T/", "x".repeat(30));
        assert_eq!(of(&macos), Path::new("/tmp/distmesh-501"));
        assert_eq!(temporary(None, 501), Path::new("/tmp/distmesh-501"));
    }

    #[test]
    fn a_second_primary_is_refused_until_the_first_is_gone() {
        let tmp = tempfile::tempdir().unwrap();
        let session = runtime(&tmp.path().join("r"))
            .unwrap()
            .session(&"s".parse().unwrap())
            .unwrap();
        let first = session.lock_primary().unwrap();
        let held = session.lock_primary().unwrap_err();
        assert_eq!(
            held.to_string(),
            format!(
                "process {} already is this session's primary",
                std::process::id()
            )
        );
        drop(first);
        assert!(session.lock_primary().is_ok());
    }
}
