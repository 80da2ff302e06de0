//! The check that a worker compiles what the primary would.
//!
//! Before a worker gets a job with a given compiler, its compiler's [`CompilerIdentity`] is compared with the primary's.

mod identity;

pub use identity::CompilerIdentity;
