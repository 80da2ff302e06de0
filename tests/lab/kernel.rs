//! The second opinion: the same links behind the kernel's own NAT (nftables), in the rules of nat.md section 4.
//!
//! ```text
//! h1 ── r1 ─┐                  r1, r2: a router with NAT each
//!           ├─ core ─ stun     core: this story's own namespace, which forwards
//! h2 ── r2 ─┘
//! ```

use std::{net::SocketAddr, process::Command, time::Duration};

use crate::{
    ear::{Ear, Outside},
    internet::HOPS,
    lab::{Host, Lab, Node, run, story, until},
};

/// Port-preserving and endpoint-independent, as every Linux router does it.
const PRESERVING: &str = "oifname wan meta l4proto udp masquerade";
/// Endpoint-independent with a port of its own choice: the range leaves out what a socket gets, so none is kept.
const OWN_PORTS: &str = "oifname wan meta l4proto udp masquerade to :20000-30000";
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
    nft(
        &router,
        &format!(
            "table ip nat {{\n chain out {{\n type nat hook postrouting priority srcnat\n {rule}\n }}\n }}"
        ),
    );
    nft(
        &router,
        "table ip filter {\n chain in {\n type filter hook input priority filter\n iifname wan drop\n }\n }",
    );
    Host {
        netns: host,
        ip: [10, 0, 0, 2].into(),
    }
}

fn nft(router: &str, rules: &str) {
    let mut nft = Command::new("ip");
    nft.args(["netns", "exec", router, "nft", rules]);
    assert!(nft.status().unwrap().success(), "nft refused: {rules}");
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
    // A real internet is deeper than this one: what may pass few routers ends here.
    let hops = format!(
        "table ip hops {{\n chain far {{\n type filter hook forward priority filter\n ip ttl < {HOPS} drop\n }}\n }}"
    );
    assert!(Command::new("nft").arg(hops).status().unwrap().success());
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
fn the_kernel_maps_and_filters_as_its_rules_are_named() {
    story(
        "kernel::the_kernel_maps_and_filters_as_its_rules_are_named",
        |_| {
            let mut lab = Lab::without_internet();
            let open = open_host(&mut lab);
            let ears = [Ear::on(&open, 0), Ear::on(&open, 0)];
            let places = [("192.0.2.1", 0), ("192.0.2.1", 1), ("192.0.2.2", 0)];
            for (number, rule) in [(1, PRESERVING), (2, OWN_PORTS), (3, DEPENDENT)] {
                let inside = Ear::on(&site(number, rule), 5_000);
                let seen = places.map(|(ip, ear)| {
                    let at = SocketAddr::new(ip.parse().unwrap(), ears[ear].port());
                    ears[ear].sees(&inside, at).port()
                });
                let [a, b, c] = seen;
                assert_eq!(a == b && b == c, rule != DEPENDENT, "{rule}: {seen:?}");
                assert_eq!(a == 5_000, rule == PRESERVING, "{rule}: {seen:?}");

                let outside = |port| SocketAddr::from(([172, 16, number as u8, 2], port));
                ears[0].say("whom it knows", outside(a));
                assert!(inside.hear().is_some(), "{rule}");
                Ear::on(&open, 0).say("a stranger", outside(a));
                assert_eq!(inside.hear(), None, "{rule}");
            }
        },
    );
}

#[test]
fn an_unsolicited_packet_to_an_open_linux_router_moves_the_later_flows() {
    story(
        "kernel::an_unsolicited_packet_to_an_open_linux_router_moves_the_later_flows",
        |_| {
            let mut lab = Lab::without_internet();
            let open = open_host(&mut lab);
            let outside = Outside::on(&open, &open);
            for (number, known_first) in [(1, true), (2, false)] {
                let inside = Ear::on(&site(number, PRESERVING), 5_000);
                nft(&format!("r{number}"), "flush table ip filter");
                let router = [172, 16, number as u8, 2].into();
                outside.check_null_binding(&inside, router, known_first);
            }
        },
    );
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
fn two_linux_routers_that_choose_ports_themselves_are_linked_directly() {
    links(
        "kernel::two_linux_routers_that_choose_ports_themselves_are_linked_directly",
        [OWN_PORTS, OWN_PORTS],
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

/// Both machines are in one VPN as well, which is the shorter way and takes no datagram as long as the tunnel's.
#[test]
fn a_way_with_a_small_mtu_is_not_taken() {
    story("kernel::a_way_with_a_small_mtu_is_not_taken", |_| {
        let mut lab = Lab::without_internet();
        let _stun = open_host(&mut lab);
        let [a, b] = [site(1, PRESERVING), site(2, PRESERVING)];
        veth(
            (&a.netns, "vpn", "100.100.0.1/24"),
            (&b.netns, "vpn", "100.100.0.2/24"),
        );
        for host in [&a, &b] {
            run(&format!("ip -n {} link set vpn mtu 1280", host.netns));
        }
        let primary = lab.node(&a, "primary", "p");
        let worker = lab.node(&b, "worker", "w");
        until("both are up", Duration::from_secs(40), || {
            primary.is_up("w", Some("direct")) && worker.is_up("p", Some("direct"))
        });
        until("a stream was echoed", Duration::from_secs(20), || {
            primary.first(|line| line["echo"] == "w").is_some()
        });
    });
}

/// A link between two routers, of which one or both are open; whoever is first is knocked at before it knows of the other.
struct Knock {
    primary_first: bool,
    hosts: [Host; 2],
    nodes: [Option<Node>; 2],
    session: String,
    _relay: Node,
}

impl Knock {
    fn new(lab: &Lab, third: &Host, number: usize) -> Self {
        let open = [[true, false], [false, true], [true, true]][number % 3];
        let hosts = [0, 1].map(|side| {
            let site_number = 2 * number + side + 1;
            let host = site(site_number, if open[side] { PRESERVING } else { OWN_PORTS });
            if open[side] {
                nft(&format!("r{site_number}"), "flush table ip filter");
            }
            host
        });
        let session = format!("session-{number}");
        Self {
            primary_first: number < 3,
            hosts,
            nodes: [None, None],
            _relay: lab.node_of(&session, third, "worker", "r"),
            session,
        }
    }

    fn start(&mut self, lab: &Lab, first: bool) {
        let (side, role, name) = match self.primary_first == first {
            true => (0, "primary", "p"),
            false => (1, "worker", "w"),
        };
        self.nodes[side] = Some(lab.node_of(&self.session, &self.hosts[side], role, name));
    }

    fn is_up(&self, route: Option<&str>) -> bool {
        let up = |side: usize, peer| {
            let node = self.nodes[side].as_ref();
            node.is_some_and(|node| node.is_up(peer, route))
        };
        up(0, "w") && up(1, "p")
    }
}

#[test]
#[ignore = "three minutes by the wall clock: nightly"]
fn open_linux_routers_are_bridged_by_a_relay_and_then_overcome() {
    story(
        "kernel::open_linux_routers_are_bridged_by_a_relay_and_then_overcome",
        |_| {
            let mut lab = Lab::without_internet();
            let third = open_host(&mut lab);
            let mut knocks: Vec<_> = (0..6).map(|n| Knock::new(&lab, &third, n)).collect();
            knocks.iter_mut().for_each(|knock| knock.start(&lab, true));
            std::thread::sleep(Duration::from_secs(3));
            knocks.iter_mut().for_each(|knock| knock.start(&lab, false));
            until("all are up", Duration::from_secs(40), || {
                knocks.iter().all(|knock| knock.is_up(None))
            });
            until("all are direct", Duration::from_secs(180), || {
                knocks.iter().all(|knock| knock.is_up(Some("direct")))
            });
        },
    );
}
