//! Sites, hosts and processes of one story; everything lives in namespaces that end with it.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    internet::{Internet, Weather},
    nat::{Behaviour, NatBox},
    tun,
};

/// Set in the process that runs inside the namespaces.
const INSIDE: &str = "DISTMESH_LAB_INSIDE";
/// Set beside it when root is only so in a user namespace.
const MAPPED_ROOT: &str = "DISTMESH_LAB_MAPPED_ROOT";

/// Tells a story in network, mount and process namespaces of its own: this test runs once more, inside them.
pub(crate) fn story(test: &str, tell: impl FnOnce(&mut Lab)) {
    if is_inside() {
        prepare_namespace();
        return tell(&mut Lab::new());
    }
    let output = unshare()
        .arg(env::current_exe().unwrap())
        .args([
            "--exact",
            test,
            "--nocapture",
            "--include-ignored",
            "--test-threads=1",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let erred = String::from_utf8_lossy(&output.stderr);
    println!("{said}\n{erred}");
    assert!(said.contains("1 passed"), "{test} did not pass inside");
}

/// Runs a command in network, mount and process namespaces of its own; nothing of it outlives the command.
pub(crate) fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare
            .args(["--user", "--map-root-user"])
            .env(MAPPED_ROOT, "1");
    }
    unshare
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .env(INSIDE, "1");
    unshare
}

/// Whether this process runs in such namespaces.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Has to come first inside.
pub(crate) fn prepare_namespace() {
    run("mount -t tmpfs tmpfs /run");
    fs::create_dir("/run/netns").unwrap();
    run("ip link set lo up");
}

/// One story's world.
pub(crate) struct Lab {
    pub(crate) internet: Internet,
    dir: tempfile::TempDir,
    stun: Option<Child>,
    /// Private addresses in use at each site.
    inside: BTreeMap<usize, u8>,
}

/// A network with one way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site(pub(crate) usize);

/// A machine.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Its network namespace.
    pub(crate) netns: String,
    /// Its address in its own network.
    pub(crate) ip: IpAddr,
}

/// A process that takes part in the session, and what it told.
pub(crate) struct Node {
    pub(crate) name: String,
    process: Child,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let mut lab = Self::without_internet();
        let site = lab.internet.add_site(None);
        let ips = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        let host = lab.add_host(site, &ips);
        lab.start_stun_on(&host);
        lab
    }

    /// Nothing but a directory: the story makes its own network.
    pub(crate) fn without_internet() -> Self {
        let lab = Self {
            internet: Internet::start(1),
            dir: tempfile::Builder::new().prefix("lab").tempdir().unwrap(),
            stun: None,
            inside: BTreeMap::new(),
        };
        fs::create_dir(lab.path("tmp")).unwrap();
        fs::write(
            lab.path("key"),
            "a secret that is long enough for a laboratory",
        )
        .unwrap();
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A network behind a NAT.
    pub(crate) fn site(&mut self, behaviour: Behaviour) -> Site {
        let [high, low] = (self.internet.core().sites.len() as u16).to_be_bytes();
        let public = Ipv4Addr::new(203, 0, 113 + high, low);
        Site(
            self.internet
                .add_site(Some(NatBox::new(public.into(), behaviour))),
        )
    }

    /// A network behind a NAT with several public addresses.
    pub(crate) fn pool(&mut self, behaviour: Behaviour) -> Site {
        let site = self.site(behaviour);
        self.with_nat(site, |nat| {
            nat.pool = (1..=4)
                .map(|last| Ipv4Addr::new(203, 0, 110, last).into())
                .collect();
        });
        site
    }

    /// A network whose machines have public addresses.
    pub(crate) fn open_site(&mut self) -> Site {
        Site(self.internet.add_site(None))
    }

    /// A machine in a network; behind every NAT the same private addresses are in use.
    pub(crate) fn host(&mut self, site: Site) -> Host {
        let number = self.inside.entry(site.0).or_insert(1);
        *number += 1;
        let is_open = self.internet.core().sites[site.0].nat.is_none();
        let ip = match is_open {
            true => Ipv4Addr::new(198, 51, (site.0 % 256) as u8, *number),
            false => Ipv4Addr::new(10, 0, 0, *number),
        };
        self.add_host(site.0, &[ip])
    }

    pub(crate) fn set_weather(&self, site: Site, change: impl FnOnce(&mut Weather)) {
        change(&mut self.internet.core().sites[site.0].weather);
    }

    /// Changes a NAT, or what it remembers.
    pub(crate) fn with_nat(&self, site: Site, change: impl FnOnce(&mut NatBox)) {
        change(self.internet.core().sites[site.0].nat.as_mut().unwrap());
    }

    /// Starts the program's worker.
    pub(crate) fn worker(&self, host: &Host, name: &str, slots: u32) -> Process {
        let slots = slots.to_string();
        self.process(host, name, &["worker", "--name", name, "--slots", &slots])
    }

    /// Starts a session of which this host is the primary.
    pub(crate) fn up(&self, host: &Host) -> Process {
        self.process(host, "up", &["up", "--foreground"])
    }

    /// A worker as `distmesh status --json` shows it to the primary's host.
    pub(crate) fn seen(&self, primary: &Host, worker: &str) -> Option<Value> {
        let mut seen = self.all_seen(primary).into_iter();
        seen.find(|seen| seen["name"] == worker)
    }

    /// All workers as the primary's host sees them.
    pub(crate) fn all_seen(&self, primary: &Host) -> Vec<Value> {
        let status = self.distmesh(primary, &["status", "--json"]).output();
        let status: Value = serde_json::from_slice(&status.unwrap().stdout).unwrap_or_default();
        status["workers"].as_array().cloned().unwrap_or_default()
    }

    fn process(&self, host: &Host, log: &str, args: &[&str]) -> Process {
        let log = self.path(&format!("{log}.log"));
        let out = fs::File::create(&log).unwrap();
        let process = self
            .distmesh(host, args)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Process { log, process }
    }

    /// A process of the program on a host.
    pub(crate) fn distmesh(&self, host: &Host, args: &[&str]) -> Command {
        let exe = env!("CARGO_BIN_EXE_distmesh");
        let mut command = match env::var_os(MAPPED_ROOT) {
            // distccd refuses to be root, and cannot become another user there.
            Some(_) => {
                let mut command = self.on(host, "unshare");
                command.args(["--user", "--map-user=1000", "--map-group=1000", exe]);
                command
            }
            None => self.on(host, exe),
        };
        command.args(args);
        command
            .env(
                "DISTMESH_RUNTIME_DIR",
                self.path(&format!("run-{}", host.netns)),
            )
            .env(
                "DISTMESH_RENDEZVOUS",
                format!("dir:{}", self.path("rendezvous").display()),
            )
            .env("DISTMESH_SECRET_FILE", self.path("key"))
            .env("DISTMESH_SESSION", "lab")
            .env("DISTMESH_NO_ADAPT", "1")
            .env("TMPDIR", self.path("tmp"))
            .env("DISTMESH_STUN", STUN.join(","));
        for inherited in [
            "MAKEFLAGS",
            "MAKELEVEL",
            "CI",
            "GITHUB_ACTIONS",
            "ENCRYPTION_KEY",
        ] {
            command.env_remove(inherited);
        }
        command
    }

    /// Starts a node that only links: the very tunnel of the program, without distcc.
    pub(crate) fn node(&self, host: &Host, role: &str, name: &str) -> Node {
        self.node_of("rendezvous", host, role, name)
    }

    /// The same, in a session of its own.
    pub(crate) fn node_of(&self, session: &str, host: &Host, role: &str, name: &str) -> Node {
        let exe = env::current_exe().unwrap();
        let mut process = self
            .on(host, exe.to_str().unwrap())
            .args([
                "--exact",
                "node::a_node",
                "--nocapture",
                "--include-ignored",
                "--test-threads=1",
            ])
            .env("LAB_ROLE", role)
            .env("LAB_NAME", name)
            .env("LAB_RENDEZVOUS", self.path(session))
            .env("LAB_STUN", STUN.join(","))
            .env("LAB_PAUSE_MS", self.path("pause"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let out = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str(&line) {
                    heard.lock().unwrap().push(value);
                }
            }
        });
        Node {
            name: name.to_owned(),
            process,
            told,
        }
    }

    /// A command on a host.
    pub(crate) fn on(&self, host: &Host, program: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &host.netns, program])
            .current_dir(self.dir.path());
        command
    }

    fn add_host(&mut self, site: usize, ips: &[Ipv4Addr]) -> Host {
        let number = HOSTS.fetch_add(1, Ordering::Relaxed);
        let (netns, device) = (format!("h{number}"), format!("t{number}"));
        let tun = tun::open(&device);
        run(&format!("ip netns add {netns}"));
        run(&format!("ip link set {device} netns {netns}"));
        for ip in ips {
            run(&format!("ip -n {netns} address add {ip}/24 dev {device}"));
        }
        run(&format!("ip -n {netns} link set lo up"));
        run(&format!("ip -n {netns} link set {device} up"));
        run(&format!("ip -n {netns} route add default dev {device}"));
        let addrs = ips.iter().map(|ip| IpAddr::V4(*ip)).collect();
        self.internet.add_host(site, addrs, tun);
        Host {
            netns,
            ip: ips[0].into(),
        }
    }

    /// A real STUN server with two addresses and two ports.
    pub(crate) fn start_stun_on(&mut self, host: &Host) {
        let mut command = self.on(host, "turnserver");
        command.args([
            "-n",
            "--stun-only",
            "--no-tls",
            "--no-dtls",
            "--no-cli",
            "--no-tcp",
        ]);
        command.args([
            "-L",
            "192.0.2.1",
            "-L",
            "192.0.2.2",
            "--listening-port",
            "3478",
        ]);
        command.arg("--pidfile").arg(self.path("turnserver.pid"));
        command.arg("--log-file").arg(self.path("turnserver.log"));
        self.stun = Some(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(stun) = &mut self.stun {
            let _ = stun.kill();
            let _ = stun.wait();
        }
    }
}

impl Node {
    /// The state of the link to a peer, by what this node told last.
    pub(crate) fn link(&self, peer: &str) -> Option<Value> {
        let told = self.told.lock().unwrap();
        told.iter().rev().find(|line| line["peer"] == peer).cloned()
    }

    pub(crate) fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap().clone()
    }

    /// Whether the link to a peer is up, by this route if one is given.
    pub(crate) fn is_up(&self, peer: &str, route: Option<&str>) -> bool {
        self.link(peer).is_some_and(|link| {
            link["state"] == "up" && route.is_none_or(|route| link["route"] == route)
        })
    }

    /// Unix milliseconds of the first line that holds.
    pub(crate) fn first(&self, holds: impl Fn(&Value) -> bool) -> Option<u64> {
        self.told().iter().find(|line| holds(line))?["ms"].as_u64()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// `ip netns exec` becomes the program.
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.process)
    }
}

/// A process of the program; dropping it ends it as a person would.
pub(crate) struct Process {
    log: PathBuf,
    pub(crate) process: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- {}", self.log.display());
            eprintln!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- {}", self.name);
            for line in self.told.lock().unwrap().iter() {
                eprintln!("{line}");
            }
        }
    }
}

/// Milliseconds from the moment that both knew each other's descriptor until both had the link.
pub(crate) fn time_to_link(a: &Node, b: &Node) -> u64 {
    let both = |state: &str| {
        let first = |node: &Node, peer: &str| {
            node.first(|line| line["peer"] == peer && line["state"] == state)
                .unwrap()
        };
        first(a, &b.name).max(first(b, &a.name))
    };
    both("up") - both("punching")
}

/// Waits until something holds; how long that took.
#[track_caller]
pub(crate) fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let began = now();
    while !holds() {
        assert!(began.elapsed() < limit, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

/// Runs a command that has to succeed.
#[track_caller]
pub(crate) fn run(command: &str) {
    let words: Vec<_> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[expect(clippy::disallowed_methods, reason = "the lab runs in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Machines of all labs of this process.
static HOSTS: AtomicUsize = AtomicUsize::new(1);

/// Two addresses, and two ports of one of them: enough to tell every class of NAT.
const STUN: [&str; 3] = ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478"];
