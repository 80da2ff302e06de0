//! What linked nodes tell each other needs no rendezvous.

use std::{fs, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    lab::{Host, Lab, story, until},
    nat::{ADDRESS_AND_PORT, Behaviour, INDEPENDENT},
};

const STRICT: Behaviour = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);

/// A worker as `distmesh status --json` shows it.
fn worker(lab: &Lab, primary: &Host, name: &str) -> Option<Value> {
    let output = lab
        .distmesh(primary, &["status", "--json"])
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).ok()?;
    let workers = status["workers"].as_array()?;
    workers
        .iter()
        .find(|worker| worker["name"] == name)
        .cloned()
}

#[test]
fn a_new_mapping_is_told_through_a_relay_while_the_rendezvous_is_gone() {
    story(
        "gossip::a_new_mapping_is_told_through_a_relay_while_the_rendezvous_is_gone",
        |lab| {
            let sites = [lab.site(STRICT), lab.site(STRICT), lab.open_site()];
            let [a, b, c] = sites.map(|site| lab.host(site));
            let mut up = lab.distmesh(&a, &["up", "--foreground"]);
            let mut primary = up.spawn().unwrap();
            let _workers = [lab.worker(&b, "strict", 1), lab.worker(&c, "open", 1)];
            let is_direct = |lab: &Lab, name: &str| {
                worker(lab, &a, name)
                    .is_some_and(|seen| seen["state"] == "up" && seen["path"] == "direct")
            };
            until("both are up", Duration::from_secs(60), || {
                is_direct(lab, "strict") && is_direct(lab, "open")
            });
            fs::rename(lab.path("rendezvous"), lab.path("gone")).unwrap();
            fs::write(lab.path("rendezvous"), "not a directory").unwrap();
            lab.with_nat(sites[1], |nat| nat.wipe());
            until("the relay bridges it", Duration::from_secs(30), || {
                worker(lab, &a, "strict")
                    .is_some_and(|seen| seen["path"] == "relayed" && seen["state"] == "up")
            });
            // Nobody could publish the new address, and yet:
            let took = until("it is direct again", Duration::from_secs(60), || {
                is_direct(lab, "strict")
            });
            println!("direct again {took:?} after it was relayed");
            kill_process(Pid::from_child(&primary), Signal::TERM).unwrap();
            primary.wait().unwrap();
        },
    );
}
