//! From a peer's descriptor to a proven path.
//!
//! A **candidate** is an address at which a node may be reached: **host** (one of its interfaces), **server-reflexive**
//! (what a STUN server saw) or **peer-reflexive** (what a peer saw). Nodes send authenticated **probes** to every candidate
//! of a peer, from the very socket that will carry the data and at full TTL, so that both NATs open their filters. The first
//! **pong** proves a **path**: an address that answers. `tunnel` then runs WireGuard over it. Where no address answers, the
//! same probes go through **relays**: peers that have a path to both ends.
//!
//! ```text
//! Mesh (node.rs) ─┬─ Stun (stun.rs): binding transactions → server-reflexive candidates → NatClass (nat.rs)
//!                 └─ Peer (peer.rs), one each ─┬─ Punch (punch.rs), one a route: cadence, answers, round-trip time
//!                                              └─ Liveness (liveness.rs): punching → up → suspect → down
//!      route.rs: direct or relayed    relay.rs: who forwards, and the frames    approach.rs: how far a probe may travel
//!      choice.rs: which of two routes is better    obstacle.rs: why there is none
//!      probe.rs: the probes' bytes    transaction.rs: their ids    replay.rs: which were heard    datagram.rs: whose is it?
//! ```
//!
//! Everything is pure: time and the seed are arguments, datagrams go out through [`Mesh::poll_transmit`]. After each
//! `handle_*`, drain `poll_transmit` and `poll_event`, then sleep until `poll_timeout`.
//!
//! Invariants:
//! - Nothing is believed that is not authenticated or the answer to an own question: a STUN response counts from the server
//!   that was asked and for an outstanding transaction; a probe under the pair's key; a pong for an outstanding ping, from
//!   the address that was pinged.
//! - Only an answer to an own ping proves a path or keeps it. A ping that is heard, perhaps replayed, gets a pong and at most
//!   makes its source a candidate to be checked.
//! - A way is taken only if a datagram as long as the tunnel's was answered on it.
//! - Probing never ends, except when a peer says goodbye or a restarted one takes its place.
//! - A node that was itself frozen blames nobody: its deadlines move by the gap.
//! - After `handle_timeout(now)`, `poll_timeout` is later than `now`, or `None`.
//! - What a peer or a server sends bounds nothing but itself: candidates per peer and outstanding transactions are capped.

mod approach;
mod choice;
mod datagram;
mod liveness;
mod nat;
mod node;
mod obstacle;
mod outbox;
mod peer;
mod probe;
mod punch;
mod relay;
mod replay;
mod route;
mod stun;
mod transaction;

pub use datagram::{Kind, classify_datagram, is_full_probe};
pub use nat::{Observation, classify as classify_nat};
pub use node::{Datagram, Mesh, MeshConfig};
pub use obstacle::Obstacle;
pub use outbox::{MeshEvent, Transmit};
pub use probe::FULL_LENGTH as FULL_PROBE;
pub use relay::RelayHeader;
pub use route::Route;
