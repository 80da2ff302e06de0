//! How a peer is reached.

use std::{fmt, net::SocketAddr};

use crate::session::PeerId;

/// A way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// Straight to an address.
    Direct(SocketAddr),
    /// Through another peer, which forwards ciphertext.
    Relayed(PeerId),
}

impl Route {
    /// The address, if it is a direct one.
    pub fn direct(self) -> Option<SocketAddr> {
        match self {
            Self::Direct(addr) => Some(addr),
            Self::Relayed(_) => None,
        }
    }

    /// The relay, if it is a relayed one.
    pub fn relay(self) -> Option<PeerId> {
        match self {
            Self::Direct(_) => None,
            Self::Relayed(relay) => Some(relay),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(addr) => write!(f, "direct, {addr}"),
            Self::Relayed(relay) => write!(f, "relayed by {relay}"),
        }
    }
}
