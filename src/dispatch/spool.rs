//! Bytes of one message, in memory while they are few, else in a file without a name.

use std::{
    fs::File,
    io,
    io::Write,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::buffers::{Buffer, Buffers};

/// Nearly every preprocessed source and object fits; with a hundred jobs in flight this is still a few hundred MiB.
const IN_MEMORY: usize = 4 << 20;
/// Space is taken in steps of this size: one look at the file system for each costs nothing beside writing them.
const STEP: u64 = 4 << 20;

/// The private directory of the files, how much of its file system they have taken, and memory for what needs none.
#[derive(Debug)]
pub(super) struct Spill {
    dir: PathBuf,
    taken: AtomicU64,
    buffers: Buffers,
}

/// An append-only buffer that can be read from any place, several times.
#[derive(Debug)]
pub(super) struct Spool {
    memory: Buffer,
    file: Option<Spilled>,
    len: u64,
    spill: Arc<Spill>,
}

/// What did not fit into memory.
#[derive(Debug)]
struct Spilled {
    /// Already unlinked, so that nothing is left behind even by SIGKILL.
    file: File,
    taken: u64,
    from: Arc<Spill>,
}

impl Spill {
    pub(super) fn new(dir: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            dir,
            taken: AtomicU64::new(0),
            buffers: Buffers::default(),
        })
    }

    /// Memory that is left to the next when it is dropped.
    pub(super) fn buffer(&self, room: usize) -> Buffer {
        self.buffers.take(room)
    }

    fn open(self: &Arc<Self>) -> io::Result<Spilled> {
        Ok(Spilled {
            file: tempfile::tempfile_in(&self.dir)?,
            taken: 0,
            from: self.clone(),
        })
    }

    /// All files together get half of the space there is: answers without an end fill no disk, and none that is memory (tmpfs).
    fn take(&self, bytes: u64) -> io::Result<()> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        let taken = self.taken.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if fits(taken, disk.f_bavail.saturating_mul(disk.f_frsize)) {
            return Ok(());
        }
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
        Err(io::Error::new(
            io::ErrorKind::StorageFull,
            "large jobs have taken half of the free space already",
        ))
    }
}

/// Whether so much may be taken when so much is left.
fn fits(taken: u64, free: u64) -> bool {
    taken <= free
}

impl Spilled {
    fn append(&mut self, bytes: &[u8], end: u64) -> io::Result<()> {
        while self.taken < end {
            self.from.take(STEP)?;
            self.taken += STEP;
        }
        self.file.write_all(bytes)
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        self.from.taken.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

impl Spool {
    /// Empty.
    pub(super) fn new(spill: &Arc<Spill>) -> Self {
        Self {
            memory: spill.buffer(0),
            file: None,
            len: 0,
            spill: spill.clone(),
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.len + bytes.len() as u64;
        if self.file.is_none() && end > IN_MEMORY as u64 {
            let mut file = self.spill.open()?;
            file.append(&self.memory, self.len)?;
            self.memory = self.spill.buffer(0);
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.append(bytes, end)?,
            None => {
                self.memory.reserve(bytes.len());
                self.memory.extend_from_slice(bytes);
            }
        }
        self.len = end;
        Ok(())
    }

    /// So many bytes more were announced: memory for them is taken at once, where it will be memory.
    pub(super) fn expect(&mut self, bytes: u64) {
        if self.file.is_none() && self.len.saturating_add(bytes) <= IN_MEMORY as u64 {
            self.memory.reserve(bytes as usize);
        }
    }

    /// Whether so many bytes can be read straight into it.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.file.is_none() && self.memory.capacity() - self.memory.len() >= bytes
    }

    /// Reads what has come, into the room that it has; nothing at the end of the stream. It is the spool's once [`Spool::keep`] says so.
    /// Cancel-safe.
    pub(super) async fn read_from(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<&[u8]> {
        let before = self.memory.len();
        from.read_buf(&mut *self.memory).await?;
        Ok(&self.memory[before..])
    }

    /// Keeps so many bytes of what was read.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.len += bytes as u64;
        self.memory.truncate(self.len as usize);
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// So many bytes from `offset`, fewer at the end, none behind it. What is in a file comes through `buffer`.
    pub(super) fn chunk<'a>(
        &'a self,
        offset: u64,
        length: usize,
        buffer: &'a mut Vec<u8>,
    ) -> io::Result<&'a [u8]> {
        if let Some(file) = &self.file {
            buffer.resize(length, 0);
            let count = file.file.read_at(buffer, offset)?;
            return Ok(&buffer[..count]);
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.memory.get(from..).unwrap_or_default();
        Ok(&rest[..length.min(rest.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_body_spills_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill::new(dir.path().to_owned());
        let mut spool = Spool::new(&spill);
        spool.expect(u64::MAX >> 1);
        assert_eq!(spool.memory.capacity(), 0);
        for n in 0..6u8 {
            spool.expect(1 << 20);
            spool.append(&vec![n; 1 << 20]).unwrap();
        }
        assert!(spool.file.is_some() && spool.memory.is_empty());
        let (mut buffer, end) = (Vec::new(), spool.len());
        let middle = spool.chunk((1 << 20) - 1, 2, &mut buffer).unwrap();
        assert_eq!(middle, [0, 1]);
        assert_eq!(spool.chunk(end - 1, 2, &mut buffer).unwrap(), [5]);
        assert!(spool.chunk(end, 2, &mut buffer).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_read_into_it_is_there_as_far_as_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(&Spill::new(dir.path().to_owned()));
        assert!(!spool.has_room(1));
        spool.append(b"ab").unwrap();
        spool.expect(100);
        assert!(spool.has_room(100));
        assert_eq!(spool.read_from(&mut &b"cdef"[..]).await.unwrap(), b"cdef");
        spool.keep(3);
        assert_eq!(spool.read_from(&mut &b""[..]).await.unwrap(), b"");
        spool.keep(0);
        spool.append(b"g").unwrap();
        assert_eq!(spool.len(), 6);
        assert_eq!(spool.chunk(0, 99, &mut Vec::new()).unwrap(), b"abcdeg");
        spool.append(&vec![0; IN_MEMORY]).unwrap();
        assert!(!spool.has_room(0), "it is a file now");
    }

    #[test]
    fn a_small_body_is_read_from_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(&Spill::new(dir.path().to_owned()));
        spool.append(b"abc").unwrap();
        let mut buffer = Vec::new();
        for (offset, bytes) in [(0, &b"ab"[..]), (2, b"c"), (3, b""), (9, b"")] {
            assert_eq!(spool.chunk(offset, 2, &mut buffer).unwrap(), bytes);
        }
        assert!(buffer.is_empty());
    }

    #[test]
    fn what_is_taken_is_given_back_and_more_than_is_left_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill::new(dir.path().to_owned());
        let taken = || spill.taken.load(Ordering::Relaxed);
        let mut spool = Spool::new(&spill);
        spool.append(&vec![1; IN_MEMORY]).unwrap();
        assert_eq!(taken(), 0);
        spool.append(&[1]).unwrap();
        assert_eq!(taken(), 2 * STEP);
        let refused = spill.take(u64::MAX / 2).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(taken(), 2 * STEP);
        drop(spool);
        assert_eq!(taken(), 0);
        assert!(fits(5, 5) && !fits(6, 5));
    }
}
