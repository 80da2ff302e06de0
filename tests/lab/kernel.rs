//! The second opinion: the same links behind the kernel's own NAT (nftables), in the rules of nat.md section 4.
//!
//! ```text
//! h1 ── r1 ─┐                  r1, r2: a router with NAT each
//!           ├─ core ─ stun     core: this story's own namespace, which forwards
//! h2 ── r2 ─┘
//! ```

use std::{process::Command, time::Duration};

use crate::lab::{Host, Lab, run, story, until};

/// Port-preserving and endpoint-independent, as every Linux router does it.
const PRESERVING: &str = "oifname wan meta l4proto udp masquerade";
/// A random port for every destination.
const DEPENDENT: &str = "oifname wan meta l4proto udp masquerade random";

/// A machine behind a router whose kernel translates by this rule. Nothing unsolicited gets in (conntrack's filter).
fn site(number: usize, rule: &str) -> Host {
    let (host, router) = (format!("k{number}"), format!("r{number}"));
    for netns in [&host, &router] {
        run(&format!("ip netns add {netns}"));
        run(&format!("ip -n {netns} link set lo up"));
    }
    veth(
        (&host, "lan", "10.0.0.2/24"),
        (&router, "lan", "10.0.0.1/24"),
    );
    run(&format!("ip -n {host} route add default via 10.0.0.1"));
    let (core, wan) = (
        format!("172.16.{number}.1/24"),
        format!("172.16.{number}.2/24"),
    );
    run(&format!(
        "ip link add to{number} type veth peer name wan netns {router}"
    ));
    run(&format!("ip address add {core} dev to{number}"));
    run(&format!("ip link set to{number} up"));
    run(&format!("ip -n {router} address add {wan} dev wan"));
    run(&format!("ip -n {router} link set wan up"));
    run(&format!(
        "ip -n {router} route add default via 172.16.{number}.1"
    ));
    run(&format!(
        "ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1"
    ));
    let rules = format!(
        "table ip nat {{\n chain out {{\n type nat hook postrouting priority srcnat\n {rule}\n }}\n }}\n\
         table ip filter {{\n chain in {{\n type filter hook input priority filter\n iifname wan drop\n }}\n }}"
    );
    let status = Command::new("ip")
        .args(["netns", "exec", &router, "nft", &rules])
        .status();
    assert!(status.unwrap().success(), "nft refused: {rules}");
    Host {
        netns: host,
        ip: [10, 0, 0, 2].into(),
    }
}

fn veth(
    (a, device_a, address_a): (&str, &str, &str),
    (b, device_b, address_b): (&str, &str, &str),
) {
    run(&format!(
        "ip -n {a} link add {device_a} type veth peer name {device_b} netns {b}"
    ));
    for (netns, device, address) in [(a, device_a, address_a), (b, device_b, address_b)] {
        run(&format!("ip -n {netns} address add {address} dev {device}"));
        run(&format!("ip -n {netns} link set {device} up"));
    }
}

/// An open machine beside the core: a real STUN server, and a node that may relay.
fn open_host(lab: &mut Lab) -> Host {
    let netns = "open".to_owned();
    run("ip netns add open");
    run("ip -n open link set lo up");
    run("ip link add toopen type veth peer name lan netns open");
    run("ip address add 192.0.2.254/24 dev toopen");
    run("ip link set toopen up");
    for ip in ["192.0.2.1", "192.0.2.2"] {
        run(&format!("ip -n open address add {ip}/24 dev lan"));
    }
    run("ip -n open link set lan up");
    run("ip -n open route add default via 192.0.2.254");
    run("sysctl -qw net.ipv4.ip_forward=1");
    let host = Host {
        netns,
        ip: [192, 0, 2, 1].into(),
    };
    lab.start_stun_on(&host);
    host
}

fn links(test: &str, rules: [&str; 2], route: &str) {
    story(test, |_| {
        let mut lab = Lab::without_internet();
        let third = open_host(&mut lab);
        let [a, b] = [site(1, rules[0]), site(2, rules[1])];
        let _relay = lab.node(&third, "worker", "r");
        let primary = lab.node(&a, "primary", "p");
        let worker = lab.node(&b, "worker", "w");
        until("both are up", Duration::from_secs(40), || {
            primary.is_up("w", Some(route)) && worker.is_up("p", Some(route))
        });
        until("a stream was echoed", Duration::from_secs(20), || {
            primary.first(|line| line["echo"] == "w").is_some()
        });
    });
}

#[test]
fn two_linux_routers_are_linked_directly() {
    links(
        "kernel::two_linux_routers_are_linked_directly",
        [PRESERVING, PRESERVING],
        "direct",
    );
}

#[test]
fn two_dependent_linux_routers_are_relayed() {
    links(
        "kernel::two_dependent_linux_routers_are_relayed",
        [DEPENDENT, DEPENDENT],
        "relayed",
    );
}

#[test]
fn a_linux_router_and_a_dependent_one_are_relayed() {
    links(
        "kernel::a_linux_router_and_a_dependent_one_are_relayed",
        [PRESERVING, DEPENDENT],
        "relayed",
    );
}
