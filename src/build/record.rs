//! What shims tell the session: one datagram each, and a file for those that it could not take in time.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram as BlockingDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::UnixDatagram;

use super::home::Permit;
use crate::event::{CompileSeen, Compiler};

/// What a shim tells the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    /// A compiler was called.
    Compile(CompileSeen),
    /// A compile that may go to distcc went to ccache first.
    AskedCache {
        /// Which.
        compiler: Compiler,
    },
    /// ccache did not have it.
    CacheMissed(CompileSeen),
    /// A compile begins here by a permit; it is told as one that was seen, too.
    Kept {
        /// Its process.
        pid: u32,
        /// How it runs.
        permit: Permit,
        /// The length of its source, if that is known.
        source_bytes: Option<u64>,
    },
    /// A make begins, with pipes of its own.
    Make(MakeBegan),
    /// A build was told how many jobs may run at once.
    AtMost {
        /// As it was called.
        command: String,
        /// How many; more than one.
        jobs: u32,
    },
    /// Something a person should know, once.
    Notice(String),
    /// Compiles that we will not see, why, and the cure.
    Blind(String),
}

/// A make that begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MakeBegan {
    /// Its process.
    pub(super) pid: u32,
    /// Where its pipes are.
    pub(super) dir: PathBuf,
    /// The most jobs it may run.
    pub(super) ceiling: Option<u32>,
    /// It runs as a job of another make.
    pub(super) nested: bool,
}

/// Linux queues ten datagrams (`net.unix.max_dgram_qlen`); a session that takes none for so long is stuck, and the compile
/// must not be.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where a full queue is an error instead of a wait (macOS).
const RETRY: Duration = Duration::from_millis(2);

/// Tells the session; if it does not listen, leaves a note and returns `false`.
pub(super) fn say(dir: &Path, said: &Said) -> bool {
    let Ok(mut text) = serde_json::to_vec(said) else {
        return false;
    };
    let heard = send(dir, &text).is_ok();
    if !heard {
        text.push(b'\n');
        let missed = File::options()
            .append(true)
            .create(true)
            .open(dir.join("missed"));
        // Without a session there is neither socket nor directory, and nobody to tell.
        let _ = missed.and_then(|mut file| file.write_all(&text));
    }
    heard
}

fn send(dir: &Path, text: &[u8]) -> io::Result<()> {
    let socket = BlockingDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut tries = PATIENCE.as_millis() / RETRY.as_millis();
    loop {
        match socket.send_to(text, dir.join("record.sock")) {
            Err(error) if is_full(&error) && tries > 0 => {
                tries -= 1;
                std::thread::sleep(RETRY);
            }
            other => return other.map(drop),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}

/// The session's end.
pub(super) struct Recorder {
    socket: UnixDatagram,
    buffer: Vec<u8>,
    missed: PathBuf,
}

/// Longer than any path, and so than any datagram of ours.
const LONGEST: usize = 64 << 10;

impl Recorder {
    pub(super) fn bind(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            socket: UnixDatagram::bind(dir.join("record.sock"))?,
            buffer: vec![0; LONGEST],
            missed: dir.join("missed"),
        })
    }

    /// The next thing said. Junk is skipped.
    pub(super) async fn hear(&mut self) -> Said {
        loop {
            let heard = self.socket.recv(&mut self.buffer).await;
            match heard.map(|length| serde_json::from_slice(&self.buffer[..length])) {
                Ok(Ok(said)) => return said,
                Ok(Err(error)) => tracing::debug!(%error, "a datagram that is no shim's"),
                Err(error) => tracing::debug!(%error, "record.sock"),
            }
        }
    }

    /// What is left when the command has ended.
    pub(super) fn rest(&mut self) -> Vec<Said> {
        let mut rest = Vec::new();
        while let Ok(length) = self.socket.try_recv(&mut self.buffer) {
            rest.extend(serde_json::from_slice(&self.buffer[..length]));
        }
        let missed = std::fs::read_to_string(&self.missed).unwrap_or_default();
        rest.extend(missed.lines().flat_map(serde_json::from_str));
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: usize) -> Said {
        Said::Notice(number.to_string())
    }

    #[tokio::test]
    async fn a_crowd_of_shims_is_heard_to_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::bind(dir.path()).unwrap();
        let crowd: Vec<_> = (0..20)
            .map(|one| {
                let dir = dir.path().to_owned();
                std::thread::spawn(move || {
                    assert!((0..100).all(|each| say(&dir, &numbered(one * 100 + each))));
                })
            })
            .collect();
        let mut heard = std::collections::BTreeSet::new();
        while heard.len() < 2000 {
            let said = tokio::time::timeout(PATIENCE * 5, recorder.hear())
                .await
                .unwrap();
            heard.insert(format!("{said:?}"));
        }
        crowd.into_iter().for_each(|one| one.join().unwrap());
        assert_eq!(recorder.rest(), []);
    }

    #[tokio::test]
    async fn what_a_stuck_session_did_not_take_is_read_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::bind(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("record.sock")).unwrap();
        assert!(!say(dir.path(), &numbered(1)));
        assert!(!say(dir.path(), &numbered(2)));
        assert_eq!(recorder.rest(), [numbered(1), numbered(2)]);
    }
}
