//! icecream, the other distributed compiler that a person would try: a scheduler and a daemon on every machine of the bare network.
//!
//! Its own way of work is left as it is: it sends a compiler along, chooses by load, keeps compiles at home when it likes, and for gcc
//! preprocesses with `-fdirectives-only`, which debug information tells. So its objects may differ from a local build's by bytes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::cluster::{run, runner::Runner, site::Site, watch::until};

/// Programs, all of Debian's package `icecc`.
pub(crate) const TOOLS: [&str; 3] = ["icecc", "iceccd", "icecc-scheduler"];

/// The daemons of one build; they end with everything on their machines.
pub(crate) struct Icecream {
    /// Outside of the other scratch directories: its user has to get there.
    dir: TempDir,
    pub(crate) servers: Vec<Child>,
}

impl Icecream {
    /// Daemons that know each other, and have the compiler already: a build of hours pays for that once.
    pub(crate) fn new(site: &Site) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("dmice")
            .tempdir()
            .expect("a directory");
        let mut icecream = Self {
            dir,
            servers: Vec::new(),
        };
        run(&format!("chown icecc: {}", icecream.dir.path().display()));
        let cluster = &site.cluster;
        let mut scheduler = cluster.primary.command("icecc-scheduler");
        scheduler.args(["-n", NET]);
        icecream.start(scheduler, "scheduler");
        for machine in cluster.workers.iter().chain([&cluster.primary]) {
            let mut daemon = machine.command("iceccd");
            daemon
                .args(["-n", NET, "-u", "icecc", "-N", &machine.name])
                .args(["-s", &cluster.primary.ip.to_string()])
                .args(["-m", &cluster.size.slots.to_string()])
                .arg("-b")
                .arg(icecream.base(machine))
                .env(SOCKET, icecream.socket(machine));
            if machine.name == cluster.primary.name {
                daemon.arg("--no-remote");
            }
            icecream.start(daemon, &machine.name);
        }
        icecream.warm(site);
        icecream
    }

    fn start(&mut self, mut daemon: Command, name: &str) {
        let log = File::create(self.dir.path().join(name).with_extension("log"));
        let log = log.expect("a log file");
        let child = daemon
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("icecream");
        self.servers.push(child);
    }

    /// Where a machine unpacks compilers.
    fn base(&self, machine: &Runner) -> PathBuf {
        let base = self.dir.path().join(&machine.name);
        fs::create_dir_all(&base).expect("a directory");
        run(&format!("chown icecc: {}", base.display()));
        base
    }

    /// All machines have one file system; each daemon has its own socket.
    fn socket(&self, machine: &Runner) -> PathBuf {
        self.dir.path().join(&machine.name).with_extension("sock")
    }

    fn warm(&self, site: &Site) {
        let source = self.dir.path().join("warm.c");
        fs::write(&source, "int warm;\n").expect("a source");
        for worker in &site.cluster.workers {
            let installed = self.base(worker);
            until("a worker has the compiler", PATIENCE, || {
                for compiler in ["gcc", "g++"] {
                    let mut compile = site.cluster.primary.command("icecc");
                    compile
                        .args([compiler, "-O2", "-c", "-o"])
                        .arg(source.with_extension("o"))
                        .arg(&source)
                        .env("ICECC_PREFERRED_HOST", &worker.name)
                        .stderr(Stdio::null());
                    drop(self.client(&mut compile, site).status());
                }
                has_compiler(&installed)
            });
        }
    }

    fn client<'a>(&self, command: &'a mut Command, site: &Site) -> &'a mut Command {
        command.env(SOCKET, self.socket(&site.cluster.primary))
    }

    /// The tree built by it.
    pub(crate) fn build(&self, site: &Site, jobs: u32) -> Command {
        let [program, option, script] = site.tree.build(&format!("-j{jobs}"));
        let mut command = site.cluster.primary.command(&program);
        command
            .args([
                option,
                format!("{script} {}", site.tree.compilers("icecc ")),
            ])
            .current_dir(&site.tree.at);
        self.client(&mut command, site);
        command
    }
}

fn has_compiler(base: &Path) -> bool {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name())
        .any(|name| name.to_string_lossy().starts_with("target="))
}

/// The name of its network.
const NET: &str = "bench";
/// Where its test suite says which daemon a client should use.
const SOCKET: &str = "ICECC_TEST_SOCKET";
/// A compiler is unpacked within some seconds, under a quota within a minute.
const PATIENCE: Duration = Duration::from_secs(120);
