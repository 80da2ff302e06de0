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
    fn localhost_compiles_only_beside_few_remote_slots() {}
}
