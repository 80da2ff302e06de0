//! One build by one means.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    cluster::{
        mesh::Mesh,
        nat::Wan,
        runner::{Network, Runner},
        scratch,
        site::{Made, Site},
        stock::{self, Setting},
    },
    icecream::{self, Icecream},
    wireguard::Wireguard,
};

/// Who builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arm {
    /// The primary alone.
    Local,
    /// distcc, over the bare network.
    Stock,
    /// distcc, over WireGuard by wireguard-go.
    StockWireguard,
    /// icecream, over the bare network.
    Icecream,
    /// distmesh, with NAT before every machine.
    Distmesh,
}

/// What one build came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) arm: Arm,
    pub(crate) setting: Option<Setting>,
    /// 0 for the local build.
    pub(crate) workers: usize,
    /// Seconds from make's start to its end.
    pub(crate) wall: f64,
    /// Seconds of CPU that the primary spent meanwhile.
    pub(crate) cpu: Option<f64>,
    /// Of these, what distmesh says it spent itself, its shims included.
    #[serde(default)]
    pub(crate) own: Option<f64>,
    /// Seconds of CPU that all workers spent, their start included.
    pub(crate) workers_cpu: Option<f64>,
    /// When the first object was there, and each further quarter of them, in seconds.
    pub(crate) progress: Vec<f64>,
    pub(crate) exit: Option<i32>,
    /// Objects that are missing or not what a local build makes.
    pub(crate) wrong: Vec<PathBuf>,
    /// The first tries of a grid, which only choose what is measured.
    pub(crate) search: bool,
}

/// Where the builds take place, and what they came to.
pub(crate) struct Stage {
    pub(crate) site: Site,
    pub(crate) runs: Vec<Run>,
    /// The settings that are worth measuring, by number of workers.
    best: BTreeMap<usize, Vec<Setting>>,
    /// The workers' CPU before the run.
    used_before: f64,
}

fn quarters(ages: &[f64]) -> Vec<f64> {
    let last = ages.len().saturating_sub(1);
    let at = |quarter| ages.get(last * quarter / 4).copied();
    (0..=4).filter_map(at).collect()
}

/// What the report of a build says of distmesh's own CPU.
fn own_cpu(report: &Path) -> Option<f64> {
    let text = fs::read_to_string(report.join("report.json")).ok()?;
    let report: Value = serde_json::from_str(&text).ok()?;
    report["cpu"]["distmesh_s"].as_f64()
}

/// How many of the grid's points are measured in earnest: one try does not find the best.
const FINALISTS: usize = 3;

/// What has to be installed for these arms.
pub(crate) fn lacking(arms: &[Arm]) -> Result<(), String> {
    let needs = [
        (
            Arm::StockWireguard,
            &["wireguard-go", "wg"][..],
            "wireguard-go wireguard-tools",
        ),
        (Arm::Icecream, &icecream::TOOLS[..], "icecc"),
    ];
    let lacks = |tools: &[&str]| tools.iter().any(|tool| which::which(tool).is_err());
    let packages: Vec<_> = needs
        .into_iter()
        .filter(|(arm, tools, _)| arms.contains(arm) && lacks(tools))
        .map(|(_, _, packages)| packages)
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    Err(format!(
        "needs more tools: apt-get install {} (or choose with --arm)",
        packages.join(" ")
    ))
}

impl Stage {
    pub(crate) fn new(site: Site) -> Self {
        Self {
            site,
            runs: Vec::new(),
            best: BTreeMap::new(),
            used_before: 0.0,
        }
    }

    fn workers(&self) -> usize {
        self.site.cluster.workers.len()
    }

    /// Tries every setting of distcc once, and keeps the best few.
    pub(crate) fn search_grid(&mut self) {
        let mut tried = Vec::new();
        for setting in Setting::grid(&self.site.cluster) {
            let run = self.stock(setting, true);
            tried.push((run.wall, setting));
            self.note(run);
        }
        tried.sort_by(|a, b| a.0.total_cmp(&b.0));
        let best = tried.into_iter().map(|(_, setting)| setting);
        self.best
            .insert(self.workers(), best.take(FINALISTS).collect());
    }

    /// Keeps those that were best with another number of workers.
    pub(crate) fn scale_grid(&mut self, from: usize) {
        let slots = self.site.cluster.size.slots;
        let (before, after) = (from as u32 * slots, self.site.cluster.slots());
        let best = self.best.get(&from).into_iter().flatten();
        let best = best.map(|setting| setting.scaled(before, after)).collect();
        self.best.insert(self.workers(), best);
    }

    /// Builds once, or, where settings compete, once with each.
    pub(crate) fn run(&mut self, arm: Arm) {
        let settings = self.best.get(&self.workers()).cloned();
        let settings = settings.unwrap_or_else(|| vec![Setting::usual(&self.site.cluster)]);
        match arm {
            Arm::Local => {
                let made = self.site.local();
                let run = self.told(Arm::Local, None, &made);
                self.note(Run { workers: 0, ..run });
            }
            Arm::Stock => {
                for setting in settings {
                    let run = self.stock(setting, false);
                    self.note(run);
                }
            }
            Arm::StockWireguard => {
                let run = self.stock_wireguard(settings[0]);
                self.note(run);
            }
            Arm::Icecream => {
                let run = self.icecream();
                self.note(run);
            }
            Arm::Distmesh => {
                let run = self.distmesh();
                self.note(run);
            }
        }
    }

    fn note(&mut self, run: Run) {
        self.begin();
        println!("{run:?}");
        self.runs.push(run);
    }

    /// Other workers are employed from now on.
    pub(crate) fn begin(&mut self) {
        self.used_before = self.workers_used();
    }

    fn workers_used(&self) -> f64 {
        let workers = self.site.cluster.workers.iter();
        workers.map(Runner::used).sum()
    }

    fn told(&self, arm: Arm, setting: Option<Setting>, made: &Made) -> Run {
        Run {
            arm,
            setting,
            workers: self.workers(),
            wall: made.wall.as_secs_f64(),
            cpu: Some(made.cpu).filter(|cpu| cpu.is_finite()),
            own: None,
            workers_cpu: Some(self.workers_used() - self.used_before).filter(|cpu| cpu.is_finite()),
            progress: quarters(&self.site.tree.ages()),
            exit: made.code(),
            wrong: self.site.wrong(),
            search: false,
        }
    }

    fn stock(&mut self, setting: Setting, search: bool) -> Run {
        self.site.cluster.join(Network::Lan);
        let ips = self.site.cluster.workers.iter().map(|worker| worker.ip);
        let made = self.distcc(setting, ips.collect());
        Run {
            search,
            ..self.told(Arm::Stock, Some(setting), &made)
        }
    }

    fn stock_wireguard(&mut self, setting: Setting) -> Run {
        self.site.cluster.join(Network::Lan);
        let wireguard = Wireguard::new(&self.site.cluster);
        let made = self.distcc(setting, wireguard.workers());
        self.told(Arm::StockWireguard, Some(setting), &made)
    }

    fn distcc(&self, setting: Setting, workers: Vec<Ipv4Addr>) -> Made {
        self.site.tree.renew();
        let dir = scratch("speedup-stock");
        let cluster = &self.site.cluster;
        let servers = stock::start_all(cluster, &workers, &dir);
        let hosts = workers
            .into_iter()
            .map(|ip| SocketAddrV4::new(ip, stock::PORT));
        let hosts = setting.hosts(cluster.size.slots, hosts);
        let mut command = stock::build(&self.site, &dir, setting, &hosts);
        let made = self
            .site
            .watch(&mut command, &dir.join("build.log"), |_| ());
        self.site.clear(servers);
        made
    }

    fn icecream(&mut self) -> Run {
        self.site.tree.renew();
        self.site.cluster.join(Network::Lan);
        let mut icecream = Icecream::new(&self.site);
        let jobs = Setting::usual(&self.site.cluster).jobs;
        let log = scratch("speedup-icecream").join("build.log");
        let mut command = icecream.build(&self.site, jobs);
        let made = self.site.watch(&mut command, &log, |_| ());
        self.site.clear(std::mem::take(&mut icecream.servers));
        self.told(Arm::Icecream, None, &made)
    }

    fn distmesh(&mut self) -> Run {
        self.site.tree.renew();
        self.site.cluster.join(Network::BehindNat);
        let cluster = &self.site.cluster;
        let mut mesh = Mesh::new(scratch("speedup-distmesh"));
        mesh.stun = Wan::servers();
        let servers = mesh.workers(cluster, |_| Vec::new());
        let what = self.site.tree.build("-j");
        let mut command = mesh.build(cluster, &self.site.tree.at, &what);
        let made = self.site.watch(&mut command, &mesh.log("build"), |_| ());
        self.site.clear(servers);
        Run {
            own: own_cpu(&mesh.report()),
            ..self.told(Arm::Distmesh, None, &made)
        }
    }
}
