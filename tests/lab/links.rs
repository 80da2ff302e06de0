//! Links between real tunnels behind real (user-space) NATs.

use std::time::Duration;

use crate::{
    lab::{Lab, Node, Site, story, time_to_link, until},
    nat::{ADDRESS, ADDRESS_AND_PORT, Behaviour, INDEPENDENT},
};

const STRICT: Behaviour = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
const HARD: Behaviour = Behaviour::new(ADDRESS_AND_PORT, ADDRESS_AND_PORT);

/// A primary and a worker, each in a site of its own.
fn pair(lab: &mut Lab, sites: [Site; 2]) -> (Node, Node) {
    let [a, b] = sites.map(|site| lab.host(site));
    (lab.node(&a, "primary", "p"), lab.node(&b, "worker", "w"))
}

#[test]
fn two_strict_nats_are_linked_directly_and_carry_a_stream() {
    story(
        "links::two_strict_nats_are_linked_directly_and_carry_a_stream",
        |lab| {
            let sites = [lab.site(STRICT), lab.site(STRICT)];
            let (primary, worker) = pair(lab, sites);
            until("both are up", Duration::from_secs(20), || {
                primary.is_up("w", Some("direct")) && worker.is_up("p", Some("direct"))
            });
            until("a stream was echoed", Duration::from_secs(20), || {
                primary.first(|line| line["echo"] == "w").is_some()
            });
            println!("link up after {} ms", time_to_link(&primary, &worker));
            let nat = primary
                .told()
                .iter()
                .rev()
                .find_map(|line| line["nat"].as_str().map(str::to_owned));
            assert_eq!(nat.as_deref(), Some("endpoint-independent"));
        },
    );
}

#[test]
fn a_node_learns_its_nat_from_a_real_stun_server() {
    story(
        "links::a_node_learns_its_nat_from_a_real_stun_server",
        |lab| {
            let nat = |lab: &mut Lab, mapping| lab.site(Behaviour::new(mapping, ADDRESS_AND_PORT));
            let nodes = [
                (lab.open_site(), "none"),
                (nat(lab, INDEPENDENT), "endpoint-independent"),
                (nat(lab, ADDRESS), "address-dependent"),
                (nat(lab, ADDRESS_AND_PORT), "address-and-port-dependent"),
            ]
            .map(|(site, class)| {
                let host = lab.host(site);
                (lab.node(&host, "worker", class), class)
            });
            for (node, class) in nodes {
                until(class, Duration::from_secs(20), || {
                    let told = node.told();
                    let last = told.iter().rev().find_map(|line| line["nat"].as_str());
                    last == Some(class)
                });
            }
        },
    );
}

#[test]
fn two_hard_nats_are_linked_through_a_third_node() {
    story(
        "links::two_hard_nats_are_linked_through_a_third_node",
        |lab| {
            let sites = [lab.site(HARD), lab.site(HARD)];
            let open = lab.open_site();
            let third = lab.host(open);
            let relay = lab.node(&third, "worker", "r");
            let (primary, worker) = pair(lab, sites);
            until("both are up", Duration::from_secs(20), || {
                primary.is_up("w", Some("relayed")) && worker.is_up("p", Some("relayed"))
            });
            until("streams were echoed", Duration::from_secs(20), || {
                ["w", "r"]
                    .iter()
                    .all(|name| primary.first(|line| line["echo"] == *name).is_some())
            });
            println!("link up after {} ms", time_to_link(&primary, &worker));
            drop(relay);
        },
    );
}

#[test]
fn two_hard_nats_alone_say_why_they_are_not_linked() {
    story(
        "links::two_hard_nats_alone_say_why_they_are_not_linked",
        |lab| {
            let sites = [lab.site(HARD), lab.site(HARD)];
            let (primary, _worker) = pair(lab, sites);
            until("the reason is said", Duration::from_secs(30), || {
                primary
                    .link("w")
                    .is_some_and(|link| link["reason"].to_string().contains("both NATs"))
            });
            let said = primary.link("w").unwrap()["reason"].to_string();
            assert!(said.contains("no third node"), "{said}");
        },
    );
}
