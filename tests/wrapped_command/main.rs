//! The wrapped command with the real make, cmake, ninja, distcc, distccd, ccache and compilers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a test is a shell")]

mod adapting;
mod cmake;
mod distributing;
mod ending;
mod flags;
mod jobserver;
mod stage;
#[path = "../support/mod.rs"]
mod support;
