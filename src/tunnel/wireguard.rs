//! WireGuard towards one peer, by boringtun, which keeps its own clock.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::{
    noise::{Packet, Tunn, TunnResult, handshake::parse_handshake_anon, rate_limiter::RateLimiter},
    x25519::{PublicKey, StaticSecret},
};

use super::{datagrams::Datagrams, overlay::Overlay};
use crate::session::{Identity, PairKeys, PeerId};

/// One peer's WireGuard session, or the attempt at one.
pub(super) struct WireGuard {
    tunn: Tunn,
    overlay: Overlay,
    initiator: bool,
    /// When to initiate again; `None` once there is a session, or while there is no path.
    initiate_at: Option<Instant>,
    packet: Vec<u8>,
    sealed: Vec<u8>,
}

/// What a datagram held.
#[derive(Debug, Default)]
pub(super) struct Opened<'a> {
    /// An inner datagram.
    pub(super) datagram: Option<&'a [u8]>,
    /// The peer sent it: it was authenticated.
    pub(super) authentic: bool,
    /// The peer begins a handshake.
    pub(super) initiates: bool,
}

/// To which peer a WireGuard datagram belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addressee {
    /// A handshake by this peer.
    Peer(PeerId),
    /// A packet for the session with this index.
    Index(u32),
}

/// Tells to which peer datagrams belong.
pub(super) struct Door {
    private: StaticSecret,
    public: PublicKey,
    /// Never has enough: it only looks whether a handshake's sender knows our public key (`mac1`; WireGuard, section 5.4.4).
    macs: RateLimiter,
}

impl Door {
    pub(super) fn new(me: &Identity) -> Self {
        let private = me.wireguard_private().clone();
        let public = PublicKey::from(&private);
        Self {
            macs: RateLimiter::new(&public, u64::MAX),
            private,
            public,
        }
    }

    /// To which peer a datagram belongs; `None` when it is no WireGuard for us. What a stranger made up costs no curve.
    pub(super) fn addressee(&self, datagram: &[u8]) -> Option<Addressee> {
        let packet = self.macs.verify_packet(None, datagram, &mut []).ok()?;
        let receiver = match packet {
            Packet::HandshakeInit(init) => {
                let half = parse_handshake_anon(&self.private, &self.public, &init).ok()?;
                return Some(Addressee::Peer(PeerId(half.peer_static_public)));
            }
            Packet::HandshakeResponse(response) => response.receiver_idx,
            Packet::PacketCookieReply(reply) => reply.receiver_idx,
            Packet::PacketData(data) => data.receiver_idx,
        };
        Some(Addressee::Index(receiver >> 8))
    }
}

/// One limiter for all peers of a node: boringtun's own, one a tunnel, answers a burst of ten handshakes with cookies.
pub(super) fn rate_limiter(me: &Identity) -> Arc<RateLimiter> {
    Arc::new(RateLimiter::new(
        &PublicKey::from(me.wireguard_private()),
        HANDSHAKES_PER_SECOND,
    ))
}

impl WireGuard {
    /// Prepares a session. `index` (below 2²⁴) has to be unique on this node.
    pub(super) fn new(
        me: &Identity,
        peer: PeerId,
        pair: &PairKeys,
        index: u32,
        limiter: Arc<RateLimiter>,
    ) -> Self {
        let initiator = me.peer() < peer;
        let keepalive = initiator.then_some(KEEPALIVE_SECONDS);
        let tunn = Tunn::new(
            me.wireguard_private().clone(),
            PublicKey::from(*peer.as_bytes()),
            Some(*pair.preshared),
            keepalive,
            index,
            Some(limiter),
        );
        let overlay = Overlay::new(me.peer(), peer);
        Self {
            tunn,
            overlay,
            initiator,
            initiate_at: None,
            packet: Vec::new(),
            sealed: vec![0; LARGEST],
        }
    }

    /// True for the side that initiates: the one with the lower public key. Initiations from both sides at once may never
    /// complete.
    pub(super) fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// True when a handshake has been completed.
    pub(super) fn has_session(&self) -> bool {
        self.tunn.stats().0.is_some()
    }

    /// A path was found (again): a fresh handshake proves that both ends still hold a session.
    pub(super) fn handle_path(&mut self, now: Instant) {
        self.initiate_at = Some(if self.initiator {
            now
        } else {
            now + RESPONDER_PATIENCE
        });
    }

    /// The stream layer works: no initiation is needed.
    pub(super) fn handle_connected(&mut self) {
        self.initiate_at = None;
    }

    /// When [`WireGuard::poll_initiation`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.initiate_at
    }

    /// An initiation, when one is due.
    pub(super) fn poll_initiation(&mut self, now: Instant, rtt: Duration, out: &mut Datagrams) {
        if self.initiate_at.is_none_or(|due| due > now) {
            return;
        }
        self.initiate_at = Some(now + INITIATION_GAP.max(rtt * 3 / 2));
        out.push_with(LARGEST, |room| {
            taken(self.tunn.format_handshake_initiation(room, true))
        });
    }

    /// Lets boringtun's own clock do what is due: keepalives, new keys.
    pub(super) fn tick(&mut self, out: &mut Datagrams) {
        out.push_with(LARGEST, |room| taken(self.tunn.update_timers(room)));
    }

    /// Encrypts a datagram; an initiation may come instead, and the datagram later.
    pub(super) fn seal(&mut self, datagram: &[u8], out: &mut Datagrams) {
        self.overlay.wrap(datagram, &mut self.packet);
        let room = (self.packet.len() + OVERHEAD).max(INITIATION);
        out.push_with(room, |room| {
            taken(self.tunn.encapsulate(&self.packet, room))
        });
    }

    /// Decrypts what came from the network; what has to go back to the peer is put out. `from` is what a cookie is made of where too
    /// many handshakes come.
    pub(super) fn open(
        &mut self,
        from: IpAddr,
        datagram: &[u8],
        out: &mut Datagrams,
    ) -> Opened<'_> {
        if datagram.len() > LARGEST {
            return Opened::default();
        }
        let room = &mut self.sealed;
        // What was decrypted is at the beginning of the buffer.
        let (length, authentic) = match self.tunn.decapsulate(Some(from), datagram, room) {
            TunnResult::WriteToTunnelV6(packet, _) => (packet.len(), true),
            TunnResult::WriteToNetwork(reply) => {
                // A cookie is for whoever asks: nothing has been proven.
                let authentic = reply.first() != Some(&COOKIE_REPLY);
                out.push(reply);
                self.send_queued(out);
                (0, authentic)
            }
            TunnResult::Done => (0, true),
            TunnResult::WriteToTunnelV4(..) | TunnResult::Err(_) => (0, false),
        };
        Opened {
            datagram: self.overlay.unwrap(&self.sealed[..length]),
            authentic,
            initiates: authentic && datagram.first() == Some(&INITIATES),
        }
    }

    /// boringtun may have queued packets to send behind its answer.
    fn send_queued(&mut self, out: &mut Datagrams) {
        while let TunnResult::WriteToNetwork(packet) =
            self.tunn.decapsulate(None, &[], &mut self.sealed)
        {
            out.push(packet);
        }
    }
}

/// How long the datagram is that boringtun wrote.
fn taken(result: TunnResult<'_>) -> Option<usize> {
    match result {
        TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
        TunnResult::Done
        | TunnResult::Err(_)
        | TunnResult::WriteToTunnelV4(..)
        | TunnResult::WriteToTunnelV6(..) => None,
    }
}

/// An inner packet of 1,400 bytes and WireGuard's 32, with room for whatever else arrives.
const LARGEST: usize = 2048;

/// The first byte of a handshake's first message, and of the answer to one that came when there were too many (WireGuard, section 5.4).
const INITIATES: u8 = 1;
const COOKIE_REPLY: u8 = 3;

/// Of a data packet, and a whole handshake initiation, which may come in its place (WireGuard, section 5.4).
const OVERHEAD: usize = 32;
const INITIATION: usize = 148;

/// A hundred workers that restart together shake hands within a second.
const HANDSHAKES_PER_SECOND: u64 = 100;

/// WireGuard's customary value. It keeps keys fresh on an idle link; the mapping is kept by the mesh's pings.
const KEEPALIVE_SECONDS: u16 = 25;

/// The other side initiates; after this long it seems unable to.
const RESPONDER_PATIENCE: Duration = Duration::from_secs(5);

/// Faster than half a round trip, repeated initiations overtake each other's answers and none completes (measured).
const INITIATION_GAP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::session::{Secret, SessionKeys};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn pair(other_secret: bool) -> (WireGuard, WireGuard, Identity, Identity) {
        let keys = |secret: &str| {
            SessionKeys::derive(&Secret::new(secret.into()).unwrap(), &"s".parse().unwrap())
                .unwrap()
        };
        let (mine, theirs) = (keys("one"), keys(if other_secret { "two" } else { "one" }));
        let (mut a, mut b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        if a.peer() > b.peer() {
            std::mem::swap(&mut a, &mut b);
        }
        let ab = mine.pair(a.wireguard_private(), &b.peer()).unwrap();
        let ba = theirs.pair(b.wireguard_private(), &a.peer()).unwrap();
        let left = WireGuard::new(&a, b.peer(), &ab, 1, rate_limiter(&a));
        let right = WireGuard::new(&b, a.peer(), &ba, 2, rate_limiter(&b));
        (left, right, a, b)
    }

    #[expect(clippy::disallowed_methods, reason = "boringtun keeps its own clock")]
    fn now() -> Instant {
        Instant::now()
    }

    /// What a step puts out.
    fn made(make: impl FnOnce(&mut Datagrams)) -> Vec<Vec<u8>> {
        let mut out = Datagrams::default();
        make(&mut out);
        out.iter().map(<[u8]>::to_vec).collect()
    }

    fn sealed(by: &mut WireGuard, datagram: &[u8]) -> Vec<u8> {
        made(|out| by.seal(datagram, out)).remove(0)
    }

    fn replies(by: &mut WireGuard, datagram: &[u8]) -> Vec<Vec<u8>> {
        made(|out| {
            by.open(HERE, datagram, out);
        })
    }

    fn initiations(by: &mut WireGuard, now: Instant) -> Vec<Vec<u8>> {
        made(|out| by.poll_initiation(now, Duration::ZERO, out))
    }

    fn shake_hands(left: &mut WireGuard, right: &mut WireGuard) {
        left.handle_path(now());
        let initiation = initiations(left, now()).remove(0);
        for reply in replies(right, &initiation) {
            for last in replies(left, &reply) {
                replies(right, &last);
            }
        }
    }

    #[test]
    fn the_lower_key_initiates_and_datagrams_pass_both_ways() {
        let (mut left, mut right, ..) = pair(false);
        assert!(left.is_initiator() && !right.is_initiator());
        shake_hands(&mut left, &mut right);
        assert!(left.has_session());
        let out = &mut Datagrams::default();
        let there = sealed(&mut left, b"a request");
        assert_eq!(
            right.open(HERE, &there, out).datagram,
            Some(&b"a request"[..])
        );
        let back = sealed(&mut right, b"a response");
        assert_eq!(
            left.open(HERE, &back, out).datagram,
            Some(&b"a response"[..])
        );
    }

    #[test]
    fn a_replayed_or_bent_packet_says_nothing() {
        let (mut left, mut right, ..) = pair(false);
        shake_hands(&mut left, &mut right);
        let out = &mut Datagrams::default();
        let mut packet = sealed(&mut left, b"once");
        assert!(right.open(HERE, &packet, out).authentic);
        let replayed = right.open(HERE, &packet, out);
        assert!(!replayed.authentic && replayed.datagram.is_none());
        packet[20] ^= 1;
        assert!(!right.open(HERE, &packet, out).authentic);
    }

    #[test]
    fn without_the_sessions_secret_there_is_no_session() {
        let (mut left, mut right, ..) = pair(true);
        shake_hands(&mut left, &mut right);
        assert!(!left.has_session());
    }

    #[test]
    fn a_datagram_finds_its_peer() {
        let (mut left, mut right, a, b) = pair(false);
        left.handle_path(now());
        let initiation = initiations(&mut left, now()).remove(0);
        let [door, own] = [&b, &a].map(Door::new);
        let addressee = door.addressee(&initiation);
        assert_eq!(addressee, Some(Addressee::Peer(a.peer())));
        let reply = replies(&mut right, &initiation).remove(0);
        assert_eq!(own.addressee(&reply), Some(Addressee::Index(1)));
        assert_eq!(own.addressee(b"something else"), None);
    }

    #[test]
    fn a_handshake_by_one_who_does_not_know_our_key_is_not_looked_at() {
        let (mut left, _, a, b) = pair(false);
        left.handle_path(now());
        let initiation = initiations(&mut left, now()).remove(0);
        assert_eq!(Door::new(&a).addressee(&initiation), None, "another's");
        for at in 0..INITIATION - 16 {
            let mut bent = initiation.clone();
            bent[at] ^= 1;
            assert_eq!(Door::new(&b).addressee(&bent), None, "byte {at}");
        }
    }

    #[test]
    fn a_flood_of_handshakes_gets_cookies_and_an_honest_peer_comes_through() {
        let (mut left, mut right, ..) = pair(false);
        let attempt = |left: &mut WireGuard, right: &mut WireGuard| {
            left.handle_path(now());
            let initiation = initiations(left, now()).remove(0);
            let out = &mut Datagrams::default();
            let authentic = right.open(HERE, &initiation, out).authentic;
            let reply = out.iter().next().unwrap().to_vec();
            (authentic, reply)
        };
        let mut attempts = (0..2 * HANDSHAKES_PER_SECOND).map(|_| attempt(&mut left, &mut right));
        let (authentic, cookie) = attempts
            .find(|(_, reply)| reply[0] == COOKIE_REPLY)
            .unwrap();
        assert!(!authentic, "a cookie is for anybody");
        replies(&mut left, &cookie);
        let (authentic, reply) = attempt(&mut left, &mut right);
        assert!(authentic && reply[0] != COOKIE_REPLY);
    }

    #[test]
    fn initiations_are_repeated_once_a_second_until_the_link_is_up() {
        let (mut left, ..) = pair(false);
        let began = now();
        left.handle_path(began);
        assert_eq!(initiations(&mut left, began).len(), 1);
        assert_eq!(initiations(&mut left, began).len(), 0);
        assert_eq!(left.poll_timeout(), Some(began + INITIATION_GAP));
        left.handle_connected();
        assert_eq!(left.poll_timeout(), None);
    }
}
