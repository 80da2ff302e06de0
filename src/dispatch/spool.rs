//! Bytes of one message, in memory while they are few, else in a file without a name.

use std::{fs::File, io, io::Write, os::unix::fs::FileExt, path::Path};

/// Nearly every preprocessed source and object fits; with a hundred jobs in flight this is still a few hundred MiB.
const IN_MEMORY: usize = 4 << 20;

/// An append-only buffer that can be read from any place, several times.
#[derive(Debug, Default)]
pub(super) struct Spool {
    memory: Vec<u8>,
    /// Already unlinked, so that nothing is left behind even by SIGKILL.
    file: Option<File>,
    len: u64,
}

impl Spool {
    pub(super) fn append(&mut self, bytes: &[u8], spill: &Path) -> io::Result<()> {
        if self.file.is_none() && self.memory.len() + bytes.len() > IN_MEMORY {
            let mut file = tempfile::tempfile_in(spill)?;
            file.write_all(&std::mem::take(&mut self.memory))?;
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes)?,
            None => self.memory.extend(bytes),
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buffer` from `offset`; 0 at the end.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(file) = &self.file {
            return file.read_at(buffer, offset);
        }
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.memory.len());
        let count = buffer.len().min(self.memory.len() - from);
        buffer[..count].copy_from_slice(&self.memory[from..from + count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_body_spills_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::default();
        for n in 0..6u8 {
            spool.append(&vec![n; 1 << 20], dir.path()).unwrap();
        }
        assert!(spool.file.is_some() && spool.memory.is_empty());
        let mut byte = [9; 2];
        assert_eq!(spool.read_at(&mut byte, (1 << 20) - 1).unwrap(), 2);
        assert_eq!(byte, [0, 1]);
        assert_eq!(spool.read_at(&mut byte, spool.len()).unwrap(), 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
