//! The inner packets: IPv6 and UDP around each QUIC datagram, as WireGuard expects. Pure.

use std::net::Ipv6Addr;

use sha2::{Digest, Sha256};

use crate::session::PeerId;

/// A node's address inside tunnels: `fd` and 15 bytes of its public key's hash, a unique local address (RFC 4193).
pub fn overlay_address(peer: PeerId) -> Ipv6Addr {
    let hash = Sha256::new()
        .chain_update(b"distmesh overlay")
        .chain_update(peer.as_bytes())
        .finalize();
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..].copy_from_slice(&hash[..15]);
    octets.into()
}

/// The two addresses of one tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overlay {
    me: Ipv6Addr,
    peer: Ipv6Addr,
}

impl Overlay {
    pub(super) fn new(me: PeerId, peer: PeerId) -> Self {
        Self {
            me: overlay_address(me),
            peer: overlay_address(peer),
        }
    }

    /// Puts headers before a datagram. The UDP checksum is zero (RFC 6935): WireGuard authenticates the whole.
    pub(super) fn wrap(&self, datagram: &[u8], packet: &mut Vec<u8>) {
        let length = ((datagram.len() + UDP) as u16).to_be_bytes();
        packet.clear();
        packet.extend([0x60, 0, 0, 0, length[0], length[1], NEXT_UDP, HOPS]);
        packet.extend(self.me.octets());
        packet.extend(self.peer.octets());
        packet.extend([
            PORT[0], PORT[1], PORT[0], PORT[1], length[0], length[1], 0, 0,
        ]);
        packet.extend(datagram);
    }

    /// Takes the datagram out of a packet; `None` when it is not one that the peer may send to us.
    pub(super) fn unwrap<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        let (header, datagram) = packet.split_at_checked(IPV6 + UDP)?;
        let ours = header[0] >> 4 == 6
            && header[6] == NEXT_UDP
            && header[8..24] == self.peer.octets()
            && header[24..40] == self.me.octets()
            && header[40..42] == PORT
            && header[42..44] == PORT
            && usize::from(u16::from_be_bytes([header[44], header[45]])) == datagram.len() + UDP;
        ours.then_some(datagram)
    }
}

const IPV6: usize = 40;
const UDP: usize = 8;

/// IANA protocol number of UDP.
const NEXT_UDP: u8 = 17;

/// The usual default (RFC 1700); nobody forwards these packets.
const HOPS: u8 = 64;

/// Both ends of every tunnel; distcc's own port, so that a capture of inner packets reads well.
const PORT: [u8; 2] = 3632_u16.to_be_bytes();

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId([1; 32]);
    const B: PeerId = PeerId([2; 32]);

    #[test]
    fn addresses_are_unique_local_and_differ() {
        assert_eq!(overlay_address(A).octets()[0], 0xfd);
        assert_ne!(overlay_address(A), overlay_address(B));
    }

    #[test]
    fn what_one_end_wraps_the_other_unwraps() {
        let mut packet = Vec::new();
        Overlay::new(A, B).wrap(b"hello", &mut packet);
        assert_eq!(Overlay::new(B, A).unwrap(&packet), Some(&b"hello"[..]));
        assert_eq!(
            Overlay::new(A, B).unwrap(&packet),
            None,
            "a reflected packet"
        );
        assert_eq!(
            Overlay::new(B, PeerId([3; 32])).unwrap(&packet),
            None,
            "from another peer"
        );
    }

    #[test]
    fn a_packet_that_is_cut_or_bent_is_dropped() {
        let mut packet = Vec::new();
        Overlay::new(A, B).wrap(b"hello", &mut packet);
        for len in 0..packet.len() {
            assert_eq!(
                Overlay::new(B, A).unwrap(&packet[..len]),
                None,
                "{len} bytes"
            );
        }
        packet[6] = 6;
        assert_eq!(Overlay::new(B, A).unwrap(&packet), None, "TCP");
    }
}
