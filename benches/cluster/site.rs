//! Where builds take place: a cluster, a tree, and what its objects have to be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    Cluster,
    runner::Runner,
    scratch, stock,
    tree::{Objects, Recipe, Tree},
    watch::now,
};

/// A cluster and a tree.
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) tree: Tree,
    right: Digests,
    pub(crate) dir: PathBuf,
    /// A build that takes longer hangs.
    pub(crate) patience: Duration,
}

/// A build that was watched.
pub(crate) struct Made {
    /// From make's start to its end.
    pub(crate) wall: Duration,
    /// Seconds of CPU that the primary spent; not a number without an account.
    pub(crate) cpu: f64,
    /// `None`: it hung.
    pub(crate) exit: Option<ExitStatus>,
}

/// What each object may be: compiled here from its source, or from what was preprocessed here.
type Digests = BTreeMap<PathBuf, BTreeSet<[u8; 32]>>;

const LOOK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(3600);
/// A worker that has nothing to do ends in less.
const GOODBYE: Duration = Duration::from_secs(3);

impl Site {
    pub(crate) fn new(cluster: Cluster, recipe: Recipe) -> Self {
        let dir = scratch(&format!("site-{}", recipe.package));
        let tree = Tree::new(recipe, dir.join("tree"));
        println!("building {} twice for its objects", recipe.package);
        let mut right = Digests::new();
        for objects in [reference(&tree, &dir), plain(&tree, &dir)] {
            for (path, digest) in objects {
                right.entry(path).or_default().insert(digest);
            }
        }
        Self {
            cluster,
            tree,
            right,
            dir,
            patience: PATIENCE,
        }
    }

    /// How many objects the tree has.
    pub(crate) fn size(&self) -> usize {
        self.right.len()
    }

    /// The plain local build of the primary.
    pub(crate) fn local(&self) -> Made {
        self.tree.renew();
        let [program, option, script] = self.tree.build("-j2");
        let mut command = self.cluster.primary.command(&program);
        command.args([option, script]).current_dir(&self.tree.at);
        self.watch(&mut command, &self.dir.join("local.log"), |_| ())
    }

    /// Objects that are missing, or not what a local build makes.
    pub(crate) fn wrong(&self) -> Vec<PathBuf> {
        let built = self.tree.objects();
        let wrong = self.right.iter().filter(|(path, digests)| {
            let object = built.get(*path);
            !object.is_some_and(|object| digests.contains(object))
        });
        wrong.map(|(path, _)| path.clone()).collect()
    }

    /// Ends everything on the machines, and these processes with it.
    pub(crate) fn clear(&self, mut servers: Vec<Child>) {
        let machines = || self.cluster.workers.iter().chain([&self.cluster.primary]);
        machines().for_each(Runner::heal);
        // Asked first: who is killed leaves its directories behind.
        for server in &servers {
            // Gone already is as good.
            let _ = kill_process(Pid::from_child(server), Signal::TERM);
        }
        let ended = |server: &mut Child| server.try_wait().is_ok_and(|status| status.is_some());
        let deadline = now() + GOODBYE;
        while !servers.iter_mut().all(ended) && now() < deadline {
            sleep(LOOK);
        }
        machines().for_each(Runner::clear);
        for server in &mut servers {
            drop(server.wait());
        }
    }

    /// Runs a build, calls `each` now and then with the time since make began, and ends what hangs.
    pub(crate) fn watch(
        &self,
        command: &mut Command,
        to: &Path,
        mut each: impl FnMut(Duration),
    ) -> Made {
        drop(fs::remove_file(self.tree.stamp()));
        let mut child = command
            .stdout(log(to))
            .stderr(log(&to.with_extension("err")))
            .spawn()
            .expect("the build");
        let spawned = now();
        let mut began: Option<(Instant, f64)> = None;
        loop {
            let used = || self.cluster.primary.used();
            if began.is_none() && self.tree.stamp().exists() {
                began = Some((now(), used()));
            }
            let exit = child.try_wait().ok().flatten();
            if exit.is_some() || spawned.elapsed() > self.patience {
                let (since, before) = began.unwrap_or((spawned, used()));
                let (wall, cpu) = (since.elapsed(), used() - before);
                if exit.is_none() {
                    end(&mut child);
                }
                return Made { wall, cpu, exit };
            }
            if let Some((since, _)) = began {
                each(since.elapsed());
            }
            sleep(LOOK);
        }
    }
}

impl Made {
    pub(crate) fn code(&self) -> Option<i32> {
        self.exit.and_then(|status| status.code())
    }
}

fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
    drop(child.wait());
}

/// Compiled from what was preprocessed: debug information tells that from a source, so the measure is distcc without any fault.
fn reference(tree: &Tree, dir: &Path) -> Objects {
    let mut server = stock::here(&dir.join("reference-distccd.log"));
    sleep(Duration::from_secs(1));
    let [program, option, script] = tree.build("-j4 --silent");
    let mut command = Command::new(program);
    command
        .args([option, format!("{script} {}", tree.compilers("distcc "))])
        .env("DISTCC_DIR", made_dir(dir.join("state")))
        .env("DISTCC_HOSTS", format!("127.0.0.1:{}/4", stock::PORT))
        .env("DISTCC_FALLBACK", "0");
    let objects = build(tree, &mut command, &dir.join("reference.log"));
    // By a signal that it passes on: it serves from children, who would keep the port.
    let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
    let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
    drop(server.wait());
    objects
}

fn plain(tree: &Tree, dir: &Path) -> Objects {
    let [program, option, script] = tree.build("-j4 --silent");
    let mut command = Command::new(program);
    command.args([option, script]);
    build(tree, &mut command, &dir.join("plain.log"))
}

fn build(tree: &Tree, command: &mut Command, to: &Path) -> Objects {
    tree.renew();
    let made = command
        .current_dir(&tree.at)
        .stdout(log(to))
        .stderr(log(&to.with_extension("err")))
        .status();
    let good = made.as_ref().is_ok_and(ExitStatus::success);
    assert!(good, "see {}: {made:?}", to.display());
    tree.objects()
}

/// distcc makes no more than the last part of a path.
pub(crate) fn made_dir(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path)
        .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    path
}

pub(crate) fn log(path: &Path) -> File {
    File::create(path).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()))
}
