//! Somebody on the network who hears everything and sends what he likes, but has no key.

use std::net::SocketAddr;

use distmesh::{
    mesh::{Kind, MeshEvent, classify_datagram},
    session::Role,
};

use crate::{
    for_each_seed, ms,
    nat::{ADDRESS_AND_PORT, Behaviour, rng::Rng},
    secs,
    world::{HostId, Packet, World},
};

const ATTACKER: &str = "192.0.2.66:666";

fn attacker() -> SocketAddr {
    ATTACKER.parse().unwrap()
}

/// Two nodes with a path, and all the probes that they have exchanged.
fn overheard(seed: u64) -> (World, HostId, HostId, Vec<Packet>) {
    let mut world = World::new(seed);
    let primary = world.add_node(Role::Primary, None);
    let worker = world.add_node(Role::Worker, None);
    world.capture = Some(Vec::new());
    world.start(primary);
    world.start(worker);
    world.run_for(secs(20));
    assert!(world.are_connected(primary, worker));
    let mut probes = world.capture.take().unwrap();
    // Whatever was still under way arrives: none of it is news any more.
    world.run_for(ms(100));
    probes.retain(|packet| classify_datagram(&packet.bytes) == Kind::Probe);
    assert!(probes.len() > 50);
    (world, primary, worker, probes)
}

/// What the primary sends at once, and to whom, when this comes in.
fn reaction(world: &mut World, node: HostId, from: SocketAddr, bytes: &[u8]) -> Vec<Packet> {
    world.capture = Some(Vec::new());
    assert!(
        world.inject(node, from, bytes),
        "a probe is never WireGuard's"
    );
    world.capture.take().unwrap()
}

#[test]
fn forged_probes_are_not_even_answered() {
    for_each_seed(10, |seed| {
        let (mut world, primary, worker, probes) = overheard(seed);
        let (events, path) = (world.log.len(), world.path(primary, worker));
        let mut rng = Rng::new(seed);
        let me = world.addr(primary);
        for packet in probes.iter().filter(|packet| packet.to == me) {
            let mut forged = packet.bytes.clone();
            let index = 4 + rng.below(forged.len() as u64 - 4) as usize;
            forged[index] ^= 1 << rng.below(8);
            for from in [attacker(), packet.from] {
                assert!(reaction(&mut world, primary, from, &forged).is_empty());
            }
        }
        assert_eq!(world.path(primary, worker), path);
        assert_eq!(world.log.len(), events);
    });
}

#[test]
fn probes_reflected_to_their_sender_are_not_answered() {
    for_each_seed(10, |seed| {
        let (mut world, primary, worker, probes) = overheard(seed);
        let (events, path) = (world.log.len(), world.path(primary, worker));
        let me = world.addr(primary);
        for packet in probes.iter().filter(|packet| packet.from == me) {
            for from in [attacker(), packet.to] {
                assert!(reaction(&mut world, primary, from, &packet.bytes).is_empty());
            }
        }
        assert_eq!(world.path(primary, worker), path);
        assert_eq!(world.log.len(), events);
    });
}

#[test]
fn a_replayed_probe_gets_at_most_a_pong_and_changes_nothing() {
    for_each_seed(10, |seed| {
        let (mut world, primary, worker, probes) = overheard(seed);
        let (events, path) = (world.log.len(), world.path(primary, worker));
        let me = world.addr(primary);
        for packet in probes.iter().filter(|packet| packet.to == me) {
            let sent = reaction(&mut world, primary, attacker(), &packet.bytes);
            assert!(sent.len() <= 1);
            assert!(
                sent.iter()
                    .all(|pong| pong.bytes.len() == packet.bytes.len())
            );
        }
        // Nor does the replay make the attacker's address a candidate.
        world.capture = Some(Vec::new());
        world.run_for(secs(60));
        let sent = world.capture.take().unwrap();
        assert!(sent.iter().all(|packet| packet.to != attacker()));
        assert_eq!(world.path(primary, worker), path);
        assert_eq!(world.log.len(), events);
    });
}

#[test]
fn replayed_pings_keep_no_dead_peer_alive() {
    for_each_seed(10, |seed| {
        let (mut world, primary, worker, probes) = overheard(seed);
        world.set_cut(worker, true);
        let from = world.addr(worker);
        for packet in probes
            .iter()
            .filter(|packet| packet.from == from)
            .cycle()
            .take(150)
        {
            world.inject(primary, from, &packet.bytes);
            world.run_for(ms(100));
        }
        let down = MeshEvent::PathDown {
            peer: world.peer_id(worker),
        };
        assert!(world.events_of(primary).any(|entry| entry.event == down));
    });
}

#[test]
fn a_ping_that_is_diverted_before_it_arrives_moves_no_path() {
    for_each_seed(10, |seed| {
        let (mut world, primary, worker, _) = overheard(seed);
        let path = world.path(primary, worker);
        // The worker's packets are taken off the wire and delivered from elsewhere; nobody answers there.
        world.set_cut(worker, true);
        world.capture = Some(Vec::new());
        world.run_for(ms(1_100));
        let taken = world.capture.take().unwrap();
        world.set_cut(worker, false);
        let me = world.addr(primary);
        for packet in taken.iter().filter(|packet| packet.to == me) {
            world.inject(primary, attacker(), &packet.bytes);
        }
        world.run_for(secs(60));
        assert_eq!(world.path(primary, worker), path);
        world.capture = Some(Vec::new());
        world.run_for(secs(60));
        let sent = world.capture.take().unwrap();
        assert!(
            sent.iter().all(|packet| packet.to != attacker()),
            "checked for ever"
        );
    });
}

#[test]
fn diverted_pings_make_a_bounded_number_of_candidates() {
    let (mut world, primary, worker, _) = overheard(0);
    world.set_cut(worker, true);
    world.capture = Some(Vec::new());
    world.run_for(secs(8));
    let taken = world.capture.take().unwrap();
    let me = world.addr(primary);
    let pings = taken.iter().filter(|packet| packet.to == me);
    let mut diverted = 0;
    for (packet, port) in pings.zip(0..) {
        world.inject(primary, ([192, 0, 2, 66], port).into(), &packet.bytes);
        world.inject(primary, ([224, 0, 0, 1], port).into(), &packet.bytes);
        diverted += 1;
    }
    assert!(diverted > 20, "nothing to test here");
    world.capture = Some(Vec::new());
    world.run_for(secs(10));
    let sent = world.capture.take().unwrap();
    let mut probed: Vec<_> = sent.iter().map(|packet| packet.to).collect();
    probed.retain(|to| *to != world.addr(worker) && to.port() != 3478);
    probed.sort();
    probed.dedup();
    probed.retain(|to| *to != me);
    assert!(probed.len() <= 8, "{probed:?}");
    assert!(
        probed
            .iter()
            .all(|to| to.port() != 0 && !to.ip().is_multicast())
    );
}

#[test]
fn a_forged_stun_response_moves_no_candidate() {
    let mut world = World::new(0);
    let node = world.add_node(Role::Worker, None);
    world.capture = Some(Vec::new());
    world.start(node);
    world.run_for(secs(1));
    let before = world.mesh(node).descriptor();
    let heard = world.capture.take().unwrap();
    let is_response = |packet: &&Packet| packet.to == world.addr(node);
    let responses: Vec<_> = heard.iter().filter(is_response).cloned().collect();
    assert_eq!(responses.len(), 2);
    world.run_for(secs(14) + ms(10));
    for response in &responses {
        for from in [attacker(), response.from] {
            let mut forged = response.bytes.clone();
            *forged.last_mut().unwrap() ^= 1;
            assert!(world.inject(node, from, &forged));
        }
    }
    world.run_for(secs(30));
    assert_eq!(world.mesh(node).descriptor(), before);
}

/// A pair that is relayed, the relay, and every frame that came by it.
fn overheard_relayed(seed: u64) -> (World, [HostId; 3], Vec<Packet>) {
    let mut world = World::new(seed);
    let hard = Behaviour::new(ADDRESS_AND_PORT, ADDRESS_AND_PORT);
    let (a, b) = (world.add_nat(hard), world.add_nat(hard));
    let primary = world.add_node(Role::Primary, Some(a));
    let worker = world.add_node(Role::Worker, Some(b));
    let relay = world.add_node(Role::Worker, None);
    world.capture = Some(Vec::new());
    for node in [primary, worker, relay] {
        world.start(node);
    }
    world.run_for(secs(20));
    assert!(world.are_relayed(primary, worker));
    let mut frames = world.capture.take().unwrap();
    world.run_for(ms(100));
    frames.retain(|packet| classify_datagram(&packet.bytes) == Kind::Relayed);
    assert!(frames.len() > 20);
    (world, [primary, worker, relay], frames)
}

#[test]
fn a_relay_forwards_for_nobody_but_the_peer_at_that_address() {
    for_each_seed(10, |seed| {
        let (mut world, [_, _, relay], frames) = overheard_relayed(seed);
        let at_relay = world.addr(relay);
        for frame in frames.iter().filter(|frame| frame.to == at_relay) {
            let mut posing = frame.bytes.clone();
            posing[4] ^= 1;
            let nested = [&frame.bytes[..20], &frame.bytes].concat();
            for (from, bytes) in [
                (attacker(), &frame.bytes),
                (frame.from, &posing),
                (frame.from, &nested),
            ] {
                world.capture = Some(Vec::new());
                world.inject(relay, from, bytes);
                assert_eq!(world.capture.take().unwrap().len(), 0, "it was forwarded");
            }
        }
    });
}

#[test]
fn a_replayed_frame_gets_at_most_a_pong_and_changes_nothing() {
    for_each_seed(10, |seed| {
        let (mut world, [primary, worker, relay], frames) = overheard_relayed(seed);
        let (events, route) = (world.log.len(), world.route(worker, primary));
        let from_relay = world.addr(relay);
        for frame in frames.iter().filter(|frame| frame.from == from_relay) {
            for from in [from_relay, attacker()] {
                world.capture = Some(Vec::new());
                world.inject(worker, from, &frame.bytes);
                let answers = world.capture.take().unwrap();
                assert!(answers.len() <= 1 && answers.iter().all(|answer| answer.to == from_relay));
            }
        }
        world.run_for(secs(30));
        assert_eq!(
            (world.log.len(), world.route(worker, primary)),
            (events, route)
        );
    });
}
