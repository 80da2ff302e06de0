//! Host lines, and how many compiles run on this machine beside them.

use std::fmt;

/// One worker in distcc's host list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostLine {
    /// Loopback port of the listener.
    pub port: u16,
    /// Compiles at once.
    pub slots: u32,
    /// Compressed bodies (protocol 2).
    pub lzo: bool,
    /// Preprocessing on the server (protocol 3, pump).
    pub cpp: bool,
}

impl fmt::Display for HostLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "127.0.0.1:{}/{}", self.port, self.slots)?;
        f.write_str(if self.lzo { ",lzo" } else { "" })?;
        f.write_str(if self.cpp { ",cpp" } else { "" })
    }
}

/// The hosts file's text. `local` is the limit of distcc's own local lock files, the same for both kinds because they share
/// the files: different numbers make links wait behind preprocessors.
pub fn hosts_file(local: u32, lines: &[String]) -> String {
    let hosts: String = lines.iter().map(|line| format!("{line}\n")).collect();
    format!("--localslots={local}\n--localslots_cpp={local}\n{hosts}")
}

/// The same hosts as one `DISTCC_HOSTS` line.
pub fn hosts_env(lines: &[String]) -> String {
    lines.join(" ")
}

/// Whether `localhost` stands in the host list, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSlots {
    /// Slots of `localhost`; 0 leaves it out.
    pub slots: u32,
    /// One sentence for a person.
    pub reason: &'static str,
}

/// Below so many remote slots per local core, preprocessing and linking leave the local cores idle.
const FEW_REMOTE_PER_CORE: u32 = 2;

/// Decides whether local compiles help.
pub fn local_slots(cores: u32, remote: u32) -> LocalSlots {
    let (slots, reason) = match remote {
        0 => (cores, "no worker is up: everything runs here"),
        _ if remote < cores.saturating_mul(FEW_REMOTE_PER_CORE) && cores > 1 => (
            cores / 2,
            "few remote slots: half of the local cores compile too",
        ),
        _ => (
            0,
            "the local cores preprocess and link; compiling here made a cluster of 1 + 4 a fifth slower",
        ),
    };
    LocalSlots { slots, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_lines_are_what_distcc_reads() {
        let line = HostLine {
            port: 4000,
            slots: 8,
            lzo: true,
            cpp: false,
        };
        assert_eq!(line.to_string(), "127.0.0.1:4000/8,lzo");
        let pump = HostLine { cpp: true, ..line };
        let lines = [line.to_string(), pump.to_string()];
        assert_eq!(
            hosts_file(12, &lines),
            "--localslots=12\n--localslots_cpp=12\n127.0.0.1:4000/8,lzo\n127.0.0.1:4000/8,lzo,cpp\n"
        );
        assert_eq!(
            hosts_env(&lines),
            "127.0.0.1:4000/8,lzo 127.0.0.1:4000/8,lzo,cpp"
        );
    }

    #[test]
    fn localhost_compiles_only_beside_few_remote_slots() {
        assert_eq!(local_slots(4, 0).slots, 4);
        assert_eq!(local_slots(4, 4).slots, 2);
        assert_eq!(local_slots(4, 16).slots, 0);
        assert_eq!(local_slots(1, 1).slots, 0);
    }
}
