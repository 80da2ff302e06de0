//! What linked nodes tell each other needs no rendezvous.

use std::{fs, time::Duration};

use crate::{
    lab::{Lab, story, until},
    nat::{ADDRESS_AND_PORT, Behaviour, INDEPENDENT},
};

const STRICT: Behaviour = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);

#[test]
fn a_new_mapping_is_told_through_a_relay_while_the_rendezvous_is_gone() {
    story(
        "gossip::a_new_mapping_is_told_through_a_relay_while_the_rendezvous_is_gone",
        |lab| {
            let sites = [lab.site(STRICT), lab.site(STRICT), lab.open_site()];
            let [a, b, c] = sites.map(|site| lab.host(site));
            let _primary = lab.up(&a);
            let _workers = [lab.worker(&b, "strict", 1), lab.worker(&c, "open", 1)];
            let is_direct = |lab: &Lab, name: &str| {
                lab.seen(&a, name)
                    .is_some_and(|seen| seen["state"] == "up" && seen["path"] == "direct")
            };
            until("both are up", Duration::from_secs(60), || {
                is_direct(lab, "strict") && is_direct(lab, "open")
            });
            fs::rename(lab.path("rendezvous"), lab.path("gone")).unwrap();
            fs::write(lab.path("rendezvous"), "not a directory").unwrap();
            lab.with_nat(sites[1], |nat| nat.wipe());
            // The session's own words: the relayed moment may be too short to be seen by asking.
            let said = |what: &str| {
                let log = fs::read_to_string(lab.path("up.log")).unwrap();
                log.contains(&format!("link to strict is {what}"))
            };
            until("the relay bridges it", Duration::from_secs(30), || {
                said("suspect: the direct path failed") || said("up: the direct path failed")
            });
            // Nobody could publish the new address, and yet:
            let took = until("it is direct again", Duration::from_secs(60), || {
                is_direct(lab, "strict")
            });
            println!("direct again {took:?} after it was relayed");
        },
    );
}
