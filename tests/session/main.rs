//! The whole program on this machine: workers and builds as separate processes, real distcc, distccd, make, cmake, ninja.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test fails by panicking, shows what it saw, and waits by the clock"
)]

mod cluster;
mod forms;
mod mishaps;
mod networks;
mod primaries;
mod targets;
mod toolbox;
mod toolchains;
mod workers;
