//! A link for a long time: WireGuard takes new keys every two minutes, and must not go deaf over it.

use std::{fs, time::Duration};

use crate::{
    lab::{Lab, story, until},
    nat::{ADDRESS_AND_PORT, Behaviour, INDEPENDENT},
};

/// Traffic for a while, then silence as long, then traffic again; nothing may be lost for longer than a few seconds.
fn soak(lab: &mut Lab, span: Duration) {
    let strict = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
    let sites = [lab.site(strict), lab.site(strict)];
    let [a, b] = sites.map(|site| lab.host(site));
    set_pause(lab, Duration::from_millis(200));
    let primary = lab.node(&a, "primary", "p");
    let worker = lab.node(&b, "worker", "w");
    until("both are up", Duration::from_secs(40), || {
        primary.is_up("w", None) && worker.is_up("p", None)
    });
    std::thread::sleep(span);
    let echoes: Vec<u64> = [&primary, &worker]
        .iter()
        .flat_map(|node| echoes_of(node))
        .collect();
    assert!(
        echoes.len() as u64 > span.as_secs(),
        "{} echoes",
        echoes.len()
    );
    let gap = [&primary, &worker]
        .iter()
        .map(|node| longest_gap(&echoes_of(node)))
        .max()
        .unwrap();
    println!(
        "{} echoes in {span:?}, the longest pause {gap} ms",
        echoes.len()
    );
    assert!(gap < 5_000, "deaf for {gap} ms");
    // Both take the long pause after their next echo; the one after it is short again.
    set_pause(lab, span);
    std::thread::sleep(Duration::from_secs(2));
    set_pause(lab, Duration::from_millis(200));
    let before = [&primary, &worker].map(|node| echoes_of(node).len());
    std::thread::sleep(span);
    for (node, before) in [&primary, &worker].into_iter().zip(before) {
        until("an echo after the silence", Duration::from_secs(10), || {
            echoes_of(node).len() > before
        });
        let wobbles = node
            .told()
            .iter()
            .filter(|line| line["state"] == "suspect")
            .count();
        assert_eq!(wobbles, 0, "suspected");
    }
    println!("and {span:?} of silence");
}

fn set_pause(lab: &Lab, pause: Duration) {
    fs::write(lab.path("pause"), pause.as_millis().to_string()).unwrap();
}

fn echoes_of(node: &crate::lab::Node) -> Vec<u64> {
    let told = node.told();
    let echoes = told.iter().filter(|line| line["echo"].is_string());
    echoes.filter_map(|line| line["ms"].as_u64()).collect()
}

fn longest_gap(at: &[u64]) -> u64 {
    at.windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or_default()
}

#[test]
fn a_link_with_traffic_and_silence_stays() {
    story("soak::a_link_with_traffic_and_silence_stays", |lab| {
        soak(lab, Duration::from_secs(8));
    });
}

#[test]
#[ignore = "twenty minutes, through several re-keys: nightly"]
fn a_link_with_ten_minutes_of_traffic_and_of_silence_stays() {
    story(
        "soak::a_link_with_ten_minutes_of_traffic_and_of_silence_stays",
        |lab| {
            soak(lab, Duration::from_secs(600));
        },
    );
}
