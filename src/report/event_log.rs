//! `events.jsonl`: what happened, one line an event.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::event::{Event, Record};

/// Appends events to a file. Never fails: the log is for later, the build is now. Nor does it write each by itself: whoever has it flushes
/// it now and then, and a process that is killed loses what came since.
#[derive(Debug)]
pub struct EventLog {
    file: Option<File>,
    room: u64,
    pending: Vec<u8>,
    /// When the last one was.
    at_ms: u64,
}

impl EventLog {
    /// Appends to the file at `path`. One that earlier builds have filled is begun anew.
    pub fn append_to(path: &Path) -> Self {
        Self::with_limit(path, MAX_BYTES).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "no event log");
            Self::nowhere()
        })
    }

    /// Keeps nothing.
    pub fn nowhere() -> Self {
        Self {
            file: None,
            room: 0,
            pending: Vec::new(),
            at_ms: 0,
        }
    }

    /// Appends one event. When the file is full, or the disk, its last line says so if it can, and no other follows.
    pub fn append(&mut self, record: &Record) {
        if self.file.is_none() {
            return;
        }
        let Ok(line) = line_of(record) else { return };
        self.at_ms = record.at_ms;
        let length = line.len() as u64;
        if length > self.room {
            self.flush();
            return self.end();
        }
        self.room -= length;
        self.pending.extend(line);
        if self.pending.len() >= AT_ONCE {
            self.flush();
        }
    }

    /// Writes what was appended.
    pub fn flush(&mut self) {
        let Some(file) = &mut self.file else { return };
        if !self.pending.is_empty() && file.write_all(&self.pending).is_err() {
            self.end();
        }
        self.pending.clear();
    }

    fn end(&mut self) {
        let at_ms = self.at_ms;
        let event = Event::Incident {
            text: "the event log is full: later events are missing".to_owned(),
        };
        if let (Some(mut file), Ok(line)) = (self.file.take(), line_of(&Record { at_ms, event })) {
            // A full disk may take no more.
            let _ = file.write_all(&line);
        }
    }

    fn with_limit(path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            // It names the files of a private source tree.
            .mode(0o600)
            .open(path)?;
        if file.metadata()?.len() > limit / 2 {
            file.set_len(0)?;
        }
        let room = limit.saturating_sub(file.metadata()?.len());
        Ok(Self {
            file: Some(file),
            room,
            pending: Vec::new(),
            at_ms: 0,
        })
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        self.flush();
    }
}

fn line_of(record: &Record) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    Ok(line)
}

/// Some dozens of events.
const AT_ONCE: usize = 16 << 10;

/// About 200,000 jobs: more than the largest build known to us, and a disk does not notice it.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        let event = Event::Incident { text: text.into() };
        Record { at_ms: 1, event }
    }

    fn read(path: &Path) -> Vec<Record> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn events_are_appended_one_a_line() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("events.jsonl");
        EventLog::append_to(&path).append(&record("one\ntwo"));
        EventLog::append_to(&path).append(&record("three"));
        assert_eq!(read(&path), [record("one\ntwo"), record("three")]);
    }

    #[test]
    fn a_full_log_says_so_once_and_the_next_session_begins_anew() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("events.jsonl");
        let mut log = EventLog::with_limit(&path, 200).unwrap();
        for _ in 0..100 {
            log.append(&record("something happened"));
        }
        log.flush();
        let records = read(&path);
        assert_eq!(records.len(), 4);
        let Event::Incident { text } = &records[3].event else {
            panic!()
        };
        assert!(text.contains("full"));
        EventLog::with_limit(&path, 200)
            .unwrap()
            .append(&record("again"));
        assert_eq!(read(&path), [record("again")]);
    }

    #[test]
    fn a_log_that_cannot_be_opened_takes_events_all_the_same() {
        let mut log = EventLog::append_to(Path::new("/dev/null/events.jsonl"));
        log.append(&record("lost"));
    }
}
