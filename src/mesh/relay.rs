//! Peers that forward for peers: the frames, and who is asked to.
//!
//! ```text
//! 0      4           12            20
//! ┌──────┬───────────┬─────────────┬──────────────────────────┐
//! │ magic│ sender id │ receiver id │ a probe, or WireGuard    │
//! └──────┴───────────┴─────────────┴──────────────────────────┘
//! ```
//! What is inside is authenticated end to end, so the frame itself is not: a relay forwards what comes from the very address
//! at which it reaches the sender, to where it reaches the receiver, one for one and never further. Whoever forges that
//! address gains nothing over sending to the receiver directly.

use std::time::Duration;

use super::probe::{ShortId, short_id};
use crate::session::{NatClass, PeerId};

/// What goes in front of a relayed datagram.
pub type RelayHeader = [u8; HEADER];

/// A relayed datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) sender: ShortId,
    pub(super) receiver: ShortId,
    pub(super) payload: &'a [u8],
}

/// The header of what `sender` has for `receiver`.
pub(super) fn header(sender: &PeerId, receiver: &PeerId) -> RelayHeader {
    let mut header = RelayHeader::default();
    header[..4].copy_from_slice(&MAGIC);
    header[4..12].copy_from_slice(&short_id(sender));
    header[12..].copy_from_slice(&short_id(receiver));
    header
}

/// Whether the bytes claim to be a frame.
pub(super) fn is_frame(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC) && bytes.len() > HEADER
}

/// Reads a frame; `None` if it isn't one, or has another one in it: one hop is all there is.
pub(super) fn read(bytes: &[u8]) -> Option<Frame<'_>> {
    if !is_frame(bytes) {
        return None;
    }
    let (header, payload) = bytes.split_at_checked(HEADER)?;
    Some(Frame {
        sender: header[4..12].try_into().ok()?,
        receiver: header[12..].try_into().ok()?,
        payload,
    })
    .filter(|frame| !is_frame(frame.payload))
}

/// A node that might forward between two others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relay {
    pub(super) peer: PeerId,
    pub(super) nat: NatClass,
}

/// Chooses who is asked to forward between `a` and `b`, who have been without a path for `lacking`.
///
/// Both ends come to the same choice if they know the same nodes: those that are easily reached first, then by a distance
/// that differs from pair to pair, so that a hundred pairs do not all ask the same few. Who does not answer is replaced by
/// the next after a while, round and round.
pub(super) fn choose(
    mut among: Vec<Relay>,
    (a, b): (PeerId, PeerId),
    lacking: Duration,
) -> Vec<PeerId> {
    let distance =
        |relay: &Relay| -> [u8; 32] { std::array::from_fn(|i| relay.peer.0[i] ^ a.0[i] ^ b.0[i]) };
    among.sort_by_cached_key(|relay| (hardness(relay.nat), distance(relay)));
    let rounds = usize::try_from(lacking.as_secs() / ROUND.as_secs()).unwrap_or_default();
    let count = among.len();
    (0..count.min(AT_ONCE))
        .map(|n| among[(rounds * AT_ONCE + n) % count].peer)
        .collect()
}

/// Whether two nodes may well have no direct path: a mapping that depends on the destination meets another one, or a filter.
pub(super) fn is_hard(a: NatClass, b: NatClass) -> bool {
    let open = |class| class == NatClass::None;
    (is_dependent(a) && !open(b)) || (is_dependent(b) && !open(a))
}

/// Whether every destination may see another address.
pub(super) fn is_dependent(class: NatClass) -> bool {
    hardness(class) > hardness(NatClass::Unknown)
}

fn hardness(class: NatClass) -> u8 {
    match class {
        NatClass::None => 0,
        NatClass::EndpointIndependent => 1,
        NatClass::Unknown => 2,
        NatClass::AddressDependent => 3,
        NatClass::AddressAndPortDependent => 4,
    }
}

/// 20 bytes: with them a full tunnel packet over IPv6 still fits into an Ethernet frame.
const HEADER: usize = 20;
/// First byte 100, like a probe's (see `probe.rs`).
const MAGIC: [u8; 4] = *b"dmr\x01";
/// Enough that one of them is reachable from both sides, few enough that 256 nodes do not drown in probes.
const AT_ONCE: usize = 4;
/// Knocks at 0, 200, 500, 1,000, 2,000 and 3,000 ms, and the relayed ones behind them, have had their chance.
const ROUND: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    #[test]
    fn a_frame_is_read_back_and_never_nested() {
        let bytes = [&header(&peer(1), &peer(2))[..], b"payload"].concat();
        let frame = read(&bytes).unwrap();
        assert_eq!((frame.sender, frame.receiver), ([1; 8], [2; 8]));
        assert_eq!(frame.payload, b"payload");
        let nested = [&header(&peer(3), &peer(4))[..], &bytes].concat();
        assert_eq!(read(&nested), None);
        assert_eq!(read(&bytes[..HEADER]), None, "nothing in it");
        assert_eq!(read(b"dmr"), None);
    }

    #[test]
    fn both_ends_ask_the_same_nodes_and_in_time_all_of_them() {
        let among = |count: u8| -> Vec<Relay> {
            let relay = |n| Relay {
                peer: peer(n),
                nat: NatClass::EndpointIndependent,
            };
            (10..10 + count).map(relay).collect()
        };
        let at = |secs| Duration::from_secs(secs);
        let mine = choose(among(20), (peer(1), peer(2)), at(0));
        let mut theirs = among(20);
        theirs.reverse();
        assert_eq!(mine, choose(theirs, (peer(2), peer(1)), at(4)));
        assert_eq!(mine.len(), AT_ONCE);
        let all: BTreeSet<_> = (0..25)
            .step_by(5)
            .flat_map(|secs| choose(among(20), (peer(1), peer(2)), at(secs)))
            .collect();
        assert_eq!(all.len(), 20);
        assert_eq!(choose(among(2), (peer(1), peer(2)), at(7)).len(), 2);
        assert!(choose(vec![], (peer(1), peer(2)), at(0)).is_empty());
    }

    #[test]
    fn the_easily_reached_are_asked_first() {
        let relay = |n, nat| Relay { peer: peer(n), nat };
        let among = vec![
            relay(1, NatClass::AddressAndPortDependent),
            relay(2, NatClass::EndpointIndependent),
            relay(3, NatClass::None),
            relay(4, NatClass::Unknown),
            relay(5, NatClass::EndpointIndependent),
        ];
        let chosen = choose(among, (peer(8), peer(9)), Duration::ZERO);
        assert_eq!(chosen[0], peer(3));
        assert!(!chosen.contains(&peer(1)));
    }

    #[test]
    fn a_pair_is_hard_when_a_dependent_mapping_meets_a_nat() {
        use NatClass::{AddressAndPortDependent, EndpointIndependent, None, Unknown};
        assert!(is_hard(AddressAndPortDependent, EndpointIndependent));
        assert!(is_hard(EndpointIndependent, AddressAndPortDependent));
        assert!(is_hard(AddressAndPortDependent, AddressAndPortDependent));
        assert!(!is_hard(AddressAndPortDependent, None));
        assert!(!is_hard(EndpointIndependent, EndpointIndependent));
        assert!(!is_hard(Unknown, EndpointIndependent));
    }
}
