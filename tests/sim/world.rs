//! The virtual network: hosts, NAT boxes, packets in flight, and a rendezvous.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use distmesh::{
    mesh::{Datagram, Mesh, MeshConfig, MeshEvent, Route},
    session::{Descriptor, NodeName, PeerId, Role},
};

use crate::{
    nat::{Behaviour, NatBox, rng::Rng},
    stun_server,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostId(usize);
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NatId(usize);

/// What the network between all NATs does to a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    pub(crate) loss_per_mille: u64,
}

/// A datagram as its sender wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// The source as the receiver sees it.
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// What a node reported, and when.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Duration,
    pub(crate) node: HostId,
    pub(crate) event: MeshEvent,
}

pub(crate) struct World {
    pub(crate) weather: Weather,
    /// From publishing a descriptor until everybody has it; `None` while the rendezvous is out of order.
    pub(crate) rendezvous: Option<Duration>,
    pub(crate) log: Vec<Entry>,
    /// Everything that was sent, lost or not, while it is `Some`.
    pub(crate) capture: Option<Vec<Packet>>,
    rng: Rng,
    now: Instant,
    agenda: BTreeMap<(Instant, u64), Happening>,
    scheduled: u64,
    hosts: Vec<Host>,
    nats: Vec<NatBox>,
    stun: Vec<SocketAddr>,
    published: BTreeMap<PeerId, Descriptor>,
}

enum Happening {
    Arrival {
        packet: Packet,
        inside: Option<NatId>,
    },
    Visible(Descriptor),
    Fetch(HostId),
    Thaw(HostId),
    /// The machine goes on; what is in its second field has passed unseen.
    Resume(HostId, Duration),
    /// The program opens a fresh socket.
    Rebind(HostId),
}

struct Host {
    addrs: Vec<SocketAddr>,
    nat: Option<NatId>,
    body: Body,
    /// How far its clock is behind: it stood still while the machine was suspended.
    behind: Duration,
    /// While the process is stopped: what its socket has buffered.
    frozen: Option<VecDeque<Packet>>,
    /// Its cable is pulled.
    cut: bool,
}

enum Body {
    StunServer,
    Node {
        config: Box<MeshConfig>,
        mesh: Option<Box<Mesh>>,
    },
}

impl World {
    /// 20 ms from anywhere to anywhere, a rendezvous that takes a second, two STUN addresses.
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            weather: Weather {
                delay: Duration::from_millis(20),
                jitter: Duration::from_millis(5),
                loss_per_mille: 0,
            },
            rendezvous: Some(Duration::from_secs(1)),
            log: Vec::new(),
            capture: None,
            rng: Rng::new(seed),
            now: epoch(),
            agenda: BTreeMap::new(),
            scheduled: 0,
            hosts: Vec::new(),
            nats: Vec::new(),
            stun: Vec::new(),
            published: BTreeMap::new(),
        };
        let stun: Vec<SocketAddr> = ["192.0.2.1:3478", "198.51.100.1:3478"]
            .map(|addr| addr.parse().unwrap())
            .to_vec();
        world.stun.clone_from(&stun);
        world.add_host(stun, None, Body::StunServer);
        world
    }

    pub(crate) fn add_nat(&mut self, behaviour: Behaviour) -> NatId {
        let [high, low] = (1 + self.nats.len() as u16).to_be_bytes();
        let public = Ipv4Addr::new(203, 0, 113 + high, low);
        self.nats.push(NatBox::new(public.into(), behaviour));
        NatId(self.nats.len() - 1)
    }

    /// A node that is not running yet; behind every NAT the same private addresses are in use.
    pub(crate) fn add_node(&mut self, role: Role, nat: Option<NatId>) -> HostId {
        let neighbours = self.hosts.iter().filter(|host| host.nat == nat).count();
        let [high, low] = (2 + neighbours as u16).to_be_bytes();
        let ip = match nat {
            Some(_) => Ipv4Addr::new(10, 0, high, low),
            None => Ipv4Addr::new(100, 64, high, low),
        };
        let addr = SocketAddr::new(IpAddr::V4(ip), 5_000);
        let name: NodeName = format!("node-{}", self.hosts.len()).parse().unwrap();
        let config = Box::new(MeshConfig {
            me: PeerId(bytes(&mut self.rng)),
            role,
            name,
            start_ms: 0,
            stream_key: [0; 32],
            host_candidates: vec![addr],
            stun_servers: self.stun.clone(),
            seed: bytes(&mut self.rng),
        });
        self.add_host(vec![addr], nat, Body::Node { config, mesh: None })
    }

    /// A host of so many containers has an address in the network of each, which nobody else reaches.
    pub(crate) fn add_addresses(&mut self, node: HostId, count: u8) {
        let Body::Node { config, .. } = &mut self.hosts[node.0].body else {
            panic!("not a node");
        };
        let more = (1..=count).map(|n| SocketAddr::from(([172, 16, n, 1], 5_000)));
        config.host_candidates.extend(more);
    }

    /// The host joins a network that is laid over the others: it is quick, and drops what is longer than [`VPN_MTU`].
    pub(crate) fn join_vpn(&mut self, node: HostId) -> SocketAddr {
        let addr = SocketAddr::from(([VPN, 0, 0, 1 + node.0 as u8], 5_000));
        let host = &mut self.hosts[node.0];
        host.addrs.push(addr);
        match &mut host.body {
            Body::Node { config, .. } => config.host_candidates.push(addr),
            Body::StunServer => panic!("not a node"),
        }
        addr
    }

    /// Which of its addresses a host sends from.
    fn source(&self, host: HostId, to: SocketAddr) -> SocketAddr {
        let addrs = &self.hosts[host.0].addrs;
        let beside = addrs.iter().find(|own| is_vpn(**own) && is_vpn(to));
        *beside.unwrap_or(&addrs[0])
    }

    /// The process starts.
    pub(crate) fn start(&mut self, node: HostId) {
        let (now, start_ms) = (self.now, self.elapsed().as_millis() as u64);
        let Body::Node { config, mesh } = &mut self.hosts[node.0].body else {
            panic!("not a node");
        };
        config.start_ms = start_ms;
        *mesh = Some(Box::new(Mesh::new((**config).clone(), now)));
        self.publish(node);
        if let Some(delay) = self.rendezvous {
            self.schedule(delay, Happening::Fetch(node));
        }
        self.with_mesh(node, |mesh, now| mesh.handle_timeout(now));
    }

    /// The process dies and comes back as another: same label, new keys.
    pub(crate) fn restart(&mut self, node: HostId) {
        let (me, seed) = (PeerId(bytes(&mut self.rng)), bytes(&mut self.rng));
        if let Body::Node { config, .. } = &mut self.hosts[node.0].body {
            config.me = me;
            config.seed = seed;
        }
        self.start(node);
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - epoch()
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(next) = self.next_moment().filter(|next| *next <= end) {
            assert!(next >= self.now, "time runs forward");
            self.now = next;
            self.happen();
            self.wake_nodes();
        }
        self.now = end;
    }

    /// Runs until `done`, for `limit` at most; returns how long it took.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let start = self.elapsed();
        while !done(self) {
            if self.elapsed() - start >= limit {
                return None;
            }
            self.run_for(Duration::from_millis(10));
        }
        Some(self.elapsed() - start)
    }

    /// Both have a path to the other.
    pub(crate) fn are_connected(&self, a: HostId, b: HostId) -> bool {
        self.route(a, b).is_some() && self.route(b, a).is_some()
    }

    /// Both reach the other without a relay.
    pub(crate) fn are_direct(&self, a: HostId, b: HostId) -> bool {
        self.path(a, b).is_some() && self.path(b, a).is_some()
    }

    /// Both reach the other through a relay.
    pub(crate) fn are_relayed(&self, a: HostId, b: HostId) -> bool {
        let relayed = |from, to| self.route(from, to).and_then(Route::relay).is_some();
        relayed(a, b) && relayed(b, a)
    }

    /// The direct path.
    pub(crate) fn path(&self, from: HostId, to: HostId) -> Option<SocketAddr> {
        self.route(from, to)?.direct()
    }

    pub(crate) fn route(&self, from: HostId, to: HostId) -> Option<Route> {
        self.mesh(from).path(self.peer_id(to))
    }

    pub(crate) fn mesh(&self, node: HostId) -> &Mesh {
        match &self.hosts[node.0].body {
            Body::Node {
                mesh: Some(mesh), ..
            } => mesh,
            Body::Node { mesh: None, .. } | Body::StunServer => panic!("{node:?} is not running"),
        }
    }

    pub(crate) fn peer_id(&self, node: HostId) -> PeerId {
        match &self.hosts[node.0].body {
            Body::Node { config, .. } => config.me,
            Body::StunServer => panic!("{node:?} is not a node"),
        }
    }

    pub(crate) fn addr(&self, host: HostId) -> SocketAddr {
        self.hosts[host.0].addrs[0]
    }

    /// What a node reported since the world began.
    pub(crate) fn events_of(&self, node: HostId) -> impl Iterator<Item = &Entry> {
        self.log.iter().filter(move |entry| entry.node == node)
    }

    /// Stops a process for a while; its socket goes on buffering.
    pub(crate) fn freeze(&mut self, node: HostId, span: Duration) {
        self.hosts[node.0].frozen = Some(VecDeque::new());
        self.schedule(span, Happening::Thaw(node));
    }

    /// Suspends a machine: its clock stands still, and nothing is received.
    pub(crate) fn suspend(&mut self, node: HostId, span: Duration) {
        self.set_cut(node, true);
        self.hosts[node.0].frozen = Some(VecDeque::new());
        self.schedule(span, Happening::Resume(node, span));
    }

    /// Pulls a host's cable, or plugs it in again.
    pub(crate) fn set_cut(&mut self, host: HostId, cut: bool) {
        self.hosts[host.0].cut = cut;
    }

    /// A NAT with several public addresses.
    pub(crate) fn add_pool(&mut self, behaviour: Behaviour) -> NatId {
        let net = 100 + self.nats.len() as u8;
        let pool = (1..=4)
            .map(|last| Ipv4Addr::new(198, 18, net, last).into())
            .collect();
        self.nats.push(NatBox::with_pool(pool, behaviour));
        NatId(self.nats.len() - 1)
    }

    /// The NAT is another one from now on, and has forgotten all mappings.
    pub(crate) fn set_behaviour(&mut self, nat: NatId, behaviour: Behaviour) {
        self.nats[nat.0].behaviour = behaviour;
        self.wipe(nat);
    }

    /// The NAT forgets all mappings.
    pub(crate) fn wipe(&mut self, nat: NatId) {
        self.nats[nat.0].wipe();
    }

    /// A datagram comes in at a node, from whoever it claims to be.
    pub(crate) fn inject(&mut self, node: HostId, from: SocketAddr, bytes: &[u8]) -> bool {
        self.with_mesh(node, |mesh, now| {
            mesh.handle_datagram(from, bytes, now) == Datagram::Taken
        })
    }

    /// Calls one input of a node's mesh and sees to what comes of it.
    pub(crate) fn with_mesh<T>(
        &mut self,
        node: HostId,
        input: impl FnOnce(&mut Mesh, Instant) -> T,
    ) -> T {
        let now = self.now - self.hosts[node.0].behind;
        let Body::Node {
            mesh: Some(mesh), ..
        } = &mut self.hosts[node.0].body
        else {
            panic!("{node:?} is not running");
        };
        let result = input(mesh, now);
        let transmits: Vec<_> = std::iter::from_fn(|| mesh.poll_transmit()).collect();
        let events: Vec<_> = std::iter::from_fn(|| mesh.poll_event()).collect();
        for transmit in transmits {
            let from = self.source(node, transmit.to);
            match transmit.ttl {
                None => self.send(node, from, transmit.to, transmit.payload),
                Some(_) => self.send_near(node, from, transmit.to),
            }
        }
        for event in events {
            if event == MeshEvent::DescriptorChanged {
                self.publish(node);
            }
            if event == MeshEvent::Stuck {
                self.schedule(Duration::ZERO, Happening::Rebind(node));
            }
            let at = self.elapsed();
            self.log.push(Entry { at, node, event });
        }
        result
    }

    fn add_host(&mut self, addrs: Vec<SocketAddr>, nat: Option<NatId>, body: Body) -> HostId {
        self.hosts.push(Host {
            addrs,
            nat,
            body,
            behind: Duration::ZERO,
            frozen: None,
            cut: false,
        });
        HostId(self.hosts.len() - 1)
    }

    fn schedule(&mut self, delay: Duration, what: Happening) {
        self.scheduled += 1;
        let key = (self.now + delay, self.scheduled);
        self.agenda.insert(key, what);
    }

    /// Hands a node's descriptor to the rendezvous.
    pub(crate) fn publish(&mut self, node: HostId) {
        let descriptor = self.mesh(node).descriptor();
        if let Some(delay) = self.rendezvous {
            self.schedule(delay, Happening::Visible(descriptor));
        }
    }

    fn next_moment(&self) -> Option<Instant> {
        let agenda = self.agenda.keys().next().map(|(at, _)| *at);
        let timers = self.hosts.iter().filter_map(Host::poll_timeout);
        timers.chain(agenda).map(|at| at.max(self.now)).min()
    }

    fn happen(&mut self) {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            match entry.remove() {
                Happening::Arrival { packet, inside } => self.arrive(packet, inside),
                Happening::Visible(descriptor) => self.show(descriptor),
                Happening::Resume(node, span) => {
                    let host = &mut self.hosts[node.0];
                    host.behind += span;
                    host.frozen = None;
                    host.cut = false;
                    self.with_mesh(node, |mesh, now| mesh.handle_resume(span, now));
                }
                Happening::Rebind(node) => {
                    let addrs = &mut self.hosts[node.0].addrs;
                    for addr in &mut *addrs {
                        addr.set_port(addr.port() + 1);
                    }
                    let addrs = addrs.clone();
                    self.with_mesh(node, |mesh, now| mesh.handle_host_addresses(addrs, now));
                }
                Happening::Fetch(node) => {
                    for descriptor in self.published.values().cloned().collect::<Vec<_>>() {
                        self.give(node, descriptor);
                    }
                }
                Happening::Thaw(node) => {
                    // The socket's backlog is read before any timer is looked at: the harder order for the node.
                    for packet in self.hosts[node.0].frozen.take().unwrap_or_default() {
                        self.receive(node, packet);
                    }
                }
            }
        }
    }

    fn wake_nodes(&mut self) {
        for node in (0..self.hosts.len()).map(HostId) {
            if self.hosts[node.0]
                .poll_timeout()
                .is_some_and(|due| due <= self.now)
            {
                self.with_mesh(node, |mesh, now| mesh.handle_timeout(now));
                let next = self.hosts[node.0].poll_timeout();
                assert!(
                    next.is_none_or(|next| next > self.now),
                    "a timer stands still"
                );
            }
        }
    }

    fn show(&mut self, descriptor: Descriptor) {
        let known = self.published.get(&descriptor.peer);
        if known.is_some_and(|known| known.version() >= descriptor.version()) {
            return;
        }
        self.published.insert(descriptor.peer, descriptor.clone());
        for node in (0..self.hosts.len()).map(HostId) {
            self.give(node, descriptor.clone());
        }
    }

    fn give(&mut self, node: HostId, descriptor: Descriptor) {
        let host = &self.hosts[node.0];
        if host.is_running() && host.frozen.is_none() {
            let key = probe_key(self.peer_id(node), descriptor.peer);
            self.with_mesh(node, |mesh, now| {
                mesh.handle_descriptor(descriptor, key, now);
            });
        }
    }

    fn send(&mut self, host: HostId, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let Host { nat, cut, .. } = self.hosts[host.0];
        if is_vpn(to) {
            return self.send_over_vpn(Packet { from, to, bytes });
        }
        let neighbour = |other: &Host| other.nat == nat && other.addrs.contains(&to);
        let inside = nat.filter(|_| self.hosts.iter().any(neighbour));
        let from = match nat {
            Some(nat) if inside.is_none() => {
                self.nats[nat.0].outbound(from, to, self.now, &mut self.rng)
            }
            Some(_) | None => from,
        };
        let packet = Packet { from, to, bytes };
        if let Some(capture) = &mut self.capture {
            capture.push(packet.clone());
        }
        if cut || self.rng.per_mille(self.weather.loss_per_mille) {
            return;
        }
        let jitter = self.rng.below(self.weather.jitter.as_micros() as u64);
        let delay = self.weather.delay + Duration::from_micros(jitter);
        self.schedule(delay, Happening::Arrival { packet, inside });
    }

    fn send_over_vpn(&mut self, packet: Packet) {
        if let Some(capture) = &mut self.capture {
            capture.push(packet.clone());
        }
        let is_receiver = |host: &Host| host.addrs.contains(&packet.to);
        let receiver = self.hosts.iter().find(|host| is_receiver(host));
        if let (Some(Host { nat, .. }), ..=VPN_MTU) = (receiver, packet.bytes.len() + UDP_OVER_IPV4)
        {
            let inside = *nat;
            self.schedule(VPN_DELAY, Happening::Arrival { packet, inside });
        }
    }

    /// Opens the own NAT and dies behind it.
    fn send_near(&mut self, host: HostId, from: SocketAddr, to: SocketAddr) {
        let Host { nat, cut, .. } = self.hosts[host.0];
        if let Some(nat) = nat.filter(|_| !cut) {
            self.nats[nat.0].outbound(from, to, self.now, &mut self.rng);
        }
    }

    fn arrive(&mut self, packet: Packet, inside: Option<NatId>) {
        let to = packet.to;
        let direct = |host: &Host| host.nat == inside && host.addrs.contains(&to);
        if let Some(host) = self.hosts.iter().position(direct) {
            return self.receive(HostId(host), packet);
        }
        let Some(nat) = self.nats.iter().position(|nat| nat.pool.contains(&to.ip())) else {
            return;
        };
        let from_inside = self.nats[nat].pool.contains(&packet.from.ip());
        if from_inside && !self.nats[nat].behaviour.hairpin {
            return;
        }
        let Some(private) = self.nats[nat].inbound(packet.from, to, self.now) else {
            return;
        };
        let behind = |host: &Host| host.nat == Some(NatId(nat)) && host.addrs.contains(&private);
        if let Some(host) = self.hosts.iter().position(behind) {
            self.receive(HostId(host), packet);
        }
    }

    fn receive(&mut self, id: HostId, packet: Packet) {
        let host = &mut self.hosts[id.0];
        if host.cut {
            return;
        }
        if let Some(buffered) = &mut host.frozen {
            buffered.push_back(packet);
            return;
        }
        match &host.body {
            Body::StunServer => {
                if let Some(response) = stun_server::respond(packet.from, &packet.bytes) {
                    self.send(id, packet.to, packet.from, response);
                }
            }
            Body::Node { mesh: Some(_), .. } => {
                self.inject(id, packet.from, &packet.bytes);
            }
            Body::Node { mesh: None, .. } => {}
        }
    }
}

impl Host {
    fn is_running(&self) -> bool {
        matches!(self.body, Body::Node { mesh: Some(_), .. })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.body {
            Body::Node {
                mesh: Some(mesh), ..
            } if self.frozen.is_none() => Some(mesh.poll_timeout()? + self.behind),
            Body::Node { .. } | Body::StunServer => None,
        }
    }
}

/// Whether an address is of the network that is laid over the others.
fn is_vpn(addr: SocketAddr) -> bool {
    matches!(addr.ip(), IpAddr::V4(ip) if ip.octets()[0] == VPN)
}

/// The first byte of its addresses.
const VPN: u8 = 25;
/// Tailscale's.
const VPN_MTU: usize = 1_280;
const VPN_DELAY: Duration = Duration::from_millis(1);
const UDP_OVER_IPV4: usize = 28;

/// Both ends of a pair derive the same key; here it need not be secret, only theirs.
pub(crate) fn probe_key(a: PeerId, b: PeerId) -> [u8; 32] {
    std::array::from_fn(|i| a.0[i] ^ b.0[i] ^ 0x5a)
}

/// A key, or a seed.
pub(crate) fn bytes(rng: &mut Rng) -> [u8; 32] {
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&rng.next().to_be_bytes());
    }
    bytes
}

/// When every world begins.
pub(crate) fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do as the epoch"
    )]
    *EPOCH.get_or_init(Instant::now)
}
