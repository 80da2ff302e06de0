//! The wrapped command's life: prepare, spawn, serve, account.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::mpsc;

use super::child::{Signals, Wrapped, exit_code};
use super::desk::{Desk, Outlets};
use super::guard::Guard;
use super::layout::{LEASE, State, install_launcher, is_masquerade, prepare};
use super::outcome::BuildOutcome;
use super::pace::{Pace, Stir};
use super::record::{Recorder, Said};
use crate::event::{
    BuildFeedback, BuildUpdate, CompileSeen, Compiler, JobRecord, LoadNow, WorkerView,
};
use crate::machine::{
    clock::in_step,
    lease::{self, Lease},
};

/// A session answers within milliseconds, on a machine that is overwhelmed within a second.
const FIRST_WORDS: Duration = Duration::from_secs(3);
/// The last jobs' records follow their answers within milliseconds; some jobs have none, because distcc kept them.
const LAST_RECORDS: Duration = Duration::from_millis(100);

/// What a build has to tell while it runs.
#[derive(Clone, Debug, PartialEq)]
pub enum BuildNews {
    /// Something a person should know; each is told once.
    Notice(String),
    /// A compiler was called.
    Seen(CompileSeen),
    /// A job ended.
    Job(JobRecord),
    /// A worker changed.
    Worker(WorkerView),
    /// Something that the build's report should tell, too.
    Incident(String),
    /// No live worker takes this compiler.
    Refused {
        /// Which.
        compiler: Compiler,
        /// Why, and the cure.
        reason: String,
    },
}

/// What to run, and where.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// The private build dir, made here and removed at the end. Dead ones beside it are swept.
    pub dir: PathBuf,
    /// What stands under the names of compilers and tools: [`shim::program`](super::shim::program), or this program.
    pub exe: PathBuf,
    /// The environment the command would have had.
    pub env: Vec<(OsString, OsString)>,
    /// Jobs this machine may run at once.
    pub local_slots: u32,
    /// Hand the launcher to CMake trees that were configured without it.
    pub reconfigure: bool,
    /// Ask ccache before distcc.
    pub ccache: bool,
    /// Compile here what is quicker here.
    pub adapt: bool,
    /// The short way to the load, where the session is in this process.
    pub load_now: Option<LoadNow>,
}

impl BuildOptions {
    /// A variable of the command's environment; empty when it is not set.
    pub(super) fn variable(&self, name: &str) -> OsString {
        let mut entries = self.env.iter().rev();
        let found = entries.find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

/// The command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nothing to run.
    #[error("no command was given; write it after `--`")]
    NoCommand,
    /// The build dir could not be made.
    #[error("cannot prepare {dir}: {source}; is there room, and may you write there?")]
    Prepare {
        /// The build dir.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The command could not be started.
    #[error("cannot run {command}: {source}; {hint}")]
    Spawn {
        /// Its name.
        command: String,
        /// Why.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
}

/// Runs the command to its end. When it returns, no hosts file names a port any more: the caller may close them.
pub async fn run(
    mut options: BuildOptions,
    updates: mpsc::Receiver<BuildUpdate>,
    feedback: mpsc::Sender<BuildFeedback>,
    news: mpsc::UnboundedSender<BuildNews>,
) -> Result<BuildOutcome, BuildError> {
    // The command may change its directory.
    options.dir = std::path::absolute(&options.dir).unwrap_or(options.dir);
    let dir = options.dir.clone();
    let failed = |source| BuildError::Prepare {
        dir: dir.clone(),
        source,
    };
    if let Some(parent) = dir.parent() {
        lease::sweep(parent, "", LEASE);
    }
    let lease = Lease::take(&dir, LEASE).map_err(failed)?;
    let (outcome, guard) = match Session::open(options, Outlets { feedback, news }) {
        Ok(session) => {
            let (outcome, guard) = session.run(updates).await;
            (outcome, Some(guard))
        }
        Err(error) => (Err(failed(error)), None),
    };
    // A process that outlived the command may be writing there.
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        tracing::warn!(dir = %dir.display(), %error, "the build dir is left behind");
    }
    drop(guard);
    drop(lease);
    outcome
}

/// Everything that stands ready before the command starts.
struct Session {
    desk: Desk,
    recorder: Recorder,
    signals: Signals,
    guard: Guard,
}

/// One thing that happened.
enum Happened {
    Ended(io::Result<ExitStatus>),
    Said(Said),
    Update(Option<BuildUpdate>),
    Signal(Signal),
    Returned,
    Tick,
}

impl Happened {
    /// Whether it may make room for a job, or take some. A compile that begins does neither, for its token was dealt before; but a
    /// spare one gives way to it. A job that has ended makes room when its client has, too, whose token then comes back.
    fn stirs(&self, desk: &Desk) -> Stir {
        match self {
            Self::Tick => Stir::None,
            Self::Said(Said::Compile(_)) if !desk.holds_spare() => Stir::None,
            Self::Update(Some(BuildUpdate::Job(_))) => Stir::Lazy,
            Self::Update(Some(BuildUpdate::Load { load, .. })) if desk.only_ended(load) => {
                Stir::Lazy
            }
            Self::Ended(_) | Self::Said(_) | Self::Update(_) | Self::Signal(_) | Self::Returned => {
                Stir::Now
            }
        }
    }
}

impl Session {
    fn open(options: BuildOptions, outlets: Outlets) -> io::Result<Self> {
        let dir = options.dir.clone();
        prepare(&dir, &options.exe, &options.variable("PATH"))?;
        let state = State {
            local: options.local_slots.max(1),
            ccache: options.ccache,
            reconfigure: options.reconfigure,
            launcher: install_launcher(&data_home(&options)).ok(),
            distcc: which::which_in_global("distcc", Some(options.variable("PATH")))
                .ok()
                .and_then(|found| found.into_iter().find(|file| file.is_absolute())),
            ..State::default()
        };
        let mut desk = Desk::open(options, state, outlets)?;
        for notice in notices(&desk.options) {
            desk.notice(notice);
        }
        if let Some(blind) = absolute_compiler(&desk.options) {
            desk.handle_said(Said::Blind(blind), now());
        }
        Ok(Self {
            recorder: Recorder::bind(&dir)?,
            signals: Signals::listen()?,
            guard: Guard::start(&desk.options.exe, &dir)?,
            desk,
        })
    }

    async fn run(
        mut self,
        mut updates: mpsc::Receiver<BuildUpdate>,
    ) -> (Result<BuildOutcome, BuildError>, Guard) {
        let ended = self.run_command(&mut updates).await;
        self.desk.hosts.close();
        let outcome = ended.map(|(status, signal)| BuildOutcome {
            signal,
            ..self.desk.tally.finish(exit_code(status))
        });
        (outcome, self.guard)
    }

    async fn run_command(
        &mut self,
        updates: &mut mpsc::Receiver<BuildUpdate>,
    ) -> Result<(ExitStatus, Option<i32>), BuildError> {
        self.first_words(updates).await;
        let (mut wrapped, dropped) = Wrapped::spawn(&self.desk.options)?;
        self.guard.watch(wrapped.scope());
        self.desk.handle_start(wrapped.root());
        if !dropped.is_empty() {
            let names = dropped.join(", ");
            self.desk
                .notice(format!("{names} ignored: distmesh sets distcc up itself"));
        }
        let status = self.serve(&mut wrapped, updates).await;
        for said in self.recorder.rest() {
            self.desk.handle_said(said, now());
        }
        self.last_records(updates).await;
        let status = status.map_err(|source| BuildError::Spawn {
            command: self.desk.options.command[0].to_string_lossy().into_owned(),
            source,
            hint: "the system lost track of it",
        })?;
        let signal = wrapped.shared_signal(status, &mut self.signals).await;
        Ok((status, signal))
    }

    async fn serve(
        &mut self,
        wrapped: &mut Wrapped,
        updates: &mut mpsc::Receiver<BuildUpdate>,
    ) -> io::Result<ExitStatus> {
        let mut pace = Pace::new(now());
        let mut open = true;
        let mut tick = pin!(tokio::time::sleep_until(pace.due().into()));
        let mut set_for = pace.due();
        loop {
            // What is due already needs no timer.
            let (due, left) = (pace.due(), pace.due().saturating_duration_since(now()));
            if !left.is_zero() && set_for != due {
                set_for = due;
                let at = if left < PATIENT { due } else { in_step(due) };
                tick.as_mut().reset(at.into());
            }
            let due = left.is_zero();
            // What was said before a tick counts in it.
            let happened = tokio::select! { biased;
                status = wrapped.wait() => Happened::Ended(status),
                signal = self.signals.next() => Happened::Signal(signal),
                said = self.recorder.hear() => Happened::Said(said),
                update = updates.recv(), if open => Happened::Update(update),
                () = self.desk.returned() => Happened::Returned,
                () = std::future::ready(()), if due => Happened::Tick,
                () = &mut tick, if !due => Happened::Tick,
            };
            pace.handle_stir(happened.stirs(&self.desk), now());
            match happened {
                Happened::Ended(status) => return status,
                Happened::Said(said) => self.desk.handle_said(said, now()),
                Happened::Update(Some(update)) => self.update(update),
                Happened::Update(None) => {
                    open = false;
                    let lost = self.desk.handle_session_lost();
                    self.note_unwritable(lost);
                }
                Happened::Signal(signal) => wrapped.handle_signal(signal),
                Happened::Returned => {}
                Happened::Tick => {
                    let outlook = self.desk.handle_tick(now());
                    pace.handle_tick(outlook, now());
                }
            }
        }
    }

    /// The first compile already finds the workers that are there: the session begins by telling all it has, loads last.
    async fn first_words(&mut self, updates: &mut mpsc::Receiver<BuildUpdate>) {
        let all = async {
            while let Some(update) = updates.recv().await {
                let last = matches!(update, BuildUpdate::Load { .. });
                self.update(update);
                if last {
                    return;
                }
            }
        };
        if tokio::time::timeout(FIRST_WORDS, all).await.is_err() {
            tracing::warn!("the session says nothing: the command starts without workers");
        }
    }

    /// A full disk must not end the build: distcc and the shims then work from what they last read.
    fn update(&mut self, update: BuildUpdate) {
        let updated = self.desk.handle_update(update, now());
        self.note_unwritable(updated);
    }

    fn note_unwritable(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            self.desk
                .notice(format!("the build dir cannot be written: {error}"));
        }
    }

    async fn last_records(&mut self, updates: &mut mpsc::Receiver<BuildUpdate>) {
        while self.desk.tally.awaits_records() {
            let Ok(Some(update)) = tokio::time::timeout(LAST_RECORDS, updates.recv()).await else {
                return;
            };
            self.update(update);
        }
    }
}

/// Who waits so long can wait for the wheel's next step.
const PATIENT: Duration = Duration::from_millis(20);

#[expect(
    clippy::disallowed_methods,
    reason = "a shell: the clock is read here and passed on"
)]
fn now() -> Instant {
    Instant::now()
}

fn data_home(options: &BuildOptions) -> PathBuf {
    match options.variable("XDG_DATA_HOME") {
        set if !set.is_empty() => PathBuf::from(set),
        _ => PathBuf::from(options.variable("HOME")).join(".local/share"),
    }
}

/// What a person should know before anything runs.
fn notices(options: &BuildOptions) -> Vec<String> {
    let path = options.variable("PATH");
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let holds = |name: &str| dirs.iter().any(|dir| dir.join(name).is_file());
    let first = |name: &str| {
        dirs.iter()
            .map(|dir| dir.join(name))
            .find(|file| file.is_file())
    };
    let mut notices = Vec::new();
    let masquerade = ["gcc", "cc", "clang"]
        .into_iter()
        .filter_map(first)
        .find(|file| is_masquerade(file));
    if let Some(file) = masquerade.filter(|_| !options.ccache) {
        notices.push(format!(
            "{} is not a compiler but a wrapper: skipped in this build; for ccache, say --ccache",
            file.display()
        ));
    }
    if options.ccache && !holds("ccache") {
        notices.push("--ccache has no effect: there is no ccache on PATH".to_owned());
    }
    if !holds("distcc") {
        notices.push(
            "there is no distcc on PATH: everything compiles here; install distcc 3.4".to_owned(),
        );
    }
    notices
}

/// `CC=/usr/bin/gcc` in the environment bypasses PATH, and so us.
fn absolute_compiler(options: &BuildOptions) -> Option<String> {
    let absolute = ["CC", "CXX"].into_iter().find_map(|name| {
        let value = options.variable(name);
        Path::new(&value).is_absolute().then_some((name, value))
    });
    absolute.map(|(name, value)| bypass(name, &value))
}

/// Says that a compiler named so is not seen, and the cure.
pub(super) fn bypass(name: &str, value: &OsStr) -> String {
    let value = value.to_string_lossy();
    let program = value.split_whitespace().next().unwrap_or_default();
    let short = program.rsplit('/').next().unwrap_or_default();
    format!(
        "{name}={value} names a compiler by its path, so its compiles are not seen; say {name}={short}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_compiler_is_named_with_its_cure() {
        let options = BuildOptions {
            env: vec![("CC".into(), "/usr/bin/gcc-12 -m32".into())],
            ..BuildOptions::default()
        };
        assert!(
            absolute_compiler(&options)
                .unwrap()
                .ends_with("say CC=gcc-12")
        );
        assert_eq!(absolute_compiler(&BuildOptions::default()), None);
    }
}
