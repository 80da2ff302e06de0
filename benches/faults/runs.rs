//! One build, disturbed or not, and what became of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread::sleep,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;

use crate::{
    cluster::{
        Cluster,
        mesh::Mesh,
        scratch, stock,
        tree::{Objects, REDIS, Tree},
        watch::{now, until},
    },
    faults::Fault,
    garbage,
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
    pub(crate) cluster: Cluster,
    adapt: bool,
    tree: Tree,
    right: Digests,
    dir: PathBuf,
}

/// A build that takes longer hangs.
const HANGS: Duration = Duration::from_secs(900);
const LOOK: Duration = Duration::from_millis(20);
/// Where the distccd is that a worker uses whose distccd is to talk nonsense.
const BEHIND: u16 = 3700;
const NONSENSE: u16 = 3701;

impl Stage {
    pub(crate) fn new(cluster: Cluster, adapt: bool) -> Self {
        let dir = scratch("faults");
        let tree = Tree::new(REDIS, dir.join("redis"));
        println!("building {} once for its objects", REDIS.package);
        tree.renew();
        // Debug information tells preprocessed input from a source, so the measure is distcc without any fault.
        let mut server = stock::here(&dir.join("reference-distccd.log"));
        sleep(Duration::from_secs(1));
        let [program, option, script] = tree.build("-j4 --silent");
        let made = Command::new(program)
            .args([option, format!("{script} CC='distcc gcc'")])
            .current_dir(&tree.at)
            .env("DISTCC_DIR", made_dir(dir.join("state")))
            .env("DISTCC_HOSTS", format!("127.0.0.1:{}/4", stock::PORT))
            .env("DISTCC_FALLBACK", "0")
            .stdout(log(&dir.join("reference.log")))
            .stderr(log(&dir.join("reference.err")))
            .status();
        drop(server.kill());
        drop(server.wait());
        assert!(
            made.as_ref().is_ok_and(ExitStatus::success),
            "see {}: {made:?}",
            dir.display()
        );
        let mut right = Digests::new();
        add(&mut right, tree.objects());
        tree.renew();
        let [program, option, script] = tree.build("-j4 --silent");
        let made = Command::new(program)
            .args([option, script])
            .current_dir(&tree.at)
            .stdout(log(&dir.join("plain.log")))
            .stderr(log(&dir.join("plain.err")))
            .status();
        assert!(
            made.as_ref().is_ok_and(ExitStatus::success),
            "see {}: {made:?}",
            dir.display()
        );
        add(&mut right, tree.objects());
        Self {
            cluster,
            adapt,
            tree,
            right,
            dir,
        }
    }

    /// The plain local build of the primary, in seconds.
    pub(crate) fn local(&self) -> f64 {
        self.tree.renew();
        let [program, option, script] = self.tree.build("-j2");
        let mut command = self.cluster.primary.command(&program);
        command.args([option, script]).current_dir(&self.tree.at);
        let made = self.watch(&mut command, &self.dir.join("local.log"), None);
        println!("local: {:.1} s", made.wall.as_secs_f64());
        made.wall.as_secs_f64()
    }

    pub(crate) fn run(&self, arm: Arm, fault: Option<Fault>) -> Run {
        self.tree.renew();
        let dir = scratch(&format!("faults-{arm:?}"));
        let (made, report) = match arm {
            Arm::Distmesh => self.distmesh(&dir, fault),
            Arm::Stock => (self.stock(&dir, fault), PathBuf::new()),
        };
        let machines = self.cluster.workers.iter().chain([&self.cluster.primary]);
        for machine in machines {
            machine.heal();
            machine.clear();
        }
        let built = self.tree.objects();
        let wrong = self.right.iter().filter(|(path, digests)| {
            let object = built.get(*path);
            !object.is_some_and(|object| digests.contains(object))
        });
        let (local, longest_lost) = match arm {
            Arm::Distmesh => told(&report),
            Arm::Stock => (0, 0.0),
        };
        let local = local + fallbacks(&dir.join("distcc.log"));
        let run = Run {
            arm,
            fault,
            wall: made.wall.as_secs_f64(),
            fault_at: made.fault_at.map(|at| at.as_secs_f64()),
            exit: made.exit.and_then(|status| status.code()),
            wrong: wrong.map(|(path, _)| path.clone()).collect(),
            local,
            longest_lost,
        };
        println!("{run:?}");
        run
    }

    fn distmesh(&self, dir: &Path, fault: Option<Fault>) -> (Made, PathBuf) {
        let mut mesh = Mesh::new(dir.to_owned());
        mesh.adapt = self.adapt;
        let mut servers = Vec::new();
        for (n, runner) in self.cluster.workers.iter().enumerate() {
            let nonsense = fault == Some(Fault::Garbage) && n == 0;
            if nonsense {
                servers.extend(self.with_nonsense(dir, Ipv4Addr::LOCALHOST));
            }
            let at = format!("127.0.0.1:{NONSENSE}");
            let more: &[&str] = if nonsense { &["--distccd", &at] } else { &[] };
            servers.push(mesh.worker(&self.cluster, n, more));
            let ready = || !runner.cgroup.processes().is_empty();
            until("a worker runs", Duration::from_secs(10), ready);
        }
        let what = self.tree.build("-j");
        let mut command = mesh.build(&self.cluster, &self.tree.at, &what);
        // Each distcc writes what it did; of a fallback to the primary there is to be none.
        command
            .env("DISTCC_LOG", dir.join("distcc.log"))
            .env("DISTCC_VERBOSE", "1");
        let made = self.watch(&mut command, &mesh.log("build"), fault);
        self.end(servers);
        (made, mesh.report())
    }

    fn stock(&self, dir: &Path, fault: Option<Fault>) -> Made {
        let mut servers = Vec::new();
        let slots = self.cluster.size.slots;
        for (n, runner) in self.cluster.workers.iter().enumerate() {
            if fault == Some(Fault::Garbage) && n == 0 {
                servers.extend(self.with_nonsense(dir, runner.ip));
            } else {
                let log = dir.join(format!("{}.log", runner.name));
                servers.push(stock::start(runner, runner.ip, stock::PORT, slots, &log));
            }
        }
        let port_of = |n| {
            if fault == Some(Fault::Garbage) && n == 0 {
                NONSENSE
            } else {
                stock::PORT
            }
        };
        sleep(Duration::from_secs(1));
        let jobs = self.cluster.workers.len() as u32 * slots + 2;
        let [program, option, script] = self.tree.build(&format!("-j{jobs}"));
        let mut command = self.cluster.primary.command(&program);
        command
            .args([option, format!("{script} CC='distcc gcc'")])
            .current_dir(&self.tree.at)
            .env("DISTCC_DIR", made_dir(dir.join("state")))
            .env("DISTCC_HOSTS", stock::hosts(&self.cluster, port_of))
            .env("DISTCC_LOG", dir.join("distcc.log"))
            .env("DISTCC_VERBOSE", "1");
        let made = self.watch(&mut command, &dir.join("build.log"), fault);
        self.end(servers);
        made
    }

    /// A distccd on the first worker, and before it what will talk nonsense.
    fn with_nonsense(&self, dir: &Path, listen: Ipv4Addr) -> [Child; 2] {
        let first = &self.cluster.workers[0];
        let slots = self.cluster.size.slots + 1;
        let log = dir.join("behind.log");
        let distccd = stock::start(first, Ipv4Addr::LOCALHOST, BEHIND, slots, &log);
        let before = format!("{listen}:{NONSENSE}");
        let servers = [
            distccd,
            garbage::start(first, &before, &format!("127.0.0.1:{BEHIND}")),
        ];
        sleep(Duration::from_secs(1));
        servers
    }

    fn end(&self, mut servers: Vec<Child>) {
        self.cluster
            .workers
            .iter()
            .for_each(|worker| worker.clear());
        for server in &mut servers {
            drop(server.wait());
        }
    }

    /// Runs the build, lets the fault happen when a quarter of the objects is there, and ends what hangs.
    fn watch(&self, command: &mut Command, to: &Path, fault: Option<Fault>) -> Made {
        drop(fs::remove_file(self.tree.stamp()));
        let mut child = command
            .stdout(log(to))
            .stderr(log(&to.with_extension("err")))
            .spawn()
            .expect("the build");
        let spawned = now();
        let mut began: Option<Instant> = None;
        let mut fault_at = None;
        loop {
            if began.is_none() && self.tree.stamp().exists() {
                began = Some(now());
            }
            let since = began.unwrap_or(spawned);
            let exit = child.try_wait().ok().flatten();
            if exit.is_some() || spawned.elapsed() > HANGS {
                if exit.is_none() {
                    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                    let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
                    drop(child.wait());
                }
                let wall = since.elapsed();
                return Made {
                    wall,
                    fault_at,
                    exit,
                };
            }
            if let Some(fault) = fault
                && fault_at.is_none()
                && self.tree.count() * 4 >= self.right.len()
            {
                fault_at = Some(since.elapsed());
                fault.happen(&self.cluster);
            }
            sleep(LOOK);
        }
    }
}

/// What each object may be: compiled here from its source, or from what was preprocessed here.
type Digests = BTreeMap<PathBuf, BTreeSet<[u8; 32]>>;

fn add(to: &mut Digests, objects: Objects) {
    for (path, digest) in objects {
        to.entry(path).or_default().insert(digest);
    }
}

struct Made {
    wall: Duration,
    fault_at: Option<Duration>,
    exit: Option<ExitStatus>,
}

/// distcc makes no more than the last part of a path.
fn made_dir(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path)
        .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    path
}

fn log(path: &Path) -> File {
    File::create(path).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()))
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

/// Prints a table; returns whether every run of distmesh is within its bound.
pub(crate) fn tell(runs: &[Run], local: Option<f64>, workers: usize) -> bool {
    let mut undisturbed: BTreeMap<Arm, Vec<f64>> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.fault.is_none()) {
        undisturbed.entry(run.arm).or_default().push(run.wall);
    }
    let usual: BTreeMap<_, _> = undisturbed
        .into_iter()
        .map(|(arm, walls)| (arm, median(walls)))
        .collect();
    println!(
        "\n{:<10} {:<10} {:>8} {:>8} {:>8} {:>6} {:>6} {:>6}",
        "arm", "fault", "wall s", "bound s", "÷ usual", "exit", "local", "wrong"
    );
    let mut good = true;
    for run in runs {
        let usual = usual.get(&run.arm).copied().unwrap_or(f64::NAN);
        let bound = bound(run, usual, local, workers);
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
        let ours = run.arm == Arm::Distmesh;
        if ours && (run.exit != Some(0) || run.wall > bound || !run.wrong.is_empty() || !kept) {
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
                    median(walls) / usual
                );
            }
        }
    }
    good
}

fn bound(run: &Run, usual: f64, local: Option<f64>, workers: usize) -> f64 {
    let (Some(fault), Some(at)) = (run.fault, run.fault_at) else {
        return f64::INFINITY;
    };
    let left = workers - fault.lost();
    if left == 0 {
        let share = 1.0 - (at / usual).min(1.0);
        return at + share * local.unwrap_or(f64::NAN) + 5.0;
    }
    at + (usual - at).max(0.0) * workers as f64 / left as f64 + 3.0 + run.longest_lost
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}
