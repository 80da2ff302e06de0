//! The competitors: what carries the traffic from one machine to the other.

use std::{
    env, fmt, fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    endpoint::{End, Task, Told, Via},
    network::{Machine, Network},
    watch,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
pub(crate) enum Arm {
    /// TCP without a tunnel
    Raw,
    /// TCP through wireguard-go
    WireguardGo,
    /// TCP through boringtun-cli
    Boringtun,
    /// Streams of distmesh's tunnel
    Distmesh,
}

/// One arm, started: daemons, if it has any, and both ends.
pub(crate) struct Started {
    /// Of each machine, what does its work.
    processes: [Vec<Child>; 2],
    tell: ChildStdin,
    told: Receiver<Told>,
}

/// The address inside WireGuard of each machine.
const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 8, 0, 1), Ipv4Addr::new(10, 8, 0, 2)];
const PORT: u16 = 5_000;
const WIREGUARD_PORT: u16 = 51_820;

/// What an end may need beyond the time it was given: at 1 % loss cubic takes seconds for one job.
const PATIENCE: Duration = Duration::from_secs(60);

impl Arm {
    /// What is missing, and where to get it.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let has = |tool: &str| which::which(tool).is_ok();
        match self {
            Self::WireguardGo if !has("wireguard-go") || !has("wg") => {
                Some("wireguard-go and wg: apt-get install wireguard-go wireguard-tools")
            }
            Self::Boringtun if !has("boringtun-cli") || !has("wg") => Some(
                "boringtun-cli and wg: cargo install boringtun-cli && apt-get install wireguard-tools",
            ),
            Self::Raw | Self::WireguardGo | Self::Boringtun | Self::Distmesh => None,
        }
    }

    /// Starts it on an idle network and waits until it is ready.
    pub(crate) fn start(self, network: &Network, dir: &Path) -> Started {
        let [client, server] = &network.machines;
        let mut processes = [Vec::new(), Vec::new()];
        let via = match self {
            Self::Raw => Via::Tcp(SocketAddr::new(server.ip.into(), PORT)),
            Self::Distmesh => Via::Mesh(dir.join("rendezvous")),
            Self::WireguardGo | Self::Boringtun => {
                let daemons = wireguard(self, network, dir);
                processes = daemons.map(|daemon| vec![daemon]);
                Via::Tcp(SocketAddr::new(INNER[1].into(), PORT))
            }
        };
        let (listening, mut serving) = end(server, true, &via);
        // TCP has to be listened for before it is dialled; nodes wait for each other.
        if let Via::Tcp(_) = via {
            expect_ready(&listening);
        }
        let (told, mut driving) = end(client, false, &via);
        expect_ready(&told);
        drop(serving.stdin.take());
        let tell = driving.stdin.take().expect("a pipe");
        processes[0].push(driving);
        processes[1].push(serving);
        Started {
            processes,
            tell,
            told,
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Raw => "raw TCP",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun-cli",
            Self::Distmesh => "distmesh",
        })
    }
}

impl Started {
    /// Lets the client do something.
    ///
    /// # Panics
    /// When it fails or takes far too long.
    pub(crate) fn perform(&mut self, task: Task) -> Told {
        let line = serde_json::to_string(&task).expect("plain data");
        writeln!(self.tell, "{line}").expect("a client that listens");
        let (Task::Bulk { seconds } | Task::Jobs { seconds, .. }) = task;
        let limit = Duration::from_secs_f64(seconds) + PATIENCE;
        match self.told.recv_timeout(limit) {
            Ok(Told::Failed(why)) => panic!("{task:?} failed: {why}"),
            Ok(told) => told,
            Err(_) => panic!("{task:?} did not end within {limit:?}"),
        }
    }

    /// Seconds of processor time that each machine's processes have used so far, in the kernel too.
    pub(crate) fn cpu(&self) -> [f64; 2] {
        self.processes
            .each_ref()
            .map(|processes| processes.iter().map(|process| cpu_of(process.id())).sum())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// proc(5): the 14th and 15th field of `stat`, in hundredths of a second; the second may have spaces in it.
fn cpu_of(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks as f64 / 100.0
}

/// Starts one end and a thread that reads what it tells.
fn end(machine: &Machine, server: bool, via: &Via) -> (Receiver<Told>, Child) {
    let (name, value) = End {
        server,
        via: via.clone(),
    }
    .to_environment();
    let own = env::current_exe().expect("this program");
    let mut process = machine
        .command(&own.to_string_lossy())
        .env(name, value)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ip netns exec");
    let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let Ok(message) = serde_json::from_str(&line) else {
                continue;
            };
            if tell.send(message).is_err() {
                return;
            }
        }
    });
    (told, process)
}

fn expect_ready(told: &Receiver<Told>) {
    match told.recv_timeout(PATIENCE) {
        Ok(Told::Ready) => {}
        other => panic!("an end did not become ready: {other:?}"),
    }
}

/// A daemon on each machine, set up as peers of each other.
fn wireguard(arm: Arm, network: &Network, dir: &Path) -> [Child; 2] {
    // A daemon that was killed leaves its control socket, and the next refuses to begin.
    drop(fs::remove_dir_all("/run/wireguard"));
    let keys = [0, 1].map(|number| key_pair(&dir.join(format!("key{number}"))));
    [0, 1].map(|number| {
        let (machine, other) = (&network.machines[number], &network.machines[1 - number]);
        let device = format!("wg{number}");
        let daemon = daemon(arm, machine, &device, dir);
        watch::until("the daemon answers", Duration::from_secs(10), || {
            let shown = machine
                .command("wg")
                .args(["show", &device])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            shown.is_ok_and(|status| status.success())
        });
        machine.inside(&format!(
            "wg set {device} private-key {} listen-port {WIREGUARD_PORT} peer {} allowed-ips {}/32 endpoint {}:{WIREGUARD_PORT}",
            dir.join(format!("key{number}")).display(),
            keys[1 - number],
            INNER[1 - number],
            other.ip,
        ));
        machine.inside(&format!("ip address add {}/24 dev {device}", INNER[number]));
        machine.inside(&format!("ip link set {device} mtu 1420 up"));
        daemon
    })
}

fn daemon(arm: Arm, machine: &Machine, device: &str, dir: &Path) -> Child {
    let log = fs::File::create(dir.join(format!("{device}.log"))).expect("a log file");
    let mut command = if arm == Arm::Boringtun {
        let mut command = machine.command("boringtun-cli");
        // Its own default of four threads.
        command.args(["--foreground", "--disable-drop-privileges", device]);
        command
    } else {
        let mut command = machine.command("wireguard-go");
        command.args(["-f", device]);
        command
    };
    command
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("ip netns exec")
}

/// Writes a fresh private key, and returns the public one.
fn key_pair(at: &Path) -> String {
    let private = output(Command::new("wg").arg("genkey"), &[]);
    fs::write(at, &private).expect("a key file");
    String::from_utf8(output(Command::new("wg").arg("pubkey"), &private))
        .expect("base64")
        .trim()
        .to_owned()
}

fn output(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("wg");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input).expect("wg reads");
    drop(stdin);
    child.wait_with_output().expect("wg ends").stdout
}
