//! The probes' bytes: authenticated ping and pong.
//!
//! ```text
//! 0      4      5           13            21               33         51          83
//! ┌──────┬──────┬───────────┬─────────────┬────────────────┬──────────┬───────────┐
//! │ magic│ kind │ sender id │ receiver id │ transaction id │ detail   │ HMAC-SHA256 │
//! └──────┴──────┴───────────┴─────────────┴────────────────┴──────────┴───────────┘
//! ```
//! Ids are the first eight bytes of the public keys: enough for a node to see that a probe isn't meant for it, or is from
//! somebody whose descriptor it doesn't have yet, before any cryptography. The tag binds the whole keys of both, so a probe
//! that is reflected to its sender fails. A ping's detail is its number and whether its sender asks for anything, a pong's is the
//! source address that it answers.
//!
//! Either may be [`Size::Full`]: then zeros stand before the tag, up to the length of the datagrams that a link begins with. A way that
//! drops those (a VPN's MTU of 1,280 bytes) is of no use, however well it carries short ones.
//! A pong has its ping's length: one with a forged source address amplifies nothing.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ring::hmac;

use super::transaction::TransactionId;
use crate::session::PeerId;

/// A probe's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Are you there?
    Ping {
        id: TransactionId,
        /// Counts the sender's pings to this receiver: tells a replay from news.
        number: u64,
        /// The sender has a use for the receiver; it does not only return its attention.
        asks: bool,
    },
    /// I am, and you are seen at `observed`.
    Pong {
        id: TransactionId,
        observed: SocketAddr,
    },
}

/// How long a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// As short as can be.
    Short,
    /// As long as what the link will carry: [`FULL_LENGTH`].
    Full,
}

impl Size {
    fn bytes(self) -> usize {
        match self {
            Self::Short => SHORT_LENGTH,
            Self::Full => FULL_LENGTH,
        }
    }

    /// Of these bytes; `None` if no probe is of that length.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let mut sizes = [Self::Short, Self::Full].into_iter();
        sizes.find(|size| size.bytes() == bytes.len())
    }
}

/// The first bytes of a public key.
pub(super) type ShortId = [u8; 8];

/// Whether the bytes claim to be a probe.
pub(super) fn is_probe(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// From and to whom a probe claims to be; `None` if it cannot be one.
pub(super) fn addressees(bytes: &[u8]) -> Option<(ShortId, ShortId)> {
    Size::of(bytes).filter(|_| is_probe(bytes))?;
    let sender = bytes[5..13].try_into().ok()?;
    let receiver = bytes[13..21].try_into().ok()?;
    Some((sender, receiver))
}

/// The start of a public key.
pub(super) fn short_id(peer: &PeerId) -> ShortId {
    let mut short = ShortId::default();
    short.copy_from_slice(&peer.as_bytes()[..size_of::<ShortId>()]);
    short
}

/// What one end of a pair needs to write and read its probes.
#[derive(Debug)]
pub(super) struct ProbeKey {
    key: hmac::Key,
    me: PeerId,
    peer: PeerId,
}

impl ProbeKey {
    /// `secret` is the same at both ends and nowhere else.
    pub(super) fn new(secret: &[u8; 32], me: PeerId, peer: PeerId) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            me,
            peer,
        }
    }

    /// Writes a probe to the peer.
    pub(super) fn seal(&self, probe: &Probe, size: Size) -> Vec<u8> {
        let (kind, id, detail) = match probe {
            Probe::Ping { id, number, asks } => (PING, id, ping_detail(*number, *asks)),
            Probe::Pong { id, observed } => (PONG, id, address_to_detail(*observed)),
        };
        let mut bytes = Vec::with_capacity(size.bytes());
        bytes.extend_from_slice(&MAGIC);
        bytes.push(kind);
        bytes.extend_from_slice(&short_id(&self.me));
        bytes.extend_from_slice(&short_id(&self.peer));
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(&detail);
        bytes.resize(size.bytes() - TAG_LEN, 0);
        let tag = hmac::sign(&self.key, &self.signed(&self.me, &self.peer, &bytes));
        bytes.extend_from_slice(tag.as_ref());
        bytes
    }

    /// Reads a probe from the peer; `None` if the peer did not write it for this node.
    pub(super) fn open(&self, bytes: &[u8]) -> Option<Probe> {
        if addressees(bytes)? != (short_id(&self.peer), short_id(&self.me)) {
            return None;
        }
        let (body, tag) = bytes.split_last_chunk::<TAG_LEN>()?;
        hmac::verify(&self.key, &self.signed(&self.peer, &self.me, body), tag).ok()?;
        let id = body[21..33].try_into().ok()?;
        let detail: Detail = body[33..51].try_into().ok()?;
        match body[4] {
            PING => Some(Probe::Ping {
                id,
                number: u64::from_be_bytes(detail[..8].try_into().ok()?),
                asks: detail[8] == 0,
            }),
            PONG => Some(Probe::Pong {
                id,
                observed: detail_to_address(&detail),
            }),
            _ => None,
        }
    }

    fn signed(&self, sender: &PeerId, receiver: &PeerId, body: &[u8]) -> Vec<u8> {
        [LABEL, sender.as_bytes(), receiver.as_bytes(), body].concat()
    }
}

/// 16 bytes of IPv6 (or mapped IPv4) address and two of port; or a number, 0 if the sender asks for something, then zeros.
type Detail = [u8; 18];

fn ping_detail(number: u64, asks: bool) -> Detail {
    let mut detail = Detail::default();
    detail[..8].copy_from_slice(&number.to_be_bytes());
    detail[8] = u8::from(!asks);
    detail
}

fn address_to_detail(addr: SocketAddr) -> Detail {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut detail = Detail::default();
    detail[..16].copy_from_slice(&ip.octets());
    detail[16..].copy_from_slice(&addr.port().to_be_bytes());
    detail
}

fn detail_to_address(detail: &Detail) -> SocketAddr {
    let mut ip = [0; 16];
    ip.copy_from_slice(&detail[..16]);
    let port = u16::from_be_bytes([detail[16], detail[17]]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port)
}

/// First byte 100: WireGuard uses 1 to 4, STUN has its two top bits clear (0 to 63), RFC 7983 leaves 80 to 127 free.
const MAGIC: [u8; 4] = *b"dmp\x01";
const PING: u8 = 1;
const PONG: u8 = 2;
const TAG_LEN: usize = 32;
const SHORT_LENGTH: usize = 4 + 1 + 8 + 8 + 12 + size_of::<Detail>() + TAG_LEN;
/// A full probe's length in bytes, that of the tunnel's first datagrams: 1,280 bytes, the least that IPv6 asks of a link, in WireGuard's 32.
pub const FULL_LENGTH: usize = 1_312;
/// Keeps a probe's tag from ever being a tag of something else under the same key.
const LABEL: &[u8] = b"distmesh probe v1";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING_ONE: Probe = Probe::Ping {
        id: [3; 12],
        number: 1,
        asks: true,
    };

    fn pair() -> (ProbeKey, ProbeKey) {
        let (a, b) = (PeerId([1; 32]), PeerId([2; 32]));
        (ProbeKey::new(&[7; 32], a, b), ProbeKey::new(&[7; 32], b, a))
    }

    #[test]
    fn a_probe_reads_as_it_was_written() {
        let (a, b) = pair();
        for observed in ["192.0.2.1:9", "[2001:db8::1]:65535"] {
            for probe in [
                Probe::Ping {
                    id: [3; 12],
                    number: u64::MAX,
                    asks: false,
                },
                PING_ONE,
                Probe::Pong {
                    id: [4; 12],
                    observed: observed.parse().unwrap(),
                },
            ] {
                for (size, length) in [(Size::Short, 83), (Size::Full, 1_312)] {
                    let bytes = a.seal(&probe, size);
                    assert_eq!((bytes.len(), Size::of(&bytes)), (length, Some(size)));
                    assert_eq!(b.open(&bytes), Some(probe));
                }
            }
        }
    }

    #[test]
    fn a_reflected_probe_is_not_from_the_peer() {
        let (a, _) = pair();
        let mut bytes = a.seal(&PING_ONE, Size::Short);
        assert_eq!(a.open(&bytes), None);
        // Nor with sender and receiver exchanged by whoever reflects it.
        let (sender, receiver) = addressees(&bytes).unwrap();
        bytes[5..13].copy_from_slice(&receiver);
        bytes[13..21].copy_from_slice(&sender);
        assert_eq!(a.open(&bytes), None);
    }

    #[test]
    fn the_tag_binds_the_whole_keys_and_not_their_first_bytes() {
        let (a, _) = pair();
        let mut namesake = [2; 32];
        namesake[31] = 3;
        let namesake = ProbeKey::new(&[7; 32], PeerId(namesake), PeerId([1; 32]));
        let bytes = a.seal(&PING_ONE, Size::Short);
        assert!(addressees(&bytes).is_some_and(|(_, to)| to == short_id(&namesake.me)));
        assert_eq!(namesake.open(&bytes), None);
    }

    #[test]
    fn another_pairs_key_opens_nothing() {
        let (a, _) = pair();
        let stranger = ProbeKey::new(&[8; 32], PeerId([2; 32]), PeerId([1; 32]));
        let bytes = a.seal(&PING_ONE, Size::Short);
        assert_eq!(stranger.open(&bytes), None);
    }

    proptest! {
        #[test]
        fn every_changed_bit_is_noticed(index in any::<prop::sample::Index>(), bit in 0..8_u32, full in any::<bool>()) {
            let (a, b) = pair();
            let mut bytes = a.seal(&PING_ONE, if full { Size::Full } else { Size::Short });
            let index = index.index(bytes.len());
            bytes[index] ^= 1 << bit;
            prop_assert_eq!(b.open(&bytes), None);
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1_400)) {
            let (a, _) = pair();
            prop_assert_eq!(a.open(&bytes), None);
            let claimed = [&MAGIC[..], &bytes].concat();
            prop_assert_eq!(a.open(&claimed), None);
        }
    }
}
