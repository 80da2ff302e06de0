//! Entries as files of a directory that every node can reach: on one machine, or by NFS.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustix::fs::OFlags;
use tokio::task::spawn_blocking;

use super::{BoxFuture, Entry, EntryName, Rendezvous, RendezvousError};
use crate::session::MAX_SEALED;

/// A shared directory.
///
/// A file's time of modification is its lease. It is compared with the time of a file written just now into the same
/// directory, not with this machine's clock: over NFS the server's clock sets both.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    lease: Duration,
    /// What is written to learn the time. It has no name, and is kept: to make and remove one for each look costs a file system
    /// more than all else of the look.
    clock: Arc<Mutex<Option<File>>>,
}

impl Directory {
    /// Uses the directory at `path`; makes it, private to this user, if it is missing.
    pub fn open(path: &Path) -> Result<Self, RendezvousError> {
        Self::with_lease(path, LEASE)
    }

    fn with_lease(path: &Path, lease: Duration) -> Result<Self, RendezvousError> {
        let directory = Self {
            path: path.to_owned(),
            lease,
            clock: Arc::default(),
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        // Writing is tried now, so that a person learns of a wrong path at the start.
        made.and_then(|()| directory.file_time_now())
            .map_err(|source| directory.failed("use", source))?;
        Ok(directory)
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> RendezvousError {
        RendezvousError {
            doing,
            what: self.describe(),
            source,
        }
    }

    /// Does it on a thread that may wait: a dead NFS server must not take one that carries links and jobs.
    async fn apart<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, RendezvousError> {
        let here = self.clone();
        let done = spawn_blocking(move || work(&here)).await;
        let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
        done.map_err(|source| self.failed(doing, source))
    }

    fn path_of(&self, name: &EntryName) -> PathBuf {
        self.path.join(name.to_string())
    }

    /// The file system's own time.
    fn file_time_now(&self) -> io::Result<SystemTime> {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        // One that its server has forgotten (NFS: ESTALE) is made anew.
        if let Some(time) = clock.as_ref().and_then(|file| written_now(file).ok()) {
            return Ok(time);
        }
        let file = clock.insert(tempfile::tempfile_in(&self.path)?);
        written_now(file)
    }

    fn publish_now(&self, name: &EntryName, sealed: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.path)?;
        file.write_all(sealed)?;
        file.persist(self.path_of(name))?;
        for older in self.read_names()?.iter().map(|(other, _)| other) {
            if older.same_node(name) && older.version() < name.version() {
                remove(&self.path_of(older))?;
            }
        }
        Ok(())
    }

    fn list_now(&self) -> io::Result<Vec<Entry>> {
        let now = self.file_time_now()?;
        let mut live = Vec::new();
        for (name, modified) in self.read_names()? {
            let age = now.duration_since(modified).unwrap_or_default();
            if age <= self.lease {
                live.push(Entry { name, copy: 0 });
            } else if age > self.lease * FORGOTTEN {
                remove(&self.path_of(&name))?;
            }
        }
        live.sort();
        Ok(live)
    }

    fn read_names(&self) -> io::Result<Vec<(EntryName, SystemTime)>> {
        let mut names = Vec::new();
        for file in fs::read_dir(&self.path)? {
            let file = file?;
            if !file.file_type().is_ok_and(|kind| kind.is_file()) {
                continue;
            }
            let parsed = file.file_name().to_str().and_then(|name| name.parse().ok());
            // A file that vanished between the two calls was withdrawn.
            if let (Some(name), Ok(modified)) =
                (parsed, file.metadata().and_then(|meta| meta.modified()))
            {
                names.push((name, modified));
            }
        }
        Ok(names)
    }

    fn fetch_now(&self, name: &EntryName) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = open_entry(&self.path_of(name), File::options().read(true))? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        // One byte over the limit is enough to be refused; a stranger's large file is not read into memory.
        file.take(MAX_SEALED as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn renew_now(&self, name: &EntryName) -> io::Result<bool> {
        let Some(file) = open_entry(&self.path_of(name), File::options().append(true))? else {
            return Ok(false);
        };
        file.set_modified(self.file_time_now()?)?;
        Ok(true)
    }
}

impl Rendezvous for Directory {
    fn publish<'a>(
        &'a self,
        name: &'a EntryName,
        sealed: &'a [u8],
    ) -> BoxFuture<'a, Result<(), RendezvousError>> {
        let (name, sealed) = (name.clone(), sealed.to_vec());
        Box::pin(self.apart("publish in", move |here| here.publish_now(&name, &sealed)))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Entry>, RendezvousError>> {
        Box::pin(self.apart("list", Self::list_now))
    }

    fn fetch<'a>(
        &'a self,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, RendezvousError>> {
        let name = entry.name.clone();
        Box::pin(self.apart("read an entry of", move |here| here.fetch_now(&name)))
    }

    fn renew<'a>(&'a self, name: &'a EntryName) -> BoxFuture<'a, Result<bool, RendezvousError>> {
        let name = name.clone();
        Box::pin(self.apart("renew an entry of", move |here| here.renew_now(&name)))
    }

    fn withdraw<'a>(&'a self, name: &'a EntryName) -> BoxFuture<'a, Result<(), RendezvousError>> {
        let name = name.clone();
        Box::pin(self.apart("remove an entry of", move |here| {
            remove(&here.path_of(&name))
        }))
    }

    fn poll_interval(&self, quick: bool) -> Duration {
        if quick { QUICK } else { CALM }
    }

    fn describe(&self) -> String {
        format!("the directory {}", self.path.display())
    }
}

/// The time of a write to this file. A write changes it even if it changes nothing else.
fn written_now(file: &File) -> io::Result<SystemTime> {
    file.write_all_at(b".", 0)?;
    file.metadata()?.modified()
}

/// An entry, if it is there and a file. What else a stranger may have put there is not waited for (a pipe), nor followed (a link).
fn open_entry(path: &Path, options: &mut fs::OpenOptions) -> io::Result<Option<File>> {
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits();
    match options.custom_flags(flags.cast_signed()).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Ok(None),
        // A link, or a pipe that nobody reads.
        Err(error) if is_no_file(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_no_file(error: &io::Error) -> bool {
    let code = error
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error);
    error.kind() == io::ErrorKind::NotFound
        || matches!(
            code,
            Some(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO)
        )
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Six missed renewals: a killed node's entry is passed over half a minute later, a busy node's is not.
const LEASE: Duration = Duration::from_secs(30);

/// An entry is removed by whoever sees it after so many leases: late enough for a suspended machine to come back to it.
const FORGOTTEN: u32 = 20;

/// Listing a directory of a few files takes microseconds; a person who starts two commands waits for this.
const QUICK: Duration = Duration::from_millis(200);
const CALM: Duration = Duration::from_secs(2);

/// Marks files that are being written; no entry's name begins so.
const TEMPORARY: &str = ".writing-";

#[cfg(test)]
mod tests {
    use super::*;

    fn name(node: &str, seq: u64) -> EntryName {
        format!("distmesh~s~worker~{node}~5~{seq}").parse().unwrap()
    }

    fn entry(node: &str, seq: u64) -> Entry {
        let name = name(node, seq);
        Entry { name, copy: 0 }
    }

    #[tokio::test]
    async fn an_entry_lives_from_publish_to_withdraw() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Directory::open(&tmp.path().join("new")).unwrap();
        dir.publish(&name("w", 1), b"one").await.unwrap();
        assert_eq!(dir.list().await.unwrap(), [entry("w", 1)]);
        assert_eq!(
            dir.fetch(&entry("w", 1)).await.unwrap().as_deref(),
            Some(&b"one"[..])
        );
        dir.withdraw(&name("w", 1)).await.unwrap();
        assert!(dir.list().await.unwrap().is_empty());
        assert_eq!(dir.fetch(&entry("w", 1)).await.unwrap(), None);
        assert!(!dir.renew(&name("w", 1)).await.unwrap());
        assert_eq!(
            fs::read_dir(tmp.path().join("new")).unwrap().count(),
            0,
            "no temporary file is left"
        );
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn pipes_and_links_are_no_entries_and_keep_nobody() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let tmp = tempfile::tempdir().unwrap();
        let dir = Directory::open(tmp.path()).unwrap();
        let pipe = dir.path_of(&name("pipe", 1));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path_of(&name("link", 1))).unwrap();
        dir.publish(&name("w", 1), b"x").await.unwrap();
        assert_eq!(dir.list().await.unwrap(), [entry("w", 1)]);
        for node in ["pipe", "link"] {
            assert_eq!(dir.fetch(&entry(node, 1)).await.unwrap(), None);
            assert!(!dir.renew(&name(node, 1)).await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_newer_entry_replaces_its_own_nodes_older_ones_only() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Directory::open(tmp.path()).unwrap();
        for entry in [name("v", 1), name("w", 1), name("w", 2)] {
            dir.publish(&entry, b"x").await.unwrap();
        }
        assert_eq!(dir.list().await.unwrap(), [entry("v", 1), entry("w", 2)]);
    }

    #[tokio::test]
    async fn a_lease_that_is_not_renewed_runs_out() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Directory::with_lease(tmp.path(), Duration::from_secs(30)).unwrap();
        for node in ["fresh", "stale", "ancient"] {
            dir.publish(&name(node, 1), b"x").await.unwrap();
        }
        let age = |node, secs| {
            let file = File::options()
                .append(true)
                .open(dir.path_of(&name(node, 1)))
                .unwrap();
            let then = file.metadata().unwrap().modified().unwrap() - Duration::from_secs(secs);
            file.set_modified(then).unwrap();
        };
        age("stale", 60);
        age("ancient", 3600);
        assert_eq!(dir.list().await.unwrap(), [entry("fresh", 1)]);
        assert_eq!(
            dir.fetch(&entry("ancient", 1)).await.unwrap(),
            None,
            "swept away"
        );
        assert!(dir.renew(&name("stale", 1)).await.unwrap());
        assert_eq!(
            dir.list().await.unwrap(),
            [entry("fresh", 1), entry("stale", 1)]
        );
    }

    #[test]
    fn the_file_systems_time_goes_on_and_has_no_name() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Directory::open(tmp.path()).unwrap();
        let first = dir.file_time_now().unwrap();
        std::thread::sleep(Duration::from_millis(30));
        assert!(dir.file_time_now().unwrap() > first);
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn junk_is_passed_over_and_a_huge_file_is_not_read_whole() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Directory::open(tmp.path()).unwrap();
        fs::write(tmp.path().join("README"), "hello").unwrap();
        fs::write(tmp.path().join(name("w", 1).to_string()), vec![0; 1 << 20]).unwrap();
        assert_eq!(dir.list().await.unwrap(), [entry("w", 1)]);
        assert_eq!(
            dir.fetch(&entry("w", 1))
                .await
                .unwrap()
                .map(|bytes| bytes.len()),
            Some(MAX_SEALED + 1)
        );
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_named_in_the_error() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Directory::open(&file).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot use the directory {}: ", file.display())),
            "{error}"
        );
    }
}
