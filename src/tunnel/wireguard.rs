//! WireGuard towards one peer, by boringtun, which keeps its own clock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::{
    noise::{Packet, Tunn, TunnResult, handshake::parse_handshake_anon, rate_limiter::RateLimiter},
    x25519::PublicKey,
};

use super::overlay::Overlay;
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
pub(super) struct Opened {
    /// Inner datagrams.
    pub(super) datagrams: Vec<Vec<u8>>,
    /// What has to go back to the peer.
    pub(super) replies: Vec<Vec<u8>>,
    /// The peer sent it: it was authenticated.
    pub(super) authentic: bool,
}

/// To which peer a WireGuard datagram belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addressee {
    /// A handshake by this peer.
    Peer(PeerId),
    /// A packet for the session with this index.
    Index(u32),
}

/// Tells to which peer a datagram belongs; `None` when it is no WireGuard for us.
pub(super) fn addressee(datagram: &[u8], me: &Identity) -> Option<Addressee> {
    let receiver = match Tunn::parse_incoming_packet(datagram).ok()? {
        Packet::HandshakeInit(init) => {
            let private = me.wireguard_private();
            let half = parse_handshake_anon(private, &PublicKey::from(private), &init).ok()?;
            return Some(Addressee::Peer(PeerId(half.peer_static_public)));
        }
        Packet::HandshakeResponse(response) => response.receiver_idx,
        Packet::PacketCookieReply(reply) => reply.receiver_idx,
        Packet::PacketData(data) => data.receiver_idx,
    };
    Some(Addressee::Index(receiver >> 8))
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
    pub(super) fn poll_initiation(&mut self, now: Instant, rtt: Duration) -> Option<Vec<u8>> {
        self.initiate_at.filter(|due| *due <= now)?;
        self.initiate_at = Some(now + INITIATION_GAP.max(rtt * 3 / 2));
        taken(
            self.tunn
                .format_handshake_initiation(&mut self.sealed, true),
        )
    }

    /// Lets boringtun's own clock do what is due: keepalives, new keys.
    pub(super) fn tick(&mut self) -> Option<Vec<u8>> {
        taken(self.tunn.update_timers(&mut self.sealed))
    }

    /// Encrypts a datagram; an initiation may come instead, and the datagram later.
    pub(super) fn seal(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        self.overlay.wrap(datagram, &mut self.packet);
        taken(self.tunn.encapsulate(&self.packet, &mut self.sealed))
    }

    /// Decrypts what came from the network.
    pub(super) fn open(&mut self, datagram: &[u8]) -> Opened {
        let mut opened = Opened::default();
        if datagram.len() > LARGEST {
            return opened;
        }
        let mut input = datagram;
        loop {
            match self.tunn.decapsulate(None, input, &mut self.sealed) {
                TunnResult::WriteToNetwork(reply) => {
                    opened.authentic = true;
                    opened.replies.push(reply.to_vec());
                    // boringtun may have queued packets to send behind its answer.
                    input = &[];
                }
                TunnResult::WriteToTunnelV6(packet, _) => {
                    opened.authentic = true;
                    opened
                        .datagrams
                        .extend(self.overlay.unwrap(packet).map(<[u8]>::to_vec));
                    return opened;
                }
                TunnResult::Done => {
                    opened.authentic = true;
                    return opened;
                }
                TunnResult::WriteToTunnelV4(..) | TunnResult::Err(_) => return opened,
            }
        }
    }
}

fn taken(result: TunnResult<'_>) -> Option<Vec<u8>> {
    match result {
        TunnResult::WriteToNetwork(datagram) => Some(datagram.to_vec()),
        TunnResult::Done
        | TunnResult::Err(_)
        | TunnResult::WriteToTunnelV4(..)
        | TunnResult::WriteToTunnelV6(..) => None,
    }
}

/// An inner packet of 1,400 bytes and WireGuard's 32, with room for whatever else arrives.
const LARGEST: usize = 2048;

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
    use super::*;
    use crate::session::{Secret, SessionKeys};

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

    fn shake_hands(left: &mut WireGuard, right: &mut WireGuard) {
        left.handle_path(now());
        let initiation = left.poll_initiation(now(), Duration::ZERO).unwrap();
        for reply in right.open(&initiation).replies {
            for last in left.open(&reply).replies {
                right.open(&last);
            }
        }
    }

    #[test]
    fn the_lower_key_initiates_and_datagrams_pass_both_ways() {
        let (mut left, mut right, ..) = pair(false);
        assert!(left.is_initiator() && !right.is_initiator());
        shake_hands(&mut left, &mut right);
        assert!(left.has_session());
        let there = left.seal(b"a request").unwrap();
        assert_eq!(right.open(&there).datagrams, [b"a request"]);
        let back = right.seal(b"a response").unwrap();
        assert_eq!(left.open(&back).datagrams, [b"a response"]);
    }

    #[test]
    fn a_replayed_or_bent_packet_says_nothing() {
        let (mut left, mut right, ..) = pair(false);
        shake_hands(&mut left, &mut right);
        let mut packet = left.seal(b"once").unwrap();
        assert!(right.open(&packet).authentic);
        let replayed = right.open(&packet);
        assert!(!replayed.authentic && replayed.datagrams.is_empty());
        packet[20] ^= 1;
        assert!(!right.open(&packet).authentic);
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
        let initiation = left.poll_initiation(now(), Duration::ZERO).unwrap();
        assert_eq!(addressee(&initiation, &b), Some(Addressee::Peer(a.peer())));
        let reply = right.open(&initiation).replies.remove(0);
        assert_eq!(addressee(&reply, &a), Some(Addressee::Index(1)));
        assert_eq!(addressee(b"something else", &a), None);
    }

    #[test]
    fn initiations_are_repeated_once_a_second_until_the_link_is_up() {
        let (mut left, ..) = pair(false);
        let began = now();
        left.handle_path(began);
        assert!(left.poll_initiation(began, Duration::ZERO).is_some());
        assert!(left.poll_initiation(began, Duration::ZERO).is_none());
        assert_eq!(left.poll_timeout(), Some(began + INITIATION_GAP));
        left.handle_connected();
        assert_eq!(left.poll_timeout(), None);
    }
}
