//! One build, disturbed or not, and what became of it.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Child,
    thread::sleep,
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use crate::{
    WORKERS,
    cluster::{
        mesh::Mesh,
        scratch,
        site::{Made, Site},
        stock::{self, Setting},
    },
    faults::Fault,
    garbage,
    median::median,
};

/// Who distributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arm {
    Distmesh,
    /// distcc, `-j` by the book: all slots and a local job for each machine's core.
    Stock,
}

/// What one build came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    arm: Arm,
    fault: Option<Fault>,
    /// Seconds from make's start to its end.
    wall: f64,
    /// Seconds from make's start to the fault.
    fault_at: Option<f64>,
    /// Objects that were there at the fault.
    objects: usize,
    exit: Option<i32>,
    /// Objects that are missing or not what a local build makes.
    wrong: Vec<PathBuf>,
    /// Compiles that were sent away and had to be done here.
    local: u64,
    /// The longest job that was attempted more than once, in seconds; 0 for an arm that does not tell.
    longest_lost: f64,
}

/// Where the runs take place.
pub(crate) struct Stage {
    pub(crate) site: Site,
    pub(crate) adapt: bool,
}

/// Where the distccd is that a worker uses whose distccd is to talk nonsense.
const BEHIND: u16 = 3700;
const NONSENSE: u16 = 3701;

impl Stage {
    /// The plain local build of the primary.
    pub(crate) fn local(&self) -> Local {
        let made = self.site.local();
        let local = Local {
            wall: made.wall.as_secs_f64(),
            objects: self.site.tree.ages(),
        };
        let quarter = local.reached(local.objects.len() / 4);
        println!(
            "local: {:.1} s, a quarter of the objects after {quarter:.1} s",
            local.wall
        );
        local
    }

    pub(crate) fn run(&self, arm: Arm, fault: Option<Fault>) -> Run {
        self.site.tree.renew();
        let dir = scratch(&format!("faults-{arm:?}"));
        let mut struck = Struck::new(&self.site, fault);
        let (made, report) = match arm {
            Arm::Distmesh => self.distmesh(&dir, &mut struck),
            Arm::Stock => (self.stock(&dir, &mut struck), PathBuf::new()),
        };
        let (local, longest_lost) = match arm {
            Arm::Distmesh => told(&report),
            Arm::Stock => (0, 0.0),
        };
        let run = Run {
            arm,
            fault,
            wall: made.wall.as_secs_f64(),
            fault_at: struck.at.map(|at| at.as_secs_f64()),
            objects: struck.objects,
            exit: made.code(),
            wrong: self.site.wrong(),
            local: local + fallbacks(&dir.join("distcc.log")),
            longest_lost,
        };
        println!("{run:?}");
        run
    }

    fn distmesh(&self, dir: &Path, struck: &mut Struck<'_>) -> (Made, PathBuf) {
        let cluster = &self.site.cluster;
        let mut mesh = Mesh::new(dir.to_owned());
        mesh.adapt = self.adapt;
        let mut servers = Vec::new();
        if struck.by == Some(Fault::Garbage) {
            servers.extend(self.with_nonsense(dir, Ipv4Addr::LOCALHOST));
        }
        let nonsense = !servers.is_empty();
        servers.extend(mesh.workers(cluster, |n| {
            let at = || format!("127.0.0.1:{NONSENSE}");
            let uses = (nonsense && n == 0).then(|| vec!["--distccd".to_owned(), at()]);
            uses.unwrap_or_default()
        }));
        let what = self.site.tree.build("-j");
        let mut command = mesh.build(cluster, &self.site.tree.at, &what);
        // Each distcc writes what it did; of a fallback to the primary there is to be none.
        command
            .env("DISTCC_LOG", dir.join("distcc.log"))
            .env("DISTCC_VERBOSE", "1");
        let log = mesh.log("build");
        let made = self
            .site
            .watch(&mut command, &log, |since| struck.look(since));
        self.site.clear(servers);
        (made, mesh.report())
    }

    fn stock(&self, dir: &Path, struck: &mut Struck<'_>) -> Made {
        let cluster = &self.site.cluster;
        let nonsense = struck.by == Some(Fault::Garbage);
        let mut servers = Vec::new();
        let mut hosts = Vec::new();
        for (n, runner) in cluster.workers.iter().enumerate() {
            let replaced = nonsense && n == 0;
            let port = if replaced { NONSENSE } else { stock::PORT };
            hosts.push(SocketAddrV4::new(runner.ip, port));
            if replaced {
                servers.extend(self.with_nonsense(dir, runner.ip));
            } else {
                let log = dir.join(format!("{}.log", runner.name));
                let slots = cluster.size.slots;
                servers.push(stock::start(runner, runner.ip, port, slots, &log));
            }
        }
        sleep(stock::UNTIL_UP);
        let setting = Setting::usual(cluster);
        let hosts = setting.hosts(cluster.size.slots, hosts.into_iter());
        let mut command = stock::build(&self.site, dir, setting, &hosts);
        command
            .env("DISTCC_LOG", dir.join("distcc.log"))
            .env("DISTCC_VERBOSE", "1");
        let log = dir.join("build.log");
        let made = self
            .site
            .watch(&mut command, &log, |since| struck.look(since));
        self.site.clear(servers);
        made
    }

    /// A distccd on the first worker, and before it what will talk nonsense.
    fn with_nonsense(&self, dir: &Path, listen: Ipv4Addr) -> [Child; 2] {
        let first = &self.site.cluster.workers[0];
        let slots = self.site.cluster.size.slots + 1;
        let log = dir.join("behind.log");
        let distccd = stock::start(first, Ipv4Addr::LOCALHOST, BEHIND, slots, &log);
        let before = format!("{listen}:{NONSENSE}");
        let servers = [
            distccd,
            garbage::start(first, &before, &format!("127.0.0.1:{BEHIND}")),
        ];
        sleep(stock::UNTIL_UP);
        servers
    }
}

/// The fault of a run: it happens when a quarter of the objects is there.
struct Struck<'a> {
    site: &'a Site,
    by: Option<Fault>,
    at: Option<Duration>,
    objects: usize,
}

impl<'a> Struck<'a> {
    fn new(site: &'a Site, by: Option<Fault>) -> Self {
        Self {
            site,
            by,
            at: None,
            objects: 0,
        }
    }

    fn look(&mut self, since: Duration) {
        let Some(fault) = self.by.filter(|_| self.at.is_none()) else {
            return;
        };
        self.objects = self.site.tree.count();
        if self.objects * 4 >= self.site.size() {
            self.at = Some(since);
            fault.happen(&self.site.cluster);
        }
    }
}

/// The plain local build: how long it took, and when it had each of its objects, in seconds.
pub(crate) struct Local {
    wall: f64,
    objects: Vec<f64>,
}

impl Local {
    /// When it had that many objects.
    fn reached(&self, objects: usize) -> f64 {
        let last = objects.checked_sub(1);
        last.and_then(|last| self.objects.get(last))
            .copied()
            .unwrap_or(0.0)
    }
}

/// Jobs that came home, and the longest of those that took more than one attempt.
fn told(report: &Path) -> (u64, f64) {
    let text = fs::read_to_string(report.join("events.jsonl")).unwrap_or_default();
    let events = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let jobs: Vec<_> = events.filter(|event| event["event"] == "job").collect();
    let home = jobs
        .iter()
        .filter(|job| job["outcome"] == "returned-to-client" || job["outcome"] == "called-back");
    let lost = jobs
        .iter()
        .filter(|job| job["attempts"].as_u64() > Some(1) || job["hedged"] == true);
    let seconds = |job: &Value| {
        let part = |name: &str| job["ran"][name].as_f64().unwrap_or(0.0);
        part("secs") + part("nanos") / 1e9
    };
    (home.count() as u64, lost.map(seconds).fold(0.0, f64::max))
}

/// Compiles that distcc did itself after it had tried elsewhere.
fn fallbacks(log: &Path) -> u64 {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .filter(|line| line.contains("failed to distribute"))
        .count() as u64
}

/// Prints a table; returns whether every run of distmesh ended well and, unless nobody asks for time, is within its bound.
pub(crate) fn tell(runs: &[Run], local: Option<&Local>, timeless: bool) -> bool {
    let mut undisturbed: BTreeMap<Arm, Vec<f64>> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.fault.is_none()) {
        undisturbed.entry(run.arm).or_default().push(run.wall);
    }
    let usual: BTreeMap<_, _> = undisturbed
        .into_iter()
        .map(|(arm, walls)| (arm, median(&walls)))
        .collect();
    println!(
        "\n{:<10} {:<10} {:>8} {:>8} {:>8} {:>6} {:>6} {:>6}",
        "arm", "fault", "wall s", "bound s", "÷ usual", "exit", "local", "wrong"
    );
    let mut good = true;
    for run in runs {
        let usual = usual.get(&run.arm).copied().unwrap_or(f64::NAN);
        let bound = if timeless {
            f64::INFINITY
        } else {
            bound(run, usual, local)
        };
        let name = run
            .fault
            .map_or("none".to_owned(), |fault| format!("{fault:?}"));
        let exit = run.exit.map_or("hangs".to_owned(), |code| code.to_string());
        println!(
            "{:<10} {:<10} {:>8.1} {:>8.1} {:>8.2} {:>6} {:>6} {:>6}",
            format!("{:?}", run.arm),
            name,
            run.wall,
            bound,
            run.wall / usual,
            exit,
            run.local,
            run.wrong.len(),
        );
        let kept = run.fault == Some(Fault::AllGone) || run.local == 0;
        let within = run.wall <= bound;
        let ours = run.arm == Arm::Distmesh;
        if ours && (run.exit != Some(0) || !within || !run.wrong.is_empty() || !kept) {
            good = false;
        }
    }
    for fault in Fault::ALL.map(Some).into_iter().chain([None]) {
        for (arm, usual) in &usual {
            let walls: Vec<_> = runs
                .iter()
                .filter(|run| run.arm == *arm && run.fault == fault)
                .map(|run| run.wall)
                .collect();
            if !walls.is_empty() {
                let name = fault.map_or("none".to_owned(), |fault| format!("{fault:?}"));
                println!(
                    "median {arm:?} {name}: {:.2} of the undisturbed build",
                    median(&walls) / usual
                );
            }
        }
    }
    good
}

fn bound(run: &Run, usual: f64, local: Option<&Local>) -> f64 {
    let (Some(fault), Some(at)) = (run.fault, run.fault_at) else {
        return f64::INFINITY;
    };
    let left = WORKERS - fault.lost();
    if left == 0 {
        // The pace of the plain local build is not even: its first objects are small.
        let rest = |local: &Local| local.wall - local.reached(run.objects);
        return at + local.map_or(f64::NAN, rest) + 5.0;
    }
    at + (usual - at).max(0.0) * WORKERS as f64 / left as f64 + 3.0 + run.longest_lost
}
