//! Runs of many sizes.

use std::{
    env, os::unix::process::CommandExt, path::PathBuf, process::ExitCode, thread::sleep,
    time::Duration,
};

use clap::Parser;
use serde::Serialize;

use crate::{
    lab::{self, Host, Lab, Node, now, time_to_link, until},
    measure::{
        figures::{Spread, write_json},
        tools::missing,
        usage::Usage,
    },
    nat::{ADDRESS_AND_PORT, Behaviour, INDEPENDENT},
    node,
    virtual_time::{self, Virtual},
};

/// Measures the time to a link for many nodes that come at once, each behind a NAT of its own
#[derive(Debug, Parser)]
struct Args {
    /// Workers at once; for each size as many runs as make some sixty links, 3 to 20
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64,128")]
    sizes: Vec<usize>,
    /// Runs of each size, instead
    #[arg(long)]
    runs: Option<usize>,
    /// Nodes of the mesh in virtual time; 0 for none
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    virtual_sizes: Vec<usize>,
    /// Look whether everything works, not how fast
    #[arg(long)]
    quick: bool,
    /// Write all figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one size came to.
#[derive(Clone, Debug, Serialize)]
struct Row {
    workers: usize,
    runs: usize,
    /// Links that never came.
    missing: usize,
    /// Milliseconds from both descriptors visible to the link.
    link: Spread,
    /// Milliseconds from the first descriptor that the primary saw until its last link was up.
    all: Spread,
    /// MiB of the primary with all its links.
    primary_rss: f64,
}

#[derive(Serialize)]
struct All {
    real: Vec<Row>,
    virtual_time: Vec<Virtual>,
}

pub(crate) fn main() -> ExitCode {
    if node::live_if_asked() {
        return ExitCode::SUCCESS;
    }
    let mut args = Args::parse();
    let tools = [
        ("unshare", "util-linux"),
        ("mount", "mount"),
        ("ip", "iproute2"),
        ("turnserver", "coturn"),
    ];
    if let Some(needs) = missing(&tools) {
        eprintln!("{needs}");
        return ExitCode::from(2);
    }
    if let Err(error) = std::fs::File::options().write(true).open("/dev/net/tun") {
        eprintln!("needs /dev/net/tun ({error}): modprobe tun, and root or chmod 666 /dev/net/tun");
        return ExitCode::from(2);
    }
    if args.quick {
        (args.sizes, args.runs, args.virtual_sizes) = (vec![1, 4], Some(1), vec![16]);
    }
    if lab::is_inside() {
        lab::prepare_namespace();
        return run(&args);
    }
    let own = env::current_exe().expect("own path");
    let error = lab::unshare().arg(own).args(env::args_os().skip(1)).exec();
    eprintln!("cannot run unshare: {error}");
    ExitCode::from(2)
}

fn run(args: &Args) -> ExitCode {
    tell_what();
    let mut all = All {
        real: Vec::new(),
        virtual_time: Vec::new(),
    };
    let mut yard = Yard::new();
    for workers in &args.sizes {
        let row = yard.measure(*workers, args.runs);
        tell(&row);
        all.real.push(row);
    }
    let missed: Vec<_> = all.real.iter().filter(|row| !row.keeps_its_bar()).collect();
    let kept = if missed.is_empty() { "kept" } else { "MISSED" };
    println!(
        "bar: p50 at most {MOST_P50} ms and p99 at most {MOST_P99} ms, for up to {BAR_UP_TO} workers at once: {kept}\n"
    );
    let sizes = args.virtual_sizes.iter().filter(|size| **size > 0);
    all.virtual_time = sizes.map(|size| virtual_time::measure(*size)).collect();
    virtual_time::tell(&all.virtual_time);
    if let Some(path) = &args.json {
        write_json(path, &all);
    }
    let linked = all.real.iter().all(|row| row.missing == 0);
    let whole = linked && all.virtual_time.iter().all(Virtual::is_whole);
    if whole && (args.quick || missed.is_empty()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn tell_what() {
    println!(
        "Real nodes: a process each, in a network namespace behind a NAT of its own (endpoint-independent mapping, address- and\n\
         port-dependent filtering), 10 ms from any to any. The workers wait and know their NAT; then the primary comes. `link` is the\n\
         time from the moment when both ends have the other's descriptor until both have the link, of each worker; `all` that of the\n\
         primary, from the first descriptor that it sees to its last link. Processes share this machine's cores.\n"
    );
    println!(
        "{:>7} {:>5} {:>6} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>12}",
        "workers",
        "runs",
        "links",
        "missing",
        "link p50",
        "p99 ms",
        "max ms",
        "all p50",
        "max ms",
        "primary MiB"
    );
}

fn tell(row: &Row) {
    println!(
        "{:>7} {:>5} {:>6} {:>7} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>12.1}",
        row.workers,
        row.runs,
        row.link.n,
        row.missing,
        row.link.p50,
        row.link.p99,
        row.link.max,
        row.all.p50,
        row.all.max,
        row.primary_rss,
    );
}

impl Row {
    fn keeps_its_bar(&self) -> bool {
        let kept = self.link.p50 <= MOST_P50 && self.link.p99 <= MOST_P99;
        self.workers > BAR_UP_TO || (self.missing == 0 && kept)
    }
}

/// The lab, with hosts that runs use again.
struct Yard {
    lab: Lab,
    hosts: Vec<Host>,
    sessions: usize,
}

/// What one run came to, in milliseconds and MiB.
struct Run {
    links: Vec<f64>,
    /// Workers that had no link after two minutes.
    missing: usize,
    all: f64,
    primary_rss: f64,
}

impl Yard {
    fn new() -> Self {
        Self {
            lab: Lab::new(),
            hosts: Vec::new(),
            sessions: 0,
        }
    }

    fn measure(&mut self, workers: usize, runs: Option<usize>) -> Row {
        while self.hosts.len() <= workers {
            let site = self.lab.site(Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT));
            self.hosts.push(self.lab.host(site));
        }
        let enough = (ENOUGH_LINKS / workers.max(1)).clamp(FEWEST_RUNS, MOST_RUNS);
        let count = runs.unwrap_or(enough);
        let runs: Vec<_> = (0..count).map(|_| self.run(workers)).collect();
        let links = runs.iter().flat_map(|run| run.links.iter().copied());
        let most = |most: f64, run: &Run| most.max(run.primary_rss);
        Row {
            workers,
            runs: count,
            missing: runs.iter().map(|run| run.missing).sum(),
            link: Spread::of(links.collect()),
            all: Spread::of(runs.iter().map(|run| run.all).collect()),
            primary_rss: runs.iter().fold(0.0, most),
        }
    }

    /// All nodes are new: fresh keys, fresh mappings, a rendezvous of their own.
    fn run(&mut self, count: usize) -> Run {
        self.sessions += 1;
        let session = format!("session-{}", self.sessions);
        let node =
            |n: usize, role, name: &str| self.lab.node_of(&session, &self.hosts[n], role, name);
        let workers: Vec<_> = (1..=count)
            .map(|n| node(n, "worker", &format!("w{n}")))
            .collect();
        // A few cores start hundreds of processes in seconds: that is the lab's time, not the link's.
        until("all know their NAT", START, || {
            let knows = |worker: &Node| worker.first(|line| line["nat"].is_string()).is_some();
            workers.iter().all(knows)
        });
        let primary = node(0, "primary", "p");
        let up = |worker: &&Node| worker.is_up("p", None) && primary.is_up(&worker.name, None);
        let began = now();
        while !workers.iter().all(|worker| up(&worker)) && began.elapsed() < LINKED {
            sleep(LOOK);
        }
        let linked: Vec<_> = workers.iter().filter(up).collect();
        let link = |worker: &&Node| time_to_link(&primary, worker) as f64;
        let last = |worker: &Node| {
            primary.first(|line| line["peer"] == *worker.name && line["state"] == "up")
        };
        let began = primary.first(|line| line["peer"].is_string());
        let ended = workers.iter().filter_map(last).max();
        Run {
            links: linked.iter().map(link).collect(),
            missing: count - linked.len(),
            all: (ended.unwrap_or(0) - began.unwrap_or(0)) as f64,
            primary_rss: Usage::memory(&primary.pid().to_string()).rss_mib,
        }
    }
}

const MOST_P50: f64 = 1000.0;
const MOST_P99: f64 = 3000.0;
/// Beyond it the cores that all nodes share decide, and figures are told without a bar.
const BAR_UP_TO: usize = 64;
/// A hundredth of them is not the one that was unlucky …
const ENOUGH_LINKS: usize = 60;
/// … a run is another roll of the dice, and nobody waits for more than these.
const FEWEST_RUNS: usize = 3;
const MOST_RUNS: usize = 20;
/// What was told is looked at without a share of the cores worth mentioning; times are the nodes' own.
const LOOK: Duration = Duration::from_millis(100);
const START: Duration = Duration::from_secs(120);
const LINKED: Duration = Duration::from_secs(120);
