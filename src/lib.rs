//! One C or C++ build on several machines that cannot reach each other.
//!
//! A **primary** owns the source and runs the build; **workers** compile for it with stock `distccd`. Each room below is
//! one subject; imports run one way only:
//!
//! ```text
//! commands → roles (primary, worker, control) → {build, dispatch, report}
//!          → {admission, distcc, tunnel} → {mesh, rendezvous} → session → event
//! ```
//!
//! In every room the logic is pure (time, randomness and the environment are arguments) and stands beside one thin shell
//! that does the input and output. `ARCHITECTURE.md` has the picture and the two journeys through it.

pub mod admission;
pub mod build;
pub mod cli;
pub mod commands;
pub mod control;
pub mod dispatch;
pub mod distcc;
pub mod error;
pub mod event;
pub mod machine;
pub mod mesh;
pub mod node;
pub mod primary;
pub mod rendezvous;
pub mod report;
pub mod session;
pub mod tunnel;
pub mod ui;
pub mod wire;
pub mod worker;
