//! What the machines of this room have to say.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use super::{approach::NEAR_TTL, obstacle::Obstacle, route::Route};
use crate::session::PeerId;

/// One datagram to be sent from the node's data socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// The bytes.
    pub payload: Vec<u8>,
    /// How many routers it may pass; `None` for the system's choice.
    pub ttl: Option<u8>,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshEvent {
    /// [`super::Mesh::descriptor`] has a new sequence number: publish it.
    DescriptorChanged,
    /// The peer can be reached, for the first time or after [`MeshEvent::PathDown`].
    PathUp {
        /// Who.
        peer: PeerId,
        /// The way that answers.
        route: Route,
    },
    /// The peer is better reached another way from now on.
    PathMoved {
        /// Who.
        peer: PeerId,
        /// The way that answers.
        route: Route,
    },
    /// The peer has been silent for too long to trust it with a job.
    PathSuspect {
        /// Who.
        peer: PeerId,
        /// Since its last sign of life.
        silent_for: Duration,
    },
    /// A suspect peer answers again.
    PathRecovered {
        /// Who.
        peer: PeerId,
    },
    /// The peer has not been reachable for a while; probing goes on.
    Unreachable {
        /// Who.
        peer: PeerId,
        /// Why, as far as can be told.
        obstacle: Obstacle,
    },
    /// No peer at all was ever reachable, for a while now: what the NAT remembers of this socket may be the reason, and a fresh one
    /// the cure.
    Stuck,
    /// The peer is not reachable any more, said goodbye, or was replaced by its restarted self.
    PathDown {
        /// Who.
        peer: PeerId,
    },
    /// The peer was replaced by its restarted self, which has another key: nothing of it is ever needed again.
    Forgotten {
        /// Who it was.
        peer: PeerId,
    },
}

/// Where the machines put their output until it is polled.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<MeshEvent>,
    /// What is to go through a relay: it finds its first hop when it is polled.
    pub(super) relayed: VecDeque<Relayed>,
    /// A peer saw us change or cannot be heard: ask the STUN servers whether our mapping is still the same.
    pub(super) wants_stun: bool,
}

/// A datagram for a peer, through another.
#[derive(Debug)]
pub(super) struct Relayed {
    pub(super) relay: PeerId,
    pub(super) to: PeerId,
    pub(super) payload: Vec<u8>,
}

impl Outbox {
    /// Sends to a peer, this way.
    pub(super) fn send_by(&mut self, route: Route, peer: PeerId, payload: Vec<u8>) {
        match route {
            Route::Direct(addr) => self.send(addr, payload),
            Route::Relayed(relay) => self.relayed.push_back(Relayed {
                relay,
                to: peer,
                payload,
            }),
        }
    }

    /// Sends what is to open our own NAT and nothing else.
    pub(super) fn send_near(&mut self, to: SocketAddr, payload: Vec<u8>) {
        self.transmits.push_back(Transmit {
            to,
            payload,
            ttl: Some(NEAR_TTL),
        });
    }

    pub(super) fn send(&mut self, to: SocketAddr, payload: Vec<u8>) {
        self.transmits.push_back(Transmit {
            to,
            payload,
            ttl: None,
        });
    }

    pub(super) fn tell(&mut self, event: MeshEvent) {
        self.events.push_back(event);
    }
}
