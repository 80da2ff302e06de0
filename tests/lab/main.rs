//! The network lab: real processes, real sockets and real packets between network namespaces, over an internet in user space.
//!
//! A site is a network with one way out; its machines are namespaces whose only device is a TUN that ends in this process
//! (`tun.rs`). `internet.rs` reads all of them, sends what they say through the NAT boxes of `tests/nat`, delays it or loses it,
//! and delivers it. A story (`lab.rs`) runs in network, mount and process namespaces of its own: nothing of it can be left
//! behind, and stories run side by side. The simulation (`tests/sim`) speaks of paths; the lab proves links.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what was measured, and what went wrong"
)]
#![expect(clippy::disallowed_methods, reason = "a test is a shell")]

mod builds;
mod chaos;
mod ear;
mod faults;
mod gossip;
mod internet;
mod kernel;
mod lab;
mod links;
mod matrix;
#[path = "../nat/mod.rs"]
mod nat;
mod node;
mod packet;
mod packets;
mod soak;
mod tun;
