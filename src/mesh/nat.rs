//! What the mapped addresses that STUN servers report say about the NAT (RFC 4787 section 4.1, RFC 5780 section 4.3).

use std::net::{IpAddr, SocketAddr};

use crate::session::NatClass;

/// One server's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Who was asked.
    pub server: SocketAddr,
    /// What it saw.
    pub mapped: SocketAddr,
}

/// Classifies the mapping; the observations must be of about the same moment and of one address family.
///
/// Telling address-dependent from address-and-port-dependent takes two ports of one server. Without them the stricter one is
/// reported, so that nobody hopes for a path that needs the milder.
pub fn classify(hosts: &[SocketAddr], observations: &[Observation]) -> NatClass {
    if observations.is_empty() {
        return NatClass::Unknown;
    }
    if observations.iter().all(|seen| hosts.contains(&seen.mapped)) {
        return NatClass::None;
    }
    let mut pairs = pairs(observations);
    if pairs.clone().any(|(a, b)| a.mapped != b.mapped) {
        let same_ip = |(a, b): &(Observation, Observation)| a.server.ip() == b.server.ip();
        let mut one_server = pairs.filter(same_ip).peekable();
        let several_ports = one_server.peek().is_some();
        if several_ports && one_server.all(|(a, b)| a.mapped == b.mapped) {
            return NatClass::AddressDependent;
        }
        return NatClass::AddressAndPortDependent;
    }
    // Two ports of one address cannot rule out that the mapping depends on the address.
    if pairs.any(|(a, b)| a.server.ip() != b.server.ip()) {
        return NatClass::EndpointIndependent;
    }
    NatClass::Unknown
}

/// Whether a datagram sent there can reach one node, and not this node's network as a whole.
pub(super) fn is_usable(addr: SocketAddr) -> bool {
    let broadcast = match addr.ip() {
        IpAddr::V4(ip) => ip.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast() && !broadcast
}

fn pairs(
    observations: &[Observation],
) -> impl Iterator<Item = (Observation, Observation)> + Clone + '_ {
    observations.iter().enumerate().flat_map(|(index, a)| {
        let same_family = |b: &&Observation| a.mapped.is_ipv4() == b.mapped.is_ipv4();
        observations[index + 1..]
            .iter()
            .filter(same_family)
            .map(|b| (*a, *b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(server: &str, mapped: &str) -> Observation {
        Observation {
            server: server.parse().unwrap(),
            mapped: mapped.parse().unwrap(),
        }
    }

    #[test]
    fn the_class_follows_from_two_servers_answers() {
        let hosts = ["10.0.0.2:5000".parse().unwrap()];
        let cases: [(&[Observation], NatClass); 8] = [
            (&[], NatClass::Unknown),
            (&[seen("1.0.0.1:1", "10.0.0.2:5000")], NatClass::None),
            (&[seen("1.0.0.1:1", "9.9.9.9:5000")], NatClass::Unknown),
            (
                &[
                    seen("1.0.0.1:1", "9.9.9.9:5"),
                    seen("1.0.0.1:2", "9.9.9.9:5"),
                ],
                NatClass::Unknown,
            ),
            (
                &[
                    seen("1.0.0.1:1", "9.9.9.9:5"),
                    seen("2.0.0.1:1", "9.9.9.9:5"),
                ],
                NatClass::EndpointIndependent,
            ),
            (
                &[
                    seen("1.0.0.1:1", "9.9.9.9:5"),
                    seen("2.0.0.1:1", "9.9.9.9:6"),
                ],
                NatClass::AddressAndPortDependent,
            ),
            (
                &[
                    seen("1.0.0.1:1", "9.9.9.9:5"),
                    seen("1.0.0.1:2", "9.9.9.9:5"),
                    seen("2.0.0.1:1", "9.9.9.9:6"),
                ],
                NatClass::AddressDependent,
            ),
            (
                &[
                    seen("1.0.0.1:1", "9.9.9.9:5"),
                    seen("1.0.0.1:2", "9.9.9.9:6"),
                ],
                NatClass::AddressAndPortDependent,
            ),
        ];
        for (observations, class) in cases {
            assert_eq!(classify(&hosts, observations), class, "{observations:?}");
        }
    }

    #[test]
    fn addresses_that_are_nobodys_are_not_probed() {
        for bad in [
            "0.0.0.0:1",
            "192.0.2.1:0",
            "224.0.0.1:5",
            "255.255.255.255:5",
            "[::]:1",
            "[ff02::1]:1",
        ] {
            assert!(!is_usable(bad.parse().unwrap()), "{bad}");
        }
        for good in ["127.0.0.1:1", "192.168.1.2:65535", "[2001:db8::1]:9"] {
            assert!(is_usable(good.parse().unwrap()), "{good}");
        }
    }
}
