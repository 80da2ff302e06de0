//! distcc as people use it: a distccd on every machine, one list of hosts.

use std::{
    fs::File,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command},
};

use super::{Cluster, runner::Runner};

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
        .args(["--allow", "10.9.0.0/24", "--allow", "127.0.0.1"])
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
        .stderr(log)
        .spawn()
        .expect("distccd")
}

/// The list for `DISTCC_HOSTS`: `lzo` is the usual advice for anything slower than a LAN.
pub(crate) fn hosts(cluster: &Cluster, port_of: impl Fn(usize) -> u16) -> String {
    let slots = cluster.size.slots;
    let workers = cluster.workers.iter().enumerate();
    let hosts: Vec<_> = workers
        .map(|(n, worker)| format!("{}:{}/{slots},lzo", worker.ip, port_of(n)))
        .collect();
    hosts.join(" ")
}
