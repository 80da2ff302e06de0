//! Streams to a peer over a path: QUIC inside WireGuard.
//!
//! - [`Streams`] is one side of a QUIC connection (`quinn-proto`): pure, driven by datagrams and time. Each side proves the
//!   raw public key that its sealed descriptor names.
//! - `wireguard.rs` encrypts those datagrams for one peer (boringtun, which keeps its own clock); `overlay.rs` puts the inner
//!   IPv6 and UDP headers around them.
//! - `link.rs` puts both together: `punching → handshaking → up → suspect → down`, and back; `attempts.rs` says when a connection that
//!   failed is tried again.
//! - `driver.rs` is the shell: one task owns the one UDP socket, the mesh and all links. [`Tunnel`] is the handle.
//!
//! Invariants: what arrives is believed only after WireGuard *and* QUIC have authenticated it; only the node with the lower
//! public key initiates; a writer that is not read is held back; a reset reaches the peer in one trip; when a path goes
//! down its streams fail at once; a change of path is invisible to streams.

mod addresses;
mod alarm;
mod attempts;
mod congestion;
mod datagrams;
mod driver;
mod handle;
mod link;
mod overlay;
mod pinned;
mod socket;
mod stream;
mod streams;
mod wireguard;

pub use handle::{StreamError, Tunnel, TunnelConfig, TunnelError, TunnelEvent};
pub use overlay::overlay_address;
pub use stream::{RecvStream, SendStream, Stream};
pub use streams::{Read, Side, StreamId, Streams, StreamsError, StreamsEvent, Written};
