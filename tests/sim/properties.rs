//! What holds for any input at all.

use std::time::Duration;

use distmesh::{
    mesh::{Mesh, MeshConfig},
    session::{Candidate, CandidateKind, Descriptor, NatClass, PeerId, Role},
};
use proptest::{collection::vec, prelude::*};

use crate::world::{epoch, probe_key};

const ME: PeerId = PeerId([1; 32]);
const PEER: PeerId = PeerId([2; 32]);

fn mesh() -> Mesh {
    let config = MeshConfig {
        me: ME,
        role: Role::Primary,
        name: "me".parse().unwrap(),
        start_ms: 0,
        stream_key: [0; 32],
        host_candidates: vec!["192.0.2.2:5000".parse().unwrap()],
        stun_servers: vec!["192.0.2.1:3478".parse().unwrap()],
        seed: [3; 32],
    };
    Mesh::new(config, epoch())
}

fn descriptor(seq: u64, candidates: &[([u8; 4], u16)]) -> Descriptor {
    Descriptor {
        role: Role::Worker,
        name: "peer".parse().unwrap(),
        start_ms: 0,
        seq,
        peer: PEER,
        stream_key: [0; 32],
        candidates: candidates
            .iter()
            .map(|addr| Candidate {
                kind: CandidateKind::Host,
                addr: (*addr).into(),
            })
            .collect(),
        nat: NatClass::Unknown,
    }
}

/// Bytes that are more likely than chance to be taken for something.
fn plausible_bytes() -> impl Strategy<Value = Vec<u8>> {
    let heads: Vec<Vec<u8>> = vec![
        vec![],
        b"dmp\x01".to_vec(),
        [b"dmp\x01\x01".as_slice(), &[2; 8], &[1; 8]].concat(),
        [b"dmp\x01\x02".as_slice(), &[2; 8], &[1; 8]].concat(),
        vec![1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42],
        vec![1, 0, 0, 0],
    ];
    (
        prop::sample::select(heads),
        vec(any::<u8>(), 0..160),
        any::<bool>(),
    )
        .prop_map(|(head, tail, probe_sized)| {
            let mut bytes = [head, tail].concat();
            if probe_sized {
                bytes.resize(83, 0);
            }
            bytes
        })
}

#[derive(Clone, Debug)]
enum Input {
    Timeout,
    Datagram(Vec<u8>),
    Descriptor(u64, Vec<([u8; 4], u16)>),
    Traffic,
    Hosts(u16),
    Goodbye(u8),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        4 => Just(Input::Timeout),
        1 => plausible_bytes().prop_map(Input::Datagram),
        1 => (0..5_u64, vec(any::<([u8; 4], u16)>(), 0..50)).prop_map(|(seq, c)| Input::Descriptor(seq, c)),
        1 => Just(Input::Traffic),
        1 => any::<u16>().prop_map(Input::Hosts),
        1 => (2..6_u8).prop_map(Input::Goodbye),
    ]
}

proptest! {
    #[test]
    fn a_datagram_of_any_bytes_changes_nothing(bytes in plausible_bytes(), port in 1..u16::MAX) {
        let mut mesh = mesh();
        mesh.handle_descriptor(descriptor(1, &[([192, 0, 2, 9], 9)]), probe_key(ME, PEER), epoch());
        mesh.handle_timeout(epoch());
        while mesh.poll_transmit().is_some() {}
        let (own, timeout) = (mesh.descriptor(), mesh.poll_timeout());
        for from in [([192, 0, 2, 1], 3478), ([192, 0, 2, 9], 9), ([192, 0, 2, 7], port)] {
            mesh.handle_datagram(from.into(), &bytes, epoch() + Duration::from_millis(1));
        }
        prop_assert_eq!(mesh.poll_transmit(), None);
        prop_assert_eq!(mesh.poll_event(), None);
        prop_assert_eq!(mesh.path(PEER), None);
        prop_assert_eq!(mesh.descriptor(), own);
        prop_assert_eq!(mesh.poll_timeout(), timeout);
    }

    #[test]
    fn after_a_timeout_was_handled_the_next_is_later(inputs in vec((input(), 0..5_000_u64), 1..60)) {
        let mut mesh = mesh();
        let mut now = epoch();
        for (input, wait) in inputs {
            now += Duration::from_millis(wait);
            match input {
                Input::Timeout => {}
                Input::Datagram(bytes) => {
                    mesh.handle_datagram(([192, 0, 2, 9], 9).into(), &bytes, now);
                }
                Input::Descriptor(seq, candidates) => {
                    mesh.handle_descriptor(descriptor(seq, &candidates), probe_key(ME, PEER), now);
                }
                Input::Traffic => mesh.handle_traffic(PEER, now),
                Input::Hosts(port) => mesh.handle_host_addresses(vec![([192, 0, 2, 2], port).into()], now),
                Input::Goodbye(peer) => mesh.handle_goodbye(PeerId([peer; 32]), now),
            }
            mesh.handle_timeout(now);
            prop_assert!(mesh.poll_timeout().is_none_or(|next| next > now));
            // 32 candidates and a STUN server; nothing a peer says makes it more.
            let sent = std::iter::from_fn(|| mesh.poll_transmit()).count();
            prop_assert!(sent <= 40, "{sent} datagrams at once");
        }
    }
}
