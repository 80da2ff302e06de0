//! Streams to a peer over a path: QUIC inside WireGuard.
//!
//! - [`Streams`] is one side of a QUIC connection (`quinn-proto`): pure, driven by datagrams and time. Each side proves the
//!   raw public key that its sealed descriptor names.
//!
//! Invariants: what arrives is believed only after WireGuard *and* QUIC have authenticated it; a writer that is not read
//! is held back; a reset reaches the peer in one trip; a change of path is invisible to streams.

mod congestion;
mod pinned;
mod streams;

pub use streams::{Read, Side, StreamId, Streams, StreamsError, StreamsEvent, Written};
