//! A router that translates addresses, for each machine: Linux's masquerading, as a home router or a cloud's gateway does it.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{
    run,
    runner::{Namespace, address},
};

/// The routers' outer ends meet here.
const WAN: &str = "wan";
/// Two addresses, so that a node can see whether its port depends on the destination.
const STUN: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 8, 0, 250), Ipv4Addr::new(10, 8, 0, 251)];
const STUN_PORT: u16 = 3478;

/// The network outside of all routers, and its STUN server.
pub(crate) struct Wan {
    stun: Child,
}

impl Wan {
    pub(crate) fn new(scratch: &Path) -> Self {
        run(&format!("ip link add {WAN} type bridge"));
        for ip in STUN {
            run(&format!("ip address add {ip}/24 dev {WAN}"));
        }
        run(&format!("ip link set {WAN} up"));
        let mut server = Command::new("turnserver");
        server.args(["-n", "--stun-only", "--no-tls", "--no-dtls", "--no-cli"]);
        server.args(["--no-tcp", "--listening-port", &STUN_PORT.to_string()]);
        for ip in STUN {
            server.args(["-L", &ip.to_string()]);
        }
        let stun = server
            .arg("--pidfile")
            .arg(scratch.join("turnserver.pid"))
            .arg("--log-file")
            .arg(scratch.join("turnserver.log"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("turnserver");
        Self { stun }
    }

    /// For `--stun`.
    pub(crate) fn servers() -> String {
        STUN.map(|ip| format!("{ip}:{STUN_PORT}")).join(",")
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        drop(self.stun.kill());
        drop(self.stun.wait());
        drop(Command::new("ip").args(["link", "del", WAN]).status());
    }
}

/// The router of one machine.
pub(crate) struct Router {
    _namespace: Namespace,
}

impl Router {
    /// Stands between the machine, which gets an interface `eth1`, and the outside.
    pub(crate) fn before(machine: &Namespace, number: usize) -> Self {
        let namespace = Namespace::new();
        let (inner, outer) = (inner_ip(number, 1), address([10, 8, 0], number));
        let cable = |end: &str| format!("{end}{number}");
        let (a, b) = (cable("i"), cable("j"));
        run(&format!("ip link add {a} type veth peer name {b}"));
        machine.adopt(&a, "eth1", inner_ip(number, 2));
        namespace.adopt(&b, "inner", inner);
        let (a, b) = (cable("o"), cable("p"));
        run(&format!("ip link add {a} type veth peer name {b}"));
        run(&format!("ip link set {a} master {WAN} up"));
        namespace.adopt(&b, "outer", outer);
        namespace.sh("echo 1 >/proc/sys/net/ipv4/ip_forward");
        // Nothing comes in that is not an answer: filtering by address and port (RFC 4787 section 5). Nor is it for the router itself,
        // or it would remember it as a flow of its own, and give the machine's answer another port.
        namespace.nft(
            "table ip nat { \
               chain out { type nat hook postrouting priority srcnat; oifname outer masquerade; }; \
               chain through { type filter hook forward priority filter; \
                 iifname outer ct state new drop; }; \
               chain in { type filter hook input priority filter; \
                 iifname outer ct state new drop; }; \
             }",
        );
        Self {
            _namespace: namespace,
        }
    }
}

/// An address between a machine and its router, which is number 1.
pub(crate) fn inner_ip(number: usize, last: u8) -> Ipv4Addr {
    let third = u8::try_from(number).expect("a small cluster");
    Ipv4Addr::new(192, 168, third, last)
}
