//! Everything that GitHub may do wrong: the mesh forms, or says why not; nothing hangs.

use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;

use crate::{
    fake::{Fake, Fault},
    nodes::{FULL, Nodes},
};

/// Three tries of ten seconds, thrice over, and the pauses between: more than any of these faults takes.
const PATIENCE: Duration = Duration::from_secs(150);

/// What became of one mesh.
struct Outcome {
    what: String,
    formed: bool,
    said: String,
    happened: usize,
    took: Duration,
}

async fn befall(what: String, fake: Fake) -> Outcome {
    let began = Instant::now();
    let mut nodes = Nodes::start(&fake, 1, 3);
    let formed = nodes.form(PATIENCE).await;
    let (said, took) = (nodes.said(), began.elapsed());
    let happened = fake.lock().faults.happened.len();
    nodes.stop().await;
    Outcome {
        what,
        formed,
        said,
        happened,
        took,
    }
}

#[tokio::test]
async fn each_fault_alone_is_survived_or_said() {
    let mut meshes = JoinSet::new();
    for name in Fault::NAMES {
        let fake = Fake::start();
        fake.lock().faults.add(name, 2);
        meshes.spawn(befall(name.to_owned(), fake));
    }
    for hours in [-30, 30] {
        let fake = Fake::start();
        fake.lock().store.skew = hours * 3600;
        meshes.spawn(befall(format!("a clock {hours} h off"), fake));
    }
    for outcome in meshes.join_all().await {
        let Outcome {
            what,
            formed,
            said,
            happened,
            took,
        } = outcome;
        println!("{what}: formed {formed} after {took:?}, {happened} faults");
        match what.as_str() {
            // Nobody can publish into a full storage.
            "quota" => assert!(!formed && said.contains(FULL), "{what}: {said}"),
            _ => assert!(formed, "{what}: {said}"),
        }
        assert_eq!(happened > 0, !what.contains("clock"), "{what} did happen");
    }
}

/// Forms meshes under faults drawn at random, and counts.
async fn at_random(seeds: std::ops::Range<u64>) {
    let mut meshes = JoinSet::new();
    let (mut formed, mut explained) = (0, 0);
    let mut count = |outcome: Outcome| {
        let Outcome { what, said, .. } = outcome;
        let why = [FULL, "not a distmesh descriptor", "has expired"];
        assert!(
            outcome.formed || why.iter().any(|why| said.contains(why)),
            "{what} did not form and did not say why: {said}"
        );
        if outcome.formed {
            formed += 1;
        } else {
            explained += 1;
            println!("{what} says why not:\n{said}");
        }
    };
    for seed in seeds.clone() {
        let fake = Fake::start();
        fake.lock().faults.at_random(seed, 200, 24);
        meshes.spawn(befall(format!("seed {seed}"), fake));
        if meshes.len() >= AT_ONCE {
            count(meshes.join_next().await.unwrap().unwrap());
        }
    }
    while let Some(outcome) = meshes.join_next().await {
        count(outcome.unwrap());
    }
    println!("seeds {seeds:?}: {formed} formed, {explained} said why not");
}

/// Threads, connections and backoffs of so many meshes fit into a small machine.
const AT_ONCE: usize = 25;

#[tokio::test]
async fn faults_at_random_are_survived_or_said() {
    let seed = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() % 1_000_000;
    println!("first seed: {seed}");
    at_random(seed..seed + 8).await;
}

#[tokio::test]
#[ignore = "minutes: cargo nextest run --test github --run-ignored only a_hundred"]
async fn a_hundred_runs_of_faults_at_random_are_survived_or_said() {
    at_random(0..100).await;
}
