//! What one job costs more than with distcc alone.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use distmesh::session::Descriptor;
use serde::Serialize;

use crate::{
    clock::now,
    distccd::{Distccd, Shop},
    measure::{figures::Spread, usage::Usage},
    primary::{self, Over, Report},
    role::{Process, Role},
    worker,
};

/// The way from distcc to distccd, on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// No distmesh.
    Direct,
    /// dispatch → distccd.
    Dispatch,
    /// dispatch → the worker's relay → distccd.
    Relay,
    /// dispatch → tunnel → the worker's relay → distccd.
    Tunnel,
}

/// Sizes of what is compiled, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sizes {
    pub(crate) source: usize,
    pub(crate) object: usize,
}

/// What one way came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) sizes: Sizes,
    pub(crate) way: Way,
    /// Milliseconds from distcc's start to its end.
    pub(crate) wall: Spread,
    /// Milliseconds more than directly, round by round.
    pub(crate) added: Spread,
    /// Milliseconds of CPU a job, of each of distmesh's processes.
    pub(crate) primary: f64,
    pub(crate) worker: f64,
}

/// Lets distcc compile so many times on each way, in turn.
pub(crate) fn run(sizes: Sizes, rounds: usize) -> Vec<Row> {
    let shop = Shop::new();
    let compiler = shop.stand_in(sizes.object);
    let distccd = shop.distccd(std::slice::from_ref(&compiler));
    let compilers = shop.real_compiler();
    let [direct, dispatch, relay, tunnel] = WAYS;
    let mut arms = [
        Arm::direct(direct, &distccd),
        Arm::new(dispatch, &distccd, &compiler, None),
        Arm::new(relay, &distccd, &compiler, Some(&compilers)),
        Arm::new(tunnel, &distccd, &compiler, Some(&compilers)),
    ];
    let source = shop.source(sizes.source);
    let one = |arm: &Arm| one(&shop, arm.port, &compiler, &source, sizes.object);
    // Not counted: the first jobs find cold caches, and one of them a path whose packets are still small.
    for arm in &arms {
        for _ in 0..WARM_UP {
            one(arm);
        }
    }
    arms.iter_mut().for_each(Arm::begin);
    let mut walls = [const { Vec::new() }; WAYS.len()];
    for round in 0..rounds {
        // Each way follows each other as often: what one leaves behind is in nobody's favour.
        for turn in 0..WAYS.len() {
            let at = (round + turn) % WAYS.len();
            walls[at].push(one(&arms[at]).as_secs_f64() * 1e3);
        }
    }
    let each = arms.iter_mut().zip(&walls);
    each.map(|(arm, mine)| row(sizes, arm, mine, &walls[0]))
        .collect()
}

fn row(sizes: Sizes, arm: &mut Arm, mine: &[f64], direct: &[f64]) -> Row {
    let pairs = mine.iter().zip(direct);
    let [primary, worker] = arm.end(mine.len());
    Row {
        sizes,
        way: arm.way,
        wall: Spread::of(mine.to_vec()),
        added: Spread::of(pairs.map(|(mine, direct)| mine - direct).collect()),
        primary,
        worker,
    }
}

/// One job; every byte of its object has to be there.
fn one(shop: &Shop, port: u16, compiler: &Path, source: &Path, object: usize) -> Duration {
    let mut command = shop.distcc(port, compiler, source);
    let began = now();
    let output = command.output().expect("distcc");
    let took = began.elapsed();
    assert!(
        output.status.success(),
        "distcc: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let made = fs::read(shop.object()).expect("an object");
    assert!(made.len() == object && made.iter().all(|byte| *byte == b'o'));
    fs::remove_file(shop.object()).expect("our own object");
    took
}

/// One way and its processes.
struct Arm {
    way: Way,
    port: u16,
    primary: Option<Process>,
    worker: Option<Process>,
    before: [Usage; 2],
    compiled: u64,
}

impl Arm {
    fn direct(way: Way, distccd: &Distccd) -> Self {
        Self {
            way,
            port: distccd.at.port(),
            primary: None,
            worker: None,
            before: Default::default(),
            compiled: 0,
        }
    }

    /// Without a directory of compilers there is no relay.
    fn new(way: Way, distccd: &Distccd, compiler: &Path, relay: Option<&PathBuf>) -> Self {
        let tunnel = way == Way::Tunnel;
        let mut worker = relay.map(|compilers| {
            Process::start(&Role::Worker(worker::Task {
                distccd: distccd.at,
                tunnel,
                compilers: compilers.clone(),
            }))
        });
        let over = match &mut worker {
            None => Over::Tcp(vec![distccd.at]),
            Some(worker) if tunnel => Over::Tunnel(worker.hear()),
            Some(worker) => Over::Tcp(worker.hear()),
        };
        let mut primary = Process::start(&Role::Primary(primary::Task {
            slots: SLOTS,
            compiler: compiler.display().to_string(),
            over,
        }));
        if let Some(worker) = worker.as_mut().filter(|_| tunnel) {
            worker.tell(&primary.hear::<Descriptor>());
        }
        let ports: Vec<u16> = primary.hear();
        Self {
            way,
            port: ports[0],
            primary: Some(primary),
            worker,
            before: Default::default(),
            compiled: 0,
        }
    }

    fn begin(&mut self) {
        (self.before, self.compiled) = self.look();
    }

    /// Milliseconds of CPU a job since the beginning. All of them were compiled, at the first attempt.
    fn end(&mut self, jobs: usize) -> [f64; 2] {
        let (after, compiled) = self.look();
        if self.primary.is_some() {
            assert_eq!(compiled - self.compiled, jobs as u64, "{:?}", self.way);
        }
        let spent = |n: usize| (after[n].cpu - self.before[n].cpu).as_secs_f64() * 1e3;
        [0, 1].map(|n| spent(n) / jobs as f64)
    }

    fn look(&mut self) -> ([Usage; 2], u64) {
        sleep(SETTLED);
        let worker = self.worker.as_mut().map(Process::ask::<Usage>);
        let primary = self.primary.as_mut().map(Process::ask::<Report>);
        let primary = primary.unwrap_or_default();
        assert_eq!(primary.attempts, primary.compiled, "{:?}", self.way);
        let usage = [primary.usage, worker.unwrap_or_default()];
        (usage, primary.compiled)
    }
}

const WAYS: [Way; 4] = [Way::Direct, Way::Dispatch, Way::Relay, Way::Tunnel];
const WARM_UP: usize = 5;
/// What became of a job is told a few milliseconds after its answer.
const SETTLED: Duration = Duration::from_millis(100);
/// One job at a time needs no more.
const SLOTS: u32 = 4;
