//! One machine of the cluster.

use std::{
    fs,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    cgroup::Cgroup,
    nat::{Router, inner_ip},
    run, watch,
};

/// A network namespace, held by a process that sleeps.
pub(crate) struct Namespace {
    holder: Child,
}

/// A network namespace and a group with a quota.
pub(crate) struct Runner {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    /// None: it may use all that there is.
    pub(crate) cgroup: Option<Cgroup>,
    number: usize,
    /// The end of its cable that is on the bridge's side.
    cable: String,
    namespace: Namespace,
    router: Option<Router>,
}

/// How a machine reaches the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// One bridge, nothing between.
    Lan,
    /// Each behind its own router.
    BehindNat,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare");
        let pid = holder.id();
        let own = fs::read_link("/proc/self/ns/net").expect("/proc");
        watch::until("the namespace is there", Duration::from_secs(10), || {
            fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|net| net != own)
        });
        let namespace = Self { holder };
        namespace.inside("ip link set lo up");
        namespace
    }

    /// Takes an interface, under another name.
    pub(crate) fn adopt(&self, interface: &str, name: &str, ip: Ipv4Addr) {
        run(&format!(
            "ip link set {interface} netns {} name {name}",
            self.holder.id()
        ));
        self.inside(&format!("ip address add {ip}/24 dev {name}"));
        self.inside(&format!("ip link set {name} up"));
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.holder.id()))
            .arg("--")
            .stdin(Stdio::null());
        command
    }

    /// A command that has to succeed.
    fn inside(&self, command: &str) {
        succeed(self.enter().args(command.split(' ')));
    }

    pub(crate) fn sh(&self, script: &str) {
        succeed(self.enter().args(["sh", "-c", script]));
    }

    pub(crate) fn nft(&self, rules: &str) {
        succeed(self.enter().args(["nft", rules]));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

fn succeed(command: &mut Command) {
    let done = command.status();
    let good = done.as_ref().is_ok_and(std::process::ExitStatus::success);
    assert!(good, "{command:?} failed: {done:?}");
}

/// The address of a machine in a network.
pub(crate) fn address(network: [u8; 3], number: usize) -> Ipv4Addr {
    let last = u8::try_from(number + 1).expect("a small cluster");
    Ipv4Addr::new(network[0], network[1], network[2], last)
}

impl Runner {
    pub(crate) fn new(number: usize, cores: Option<f64>) -> Self {
        let name = if number == 0 {
            "primary".to_owned()
        } else {
            format!("w{number}")
        };
        let ip = address([10, 9, 0], number);
        let cgroup = cores.map(|cores| Cgroup::new(&name, cores).expect("cgroup with CPU quota"));
        let namespace = Namespace::new();
        let (cable, end) = (format!("c{number}"), format!("e{number}"));
        run(&format!("ip link add {cable} type veth peer name {end}"));
        run(&format!("ip link set {cable} master lan up"));
        namespace.adopt(&end, "eth0", ip);
        namespace.inside("ip route add default dev eth0");
        Self {
            name,
            ip,
            cgroup,
            number,
            cable,
            namespace,
            router: None,
        }
    }

    /// Puts it into a network; the other one is then unreachable.
    pub(crate) fn join(&mut self, network: Network) {
        match network {
            Network::Lan => {
                if self.router.is_some() {
                    self.namespace.inside("ip link set eth1 down");
                }
                self.namespace.inside("ip link set eth0 up");
                self.namespace.inside("ip route replace default dev eth0");
            }
            Network::BehindNat => {
                let router = || Router::before(&self.namespace, self.number);
                if self.router.is_none() {
                    self.router = Some(router());
                }
                self.namespace.inside("ip link set eth0 down");
                self.namespace.inside("ip link set eth1 up");
                let gateway = inner_ip(self.number, 1);
                self.namespace
                    .inside(&format!("ip route replace default via {gateway}"));
            }
        }
    }

    /// A command on this machine, under its quota.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.namespace.enter();
        command
            .args(["sh", "-c", ENTER])
            .arg(
                self.cgroup
                    .iter()
                    .flat_map(Cgroup::entrances)
                    .collect::<Vec<_>>()
                    .join(" "),
            )
            .arg(program);
        command
    }

    /// A command of ours on it, without the quota, that has to succeed.
    pub(crate) fn inside(&self, command: &str) {
        self.namespace.inside(command);
    }

    pub(crate) fn cut(&self) {
        run(&format!("ip link set {} down", self.cable));
    }

    pub(crate) fn heal(&self) {
        run(&format!("ip link set {} up", self.cable));
        let mut nft = self.namespace.enter();
        nft.args(["nft", "delete table inet weather"]);
        drop(nft.stderr(Stdio::null()).status());
    }

    /// Loses so many of a hundred packets, in each direction.
    pub(crate) fn lose(&self, percent: u32) {
        let rules = format!(
            "table inet weather {{ \
               chain in {{ type filter hook input priority 0; iifname eth0 numgen random mod 100 < {percent} drop; }}; \
               chain out {{ type filter hook output priority 0; oifname eth0 numgen random mod 100 < {percent} drop; }}; \
             }}"
        );
        self.namespace.nft(&rules);
    }

    /// What runs on it: everything in its network namespace but who holds that.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let net = |process: u32| fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let holder = self.namespace.holder.id();
        let own = net(holder);
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|process| *process != holder && net(*process) == own)
            .collect()
    }

    /// Seconds of CPU that it has used; not a number without an account.
    pub(crate) fn used(&self) -> f64 {
        self.cgroup.as_ref().map_or(f64::NAN, Cgroup::used)
    }

    /// Sends a signal to all of its processes that are chosen, until none of them is new.
    pub(crate) fn signal(&self, signal: Signal, chosen: impl Fn(u32) -> bool) -> usize {
        let mut reached = std::collections::BTreeSet::new();
        loop {
            let before = reached.len();
            for process in self.processes() {
                if chosen(process) && reached.insert(process) {
                    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
                    // One that has just ended is as good as reached.
                    let _ = pid.map(|pid| kill_process(pid, signal));
                }
            }
            if reached.len() == before {
                return before;
            }
        }
    }

    /// Ends everything that runs on it.
    pub(crate) fn clear(&self) {
        watch::until("its processes are gone", Duration::from_secs(20), || {
            self.signal(Signal::KILL, |_| true) == 0
        });
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Enters the groups that the first argument names.
const ENTER: &str = "for group in $0; do echo $$ >$group; done && exec \"$@\"";

/// The session of processes that a process belongs to (proc(5): the sixth field of `stat`).
pub(crate) fn session_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(3)?.parse().ok()
}

/// Whether a process is a distccd that leads a session.
pub(crate) fn leads_distccd(process: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    name.trim() == "distccd" && session_of(process) == Some(process)
}
