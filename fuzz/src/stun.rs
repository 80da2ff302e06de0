//! A STUN server's answer.

use std::net::{IpAddr, SocketAddr};

use distmesh::{
    mesh::{Mesh, Transmit},
    session::{CandidateKind, Role},
};

use super::net::{epoch, node, sent};

/// Where a STUN message has its transaction id (RFC 8489 section 5).
const ID: std::ops::Range<usize> = 8..20;

/// Checks one datagram from the server: as it is, and as the answer to what was asked.
pub fn check(bytes: &[u8]) {
    let (mut mesh, request) = asked();
    let before = mesh.descriptor();
    let mut answer = bytes.to_vec();
    if let Some(id) = answer.get_mut(ID) {
        id.copy_from_slice(&request.payload[ID]);
    }
    let stranger = SocketAddr::from(([198, 51, 100, 7], 7));
    mesh.handle_datagram(stranger, &answer, epoch());
    assert_eq!(mesh.descriptor(), before, "it was not asked");
    for bytes in [bytes, &answer] {
        mesh.handle_datagram(request.to, bytes, epoch());
        check_state(&mut mesh);
    }
    let believed = mesh.descriptor();
    mesh.handle_datagram(request.to, &answer, epoch());
    assert_eq!(mesh.descriptor(), believed, "a replay");
}

/// A node that has just asked its server.
fn asked() -> (Mesh, Transmit) {
    let mut mesh = node(1, Role::Worker).mesh;
    mesh.handle_timeout(epoch());
    let request = sent(&mut mesh).pop().expect("it asks its server");
    (mesh, request)
}

fn check_state(mesh: &mut Mesh) {
    let descriptor = mesh.descriptor();
    let [host, reflexive @ ..] = &descriptor.candidates[..] else {
        panic!("it has an address of its own");
    };
    assert_eq!(host.kind, CandidateKind::Host);
    assert!(reflexive.len() <= 1);
    for candidate in reflexive {
        assert_eq!(candidate.kind, CandidateKind::ServerReflexive);
        let (ip, port) = (candidate.addr.ip(), candidate.addr.port());
        assert!(port != 0 && !ip.is_unspecified() && !ip.is_multicast());
        assert!(ip != IpAddr::from([255; 4]));
    }
    assert!(sent(mesh).is_empty(), "an answer is not answered");
    mesh.handle_timeout(epoch());
    assert!(mesh.poll_timeout().is_some_and(|due| due > epoch()));
}
