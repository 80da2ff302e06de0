//! What options are parsed into. A wrong value is refused here, with the right one beside it.

use std::{fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, str::FromStr, time::Duration};

use crate::rendezvous::store::StoreAddress;

/// Where descriptors are exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RendezvousAddress {
    /// A directory that all nodes can reach.
    Dir(PathBuf),
    /// The artifacts of the run of GitHub Actions that this process is part of.
    GitHub,
    /// A bucket or a WebDAV collection.
    Store(StoreAddress),
}

impl FromStr for RendezvousAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "github" {
            return Ok(Self::GitHub);
        }
        match text.split_once(':') {
            Some(("dir", "")) => Err("a path is missing after `dir:`".to_owned()),
            Some(("dir", path)) => Ok(Self::Dir(PathBuf::from(path))),
            Some(("s3" | "http" | "https", _)) => text.parse().map(Self::Store),
            Some((scheme, _)) if !scheme.contains('/') => Err(format!(
                "`{scheme}:` is not a rendezvous that this version knows; use {RENDEZVOUS}"
            )),
            _ if text.contains('/') && !text.contains('@') => {
                Err(format!("a directory is written dir:{text}"))
            }
            _ => Err(format!(
                "not a rendezvous that this version knows; use {RENDEZVOUS}"
            )),
        }
    }
}

impl RendezvousAddress {
    /// Whether these words, of a session that runs, tell of the same place.
    pub fn is_described_by(&self, words: &str) -> bool {
        match self {
            Self::Dir(path) => words.ends_with(&path.display().to_string()),
            Self::GitHub => words.starts_with("the artifacts of run "),
            Self::Store(address) => words.contains(&address.to_string()),
        }
    }
}

impl fmt::Display for RendezvousAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
            Self::GitHub => f.write_str("github"),
            Self::Store(address) => write!(f, "{address}"),
        }
    }
}

/// One value of `--stun`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StunChoice {
    /// Ask nobody.
    None,
    /// Ask this server.
    Server(StunServer),
}

impl FromStr for StunChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        text.parse().map(Self::Server)
    }
}

/// A STUN server (RFC 8489), its name not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StunServer {
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

impl FromStr for StunServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Self {
                host: addr.ip().to_string(),
                port: addr.port(),
            });
        }
        let wanted = "write HOST:PORT, like stun.example.org:3478, or `none`";
        let (host, port) = text.rsplit_once(':').ok_or(wanted)?;
        if host.is_empty() || host.contains([':', '/', '[', ']']) {
            return Err(wanted.to_owned());
        }
        let port = port.parse().ok().filter(|port| *port != 0);
        Ok(Self {
            host: host.to_owned(),
            port: port
                .ok_or_else(|| format!("the port is not a number of 1 to 65535; {wanted}"))?,
        })
    }
}

impl fmt::Display for StunServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Reads a duration as people write it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wanted = "write a number and a unit, like 90s, 5m or 1h30m";
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text != "0" {
        return Err(format!(
            "the unit is missing: did you mean {text}s? {wanted}"
        ));
    }
    humantime::parse_duration(text).map_err(|_| wanted.to_owned())
}

/// Reads how many compiles may run at once.
pub(super) fn at_least_one(text: &str) -> Result<NonZeroU32, String> {
    text.parse()
        .map_err(|_| "write a number from 1 upwards".to_owned())
}

/// Reads a local address.
pub(super) fn bind(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write IP:PORT, like 192.0.2.7:51820 or [2001:db8::7]:0; port 0 is any free one".to_owned()
    })
}

/// Reads the address of a distccd.
pub(super) fn distccd(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .ok()
        .filter(|addr: &SocketAddr| addr.port() != 0)
        .ok_or_else(|| "write IP:PORT, like 127.0.0.1:3632".to_owned())
}

/// The two servers that are asked when `--stun` says nothing. Two, of different operators: two answers show whether the NAT's
/// mapping depends on the destination, and one operator's outage is not ours.
pub(super) fn public_stun_servers() -> Vec<StunServer> {
    let server = |host: &str, port| StunServer {
        host: host.to_owned(),
        port,
    };
    vec![
        server("stun.l.google.com", 19302),
        server("stun.cloudflare.com", 3478),
    ]
}

/// What `--rendezvous` takes.
const RENDEZVOUS: &str = "dir:PATH, github, s3://BUCKET/PREFIX or https://HOST/PATH (WebDAV)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rendezvous_is_a_directory_github_or_a_store_and_everything_else_says_so() {
        assert_eq!("github".parse(), Ok(RendezvousAddress::GitHub));
        assert_eq!(
            "dir:/srv/a:b".parse(),
            Ok(RendezvousAddress::Dir("/srv/a:b".into()))
        );
        for good in ["s3://bucket/prefix", "https://dav.example.org/mesh"] {
            let address: RendezvousAddress = good.parse().unwrap();
            assert_eq!(address.to_string(), good);
        }
        for (wrong, says) in [
            ("/srv/mesh", "dir:/srv/mesh"),
            ("gs://bucket", "`gs:` is not"),
            ("s3://", "AWS_ENDPOINT_URL"),
            ("https://", "https://HOST/PATH"),
            ("gitlab", "this version"),
            ("dir:", "path is missing"),
            ("", "use dir:PATH, github, s3://"),
        ] {
            let error = wrong.parse::<RendezvousAddress>().unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_rendezvous_knows_the_words_that_describe_it() {
        let words = [
            "the directory /srv/mesh",
            "the artifacts of run 7, attempt 1",
            "the bucket s3://b/p at http://127.0.0.1:9000",
        ];
        for (address, which) in [("dir:/srv/mesh", 0), ("github", 1), ("s3://b/p", 2)] {
            let address: RendezvousAddress = address.parse().unwrap();
            let is = |at: usize| address.is_described_by(words[at]);
            assert_eq!([0, 1, 2].map(is), [0, 1, 2].map(|at| at == which));
        }
    }

    #[test]
    fn a_stun_server_is_a_host_and_a_port() {
        for good in ["stun.example.org:3478", "192.0.2.1:1", "[2001:db8::1]:3478"] {
            let server: StunServer = good.parse().unwrap();
            assert_eq!(server.to_string(), good);
        }
        for bad in [
            "",
            "host",
            "host:",
            ":1",
            "host:0",
            "host:65536",
            "2001:db8::1:x",
            "stun://h:1",
        ] {
            assert!(bad.parse::<StunServer>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!("none".parse(), Ok(StunChoice::None));
    }

    #[test]
    fn a_duration_needs_a_unit_and_the_error_names_it() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("90").unwrap_err().contains("90s"));
        for bad in ["", "soon", "-1s", "5 parsecs"] {
            assert!(duration(bad).unwrap_err().contains("5m"), "{bad:?}");
        }
    }

    #[test]
    fn the_two_default_stun_servers_have_different_operators() {
        let hosts: Vec<_> = public_stun_servers().into_iter().map(|s| s.host).collect();
        assert_eq!(hosts.len(), 2);
        assert_ne!(hosts[0], hosts[1]);
    }
}
