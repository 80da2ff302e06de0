//! The link to one peer: WireGuard, the streams inside, and the state of both.
//!
//! Time is an argument here; only boringtun below reads a clock of its own.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::noise::rate_limiter::RateLimiter;
use tokio::sync::mpsc;

use super::{
    Read, Side, StreamId, Streams, StreamsError, StreamsEvent, TunnelEvent, Written,
    attempts::Attempts,
    datagrams::Datagrams,
    stream::{DriverEnd, Stream, StreamKey, stream},
    wireguard::WireGuard,
};
use crate::{
    event::LinkState,
    mesh::{MeshEvent, Route},
    session::{Descriptor, Identity, NatClass, NodeName, PairKeys, PeerId, Role},
};

/// A link and its streams.
pub(super) struct Link {
    peer: PeerId,
    name: NodeName,
    role: Role,
    state: LinkState,
    route: Option<Route>,
    nat: NatClass,
    rtt: Option<Duration>,
    wireguard: WireGuard,
    streams: Streams,
    /// Counts connections, so that a handle of an old one is not taken for one of the new.
    generation: u64,
    ends: BTreeMap<StreamId, End>,
    changed: mpsc::UnboundedSender<StreamKey>,
    outgoing: Datagrams,
    /// What the streams have to send, before it is sealed.
    batch: Vec<u8>,
    /// The goodbye, before it is sealed.
    farewell: Vec<Vec<u8>>,
    /// Datagrams have come since the last [`Link::drive`].
    stirred: bool,
    events: Vec<TunnelEvent>,
    departed: bool,
    attempts: Attempts,
}

/// A stream as the driver sees it.
struct End {
    buffers: DriverEnd,
    sent_all: bool,
    received_all: bool,
}

/// What a link is made of.
pub(super) struct LinkParts<'a> {
    pub(super) me: &'a Identity,
    pub(super) pair: &'a PairKeys,
    pub(super) index: u32,
    pub(super) limiter: Arc<RateLimiter>,
    pub(super) seed: [u8; 32],
    pub(super) changed: mpsc::UnboundedSender<StreamKey>,
}

impl Link {
    pub(super) fn new(parts: LinkParts<'_>, peer: &Descriptor) -> Result<Self, StreamsError> {
        let wireguard = WireGuard::new(parts.me, peer.peer, parts.pair, parts.index, parts.limiter);
        let side = if wireguard.is_initiator() {
            Side::Client
        } else {
            Side::Server
        };
        let streams = Streams::new(side, parts.me, peer.stream_key, parts.seed)?;
        let mut link = Self {
            peer: peer.peer,
            name: peer.name.clone(),
            role: peer.role,
            state: LinkState::Down,
            route: None,
            nat: peer.nat,
            rtt: None,
            wireguard,
            streams,
            generation: 0,
            ends: BTreeMap::new(),
            changed: parts.changed,
            outgoing: Datagrams::default(),
            batch: Vec::new(),
            farewell: Vec::new(),
            stirred: false,
            events: Vec::new(),
            departed: false,
            attempts: Attempts::default(),
        };
        link.enter(LinkState::Punching, "its descriptor was found");
        Ok(link)
    }

    /// True once the peer said goodbye, or was started again under another key.
    pub(super) fn has_departed(&self) -> bool {
        self.departed
    }

    /// The peer published news of itself.
    pub(super) fn note_descriptor(&mut self, found: &Descriptor) {
        self.nat = found.nat;
    }

    pub(super) fn note_rtt(&mut self, rtt: Option<Duration>) {
        self.rtt = rtt.or(self.rtt);
    }

    /// The mesh has news of this peer's path.
    pub(super) fn handle_mesh(&mut self, event: MeshEvent, now: Instant) {
        match event {
            MeshEvent::PathUp { route, .. } => self.handle_path_up(route, now),
            MeshEvent::PathMoved { route, .. } => self.handle_path_moved(route),
            MeshEvent::PathSuspect { silent_for, .. } => self.handle_path_suspect(silent_for),
            MeshEvent::PathRecovered { .. } => self.handle_path_recovered(),
            MeshEvent::PathDown { .. } => self.handle_path_down(now),
            MeshEvent::Forgotten { .. } => self.departed = true,
            MeshEvent::Unreachable { obstacle, .. } => self.tell(&obstacle.to_string()),
            MeshEvent::DescriptorChanged | MeshEvent::Stuck => {}
        }
    }

    /// A path was proven, for the first time or again.
    fn handle_path_up(&mut self, route: Route, now: Instant) {
        self.route = Some(route);
        self.attempts.handle_path();
        self.enter(LinkState::Handshaking, "a path was found");
        self.wireguard.handle_path(now);
        self.drive(now);
    }

    /// There is a better way, or the old one failed; streams do not notice.
    fn handle_path_moved(&mut self, route: Route) {
        self.streams.handle_move();
        let was = self.route.replace(route).and_then(Route::relay);
        match (was, route.relay()) {
            (Some(_), None) => self.tell("a direct path was found"),
            (None, Some(_)) => self.tell("the direct path failed"),
            (Some(old), Some(new)) if old != new => self.tell("another relay is better"),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    /// The peer is silent.
    fn handle_path_suspect(&mut self, silent_for: Duration) {
        if self.state == LinkState::Up {
            self.enter(
                LinkState::Suspect,
                &format!("silent for {} s", silent_for.as_secs()),
            );
        }
    }

    /// The peer answers again.
    fn handle_path_recovered(&mut self) {
        if self.state == LinkState::Suspect {
            self.enter(LinkState::Up, "it answers again");
        }
    }

    /// The peer was silent for too long: its streams fail now, so that their jobs can go elsewhere.
    fn handle_path_down(&mut self, now: Instant) {
        self.route = None;
        self.break_streams();
        self.streams.abandon("the path went down", now);
        self.enter(LinkState::Down, "no answer on any path");
        self.outgoing.clear();
    }

    /// A WireGuard datagram; `true` when the peer really sent it. [`Link::settle`] comes after the last of several.
    pub(super) fn handle_datagram(&mut self, from: IpAddr, datagram: &[u8], now: Instant) -> bool {
        let opened = self.wireguard.open(from, datagram, &mut self.outgoing);
        if let Some(datagram) = opened.datagram {
            self.streams.handle_datagram(datagram, now);
        }
        let (authentic, initiates) = (opened.authentic, opened.initiates);
        let is_up = matches!(self.state, LinkState::Up | LinkState::Suspect);
        if initiates && is_up && self.wireguard.is_initiator() {
            // It should be ours to begin: the peer may have given up a connection, and what said so was lost.
            self.streams.ping();
        }
        self.stirred = true;
        authentic
    }

    /// All datagrams that had come were handled: streams move on and are acknowledged together.
    pub(super) fn settle(&mut self, now: Instant) {
        if std::mem::take(&mut self.stirred) {
            self.drive(now);
        }
    }

    /// Lets time pass.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let rtt = self.rtt.unwrap_or_default();
        self.wireguard.poll_initiation(now, rtt, &mut self.outgoing);
        self.attempts.handle_timeout(now);
        if self.streams.poll_timeout().is_some_and(|due| due <= now) {
            self.streams.handle_timeout(now);
        }
        self.drive(now);
    }

    /// Lets WireGuard's own clock do what is due.
    pub(super) fn tick(&mut self) {
        self.wireguard.tick(&mut self.outgoing);
    }

    /// Opens a stream; `None` while the link is not up or the peer allows no more.
    pub(super) fn open(&mut self) -> Option<Stream> {
        if !matches!(self.state, LinkState::Up | LinkState::Suspect) {
            return None;
        }
        let id = self.streams.open()?;
        Some(self.adopt(id))
    }

    /// A half of a stream changed something.
    pub(super) fn handle_stream(&mut self, key: StreamKey, now: Instant) {
        if key.generation == self.generation {
            self.pump(key.id);
            self.drive(now);
        }
    }

    /// Says goodbye, and says it again when it is called again: QUIC itself does so only where more comes from the peer.
    pub(super) fn close(&mut self, reason: &str, now: Instant) {
        self.streams.close(reason, now);
        self.break_streams();
        self.batch.clear();
        while let Some(segment) = self.streams.poll_transmit(now, &mut self.batch) {
            let datagrams = self.batch.chunks(segment).map(<[u8]>::to_vec);
            self.farewell.extend(datagrams);
            self.batch.clear();
        }
        for datagram in &self.farewell {
            self.wireguard.seal(datagram, &mut self.outgoing);
        }
    }

    /// What has to go to the peer, encrypted; to be cleared when it is on its way.
    pub(super) fn outgoing(&mut self) -> &mut Datagrams {
        &mut self.outgoing
    }

    /// There is no path yet: only the latest can be of use when there is one.
    pub(super) fn hold_outgoing(&mut self) {
        self.outgoing.keep_last(MAX_HELD);
    }

    pub(super) fn take_events(&mut self) -> Vec<TunnelEvent> {
        std::mem::take(&mut self.events)
    }

    /// When [`Link::handle_timeout`] is due.
    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        self.route?;
        self.wireguard
            .poll_timeout()
            .into_iter()
            .chain(self.streams.poll_timeout())
            .chain(self.attempts.poll_timeout())
            .min()
    }

    /// Moves everything on until nothing moves.
    fn drive(&mut self, now: Instant) {
        self.streams.flush();
        while let Some(event) = self.streams.poll_event() {
            self.handle_event(event, now);
            self.streams.flush();
        }
        // Only now: of a connection that has failed the end was seen.
        self.connect_if_ready(now);
        self.seal_all(now);
    }

    fn connect_if_ready(&mut self, now: Instant) {
        let ready = self.state == LinkState::Handshaking && self.wireguard.has_session();
        let may = self.attempts.may_begin() && !self.streams.is_opening();
        if ready && self.wireguard.is_initiator() && may {
            // A configuration that was fit to be made is fit to connect; if not, the next initiation tries again.
            drop(self.streams.connect(now));
        }
    }

    fn handle_event(&mut self, event: StreamsEvent, now: Instant) {
        match event {
            StreamsEvent::Connected => {
                self.generation += 1;
                self.attempts.handle_connected(now);
                self.wireguard.handle_connected();
                self.enter(LinkState::Up, "connected");
            }
            StreamsEvent::Opened(id) => {
                let stream = self.adopt(id);
                self.events.push(TunnelEvent::Incoming {
                    peer: self.peer,
                    stream,
                });
            }
            StreamsEvent::Readable(id) | StreamsEvent::Writable(id) => self.pump(id),
            StreamsEvent::Closed {
                reason,
                by_peer: true,
            } => {
                self.break_streams();
                self.departed = true;
                self.enter(LinkState::Down, &reason);
                self.events.push(TunnelEvent::PeerClosed {
                    peer: self.peer,
                    reason,
                });
            }
            StreamsEvent::Closed {
                reason,
                by_peer: false,
            } => {
                self.break_streams();
                let again = self.attempts.handle_closed(now);
                if self.attempts.are_in_vain() && self.wireguard.is_initiator() {
                    self.tell(&format!("it does not connect: {reason}"));
                }
                if self.route.is_some() {
                    self.enter(LinkState::Handshaking, &reason);
                    self.wireguard.handle_path(again);
                }
            }
        }
    }

    fn adopt(&mut self, id: StreamId) -> Stream {
        let key = StreamKey {
            peer: self.peer,
            generation: self.generation,
            id,
        };
        let (stream, buffers) = stream(key, self.changed.clone());
        self.ends.insert(
            id,
            End {
                buffers,
                sent_all: false,
                received_all: false,
            },
        );
        stream
    }

    /// Moves bytes between a stream's buffers and QUIC, both ways.
    fn pump(&mut self, id: StreamId) {
        let Some(end) = self.ends.get_mut(&id) else {
            return;
        };
        end.buffers.unlist();
        end.pump_out(id, &mut self.streams);
        end.pump_in(id, &mut self.streams);
        if end.sent_all && end.received_all {
            self.ends.remove(&id);
        }
    }

    fn break_streams(&mut self) {
        for end in std::mem::take(&mut self.ends).into_values() {
            end.buffers.break_off();
        }
        self.generation += 1;
    }

    fn seal_all(&mut self, now: Instant) {
        self.batch.clear();
        while let Some(segment) = self.streams.poll_transmit(now, &mut self.batch) {
            for datagram in self.batch.chunks(segment) {
                self.wireguard.seal(datagram, &mut self.outgoing);
            }
            self.batch.clear();
        }
    }

    fn enter(&mut self, state: LinkState, reason: &str) {
        if self.state == state {
            return;
        }
        self.state = state;
        self.tell(reason);
    }

    fn tell(&mut self, reason: &str) {
        self.events.push(TunnelEvent::Link {
            peer: self.peer,
            name: self.name.clone(),
            role: self.role,
            state: self.state,
            reason: reason.to_owned(),
            route: self.route,
            nat: self.nat,
            rtt: self.rtt,
        });
    }
}

impl End {
    fn pump_out(&mut self, id: StreamId, streams: &mut Streams) {
        let mut stopped = false;
        if !self.sent_all {
            self.buffers
                .send_with(|piece| match streams.write(id, piece) {
                    Written::Taken(taken) => Some(taken),
                    Written::Blocked => None,
                    Written::Stopped => {
                        stopped = true;
                        None
                    }
                });
            // A stop with nothing left to write is seen here.
            stopped |= streams.is_stopped(id);
        }
        let wishes = self.buffers.wishes();
        if !self.sent_all && stopped {
            self.buffers.refuse_output();
            streams.reset(id);
            self.sent_all = true;
        } else if !self.sent_all && wishes.reset {
            streams.reset(id);
            self.sent_all = true;
        } else if !self.sent_all && wishes.finish {
            streams.finish(id);
            self.sent_all = true;
        }
        if wishes.stop && !self.received_all {
            streams.stop(id);
            self.received_all = true;
        }
    }

    fn pump_in(&mut self, id: StreamId, streams: &mut Streams) {
        while !self.received_all {
            let room = self.buffers.room();
            if room == 0 {
                return;
            }
            let mut pieces = Vec::new();
            let read = streams.read(id, room, &mut pieces);
            self.buffers.deliver(pieces);
            match read {
                Read::Limited => {}
                Read::Blocked => return,
                Read::Finished => self.end_of_input(true),
                Read::Reset => self.end_of_input(false),
            }
        }
    }

    fn end_of_input(&mut self, complete: bool) {
        self.buffers.end_of_input(complete);
        self.received_all = true;
    }
}

/// A handshake's answer, and a few packets of the one that came after.
const MAX_HELD: usize = 8;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        session::{Secret, SessionKeys},
        tunnel::wireguard::rate_limiter,
    };

    /// Both ends of a link, and nothing between. boringtun has a clock of its own, all else has this.
    struct Pair {
        links: [Link; 2],
        now: Instant,
        told: Vec<String>,
        sent: u32,
    }

    /// The end that begins handshakes and connections, and the other.
    const FIRST: usize = 0;
    const SECOND: usize = 1;
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn pair() -> Pair {
        pair_with([None, None])
    }

    /// `pinned`: other keys than the peer's own, which the ends have from its descriptor.
    fn pair_with(pinned: [Option<[u8; 32]>; 2]) -> Pair {
        let secret = Secret::new("secret".into()).unwrap();
        let keys = SessionKeys::derive(&secret, &"s".parse().unwrap()).unwrap();
        let mut ends = [(); 2].map(|()| Identity::generate().unwrap());
        ends.sort_by_key(Identity::peer);
        let (changed, _) = mpsc::unbounded_channel();
        let link = |me: &Identity, it: &Identity, stream_key| {
            let index = u32::from(me.peer() > it.peer());
            let parts = LinkParts {
                me,
                pair: &keys.pair(me.wireguard_private(), &it.peer()).unwrap(),
                index,
                limiter: rate_limiter(me),
                seed: [index as u8; 32],
                changed: changed.clone(),
            };
            let descriptor = Descriptor {
                role: Role::Worker,
                name: "it".parse().unwrap(),
                start_ms: 0,
                seq: 1,
                peer: it.peer(),
                stream_key,
                candidates: Vec::new(),
                nat: NatClass::None,
            };
            Link::new(parts, &descriptor).unwrap()
        };
        let [first, second] = &ends;
        #[expect(
            clippy::disallowed_methods,
            reason = "virtual time has to begin somewhere"
        )]
        let now = Instant::now();
        let links = [
            link(
                first,
                second,
                pinned[FIRST].unwrap_or(second.stream_public()),
            ),
            link(
                second,
                first,
                pinned[SECOND].unwrap_or(first.stream_public()),
            ),
        ];
        Pair {
            links,
            now,
            told: Vec::new(),
            sent: 0,
        }
    }

    impl Pair {
        fn path_up(&mut self, end: usize) {
            let peer = self.links[end].peer;
            let route = Route::Direct("192.0.2.1:1".parse().unwrap());
            self.links[end].handle_mesh(MeshEvent::PathUp { peer, route }, self.now);
        }

        fn states(&self) -> [LinkState; 2] {
            [self.links[FIRST].state, self.links[SECOND].state]
        }

        fn run_for(&mut self, span: Duration) {
            let until = self.now + span;
            loop {
                self.exchange();
                let dues = self.links.iter_mut().filter_map(Link::poll_timeout);
                let Some(due) = dues.min().filter(|due| *due <= until) else {
                    break;
                };
                self.now = self.now.max(due);
                for link in &mut self.links {
                    if link.poll_timeout().is_some_and(|due| due <= self.now) {
                        link.handle_timeout(self.now);
                    }
                }
            }
            self.now = until;
        }

        /// Hands over what each end has for the other, until neither has anything.
        fn exchange(&mut self) {
            for _ in 0..1_000 {
                if self.links.iter_mut().all(|link| link.outgoing().is_empty()) {
                    return;
                }
                for from in [FIRST, SECOND] {
                    let outgoing = std::mem::take(self.links[from].outgoing());
                    for datagram in outgoing.iter() {
                        self.sent += 1;
                        self.links[1 - from].handle_datagram(HERE, datagram, self.now);
                    }
                    self.links[1 - from].settle(self.now);
                }
                for event in self.links.iter_mut().flat_map(Link::take_events) {
                    if let TunnelEvent::Link { reason, .. } = event {
                        self.told.push(reason);
                    }
                }
            }
            panic!("they never come to rest: {:?}", self.states());
        }
    }

    #[test]
    fn a_peer_that_will_not_connect_is_asked_less_and_less_and_that_is_said() {
        let other = Some([7; 32]);
        for pinned in [[other, None], [None, other]] {
            let mut pair = pair_with(pinned);
            for end in [FIRST, SECOND] {
                pair.path_up(end);
            }
            pair.run_for(Duration::from_secs(60));
            assert_eq!(pair.states(), [LinkState::Handshaking; 2]);
            let said = |reason: &String| reason.starts_with("it does not connect: ");
            assert!(pair.told.iter().any(said), "{:?}", pair.told);
            assert!(pair.sent < 60, "{} datagrams in a minute", pair.sent);
        }
    }

    #[test]
    fn a_connection_that_one_end_has_given_up_unheard_is_replaced_when_that_end_initiates() {
        let mut pair = pair();
        for end in [FIRST, SECOND] {
            pair.path_up(end);
        }
        pair.run_for(Duration::from_secs(5));
        assert_eq!(pair.states(), [LinkState::Up; 2]);
        let before = pair.links[FIRST].generation;
        let peer = pair.links[SECOND].peer;
        pair.links[SECOND].handle_mesh(MeshEvent::PathDown { peer }, pair.now);
        pair.path_up(SECOND);
        pair.links[SECOND].outgoing().clear();
        assert_eq!(pair.states(), [LinkState::Up, LinkState::Handshaking]);
        pair.run_for(RESPONDERS_PATIENCE * 2);
        assert_eq!(pair.states(), [LinkState::Up; 2]);
        assert_ne!(pair.links[FIRST].generation, before, "the old connection");
    }

    /// The responder begins after 5 s (`wireguard.rs`).
    const RESPONDERS_PATIENCE: Duration = Duration::from_secs(5);
}
