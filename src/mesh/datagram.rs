//! Whose datagram is this? STUN, probes and WireGuard share one socket.

use super::{probe, relay};

/// What a datagram is, by its first bytes; nothing about it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A STUN message (RFC 8489).
    Stun,
    /// A ping or pong of this room.
    Probe,
    /// Something for a peer, or from one, through another.
    Relayed,
    /// A WireGuard message.
    WireGuard,
    /// Nothing that anybody here sends.
    Unknown,
}

/// Tells who a datagram is for.
pub fn classify_datagram(bytes: &[u8]) -> Kind {
    if probe::is_probe(bytes) {
        Kind::Probe
    } else if relay::is_frame(bytes) {
        Kind::Relayed
    } else if is_stun(bytes) {
        Kind::Stun
    } else if is_wireguard(bytes) {
        Kind::WireGuard
    } else {
        Kind::Unknown
    }
}

/// RFC 8489 section 5: two zero bits, the length of what follows the 20 byte header in multiples of four, the magic cookie.
fn is_stun(bytes: &[u8]) -> bool {
    let Some((header, attributes)) = bytes.split_at_checked(STUN_HEADER) else {
        return false;
    };
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    header[0] & 0xc0 == 0
        && length == attributes.len()
        && length.is_multiple_of(4)
        && header[4..8] == STUN_COOKIE
}

/// The four messages of the WireGuard protocol: a type, three reserved zero bytes, and a length of its own each.
fn is_wireguard(bytes: &[u8]) -> bool {
    let [kind, 0, 0, 0, ..] = bytes else {
        return false;
    };
    match kind {
        1 => bytes.len() == 148,
        2 => bytes.len() == 92,
        3 => bytes.len() == 64,
        4 => bytes.len() >= 32,
        _ => false,
    }
}

const STUN_HEADER: usize = 20;
const STUN_COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();

/// Whether the bytes are a probe of full length, straight or on the way to a relay: the way may not take it.
pub fn is_full_probe(bytes: &[u8]) -> bool {
    let inner = relay::read(bytes).map_or(bytes, |frame| frame.payload);
    probe::is_probe(inner) && probe::Size::of(inner) == Some(probe::Size::Full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wireguard(kind: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0xaa; len];
        bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        bytes
    }

    #[test]
    fn every_wireguard_message_is_told_from_stun_and_probes() {
        for (kind, len) in [(1, 148), (2, 92), (3, 64), (4, 32), (4, 1_452)] {
            assert_eq!(classify_datagram(&wireguard(kind, len)), Kind::WireGuard);
        }
        assert_eq!(classify_datagram(&wireguard(1, 147)), Kind::Unknown);
        assert_eq!(classify_datagram(&wireguard(4, 31)), Kind::Unknown);
    }

    #[test]
    fn an_initiation_whose_index_looks_like_the_stun_cookie_is_still_wireguard() {
        let mut bytes = wireguard(1, 148);
        bytes[4..8].copy_from_slice(&STUN_COOKIE);
        assert_eq!(classify_datagram(&bytes), Kind::WireGuard);
    }

    #[test]
    fn a_stun_message_states_its_own_length() {
        let mut bytes = vec![0; 20];
        bytes[1] = 1;
        bytes[4..8].copy_from_slice(&STUN_COOKIE);
        assert_eq!(classify_datagram(&bytes), Kind::Stun);
        bytes.push(0);
        assert_eq!(classify_datagram(&bytes), Kind::Unknown);
        assert_eq!(classify_datagram(&[]), Kind::Unknown);
    }
}
