//! WireGuard between the primary and its workers, as a person would set it up: wireguard-go, and `wg` to configure it.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::cluster::{
    Cluster, run,
    runner::{Runner, address},
    scratch,
    watch::until,
};

/// A tunnel to every worker; it ends with the processes on the machines.
pub(crate) struct Wireguard {
    ends: Vec<End>,
}

struct End {
    interface: String,
    inside: Ipv4Addr,
    outside: Ipv4Addr,
    public: String,
    process: Child,
}

const PORT: u16 = 51820;

impl Wireguard {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let dir = scratch("wireguard");
        let machines = std::iter::once(&cluster.primary).chain(&cluster.workers);
        let ends: Vec<_> = machines
            .enumerate()
            .map(|(number, machine)| End::new(machine, number, &dir))
            .collect();
        let (primary, workers) = ends.split_first().expect("a primary");
        for worker in workers {
            primary.knows(worker);
            worker.knows(primary);
        }
        Self { ends }
    }

    /// The workers' addresses inside.
    pub(crate) fn workers(&self) -> Vec<Ipv4Addr> {
        self.ends.iter().skip(1).map(|end| end.inside).collect()
    }
}

impl Drop for Wireguard {
    fn drop(&mut self) {
        for end in &mut self.ends {
            drop(end.process.kill());
            drop(end.process.wait());
            drop(fs::remove_file(control(&end.interface)));
        }
    }
}

impl End {
    fn new(machine: &Runner, number: usize, dir: &Path) -> Self {
        // The control sockets of all machines lie in one directory.
        let interface = format!("wgbench{number}");
        let control = control(&interface);
        // One that was killed leaves its socket: it must not be taken for this one's.
        drop(fs::remove_file(&control));
        let log = fs::File::create(dir.join(&interface)).expect("a log file");
        let process = machine
            .command("wireguard-go")
            .args(["--foreground", &interface])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("wireguard-go");
        // Its socket is there before it listens.
        until("wireguard-go answers", Duration::from_secs(10), || {
            UnixStream::connect(&control).is_ok()
        });
        let key = dir.join(format!("{interface}.key"));
        fs::write(&key, wg(&["genkey"])).expect("a key file");
        run(&format!(
            "wg set {interface} listen-port {PORT} private-key {}",
            key.display()
        ));
        let inside = address([10, 7, 0], number);
        machine.inside(&format!("ip address add {inside}/24 dev {interface}"));
        machine.inside(&format!("ip link set {interface} up mtu 1420"));
        Self {
            public: wg(&["show", &interface, "public-key"]).trim().to_owned(),
            outside: machine.ip,
            interface,
            inside,
            process,
        }
    }

    fn knows(&self, other: &Self) {
        run(&format!(
            "wg set {} peer {} allowed-ips {}/32 endpoint {}:{PORT}",
            self.interface, other.public, other.inside, other.outside
        ));
    }
}

/// Where wireguard-go is told what to do.
fn control(interface: &str) -> PathBuf {
    Path::new("/var/run/wireguard").join(format!("{interface}.sock"))
}

fn wg(args: &[&str]) -> String {
    let output = Command::new("wg").args(args).output().expect("wg");
    String::from_utf8(output.stdout).expect("a key")
}
