//! distcc as people use it: a distccd on every machine, one list of hosts.

use std::{
    fmt,
    fs::File,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command},
    thread::sleep,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Cluster,
    runner::Runner,
    site::{Site, made_dir},
};

/// distcc's own port.
pub(crate) const PORT: u16 = 3632;

/// Starts a distccd that leads a session of its own, as a service does.
pub(crate) fn start(runner: &Runner, listen: Ipv4Addr, port: u16, slots: u32, log: &Path) -> Child {
    let log = File::create(log).expect("a log file");
    runner
        .command("setsid")
        .args([
            "distccd",
            "--no-detach",
            "--daemon",
            "--log-stderr",
            "--user",
            "nobody",
        ])
        .args(["--allow", "10.0.0.0/8", "--allow", "127.0.0.1"])
        .args(["--listen", &listen.to_string()])
        .args(["--port", &port.to_string()])
        .args(["--jobs", &slots.to_string()])
        .current_dir("/")
        .stderr(log)
        .spawn()
        .expect("distccd")
}

/// A distccd outside of the cluster, without a quota.
pub(crate) fn here(log: &Path) -> Child {
    let log = File::create(log).expect("a log file");
    Command::new("distccd")
        .args([
            "--no-detach",
            "--daemon",
            "--log-stderr",
            "--user",
            "nobody",
        ])
        .args(["--allow", "127.0.0.1", "--listen", "127.0.0.1"])
        .args(["--port", &PORT.to_string(), "--jobs", "4"])
        .current_dir("/")
        .process_group(0)
        .stderr(log)
        .spawn()
        .expect("distccd")
}

/// How distcc is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// make's `-j`.
    pub(crate) jobs: u32,
    pub(crate) lzo: bool,
    /// Slots of `localhost`, the first of the list; 0: it is not in it.
    pub(crate) localhost: u32,
}

impl Setting {
    /// By the book: all slots and a local job for each of the machine's cores, of which it has two; `lzo` is the usual advice for
    /// anything slower than a LAN.
    pub(crate) fn usual(cluster: &Cluster) -> Self {
        Self {
            jobs: cluster.slots() + 2,
            lzo: true,
            localhost: 0,
        }
    }

    /// All combinations that a person would try.
    pub(crate) fn grid(cluster: &Cluster) -> Vec<Self> {
        let slots = cluster.slots();
        let mut grid = Vec::new();
        for jobs in [slots, slots + 2, slots * 2] {
            for lzo in [false, true] {
                for localhost in [0, 1, 2] {
                    grid.push(Self {
                        jobs,
                        lzo,
                        localhost,
                    });
                }
            }
        }
        grid
    }

    /// The same with another number of slots on all workers.
    pub(crate) fn scaled(self, before: u32, after: u32) -> Self {
        let jobs = if self.jobs == before * 2 {
            after * 2
        } else {
            after + self.jobs.saturating_sub(before)
        };
        Self { jobs, ..self }
    }

    /// The list for `DISTCC_HOSTS`.
    pub(crate) fn hosts(self, slots: u32, workers: impl Iterator<Item = SocketAddrV4>) -> String {
        let here = (self.localhost > 0).then(|| format!("localhost/{}", self.localhost));
        let lzo = if self.lzo { ",lzo" } else { "" };
        let there = workers.map(|at| format!("{at}/{slots}{lzo}"));
        here.into_iter().chain(there).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            jobs, localhost, ..
        } = self;
        let lzo = if self.lzo { "lzo" } else { "plain" };
        write!(f, "-j{jobs} {lzo} localhost/{localhost}")
    }
}

/// Starts distccd on every worker, at these of their addresses.
pub(crate) fn start_all(cluster: &Cluster, at: &[Ipv4Addr], dir: &Path) -> Vec<Child> {
    let start = |(runner, ip): (&Runner, &Ipv4Addr)| {
        let log = dir.join(format!("{}.log", runner.name));
        start(runner, *ip, PORT, cluster.size.slots, &log)
    };
    let servers = cluster.workers.iter().zip(at).map(start).collect();
    sleep(UNTIL_UP);
    servers
}

/// The tree built by distcc, on hosts that are up.
pub(crate) fn build(site: &Site, dir: &Path, setting: Setting, hosts: &str) -> Command {
    let [program, option, script] = site.tree.build(&format!("-j{}", setting.jobs));
    let mut command = site.cluster.primary.command(&program);
    command
        .args([
            option,
            format!("{script} {}", site.tree.compilers("distcc ")),
        ])
        .current_dir(&site.tree.at)
        .env("DISTCC_DIR", made_dir(dir.join("state")))
        .env("DISTCC_HOSTS", hosts);
    command
}

/// distccd says nothing when it listens.
pub(crate) const UNTIL_UP: Duration = Duration::from_secs(1);
