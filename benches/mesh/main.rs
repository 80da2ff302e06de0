//! How long it takes until links are up when many nodes come at once.
//!
//! The lab's internet (`tests/lab`): every node is a process with a network namespace of its own, behind a NAT of its own, and what
//! it sends goes through real sockets and a TUN device. The workers are there; then a primary comes, and all of them find each
//! other at the same moment. Everything runs in namespaces that end with the benchmark.

#![cfg_attr(
    target_os = "linux",
    expect(
        clippy::unwrap_used,
        clippy::print_stdout,
        clippy::print_stderr,
        clippy::disallowed_methods,
        reason = "a benchmark is a program of its own, and the lab's modules are a test's"
    )
)]

#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
#[path = "../../tests/lab/internet.rs"]
mod internet;
#[cfg(target_os = "linux")]
#[path = "../../tests/lab/lab.rs"]
#[expect(dead_code, reason = "the lab's stories need more of it")]
mod lab;
#[cfg(target_os = "linux")]
#[path = "../measure/mod.rs"]
mod measure;
#[cfg(target_os = "linux")]
#[path = "../../tests/nat/mod.rs"]
#[expect(dead_code, reason = "the simulation needs more of it")]
mod nat;
#[cfg(target_os = "linux")]
#[path = "../../tests/lab/node.rs"]
mod node;
#[cfg(target_os = "linux")]
#[path = "../../tests/lab/packet.rs"]
#[cfg_attr(test, expect(unused_imports, reason = "its tests are the lab's"))]
mod packet;
#[cfg(target_os = "linux")]
#[path = "../../tests/sim/stun_server.rs"]
mod stun_server;
#[cfg(target_os = "linux")]
#[path = "../../tests/lab/tun.rs"]
mod tun;
#[cfg(target_os = "linux")]
mod virtual_time;
#[cfg(target_os = "linux")]
#[path = "../../tests/sim/world.rs"]
#[expect(dead_code, reason = "the simulation needs more of it")]
mod world;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    bench::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("needs network namespaces, which only Linux has");
}
