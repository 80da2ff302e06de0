//! What stock distcc 3.4 says on the wire and reads from its files.
//!
//! - [`RequestParser`] and [`ResponseParser`] find the boundaries of a job in chunks of any size. They keep the arguments,
//!   never the bodies, and never allocate from an announced length.
//! - [`HostLine`] is one entry of the host list; [`hosts_file`] and [`hosts_env`] are the two forms of the list.
//! - [`backoff_shield`] keeps distcc from benching a port because one source file has an error.
//! - [`Daemon`] runs the worker's distccd, and [`relay()`] carries one job to it: the two parts with input and output.

mod backoff;
mod call;
pub mod client;
mod daemon;
mod framing;
mod hosts;
mod relay;

pub use backoff::{backoff_shield, backoff_unshield};
pub use call::{TAKES_VALUE, target};
pub use daemon::{
    CanaryFailure, CompileLine, CompileOutcome, Daemon, DaemonConfig, DaemonError, DaemonEvent,
    Health, Pace, daemon_search,
};
pub use framing::{Arguments, Fed, Malformed, RequestParser, ResponseParser, hand_back_answer};
pub use hosts::{HostLine, hosts_env, hosts_file};
pub use relay::{RelayError, relay};
