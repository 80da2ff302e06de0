//! The tunnel as the roles use it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    driver::{self, Command},
    stream::Stream,
};
use crate::{
    event::LinkState,
    mesh::Route,
    session::{Descriptor, Identity, NatClass, NodeName, PeerId, Role, SessionKeys},
};

/// Everything a tunnel has to be told.
pub struct TunnelConfig {
    /// This node's keys.
    pub identity: Identity,
    /// The session's keys.
    pub keys: Arc<SessionKeys>,
    /// What the node is: links are made between a primary and workers.
    pub role: Role,
    /// The node's label.
    pub name: NodeName,
    /// When the process started, in Unix milliseconds.
    pub start_ms: u64,
    /// Local UDP address; `None` for any port on all addresses.
    pub bind: Option<SocketAddr>,
    /// STUN servers.
    pub stun: Vec<SocketAddr>,
}

/// A handle to the loop that owns the socket. When the last one is dropped the loop says goodbye and ends.
#[derive(Clone)]
pub struct Tunnel {
    pub(super) command: mpsc::UnboundedSender<Command>,
    pub(super) described: watch::Receiver<Descriptor>,
    pub(super) local: SocketAddr,
}

/// What happened.
pub enum TunnelEvent {
    /// A link changed state.
    Link {
        /// The peer.
        peer: PeerId,
        /// Its label.
        name: NodeName,
        /// What it is.
        role: Role,
        /// The state now.
        state: LinkState,
        /// Why, in words.
        reason: String,
        /// How the peer is reached, while it is.
        route: Option<Route>,
        /// What the peer's NAT does, as far as it knows.
        nat: NatClass,
        /// Round-trip time of the path, once it is known.
        rtt: Option<Duration>,
    },
    /// The peer opened a stream.
    Incoming {
        /// The peer.
        peer: PeerId,
        /// The stream.
        stream: Stream,
    },
    /// The peer said goodbye; it is forgotten.
    PeerClosed {
        /// The peer.
        peer: PeerId,
        /// What it said.
        reason: String,
    },
}

/// A tunnel that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The UDP socket cannot be bound.
    #[error("cannot bind a UDP socket{}", .addr.map(|addr| format!(" to {addr}")).unwrap_or_default())]
    Bind {
        /// The address that was asked for.
        addr: Option<SocketAddr>,
        /// Why.
        source: io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}

/// A stream that cannot be opened: the link is not up, or has all the streams it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no stream to peer {peer}: the link is not up")]
pub struct StreamError {
    /// The peer.
    pub peer: PeerId,
}

impl Tunnel {
    /// Binds the socket and starts the loop; has to be called inside a tokio runtime.
    pub fn start(
        config: TunnelConfig,
    ) -> Result<(Self, mpsc::UnboundedReceiver<TunnelEvent>), TunnelError> {
        driver::start(config)
    }

    /// Tells of a peer; a newer descriptor of a known one adds to its candidates.
    pub fn peer_found(&self, descriptor: Descriptor) {
        self.tell(Command::Found(descriptor));
    }

    /// This node's own descriptor, each time it changes.
    pub fn descriptor(&self) -> watch::Receiver<Descriptor> {
        self.described.clone()
    }

    /// Opens a stream.
    pub async fn open(&self, peer: PeerId) -> Result<Stream, StreamError> {
        let (reply, stream) = oneshot::channel();
        self.tell(Command::Open(peer, reply));
        stream.await.unwrap_or(Err(StreamError { peer }))
    }

    /// Ends the link to a peer and stops looking for it.
    pub fn forget(&self, peer: PeerId) {
        self.tell(Command::Forget(peer));
    }

    /// The socket's own address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Says goodbye to every peer, so that they notice at once, and ends the loop.
    pub async fn stop(&self, reason: &str) {
        let (done, ended) = oneshot::channel();
        self.tell(Command::Stop(reason.to_owned(), done));
        // An error means that the loop had ended before.
        drop(ended.await);
    }

    fn tell(&self, command: Command) {
        // After a stop there is nobody to tell, and nothing to do.
        drop(self.command.send(command));
    }
}
