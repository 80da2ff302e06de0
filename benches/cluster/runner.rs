//! One machine of the cluster.

use std::{
    fs,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{cgroup::Cgroup, run, watch};

/// A network namespace, held by a process that sleeps, and a group with a quota.
pub(crate) struct Runner {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    pub(crate) cgroup: Cgroup,
    /// The end of its cable that is on the bridge's side.
    cable: String,
    holder: Child,
}

impl Runner {
    pub(crate) fn new(number: usize, cores: f64) -> Self {
        let name = if number == 0 {
            "primary".to_owned()
        } else {
            format!("w{number}")
        };
        let ip = Ipv4Addr::new(10, 9, 0, u8::try_from(number + 1).expect("a small cluster"));
        let cgroup = Cgroup::new(&name, cores).expect("cgroup with CPU quota");
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
        let (cable, end) = (format!("c{number}"), format!("e{number}"));
        run(&format!("ip link add {cable} type veth peer name {end}"));
        run(&format!("ip link set {cable} master lan up"));
        run(&format!("ip link set {end} netns {pid}"));
        let runner = Self {
            name,
            ip,
            cgroup,
            cable,
            holder,
        };
        runner.inside(&format!("ip link set {end} name eth0"));
        runner.inside(&format!("ip address add {ip}/24 dev eth0"));
        runner.inside("ip link set eth0 up");
        runner.inside("ip link set lo up");
        runner.inside("ip route add default dev eth0");
        runner
    }

    /// A command on this machine, under its quota.
    pub(crate) fn command(&self, program: &str) -> Command {
        let entrance = self.cgroup.entrance();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.holder.id()))
            .args(["--", "sh", "-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(entrance)
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    /// A command in its namespace, without the quota.
    fn inside(&self, command: &str) {
        run(&format!(
            "nsenter --net=/proc/{}/ns/net {command}",
            self.holder.id()
        ));
    }

    pub(crate) fn cut(&self) {
        run(&format!("ip link set {} down", self.cable));
    }

    pub(crate) fn heal(&self) {
        run(&format!("ip link set {} up", self.cable));
        drop(
            self.nft("delete table inet weather")
                .stderr(Stdio::null())
                .status(),
        );
    }

    /// Loses so many of a hundred packets, in each direction.
    pub(crate) fn lose(&self, percent: u32) {
        let rules = format!(
            "table inet weather {{ \
               chain in {{ type filter hook input priority 0; iifname eth0 numgen random mod 100 < {percent} drop; }}; \
               chain out {{ type filter hook output priority 0; oifname eth0 numgen random mod 100 < {percent} drop; }}; \
             }}"
        );
        let done = self.nft(&rules).status();
        assert!(
            done.as_ref().is_ok_and(std::process::ExitStatus::success),
            "nft: {done:?}"
        );
    }

    fn nft(&self, rules: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.holder.id()))
            .args(["nft", rules]);
        command
    }

    /// Sends a signal to all of its processes that are chosen, until none of them is new.
    pub(crate) fn signal(&self, signal: Signal, chosen: impl Fn(u32) -> bool) -> usize {
        let mut reached = std::collections::BTreeSet::new();
        loop {
            let before = reached.len();
            for process in self.cgroup.processes() {
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
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

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
