//! What goes wrong on the way, and how soon it is right again.

use std::time::Duration;

use rustix::process::Signal;

use crate::{
    lab::{Lab, Node, Site, story, until},
    nat::{ADDRESS, ADDRESS_AND_PORT, Behaviour, INDEPENDENT, Ports},
};

const STRICT: Behaviour = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
const LIMIT: Duration = Duration::from_secs(40);

struct Pair {
    primary: Node,
    worker: Node,
    sites: [Site; 2],
}

impl Pair {
    /// A primary and a worker behind these NATs, linked.
    fn linked(lab: &mut Lab, nats: [Behaviour; 2]) -> Self {
        let sites = nats.map(|nat| lab.site(nat));
        let [a, b] = sites.map(|site| lab.host(site));
        let pair = Self {
            primary: lab.node(&a, "primary", "p"),
            worker: lab.node(&b, "worker", "w"),
            sites,
        };
        until("both are up", LIMIT, || pair.is_up());
        pair
    }

    fn is_up(&self) -> bool {
        self.primary.is_up("w", None) && self.worker.is_up("p", None)
    }

    /// How often either side called the link anything but up, since it was.
    fn wobbles(&self) -> usize {
        let told = [(&self.primary, "w"), (&self.worker, "p")].map(|(node, peer)| {
            let lines = node.told();
            let up = lines
                .iter()
                .position(|line| line["peer"] == peer && line["state"] == "up");
            lines[up.unwrap()..]
                .iter()
                .filter(|line| line["peer"] == peer && line["state"] != "up")
                .count()
        });
        told.iter().sum()
    }
}

#[test]
fn a_mapping_wiped_on_one_side_is_found_again_through_the_rendezvous() {
    story(
        "faults::a_mapping_wiped_on_one_side_is_found_again_through_the_rendezvous",
        |lab| {
            let pair = Pair::linked(lab, [STRICT, STRICT]);
            for site in pair.sites {
                lab.with_nat(site, |nat| nat.wipe());
                // Data or pings from inside open a new mapping at once; the peer's filter does not know it.
                until("silence is noticed", LIMIT, || !pair.is_up());
                let took = until("both are up again", Duration::from_secs(15), || {
                    pair.is_up()
                });
                println!("up again {took:?} after it was noticed");
            }
        },
    );
}

const NULL_BINDING: Behaviour = Behaviour {
    ports: Ports::Preserving,
    null_binding: true,
    ..STRICT
};

#[test]
fn a_null_binding_is_bridged_by_a_relay() {
    story("faults::a_null_binding_is_bridged_by_a_relay", |lab| {
        let open = lab.open_site();
        let third = lab.host(open);
        let _relay = lab.node(&third, "worker", "r");
        Pair::linked(lab, [NULL_BINDING, STRICT]);
    });
}

#[test]
fn a_null_binding_is_overcome_by_a_fresh_socket_when_nobody_relays() {
    story(
        "faults::a_null_binding_is_overcome_by_a_fresh_socket_when_nobody_relays",
        |lab| {
            // The worker knocks first, and both NATs hear it before their own side has spoken.
            let sites = [lab.site(NULL_BINDING), lab.site(NULL_BINDING)];
            let [a, b] = sites.map(|site| lab.host(site));
            let primary = lab.node(&a, "primary", "p");
            until("the primary's descriptor is there", LIMIT, || {
                primary.first(|line| line["nat"].is_string()).is_some()
            });
            let worker = lab.node(&b, "worker", "w");
            let took = until("both are up", Duration::from_secs(60), || {
                primary.is_up("w", Some("direct")) && worker.is_up("p", Some("direct"))
            });
            println!("up after {took:?}");
        },
    );
}

#[test]
fn a_pool_of_addresses_is_no_obstacle() {
    story("faults::a_pool_of_addresses_is_no_obstacle", |lab| {
        let arbitrary = Behaviour {
            arbitrary_pooling: true,
            ..STRICT
        };
        let sites = [lab.pool(arbitrary), lab.site(STRICT)];
        let [a, b] = sites.map(|site| lab.host(site));
        let primary = lab.node(&a, "primary", "p");
        let worker = lab.node(&b, "worker", "w");
        until("both are up", LIMIT, || {
            primary.is_up("w", Some("direct")) && worker.is_up("p", Some("direct"))
        });
    });
}

#[test]
#[ignore = "longer than a mapping lives: nightly"]
fn a_mapping_that_lives_for_thirty_seconds_is_kept() {
    story(
        "faults::a_mapping_that_lives_for_thirty_seconds_is_kept",
        |lab| {
            for inbound_refresh in [false, true] {
                let short = Behaviour {
                    lifetime: Duration::from_secs(30),
                    inbound_refresh,
                    ..STRICT
                };
                let mut lab = Lab::new();
                let pair = Pair::linked(&mut lab, [short, short]);
                std::thread::sleep(Duration::from_secs(70));
                assert_eq!(pair.wobbles(), 0);
            }
            let _ = lab;
        },
    );
}

#[test]
fn neighbours_behind_one_nat_use_their_own_network() {
    story(
        "faults::neighbours_behind_one_nat_use_their_own_network",
        |lab| {
            for hairpin in [false, true] {
                let mut lab = Lab::new();
                let site = lab.site(Behaviour { hairpin, ..STRICT });
                let [a, b] = [lab.host(site), lab.host(site)];
                let primary = lab.node(&a, "primary", "p");
                let worker = lab.node(&b, "worker", "w");
                until("both are up", LIMIT, || {
                    primary.is_up("w", Some("direct")) && worker.is_up("p", Some("direct"))
                });
            }
            let _ = lab;
        },
    );
}

#[test]
fn a_fifth_of_all_packets_lost_slows_a_link_and_does_not_break_it() {
    story(
        "faults::a_fifth_of_all_packets_lost_slows_a_link_and_does_not_break_it",
        |lab| {
            let sites = [lab.site(STRICT), lab.site(STRICT)];
            lab.set_weather(sites[1], |weather| weather.loss_per_mille = 200);
            let [a, b] = sites.map(|site| lab.host(site));
            let pair = Pair {
                primary: lab.node(&a, "primary", "p"),
                worker: lab.node(&b, "worker", "w"),
                sites,
            };
            until("both are up", LIMIT, || pair.is_up());
            until("a stream was echoed", LIMIT, || {
                pair.primary.first(|line| line["echo"] == "w").is_some()
            });
            std::thread::sleep(Duration::from_secs(10));
            let downs = pair
                .primary
                .told()
                .iter()
                .filter(|line| line["state"] == "down")
                .count();
            assert_eq!(downs, 0);
        },
    );
}

#[test]
fn a_frozen_process_suspects_nobody_when_it_wakes() {
    story(
        "faults::a_frozen_process_suspects_nobody_when_it_wakes",
        |lab| {
            let pair = Pair::linked(lab, [STRICT, Behaviour::new(INDEPENDENT, ADDRESS)]);
            pair.worker.signal(Signal::STOP);
            std::thread::sleep(Duration::from_secs(5));
            pair.worker.signal(Signal::CONT);
            until("both are up", LIMIT, || pair.is_up());
            let from_worker = pair.worker.told();
            let suspected = from_worker
                .iter()
                .filter(|line| line["state"] == "suspect")
                .count();
            assert_eq!(suspected, 0, "the frozen one blames nobody");
            std::thread::sleep(Duration::from_secs(3));
            assert!(
                pair.is_up() && pair.wobbles() <= 1,
                "suspected once, by the one that was awake"
            );
        },
    );
}

#[test]
fn a_worker_whose_cable_was_out_is_back_soon_after_it_is_in() {
    story(
        "faults::a_worker_whose_cable_was_out_is_back_soon_after_it_is_in",
        |lab| {
            let pair = Pair::linked(lab, [STRICT, STRICT]);
            lab.set_weather(pair.sites[1], |weather| weather.cut = true);
            until("the link is down", LIMIT, || {
                pair.primary
                    .link("w")
                    .is_some_and(|link| link["state"] == "down")
            });
            std::thread::sleep(Duration::from_secs(10));
            lab.set_weather(pair.sites[1], |weather| weather.cut = false);
            let took = until("both are up", LIMIT, || pair.is_up());
            println!("back {took:?} after the cable was in");
        },
    );
}
