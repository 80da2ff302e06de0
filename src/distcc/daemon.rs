//! The worker's distccd: started, watched, restarted, and gone without a trace afterwards.
//!
//! - **Slots**: `--jobs SLOTS+1`. distccd never refuses on load, it leaves the excess in its backlog, so dispatch caps what is
//!   in flight; the slot beyond the cap belongs to the canary, which therefore never waits behind jobs and can run always.
//! - **Health** is a real compile of one line: an accepted connection proves nothing, a stopped distccd accepts as well. One is
//!   sent every ten seconds, and at once when jobs run and nothing moves.
//! - **Processes**: distccd leads its own session. Its children accept by themselves and its compilers leave its process
//!   group, but nothing leaves the session, so ending the session ends all of them. A [`guard`] does that when we are killed.
//! - **Port**: chosen once and kept across restarts.
//! - **User**: root's distccd drops to an own user, to whom its `TMPDIR` belongs; the command list stays root's.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

mod canary;
mod guard;
mod home;
mod log;
mod process;
mod supervisor;
mod vitals;

pub use canary::CanaryFailure;
pub use log::{CompileLine, CompileOutcome};

/// Lines that nobody took yet; more are dropped, because distccd must never wait for a reader.
const EVENTS: usize = 1024;

/// Where distccd may be: distributions put it where an ordinary user's PATH does not lead.
pub fn daemon_search(path: &OsStr) -> OsString {
    let more = [
        "/usr/local/sbin",
        "/usr/sbin",
        "/sbin",
        "/opt/homebrew/sbin",
    ];
    let dirs = env::split_paths(path).chain(more.map(PathBuf::from));
    env::join_paths(dirs).unwrap_or_default()
}

/// What to run and for whom.
#[derive(Clone, Debug)]
pub struct DaemonConfig {
    /// The distccd binary.
    pub distccd: PathBuf,
    /// The worker's private directory: it exists, it is ours, and the caller removes it.
    pub dir: PathBuf,
    /// Compiles at once.
    pub slots: u32,
    /// Absolute paths of all the compilers that jobs may name. The canary uses the first.
    pub compilers: Vec<PathBuf>,
    /// The PATH with which they proved who they are: on it they find their assembler.
    pub search: OsString,
    /// Niceness of the compiles; 0 leaves it as it is.
    pub nice: i32,
}

/// How often and how patiently distccd is watched.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two canaries. A compile of one line costs about 50 ms: at 10 s that is half a percent of one core.
    pub every: Duration,
    /// A canary that takes longer failed: it has a slot of its own, so only a machine that starves is so slow.
    pub deadline: Duration,
    /// The first pause before a restart; doubled each time …
    pub first_pause: Duration,
    /// … up to this one.
    pub longest_pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(10),
            deadline: Duration::from_secs(10),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(10),
        }
    }
}

/// Whether jobs can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The last canary compiled.
    Healthy,
    /// It is being restarted, or waited for when it is not ours; why, for a person.
    Unhealthy(String),
}

/// What a person may want to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonEvent {
    /// One compile ended.
    Compiled(CompileLine),
    /// Something is wrong: one sentence.
    Trouble(String),
}

/// Why there is no distccd.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It could not be executed.
    #[error(
        "cannot run {}: {source}; install distcc (Debian and Ubuntu: apt install distcc, macOS: brew install distcc)",
        path.display()
    )]
    Spawn {
        /// The binary.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended by itself.
    #[error("{} ended at once ({status}); run it by hand to see more{log}", path.display())]
    Exited {
        /// The binary.
        path: PathBuf,
        /// How it ended.
        status: String,
        /// A signal ended it: somebody else wanted that, or the memory was short.
        killed: bool,
        /// The end of its log, with an introduction; empty when it said nothing.
        log: String,
    },
    /// It runs, but does not compile.
    #[error(
        "distccd at {addr} does not compile: {failure}; check that {compiler} works for the user that distccd runs as{log}"
    )]
    Canary {
        /// Where it listens.
        addr: SocketAddr,
        /// What was tried.
        compiler: String,
        /// What went wrong.
        failure: CanaryFailure,
        /// The end of its log, with an introduction; empty when it said nothing.
        log: String,
    },
    /// There is nothing that it may run.
    #[error("no compiler to offer: install gcc or clang")]
    NoCompiler,
    /// A path that cannot stand in the command list.
    #[error("{} cannot be offered: a compiler's path must be absolute, plain text and one line", .0.display())]
    CompilerPath(PathBuf),
    /// Its private files could not be made.
    #[error("cannot prepare {} for distccd: {source}; is the disk full or read-only?", path.display())]
    Home {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something small that distccd needs is missing.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A distccd that is watched, and restarted if it is ours.
#[derive(Debug)]
pub struct Daemon {
    addr: SocketAddr,
    health: watch::Receiver<Health>,
    jobs: watch::Sender<u32>,
    allowed: watch::Sender<Vec<PathBuf>>,
    events: mpsc::Receiver<DaemonEvent>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Daemon {
    /// Starts distccd; returns once a compile through it succeeded.
    pub async fn start(config: DaemonConfig) -> Result<Self, DaemonError> {
        Self::start_at_pace(config, Pace::default()).await
    }

    /// [`Self::start`] with other intervals.
    pub async fn start_at_pace(config: DaemonConfig, pace: Pace) -> Result<Self, DaemonError> {
        let (events_tx, events) = mpsc::channel(EVENTS);
        let (jobs, running) = watch::channel(0);
        let (allowed, compilers) = watch::channel(config.compilers.clone());
        let outlook = supervisor::Outlook {
            jobs: running,
            compilers,
            events: events_tx,
        };
        let owned = supervisor::Owned::start(config, pace, outlook).await?;
        let addr = owned.addr();
        let (health_tx, health) = watch::channel(Health::Healthy);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(owned.supervise(health_tx, stopped));
        Ok(Self {
            addr,
            health,
            jobs,
            allowed,
            events,
            stop,
            task,
        })
    }

    /// Watches a distccd that somebody else started; returns once a compile through it succeeded.
    pub async fn external(addr: SocketAddr) -> Result<Self, DaemonError> {
        Self::external_at_pace(addr, Pace::default()).await
    }

    /// [`Self::external`] with other intervals.
    pub async fn external_at_pace(addr: SocketAddr, pace: Pace) -> Result<Self, DaemonError> {
        let (events_tx, events) = mpsc::channel(EVENTS);
        let foreign = supervisor::Foreign::find(addr, pace, events_tx).await?;
        let (health_tx, health) = watch::channel(Health::Healthy);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(foreign.watch(health_tx, stopped));
        Ok(Self {
            addr,
            health,
            jobs: watch::channel(0).0,
            allowed: watch::channel(Vec::new()).0,
            events,
            stop,
            task,
        })
    }

    /// Where jobs go; the same across restarts.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether jobs can be sent now.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Where to count the jobs that distccd has: while there are any it is looked after more closely.
    pub fn jobs(&self) -> watch::Sender<u32> {
        self.jobs.clone()
    }

    /// Where to say which compilers jobs may name. distccd reads its list when it starts, so it is started again when one is
    /// new; one of somebody else's has its own list.
    pub fn allowed(&self) -> watch::Sender<Vec<PathBuf>> {
        self.allowed.clone()
    }

    /// The next thing to tell; `None` when watching has ended. Cancel-safe.
    pub async fn next_event(&mut self) -> Option<DaemonEvent> {
        self.events.recv().await
    }

    /// Ends distccd and every compiler of it; returns when they are gone.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the supervisor of distccd failed");
        }
    }
}
