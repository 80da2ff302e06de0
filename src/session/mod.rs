//! Who takes part in a cluster, and how they recognise each other.
//!
//! - A **session** is one cluster: everybody who shares its [`SessionName`] and its secret.
//! - A **node** is one running `distmesh`. Its identity is its WireGuard public key ([`PeerId`]), made fresh at every
//!   start; its [`NodeName`] is only a label.
//! - A **descriptor** is what a node publishes about itself. It is **sealed**: encrypted and authenticated under a key
//!   derived from the secret, with session, role, public key and sequence as associated data.
//! - Descriptors are ordered by ([`Descriptor::start_ms`], [`Descriptor::seq`]): a restarted node never loses to its own
//!   ghost.
//!
//! Invariants: private keys live in memory only and are zeroised; nothing here prints or logs a key or the secret.

mod descriptor;
mod identity;
mod keys;
mod names;
mod paths;
mod peer;
mod private;
mod sealed;
mod secret;

pub use descriptor::{Candidate, CandidateKind, Descriptor, NatClass};
pub use identity::{Identity, IdentityError};
pub use keys::{KeyError, PairKeys, SessionKeys};
pub use names::{InvalidName, NodeName, Role, SessionName};
pub use paths::{PathError, PrimaryLock, RuntimeDir, SessionDir};
pub use peer::PeerId;
pub use private::PrivateDir;
pub use sealed::{MAX_CANDIDATES, MAX_SEALED, OpenError, open, seal};
pub use secret::{Secret, SecretError};
