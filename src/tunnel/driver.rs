//! The one loop that owns the socket, the mesh and every link.
//!
//! It waits for a batch of datagrams, a command, a stream that changed, or a deadline; handles that one thing; then drains
//! everything that followed from it. Nothing in it blocks, and no application task can make it wait.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::noise::rate_limiter::RateLimiter;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    StreamError, Tunnel, TunnelConfig, TunnelError, TunnelEvent,
    addresses::{AddressWatch, host_addresses},
    alarm::Alarm,
    link::{Link, LinkParts},
    socket::Socket,
    stream::{Stream, StreamKey},
    wireguard::{self, Addressee, Door},
};
use crate::{
    machine::clock::suspended,
    mesh::{Datagram, Mesh, MeshConfig, MeshEvent, is_full_probe},
    session::{Descriptor, Identity, PeerId, SessionKeys},
};

/// What the handles ask of the loop.
pub(super) enum Command {
    Found(Descriptor),
    Open(PeerId, oneshot::Sender<Result<Stream, StreamError>>),
    Forget(PeerId),
    Stop(String, oneshot::Sender<()>),
}

pub(super) struct Driver {
    identity: Identity,
    keys: Arc<SessionKeys>,
    bind: Option<SocketAddr>,
    socket: Socket,
    suspended: Duration,
    mesh: Mesh,
    limiter: Arc<RateLimiter>,
    door: Door,
    links: BTreeMap<PeerId, Link>,
    by_index: BTreeMap<u32, PeerId>,
    next_index: u32,
    next_tick: Instant,
    addresses: AddressWatch,
    commands: mpsc::UnboundedReceiver<Command>,
    changed: mpsc::UnboundedReceiver<StreamKey>,
    list: mpsc::UnboundedSender<StreamKey>,
    events: mpsc::UnboundedSender<TunnelEvent>,
    descriptor: watch::Sender<Descriptor>,
}

enum Input {
    Datagrams,
    Command(Option<Command>),
    Changed(StreamKey),
    Clock,
}

/// Binds the socket and starts the loop.
pub(super) fn start(
    config: TunnelConfig,
) -> Result<(Tunnel, mpsc::UnboundedReceiver<TunnelEvent>), TunnelError> {
    let socket = Socket::bind(config.bind).map_err(|source| TunnelError::Bind {
        addr: config.bind,
        source,
    })?;
    let local = socket.local_addr().map_err(|source| TunnelError::Bind {
        addr: config.bind,
        source,
    })?;
    let now = now();
    let mut mesh = Mesh::new(
        MeshConfig {
            me: config.identity.peer(),
            role: config.role,
            name: config.name,
            start_ms: config.start_ms,
            stream_key: config.identity.stream_public(),
            host_candidates: host_addresses(local),
            stun_servers: config.stun,
            seed: random_seed()?,
        },
        now,
    );
    mesh.handle_timeout(now);
    let (command, commands) = mpsc::unbounded_channel();
    let (list, changed) = mpsc::unbounded_channel();
    let (events, event) = mpsc::unbounded_channel();
    let (descriptor, described) = watch::channel(mesh.descriptor());
    let limiter = wireguard::rate_limiter(&config.identity);
    let driver = Driver {
        door: Door::new(&config.identity),
        identity: config.identity,
        keys: config.keys,
        bind: config.bind,
        socket,
        suspended: suspended(),
        mesh,
        limiter,
        links: BTreeMap::new(),
        by_index: BTreeMap::new(),
        next_index: 1,
        next_tick: now + TICK,
        addresses: AddressWatch::new(now),
        commands,
        changed,
        list,
        events,
        descriptor,
    };
    tokio::spawn(driver.run());
    Ok((
        Tunnel {
            command,
            described,
            local,
        },
        event,
    ))
}

impl Driver {
    async fn run(mut self) {
        let mut alarm = Alarm::new(now());
        loop {
            self.drain(now());
            self.socket.flush().await;
            alarm.set(self.deadline(), now());
            let input = tokio::select! {
                () = self.socket.readable() => Input::Datagrams,
                command = self.commands.recv() => Input::Command(command),
                Some(key) = self.changed.recv() => Input::Changed(key),
                () = alarm.rung() => Input::Clock,
            };
            let now = now();
            match input {
                Input::Datagrams => self.handle_datagrams(now),
                Input::Changed(key) => self.handle_changed(key, now),
                Input::Clock => {}
                Input::Command(Some(Command::Stop(reason, done))) => {
                    self.say_goodbye(&reason).await;
                    let _ = done.send(());
                    return;
                }
                Input::Command(Some(command)) => self.handle_command(command, now),
                // Every handle is gone.
                Input::Command(None) => return self.say_goodbye("the program ended").await,
            }
            self.handle_clock(now);
        }
    }

    fn handle_datagrams(&mut self, now: Instant) {
        let Self {
            socket,
            mesh,
            links,
            by_index,
            door,
            ..
        } = self;
        socket.receive(|from, datagram| {
            let Datagram::WireGuard(datagram) = mesh.handle_datagram(from, datagram, now) else {
                return;
            };
            let peer = match door.addressee(datagram) {
                Some(Addressee::Peer(peer)) => peer,
                Some(Addressee::Index(index)) => match by_index.get(&index) {
                    Some(peer) => *peer,
                    None => return,
                },
                None => return,
            };
            if links
                .get_mut(&peer)
                .is_some_and(|link| link.handle_datagram(from.ip(), datagram, now))
            {
                mesh.handle_traffic(peer, now);
            }
        });
        links.values_mut().for_each(|link| link.settle(now));
    }

    fn handle_changed(&mut self, first: StreamKey, now: Instant) {
        let mut key = Some(first);
        // A bound, so that busy streams cannot keep the loop from its socket.
        for _ in 0..CHANGES_AT_ONCE {
            let Some(changed) = key else { return };
            if let Some(link) = self.links.get_mut(&changed.peer) {
                link.handle_stream(changed, now);
            }
            key = self.changed.try_recv().ok();
        }
        if let Some(rest) = key {
            // Back on the list: the channel is ours, so it is open.
            let _ = self.list.send(rest);
        }
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Found(descriptor) => self.handle_descriptor(descriptor, now),
            Command::Open(peer, reply) => {
                let stream = self.links.get_mut(&peer).and_then(Link::open);
                // A caller that gave up drops the stream, and with it resets it.
                drop(reply.send(stream.ok_or(StreamError { peer })));
            }
            Command::Forget(peer) => {
                self.mesh.handle_goodbye(peer, now);
                self.remove(peer);
            }
            Command::Stop(..) => {}
        }
    }

    fn handle_descriptor(&mut self, found: Descriptor, now: Instant) {
        if found.peer == self.identity.peer() {
            return;
        }
        let Ok(pair) = self
            .keys
            .pair(self.identity.wireguard_private(), &found.peer)
        else {
            tracing::debug!(peer = %found.peer, "a descriptor with a weak key");
            return;
        };
        // Nodes of one role have no link, but may forward for each other.
        if found.role != self.mesh.descriptor().role && !self.links.contains_key(&found.peer) {
            let Ok(seed) = random_seed() else { return };
            let parts = LinkParts {
                me: &self.identity,
                pair: &pair,
                index: self.next_index,
                limiter: Arc::clone(&self.limiter),
                seed,
                changed: self.list.clone(),
            };
            let Ok(link) = Link::new(parts, &found) else {
                return;
            };
            self.by_index.insert(self.next_index, found.peer);
            // boringtun's indices have 24 bits; a node that meets so many peers has long ended.
            self.next_index = (self.next_index + 1) & 0x00ff_ffff;
            self.links.insert(found.peer, link);
        }
        if let Some(link) = self.links.get_mut(&found.peer) {
            link.note_descriptor(&found);
        }
        self.mesh.handle_descriptor(found, *pair.probe, now);
    }

    fn handle_clock(&mut self, now: Instant) {
        let suspended = suspended();
        let slept = suspended.saturating_sub(self.suspended);
        if slept > SUSPENDED {
            self.mesh.handle_resume(slept, now);
        }
        self.suspended = suspended;
        if self.mesh.poll_timeout().is_some_and(|due| due <= now) {
            self.mesh.handle_timeout(now);
        }
        for link in self.links.values_mut() {
            if link.poll_timeout().is_some_and(|due| due <= now) {
                link.handle_timeout(now);
            }
        }
        if self.next_tick <= now + TICK / 2 {
            self.limiter.reset_count();
            for (peer, link) in &mut self.links {
                link.note_rtt(self.mesh.rtt(*peer));
                link.tick();
            }
            self.next_tick = now + TICK;
        }
        if self.addresses.may_have_changed(now)
            && let Ok(local) = self.socket.local_addr()
        {
            self.mesh.handle_host_addresses(host_addresses(local), now);
        }
    }

    fn deadline(&mut self) -> Instant {
        let tick = (!self.links.is_empty()).then_some(self.next_tick);
        let links = self.links.values_mut().filter_map(Link::poll_timeout);
        links
            .chain(self.mesh.poll_timeout())
            .chain(tick)
            .fold(self.addresses.due(), Instant::min)
    }

    /// Passes on everything that followed from the last input.
    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.mesh.poll_event() {
            self.handle_mesh(event, now);
        }
        while let Some(transmit) = self.mesh.poll_transmit() {
            let (to, payload) = (transmit.to, &transmit.payload[..]);
            match transmit.ttl {
                None if is_full_probe(payload) => self.socket.queue_alone(to, payload),
                None => self.socket.queue(to, &[payload]),
                Some(ttl) => self.socket.send_near(to, payload, ttl),
            }
        }
        for (peer, link) in &mut self.links {
            send(&mut self.socket, &self.mesh, *peer, link);
            for event in link.take_events() {
                // Nobody listens while the program ends.
                drop(self.events.send(event));
            }
        }
        let departed = self
            .links
            .iter()
            .find(|(_, link)| link.has_departed())
            .map(|(peer, _)| *peer);
        if let Some(peer) = departed {
            self.mesh.handle_goodbye(peer, now);
            self.remove(peer);
            self.drain(now);
        }
    }

    fn handle_mesh(&mut self, event: MeshEvent, now: Instant) {
        let peer = match event {
            MeshEvent::DescriptorChanged => {
                self.descriptor.send_replace(self.mesh.descriptor());
                return;
            }
            MeshEvent::Stuck => return self.take_fresh_socket(now),
            MeshEvent::Unreachable { peer, .. }
            | MeshEvent::PathUp { peer, .. }
            | MeshEvent::PathMoved { peer, .. }
            | MeshEvent::PathSuspect { peer, .. }
            | MeshEvent::PathRecovered { peer }
            | MeshEvent::PathDown { peer }
            | MeshEvent::Forgotten { peer } => peer,
        };
        if let Some(link) = self.links.get_mut(&peer) {
            link.note_rtt(self.mesh.rtt(peer));
            link.handle_mesh(event, now);
        }
        let remotes = self
            .links
            .keys()
            .filter_map(|peer| self.mesh.path(*peer)?.direct());
        self.socket.link(remotes);
    }

    /// Another port is another mapping: what a NAT remembers of the old one is left behind.
    fn take_fresh_socket(&mut self, now: Instant) {
        if self.bind.is_some_and(|addr| addr.port() != 0) {
            return;
        }
        match Socket::bind(self.bind) {
            Ok(socket) => self.socket = socket,
            Err(error) => return tracing::warn!(%error, "no fresh socket"),
        }
        if let Ok(local) = self.socket.local_addr() {
            self.mesh.handle_host_addresses(host_addresses(local), now);
        }
    }

    fn remove(&mut self, peer: PeerId) {
        self.links.remove(&peer);
        self.by_index.retain(|_, owner| *owner != peer);
    }

    /// Closes every link. Sent twice, a little apart: one lost datagram must not cost the peer ten seconds.
    async fn say_goodbye(&mut self, reason: &str) {
        for _ in 0..2 {
            let now = now();
            for (peer, link) in &mut self.links {
                link.close(reason, now);
                send(&mut self.socket, &self.mesh, *peer, link);
            }
            self.socket.flush().await;
            tokio::time::sleep(GOODBYE_GAP).await;
        }
    }
}

/// Puts a link's datagrams on their way, straight or through a relay. The peer may have found its path first and shaken hands
/// already: until there is one here, the answer waits.
fn send(socket: &mut Socket, mesh: &Mesh, peer: PeerId, link: &mut Link) {
    if link.outgoing().is_empty() {
        return;
    }
    let Some((to, header)) = mesh.first_hop(peer) else {
        return link.hold_outgoing();
    };
    let outgoing = link.outgoing();
    for datagram in outgoing.iter() {
        match &header {
            None => socket.queue(to, &[datagram]),
            Some(header) => socket.queue(to, &[header, datagram]),
        }
    }
    outgoing.clear();
}

fn random_seed() -> Result<[u8; 32], TunnelError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| TunnelError::NoRandomness)?;
    Ok(seed)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a shell: the clock is read here and passed on"
)]
fn now() -> Instant {
    Instant::now()
}

/// Two readings of the clocks differ by microseconds.
const SUSPENDED: Duration = Duration::from_millis(500);

/// boringtun counts in seconds, from 5 on: an initiation is repeated here, not there. Whatever wakes the loop in the second half of one
/// will do.
const TICK: Duration = Duration::from_secs(1);

/// Streams served before the socket is looked at again.
const CHANGES_AT_ONCE: usize = 256;

const GOODBYE_GAP: Duration = Duration::from_millis(20);
