//! What was found on this machine, before anybody judges it.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

use crate::{cli::StunServer, session::NatClass};

/// Everything that the checks look at.
#[derive(Clone, Debug)]
pub(super) struct Findings {
    /// Tools and compilers that were found, by name.
    pub(super) tools: BTreeMap<&'static str, Tool>,
    /// Directories on PATH that stand in front of real compilers, in order.
    pub(super) masquerades: Vec<Masquerade>,
    /// Exported variables that could matter.
    pub(super) variables: BTreeMap<String, String>,
    /// The private directory, or why there is none.
    pub(super) runtime_dir: Result<PathBuf, String>,
    /// How many files a process may have open.
    pub(super) open_files: Option<u64>,
    /// The largest UDP receive buffer that a process may ask for, in bytes (Linux).
    pub(super) receive_buffer: Option<u64>,
    /// What each STUN server answered.
    pub(super) outside: Vec<Answer>,
    /// What the NAT in between does, as far as can be told.
    pub(super) nat: NatClass,
    /// This is a CI's machine.
    pub(super) ci: bool,
}

/// A program that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tool {
    /// Where.
    pub(super) path: PathBuf,
    /// Its version, if it told one.
    pub(super) version: Option<Version>,
}

/// The first two numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

/// A directory whose `gcc` is another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Masquerade {
    /// The directory.
    pub(super) dir: PathBuf,
    /// What it leads to: `ccache` or `distcc`.
    pub(super) leads_to: String,
}

/// What came back from one STUN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whom we asked.
    pub(super) server: StunServer,
    /// How it sees us, or why it did not tell.
    pub(super) address: Result<SocketAddr, String>,
    /// Its own address, if it answered.
    pub(super) at: Option<SocketAddr>,
}

impl Version {
    /// Finds the first `N.M` in what `--version` printed.
    pub(super) fn find(text: &str) -> Option<Self> {
        let numbers = |word: &str| {
            let mut parts = word.split('.');
            let major = parts.next()?.parse().ok()?;
            let minor = parts.next()?;
            let digits = minor
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(minor.len());
            Some(Self(major, minor[..digits].parse().ok()?))
        };
        text.split(|c: char| c.is_whitespace() || c == '(' || c == '-')
            .find_map(numbers)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_print() {
        for (text, version) in [
            ("GNU Make 4.3\nBuilt for x86_64", Version(4, 3)),
            ("distccd 3.4 x86_64-pc-linux-gnu", Version(3, 4)),
            ("gcc (Debian 12.2.0-14) 12.2.0", Version(12, 2)),
            (
                "Apple clang version 15.0.0 (clang-1500.3.9.4)",
                Version(15, 0),
            ),
            ("1.13.0.git.kitware", Version(1, 13)),
            ("cmake version 3.31.0-rc2", Version(3, 31)),
        ] {
            assert_eq!(Version::find(text), Some(version), "{text}");
        }
        for text in ["", "no version here", "99999999999.1", "v"] {
            assert_eq!(Version::find(text), None, "{text}");
        }
    }
}
