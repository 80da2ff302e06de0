//! The lab's own truth: what real sockets see of its NAT boxes and lines, before anything of distmesh is judged by them.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use crate::{
    ear::{Ear, Outside, PATIENCE},
    lab::{Lab, now, story},
    nat::{ADDRESS, ADDRESS_AND_PORT, ALL, Behaviour, INDEPENDENT, Ports, rng::Rng},
};

const STRICT: Behaviour = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);

fn outside(lab: &mut Lab) -> Outside {
    let open = lab.open_site();
    let [one, two] = [lab.host(open), lab.host(open)];
    Outside::on(&one, &two)
}

#[test]
fn each_of_the_nine_behaviours_maps_and_filters_as_it_says() {
    story(
        "packets::each_of_the_nine_behaviours_maps_and_filters_as_it_says",
        |lab| {
            let outside = outside(lab);
            for (mapping, filtering) in ALL.into_iter().flat_map(|m| ALL.map(|f| (m, f))) {
                let site = lab.site(Behaviour::new(mapping, filtering));
                let host = lab.host(site);
                let [a, b, c] = outside.see(&Ear::on(&host, 0));
                let seen = (a == b, b == c);
                let expected = (mapping != ADDRESS_AND_PORT, mapping == INDEPENDENT);
                assert_eq!(seen, expected, "{mapping:?}: {a}, {b}, {c}");

                let inside = Ear::on(&host, 0);
                let mapped = outside.ears[0].sees(&inside, outside.addrs[0]);
                for (ear, name) in outside.ears.iter().zip(["port", "address", "stranger"]) {
                    ear.say(name, mapped);
                }
                let passes = match filtering {
                    INDEPENDENT => vec!["address", "port", "stranger"],
                    ADDRESS => vec!["address", "port"],
                    ADDRESS_AND_PORT => vec!["port"],
                };
                let heard = inside.hear_all();
                assert!(
                    heard.iter().eq(passes.iter()),
                    "{mapping:?}/{filtering:?}: {heard:?}"
                );
            }
        },
    );
}

#[test]
fn ports_and_pools_are_allocated_as_the_box_says() {
    story(
        "packets::ports_and_pools_are_allocated_as_the_box_says",
        |lab| {
            let outside = outside(lab);
            for ports in [Ports::Preserving, Ports::Sequential, Ports::Random] {
                let site = lab.site(Behaviour {
                    ports,
                    ..Behaviour::new(ADDRESS_AND_PORT, INDEPENDENT)
                });
                let inside = Ear::on(&lab.host(site), 5_000);
                let [a, b, c] = outside.see(&inside).map(|seen| seen.port());
                match ports {
                    Ports::Preserving => assert!(a == 5_000 && b != a && c != a),
                    Ports::Sequential => assert_eq!([b, c], [a + 1, a + 2]),
                    Ports::Random => assert!([a, b, c].iter().all(|port| *port >= 20_000)),
                }
            }
            for arbitrary_pooling in [false, true] {
                let behaviour = Behaviour {
                    arbitrary_pooling,
                    ..Behaviour::new(ADDRESS_AND_PORT, INDEPENDENT)
                };
                let site = lab.pool(behaviour);
                let host = lab.host(site);
                let seen: BTreeSet<_> = (0..8)
                    .flat_map(|_| outside.see(&Ear::on(&host, 0)))
                    .map(|seen| seen.ip())
                    .collect();
                assert_eq!(seen.len() > 1, arbitrary_pooling, "{seen:?}");
            }
        },
    );
}

#[test]
fn neighbours_meet_on_their_own_network_and_by_hairpin_only_where_there_is_one() {
    story(
        "packets::neighbours_meet_on_their_own_network_and_by_hairpin_only_where_there_is_one",
        |lab| {
            let outside = outside(lab);
            for hairpin in [false, true] {
                let site = lab.site(Behaviour {
                    hairpin,
                    ..Behaviour::new(INDEPENDENT, INDEPENDENT)
                });
                let hosts = [lab.host(site), lab.host(site)];
                let [a, b] = [Ear::on(&hosts[0], 0), Ear::on(&hosts[1], 0)];
                a.say("neighbour", SocketAddr::new(hosts[1].ip, b.port()));
                let (_, from) = b.hear_within(PATIENCE).unwrap();
                assert_eq!(from, SocketAddr::new(hosts[0].ip, a.port()));

                let [seen_a, seen_b] = [&a, &b].map(|ear| outside.see(ear)[0]);
                a.say("hairpin", seen_b);
                // RFC 4787, REQ-9: the source is the outside address.
                let heard = b.hear();
                assert_eq!(
                    heard,
                    hairpin.then_some(("hairpin".to_owned(), seen_a)),
                    "hairpin {hairpin}"
                );
            }
        },
    );
}

#[test]
fn a_box_forgets_moves_and_changes_while_it_runs() {
    story(
        "packets::a_box_forgets_moves_and_changes_while_it_runs",
        |lab| {
            let outside = outside(lab);
            let (ear, at) = (&outside.ears[0], outside.addrs[0]);
            let site = lab.site(STRICT);
            let inside = Ear::on(&lab.host(site), 0);

            let first = ear.sees(&inside, at);
            lab.with_nat(site, |nat| nat.wipe());
            ear.say("forgotten", first);
            assert_eq!(inside.hear(), None);
            let second = ear.sees(&inside, at);
            assert_ne!(first, second);

            lab.with_nat(site, |nat| nat.rebind(&mut Rng::new(7)));
            let third = ear.sees(&inside, at);
            assert_ne!(second, third);

            outside.ears[2].say("stranger", third);
            assert_eq!(inside.hear(), None);
            lab.with_nat(site, |nat| nat.behaviour.filtering = INDEPENDENT);
            outside.ears[2].say("stranger", third);
            assert!(inside.hear_within(PATIENCE).is_some());

            lab.with_nat(site, |nat| nat.behaviour.lifetime = Duration::ZERO);
            ear.say("expired", third);
            assert_eq!(inside.hear(), None);
        },
    );
}

#[test]
fn an_unsolicited_packet_to_a_null_binding_box_moves_the_later_flows() {
    story(
        "packets::an_unsolicited_packet_to_a_null_binding_box_moves_the_later_flows",
        |lab| {
            let outside = outside(lab);
            let site = lab.site(Behaviour {
                ports: Ports::Preserving,
                null_binding: true,
                ..STRICT
            });
            let host = lab.host(site);
            let public = lab.internet.core().sites[site.0].nat.as_ref().unwrap().pool[0];
            for known_first in [true, false] {
                lab.with_nat(site, |nat| nat.wipe());
                outside.check_null_binding(&Ear::on(&host, 5_000), public, known_first);
            }
        },
    );
}

#[test]
fn a_line_delays_loses_throttles_and_is_cut_both_ways() {
    story(
        "packets::a_line_delays_loses_throttles_and_is_cut_both_ways",
        |lab| {
            let outside = outside(lab);
            let (ear, at) = (&outside.ears[0], outside.addrs[0]);
            let site = lab.site(STRICT);
            let inside = Ear::on(&lab.host(site), 0);
            let mapped = ear.sees(&inside, at);

            let delay = Duration::from_millis(60);
            lab.set_weather(site, |weather| weather.delay = delay);
            for (from, to, to_addr) in [(&inside, ear, at), (ear, &inside, mapped)] {
                let began = now();
                from.say("slowly", to_addr);
                assert!(to.hear_within(PATIENCE).is_some());
                assert!(began.elapsed() >= delay);
            }
            lab.set_weather(site, |weather| weather.delay = Duration::ZERO);

            // Half of many packets: neither none nor all, but for odds of one in 2¹⁹⁹.
            lab.set_weather(site, |weather| weather.loss_per_mille = 500);
            for (from, to, to_addr) in [(&inside, ear, at), (ear, &inside, mapped)] {
                (0..200).for_each(|n| from.say(&n.to_string(), to_addr));
                let heard = to.hear_all().len();
                assert!(0 < heard && heard < 200, "{heard} of 200");
            }
            lab.set_weather(site, |weather| weather.loss_per_mille = 0);

            // 100 packets of a kilobyte need a second at 100 KB/s, of which a queue of a tenth is kept.
            lab.set_weather(site, |weather| weather.rate = Some(100_000));
            for (from, to, to_addr) in [(&inside, ear, at), (ear, &inside, mapped)] {
                let text = |n| format!("{n:0>972}");
                (0..100).for_each(|n| from.say(&text(n), to_addr));
                let heard = to.hear_all().len();
                assert!((10..100).contains(&heard), "{heard} of 100");
            }
            lab.set_weather(site, |weather| weather.rate = None);

            lab.set_weather(site, |weather| weather.cut = true);
            inside.say("out", at);
            ear.say("in", mapped);
            assert_eq!((inside.hear(), ear.hear()), (None, None));
        },
    );
}
