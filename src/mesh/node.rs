//! The whole node: its own addresses, and one [`Peer`] for each node that it talks to.

mod relaying;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use self::relaying::Lacking;
use super::{
    datagram::{Kind, classify_datagram},
    nat,
    outbox::{MeshEvent, Outbox, Transmit},
    peer::{Interest, MAX_PUBLISHED, Peer},
    probe::{self, ProbeKey, ShortId},
    route::Route,
    stun::Stun,
    transaction::TransactionIds,
};
use crate::session::{Candidate, CandidateKind, Descriptor, NatClass, NodeName, PeerId, Role};

/// What a node knows of itself.
#[derive(Clone)]
pub struct MeshConfig {
    /// Its WireGuard public key.
    pub me: PeerId,
    /// What it is.
    pub role: Role,
    /// Its label.
    pub name: NodeName,
    /// When it started, in Unix milliseconds.
    pub start_ms: u64,
    /// The public key of its QUIC endpoint.
    pub stream_key: [u8; 32],
    /// The addresses of its own interfaces, with the data socket's port.
    pub host_candidates: Vec<SocketAddr>,
    /// Two or more, if the NAT is to be classified.
    pub stun_servers: Vec<SocketAddr>,
    /// Fresh random bytes: nobody who doesn't know them can guess a transaction id.
    pub seed: [u8; 32],
}

/// What was in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// It was for this room.
    Taken,
    /// A WireGuard message, straight or through a relay; nothing about it is verified.
    WireGuard(&'a [u8]),
    /// Nothing for anybody here.
    Unknown,
}

/// One node of the mesh.
pub struct Mesh {
    own: Descriptor,
    hosts: Vec<SocketAddr>,
    seed: [u8; 32],
    stun: Stun,
    peers: BTreeMap<PeerId, Peer>,
    /// Where peers sent authenticated probes from: a hint, to be checked with the peer.
    sources: BTreeMap<SocketAddr, PeerId>,
    /// When to look again who is asked to forward.
    next_relays: Option<Instant>,
    /// Since when a peer has been without a direct path.
    lacking: BTreeMap<PeerId, Lacking>,
    /// When it started, by the clock of `now`.
    born: Instant,
    /// How long the machine has been suspended since.
    slept: Duration,
    /// A fresh socket was needed.
    careful: bool,
    /// Since when no peer at all has been reachable, and how often that was said.
    stuck: Option<(Instant, u32)>,
    /// Peers that said goodbye. Their descriptors may linger at the rendezvous; their keys never come back.
    gone: BTreeSet<PeerId>,
    out: Outbox,
    /// No later than the earliest deadline.
    timeout: Option<Instant>,
    last_input: Instant,
}

impl Mesh {
    /// Starts with the first descriptor, which has no STUN answers in it yet. Call `handle_timeout` next.
    pub fn new(config: MeshConfig, now: Instant) -> Self {
        let own = Descriptor {
            role: config.role,
            name: config.name,
            start_ms: config.start_ms,
            seq: 1,
            peer: config.me,
            stream_key: config.stream_key,
            candidates: Vec::new(),
            nat: NatClass::Unknown,
        };
        let mut mesh = Self {
            own,
            hosts: config.host_candidates,
            stun: Stun::new(config.stun_servers, &config.seed, now),
            seed: config.seed,
            peers: BTreeMap::new(),
            sources: BTreeMap::new(),
            next_relays: None,
            lacking: BTreeMap::new(),
            born: now,
            slept: Duration::ZERO,
            careful: false,
            stuck: None,
            gone: BTreeSet::new(),
            out: Outbox::default(),
            timeout: None,
            last_input: now,
        };
        mesh.own.candidates = mesh.own_candidates();
        mesh.timeout = mesh.stun.poll_timeout();
        mesh
    }

    /// This node's descriptor as it is now.
    pub fn descriptor(&self) -> Descriptor {
        self.own.clone()
    }

    /// How the peer is reached; `None` while there is no path.
    pub fn path(&self, peer: PeerId) -> Option<Route> {
        self.peers.get(&peer)?.path()
    }

    /// The smoothed round-trip time of the peer's path.
    pub fn rtt(&self, peer: PeerId) -> Option<Duration> {
        self.peers.get(&peer)?.rtt()
    }

    /// A descriptor was found and opened; `probe_key` is the pair's. Old ones and those of no interest are ignored.
    pub fn handle_descriptor(&mut self, found: Descriptor, probe_key: [u8; 32], now: Instant) {
        self.note_time(now);
        if !self.wants(&found) || !self.replace_ghosts(&found) {
            return;
        }
        let id = found.peer;
        if let Some(peer) = self.peers.get_mut(&id) {
            if found.version() <= peer.descriptor().version() {
                return;
            }
            peer.handle_descriptor(found, now);
            self.note_hope(Some(id), now);
        } else {
            let key = ProbeKey::new(&probe_key, self.own.peer, id);
            let ids = TransactionIds::new(&self.seed, id.as_bytes());
            // Workers have nothing to say to each other, but may have to forward.
            let interest = match found.role == self.own.role {
                true => Interest::Forwarding(now),
                false => Interest::Link,
            };
            let mut peer = Peer::new(found, interest, (key, ids), now);
            if self.careful {
                peer.set_careful();
            }
            self.peers.insert(id, peer);
        }
        self.look_for_relays(now);
        self.wake_for(id);
    }

    /// A datagram came in on the data socket.
    pub fn handle_datagram<'a>(
        &mut self,
        from: SocketAddr,
        bytes: &'a [u8],
        now: Instant,
    ) -> Datagram<'a> {
        match classify_datagram(bytes) {
            Kind::Stun => self.handle_stun(from, bytes, now),
            Kind::Probe => self.handle_probe((Route::Direct(from), from), bytes, now),
            Kind::Relayed => return self.handle_frame(from, bytes, now),
            Kind::WireGuard => return Datagram::WireGuard(bytes),
            Kind::Unknown => return Datagram::Unknown,
        }
        Datagram::Taken
    }

    /// The peer sent WireGuard data that its session key authenticated.
    pub fn handle_traffic(&mut self, peer: PeerId, now: Instant) {
        self.note_time(now);
        // Signs of life move deadlines later only: the timeout stays a lower bound, at no cost a packet.
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.handle_traffic(now, &mut self.out);
        }
    }

    /// The interfaces' addresses changed.
    pub fn handle_host_addresses(&mut self, addrs: Vec<SocketAddr>, now: Instant) {
        self.note_time(now);
        if addrs == self.hosts {
            return;
        }
        self.hosts = addrs;
        self.peers
            .values_mut()
            .for_each(Peer::handle_own_interfaces);
        self.stun.refresh(now);
        self.update_descriptor(now);
        self.wake_at(self.stun.poll_timeout());
    }

    /// This machine was suspended, which no clock here shows: its mappings may be gone, and its peers may have given it up.
    pub fn handle_resume(&mut self, slept: Duration, now: Instant) {
        self.note_time(now);
        self.slept += slept;
        self.stun.refresh(now);
        for peer in self.peers.values_mut() {
            peer.handle_own_change(now);
        }
        self.wake_at(Some(now));
    }

    /// The peer left on purpose: it is forgotten, and stays so whatever the rendezvous still says.
    pub fn handle_goodbye(&mut self, peer: PeerId, now: Instant) {
        self.note_time(now);
        if self.gone.len() == MAX_GONE {
            self.gone.pop_first();
        }
        self.gone.insert(peer);
        if let Some(was) = self.peers.remove(&peer)
            && was.path().is_some()
        {
            self.out.tell(MeshEvent::PathDown { peer });
        }
        self.look_for_relays(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.note_time(now);
        self.handle_relays(now);
        let company = self.peers.values().any(|peer| peer.is_path_due(now));
        for peer in self.peers.values_mut() {
            peer.handle_timeout(now, company, &mut self.out);
        }
        let mut peers = self.peers.values();
        if self.next_relays.is_none() && peers.any(|peer| peer.needs_relay(now)) {
            self.look_for_relays(now);
        }
        self.serve_stun_wishes(now);
        self.stun.handle_timeout(now, &mut self.out);
        let peers = self.peers.values().filter_map(Peer::poll_timeout);
        self.timeout = peers
            .chain(self.stun.poll_timeout())
            .chain(self.next_relays)
            .min();
    }

    /// Returns the next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.forward_own();
        self.out.transmits.pop_front()
    }

    /// Returns what changed.
    pub fn poll_event(&mut self) -> Option<MeshEvent> {
        self.out.events.pop_front()
    }

    /// When to call `handle_timeout` at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// There is one primary.
    fn wants(&self, found: &Descriptor) -> bool {
        found.peer != self.own.peer
            && (found.role, self.own.role) != (Role::Primary, Role::Primary)
            && !self.gone.contains(&found.peer)
    }

    /// Of several runs of one node the newest counts; returns whether `found` is it. The others are forgotten.
    fn replace_ghosts(&mut self, found: &Descriptor) -> bool {
        let age = |d: &Descriptor| (d.start_ms, d.peer);
        let same_node = |d: &Descriptor| (d.role, &d.name) == (found.role, &found.name);
        let runs = || {
            let known = self.peers.values().map(Peer::descriptor);
            known.filter(|known| same_node(known) && known.peer != found.peer)
        };
        if runs().any(|known| age(known) > age(found)) {
            return false;
        }
        let ghosts: Vec<_> = runs().map(|ghost| ghost.peer).collect();
        for peer in ghosts {
            self.peers.remove(&peer);
            self.out.tell(MeshEvent::PathDown { peer });
            self.out.tell(MeshEvent::Forgotten { peer });
        }
        true
    }

    fn handle_stun(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) {
        if !self.stun.handle_response(from, bytes, now) {
            return;
        }
        self.note_time(now);
        self.update_descriptor(now);
        self.wake_at(self.stun.poll_timeout());
    }

    fn handle_probe(&mut self, (route, source): (Route, SocketAddr), bytes: &[u8], now: Instant) {
        let Some((sender, receiver)) = probe::addressees(bytes) else {
            return;
        };
        if receiver != probe::short_id(&self.own.peer) {
            return;
        }
        let Some(id) = self.peer_by_short_id(sender) else {
            return;
        };
        self.note_time(now);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let before = peer.path();
        if !peer.handle_probe((route, source), bytes, now, &mut self.out) {
            return;
        }
        let (after, seen) = (peer.path(), peer.observed());
        self.note_source(route, id);
        if before != after {
            self.look_for_relays(now);
        }
        // The peer sees this node where it has not published itself: either the mapping changed, or servers see another one.
        if seen.is_some_and(|seen| seen.since == now && !self.is_own(seen.addr)) {
            self.out.wants_stun = true;
        }
        self.serve_stun_wishes(now);
        self.wake_for(id);
    }

    fn peer_by_short_id(&self, short: ShortId) -> Option<PeerId> {
        let mut lowest = [0; 32];
        lowest[..short.len()].copy_from_slice(&short);
        let (id, _) = self.peers.range(PeerId(lowest)..).next()?;
        (probe::short_id(id) == short).then_some(*id)
    }

    /// Notices when this process was not run (frozen, suspended, starved): nobody else is to blame for that silence.
    fn note_time(&mut self, now: Instant) {
        let due = self.timeout.map_or(now, |due| due.max(self.last_input));
        self.last_input = self.last_input.max(now);
        let gap = now.saturating_duration_since(due);
        if gap <= STALL {
            return;
        }
        for peer in self.peers.values_mut() {
            peer.handle_stall(gap, now);
        }
        self.stun.refresh(now);
        self.wake_at(self.stun.poll_timeout());
    }

    fn serve_stun_wishes(&mut self, now: Instant) {
        if std::mem::take(&mut self.out.wants_stun) {
            self.stun.refresh(now);
            self.wake_at(self.stun.poll_timeout());
        }
    }

    /// A changed address or class is a new sequence number.
    fn update_descriptor(&mut self, now: Instant) {
        let candidates = self.own_candidates();
        let seen = self.stun.observations();
        let nat = seen.map_or(self.own.nat, |seen| nat::classify(&self.hosts, &seen));
        let moved = candidates != self.own.candidates;
        if !moved && nat == self.own.nat {
            return;
        }
        self.own.candidates = candidates;
        self.own.nat = nat;
        self.own.seq += 1;
        self.out.tell(MeshEvent::DescriptorChanged);
        self.note_hope(None, now);
        if moved {
            for peer in self.peers.values_mut() {
                peer.handle_own_change(now);
            }
            self.wake_at(Some(now));
        }
    }

    fn own_candidates(&self) -> Vec<Candidate> {
        let usable = |addr: &SocketAddr| nat::is_usable(*addr);
        let distinct: BTreeSet<_> = self.hosts.iter().copied().filter(usable).collect();
        let mapped = self.stun.mapped();
        let observed = self.observed();
        let candidate = |kind| move |addr: &SocketAddr| Candidate { kind, addr: *addr };
        let reflexive = mapped.difference(&distinct);
        let seen = observed
            .iter()
            .filter(|addr| usable(addr) && !distinct.contains(addr) && !mapped.contains(addr));
        let outside: Vec<_> = reflexive
            .map(candidate(CandidateKind::ServerReflexive))
            .chain(
                seen.take(MAX_OBSERVED)
                    .map(candidate(CandidateKind::PeerReflexive)),
            )
            .take(MAX_PUBLISHED)
            .collect();
        // A host of many containers has an address for each of their networks; without those by which others see it nobody finds it.
        let room = MAX_PUBLISHED - outside.len();
        let hosts = distinct.iter().map(candidate(CandidateKind::Host));
        hosts.take(room).chain(outside).collect()
    }

    fn is_own(&self, addr: SocketAddr) -> bool {
        self.own.candidates.iter().any(|own| own.addr == addr)
    }

    /// Where peers see this node (RFC 8445 section 7.2.5.3.1). What one of them sees holds for others only while mappings
    /// don't depend on the destination; then it differs from what STUN servers see where a null binding moved later flows.
    /// Neither an old mapping, nor a new one that servers have not been asked about yet, is such a difference.
    fn observed(&self) -> BTreeSet<SocketAddr> {
        if !matches!(
            self.own.nat,
            NatClass::Unknown | NatClass::EndpointIndependent
        ) {
            return BTreeSet::new();
        }
        let seen = self.peers.values().filter_map(Peer::observed);
        seen.filter(|seen| self.stun.covers(seen.since, seen.at))
            .map(|seen| seen.addr)
            .collect()
    }

    fn wake_for(&mut self, peer: PeerId) {
        self.wake_at(self.peers.get(&peer).and_then(Peer::poll_timeout));
    }

    fn wake_at(&mut self, at: Option<Instant>) {
        self.timeout = self.timeout.into_iter().chain(at).min();
    }
}

/// One mapping and one that moved are all that a port that is the same for everybody can have; more is noise.
const MAX_OBSERVED: usize = 4;
/// A loaded machine is late by tens of milliseconds; a second is a freeze.
const STALL: Duration = Duration::from_secs(1);
/// Far more than leave in one session; 32 KB.
const MAX_GONE: usize = 1_024;
