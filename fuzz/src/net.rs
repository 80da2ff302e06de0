//! Nodes in virtual time, without a network between them but this one.

use std::{
    net::SocketAddr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use distmesh::{
    mesh::{Mesh, MeshConfig, Transmit},
    session::{PeerId, Role},
};

/// The STUN server that every node asks and that says nothing by itself.
pub(crate) const SERVER: &str = "192.0.2.250:3478";

/// One node and where it is.
pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) addr: SocketAddr,
}

/// A primary and a worker that do not hear each other, and a second worker that both hear.
pub(crate) struct Net {
    pub(crate) nodes: [Node; 3],
    pub(crate) now: Instant,
}

impl Net {
    /// Runs until the second worker relays.
    pub(crate) fn relayed() -> Self {
        let roles = [Role::Primary, Role::Worker, Role::Worker];
        let mut n = 0;
        let nodes = roles.map(|role| {
            n += 1;
            node(n, role)
        });
        let mut net = Self {
            nodes,
            now: epoch(),
        };
        net.introduce();
        let end = net.now + Duration::from_secs(4);
        while net.now < end {
            net.advance();
        }
        net
    }

    fn introduce(&mut self) {
        let descriptors: Vec<_> = self.nodes.iter().map(|n| n.mesh.descriptor()).collect();
        for node in &mut self.nodes {
            let me = node.mesh.descriptor().peer;
            for other in descriptors.iter().filter(|other| other.peer != me) {
                let key = std::array::from_fn(|i| me.0[i] ^ other.peer.0[i]);
                node.mesh.handle_descriptor(other.clone(), key, self.now);
            }
        }
    }

    /// Goes on to the next deadline, and delivers until there is silence.
    fn advance(&mut self) {
        let due = self.nodes.iter().filter_map(|n| n.mesh.poll_timeout());
        self.now = due.min().unwrap_or(self.now).max(self.now);
        for index in 0..self.nodes.len() {
            self.nodes[index].mesh.handle_timeout(self.now);
            self.deliver(index);
        }
    }

    fn deliver(&mut self, from: usize) {
        while let Some(Transmit { to, payload, .. }) = self.nodes[from].mesh.poll_transmit() {
            let receiver = self.nodes.iter().position(|node| node.addr == to);
            // The first two are those that do not hear each other.
            if let Some(receiver) = receiver.filter(|receiver| receiver + from != 1) {
                let source = self.nodes[from].addr;
                self.nodes[receiver]
                    .mesh
                    .handle_datagram(source, &payload, self.now);
                self.deliver(receiver);
            }
        }
        while self.nodes[from].mesh.poll_event().is_some() {}
    }
}

/// A node that knows nobody yet.
pub(crate) fn node(n: u8, role: Role) -> Node {
    let addr = SocketAddr::from(([192, 0, 2, n], 5000));
    let config = MeshConfig {
        me: PeerId([n; 32]),
        role,
        name: format!("node{n}").parse().expect("it is a name"),
        start_ms: 0,
        stream_key: [n; 32],
        host_candidates: vec![addr],
        stun_servers: vec![SERVER.parse().expect("it is an address")],
        seed: [n; 32],
    };
    Node {
        mesh: Mesh::new(config, epoch()),
        addr,
    }
}

/// What a node has to send now.
pub(crate) fn sent(mesh: &mut Mesh) -> Vec<Transmit> {
    std::iter::from_fn(|| mesh.poll_transmit()).collect()
}

/// The moment at which everything begins.
pub(crate) fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do as the epoch"
    )]
    *EPOCH.get_or_init(Instant::now)
}
