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

/// A world with two nodes behind these, one of which starts `skew` after the other, and open workers that may relay.
fn apart(seed: u64, nats: [Behaviour; 2], skew: Duration, relays: u32) -> (World, HostId, HostId) {
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
    (world, primary, worker)
}

const NULL_BINDINGS: [[Behaviour; 2]; 3] = [
    [NULL_BINDING, STRICT],
    [STRICT, NULL_BINDING],
    [NULL_BINDING, NULL_BINDING],
];

#[test]
fn a_null_binding_is_bridged_by_a_relay_and_then_overcome() {
    for (nats, skew) in NULL_BINDINGS
        .into_iter()
        .flat_map(|nats| [0, 3, 10].map(|skew| (nats, skew)))
    {
        for_each_seed(17, |seed| {
            let (mut world, primary, worker) = apart(seed, nats, secs(skew), 1);
            let took = world.run_until(secs(30), |w| w.are_connected(primary, worker));
            let took = took.expect("no path");
            assert!(took <= secs(4), "{took:?}");
            let took = world.run_until(secs(180), |w| w.are_direct(primary, worker));
            let took = took.unwrap_or_else(|| panic!("{nats:?}, {skew} s: never direct"));
            assert!(took <= secs(130), "{took:?} until it was direct");
        });
    }
}

#[test]
fn a_null_binding_is_overcome_with_a_fresh_socket_when_nobody_relays() {
    for (nats, skew) in NULL_BINDINGS
        .into_iter()
        .flat_map(|nats| [0, 3, 10].map(|skew| (nats, skew)))
    {
        for_each_seed(17, |seed| {
            let (mut world, primary, worker) = apart(seed, nats, secs(skew), 0);
            let took = world.run_until(secs(180), |w| w.are_direct(primary, worker));
            let took = took.unwrap_or_else(|| panic!("{nats:?}, {skew} s: never direct"));
            assert!(took <= secs(30), "{took:?} until it was direct");
        });
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
