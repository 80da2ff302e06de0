//! What a node publishes about itself.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{NodeName, PeerId, Role};

/// A node's self-description, as it is before sealing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// What the node is.
    pub role: Role,
    /// Its label.
    pub name: NodeName,
    /// When the process started, in Unix milliseconds: orders the runs of one node.
    pub start_ms: u64,
    /// Counts this run's descriptors from 1: a changed mapping is a new sequence number.
    pub seq: u64,
    /// WireGuard public key.
    pub peer: PeerId,
    /// Ed25519 public key (RFC 8032) that the node's QUIC endpoint presents as a raw public key (RFC 7250).
    pub stream_key: [u8; 32],
    /// Where the node may be reached.
    pub candidates: Vec<Candidate>,
    /// What its NAT does, as far as it knows.
    pub nat: NatClass,
}

impl Descriptor {
    /// Orders descriptors of the same node: the larger one is newer.
    pub fn version(&self) -> (u64, u64) {
        (self.start_ms, self.seq)
    }
}

/// An address at which a node may be reached (ICE, RFC 8445 section 5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// How the address was learnt.
    pub kind: CandidateKind,
    /// The address itself.
    pub addr: SocketAddr,
}

/// How a candidate was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CandidateKind {
    /// An address of one of the node's own interfaces.
    Host,
    /// What a STUN server saw.
    ServerReflexive,
    /// What a peer saw.
    PeerReflexive,
    /// A peer that forwards.
    Relayed,
}

impl fmt::Display for NatClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        })
    }
}

/// What a node's NAT does, in the terms of RFC 4787 section 4.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum NatClass {
    /// Too few STUN answers to tell.
    #[default]
    Unknown,
    /// The mapped address is one of the node's own.
    None,
    /// Endpoint-independent mapping: every destination sees the same address and port.
    EndpointIndependent,
    /// The mapping depends on the destination's address.
    AddressDependent,
    /// The mapping depends on the destination's address and port.
    AddressAndPortDependent,
}
