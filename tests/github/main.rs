//! The rendezvous of GitHub Actions runs, against a fake GitHub on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test fails by panicking, shows what it saw, and waits by the clock"
)]

#[path = "../support/crew.rs"]
mod crew;
mod exchange;
mod fake;
mod faults;
mod nodes;
mod npm;
mod runs;
mod stage;
