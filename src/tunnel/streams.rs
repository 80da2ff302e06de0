//! Streams to one peer: a QUIC endpoint (RFC 9000) that has exactly one connection. Pure.
//!
//! WireGuard below encrypts, authenticates and roams; QUIC gives ordered streams that do not block each other, flow control
//! and loss recovery. Its addresses are made up: a change of path is invisible here.

use std::{
    collections::VecDeque,
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint,
    EndpointConfig, EndpointEvent, Event, FinishError, IdleTimeout, Incoming, MtuDiscoveryConfig,
    ServerConfig, StreamEvent, TransportConfig, VarInt, WriteError,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

pub use quinn_proto::StreamId;

use super::{congestion::LossTolerantFactory, pinned::Pins};
use crate::session::Identity;

/// Which side opens the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Opens it.
    Client,
    /// Waits for it.
    Server,
}

/// All streams to one peer.
pub struct Streams {
    endpoint: Endpoint,
    client: Option<ClientConfig>,
    connection: Option<(ConnectionHandle, Connection)>,
    congestion: Arc<LossTolerantFactory>,
    /// Answers to datagrams that belong to no connection.
    responses: VecDeque<Vec<u8>>,
    /// Where datagrams are copied to, one behind the other: QUIC keeps the parts that it needs.
    arrivals: BytesMut,
    events: VecDeque<StreamsEvent>,
}

/// What happened to the streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamsEvent {
    /// Streams can be opened now.
    Connected,
    /// The peer opened a stream.
    Opened(StreamId),
    /// There may be something to read: bytes, the end, or a reset.
    Readable(StreamId),
    /// There may be room to write, or the peer stopped reading.
    Writable(StreamId),
    /// The connection is over, and all its streams with it.
    Closed {
        /// Why, in words.
        reason: String,
        /// The peer said goodbye, as opposed to having vanished.
        by_peer: bool,
    },
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// At the limit: there may be more.
    Limited,
    /// Nothing more yet; [`StreamsEvent::Readable`] will tell.
    Blocked,
    /// The peer wrote all it had to.
    Finished,
    /// The peer gave up, or the stream or connection is gone.
    Reset,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// So many bytes were taken.
    Taken(usize),
    /// None were; [`StreamsEvent::Writable`] will tell.
    Blocked,
    /// The peer does not want more, or the stream or connection is gone.
    Stopped,
}

/// Streams that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the stream layer: {0}")]
pub struct StreamsError(String);

impl Streams {
    /// Prepares one side. The peer has to prove `peer_key`, the key of its sealed descriptor.
    pub fn new(
        side: Side,
        me: &Identity,
        peer_key: [u8; 32],
        seed: [u8; 32],
    ) -> Result<Self, StreamsError> {
        let pkcs8 = me.stream_pkcs8();
        let pins = Pins {
            own_pkcs8: &pkcs8,
            own_public: me.stream_public(),
            peer_public: peer_key,
        };
        let failed = |error: &dyn std::fmt::Display| StreamsError(error.to_string());
        let congestion = Arc::new(LossTolerantFactory::default());
        let transport = Arc::new(transport(congestion.clone()));
        let (mut client, mut server) = (None, None);
        match side {
            Side::Client => {
                let tls =
                    QuicClientConfig::try_from(pins.client().map_err(|error| failed(&error))?);
                let mut config = ClientConfig::new(Arc::new(tls.map_err(|error| failed(&error))?));
                config.transport_config(transport);
                client = Some(config);
            }
            Side::Server => {
                let tls =
                    QuicServerConfig::try_from(pins.server().map_err(|error| failed(&error))?);
                let mut config =
                    ServerConfig::with_crypto(Arc::new(tls.map_err(|error| failed(&error))?));
                config.transport_config(transport).migration(false);
                server = Some(Arc::new(config));
            }
        }
        let endpoint = Endpoint::new(
            Arc::new(EndpointConfig::default()),
            server,
            false,
            Some(seed),
        );
        Ok(Self {
            endpoint,
            client,
            connection: None,
            congestion,
            responses: VecDeque::new(),
            arrivals: BytesMut::new(),
            events: VecDeque::new(),
        })
    }

    /// Opens the connection, in place of one that may still stand. The server side waits instead.
    pub fn connect(&mut self, now: Instant) -> Result<(), StreamsError> {
        let Some(config) = self.client.clone() else {
            return Ok(());
        };
        self.forget();
        let opened = self.endpoint.connect(now, config, PEER, SERVER_NAME);
        self.connection = Some(opened.map_err(|error| StreamsError(error.to_string()))?);
        Ok(())
    }

    /// Datagrams take another path from now on, longer or shorter.
    pub fn handle_move(&self) {
        self.congestion.handle_move();
    }

    /// True once streams can be opened.
    pub fn is_connected(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|(_, connection)| !connection.is_handshaking() && !connection.is_closed())
    }

    /// True while there is a connection, or an attempt at one.
    pub fn is_opening(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|(_, connection)| !connection.is_closed())
    }

    /// True when the peer no longer reads what is written to the stream, or the stream is gone.
    pub fn is_stopped(&mut self, stream: StreamId) -> bool {
        let Some((_, connection)) = &mut self.connection else {
            return true;
        };
        !matches!(connection.send_stream(stream).stopped(), Ok(None))
    }

    /// Takes a datagram from the peer. Call [`Streams::flush`] after the last of several: all of them are acknowledged together.
    pub fn handle_datagram(&mut self, datagram: &[u8], now: Instant) {
        let mut response = Vec::new();
        if self.arrivals.capacity() < datagram.len() {
            self.arrivals.reserve(ARRIVALS.max(datagram.len()));
        }
        self.arrivals.extend_from_slice(datagram);
        let copy = self.arrivals.split();
        let event = self
            .endpoint
            .handle(now, PEER, None, None, copy, &mut response);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some((current, connection)) = &mut self.connection
                    && *current == handle
                {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(incoming, now),
            Some(DatagramEvent::Response(transmit)) => {
                self.responses.push_back(response[..transmit.size].to_vec());
            }
            None => {}
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, connection)) = &mut self.connection {
            connection.handle_timeout(now);
        }
    }

    /// Opens a stream; `None` when there is no connection, or the peer allows no more streams at once.
    pub fn open(&mut self) -> Option<StreamId> {
        if !self.is_connected() {
            return None;
        }
        self.connection.as_mut()?.1.streams().open(Dir::Bi)
    }

    /// Writes what fits, and takes it off the piece.
    pub fn write(&mut self, stream: StreamId, piece: &mut Bytes) -> Written {
        let Some((_, connection)) = &mut self.connection else {
            return Written::Stopped;
        };
        let mut stream = connection.send_stream(stream);
        match stream.write_chunks(std::slice::from_mut(piece)) {
            Ok(written) => Written::Taken(written.bytes),
            Err(WriteError::Blocked) => Written::Blocked,
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => Written::Stopped,
        }
    }

    /// Says that nothing more will be written; `false` when the peer had stopped reading.
    pub fn finish(&mut self, stream: StreamId) -> bool {
        let Some((_, connection)) = &mut self.connection else {
            return false;
        };
        match connection.send_stream(stream).finish() {
            Ok(()) => true,
            Err(FinishError::Stopped(_) | FinishError::ClosedStream) => false,
        }
    }

    /// Gives up writing: the peer learns that what it has is not all.
    pub fn reset(&mut self, stream: StreamId) {
        if let Some((_, connection)) = &mut self.connection {
            // Already finished and acknowledged, or reset by a stop: nothing is left to give up.
            drop(connection.send_stream(stream).reset(GAVE_UP));
        }
    }

    /// Gives up reading: the peer need not write more.
    pub fn stop(&mut self, stream: StreamId) {
        if let Some((_, connection)) = &mut self.connection {
            // Already at its end: nothing is left to stop.
            drop(connection.recv_stream(stream).stop(GAVE_UP));
        }
    }

    /// Reads up to `limit` bytes.
    pub fn read(&mut self, stream: StreamId, limit: usize, pieces: &mut Vec<Bytes>) -> Read {
        let Some((_, connection)) = &mut self.connection else {
            return Read::Reset;
        };
        let mut stream = connection.recv_stream(stream);
        let Ok(mut chunks) = stream.read(true) else {
            return Read::Reset;
        };
        let mut left = limit;
        let read = loop {
            if left == 0 {
                break Read::Limited;
            }
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    pieces.push(chunk.bytes);
                }
                Ok(None) => break Read::Finished,
                Err(quinn_proto::ReadError::Blocked) => break Read::Blocked,
                Err(quinn_proto::ReadError::Reset(_)) => break Read::Reset,
            }
        };
        // Whether credit has to be sent is seen when datagrams are made, which follows every input.
        let _ = chunks.finalize();
        read
    }

    /// Says goodbye: this node leaves the session.
    pub fn close(&mut self, reason: &str, now: Instant) {
        self.end(GOODBYE, reason, now);
    }

    /// Gives this connection up; the peer, if it ever hears of it, begins a new one.
    pub fn abandon(&mut self, reason: &str, now: Instant) {
        self.end(ABANDONED, reason, now);
    }

    /// Finds out whether the peer still has this connection: one that has forgotten it resets it.
    pub fn ping(&mut self) {
        if let Some((_, connection)) = &mut self.connection {
            connection.ping();
        }
    }

    fn end(&mut self, code: VarInt, reason: &str, now: Instant) {
        if let Some((_, connection)) = &mut self.connection {
            connection.close(now, code, Bytes::copy_from_slice(reason.as_bytes()));
        }
    }

    /// Writes the next datagrams to the peer into an empty buffer: several of the size that it returns, the last perhaps shorter.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<usize> {
        if let Some(response) = self.responses.pop_front() {
            buffer.extend(&response);
            return Some(response.len());
        }
        let (_, connection) = self.connection.as_mut()?;
        let transmit = connection.poll_transmit(now, BATCH, buffer)?;
        Some(transmit.segment_size.unwrap_or(transmit.size))
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<StreamsEvent> {
        self.events.pop_front()
    }

    /// When [`Streams::handle_timeout`] is due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.connection.as_mut()?.1.poll_timeout()
    }

    fn accept(&mut self, incoming: Incoming, now: Instant) {
        let mut response = Vec::new();
        match self.endpoint.accept(incoming, now, &mut response, None) {
            // A peer that connects anew has lost the old connection: so have we.
            Ok(accepted) => {
                if self.forget() {
                    let reason = "the peer connected anew".to_owned();
                    self.events.push_back(StreamsEvent::Closed {
                        reason,
                        by_peer: false,
                    });
                }
                self.connection = Some(accepted);
            }
            Err(refused) => {
                if let Some(transmit) = refused.response {
                    self.responses.push_back(response[..transmit.size].to_vec());
                }
            }
        }
    }

    /// Drops the connection, and what the endpoint knows of it; `false` where there is none.
    fn forget(&mut self) -> bool {
        let Some((handle, _)) = self.connection.take() else {
            return false;
        };
        self.endpoint.handle_event(handle, EndpointEvent::drained());
        true
    }

    /// Finds out what followed from the last inputs.
    pub fn flush(&mut self) {
        let Some((handle, connection)) = &mut self.connection else {
            return;
        };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            translate(event, connection, &mut self.events);
        }
        if connection.is_drained() {
            self.connection = None;
        }
    }
}

fn translate(event: Event, connection: &mut Connection, events: &mut VecDeque<StreamsEvent>) {
    match event {
        Event::Connected => events.push_back(StreamsEvent::Connected),
        Event::ConnectionLost { reason } => {
            let (reason, by_peer) = if let ConnectionError::ApplicationClosed(close) = &reason {
                let said = String::from_utf8_lossy(&close.reason).into_owned();
                (said, close.error_code == GOODBYE)
            } else {
                (reason.to_string(), false)
            };
            events.push_back(StreamsEvent::Closed { reason, by_peer });
        }
        Event::Stream(StreamEvent::Opened { dir }) => {
            while let Some(stream) = connection.streams().accept(dir) {
                events.push_back(StreamsEvent::Opened(stream));
                events.push_back(StreamsEvent::Readable(stream));
            }
        }
        Event::Stream(StreamEvent::Readable { id }) => events.push_back(StreamsEvent::Readable(id)),
        Event::Stream(StreamEvent::Writable { id } | StreamEvent::Stopped { id, .. }) => {
            events.push_back(StreamsEvent::Writable(id));
        }
        Event::Stream(StreamEvent::Finished { .. } | StreamEvent::Available { .. })
        | Event::HandshakeDataReady
        | Event::DatagramReceived
        | Event::DatagramsUnblocked => {}
    }
}

fn transport(congestion: Arc<LossTolerantFactory>) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(LARGEST_MTU);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .initial_mtu(SAFE_MTU)
        .min_mtu(SAFE_MTU)
        .mtu_discovery_config(Some(discovery))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(
            IDLE.as_millis() as u32
        ))))
        .keep_alive_interval(Some(IDLE / 3))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(congestion);
    config
}

/// As many datagrams are made at once as the socket sends at once.
const BATCH: usize = 32;

/// Holds a few dozen datagrams: large enough to be allocated seldom, small enough that a part which waits for a lost one keeps
/// little else.
const ARRIVALS: usize = 32 << 10;

/// Stands for the peer: QUIC wants an address, WireGuard has the real one.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 1);

/// TLS wants a name; the pinned key is what counts.
const SERVER_NAME: &str = "distmesh";

/// More jobs than any worker has slots (distccd takes 200 at most), with room for cancelled ones.
const MAX_STREAMS: u32 = 1024;

/// What a stream may have on its way. A lost datagram holds up all that came after it for two round trips: at 20 ms and 1 % loss
/// 2 MiB carried 350 Mbit/s and 8 MiB carry 960, also where the kernel's receive buffer is the stock one. Memory is taken only
/// by what waits for a lost datagram or for a slow reader.
const STREAM_WINDOW: u32 = 8 << 20;
/// One stream that nobody reads leaves half of it to the others.
const CONNECTION_WINDOW: u32 = 2 * STREAM_WINDOW;

/// Passes wherever 1,400 bytes do (containers in VXLAN, PPPoE, tunnels), relayed and over IPv6 too: 1,280 bytes, the least that
/// IPv6 asks of a link, less an inner IPv6 and UDP header.
const SAFE_MTU: u16 = 1232;
/// A path has proven that it carries such a datagram, in an inner packet's headers and WireGuard's.
const _: () = assert!(SAFE_MTU as usize + 48 + 32 == crate::mesh::FULL_PROBE);
/// What an Ethernet frame holds beside the outer headers, WireGuard's 32 bytes, a relay's 20, and the inner headers. Whether it
/// passes is found out (RFC 8899); a path that drops the larger ones falls back.
const LARGEST_MTU: u16 = 1352;

/// The mesh judges liveness; this only clears away what it forgot. A compile may well be silent for longer, and a session idle: so QUIC
/// says something thrice meanwhile.
const IDLE: Duration = Duration::from_secs(600);

const GAVE_UP: VarInt = VarInt::from_u32(1);
const GOODBYE: VarInt = VarInt::from_u32(0);
/// QUIC repeats a close for as long as the peer sends: one for a path that failed is heard when the path is back, and must not be
/// taken for a goodbye.
const ABANDONED: VarInt = VarInt::from_u32(1);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Two ends and the way between them, in virtual time.
    struct Pair {
        ends: [Streams; 2],
        now: Instant,
        wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
        sent: u64,
        delay: Duration,
        /// Every so many datagrams one is lost; 0 for none.
        lose_every: u64,
    }

    const CLIENT: usize = 0;
    const SERVER: usize = 1;

    fn identity(seed: u8) -> Identity {
        Identity::from_seeds([seed; 32], [seed + 1; 32]).unwrap()
    }

    fn pair_with(client_expects: [u8; 32], server_expects: [u8; 32]) -> Pair {
        let client = Streams::new(Side::Client, &identity(1), client_expects, [1; 32]).unwrap();
        let server = Streams::new(Side::Server, &identity(5), server_expects, [2; 32]).unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "virtual time has to begin somewhere"
        )]
        let now = Instant::now();
        let delay = Duration::from_millis(10);
        Pair {
            ends: [client, server],
            now,
            wire: BTreeMap::new(),
            sent: 0,
            delay,
            lose_every: 0,
        }
    }

    fn pair() -> Pair {
        pair_over(Duration::from_millis(10))
    }

    fn pair_over(delay: Duration) -> Pair {
        let mut pair = pair_with(identity(5).stream_public(), identity(1).stream_public());
        pair.delay = delay;
        pair.ends[CLIENT].connect(pair.now).unwrap();
        pair.run_for(delay * 20);
        assert_eq!(
            pair.ends[CLIENT].poll_event(),
            Some(StreamsEvent::Connected)
        );
        assert_eq!(
            pair.ends[SERVER].poll_event(),
            Some(StreamsEvent::Connected)
        );
        pair
    }

    impl Pair {
        fn collect(&mut self) {
            for from in [CLIENT, SERVER] {
                self.ends[from].flush();
                let mut batch = Vec::new();
                while let Some(segment) = self.ends[from].poll_transmit(self.now, &mut batch) {
                    for datagram in batch.chunks(segment) {
                        self.sent += 1;
                        if self.lose_every == 0 || !self.sent.is_multiple_of(self.lose_every) {
                            let arrival = (self.now + self.delay, self.sent);
                            self.wire.insert(arrival, (1 - from, datagram.to_vec()));
                        }
                    }
                    batch.clear();
                }
            }
        }

        /// Performs the next thing that is due; `false` when nothing is due before `until`.
        fn step(&mut self, until: Instant) -> bool {
            self.collect();
            let arrival = self.wire.keys().next().map(|(at, _)| *at);
            let timers = [self.ends[0].poll_timeout(), self.ends[1].poll_timeout()];
            let next = arrival
                .into_iter()
                .chain(timers.into_iter().flatten())
                .min();
            let Some(at) = next.filter(|at| *at <= until) else {
                return false;
            };
            self.now = self.now.max(at);
            for end in &mut self.ends {
                if end.poll_timeout().is_some_and(|due| due <= self.now) {
                    end.handle_timeout(self.now);
                }
            }
            while let Some(entry) = self
                .wire
                .first_entry()
                .filter(|entry| entry.key().0 <= self.now)
            {
                let (to, datagram) = entry.remove();
                self.ends[to].handle_datagram(&datagram, self.now);
            }
            true
        }

        fn run_for(&mut self, time: Duration) {
            let until = self.now + time;
            while self.step(until) {}
            self.now = until;
        }

        /// Sends `bytes` on a stream from one end and returns what the other end reads, up to the end of the stream.
        fn transfer(&mut self, from: usize, stream: StreamId, bytes: &[u8]) -> Vec<u8> {
            let mut unwritten = Bytes::copy_from_slice(bytes);
            let (mut finished, mut received) = (false, Vec::new());
            let until = self.now + Duration::from_secs(60);
            loop {
                while let Written::Taken(1..) = self.ends[from].write(stream, &mut unwritten) {}
                if unwritten.is_empty() && !finished {
                    finished = self.ends[from].finish(stream);
                }
                loop {
                    let mut pieces = Vec::new();
                    let read = self.ends[1 - from].read(stream, 64 << 10, &mut pieces);
                    pieces.iter().for_each(|piece| received.extend(piece));
                    match read {
                        Read::Limited => {}
                        Read::Finished => return received,
                        // A stream that the peer has not heard of yet reads as reset.
                        Read::Blocked | Read::Reset => break,
                    }
                }
                assert!(
                    self.step(until),
                    "stuck with {} of {} bytes",
                    received.len(),
                    bytes.len()
                );
            }
        }
    }

    fn noise(len: usize) -> Vec<u8> {
        (0..len as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect()
    }

    #[test]
    fn a_job_goes_up_and_its_answer_comes_down() {
        let mut pair = pair();
        let stream = pair.ends[CLIENT].open().unwrap();
        assert!(pair.transfer(CLIENT, stream, &noise(250_000)) == noise(250_000));
        assert!(pair.transfer(SERVER, stream, &noise(100_000)) == noise(100_000));
    }

    #[test]
    fn three_megabytes_arrive_whole_when_every_fiftieth_datagram_is_lost() {
        let mut pair = pair();
        pair.lose_every = 50;
        let stream = pair.ends[CLIENT].open().unwrap();
        let began = pair.now;
        assert!(pair.transfer(CLIENT, stream, &noise(3 << 20)) == noise(3 << 20));
        let took = pair.now - began;
        assert!(
            took < Duration::from_secs(3),
            "{took:?} of virtual time at 2 % loss and 20 ms"
        );
    }

    #[test]
    fn a_transfer_on_a_longer_path_is_as_quick_as_if_the_link_had_begun_there() {
        let long = Duration::from_millis(60);
        // Long enough for a window that shrinks to be at its floor in the end.
        let last_of_many = |pair: &mut Pair| {
            let mut took = Duration::ZERO;
            for _ in 0..16 {
                let (stream, began) = (pair.ends[CLIENT].open().unwrap(), pair.now);
                assert!(pair.transfer(CLIENT, stream, &noise(2 << 20)) == noise(2 << 20));
                took = pair.now - began;
            }
            took
        };
        let begun = last_of_many(&mut pair_over(long));
        let mut pair = pair();
        last_of_many(&mut pair);
        pair.delay = long;
        pair.ends.iter().for_each(Streams::handle_move);
        let moved = last_of_many(&mut pair);
        assert!(moved <= begun * 3 / 2, "{moved:?} instead of {begun:?}");
    }

    #[test]
    fn what_arrives_together_is_acknowledged_together() {
        let mut pair = pair();
        let stream = pair.ends[CLIENT].open().unwrap();
        pair.ends[CLIENT].write(stream, &mut Bytes::from(noise(20_000)));
        let (mut batch, mut sent) = (Vec::new(), 0);
        while let Some(segment) = pair.ends[CLIENT].poll_transmit(pair.now, &mut batch) {
            for datagram in batch.chunks(segment) {
                pair.ends[SERVER].handle_datagram(datagram, pair.now);
                sent += 1;
            }
            batch.clear();
        }
        pair.ends[SERVER].flush();
        let answer = pair.ends[SERVER].poll_transmit(pair.now, &mut batch);
        assert!(sent > 10 && answer == Some(batch.len()), "{sent} datagrams");
        batch.clear();
        assert_eq!(pair.ends[SERVER].poll_transmit(pair.now, &mut batch), None);
    }

    #[test]
    fn a_writer_that_is_not_read_is_held_back() {
        let mut pair = pair();
        let stream = pair.ends[CLIENT].open().unwrap();
        let mut taken = 0;
        for _ in 0..200 {
            while let Written::Taken(n @ 1..) =
                pair.ends[CLIENT].write(stream, &mut Bytes::from(noise(64 << 10)))
            {
                taken += n;
            }
            pair.run_for(Duration::from_millis(20));
        }
        assert!(
            taken <= (STREAM_WINDOW + CONNECTION_WINDOW) as usize,
            "{taken} bytes are buffered"
        );
    }

    #[test]
    fn a_reset_and_a_stop_reach_the_other_side_in_one_trip() {
        let mut pair = pair();
        let stream = pair.ends[CLIENT].open().unwrap();
        assert_eq!(
            pair.ends[CLIENT].write(stream, &mut Bytes::from_static(b"half a job")),
            Written::Taken(10)
        );
        pair.run_for(Duration::from_millis(15));
        assert_eq!(
            pair.ends[SERVER].poll_event(),
            Some(StreamsEvent::Opened(stream))
        );
        pair.ends[CLIENT].reset(stream);
        pair.ends[CLIENT].stop(stream);
        pair.run_for(Duration::from_millis(15));
        assert_eq!(
            pair.ends[SERVER].read(stream, 100, &mut Vec::new()),
            Read::Reset
        );
        assert_eq!(
            pair.ends[SERVER].write(stream, &mut Bytes::from_static(b"too late")),
            Written::Stopped
        );
    }

    #[test]
    fn a_goodbye_is_told_from_a_loss_and_carries_its_reason() {
        let mut pair = pair();
        let now = pair.now;
        pair.ends[SERVER].close("the build is done", now);
        pair.run_for(Duration::from_millis(50));
        let closed = StreamsEvent::Closed {
            reason: "the build is done".into(),
            by_peer: true,
        };
        assert_eq!(pair.ends[CLIENT].poll_event(), Some(closed));
        assert_eq!(pair.ends[CLIENT].open(), None);
    }

    #[test]
    fn a_connection_that_is_given_up_is_no_goodbye() {
        let mut pair = pair();
        let now = pair.now;
        pair.ends[SERVER].abandon("the path went down", now);
        pair.run_for(Duration::from_millis(50));
        let closed = StreamsEvent::Closed {
            reason: "the path went down".into(),
            by_peer: false,
        };
        assert_eq!(pair.ends[CLIENT].poll_event(), Some(closed));
    }

    #[test]
    fn a_connection_outlives_a_long_silence() {
        let mut pair = pair();
        let stream = pair.ends[CLIENT].open().unwrap();
        assert!(pair.transfer(CLIENT, stream, b"a request") == b"a request");
        pair.run_for(3 * IDLE);
        assert!(pair.transfer(SERVER, stream, b"at last") == b"at last");
    }

    #[test]
    fn a_ping_finds_out_that_the_peer_has_forgotten() {
        let mut pair = pair();
        let now = pair.now;
        pair.lose_every = 1;
        pair.ends[SERVER].abandon("the path went down", now);
        pair.run_for(Duration::from_secs(5));
        pair.lose_every = 0;
        assert_eq!(pair.ends[CLIENT].poll_event(), None);
        pair.ends[CLIENT].ping();
        pair.run_for(Duration::from_secs(1));
        let closed = pair.ends[CLIENT].poll_event();
        assert!(
            matches!(closed, Some(StreamsEvent::Closed { by_peer: false, .. })),
            "{closed:?}"
        );
    }

    #[test]
    fn a_peer_with_another_key_than_its_descriptor_names_gets_no_connection() {
        for (client_expects, server_expects) in [
            ([9; 32], identity(1).stream_public()),
            (identity(5).stream_public(), [9; 32]),
        ] {
            let mut pair = pair_with(client_expects, server_expects);
            pair.ends[CLIENT].connect(pair.now).unwrap();
            pair.run_for(Duration::from_secs(5));
            assert!(!pair.ends[SERVER].is_connected());
            assert!(pair.ends.iter_mut().any(|end| {
                std::iter::from_fn(|| end.poll_event())
                    .any(|event| matches!(event, StreamsEvent::Closed { .. }))
            }));
        }
    }

    #[test]
    fn a_client_that_lost_its_connection_connects_anew() {
        let mut pair = pair();
        let stream = pair.ends[CLIENT].open().unwrap();
        pair.ends[CLIENT].connect(pair.now).unwrap();
        pair.run_for(Duration::from_millis(200));
        assert_eq!(
            pair.ends[CLIENT].poll_event(),
            Some(StreamsEvent::Connected)
        );
        assert_eq!(
            pair.ends[CLIENT].read(stream, 1, &mut Vec::new()),
            Read::Reset,
            "streams die with their connection"
        );
        let stream = pair.ends[CLIENT].open().unwrap();
        assert!(pair.transfer(CLIENT, stream, b"again") == b"again");
        for end in &pair.ends {
            assert_eq!(end.endpoint.open_connections(), 1, "the old one is kept");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_datagram_is_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..1500)) {
            let mut pair = pair();
            for end in [CLIENT, SERVER] {
                pair.ends[end].handle_datagram(&bytes, pair.now);
                assert!(pair.ends[end].is_connected());
            }
        }
    }
}
