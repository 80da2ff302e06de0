//! The wrapped command: its environment, its compilers and its jobserver.
//!
//! A private **build dir** stands first on PATH. Its links all lead to this program, which looks at the name it was called
//! by ([`shim`]). A **compiler shim** decides by its [`arguments`] whether distcc may have the compile; a **tool shim**
//! rewrites `-j` ([`jobs`]) so that make takes its tokens from the [`broker`], which grants one only while this machine or
//! a worker has room for it. CMake gets a stable **launcher** instead, so that its cache names only real compilers.
//!
//! Invariant: whatever goes wrong in here, the real tool still runs with the arguments that were typed.

pub mod arguments;
pub mod broker;
pub mod jobs;
pub mod layout;
mod run;
pub mod shim;

pub use run::{BuildError, BuildOptions, BuildOutcome, Notice, run};
