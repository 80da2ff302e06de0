//! What address the data socket has on the other side of its NAT: STUN binding transactions (RFC 8489) to every server.
//!
//! The transactions also keep the mapping alive, so they go on from start to exit.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytecodec::{DecodeExt, EncodeExt};
use stun_codec::{
    Message, MessageClass, MessageDecoder, MessageEncoder,
    rfc5389::{
        Attribute,
        attributes::{MappedAddress, XorMappedAddress},
        methods::BINDING,
    },
};

use super::{
    nat::{self, Observation},
    outbox::Outbox,
    transaction::{TransactionId, TransactionIds},
};

/// The binding transactions with all servers.
#[derive(Debug)]
pub(super) struct Stun {
    servers: Vec<Server>,
    ids: TransactionIds,
    /// When the mapping was last seen to change: older answers are about something that is gone.
    round_began: Instant,
}

#[derive(Debug)]
struct Server {
    addr: SocketAddr,
    transaction: Option<Transaction>,
    next: Instant,
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Transaction {
    id: TransactionId,
    sent: u32,
    began: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    mapped: SocketAddr,
    at: Instant,
}

impl Stun {
    /// Asks every server as soon as time is handled.
    pub(super) fn new(servers: Vec<SocketAddr>, seed: &[u8; 32], now: Instant) -> Self {
        let distinct: BTreeSet<_> = servers.into_iter().collect();
        let servers = distinct
            .into_iter()
            .filter(|addr| nat::is_usable(*addr))
            .map(|addr| Server {
                addr,
                transaction: None,
                next: now,
                answer: None,
            });
        Self {
            servers: servers.collect(),
            ids: TransactionIds::new(seed, b"stun"),
            round_began: now,
        }
    }

    /// Takes a response; returns whether it was news to this machine.
    pub(super) fn handle_response(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> bool {
        let Some(server) = self.servers.iter_mut().find(|s| s.addr == from) else {
            return false;
        };
        let Some(transaction) = &server.transaction else {
            return false;
        };
        let Some(mapped) = mapped_address(bytes, &transaction.id) else {
            return false;
        };
        server.transaction = None;
        server.next = now + REFRESH;
        let before = server.answer.replace(Answer { mapped, at: now });
        let changed = |before: &Answer| before.mapped != mapped && before.at >= self.round_began;
        if before.as_ref().is_some_and(changed) {
            self.round_began = now;
            self.refresh(now);
        }
        true
    }

    /// Asks all servers again, without waiting for the next round.
    pub(super) fn refresh(&mut self, now: Instant) {
        for server in &mut self.servers {
            server.begin_early(now);
        }
    }

    /// Sends what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        let answered = self.servers.iter().any(|server| server.answer.is_some());
        let pause = if answered { REFRESH } else { FIRST_RETRY };
        for server in &mut self.servers {
            if let Some(id) = server.handle_timeout(now, pause, &mut self.ids) {
                out.send(server.addr, binding_request(id));
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.servers.iter().map(|server| server.next).min()
    }

    /// The addresses that servers see.
    pub(super) fn mapped(&self) -> BTreeSet<SocketAddr> {
        self.current().map(|(_, answer)| answer.mapped).collect()
    }

    /// Whether the servers' answers are about the mapping that a peer has seen from `since` until `at`. Without servers they are.
    pub(super) fn covers(&self, since: Instant, at: Instant) -> bool {
        let answers = self.servers.iter().filter_map(|server| server.answer);
        let newest = answers.map(|answer| answer.at).max();
        at >= self.round_began && newest.is_none_or(|newest| newest > since)
    }

    /// What the servers saw, if enough of them answered since it last changed; otherwise it is too early to compare.
    pub(super) fn observations(&self) -> Option<Vec<Observation>> {
        let expected = self.servers.iter().filter(|s| !s.is_mute()).count();
        let seen: Vec<_> = self
            .current()
            .map(|(server, answer)| Observation {
                server,
                mapped: answer.mapped,
            })
            .collect();
        (seen.len() >= expected.min(2)).then_some(seen)
    }

    /// The answers since the mapping last changed, without those that were not confirmed for as long as others were.
    fn current(&self) -> impl Iterator<Item = (SocketAddr, Answer)> {
        let answers = || {
            self.servers
                .iter()
                .filter_map(|s| Some((s.addr, s.answer?)))
        };
        let newest = answers().map(|(_, answer)| answer.at).max();
        answers().filter(move |(_, answer)| {
            let age = newest.map(|newest| newest.saturating_duration_since(answer.at));
            answer.at >= self.round_began && age.is_some_and(|age| age < STALE)
        })
    }
}

impl Server {
    fn handle_timeout(
        &mut self,
        now: Instant,
        pause: Duration,
        ids: &mut TransactionIds,
    ) -> Option<TransactionId> {
        if self.next > now {
            return None;
        }
        let fresh = || Transaction {
            id: ids.next().0,
            sent: 0,
            began: now,
        };
        if self.transaction.as_ref().is_some_and(|t| t.sent >= TRIES) {
            self.transaction = None;
        }
        let transaction = self.transaction.get_or_insert_with(fresh);
        transaction.sent += 1;
        self.next = now + transaction.wait().unwrap_or(pause);
        Some(transaction.id)
    }

    /// Begins a new transaction now, or a while after the last one that has only just begun or ended.
    fn begin_early(&mut self, now: Instant) {
        let answered = self.answer.map(|answer| answer.at);
        let busy_since = self.transaction.as_ref().map(|t| t.began).or(answered);
        let earliest = busy_since.map_or(now, |since| now.max(since + REFRESH_GAP));
        if self.transaction.is_some() && earliest > now {
            return;
        }
        self.transaction = None;
        self.next = self.next.clamp(now, earliest);
    }

    /// The last transaction ended without an answer.
    fn is_mute(&self) -> bool {
        self.transaction.as_ref().is_some_and(|t| t.sent >= TRIES)
    }
}

impl Transaction {
    /// How long to wait for the answer before the next try; `None` after the last.
    fn wait(&self) -> Option<Duration> {
        let doublings = self.sent.saturating_sub(1);
        (self.sent < TRIES).then(|| FIRST_WAIT * 2_u32.saturating_pow(doublings))
    }
}

fn binding_request(id: TransactionId) -> Vec<u8> {
    let id = stun_codec::TransactionId::new(id);
    let message = Message::<Attribute>::new(MessageClass::Request, BINDING, id);
    let encoded = MessageEncoder::new().encode_into_bytes(message);
    debug_assert!(
        encoded.is_ok(),
        "a request without attributes has a fixed size"
    );
    encoded.unwrap_or_default()
}

/// The address that a successful response to this transaction reports.
fn mapped_address(bytes: &[u8], id: &TransactionId) -> Option<SocketAddr> {
    // Compared before anything is decoded: what nobody asked for costs nothing.
    if bytes.get(8..20)? != id {
        return None;
    }
    let mut decoder = MessageDecoder::<Attribute>::new();
    let message = decoder.decode_from_bytes(bytes).ok()?.ok()?;
    if message.class() != MessageClass::SuccessResponse || message.method() != BINDING {
        return None;
    }
    let xored = message.get_attribute::<XorMappedAddress>();
    let plain = message.get_attribute::<MappedAddress>();
    let mapped = xored
        .map(XorMappedAddress::address)
        .or_else(|| plain.map(MappedAddress::address))?;
    nat::is_usable(mapped).then_some(mapped)
}

/// The shortest lifetime seen in NATs is 30 s: every 15 s survives one lost round.
const REFRESH: Duration = Duration::from_secs(15);
/// As long as no server has ever answered there is nothing to spare them for: the network may be coming up.
const FIRST_RETRY: Duration = Duration::from_secs(3);
/// RFC 8489 section 6.2.1 starts at 500 ms; every round-trip here is spent before a worker's first job.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Sent at 0, 100, 300, 700, 1,500 and 3,100 ms.
const TRIES: u32 = 6;
/// Sixty peers that turn suspect together are one reason to ask, not sixty.
const REFRESH_GAP: Duration = Duration::from_secs(1);
/// Three rounds: a server that is silent for longer knows a mapping that may be gone.
const STALE: Duration = Duration::from_secs(45);

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "192.0.2.10:3478";

    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do as the epoch"
    )]
    fn stun(servers: &[&str]) -> (Stun, Instant) {
        let now = Instant::now();
        let servers = servers.iter().map(|s| s.parse().unwrap()).collect();
        (Stun::new(servers, &[9; 32], now), now)
    }

    fn asked(stun: &mut Stun, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut out = Outbox::default();
        stun.handle_timeout(now, &mut out);
        out.transmits
            .into_iter()
            .map(|t| (t.to, t.payload))
            .collect()
    }

    fn response(request: &[u8], mapped: &str) -> Vec<u8> {
        let id = stun_codec::TransactionId::new(request[8..20].try_into().unwrap());
        let mut message = Message::<Attribute>::new(MessageClass::SuccessResponse, BINDING, id);
        message.add_attribute(XorMappedAddress::new(mapped.parse().unwrap()));
        MessageEncoder::new().encode_into_bytes(message).unwrap()
    }

    #[test]
    fn a_request_is_repeated_until_it_is_given_up_and_then_begun_anew() {
        let (mut stun, start) = stun(&[SERVER]);
        let mut times = Vec::new();
        let mut ids = BTreeSet::new();
        for _ in 0..7 {
            let now = stun.poll_timeout().unwrap();
            let sent = asked(&mut stun, now);
            times.push((now - start).as_millis());
            ids.insert(sent[0].1[8..20].to_vec());
        }
        assert_eq!(times, [0, 100, 300, 700, 1_500, 3_100, 6_100]);
        assert_eq!(ids.len(), 2);
    }

    #[test]
    fn an_answer_is_believed_from_the_server_asked_and_for_the_transaction_outstanding() {
        let (mut stun, now) = stun(&[SERVER]);
        let (server, request) = asked(&mut stun, now).remove(0);
        let good = response(&request, "198.51.100.7:4242");
        let elsewhere = "192.0.2.10:3479".parse().unwrap();
        assert!(!stun.handle_response(elsewhere, &good, now));
        let mut other = good.clone();
        other[8] ^= 1;
        assert!(!stun.handle_response(server, &other, now));
        assert!(!stun.handle_response(server, &request, now), "reflected");
        assert!(stun.handle_response(server, &good, now));
        assert!(!stun.handle_response(server, &good, now), "replayed");
        let mapped: Vec<_> = stun.mapped().into_iter().collect();
        assert_eq!(mapped, ["198.51.100.7:4242".parse().unwrap()]);
        assert_eq!(stun.poll_timeout(), Some(now + REFRESH));
    }

    #[test]
    fn a_changed_mapping_is_asked_of_all_servers_at_once() {
        let (mut stun, start) = stun(&[SERVER, "192.0.2.20:3478"]);
        for (server, request) in asked(&mut stun, start) {
            let _ = stun.handle_response(server, &response(&request, "198.51.100.7:1"), start);
        }
        let later = start + REFRESH;
        let (server, request) = asked(&mut stun, later).remove(0);
        let now = later + Duration::from_secs(2);
        assert!(stun.handle_response(server, &response(&request, "198.51.100.7:2"), now));
        assert_eq!(stun.poll_timeout(), Some(now));
        assert_eq!(asked(&mut stun, now).len(), 1, "the other one");
    }

    #[test]
    fn when_every_server_sees_a_change_every_new_address_counts() {
        let (mut stun, start) = stun(&[SERVER, "192.0.2.20:3478"]);
        for (round, ports) in [(0, [1, 2]), (1, [3, 4])] {
            let now = start + REFRESH * 2 * round;
            for ((server, request), port) in asked(&mut stun, now).into_iter().zip(ports) {
                let answer = response(&request, &format!("198.51.100.7:{port}"));
                assert!(stun.handle_response(server, &answer, now + FIRST_WAIT / 2 * port));
            }
            let mapped: Vec<_> = stun.mapped().iter().map(SocketAddr::port).collect();
            assert_eq!(mapped, ports.map(|port| port as u16));
            assert_eq!(stun.observations().unwrap().len(), 2);
        }
    }

    #[test]
    fn a_server_that_fell_silent_stops_being_quoted() {
        let (mut stun, start) = stun(&[SERVER, "192.0.2.20:3478"]);
        for ((server, request), mapped) in asked(&mut stun, start)
            .into_iter()
            .zip(["198.51.100.7:1", "198.51.100.7:2"])
        {
            let _ = stun.handle_response(server, &response(&request, mapped), start);
        }
        assert_eq!(stun.mapped().len(), 2);
        let mut now = start;
        while now < start + STALE + REFRESH {
            now = stun.poll_timeout().unwrap();
            for (server, request) in asked(&mut stun, now) {
                if server == SERVER.parse().unwrap() {
                    let _ =
                        stun.handle_response(server, &response(&request, "198.51.100.7:1"), now);
                }
            }
        }
        assert_eq!(stun.mapped().len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn a_response_with_any_attributes_never_panics(tail in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120)) {
            let (mut stun, now) = stun(&[SERVER]);
            let (server, request) = asked(&mut stun, now).remove(0);
            let mut bytes = request;
            bytes[..2].copy_from_slice(&[1, 1]);
            bytes[2..4].copy_from_slice(&(tail.len() as u16).to_be_bytes());
            bytes.extend_from_slice(&tail);
            stun.handle_response(server, &bytes, now);
        }
    }
}
