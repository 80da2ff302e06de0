//! Object stores as the rendezvous, on real servers: rclone's S3 and WebDAV, Apache's WebDAV. `scripts/test` installs both.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test fails by panicking, shows what it saw, and waits by the clock"
)]

mod calls;
#[path = "../support/crew.rs"]
mod crew;
mod faults;
mod meeting;
mod secrets;
mod server;
mod stage;
