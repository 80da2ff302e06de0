//! The wrapped command's life: prepare, spawn, feed, account.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::broker::{View, grant, reclaim};
use super::layout::{install_launcher, prepare, replace};
use super::shim::Said;
use crate::distcc::client::environment;
use crate::distcc::hosts_file;
use crate::event::{BuildFeedback, BuildUpdate, JobRecord, Load, Route};

/// How often tokens are moved: short beside any compile, cheap beside any build.
const TICK: Duration = Duration::from_millis(10);

/// Something a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice(pub String);

/// What to run, and where.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// The private build dir; removed at the end.
    pub dir: PathBuf,
    /// This program.
    pub exe: PathBuf,
    /// The environment the command would have had.
    pub env: Vec<(OsString, OsString)>,
    /// Jobs this machine may run at once.
    pub local_slots: u32,
    /// Hand the launcher to CMake trees that were configured without it.
    pub reconfigure: bool,
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
    #[error("cannot run {command}: {source}; check its name and PATH")]
    Spawn {
        /// Its name.
        command: String,
        /// Why.
        source: io::Error,
    },
}

/// What became of the command.
#[derive(Clone, Debug, Default)]
pub struct BuildOutcome {
    /// Its exit code; 128 + n after signal n.
    pub exit: i32,
    /// Compiles seen.
    pub seen: u64,
    /// Of them, sent to distcc.
    pub remote: u64,
    /// Of them, run here, by reason.
    pub local: BTreeMap<String, u64>,
    /// The jobs that dispatch reported.
    pub jobs: Vec<JobRecord>,
}

impl BuildOutcome {
    /// Why nothing was distributed, if nothing was.
    #[must_use]
    pub fn explain(&self) -> Option<String> {
        if self.seen == 0 {
            return Some("no compile was seen: an absolute CC=, a CMake tree configured without the launcher (--reconfigure), or nothing to do".to_owned());
        }
        let (reason, count) = self.local.iter().max_by_key(|(_, count)| **count)?;
        (self.remote == 0).then(|| {
            format!(
                "0 of {} compiles left this machine; {count} because: {reason}",
                self.seen
            )
        })
    }
}

struct Running {
    options: BuildOptions,
    tokens: File,
    returned: File,
    outstanding: u32,
    unread: u32,
    ceiling: Option<u32>,
    load: Load,
    known: BTreeSet<String>,
    noticed: BTreeSet<String>,
    outcome: BuildOutcome,
    feedback: mpsc::Sender<BuildFeedback>,
    notices: mpsc::Sender<Notice>,
}

/// Runs the command to its end.
pub async fn run(
    options: BuildOptions,
    mut updates: mpsc::Receiver<BuildUpdate>,
    feedback: mpsc::Sender<BuildFeedback>,
    notices: mpsc::Sender<Notice>,
) -> Result<BuildOutcome, BuildError> {
    let failed = |source| BuildError::Prepare {
        dir: options.dir.clone(),
        source,
    };
    let path = variable(&options, "PATH");
    prepare(&options.dir, &options.exe, &path).map_err(failed)?;
    let socket = UnixDatagram::bind(options.dir.join("record.sock")).map_err(failed)?;
    let (tokens, returned) = (
        open_pipe(&options, "tokens").map_err(failed)?,
        open_pipe(&options, "returned").map_err(failed)?,
    );
    let (mut child, dropped) = spawn(&options)?;
    let mut running = Running {
        options,
        tokens,
        returned,
        outstanding: 0,
        unread: 0,
        ceiling: None,
        load: Load::default(),
        known: BTreeSet::new(),
        noticed: BTreeSet::new(),
        outcome: BuildOutcome::default(),
        feedback,
        notices,
    };
    if !dropped.is_empty() {
        running.notice(format!(
            "{} ignored: distmesh sets distcc up itself",
            dropped.join(", ")
        ));
    }
    let status = running.serve(&mut child, &socket, &mut updates).await;
    let _ = std::fs::remove_dir_all(&running.options.dir);
    let status = status.map_err(|source| BuildError::Spawn {
        command: "the command".to_owned(),
        source,
    })?;
    running.outcome.exit = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(running.outcome)
}

fn variable(options: &BuildOptions, name: &str) -> OsString {
    options
        .env
        .iter()
        .rev()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.clone())
        .unwrap_or_default()
}

fn open_pipe(options: &BuildOptions, name: &str) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open(options.dir.join(name))?;
    rustix::io::ioctl_fionbio(&file, true)?;
    Ok(file)
}

fn spawn(options: &BuildOptions) -> Result<(Child, Vec<String>), BuildError> {
    let (program, args) = options.command.split_first().ok_or(BuildError::NoCommand)?;
    let (env, dropped) = environment(options.env.clone(), &options.dir);
    let path = variable(options, "PATH");
    let ours = [options.dir.join("tools"), options.dir.join("compilers")];
    let full =
        std::env::join_paths(ours.into_iter().chain(std::env::split_paths(&path))).unwrap_or(path);
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env).env("PATH", full);
    command
        .env("DISTMESH_BUILD_DIR", &options.dir)
        .env("DISTMESH_EXE", &options.exe);
    command.env("DISTMESH_JOBS", options.local_slots.to_string());
    if options.reconfigure {
        command.env("DISTMESH_RECONFIGURE", "1");
    }
    let data = match variable(options, "XDG_DATA_HOME") {
        set if !set.is_empty() => PathBuf::from(set),
        _ => PathBuf::from(variable(options, "HOME")).join(".local/share"),
    };
    if let Ok(launcher) = install_launcher(&data) {
        command.env("DISTMESH_LAUNCHER", launcher);
    }
    let name = program.to_string_lossy().into_owned();
    command
        .spawn()
        .map(|child| (child, dropped))
        .map_err(|source| BuildError::Spawn {
            command: name,
            source,
        })
}

impl Running {
    async fn serve(
        &mut self,
        child: &mut Child,
        socket: &UnixDatagram,
        updates: &mut mpsc::Receiver<BuildUpdate>,
    ) -> io::Result<ExitStatus> {
        let (mut term, mut hup) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        );
        let mut int = signal(SignalKind::interrupt())?;
        let (mut tick, mut interrupts, mut open) = (tokio::time::interval(TICK), 0, true);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            tokio::select! {
                status = child.wait() => {
                    while let Ok(length) = socket.try_recv(&mut buffer) { self.hear(&buffer[..length]); }
                    return status;
                }
                Ok(length) = socket.recv(&mut buffer) => self.hear(&buffer[..length]),
                update = updates.recv(), if open => match update {
                    Some(update) => self.update(update)?,
                    None => open = false,
                },
                _ = tick.tick() => self.move_tokens(),
                _ = term.recv() => forward(child, Signal::TERM),
                _ = hup.recv() => forward(child, Signal::HUP),
                // The terminal sent the first one to the command too.
                _ = int.recv() => { interrupts += 1; if interrupts > 1 { forward(child, Signal::KILL); } }
            }
        }
    }

    fn hear(&mut self, datagram: &[u8]) {
        match serde_json::from_slice(datagram) {
            Ok(Said::Compile(seen)) => {
                if self.known.insert(seen.compiler.clone()) {
                    let _ = self.feedback.try_send(BuildFeedback::CompilerSeen {
                        compiler: seen.compiler,
                    });
                }
                self.count(seen.route);
            }
            Ok(Said::Ceiling(jobs)) => {
                self.ceiling = Some(self.ceiling.map_or(jobs, |lowest| lowest.min(jobs)));
            }
            Ok(Said::Notice(text)) => self.notice(text),
            Err(_) => {}
        }
    }

    fn count(&mut self, route: Route) {
        match route {
            Route::NotACompile => return,
            Route::Distcc => self.outcome.remote += 1,
            Route::Local(reason) => *self.outcome.local.entry(reason).or_default() += 1,
        }
        self.outcome.seen += 1;
    }

    fn notice(&mut self, text: String) {
        if self.noticed.insert(text.clone()) {
            let _ = self.notices.try_send(Notice(text));
        }
    }

    fn update(&mut self, update: BuildUpdate) -> io::Result<()> {
        match update {
            BuildUpdate::Hosts { lines } => {
                let ceiling = self.options.local_slots + self.load.capacity;
                replace(
                    &self.options.dir.join("distcc/hosts"),
                    hosts_file(ceiling, &lines).as_bytes(),
                )?;
            }
            BuildUpdate::Admitted { compilers } => {
                let text = compilers.into_iter().collect::<Vec<_>>().join("\n");
                replace(&self.options.dir.join("state"), text.as_bytes())?;
            }
            BuildUpdate::Refused { compiler, reason } => {
                self.notice(format!("{compiler} is not distributed: {reason}"));
            }
            BuildUpdate::Load(load) => self.take_load(load),
            BuildUpdate::Job(job) => self.outcome.jobs.push(job),
            BuildUpdate::Worker(_) => {}
        }
        Ok(())
    }

    fn take_load(&mut self, load: Load) {
        self.load = load;
        let here = (self.outstanding + 1).saturating_sub(load.in_dispatch);
        // At least one, so that stranded jobs alone can never hold the build up.
        let room = self
            .options
            .local_slots
            .saturating_sub(here)
            .max(1)
            .min(load.stranded);
        if room > 0 {
            let _ = self
                .feedback
                .try_send(BuildFeedback::HandBack { jobs: room });
        }
    }

    fn view(&self) -> View {
        View {
            outstanding: self.outstanding,
            local_limit: self.options.local_slots.max(1),
            ceiling: self.ceiling,
            load: self.load,
        }
    }

    fn move_tokens(&mut self) {
        let mut bytes = [0; 512];
        while let Ok(count @ 1..) = self.returned.read(&mut bytes) {
            self.outstanding = self
                .outstanding
                .saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        }
        self.unread = rustix::io::ioctl_fionread(&self.tokens)
            .ok()
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0);
        let back = reclaim(self.view(), self.unread).min(512) as usize;
        if let Ok(count) = self.tokens.read(&mut bytes[..back]) {
            self.outstanding = self
                .outstanding
                .saturating_sub(u32::try_from(count).unwrap_or(0));
        }
        let more = grant(self.view()).min(512) as usize;
        if let Ok(count) = self.tokens.write(&[b'+'; 512][..more]) {
            self.outstanding += u32::try_from(count).unwrap_or(0);
        }
    }
}

fn forward(child: &Child, what: Signal) {
    if let Some(pid) = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
    {
        let _ = kill_process(pid, what);
    }
}
