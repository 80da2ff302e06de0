//! The command's process: its environment, its signals, its exit code.
//!
//! On a terminal it stays in our process group, so that ^C and ^Z reach it from the terminal and `fg` works. Elsewhere it
//! has a group of its own: a signal sent to us is passed on to all of it, and to nobody beside it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, getpgrp, kill_process, kill_process_group, test_kill_process,
    test_kill_process_group,
};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Incoming, SignalKind, signal};

use super::jobs::Flags;
use super::layout::{is_executable, is_ours, is_tool, link_tool, masked_path};
use super::processes::Processes;
use super::shim::{NAMED_TOOL, NAMESPACES};
use super::{BuildError, BuildOptions};
use crate::distcc::client::environment;
use crate::machine::namespaces;

/// Variables of ours that a build inside a build must not inherit.
const OURS: &[&str] = &[
    "DISTMESH_BUILD_DIR",
    "DISTMESH_EXE",
    NAMESPACES,
    "DISTMESH_MAKE",
    "DISTMESH_JOBS",
    NAMED_TOOL,
    "DISTMESH_WITHIN",
];

/// Which processes are the command's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// A process group of its own.
    Group(u32),
    /// This process and what is below it.
    Tree(u32),
}

/// The command's processes at one moment.
#[derive(Debug)]
pub(super) enum Members {
    Group(Pid),
    Each(Vec<Pid>),
}

impl Scope {
    /// Looks who they are.
    pub(super) fn members(self) -> Members {
        let pid = |pid: u32| i32::try_from(pid).ok().and_then(Pid::from_raw);
        match self {
            Self::Group(group) => pid(group).map_or(Members::Each(Vec::new()), Members::Group),
            Self::Tree(root) => {
                let below = Processes::now().below(root);
                let all = std::iter::once(root).chain(below);
                Members::Each(all.filter_map(pid).collect())
            }
        }
    }

    fn root(self) -> u32 {
        match self {
            Self::Group(pid) | Self::Tree(pid) => pid,
        }
    }
}

impl Members {
    /// Sends a signal to each. Who is gone needs none.
    pub(super) fn send(&self, what: Signal) {
        match self {
            Self::Group(group) => {
                let _ = kill_process_group(*group, what);
            }
            Self::Each(pids) => pids.iter().for_each(|pid| {
                let _ = kill_process(*pid, what);
            }),
        }
    }

    /// Whether any is left.
    pub(super) fn exists(&self) -> bool {
        match self {
            Self::Group(group) => test_kill_process_group(*group).is_ok(),
            Self::Each(pids) => pids.iter().any(|pid| test_kill_process(*pid).is_ok()),
        }
    }
}

/// The running command.
#[derive(Debug)]
pub(super) struct Wrapped {
    child: Child,
    scope: Scope,
    received: BTreeSet<i32>,
    /// The one that came twice, for which the command was killed.
    insisted: Option<i32>,
}

impl Wrapped {
    /// Starts it. Also returns the names of the `DISTCC_*` variables that it does not get.
    pub(super) fn spawn(options: &BuildOptions) -> Result<(Self, Vec<String>), BuildError> {
        let (program, args) = options.command.split_first().ok_or(BuildError::NoCommand)?;
        let (env, dropped) = command_environment(options);
        let named = named_tool(program, options);
        let mut command = Command::new(
            named
                .as_ref()
                .map_or(program.as_os_str(), |(link, _)| link.as_os_str()),
        );
        command.args(args).env_clear().envs(env);
        if let Some((_, real)) = &named {
            command.env(NAMED_TOOL, real);
        }
        let on_terminal = on_terminal();
        if !on_terminal {
            command.process_group(0);
        }
        let child = command
            .spawn()
            .map_err(|source| spawn_error(program, source))?;
        let pid = child.id().unwrap_or(0);
        let scope = if on_terminal {
            Scope::Tree(pid)
        } else {
            Scope::Group(pid)
        };
        let wrapped = Self {
            child,
            scope,
            received: BTreeSet::new(),
            insisted: None,
        };
        Ok((wrapped, dropped))
    }

    pub(super) fn scope(&self) -> Scope {
        self.scope
    }

    /// The command's first process.
    pub(super) fn root(&self) -> u32 {
        self.scope.root()
    }

    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// The signal that ended the command and was meant for us as well.
    pub(super) async fn shared_signal(
        &mut self,
        status: ExitStatus,
        signals: &mut Signals,
    ) -> Option<i32> {
        let ended = status.signal()?;
        // A terminal's comes to both, and the command's end may be seen first.
        if self.received.is_empty()
            && ended != Signal::KILL.as_raw()
            && let Ok(signal) = tokio::time::timeout(SAME_MOMENT, signals.next()).await
        {
            self.received.insert(signal.as_raw());
        }
        match ended == Signal::KILL.as_raw() {
            // One that does not hear is killed at last.
            true => self.insisted,
            false => self.received.contains(&ended).then_some(ended),
        }
    }

    /// We received a signal. The first of a kind is passed on, the second is meant.
    pub(super) fn handle_signal(&mut self, what: Signal) {
        let again = !self.received.insert(what.as_raw());
        let from_terminal = [Signal::INT, Signal::QUIT].contains(&what);
        match (again, self.scope) {
            (true, scope) => {
                self.insisted = Some(what.as_raw());
                scope.members().send(Signal::KILL);
            }
            (false, Scope::Tree(_)) if from_terminal => {}
            (false, scope) => scope.members().send(what),
        }
    }
}

/// Two processes have one signal within microseconds; a machine under load takes longer to tell.
const SAME_MOMENT: Duration = Duration::from_millis(100);

/// A tool that is named by its path is adapted like one that is found on PATH: our link, and the tool itself.
fn named_tool(program: &OsStr, options: &BuildOptions) -> Option<(PathBuf, PathBuf)> {
    let path = Path::new(program);
    let name = path.file_name()?.to_str().filter(|name| is_tool(name))?;
    let is_named = !path.parent()?.as_os_str().is_empty();
    if !is_named || !is_executable(path) || is_ours(path) {
        return None;
    }
    let link = link_tool(&options.dir, &options.exe, name).ok()?;
    Some((link, std::path::absolute(path).ok()?))
}

/// As a shell reports it.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    let signal = || 128 + status.signal().unwrap_or(0);
    status.code().unwrap_or_else(signal)
}

/// Whether the terminal would send its signals to us, and so to a child in our group.
fn on_terminal() -> bool {
    let foreground = File::open("/dev/tty").map(rustix::termios::tcgetpgrp);
    matches!(foreground, Ok(Ok(group)) if group == getpgrp())
}

fn spawn_error(program: &OsStr, source: io::Error) -> BuildError {
    let command = program.to_string_lossy().into_owned();
    let hint = if source.kind() == io::ErrorKind::PermissionDenied {
        "is it executable (chmod +x)?"
    } else if command.contains(char::is_whitespace) {
        "write the command and its arguments as separate words, or as `sh -c '…'`"
    } else {
        "is it installed, and its directory on PATH?"
    };
    BuildError::Spawn {
        command,
        source,
        hint,
    }
}

fn command_environment(options: &BuildOptions) -> (Vec<(OsString, OsString)>, Vec<String>) {
    let dir = &options.dir;
    let (mut env, dropped) = environment(options.env.clone(), dir);
    env.retain(|(name, _)| !OURS.iter().any(|ours| name == ours));
    let path = options.variable("PATH");
    let set = |env: &mut Vec<(OsString, OsString)>, name: &str, value: OsString| {
        env.retain(|(key, _)| key != name);
        env.push((name.into(), value));
    };
    // A ccache that the build calls itself would take our links for compilers, and their age for the compiler's.
    if options.variable("CCACHE_PATH").is_empty() {
        set(&mut env, "CCACHE_PATH", path.clone());
    }
    if options.variable("CCACHE_PREFIX").is_empty() {
        set(&mut env, "CCACHE_PREFIX", dir.join("prefix/distcc").into());
    }
    // The jobserver of a make that runs distmesh is not this command's.
    let flags = Flags::parse(&options.variable("MAKEFLAGS").to_string_lossy());
    if flags.jobserver {
        set(&mut env, "MAKEFLAGS", flags.serial().into());
    }
    set(&mut env, "PATH", masked_path(&path, dir));
    set(&mut env, "DISTMESH_BUILD_DIR", dir.into());
    set(&mut env, "DISTMESH_EXE", PathBuf::from(&options.exe).into());
    if let Some(namespaces) = namespaces() {
        set(&mut env, NAMESPACES, namespaces.into());
    }
    (env, dropped)
}

/// The signals that end programs.
pub(super) struct Signals([(Signal, Incoming); 4]);

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self([
            (Signal::INT, signal(SignalKind::interrupt())?),
            (Signal::QUIT, signal(SignalKind::quit())?),
            (Signal::TERM, signal(SignalKind::terminate())?),
            (Signal::HUP, signal(SignalKind::hangup())?),
        ]))
    }

    pub(super) async fn next(&mut self) -> Signal {
        let [(int, a), (quit, b), (term, c), (hup, d)] = &mut self.0;
        tokio::select! {
            _ = a.recv() => *int,
            _ = b.recv() => *quit,
            _ = c.recv() => *term,
            _ = d.recv() => *hup,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(env: &[(&str, &str)]) -> BuildOptions {
        BuildOptions {
            dir: "/b".into(),
            env: env
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            ..BuildOptions::default()
        }
    }

    #[test]
    fn the_environment_of_an_outer_make_or_build_stays_outside() {
        let (env, dropped) = command_environment(&options(&[
            ("PATH", "/bin"),
            ("MAKEFLAGS", "k -j4 --jobserver-auth=3,4 -- CC=gcc"),
            ("DISTMESH_MAKE", "/outer"),
            ("DISTCC_HOSTS", "x"),
        ]));
        let value = |wanted: &str| {
            let mut found = env.iter().filter(|(name, _)| name == wanted);
            let value = found.next().map(|(_, value)| value.to_string_lossy());
            assert!(found.next().is_none(), "{wanted} is set once");
            value.map(|value| value.into_owned())
        };
        assert_eq!(dropped, ["DISTCC_HOSTS"]);
        assert_eq!(value("MAKEFLAGS").unwrap(), "-k -- CC=gcc");
        assert_eq!(value("PATH").unwrap(), "/b/tools:/b/compilers:/bin");
        assert_eq!(value("DISTMESH_MAKE"), None);
        assert_eq!(value("CCACHE_PATH").unwrap(), "/bin");
    }

    #[test]
    fn a_person_s_own_makeflags_are_kept() {
        let (env, _) = command_environment(&options(&[("MAKEFLAGS", "-j8")]));
        assert!(env.contains(&("MAKEFLAGS".into(), "-j8".into())));
    }

    #[test]
    fn a_command_in_quotes_gets_the_hint_that_fits() {
        let error = spawn_error(OsStr::new("make -j"), io::ErrorKind::NotFound.into());
        assert!(error.to_string().contains("separate words"));
    }
}
