//! Every pair of NATs, with a third node that reaches both: direct where nat.md says so, relayed where not.

use std::time::Duration;

use crate::{
    lab::{Host, Lab, Node, story, time_to_link, until},
    nat::{
        ADDRESS_AND_PORT, ALL, Behaviour,
        Expected::{Direct, Relayed},
        INDEPENDENT, expected, pairs,
    },
};

/// One pair's session.
struct Trial {
    nats: (Behaviour, Behaviour),
    primary: Option<Node>,
    worker: Option<Node>,
    _relay: Node,
    hosts: [Host; 2],
    session: String,
}

impl Trial {
    fn new(lab: &mut Lab, number: usize, nats: (Behaviour, Behaviour)) -> Self {
        let session = format!("session-{number}");
        let open = lab.open_site();
        let third = lab.host(open);
        let sites = [lab.site(nats.0), lab.site(nats.1)];
        Self {
            nats,
            primary: None,
            worker: None,
            _relay: lab.node_of(&session, &third, "worker", "r"),
            hosts: sites.map(|site| lab.host(site)),
            session,
        }
    }

    fn start(&mut self, lab: &Lab, primary: bool) {
        let [a, b] = &self.hosts;
        match primary {
            true => self.primary = Some(lab.node_of(&self.session, a, "primary", "p")),
            false => self.worker = Some(lab.node_of(&self.session, b, "worker", "w")),
        }
    }

    fn is_as_expected(&self) -> bool {
        let route = match expected(self.nats.0, self.nats.1) {
            Direct => "direct",
            Relayed => "relayed",
        };
        let up = |node: &Option<Node>, peer| {
            node.as_ref()
                .is_some_and(|node| node.is_up(peer, Some(route)))
        };
        up(&self.primary, "w") && up(&self.worker, "p")
    }

    fn took(&self) -> u64 {
        let [primary, worker] = [&self.primary, &self.worker].map(|node| node.as_ref().unwrap());
        time_to_link(primary, worker)
    }
}

/// Brings up a batch of pairs side by side and checks each; returns what each took, in milliseconds.
fn check(
    lab: &mut Lab,
    batch: &[(Behaviour, Behaviour)],
    skew: Duration,
    primary_first: bool,
) -> Vec<u64> {
    let mut trials: Vec<_> = batch
        .iter()
        .enumerate()
        .map(|(number, nats)| Trial::new(lab, number, *nats))
        .collect();
    for trial in &mut trials {
        trial.start(lab, primary_first);
    }
    std::thread::sleep(skew);
    for trial in &mut trials {
        trial.start(lab, !primary_first);
    }
    for trial in &trials {
        until(
            &format!("{:?}, skew {skew:?}", trial.nats),
            Duration::from_secs(40),
            || trial.is_as_expected(),
        );
    }
    trials.iter().map(Trial::took).collect()
}

fn report(what: &str, mut took: Vec<u64>) {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "{what}: {} links, p50 {} ms, p99 {} ms, most {} ms",
        took.len(),
        at(50),
        at(99),
        at(100)
    );
}

#[test]
#[ignore = "sixty-five processes: nightly"]
fn sixty_four_workers_at_once() {
    story("matrix::sixty_four_workers_at_once", |lab| {
        let strict = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
        let sites: Vec<_> = (0..65).map(|_| lab.site(strict)).collect();
        let hosts: Vec<_> = sites.into_iter().map(|site| lab.host(site)).collect();
        let workers: Vec<_> = hosts[1..]
            .iter()
            .enumerate()
            .map(|(n, host)| lab.node(host, "worker", &format!("w{n}")))
            .collect();
        // Two cores start 64 processes in seconds: that is the lab's time, not the link's.
        until("all know their NAT", Duration::from_secs(60), || {
            workers
                .iter()
                .all(|worker| worker.first(|line| line["nat"].is_string()).is_some())
        });
        let primary = lab.node(&hosts[0], "primary", "p");
        until("all are up", Duration::from_secs(60), || {
            workers
                .iter()
                .all(|worker| worker.is_up("p", None) && primary.is_up(&worker.name, None))
        });
        let took = workers.iter().map(|worker| time_to_link(&primary, worker));
        report("64 workers at once", took.collect());
    });
}

/// Three runs of all 81 pairs, nine at a time, each batch in a lab of its own.
fn whole_matrix(skew: u64) {
    let all: Vec<_> = pairs().collect();
    let mut took = Vec::new();
    for run in 0..3 {
        for batch in all.chunks(9) {
            let skew = Duration::from_secs(skew);
            took.extend(check(&mut Lab::new(), batch, skew, run % 2 == 0));
        }
    }
    report(&format!("the matrix with a skew of {skew} s"), took);
}

#[test]
fn a_row_of_the_matrix_comes_out_as_expected() {
    story("matrix::a_row_of_the_matrix_comes_out_as_expected", |lab| {
        // One of each kind: the diagonal of the table.
        let all: Vec<_> = pairs().collect();
        let some: Vec<_> = all.iter().step_by(10).copied().collect();
        report("the diagonal", check(lab, &some, Duration::ZERO, true));
    });
}

#[test]
fn pairs_that_just_meet_and_pairs_that_just_do_not_come_out_as_expected() {
    story(
        "matrix::pairs_that_just_meet_and_pairs_that_just_do_not_come_out_as_expected",
        |lab| {
            let [e, a, p] = ALL;
            // Each row is the last that is direct, beside the same with one filter tightened or one mapping hardened.
            let rows = [
                ((e, p), (e, p), Direct),
                ((e, e), (p, p), Direct),
                ((e, a), (p, p), Direct),
                ((e, p), (a, a), Relayed),
                ((e, p), (p, e), Relayed),
                ((a, e), (p, a), Direct),
                ((a, e), (p, p), Relayed),
                ((p, e), (p, e), Relayed),
            ];
            let nat = |(mapping, filtering)| Behaviour::new(mapping, filtering);
            let batch = rows.map(|(one, other, _)| (nat(one), nat(other)));
            for ((one, other), (_, _, route)) in batch.iter().zip(rows) {
                assert_eq!(expected(*one, *other), route, "{one:?} × {other:?}");
            }
            report("the border", check(lab, &batch, Duration::ZERO, false));
        },
    );
}

#[test]
#[ignore = "the whole matrix takes minutes: nightly"]
fn every_pair_of_nats_at_once() {
    story("matrix::every_pair_of_nats_at_once", |_| whole_matrix(0));
}

#[test]
#[ignore = "the whole matrix takes minutes: nightly"]
fn every_pair_of_nats_three_seconds_apart() {
    story("matrix::every_pair_of_nats_three_seconds_apart", |_| {
        whole_matrix(3);
    });
}

#[test]
#[ignore = "the whole matrix takes minutes: nightly"]
fn every_pair_of_nats_ten_seconds_apart() {
    story("matrix::every_pair_of_nats_ten_seconds_apart", |_| {
        whole_matrix(10);
    });
}
