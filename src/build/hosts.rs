//! The hosts file that distcc reads at every call, and the shields of the ports it names.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::guard::calm;
use super::layout::replace;
use crate::distcc::{HostLine, backoff_shield, backoff_unshield, hosts_file};

#[derive(Debug)]
pub(super) struct Hosts {
    build_dir: PathBuf,
    lines: Vec<String>,
    queue: u16,
    ceiling: u32,
    written: String,
    shielded: BTreeSet<u16>,
}

impl Hosts {
    /// A file without a host, on a machine that runs so many jobs at once.
    pub(super) fn create(build_dir: &Path, local: u32) -> io::Result<Self> {
        let mut hosts = Self {
            build_dir: build_dir.to_owned(),
            lines: Vec::new(),
            queue: 0,
            ceiling: local,
            written: String::new(),
            shielded: BTreeSet::new(),
        };
        hosts.write()?;
        Ok(hosts)
    }

    /// Workers came or went. A client that finds no slot of theirs goes to the queue: distcc itself would let it wait, look again
    /// now and then, and only then preprocess.
    pub(super) fn set_lines(&mut self, lines: Vec<String>, queue: u16) -> io::Result<()> {
        self.lines = lines;
        self.queue = queue;
        self.write()
    }

    /// The most jobs at once changed.
    pub(super) fn set_ceiling(&mut self, ceiling: u32) -> io::Result<()> {
        self.ceiling = ceiling;
        self.write()
    }

    /// The ports answer no more. First no client must choose one again, for it would do so for ever.
    pub(super) fn handle_session_lost(&mut self, local: u32) -> io::Result<()> {
        self.lines.clear();
        self.ceiling = local;
        let written = self.write();
        let distcc = self.build_dir.join("distcc");
        let shielded = std::mem::take(&mut self.shielded).into_iter();
        let freed = shielded.map(|port| backoff_unshield(&distcc, port));
        freed.fold(written, Result::and)
    }

    /// Before the ports stop answering.
    pub(super) fn close(&self) {
        calm(&self.build_dir);
    }

    fn write(&mut self) -> io::Result<()> {
        let mut lines = self.lines.clone();
        if !lines.is_empty() {
            let line = HostLine {
                port: self.queue,
                slots: self.ceiling,
                lzo: true,
                cpp: false,
            };
            lines.push(line.to_string());
        }
        let text = hosts_file(self.ceiling, &lines);
        if text == self.written {
            return Ok(());
        }
        let distcc = self.build_dir.join("distcc");
        for port in lines.iter().filter_map(|line| port(line)) {
            if !self.shielded.contains(&port) {
                backoff_shield(&distcc, port)?;
                self.shielded.insert(port);
            }
        }
        replace(&distcc.join("hosts"), text.as_bytes())?;
        self.written = text;
        Ok(())
    }
}

/// The port of `127.0.0.1:PORT/SLOTS,lzo`.
fn port(line: &str) -> Option<u16> {
    let (address, _) = line.split_once('/')?;
    address.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_follows_hosts_and_ceiling_and_is_rewritten_only_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("distcc/lock")).unwrap();
        let file = dir.path().join("distcc/hosts");
        let mut hosts = Hosts::create(dir.path(), 2).unwrap();
        hosts
            .set_lines(vec!["127.0.0.1:4000/8,lzo".into()], 5000)
            .unwrap();
        hosts.set_ceiling(10).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(
            text,
            "--localslots=10\n--localslots_cpp=10\n127.0.0.1:4000/8,lzo\n127.0.0.1:5000/10,lzo\n"
        );
        let shield = dir.path().join("distcc/lock/backoff_tcp_127.0.0.1_4000_0");
        assert!(shield.is_dir());
        std::fs::remove_file(&file).unwrap();
        hosts.set_ceiling(10).unwrap();
        assert!(!file.exists(), "nothing changed, nothing is written");
        hosts.handle_session_lost(2).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, "--localslots=2\n--localslots_cpp=2\n");
        assert!(!shield.exists());
        hosts
            .set_lines(vec!["127.0.0.1:4000/8,lzo".into()], 5000)
            .unwrap();
        assert!(shield.is_dir());
        hosts.close();
        assert!(!shield.exists());
        assert!(
            !std::fs::read_to_string(&file)
                .unwrap()
                .contains("127.0.0.1")
        );
    }
}
