//! Datagrams on the data socket, from whatever address: probes, frames to be forwarded, WireGuard, and anything else.

use std::{cell::Cell, net::SocketAddr};

use distmesh::mesh::{Datagram, Kind, Mesh, Transmit, classify_datagram};

use super::net::{Net, Node, SERVER, sent};

/// A pong, a ping at the address that was just heard of, and a ping that was due anyway.
const MOST_ANSWERS: usize = 3;
/// What stands in front of a relayed datagram.
const HEADER: usize = 20;
/// A probe has one length.
const FRAMED_PROBE: usize = HEADER + 83;

/// Checks one datagram, sent to three nodes from everywhere. None of them can have been written for it by somebody who knows the
/// keys; at best it was overheard.
pub fn check(bytes: &[u8]) {
    thread_local! {
        static NET: Cell<Option<Net>> = const { Cell::new(None) };
    }
    let mut net = NET.take().unwrap_or_else(Net::relayed);
    let mut addrs = net.nodes.each_ref().map(|node| node.addr).to_vec();
    addrs.push(SocketAddr::from(([198, 51, 100, 7], 7)));
    addrs.push(SERVER.parse().expect("it is an address"));
    let peers = net.nodes.each_ref().map(|node| node.mesh.descriptor().peer);
    let mut heard = 0;
    for Node { mesh, addr } in &mut net.nodes {
        let state = |mesh: &Mesh| (peers.map(|peer| mesh.path(peer)), mesh.descriptor());
        let before = state(mesh);
        for from in addrs.iter().filter(|from| *from != addr) {
            check_class(bytes, mesh.handle_datagram(*from, bytes, net.now));
            let answers = sent(mesh);
            check_answers(bytes, &answers, &addrs);
            heard += answers.len();
            assert_eq!(mesh.poll_event(), None);
            assert_eq!(state(mesh), before);
        }
        mesh.handle_timeout(net.now);
        heard += sent(mesh).len();
        assert!(mesh.poll_timeout().is_none_or(|due| due > net.now));
    }
    // To make a net takes its time: one that heard nothing it knows is as good as new.
    if heard == 0 {
        NET.set(Some(net));
    }
}

/// Nobody is flooded by what is sent to somebody else.
fn check_answers(bytes: &[u8], answers: &[Transmit], addrs: &[SocketAddr]) {
    assert!(answers.len() <= MOST_ANSWERS, "{answers:?}");
    for answer in answers {
        assert!(addrs.contains(&answer.to), "{answer:?}");
        assert!(answer.payload.len() <= bytes.len().max(FRAMED_PROBE));
        assert!(!is_nested(&answer.payload), "one hop is all there is");
    }
}

fn is_nested(bytes: &[u8]) -> bool {
    let is_frame = |bytes| classify_datagram(bytes) == Kind::Relayed;
    is_frame(bytes) && bytes.get(HEADER..).is_some_and(is_frame)
}

/// What is handed to WireGuard looks like it, and is the datagram or the end of it.
fn check_class(bytes: &[u8], datagram: Datagram<'_>) {
    let kind = classify_datagram(bytes);
    match datagram {
        Datagram::WireGuard(inner) => {
            assert!(matches!(kind, Kind::WireGuard | Kind::Relayed));
            assert!(bytes.ends_with(inner) && classify_datagram(inner) == Kind::WireGuard);
        }
        Datagram::Taken => assert!(!matches!(kind, Kind::WireGuard | Kind::Unknown)),
        Datagram::Unknown => assert!(matches!(kind, Kind::Relayed | Kind::Unknown)),
    }
}
