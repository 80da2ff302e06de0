//! A NAT box in the terms of RFC 4787.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::rng::Rng;

/// What a mapping (RFC 4787 section 4.1) or a filter (section 5) depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dependence {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

pub(crate) use Dependence::{
    AddressAndPortDependent as ADDRESS_AND_PORT, AddressDependent as ADDRESS,
    EndpointIndependent as INDEPENDENT,
};

pub(crate) const ALL: [Dependence; 3] = [INDEPENDENT, ADDRESS, ADDRESS_AND_PORT];

/// How a NAT behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    pub(crate) mapping: Dependence,
    pub(crate) filtering: Dependence,
    /// Whether two nodes behind it reach each other by its public address (section 6).
    pub(crate) hairpin: bool,
    /// How long an unused mapping lives; only outbound packets refresh it (section 4.3).
    pub(crate) lifetime: Duration,
}

impl Behaviour {
    /// Two minutes, as RFC 4787 asks for, and no hairpin.
    pub(crate) const fn new(mapping: Dependence, filtering: Dependence) -> Self {
        Self {
            mapping,
            filtering,
            hairpin: false,
            lifetime: Duration::from_secs(120),
        }
    }
}

pub(crate) struct NatBox {
    pub(crate) public: IpAddr,
    pub(crate) behaviour: Behaviour,
    mappings: BTreeMap<Key, Mapping>,
}

/// The inside address, and as much of the destination as the mapping depends on.
type Key = (SocketAddr, Option<IpAddr>, Option<u16>);

struct Mapping {
    port: u16,
    contacted: BTreeSet<SocketAddr>,
    used: Instant,
}

impl NatBox {
    pub(crate) fn new(public: IpAddr, behaviour: Behaviour) -> Self {
        Self {
            public,
            behaviour,
            mappings: BTreeMap::new(),
        }
    }

    /// Translates a packet on its way out; returns the source that the world sees.
    pub(crate) fn outbound(
        &mut self,
        inside: SocketAddr,
        to: SocketAddr,
        now: Instant,
        rng: &mut Rng,
    ) -> SocketAddr {
        self.expire(now);
        let key = match self.behaviour.mapping {
            Dependence::EndpointIndependent => (inside, None, None),
            Dependence::AddressDependent => (inside, Some(to.ip()), None),
            Dependence::AddressAndPortDependent => (inside, Some(to.ip()), Some(to.port())),
        };
        let port = match self.mappings.get(&key) {
            Some(mapping) => mapping.port,
            None => self.free_port(rng),
        };
        let mapping = self.mappings.entry(key).or_insert_with(|| Mapping {
            port,
            contacted: BTreeSet::new(),
            used: now,
        });
        mapping.used = now;
        mapping.contacted.insert(to);
        SocketAddr::new(self.public, port)
    }

    /// Translates a packet on its way in; `None` if no mapping or filter lets it pass.
    pub(crate) fn inbound(
        &mut self,
        from: SocketAddr,
        port: u16,
        now: Instant,
    ) -> Option<SocketAddr> {
        self.expire(now);
        let filtering = self.behaviour.filtering;
        let (key, mapping) = self.mappings.iter().find(|(_, m)| m.port == port)?;
        let passes = match filtering {
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => {
                mapping.contacted.iter().any(|peer| peer.ip() == from.ip())
            }
            Dependence::AddressAndPortDependent => mapping.contacted.contains(&from),
        };
        passes.then_some(key.0)
    }

    /// Loses its state, as when a conntrack table is flushed.
    pub(crate) fn wipe(&mut self) {
        self.mappings.clear();
    }

    fn expire(&mut self, now: Instant) {
        let lifetime = self.behaviour.lifetime;
        self.mappings
            .retain(|_, mapping| now.saturating_duration_since(mapping.used) < lifetime);
    }

    fn free_port(&self, rng: &mut Rng) -> u16 {
        loop {
            let port = 20_000 + rng.below(40_000) as u16;
            if self.mappings.values().all(|mapping| mapping.port != port) {
                return port;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::epoch;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// The outside ports that three destinations see: two ports of one address, and another address.
    fn ports(mapping: Dependence) -> [u16; 3] {
        let mut nat = NatBox::new(addr("9.9.9.9:0").ip(), Behaviour::new(mapping, INDEPENDENT));
        let mut rng = Rng::new(1);
        ["1.0.0.1:1", "1.0.0.1:2", "2.0.0.1:1"].map(|to| {
            nat.outbound(addr("10.0.0.2:5"), addr(to), epoch(), &mut rng)
                .port()
        })
    }

    #[test]
    fn mappings_depend_on_what_they_are_said_to() {
        let [a, b, c] = ports(INDEPENDENT);
        assert!(a == b && b == c);
        let [a, b, c] = ports(ADDRESS);
        assert!(a == b && b != c);
        let [a, b, c] = ports(ADDRESS_AND_PORT);
        assert!(a != b && b != c && a != c);
    }

    #[test]
    fn filters_depend_on_what_they_are_said_to() {
        let sources = ["1.0.0.1:1", "1.0.0.1:2", "2.0.0.1:1"];
        for (filtering, passing) in [(INDEPENDENT, 3), (ADDRESS, 2), (ADDRESS_AND_PORT, 1)] {
            let mut nat = NatBox::new(
                addr("9.9.9.9:0").ip(),
                Behaviour::new(INDEPENDENT, filtering),
            );
            let inside = addr("10.0.0.2:5");
            let outside = nat.outbound(inside, addr("1.0.0.1:1"), epoch(), &mut Rng::new(1));
            let passed = sources.map(|from| nat.inbound(addr(from), outside.port(), epoch()));
            assert_eq!(passed.iter().flatten().count(), passing, "{filtering:?}");
            assert_eq!(passed[0], Some(inside));
        }
    }

    #[test]
    fn inbound_packets_keep_no_mapping_alive() {
        let mut nat = NatBox::new(
            addr("9.9.9.9:0").ip(),
            Behaviour::new(INDEPENDENT, INDEPENDENT),
        );
        let (peer, mut now) = (addr("1.0.0.1:1"), epoch());
        let outside = nat.outbound(addr("10.0.0.2:5"), peer, now, &mut Rng::new(1));
        let mut passed = 0;
        while nat.inbound(peer, outside.port(), now).is_some() {
            passed += 1;
            now += Duration::from_secs(1);
        }
        assert_eq!(passed, 120);
    }
}
