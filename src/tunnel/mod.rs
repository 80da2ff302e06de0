//! Streams to a peer over a path: QUIC inside WireGuard.
