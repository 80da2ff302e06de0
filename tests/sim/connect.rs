//! From descriptors to paths.

use std::time::Duration;

use distmesh::{
    mesh::MeshEvent,
    session::{CandidateKind, NatClass, Role},
};

use crate::{
    for_each_seed, ms,
    nat::{ADDRESS, ADDRESS_AND_PORT, ALL, Behaviour, Dependence, INDEPENDENT},
    secs,
    world::{HostId, World},
};

/// A primary and a worker, each behind a NAT of its own.
fn behind(world: &mut World, a: Behaviour, b: Behaviour) -> (HostId, HostId) {
    let (a, b) = (world.add_nat(a), world.add_nat(b));
    let primary = world.add_node(Role::Primary, Some(a));
    let worker = world.add_node(Role::Worker, Some(b));
    (primary, worker)
}

/// The rendezvous takes a second: what comes after is the punching.
const VISIBLE: Duration = secs(1);

#[test]
fn two_nodes_without_a_nat_have_a_path_one_round_trip_after_they_see_each_other() {
    for_each_seed(20, |seed| {
        let mut world = World::new(seed);
        let primary = world.add_node(Role::Primary, None);
        let worker = world.add_node(Role::Worker, None);
        world.start(primary);
        world.start(worker);
        let took = world.run_until(secs(30), |w| w.are_connected(primary, worker));
        let took = took.expect("no path");
        assert!(took <= VISIBLE + ms(120), "{took:?}");
        let rtt = world.mesh(primary).rtt(world.peer_id(worker)).unwrap();
        assert!((ms(40)..=ms(50)).contains(&rtt), "{rtt:?}");
        assert_eq!(world.mesh(primary).descriptor().nat, NatClass::None);
    });
}

#[test]
fn a_way_that_drops_long_packets_is_not_taken_however_short_it_is() {
    for_each_seed(10, |seed| {
        let mut world = World::new(seed);
        let strict = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
        let (primary, worker) = behind(&mut world, strict, strict);
        let narrow = [primary, worker].map(|node| world.join_vpn(node));
        world.start(primary);
        world.start(worker);
        let took = world.run_until(secs(30), |w| w.are_connected(primary, worker));
        assert!(took.expect("no path") <= VISIBLE + secs(1));
        for _ in 0..60 {
            let paths = [(primary, worker), (worker, primary)].map(|(a, b)| world.path(a, b));
            let wide = |path: &Option<_>| path.is_some_and(|path| !narrow.contains(&path));
            assert!(paths.iter().all(wide), "{paths:?}");
            world.run_for(secs(1));
        }
    });
}

#[test]
fn a_node_that_sees_the_other_long_before_it_is_seen_has_its_path_as_soon() {
    for_each_seed(20, |seed| {
        let mut world = World::new(seed);
        let strict = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
        let (primary, worker) = behind(&mut world, strict, strict);
        world.start(worker);
        world.run_for(secs(5));
        // What it publishes is seen by those that run, and what they publish by nobody yet.
        world.rendezvous = None;
        world.start(primary);
        world.run_for(secs(1));
        let key = crate::world::probe_key(world.peer_id(primary), world.peer_id(worker));
        let seen = world.mesh(primary).descriptor();
        world.with_mesh(worker, |mesh, now| mesh.handle_descriptor(seen, key, now));
        // Longer than full pings are sent for nothing, shorter than it takes to try a fresh socket.
        world.run_for(secs(8));
        assert!(!world.are_connected(primary, worker));
        let found = world.mesh(worker).descriptor();
        world.with_mesh(primary, |mesh, now| mesh.handle_descriptor(found, key, now));
        let took = world.run_until(secs(30), |w| w.are_connected(primary, worker));
        assert!(took.expect("no path") <= secs(1), "{took:?}");
    });
}

#[test]
fn where_only_short_packets_get_through_the_reason_is_said() {
    let mut world = World::new(0);
    let hard = Behaviour::new(ADDRESS_AND_PORT, ADDRESS_AND_PORT);
    let (primary, worker) = behind(&mut world, hard, hard);
    let narrow = [primary, worker].map(|node| world.join_vpn(node).ip());
    world.start(primary);
    world.start(worker);
    world.run_for(secs(60));
    world.capture = Some(Vec::new());
    world.run_for(secs(60));
    assert!(!world.are_connected(primary, worker));
    let sent = world.capture.take().unwrap();
    let over = sent.iter().filter(|p| narrow.contains(&p.to.ip()));
    let full = over.clone().filter(|p| p.bytes.len() > 1_000).count();
    // A ping and a pong a second each way, every fifth ping a full one.
    let all = over.count();
    assert!(all < 300 && full < 50, "{all} in a minute, {full} full");
    for node in [primary, worker] {
        let says = |entry: &crate::world::Entry| {
            let MeshEvent::Unreachable { obstacle, .. } = &entry.event else {
                return false;
            };
            obstacle.to_string().contains("smaller MTU")
        };
        assert!(world.events_of(node).any(says));
    }
}

#[test]
fn a_host_of_many_containers_is_found_by_the_address_that_others_see() {
    for_each_seed(5, |seed| {
        let mut world = World::new(seed);
        let nat = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
        let (primary, worker) = behind(&mut world, nat, nat);
        world.add_addresses(worker, 80);
        world.start(primary);
        world.start(worker);
        let took = world.run_until(secs(30), |w| w.are_connected(primary, worker));
        assert!(took.is_some(), "no path");
        let published = world.mesh(worker).descriptor().candidates;
        assert!(published.len() <= 32, "{}", published.len());
    });
}

#[test]
fn endpoint_independent_mappings_meet_whatever_their_filters_are() {
    for (a, b) in ALL.into_iter().flat_map(|a| ALL.map(|b| (a, b))) {
        for_each_seed(10, |seed| {
            let mut world = World::new(seed);
            let nats = [a, b].map(|filtering| Behaviour::new(INDEPENDENT, filtering));
            let (primary, worker) = behind(&mut world, nats[0], nats[1]);
            world.start(primary);
            world.start(worker);
            let took = world.run_until(secs(30), |w| w.are_connected(primary, worker));
            let took = took.unwrap_or_else(|| panic!("{a:?} × {b:?}: no path"));
            assert!(took <= VISIBLE + secs(1), "{a:?} × {b:?}: {took:?}");
        });
    }
}

#[test]
fn a_dependent_mapping_is_reached_through_a_peer_reflexive_candidate() {
    for (mapping, filtering) in [
        (ADDRESS, INDEPENDENT),
        (ADDRESS, ADDRESS),
        (ADDRESS_AND_PORT, ADDRESS),
    ] {
        for_each_seed(10, |seed| {
            let mut world = World::new(seed);
            let easy = Behaviour::new(INDEPENDENT, filtering);
            let hard = Behaviour::new(mapping, ADDRESS_AND_PORT);
            let (primary, worker) = behind(&mut world, easy, hard);
            world.start(primary);
            world.start(worker);
            let took = world.run_until(secs(30), |w| w.are_connected(primary, worker));
            let took = took.unwrap_or_else(|| panic!("{mapping:?} × {filtering:?}: no path"));
            assert!(
                took <= VISIBLE + secs(1),
                "{mapping:?} × {filtering:?}: {took:?}"
            );
            let remote = world.path(primary, worker).unwrap();
            let published = world.mesh(worker).descriptor().candidates;
            assert!(
                published.iter().all(|c| c.addr != remote),
                "not peer-reflexive"
            );
        });
    }
}

#[test]
fn the_nat_class_follows_from_what_two_servers_see() {
    let seen: [(Dependence, NatClass); 3] = [
        (INDEPENDENT, NatClass::EndpointIndependent),
        (ADDRESS, NatClass::AddressAndPortDependent),
        (ADDRESS_AND_PORT, NatClass::AddressAndPortDependent),
    ];
    for (mapping, class) in seen {
        let mut world = World::new(0);
        let nat = world.add_nat(Behaviour::new(mapping, ADDRESS_AND_PORT));
        let node = world.add_node(Role::Worker, Some(nat));
        world.start(node);
        world.run_for(secs(1));
        let descriptor = world.mesh(node).descriptor();
        assert_eq!(descriptor.nat, class, "{mapping:?}");
        let reflexive =
            |c: &&distmesh::session::Candidate| c.kind == CandidateKind::ServerReflexive;
        let count = descriptor.candidates.iter().filter(reflexive).count();
        assert_eq!(count, if mapping == INDEPENDENT { 1 } else { 2 });
    }
}

#[test]
fn it_does_not_matter_who_starts_first_or_by_how_much() {
    for skew in [0, 3, 10] {
        for primary_first in [true, false] {
            for_each_seed(10, |seed| {
                let mut world = World::new(seed);
                let strict = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
                let (primary, worker) = behind(&mut world, strict, strict);
                let (first, second) = if primary_first {
                    (primary, worker)
                } else {
                    (worker, primary)
                };
                world.start(first);
                world.run_for(secs(skew));
                world.start(second);
                let took = world.run_until(secs(30), |w| w.are_connected(primary, worker));
                let took = took.expect("no path");
                assert!(took <= VISIBLE + secs(1), "{skew} s of skew: {took:?}");
            });
        }
    }
}

#[test]
fn twenty_percent_of_loss_slow_a_path_but_never_bring_it_down() {
    for_each_seed(20, |seed| {
        let mut world = World::new(seed);
        world.weather.loss_per_mille = 200;
        let strict = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
        let (primary, worker) = behind(&mut world, strict, strict);
        world.start(primary);
        world.start(worker);
        let took = world.run_until(secs(30), |w| w.are_connected(primary, worker));
        assert!(took.expect("no path") <= VISIBLE + secs(5));
        world.run_for(secs(600));
        let count = |world: &World, of: fn(&MeshEvent) -> bool| {
            world.log.iter().filter(|entry| of(&entry.event)).count()
        };
        assert_eq!(
            count(&world, |e| matches!(e, MeshEvent::PathDown { .. })),
            0
        );
        let suspicions = count(&world, |e| matches!(e, MeshEvent::PathSuspect { .. }));
        assert!(
            suspicions <= 3,
            "{suspicions} suspicions in ten minutes at two nodes"
        );
        assert!(world.are_connected(primary, worker));
    });
}

#[test]
fn two_nodes_behind_one_nat_use_their_private_addresses_and_stay_there() {
    for hairpin in [false, true] {
        for_each_seed(10, |seed| {
            let mut world = World::new(seed);
            let behaviour = Behaviour {
                hairpin,
                ..Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT)
            };
            let nat = world.add_nat(behaviour);
            let primary = world.add_node(Role::Primary, Some(nat));
            let worker = world.add_node(Role::Worker, Some(nat));
            world.start(primary);
            world.start(worker);
            world.run_for(secs(600));
            assert_eq!(world.path(primary, worker), Some(world.addr(worker)));
            assert_eq!(world.path(worker, primary), Some(world.addr(primary)));
            for node in [primary, worker] {
                let moved =
                    |e: &&crate::world::Entry| matches!(e.event, MeshEvent::PathMoved { .. });
                let moves = world.events_of(node).filter(moved).count();
                assert!(moves <= 1, "the path moved {moves} times");
            }
        });
    }
}

#[test]
fn a_newer_descriptor_starts_the_knocking_anew() {
    let mut world = World::new(0);
    let primary = world.add_node(Role::Primary, None);
    let worker = world.add_node(Role::Worker, None);
    world.start(primary);
    world.start(worker);
    world.set_cut(worker, true);
    world.run_for(secs(20));
    let mut descriptor = world.mesh(worker).descriptor();
    descriptor.seq += 1;
    let key = crate::world::probe_key(world.peer_id(primary), descriptor.peer);
    world.capture = Some(Vec::new());
    world.with_mesh(primary, |mesh, now| {
        mesh.handle_descriptor(descriptor, key, now);
    });
    world.run_for(ms(900));
    let sent = world.capture.take().unwrap();
    let to = world.addr(worker);
    let knocks = sent.iter().filter(|packet| packet.to == to).count();
    assert_eq!(knocks, 3, "at 0, 200 and 500 ms");
}

#[test]
fn idle_links_ping_in_the_same_moments() {
    for_each_seed(10, |seed| {
        let mut world = World::new(seed);
        let primary = world.add_node(Role::Primary, None);
        world.start(primary);
        for n in 0..8 {
            let worker = world.add_node(Role::Worker, None);
            world.run_for(ms(137 * n));
            world.start(worker);
        }
        world.run_for(secs(30));
        let own = world.addr(primary);
        let (mut moments, mut sent) = (0, 0);
        for _ in 0..500 {
            world.capture = Some(Vec::new());
            world.run_for(ms(20));
            let packets = world.capture.take().unwrap();
            let now = packets.iter().filter(|packet| packet.from == own).count();
            moments += usize::from(now > 0);
            sent += now;
        }
        // A ping and a pong a second for each of eight links; 16 moments a second if nobody waited for company.
        assert!((140..=180).contains(&sent), "{sent} datagrams in 10 s");
        assert!(moments <= 60, "{sent} datagrams in {moments} moments");
    });
}

#[test]
fn loss_does_not_make_a_path_wander_between_two_that_work() {
    for_each_seed(10, |seed| {
        let mut world = World::new(seed);
        world.weather.loss_per_mille = 50;
        world.weather.jitter = ms(200);
        let behaviour = Behaviour {
            hairpin: true,
            ..Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT)
        };
        let nat = world.add_nat(behaviour);
        let primary = world.add_node(Role::Primary, Some(nat));
        let worker = world.add_node(Role::Worker, Some(nat));
        world.start(primary);
        world.start(worker);
        world.run_for(secs(600));
        let moved = |e: &&crate::world::Entry| matches!(e.event, MeshEvent::PathMoved { .. });
        let moves = world.events_of(primary).filter(moved).count();
        assert!(moves <= 10, "the path moved {moves} times in ten minutes");
    });
}

#[test]
fn sixty_four_workers_all_get_their_paths_at_once() {
    for_each_seed(3, |seed| {
        let mut world = World::new(seed);
        let strict = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
        let nat = world.add_nat(strict);
        let primary = world.add_node(Role::Primary, Some(nat));
        let workers: Vec<_> = (0..64)
            .map(|_| {
                let nat = world.add_nat(strict);
                world.add_node(Role::Worker, Some(nat))
            })
            .collect();
        world.start(primary);
        for worker in &workers {
            world.start(*worker);
        }
        let all = |w: &World| {
            workers
                .iter()
                .all(|worker| w.are_connected(primary, *worker))
        };
        let took = world.run_until(secs(30), all).expect("some have no path");
        assert!(took <= VISIBLE + secs(1), "{took:?}");
        world.run_for(secs(30));
        assert!(all(&world));
    });
}
