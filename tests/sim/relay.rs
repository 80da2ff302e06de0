//! Peers that forward: who is relayed, by whom, and for how long.

use std::time::Duration;

use distmesh::{
    mesh::{MeshEvent, Route},
    session::Role,
};

use crate::{
    for_each_seed, ms,
    nat::{ADDRESS, ADDRESS_AND_PORT, Behaviour, Expected, INDEPENDENT, expected, pairs},
    secs,
    world::{HostId, World},
};

const HARD: Behaviour = Behaviour::new(ADDRESS_AND_PORT, ADDRESS_AND_PORT);
/// The rendezvous takes a second: what comes after is the punching.
const VISIBLE: Duration = secs(1);

/// A primary and a worker behind these NATs, and `relays` workers without one; all running.
fn cluster(
    world: &mut World,
    a: Behaviour,
    b: Behaviour,
    relays: u32,
) -> (HostId, HostId, Vec<HostId>) {
    let (a, b) = (world.add_nat(a), world.add_nat(b));
    let primary = world.add_node(Role::Primary, Some(a));
    let worker = world.add_node(Role::Worker, Some(b));
    let relays: Vec<_> = (0..relays)
        .map(|_| world.add_node(Role::Worker, None))
        .collect();
    for node in [primary, worker].into_iter().chain(relays.clone()) {
        world.start(node);
    }
    (primary, worker, relays)
}

#[test]
fn every_pair_of_nats_connects_directly_or_by_relay_whoever_starts_first() {
    for (a, b) in pairs() {
        for skew in [0, 3, 10] {
            for_each_seed(17, |seed| {
                let mut world = World::new(seed);
                let (nat_a, nat_b) = (world.add_nat(a), world.add_nat(b));
                let primary = world.add_node(Role::Primary, Some(nat_a));
                let worker = world.add_node(Role::Worker, Some(nat_b));
                let relay = world.add_node(Role::Worker, None);
                let order = if seed.is_multiple_of(2) {
                    [primary, worker]
                } else {
                    [worker, primary]
                };
                world.start(relay);
                world.start(order[0]);
                world.run_for(secs(skew));
                world.start(order[1]);
                let what = format!("{a:?} × {b:?}, skew {skew} s");
                let took = world.run_until(secs(30), |w| w.are_connected(primary, worker));
                let took = took.unwrap_or_else(|| panic!("{what}: no path"));
                assert!(took <= VISIBLE + secs(3), "{what}: {took:?}");
                world.run_for(secs(15));
                let direct = world.are_direct(primary, worker);
                match expected(a, b) {
                    Expected::Direct => assert!(direct, "{what}: not direct"),
                    Expected::Relayed => {
                        assert!(world.are_relayed(primary, worker), "{what}: not relayed");
                    }
                }
            });
        }
    }
}

#[test]
fn without_a_third_node_a_hard_pair_has_no_path_and_does_no_harm() {
    let mut world = World::new(1);
    let (primary, worker, _) = cluster(&mut world, HARD, HARD, 0);
    world.run_for(secs(60));
    assert!(!world.are_connected(primary, worker));
}

#[test]
fn a_relay_that_dies_is_replaced_by_another_before_the_peer_is_given_up() {
    for_each_seed(20, |seed| {
        let mut world = World::new(seed);
        let (primary, worker, relays) = cluster(&mut world, HARD, HARD, 3);
        world.run_for(secs(10));
        assert!(world.are_relayed(primary, worker));
        let Some(Route::Relayed(used)) = world.route(primary, worker) else {
            panic!("not relayed");
        };
        let dead = relays
            .into_iter()
            .find(|relay| world.peer_id(*relay) == used)
            .unwrap();
        let before = world.log.len();
        world.set_cut(dead, true);
        world.run_for(secs(20));
        assert!(world.are_relayed(primary, worker));
        assert_ne!(world.route(primary, worker), Some(Route::Relayed(used)));
        let peer = world.peer_id(worker);
        let given_up = world.log[before..]
            .iter()
            .any(|entry| entry.node == primary && entry.event == MeshEvent::PathDown { peer });
        assert!(!given_up, "the link went down");
    });
}

#[test]
fn the_nearest_relay_wins() {
    // All relays are as far in this world: what is asserted is that a path does not wander between equals.
    for_each_seed(10, |seed| {
        let mut world = World::new(seed);
        let (primary, worker, _) = cluster(&mut world, HARD, HARD, 4);
        world.run_for(secs(10));
        let before = world.log.len();
        world.run_for(secs(60));
        let moves = world.log[before..]
            .iter()
            .filter(|entry| matches!(entry.event, MeshEvent::PathMoved { .. }))
            .count();
        assert!(world.are_relayed(primary, worker));
        assert!(moves <= 2, "{moves} moves a minute");
    });
}

#[test]
fn a_direct_path_replaces_the_relayed_one_when_it_appears() {
    for_each_seed(20, |seed| {
        let mut world = World::new(seed);
        let (a, b) = (world.add_nat(HARD), world.add_nat(HARD));
        let primary = world.add_node(Role::Primary, Some(a));
        let worker = world.add_node(Role::Worker, Some(b));
        let relay = world.add_node(Role::Worker, None);
        for node in [primary, worker, relay] {
            world.start(node);
        }
        world.run_for(secs(10));
        assert!(world.are_relayed(primary, worker));
        let before = world.log.len();
        for nat in [a, b] {
            world.set_behaviour(nat, Behaviour::new(INDEPENDENT, ADDRESS));
        }
        // Their own addresses are looked up every 15 s, and published.
        let took = world.run_until(secs(30), |w| w.are_direct(primary, worker));
        assert!(took.is_some(), "still relayed");
        let peer = world.peer_id(worker);
        let lost = world.log[before..]
            .iter()
            .any(|entry| entry.node == primary && entry.event == MeshEvent::PathDown { peer });
        assert!(!lost, "the link went down on the way");
    });
}

#[test]
fn a_wiped_mapping_is_bridged_by_a_relay_until_the_rendezvous_has_the_new_one() {
    for_each_seed(20, |seed| {
        let mut world = World::new(seed);
        let strict = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
        let (a, b) = (world.add_nat(strict), world.add_nat(strict));
        let primary = world.add_node(Role::Primary, Some(a));
        let worker = world.add_node(Role::Worker, Some(b));
        let relay = world.add_node(Role::Worker, None);
        for node in [primary, worker, relay] {
            world.start(node);
        }
        world.run_for(secs(10));
        assert!(world.are_direct(primary, worker));
        // The rendezvous is out of order: nobody hears of the new mapping that way.
        world.rendezvous = None;
        world.wipe(b);
        world.run_for(ms(500));
        let took = world.run_until(secs(15), |w| w.are_relayed(primary, worker));
        let took = took.expect("not relayed");
        assert!(took <= secs(6), "{took:?}");
    });
}

#[test]
fn sixty_four_hard_workers_at_once_are_all_relayed_in_time() {
    for_each_seed(3, |seed| {
        let mut world = World::new(seed);
        let primary = world.add_nat(HARD);
        let primary = world.add_node(Role::Primary, Some(primary));
        let relays: Vec<_> = (0..8).map(|_| world.add_node(Role::Worker, None)).collect();
        let workers: Vec<_> = (0..56)
            .map(|_| {
                let nat = world.add_nat(HARD);
                world.add_node(Role::Worker, Some(nat))
            })
            .collect();
        for node in [primary].into_iter().chain(relays).chain(workers.clone()) {
            world.start(node);
        }
        let all = |w: &World| {
            workers
                .iter()
                .all(|worker| w.are_connected(primary, *worker))
        };
        let took = world.run_until(secs(30), all).expect("not all");
        assert!(took <= VISIBLE + secs(3), "{took:?}");
    });
}

#[test]
fn workers_leave_each_other_in_peace_while_nobody_needs_a_relay() {
    let mut world = World::new(1);
    let easy = Behaviour::new(INDEPENDENT, ADDRESS);
    let (primary, worker, relays) = cluster(&mut world, easy, easy, 3);
    world.run_for(secs(20));
    assert!(world.are_direct(primary, worker));
    world.capture = Some(Vec::new());
    world.run_for(secs(60));
    let addrs: Vec<_> = relays.iter().map(|relay| world.addr(*relay)).collect();
    let between = world.capture.take().unwrap();
    let between = between
        .iter()
        .filter(|p| addrs.contains(&p.from) && addrs.contains(&p.to));
    assert_eq!(between.count(), 0);
}

/// While the primary is away each worker looks for somebody to forward, and so finds all the others.
#[test]
fn workers_that_needed_each_other_part_again() {
    let mut world = World::new(1);
    let easy = Behaviour::new(INDEPENDENT, ADDRESS);
    let (primary, worker, relays) = cluster(&mut world, easy, easy, 3);
    world.run_for(secs(20));
    world.set_cut(primary, true);
    world.capture = Some(Vec::new());
    world.run_for(secs(30));
    let addrs: Vec<_> = relays.iter().map(|relay| world.addr(*relay)).collect();
    let between = |world: &mut World| {
        let sent = world.capture.replace(Vec::new()).unwrap();
        let between = sent
            .iter()
            .filter(|p| addrs.contains(&p.from) && addrs.contains(&p.to));
        between.count()
    };
    assert!(between(&mut world) > 0, "nobody needed anybody");
    world.set_cut(primary, false);
    world.run_for(secs(60));
    assert!(world.are_direct(primary, worker));
    between(&mut world);
    world.run_for(secs(60));
    assert_eq!(between(&mut world), 0);
}

#[test]
fn no_pair_of_nats_makes_a_storm() {
    for (a, b) in pairs() {
        let mut world = World::new(1);
        world.capture = Some(Vec::new());
        cluster(&mut world, a, b, 1);
        world.run_for(secs(20));
        let sent = world.capture.take().unwrap().len();
        assert!(sent < 1_500, "{a:?} × {b:?}: {sent} datagrams in 20 s");
    }
}
