//! A NAT box in the terms of RFC 4787; time and dice are arguments, so the simulation and the lab have the same.

pub(crate) mod rng;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rng::Rng;

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

/// How the outside port of a new mapping is chosen (section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ports {
    /// The inside port, if it is free.
    Preserving,
    Random,
    /// The next one.
    Sequential,
}

/// How a NAT behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    pub(crate) mapping: Dependence,
    pub(crate) filtering: Dependence,
    pub(crate) ports: Ports,
    /// Whether two nodes behind it reach each other by its public address (section 6).
    pub(crate) hairpin: bool,
    /// How long an unused mapping lives (section 4.3).
    pub(crate) lifetime: Duration,
    /// Whether packets from outside keep it alive too.
    pub(crate) inbound_refresh: bool,
    /// Whether each mapping takes any of the pool's addresses, not the one that the inside address always has (section 4.1).
    pub(crate) arbitrary_pooling: bool,
    /// As Linux without a firewall: an unsolicited packet to the box itself is remembered as a flow of its own, and a later
    /// packet from inside that would look like its answer gets another port (nat.md, section 1), and so do new flows after it.
    pub(crate) null_binding: bool,
    /// Whether a box that lost its state avoids the ports it had given, even where it keeps inside ports: another box took over.
    pub(crate) moves_when_wiped: bool,
}

impl Behaviour {
    /// Two minutes that only packets from inside prolong, as RFC 4787 asks for; random ports, no hairpin.
    pub(crate) const fn new(mapping: Dependence, filtering: Dependence) -> Self {
        Self {
            mapping,
            filtering,
            ports: Ports::Random,
            hairpin: false,
            lifetime: Duration::from_secs(120),
            inbound_refresh: false,
            arbitrary_pooling: false,
            null_binding: false,
            moves_when_wiped: false,
        }
    }
}

pub(crate) struct NatBox {
    /// Its public addresses.
    pub(crate) pool: Vec<IpAddr>,
    pub(crate) behaviour: Behaviour,
    mappings: BTreeMap<Key, Mapping>,
    /// Flows between the box itself and somebody outside, by his address and the box's.
    own_flows: BTreeMap<(SocketAddr, SocketAddr), Instant>,
    /// Outside addresses from before the last wipe, that are not given again.
    retired: BTreeSet<SocketAddr>,
    last_port: u16,
}

/// The inside address, and as much of the destination as the mapping depends on.
type Key = (SocketAddr, Option<IpAddr>, Option<u16>);

struct Mapping {
    outside: SocketAddr,
    contacted: BTreeSet<SocketAddr>,
    used: Instant,
    /// A flow that had to take another port, and was never answered.
    unanswered: bool,
}

impl NatBox {
    pub(crate) fn new(public: IpAddr, behaviour: Behaviour) -> Self {
        Self::with_pool(vec![public], behaviour)
    }

    pub(crate) fn with_pool(pool: Vec<IpAddr>, behaviour: Behaviour) -> Self {
        Self {
            pool,
            behaviour,
            mappings: BTreeMap::new(),
            own_flows: BTreeMap::new(),
            retired: BTreeSet::new(),
            last_port: 20_000,
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
        let mut key = match self.behaviour.mapping {
            Dependence::EndpointIndependent => (inside, None, None),
            Dependence::AddressDependent => (inside, Some(to.ip()), None),
            Dependence::AddressAndPortDependent => (inside, Some(to.ip()), Some(to.port())),
        };
        let flow = (inside, Some(to.ip()), Some(to.port()));
        if self.mappings.contains_key(&flow) {
            key = flow;
        }
        let usual = self.usual(key);
        let clash = usual.filter(|outside| self.own_flows.contains_key(&(to, *outside)));
        if clash.is_some() {
            self.set_aside(key);
        }
        let outside = match usual.filter(|_| clash.is_none()) {
            Some(outside) => outside,
            None => self.allocate(inside, to, rng),
        };
        let mapping = self.mappings.entry(key).or_insert_with(|| Mapping {
            outside,
            contacted: BTreeSet::new(),
            used: now,
            unanswered: clash.is_some(),
        });
        mapping.used = now;
        mapping.contacted.insert(to);
        outside
    }

    /// Translates a packet on its way in; `None` if no mapping or filter lets it pass.
    pub(crate) fn inbound(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        self.expire(now);
        let filtering = self.behaviour.filtering;
        let refresh = self.behaviour.inbound_refresh;
        let own = self.own_flows.contains_key(&(from, to));
        let mut mappings = self.mappings.iter_mut();
        let mapping = mappings.find(|(_, mapping)| {
            mapping.outside == to
                && match filtering {
                    Dependence::EndpointIndependent => true,
                    Dependence::AddressDependent => {
                        mapping.contacted.iter().any(|peer| peer.ip() == from.ip())
                    }
                    Dependence::AddressAndPortDependent => mapping.contacted.contains(&from),
                }
        });
        match mapping {
            Some((key, mapping)) if !own => {
                if refresh {
                    mapping.used = now;
                }
                mapping.unanswered = false;
                Some(key.0)
            }
            Some(_) | None => {
                if self.behaviour.null_binding {
                    self.own_flows.insert((from, to), now);
                }
                None
            }
        }
    }

    /// Loses its state, as when a conntrack table is flushed: later packets get other ports, unless inside ports are kept.
    pub(crate) fn wipe(&mut self) {
        self.retire();
        if self.behaviour.ports == Ports::Preserving && !self.behaviour.moves_when_wiped {
            self.retired.clear();
        }
        self.mappings.clear();
        self.own_flows.clear();
    }

    /// Gives every mapping another outside address. Filters stay: whom a mapping let in before, it lets in at the new address.
    pub(crate) fn rebind(&mut self, rng: &mut Rng) {
        self.retire();
        let before = std::mem::take(&mut self.mappings);
        for ((inside, ip, port), mut mapping) in before {
            let to = mapping.contacted.first().copied().unwrap_or(inside);
            mapping.outside = self.allocate(inside, to, rng);
            self.mappings.insert((inside, ip, port), mapping);
        }
    }

    fn retire(&mut self) {
        self.retired = self.mappings.values().map(|m| m.outside).collect();
    }

    fn expire(&mut self, now: Instant) {
        let lifetime = self.behaviour.lifetime;
        let age = |used: Instant| now.saturating_duration_since(used);
        self.mappings.retain(|_, mapping| {
            let lifetime = if mapping.unanswered {
                OWN_FLOW
            } else {
                lifetime
            };
            age(mapping.used) < lifetime
        });
        self.own_flows.retain(|_, used| age(*used) < OWN_FLOW);
    }

    /// The outside address that a packet would have by its mapping, or by those of older flows from which it was set aside.
    fn usual(&self, key: Key) -> Option<SocketAddr> {
        let mapping = self.mappings.get(&key).or_else(|| {
            let (inside, ..) = key;
            let mut flows = self.mappings.iter();
            let older = flows.find(|(flow, _)| flow.0 == inside && key.1.is_none());
            older.map(|(_, mapping)| mapping)
        });
        mapping.map(|mapping| mapping.outside)
    }

    /// Makes room for a new mapping: as conntrack does it, flows that exist stay where they are and later ones follow the newest.
    fn set_aside(&mut self, key: Key) {
        let Some(old) = self.mappings.remove(&key) else {
            return;
        };
        for peer in old.contacted {
            let flow = (key.0, Some(peer.ip()), Some(peer.port()));
            self.mappings.entry(flow).or_insert(Mapping {
                contacted: BTreeSet::from([peer]),
                ..old
            });
        }
    }

    /// The address of the pool that an inside address always gets.
    fn paired(&self, inside: SocketAddr) -> IpAddr {
        let last = match inside.ip() {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        self.pool[usize::from(last) % self.pool.len()]
    }

    fn allocate(&mut self, inside: SocketAddr, to: SocketAddr, rng: &mut Rng) -> SocketAddr {
        let ip = if self.behaviour.arbitrary_pooling {
            self.pool[rng.below(self.pool.len() as u64) as usize]
        } else {
            self.paired(inside)
        };
        let free = |outside: SocketAddr| {
            let taken = self
                .mappings
                .values()
                .any(|mapping| mapping.outside == outside);
            let own = self.own_flows.contains_key(&(to, outside));
            !taken && !own && !self.retired.contains(&outside)
        };
        let preserved = SocketAddr::new(ip, inside.port());
        if self.behaviour.ports == Ports::Preserving && free(preserved) {
            return preserved;
        }
        let mut last = self.last_port;
        loop {
            let port = match self.behaviour.ports {
                Ports::Sequential => {
                    last = last.wrapping_add(1).max(1_024);
                    last
                }
                Ports::Random | Ports::Preserving => 20_000 + rng.below(40_000) as u16,
            };
            let outside = SocketAddr::new(ip, port);
            if free(outside) {
                self.last_port = last;
                return outside;
            }
        }
    }
}

/// A flow that was never answered is forgotten after this (Linux: nf_conntrack_udp_timeout).
const OWN_FLOW: Duration = Duration::from_secs(30);

/// What a pair of NATs allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Direct,
    Relayed,
}

/// A direct path is a pair of outside addresses, each of which is what its NAT gives to packets for the other.
///
/// Two mappings that depend on the port have no such pair. Otherwise there is one, and it is found if a packet to a published
/// address comes through; the answer must then come through too. A dependent mapping's published addresses were opened towards
/// STUN servers only, so nothing but an endpoint-independent filter lets a peer in there.
///
/// nat.md, section 6, has the same but for dependent mappings with endpoint-independent filters, where it has what conntrack does:
/// that answers from the published address, and a NAT in the strict terms of RFC 4787 from another.
pub(crate) fn expected(a: Behaviour, b: Behaviour) -> Expected {
    let dependent = |nat: Behaviour| nat.mapping != INDEPENDENT;
    let lenient = |nat: Behaviour| nat.filtering != ADDRESS_AND_PORT;
    let open = |nat: Behaviour| nat.filtering == INDEPENDENT;
    let direct = match (dependent(a), dependent(b)) {
        (false, false) => true,
        (false, true) => lenient(a),
        (true, false) => lenient(b),
        (true, true) => {
            let stable = a.mapping == ADDRESS || b.mapping == ADDRESS;
            stable && (open(a) && lenient(b) || open(b) && lenient(a))
        }
    };
    if direct {
        Expected::Direct
    } else {
        Expected::Relayed
    }
}

/// Every mapping with every filtering, against every other.
pub(crate) fn pairs() -> impl Iterator<Item = (Behaviour, Behaviour)> {
    let behaviours = || {
        ALL.into_iter()
            .flat_map(|mapping| ALL.map(|filtering| Behaviour::new(mapping, filtering)))
    };
    behaviours().flat_map(move |a| behaviours().map(move |b| (a, b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do as the epoch"
    )]
    fn epoch() -> Instant {
        static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *EPOCH.get_or_init(Instant::now)
    }

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
            let passed = sources.map(|from| nat.inbound(addr(from), outside, epoch()));
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
        while nat.inbound(peer, outside, now).is_some() {
            passed += 1;
            now += Duration::from_secs(1);
        }
        assert_eq!(passed, 120);
    }

    #[test]
    fn where_inbound_packets_refresh_a_mapping_lives_on_them_alone() {
        let behaviour = Behaviour {
            inbound_refresh: true,
            ..Behaviour::new(INDEPENDENT, INDEPENDENT)
        };
        let mut nat = NatBox::new(addr("9.9.9.9:0").ip(), behaviour);
        let (inside, peer, mut now) = (addr("10.0.0.2:5"), addr("1.0.0.1:1"), epoch());
        let outside = nat.outbound(inside, peer, now, &mut Rng::new(1));
        for _ in 0..10 {
            now += Duration::from_secs(119);
            assert_eq!(nat.inbound(peer, outside, now), Some(inside));
        }
        now += Duration::from_secs(120);
        assert_eq!(nat.inbound(peer, outside, now), None);
    }

    #[test]
    fn a_wiped_box_gives_other_ports_unless_it_keeps_inside_ones() {
        for (ports, moves_when_wiped, moves) in [
            (Ports::Random, false, true),
            (Ports::Sequential, false, true),
            (Ports::Preserving, false, false),
            (Ports::Preserving, true, true),
        ] {
            let behaviour = Behaviour {
                ports,
                moves_when_wiped,
                ..Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT)
            };
            let mut nat = NatBox::new(addr("9.9.9.9:0").ip(), behaviour);
            let (inside, peer) = (addr("10.0.0.2:5000"), addr("1.0.0.1:1"));
            let mut rng = Rng::new(1);
            let before = nat.outbound(inside, peer, epoch(), &mut rng);
            nat.wipe();
            assert_eq!(nat.inbound(peer, before, epoch()), None, "{ports:?}");
            let after = nat.outbound(inside, peer, epoch(), &mut rng);
            assert_eq!(nat.inbound(peer, after, epoch()), Some(inside), "{ports:?}");
            assert_eq!(before != after, moves, "{ports:?}");
        }
    }

    #[test]
    fn a_rebound_mapping_moves_and_lets_in_whom_it_knew() {
        for ports in [Ports::Random, Ports::Sequential, Ports::Preserving] {
            let behaviour = Behaviour {
                ports,
                ..Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT)
            };
            let mut nat = NatBox::new(addr("9.9.9.9:0").ip(), behaviour);
            let (inside, peer) = (addr("10.0.0.2:5000"), addr("1.0.0.1:1"));
            let mut rng = Rng::new(1);
            let before = nat.outbound(inside, peer, epoch(), &mut rng);
            nat.rebind(&mut rng);
            let after = nat.mappings.values().next().unwrap().outside;
            assert_ne!(before, after, "{ports:?}");
            assert_eq!(nat.inbound(peer, before, epoch()), None, "{ports:?}");
            assert_eq!(nat.inbound(peer, after, epoch()), Some(inside), "{ports:?}");
            assert_eq!(nat.outbound(inside, peer, epoch(), &mut rng), after);
        }
    }

    #[test]
    fn ports_are_chosen_as_said() {
        let ports = |ports| {
            let behaviour = Behaviour {
                ports,
                ..Behaviour::new(ADDRESS_AND_PORT, INDEPENDENT)
            };
            let mut nat = NatBox::new(addr("9.9.9.9:0").ip(), behaviour);
            let mut rng = Rng::new(1);
            ["1.0.0.1:1", "1.0.0.1:2", "2.0.0.1:1"].map(|to| {
                let inside = addr("10.0.0.2:5000");
                nat.outbound(inside, addr(to), epoch(), &mut rng).port()
            })
        };
        let [a, b, c] = ports(Ports::Sequential);
        assert_eq!((b, c), (a + 1, a + 2));
        let [a, b, _] = ports(Ports::Preserving);
        assert!(a == 5_000 && b != 5_000);
    }

    #[test]
    fn a_pool_is_paired_or_not() {
        let seen = |arbitrary_pooling| -> BTreeSet<IpAddr> {
            let pool = (1..=4).map(|n| IpAddr::from([9, 9, 9, n])).collect();
            let behaviour = Behaviour {
                arbitrary_pooling,
                ..Behaviour::new(ADDRESS_AND_PORT, INDEPENDENT)
            };
            let mut nat = NatBox::with_pool(pool, behaviour);
            let mut rng = Rng::new(1);
            (1..50)
                .map(|port| {
                    let to = SocketAddr::from(([1, 0, 0, 1], port));
                    nat.outbound(addr("10.0.0.2:5"), to, epoch(), &mut rng).ip()
                })
                .collect()
        };
        assert_eq!((seen(false).len(), seen(true).len()), (1, 4));
    }

    #[test]
    fn a_null_binding_moves_the_flow_that_it_clashes_with_and_all_later_ones() {
        let behaviour = Behaviour {
            ports: Ports::Preserving,
            null_binding: true,
            ..Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT)
        };
        let (inside, peer, stun) = (addr("10.0.0.2:5000"), addr("1.0.0.1:1"), addr("2.0.0.1:1"));
        let (kept, later) = (addr("9.9.9.9:5000"), addr("3.0.0.1:1"));
        for stun_first in [true, false] {
            let mut nat = NatBox::new(addr("9.9.9.9:0").ip(), behaviour);
            let mut rng = Rng::new(1);
            let mut out = |nat: &mut NatBox, to| nat.outbound(inside, to, epoch(), &mut rng);
            if stun_first {
                assert_eq!(out(&mut nat, stun), kept);
            }
            assert_eq!(nat.inbound(peer, kept, epoch()), None);
            let moved = out(&mut nat, peer);
            assert_ne!(moved, kept);
            assert_eq!(nat.inbound(peer, kept, epoch()), None, "the box's own");
            assert_eq!(nat.inbound(peer, moved, epoch()), Some(inside));
            assert_eq!(out(&mut nat, later), moved);
            assert_eq!(out(&mut nat, stun), if stun_first { kept } else { moved });
            assert_eq!(out(&mut nat, peer), moved);
        }
    }

    #[test]
    fn flows_that_were_set_aside_outlive_an_unanswered_newer_one() {
        let behaviour = Behaviour {
            ports: Ports::Preserving,
            null_binding: true,
            ..Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT)
        };
        let mut nat = NatBox::new(addr("9.9.9.9:0").ip(), behaviour);
        let (inside, peer, stun) = (addr("10.0.0.2:5000"), addr("1.0.0.1:1"), addr("2.0.0.1:1"));
        let mut rng = Rng::new(1);
        let kept = nat.outbound(inside, stun, epoch(), &mut rng);
        nat.inbound(peer, kept, epoch());
        assert_ne!(nat.outbound(inside, peer, epoch(), &mut rng), kept);
        let later = epoch() + OWN_FLOW;
        assert_eq!(nat.outbound(inside, peer, later, &mut rng), kept);
        assert_eq!(nat.outbound(inside, stun, later, &mut rng), kept);
    }
}
