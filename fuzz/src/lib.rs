//! What holds for any bytes that a peer, a server or a local client may send.
//!
//! Each module has one function, `check`, which panics where something does not hold. The fuzz targets give it what they
//! invent, `tests/corpus.rs` what they found: it includes this file, so that both check the same.

pub mod datagram;
pub mod descriptor;
pub mod message;
pub mod request;
pub mod response;
pub mod stun;

mod net;
mod splits;
