//! Paths that die, stall and come back.

use std::time::Duration;

use distmesh::{mesh::MeshEvent, session::Role};

use crate::{
    for_each_seed, ms,
    nat::{ADDRESS_AND_PORT, Behaviour, INDEPENDENT},
    secs,
    world::{HostId, NatId, Packet, World},
};

/// A primary and a worker behind strict NATs, with a path since a while.
fn connected(seed: u64) -> (World, [HostId; 2], [NatId; 2]) {
    let mut world = World::new(seed);
    let strict = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
    let nats = [world.add_nat(strict), world.add_nat(strict)];
    let primary = world.add_node(Role::Primary, Some(nats[0]));
    let worker = world.add_node(Role::Worker, Some(nats[1]));
    world.start(primary);
    world.start(worker);
    // Some seeds' faults come right after a ping, others' right before one.
    world.run_for(secs(20) + ms(seed * 97));
    assert!(world.are_connected(primary, worker));
    (world, [primary, worker], nats)
}

/// When a node first reported such an event, after `since`.
fn first(
    world: &World,
    node: HostId,
    since: Duration,
    of: impl Fn(&MeshEvent) -> bool,
) -> Option<Duration> {
    let later = world.events_of(node).filter(|entry| entry.at > since);
    later
        .filter(|entry| of(&entry.event))
        .map(|entry| entry.at - since)
        .next()
}

fn is_suspect(event: &MeshEvent) -> bool {
    matches!(event, MeshEvent::PathSuspect { .. })
}

fn is_down(event: &MeshEvent) -> bool {
    matches!(event, MeshEvent::PathDown { .. })
}

#[test]
fn a_silent_peer_is_suspect_after_three_seconds_and_down_after_ten_and_welcome_back() {
    for_each_seed(20, |seed| {
        let (mut world, [primary, worker], _) = connected(seed);
        let since = world.elapsed();
        world.set_cut(worker, true);
        world.run_for(secs(20));
        // The last pong was up to a second old, or still under way.
        let suspect = first(&world, primary, since, is_suspect).expect("not suspect");
        assert!((ms(1_900)..ms(3_100)).contains(&suspect), "{suspect:?}");
        let down = first(&world, primary, since, is_down).expect("not down");
        assert_eq!(down - suspect, secs(7));
        assert_eq!(world.path(primary, worker), None);

        world.set_cut(worker, false);
        let took = world.run_until(secs(10), |w| w.are_connected(primary, worker));
        let took = took.expect("not back");
        // One knock a second finds it, and a second answer is asked for at once.
        assert!(took <= ms(1_400), "{took:?}");
    });
}

#[test]
fn a_short_interruption_is_suspicion_only() {
    for_each_seed(20, |seed| {
        let (mut world, [primary, worker], _) = connected(seed);
        let since = world.elapsed();
        world.set_cut(worker, true);
        world.run_for(secs(6));
        world.set_cut(worker, false);
        world.run_for(secs(20));
        let recovered = first(&world, primary, since, |e| {
            matches!(e, MeshEvent::PathRecovered { .. })
        });
        let took = recovered.expect("not recovered") - secs(6);
        assert!(took <= ms(800), "{took:?}");
        assert_eq!(first(&world, primary, since, is_down), None);
    });
}

#[test]
fn a_node_that_was_frozen_suspects_nobody() {
    for span in [5, 15, 60] {
        for_each_seed(20, |seed| {
            let (mut world, [primary, worker], _) = connected(seed);
            let since = world.elapsed();
            world.freeze(primary, secs(span));
            world.run_for(secs(span + 20));
            let suspect = |e: &MeshEvent| is_suspect(e) || is_down(e);
            assert_eq!(first(&world, primary, since, suspect), None, "{span} s");
            // Seen from the other side the frozen node was silent.
            assert!(first(&world, worker, since, is_suspect).is_some());
            assert!(world.are_connected(primary, worker));
            let rtt = world.mesh(primary).rtt(world.peer_id(worker)).unwrap();
            assert!(rtt < ms(60), "the freeze counts as distance: {rtt:?}");
        });
    }
}

#[test]
fn a_thawed_peer_is_asked_twice_and_then_up_again() {
    for_each_seed(20, |seed| {
        let (mut world, [primary, worker], _) = connected(seed);
        world.freeze(worker, secs(20));
        world.run_for(secs(20));
        assert_eq!(world.path(primary, worker), None);
        // Its pongs to all that its socket had buffered come at once, and are one sign of life.
        let took = world.run_until(secs(10), |w| w.path(primary, worker).is_some());
        let took = took.expect("not back");
        assert!((ms(100)..=ms(500)).contains(&took), "{took:?}");
    });
}

#[test]
fn a_wiped_mapping_is_replaced_through_the_rendezvous() {
    for_each_seed(20, |seed| {
        let (mut world, [primary, worker], nats) = connected(seed);
        let old = world.path(primary, worker);
        world.wipe(nats[1]);
        let moved = |w: &World| w.path(primary, worker) != old && w.are_connected(primary, worker);
        let took = world.run_until(secs(30), moved).expect("not recovered");
        // 3 s to suspect, one round-trip to STUN, a second of rendezvous, and the punching.
        assert!(took <= ms(5_500), "{took:?}");
        world.run_for(secs(10));
        assert!(world.are_connected(primary, worker));
    });
}

#[test]
fn a_changed_mapping_is_published_once_with_nothing_of_the_old_one() {
    for_each_seed(10, |seed| {
        let (mut world, [_, worker], nats) = connected(seed);
        let before = world.mesh(worker).descriptor();
        world.wipe(nats[1]);
        world.run_for(secs(20));
        let after = world.mesh(worker).descriptor();
        assert_eq!(after.seq, before.seq + 1);
        assert_eq!(after.nat, before.nat);
        assert_eq!(after.candidates.len(), before.candidates.len());
        assert_ne!(after.candidates, before.candidates);
    });
}

#[test]
fn a_peer_that_lets_everybody_in_follows_a_wiped_mapping_without_any_rendezvous() {
    for_each_seed(20, |seed| {
        let mut world = World::new(seed);
        let open = world.add_nat(Behaviour::new(INDEPENDENT, INDEPENDENT));
        let strict = world.add_nat(Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT));
        let primary = world.add_node(Role::Primary, Some(open));
        let worker = world.add_node(Role::Worker, Some(strict));
        world.start(primary);
        world.start(worker);
        world.run_for(secs(20) + ms(seed * 97));
        let (old, since) = (world.path(primary, worker), world.elapsed());
        world.rendezvous = None;
        world.wipe(strict);
        let moved = |w: &World| w.path(primary, worker) != old;
        let took = world.run_until(secs(30), moved).expect("not followed");
        assert!(took <= ms(2_600), "{took:?}");
        world.run_for(secs(10));
        assert!(world.are_connected(primary, worker));
        assert_eq!(first(&world, primary, since, is_suspect), None);
    });
}

#[test]
fn a_wiped_mapping_behind_strict_filters_waits_for_the_new_descriptor() {
    for_each_seed(10, |seed| {
        let (mut world, [primary, worker], nats) = connected(seed);
        let before = world.mesh(worker).descriptor();
        world.rendezvous = None;
        world.wipe(nats[1]);
        world.run_for(secs(60));
        assert!(
            !world.are_connected(primary, worker),
            "nothing to test here"
        );
        let after = world.mesh(worker).descriptor();
        assert!(after.seq > before.seq, "the changed mapping went unnoticed");

        world.rendezvous = Some(ms(100));
        world.publish(worker);
        let took = world.run_until(secs(30), |w| w.are_connected(primary, worker));
        let took = took.expect("not recovered");
        assert!(took <= secs(3), "{took:?}");
    });
}

#[test]
fn a_mapping_is_kept_alive_by_stun_alone() {
    let mut world = World::new(0);
    let short = Behaviour {
        lifetime: secs(30),
        ..Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT)
    };
    let nat = world.add_nat(short);
    let lonely = world.add_node(Role::Worker, Some(nat));
    world.start(lonely);
    world.run_for(secs(1));
    let descriptor = world.mesh(lonely).descriptor();
    world.run_for(secs(3_600));
    assert_eq!(world.mesh(lonely).descriptor(), descriptor);
}

#[test]
fn a_restarted_worker_takes_the_place_of_its_ghost() {
    for_each_seed(10, |seed| {
        let (mut world, [primary, worker], _) = connected(seed);
        let (ghost, since) = (world.peer_id(worker), world.elapsed());
        world.restart(worker);
        let took = world.run_until(secs(10), |w| w.are_connected(primary, worker));
        assert!(took.expect("no path to the new run") <= secs(2));
        let is_ghosts_end = |e: &MeshEvent| *e == MeshEvent::PathDown { peer: ghost };
        assert!(first(&world, primary, since, is_ghosts_end).is_some());
        assert_eq!(world.mesh(primary).path(ghost), None);
    });
}

#[test]
fn after_a_goodbye_not_one_packet_is_sent_whatever_the_rendezvous_says() {
    let (mut world, [primary, worker], _) = connected(0);
    let peer = world.peer_id(worker);
    let remote = world.path(primary, worker).unwrap();
    world.set_cut(worker, true);
    world.with_mesh(primary, |mesh, now| mesh.handle_goodbye(peer, now));
    assert_eq!(
        world.log.last().unwrap().event,
        MeshEvent::PathDown { peer }
    );
    let (descriptor, key) = (world.mesh(worker).descriptor(), [0; 32]);
    world.capture = Some(Vec::new());
    world.with_mesh(primary, |mesh, now| {
        mesh.handle_descriptor(descriptor, key, now);
    });
    world.run_for(secs(60));
    let sent = world.capture.take().unwrap();
    assert!(sent.iter().all(|packet| packet.to != remote));
}

#[test]
fn an_idle_path_costs_one_ping_a_second() {
    let (mut world, [primary, worker], _) = connected(0);
    let (to, from) = (world.path(primary, worker), world.path(worker, primary));
    world.capture = Some(Vec::new());
    world.run_for(secs(60));
    let sent = world.capture.take().unwrap();
    let on_path = |packet: &&Packet| Some(packet.to) == to && Some(packet.from) == from;
    let count = sent.iter().filter(on_path).count();
    // As many pings of its own as pongs to the other's.
    assert!(
        (110..=125).contains(&count),
        "{count} datagrams in a minute"
    );
}

#[test]
fn data_keeps_a_path_that_loses_every_pong() {
    let (mut world, [primary, worker], _) = connected(0);
    let (peer, since) = (world.peer_id(worker), world.elapsed());
    world.set_cut(worker, true);
    for _ in 0..40 {
        world.run_for(ms(500));
        world.with_mesh(primary, |mesh, now| mesh.handle_traffic(peer, now));
    }
    assert_eq!(first(&world, primary, since, is_suspect), None);
    world.run_for(secs(4));
    assert!(first(&world, primary, since, is_suspect).is_some());
}
