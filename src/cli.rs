//! The whole command line. Scripts and other people's workflows depend on it: it is added to, never changed.
//!
//! The doc comments here are the help that a person reads. Every option has an environment variable too; a variable that is
//! set but empty counts as not set, because that is what a CI's unfilled input looks like.

mod usage;
mod values;

use std::{ffi::OsString, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{
    ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::{FalseyValueParser, Resettable},
};
use clap_complete::Shell;

use crate::session::{NodeName, SessionName};
pub use usage::explain;
pub use values::{RendezvousAddress, StunChoice, StunServer};

/// One C or C++ build on several machines that cannot reach each other
///
/// distmesh makes machines behind NATs, firewalls and CI runners into one distcc build machine. The machine that owns the source
/// runs `distmesh build`, every other one `distmesh worker`; they find each other through a rendezvous and compile through encrypted
/// links. Without any worker the build is the same as without distmesh.
#[derive(Debug, Parser)]
#[command(name = "distmesh", version, after_help = AFTER, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(subcommand)]
    pub command: Command,
}

// A flattened struct's doc comment would become the help of the command it is flattened into, so these have none.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Say nothing but warnings and errors
    #[arg(short, long, global = true, env = "DISTMESH_QUIET", value_parser = FalseyValueParser::new(), conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice: debug, three times: every packet
    #[arg(short, long, global = true, env = "DISTMESH_VERBOSE", action = ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Keygen(KeygenArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Run a build command and let the session's workers compile for it
///
/// The command gets compilers and a jobserver that reach the workers; its standard streams and its exit code stay its own. It starts
/// at once, or when `--min-workers` are up; workers that come later join in mid-build, and those that go are missed by nobody.
#[derive(Clone, Debug, Args)]
#[command(after_help = BUILD_AFTER)]
pub struct BuildArgs {
    #[command(flatten)]
    pub session: SessionArgs,
    /// How many workers are expected: progress and summary say when some are missing
    #[arg(long, value_name = "N", env = "DISTMESH_WORKERS")]
    pub workers: Option<u32>,
    /// Start the command when so many workers are up, or when --wait is over
    #[arg(
        long,
        value_name = "N",
        env = "DISTMESH_MIN_WORKERS",
        default_value_t = 0
    )]
    pub min_workers: u32,
    /// Do not run the command with fewer workers than this: exit with 97 when --wait is over
    #[arg(long, value_name = "N", env = "DISTMESH_REQUIRE_WORKERS")]
    pub require_workers: Option<u32>,
    /// How long to wait for --min-workers or --require-workers
    #[arg(long, value_name = "DURATION", env = "DISTMESH_WAIT", value_parser = values::duration, default_value = "60s")]
    pub wait: Duration,
    /// Compiles, links and other jobs that this machine runs at once [default: its usable cores]
    #[arg(long, value_name = "N", env = "DISTMESH_LOCAL_SLOTS")]
    pub local_slots: Option<NonZeroU32>,
    /// Hand the compiler launcher to CMake trees that were configured without distmesh
    #[arg(long, env = "DISTMESH_RECONFIGURE", value_parser = FalseyValueParser::new())]
    pub reconfigure: bool,
    /// Look into ccache first, and send to workers what it does not have
    #[arg(long, env = "DISTMESH_CCACHE", value_parser = FalseyValueParser::new())]
    pub ccache: bool,
    /// Write report.json and events.jsonl into this directory
    #[arg(long, value_name = "DIR", env = "DISTMESH_REPORT")]
    pub report: Option<PathBuf>,
    /// The build command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Compile for the session's primary
///
/// Starts distccd on the loopback interface, or uses a running one, and offers the compilers of this machine. Runs until it is
/// stopped; SIGTERM lets running compiles finish first.
#[derive(Clone, Debug, Args)]
#[command(after_help = WORKER_AFTER)]
pub struct WorkerArgs {
    #[command(flatten)]
    pub session: SessionArgs,
    /// What this worker is called in progress and reports [default: host name and a number]
    #[arg(long, value_name = "NAME", env = "DISTMESH_NAME")]
    pub name: Option<NodeName>,
    /// Compiles at once [default: the cores that this process may use]
    #[arg(long, value_name = "N", env = "DISTMESH_SLOTS")]
    pub slots: Option<NonZeroU32>,
    /// Use the distccd that runs there instead of starting one
    #[arg(long, value_name = "IP:PORT", env = "DISTMESH_DISTCCD", value_parser = values::distccd)]
    pub distccd: Option<SocketAddr>,
    /// Stop when the first primary says goodbye [default: only when CI is set]
    #[arg(long, value_name = "BOOL", env = "DISTMESH_ONCE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = FalseyValueParser::new())]
    pub once: Option<bool>,
    /// Stop when no primary came for so long [default: wait for ever]
    #[arg(long, value_name = "DURATION", env = "DISTMESH_WAIT_PRIMARY", value_parser = values::duration)]
    pub wait_primary: Option<Duration>,
    /// Stop after so long, whatever happens [default: no limit]
    #[arg(long, value_name = "DURATION", env = "DISTMESH_MAX_LIFETIME", value_parser = values::duration)]
    pub max_lifetime: Option<Duration>,
}

/// Start a session in the background, so that several steps or builds share it
#[derive(Clone, Debug, Args)]
#[command(after_help = UP_AFTER)]
pub struct UpArgs {
    #[command(flatten)]
    pub session: SessionArgs,
    /// Return when so many workers are up, or when --wait is over
    #[arg(
        long,
        value_name = "N",
        env = "DISTMESH_MIN_WORKERS",
        default_value_t = 0
    )]
    pub min_workers: u32,
    /// How long to wait for --min-workers
    #[arg(long, value_name = "DURATION", env = "DISTMESH_WAIT", value_parser = values::duration, default_value = "60s")]
    pub wait: Duration,
}

/// Stop the session that `distmesh up` started
#[derive(Clone, Debug, Args)]
#[command(after_help = DOWN_AFTER)]
pub struct DownArgs {
    #[command(flatten)]
    pub which: WhichSession,
}

/// Print the workers as one DISTCC_HOSTS line
///
/// For builds that call distcc themselves. The line is what `distmesh build` gives to distcc, as it is now.
#[derive(Clone, Debug, Args)]
#[command(after_help = HOSTS_AFTER)]
pub struct HostsArgs {
    #[command(flatten)]
    pub which: WhichSession,
    /// Print the number for `make -j` instead
    #[arg(long, env = "DISTMESH_JOBS_ONLY", value_parser = FalseyValueParser::new())]
    pub jobs: bool,
}

/// Show the session's workers: links, slots, jobs
#[derive(Clone, Debug, Args)]
#[command(after_help = STATUS_AFTER)]
pub struct StatusArgs {
    #[command(flatten)]
    pub which: WhichSession,
    /// Print JSON
    #[arg(long, env = "DISTMESH_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// Print a fresh secret
///
/// Everybody who holds a session's secret can join it. On one machine none is needed: distmesh keeps one in your runtime directory.
#[derive(Clone, Debug, Args)]
#[command(after_help = KEYGEN_AFTER)]
pub struct KeygenArgs {}

/// Check what this machine has, and say what to do about what it has not
///
/// Looks at distcc, distccd, compilers, build tools, exported variables, limits, and asks the STUN servers how this machine is seen
/// from outside. Changes nothing.
#[derive(Clone, Debug, Args)]
#[command(after_help = DOCTOR_AFTER)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long, env = "DISTMESH_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    #[command(flatten)]
    pub stun: StunArgs,
}

/// Print a completion script for a shell
#[derive(Clone, Debug, Args)]
#[command(after_help = COMPLETIONS_AFTER)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Print the manual page
#[derive(Clone, Debug, Args)]
#[command(after_help = MAN_AFTER)]
pub struct ManArgs {}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Session")]
pub struct SessionArgs {
    /// Where the nodes find each other: dir:PATH, a directory that all of them can reach [default: one of this user's on this machine]
    #[arg(long, value_name = "dir:PATH", env = "DISTMESH_RENDEZVOUS")]
    pub rendezvous: Option<RendezvousAddress>,
    /// The session's name, the same on all nodes [default: default]
    #[arg(long, value_name = "NAME", env = "DISTMESH_SESSION")]
    pub session: Option<SessionName>,
    /// Read the shared secret from this file [default: the variable ENCRYPTION_KEY, or one that this user's nodes share]
    #[arg(long, value_name = "FILE", env = "DISTMESH_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
    /// The local UDP address of the links [default: any free port]
    #[arg(long, value_name = "IP:PORT", env = "DISTMESH_BIND", value_parser = values::bind)]
    pub bind: Option<SocketAddr>,
    #[command(flatten)]
    pub stun: StunArgs,
}

#[derive(Clone, Debug, Default, Args)]
pub struct StunArgs {
    /// Ask this server for our outside address; may be given again; `none`: ask nobody [default: two public servers]
    #[arg(
        id = "stun",
        long = "stun",
        value_name = "HOST:PORT",
        env = "DISTMESH_STUN",
        value_delimiter = ','
    )]
    choices: Vec<StunChoice>,
}

impl StunArgs {
    /// The servers to ask; empty when the person said `none`.
    pub fn servers(&self) -> Vec<StunServer> {
        if self.choices.is_empty() {
            return values::public_stun_servers();
        }
        let server = |choice: &StunChoice| match choice {
            StunChoice::None => None,
            StunChoice::Server(server) => Some(server.clone()),
        };
        // One `none` is enough: a person who says it wants no packet to leave.
        self.choices
            .iter()
            .map(server)
            .collect::<Option<_>>()
            .unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default, Args)]
pub struct WhichSession {
    /// The session's name
    #[arg(long, value_name = "NAME", env = "DISTMESH_SESSION")]
    pub session: Option<SessionName>,
}

impl Cli {
    /// Parses the arguments, the program's own name first.
    pub fn parse_from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = command().try_get_matches_from(args)?;
        Self::from_arg_matches(&matches)
    }
}

/// The command line as data: for parsing, completions and the manual.
pub fn command() -> clap::Command {
    ignore_empty_variables(Cli::command())
}

fn ignore_empty_variables(command: clap::Command) -> clap::Command {
    let empty = |arg: &clap::Arg| {
        let name = arg.get_env().map(OsString::from);
        name.and_then(variable)
            .is_some_and(|value| value.is_empty())
    };
    command
        .mut_args(|arg| {
            if empty(&arg) {
                arg.env(Resettable::Reset)
            } else {
                arg
            }
        })
        .mut_subcommands(ignore_empty_variables)
}

#[expect(
    clippy::disallowed_methods,
    reason = "clap itself reads these variables; this is the same shell"
)]
fn variable(name: OsString) -> Option<OsString> {
    std::env::var_os(name)
}

const AFTER: &str = "\
Two terminals, nothing to set up:
  distmesh worker                 compiles for whoever builds on this machine
  distmesh build -- make -j       builds with every worker it finds

Every option can be given as a variable too: --min-workers is DISTMESH_MIN_WORKERS.

Exit codes:
  that of the command, for `distmesh build`
  2   the command line is wrong
  96  the command could not be run, or a worker or a session could not start
  97  fewer workers came than --require-workers said";

const BUILD_AFTER: &str = "\
Examples:
  distmesh build -- make -j
  distmesh build --min-workers 2 --wait 5m -- ninja
  distmesh build -- sh -c 'cmake -S . -B out && cmake --build out'
  distmesh build --rendezvous dir:/mnt/shared --secret-file key -- make -j

Exit codes:
  that of COMMAND; 128 + N when signal N ended it
  2   the command line is wrong
  96  COMMAND could not be run
  97  --require-workers was not met";

const WORKER_AFTER: &str = "\
Examples:
  distmesh worker
  distmesh worker --slots 4 --name attic
  distmesh worker --rendezvous dir:/mnt/shared --secret-file key
  distmesh worker --once --wait-primary 10m --max-lifetime 5h30m

Exit codes:
  0   it was stopped, or one of the limits above was reached
  2   the command line is wrong
  96  it could not start: no distccd, no compiler, no session";

const UP_AFTER: &str = "\
Examples:
  distmesh up --min-workers 2 && distmesh build -- make -j && distmesh down

Exit codes:
  0   the session is up, with however many workers
  2   the command line is wrong
  96  it could not start";

const DOWN_AFTER: &str = "\
Example:
  distmesh down

Exit codes:
  0   no such session runs any more
  2   the command line is wrong
  96  it could not be stopped";

const HOSTS_AFTER: &str = "\
Examples:
  distmesh hosts
  DISTCC_HOSTS=$(distmesh hosts) make CC='distcc gcc' -j$(distmesh hosts --jobs)

Exit codes:
  0   printed; an empty line when no worker is up
  2   the command line is wrong
  96  no such session runs";

const STATUS_AFTER: &str = "\
Examples:
  distmesh status
  distmesh status --json | jq '.workers[].name'

Exit codes:
  0   printed
  2   the command line is wrong
  96  no such session runs";

const KEYGEN_AFTER: &str = "\
Examples:
  (umask 077; distmesh keygen > key)        then --secret-file key on every node
  export ENCRYPTION_KEY=$(distmesh keygen)

Exit codes:
  0   printed
  2   the command line is wrong
  96  the operating system gave no randomness";

const DOCTOR_AFTER: &str = "\
Examples:
  distmesh doctor
  distmesh doctor --stun none
  distmesh doctor --json | jq '.checks[] | select(.state != \"ok\")'

Exit codes:
  0   distmesh can be of use here
  1   something is missing without which it is of no use
  2   the command line is wrong";

const COMPLETIONS_AFTER: &str = "\
Examples:
  distmesh completions bash > ~/.local/share/bash-completion/completions/distmesh
  distmesh completions zsh > ~/.zfunc/_distmesh
  distmesh completions fish > ~/.config/fish/completions/distmesh.fish

Exit codes:
  0   printed
  2   the command line is wrong";

const MAN_AFTER: &str = "\
Examples:
  distmesh man | man -l -
  distmesh man > ~/.local/share/man/man1/distmesh.1

Exit codes:
  0   printed
  2   the command line is wrong";
