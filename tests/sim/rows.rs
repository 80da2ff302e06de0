//! The awkward cases of nat.md section 6, each against what it is expected to do.

use std::time::Duration;

use distmesh::session::Role;

use crate::{
    for_each_seed,
    nat::{ADDRESS_AND_PORT, Behaviour, INDEPENDENT, Ports},
    secs,
    world::{HostId, NatId, World},
};

const STRICT: Behaviour = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
/// Linux without a firewall of its own.
const NULL_BINDING: Behaviour = Behaviour {
    ports: Ports::Preserving,
    null_binding: true,
    ..STRICT
};

fn pair(world: &mut World, a: NatId, b: NatId) -> (HostId, HostId) {
    let primary = world.add_node(Role::Primary, Some(a));
    let worker = world.add_node(Role::Worker, Some(b));
    (primary, worker)
}

/// How long two nodes behind these took to have a path, when one starts `skew` after the other.
fn null_binding_takes(seed: u64, nats: [Behaviour; 2], skew: Duration, relays: u32) -> Duration {
    let mut world = World::new(seed);
    let (a, b) = (world.add_nat(nats[0]), world.add_nat(nats[1]));
    let (primary, worker) = pair(&mut world, a, b);
    for _ in 0..relays {
        let relay = world.add_node(Role::Worker, None);
        world.start(relay);
    }
    let order = if seed.is_multiple_of(2) {
        [primary, worker]
    } else {
        [worker, primary]
    };
    world.start(order[0]);
    world.run_for(skew);
    world.start(order[1]);
    let took = world.run_until(secs(300), |w| w.are_connected(primary, worker));
    took.unwrap_or_else(|| panic!("{nats:?}: never"))
}

#[test]
fn a_null_binding_costs_a_relay_or_a_fresh_socket_but_never_the_link() {
    // With one on both sides and nobody to relay there is no way yet: both would have to knock before the other is heard.
    for nats in [
        [NULL_BINDING, STRICT],
        [STRICT, NULL_BINDING],
        [NULL_BINDING, NULL_BINDING],
    ] {
        for skew in [0, 3, 10] {
            for_each_seed(20, |seed| {
                let relayed = null_binding_takes(seed, nats, secs(skew), 1);
                assert!(relayed <= secs(4), "{relayed:?} with a relay");
                if nats[0].null_binding && nats[1].null_binding {
                    return;
                }
                let alone = null_binding_takes(seed, nats, secs(skew), 0);
                assert!(alone <= secs(120), "{alone:?} alone");
            });
        }
    }
}

#[test]
fn a_pool_of_addresses_is_no_obstacle_for_a_mapping_that_stays() {
    for arbitrary_pooling in [false, true] {
        for_each_seed(20, |seed| {
            let mut world = World::new(seed);
            let pool = Behaviour {
                arbitrary_pooling,
                ..STRICT
            };
            let (a, b) = (world.add_pool(pool), world.add_pool(pool));
            let (primary, worker) = pair(&mut world, a, b);
            world.start(primary);
            world.start(worker);
            let took = world.run_until(secs(30), |w| w.are_direct(primary, worker));
            assert!(took.expect("no path") <= secs(2));
        });
    }
}

#[test]
fn a_short_lived_mapping_is_kept_whether_or_not_packets_from_outside_do() {
    for inbound_refresh in [false, true] {
        for_each_seed(5, |seed| {
            let mut world = World::new(seed);
            let short = Behaviour {
                lifetime: secs(30),
                inbound_refresh,
                ..STRICT
            };
            let (a, b) = (world.add_nat(short), world.add_nat(short));
            let (primary, worker) = pair(&mut world, a, b);
            world.start(primary);
            world.start(worker);
            world.run_for(secs(5));
            let before = world.log.len();
            world.run_for(secs(1_800));
            assert!(world.are_direct(primary, worker));
            assert_eq!(world.log.len(), before, "{:?}", &world.log[before..]);
        });
    }
}

#[test]
fn a_peer_that_was_unreachable_for_ten_minutes_is_back_within_five_seconds() {
    for_each_seed(20, |seed| {
        let mut world = World::new(seed);
        let (a, b) = (world.add_nat(STRICT), world.add_nat(STRICT));
        let (primary, worker) = pair(&mut world, a, b);
        // Another worker is linked all the time, so that the primary keeps its socket.
        let other = world.add_node(Role::Worker, None);
        for node in [primary, worker, other] {
            world.start(node);
        }
        world.run_for(secs(5));
        world.set_cut(worker, true);
        world.run_for(secs(600));
        assert!(!world.are_connected(primary, worker));
        world.set_cut(worker, false);
        let took = world.run_until(secs(30), |w| w.are_connected(primary, worker));
        let took = took.expect("not back");
        assert!(took <= secs(5), "{took:?}");
    });
}

#[test]
fn a_machine_that_was_suspended_for_a_minute_resumes_its_links_without_a_storm() {
    for_each_seed(20, |seed| {
        let mut world = World::new(seed);
        let short = Behaviour {
            lifetime: secs(30),
            ..STRICT
        };
        let (a, b) = (world.add_nat(STRICT), world.add_nat(short));
        let (primary, worker) = pair(&mut world, a, b);
        world.start(primary);
        world.start(worker);
        world.run_for(secs(10));
        world.suspend(worker, secs(60));
        world.run_for(secs(60));
        assert!(!world.are_connected(primary, worker));
        world.capture = Some(Vec::new());
        let took = world.run_until(secs(30), |w| w.are_direct(primary, worker));
        assert!(took.expect("not back") <= secs(5), "{took:?}");
        world.run_for(secs(5));
        let sent = world.capture.take().unwrap().len();
        assert!(sent < 200, "{sent} datagrams");
    });
}
