//! The whole command line. Scripts and other people's workflows depend on it: it is added to, never changed.
//!
//! The doc comments here are the help that a person reads. Every option has an environment variable too; a variable that is
//! set but empty counts as not set, because that is what a CI's unfilled input looks like.

mod examples;
mod usage;
mod values;

use std::{ffi::OsString, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{
    ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::{FalseyValueParser, Resettable},
};
use clap_complete::Shell;

use crate::{
    rendezvous::github::Pattern,
    session::{NodeName, SessionName},
};
pub use usage::explain;
pub use values::{RendezvousAddress, StunChoice, StunServer};

/// One C or C++ build on several machines that cannot reach each other
///
/// distmesh makes machines behind NATs, firewalls and CI runners into one distcc build machine. The machine that owns the source
/// runs `distmesh build`, every other one `distmesh worker`; they find each other through a rendezvous and compile through encrypted
/// links. Without any worker the build is the same as without distmesh.
#[derive(Debug, Parser)]
#[command(name = "distmesh", version, after_help = examples::DISTMESH, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(subcommand)]
    pub command: Command,
}

// A flattened struct's doc comment would become the help of the command it is flattened into, so these have none. Their heading
// would be that of every option after them, so they come last.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Say nothing but warnings and errors, whatever --verbose says
    #[arg(short, long, global = true, env = "DISTMESH_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Say more; twice: debug, three times: every packet
    #[arg(short, long, global = true, env = "DISTMESH_VERBOSE", action = ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Build(BuildArgs),
    Worker(WorkerArgs),
    Up(UpArgs),
    Down(DownArgs),
    Hosts(HostsArgs),
    Status(StatusArgs),
    Keygen(KeygenArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Run a build command and let the session's workers compile for it
///
/// The command gets compilers and a jobserver that reach the workers; its standard streams and its exit code stay its own. It starts
/// at once, or when `--min-workers` are up; workers that come later join in mid-build, and those that go are missed by nobody.
#[derive(Clone, Debug, Args)]
#[command(after_help = examples::BUILD)]
pub struct BuildArgs {
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
    /// How long to wait for --min-workers or --require-workers: 90s, 5m, 1h30m
    #[arg(long, value_name = "DURATION", env = "DISTMESH_WAIT", value_parser = values::duration, default_value = "60s")]
    pub wait: Duration,
    /// Compiles, links and other jobs that this machine runs at once [default: its usable cores]
    #[arg(long, value_name = "N", env = "DISTMESH_LOCAL_SLOTS", value_parser = values::at_least_one)]
    pub local_slots: Option<NonZeroU32>,
    /// Hand the compiler launcher to CMake trees that were configured without distmesh
    #[arg(long, env = "DISTMESH_RECONFIGURE", value_parser = FalseyValueParser::new())]
    pub reconfigure: bool,
    /// Look into ccache first, and send to workers what it does not have
    #[arg(long, env = "DISTMESH_CCACHE", value_parser = FalseyValueParser::new())]
    pub ccache: bool,
    /// Send every compile away that a worker can do, even where this machine would be quicker: for demonstrations and tests
    #[arg(long, env = "DISTMESH_NO_ADAPT", value_parser = FalseyValueParser::new())]
    pub no_adapt: bool,
    /// Write report.json, replaced by each build, and events.jsonl, which grows to 64 MiB, into this directory
    #[arg(long, value_name = "DIR", env = "DISTMESH_REPORT")]
    pub report: Option<PathBuf>,
    /// The build command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// Compile for the session's primary
///
/// Starts distccd on the loopback interface, or uses a running one, and offers the compilers of this machine. Runs until it is
/// stopped; SIGTERM lets running compiles finish first. Workers run on Linux.
#[derive(Clone, Debug, Args)]
#[command(after_help = examples::WORKER)]
pub struct WorkerArgs {
    /// What this worker is called in progress and reports [default: host name and a number]
    #[arg(long, value_name = "NAME", env = "DISTMESH_NAME")]
    pub name: Option<NodeName>,
    /// Compiles at once [default: the cores that this process may use]
    #[arg(long, value_name = "N", env = "DISTMESH_SLOTS", value_parser = values::at_least_one)]
    pub slots: Option<NonZeroU32>,
    /// Use the distccd that runs there instead of starting one
    #[arg(long, value_name = "IP:PORT", env = "DISTMESH_DISTCCD", value_parser = values::distccd)]
    pub distccd: Option<SocketAddr>,
    /// Stop when the run has this artifact, the release; `NAME*`: one whose name begins so
    #[arg(long, value_name = "NAME", env = "DISTMESH_UNTIL_ARTIFACT")]
    pub until_artifact: Option<Pattern>,
    /// Stop when the primary says goodbye and no other one is linked [default: only when CI is set]
    #[arg(long, value_name = "BOOL", env = "DISTMESH_ONCE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = FalseyValueParser::new())]
    pub once: Option<bool>,
    /// Stop when no primary came for so long, like 20m or 1h30m [default: wait for ever]
    #[arg(long, value_name = "DURATION", env = "DISTMESH_WAIT_PRIMARY", value_parser = values::duration)]
    pub wait_primary: Option<Duration>,
    /// Stop after so long, like 20m or 5h30m, whatever happens [default: no limit]
    #[arg(long, value_name = "DURATION", env = "DISTMESH_MAX_LIFETIME", value_parser = values::duration)]
    pub max_lifetime: Option<Duration>,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// Start a session in the background, so that several steps or builds share it
#[derive(Clone, Debug, Args)]
#[command(after_help = examples::UP)]
pub struct UpArgs {
    /// Return when so many workers are up, or when --wait is over
    #[arg(
        long,
        value_name = "N",
        env = "DISTMESH_MIN_WORKERS",
        default_value_t = 0
    )]
    pub min_workers: u32,
    /// How long to wait for --min-workers: 90s, 5m, 1h30m
    #[arg(long, value_name = "DURATION", env = "DISTMESH_WAIT", value_parser = values::duration, default_value = "60s")]
    pub wait: Duration,
    /// Stay in the foreground, for a service manager; waits for no workers
    #[arg(long, env = "DISTMESH_FOREGROUND", value_parser = FalseyValueParser::new())]
    pub foreground: bool,
    #[command(flatten)]
    pub session: SessionArgs,
}

/// Stop the session that `distmesh up` started
#[derive(Clone, Debug, Args)]
#[command(after_help = examples::DOWN)]
pub struct DownArgs {
    #[command(flatten)]
    pub which: WhichSession,
}

/// Print the workers as one DISTCC_HOSTS line
///
/// For builds that call distcc themselves. The line is what `distmesh build` gives to distcc, as it is now.
#[derive(Clone, Debug, Args)]
#[command(after_help = examples::HOSTS)]
pub struct HostsArgs {
    #[command(flatten)]
    pub which: WhichSession,
    /// Print the number for `make -j` instead
    #[arg(long, env = "DISTMESH_JOBS_ONLY", value_parser = FalseyValueParser::new())]
    pub jobs: bool,
}

/// Show the session's workers: links, slots, jobs
#[derive(Clone, Debug, Args)]
#[command(after_help = examples::STATUS)]
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
#[command(after_help = examples::KEYGEN)]
pub struct KeygenArgs {}

/// Check what this machine has, and say what to do about what it has not
///
/// Looks at distcc, distccd, compilers, build tools, exported variables, limits, and asks the STUN servers how this machine is seen
/// from outside.
#[derive(Clone, Debug, Args)]
#[command(after_help = examples::DOCTOR)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long, env = "DISTMESH_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    #[command(flatten)]
    pub stun: StunArgs,
}

/// Print a completion script for a shell
#[derive(Clone, Debug, Args)]
#[command(after_help = examples::COMPLETIONS)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Print the manual page
#[derive(Clone, Debug, Args)]
#[command(after_help = examples::MAN)]
pub struct ManArgs {}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Session")]
pub struct SessionArgs {
    /// Where the nodes find each other: dir:PATH, a directory that all of them can reach; github, the artifacts of this run of
    /// GitHub Actions; s3://BUCKET/PREFIX, a bucket that the AWS_… variables open; or https://USER:PASSWORD@HOST/PATH, a WebDAV
    /// collection [default: github inside such a run, else a directory of this user's on this machine]
    #[arg(long, value_name = "dir:PATH|github|URL", env = "DISTMESH_RENDEZVOUS")]
    pub rendezvous: Option<RendezvousAddress>,
    /// The session's name, the same on all nodes [default: run id and attempt on GitHub, else default]
    #[arg(long, value_name = "NAME", env = "DISTMESH_SESSION")]
    pub session: Option<SessionName>,
    /// Read the shared secret from this file [default: the variable ENCRYPTION_KEY, or one that this user's nodes share]
    #[arg(long, value_name = "FILE", env = "DISTMESH_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
    /// In a run of GitHub Actions that has no secret, as a fork's pull request, trust every job of the run instead. Whoever can read
    /// its artifacts then sees the machines' addresses; SECURITY.md has the whole. Without effect where there is a secret
    #[arg(long, env = "DISTMESH_TRUST_RUN", value_parser = FalseyValueParser::new())]
    pub trust_run: bool,
    /// The local UDP address of the links [default: any free port]
    #[arg(long, value_name = "IP:PORT", env = "DISTMESH_BIND", value_parser = values::bind)]
    pub bind: Option<SocketAddr>,
    #[command(flatten)]
    pub stun: StunArgs,
}

#[derive(Clone, Debug, Default, Args)]
pub struct StunArgs {
    /// Ask this server for our outside address; may be given again; `none`: ask nobody [default: stun.l.google.com:19302 and
    /// stun.cloudflare.com:3478; nobody for a session of this machine alone]
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
    /// True when the person said nothing about it.
    pub fn is_default(&self) -> bool {
        self.choices.is_empty()
    }

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
    settle_variables(Cli::command())
}

fn settle_variables(command: clap::Command) -> clap::Command {
    let empty = |arg: &clap::Arg| {
        let name = arg.get_env().map(OsString::from);
        name.and_then(variable)
            .is_some_and(|value| value.is_empty())
    };
    command
        .mut_args(|arg| {
            // Help is the same wherever it is printed.
            let arg = arg.hide_env_values(true);
            if empty(&arg) {
                arg.env(Resettable::Reset)
            } else {
                arg
            }
        })
        .mut_subcommands(settle_variables)
}

#[expect(
    clippy::disallowed_methods,
    reason = "clap itself reads these variables; this is the same shell"
)]
fn variable(name: OsString) -> Option<OsString> {
    std::env::var_os(name)
}

#[cfg(test)]
mod tests {
    use clap::Command as Clap;

    use super::*;

    /// All commands, those too that only their roles can offer.
    fn all() -> Clap {
        let sub = |name: &'static str, augment: fn(Clap) -> Clap| augment(Clap::new(name));
        Clap::new("distmesh").subcommands([
            sub("build", BuildArgs::augment_args),
            sub("worker", WorkerArgs::augment_args),
            sub("up", UpArgs::augment_args),
            sub("down", DownArgs::augment_args),
            sub("hosts", HostsArgs::augment_args),
            sub("status", StatusArgs::augment_args),
            sub("doctor", DoctorArgs::augment_args),
            sub("keygen", KeygenArgs::augment_args),
            sub("completions", CompletionsArgs::augment_args),
            sub("man", ManArgs::augment_args),
        ])
    }

    fn parse<T: Args>(args: &[&str]) -> Result<T, clap::Error> {
        let command = T::augment_args(Clap::new("distmesh"));
        let args = ["distmesh"].iter().chain(args);
        T::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn the_command_line_is_sound_and_every_command_has_help_and_examples() {
        all().debug_assert();
        command().debug_assert();
        for command in all().get_subcommands() {
            let name = command.get_name();
            let help = command.get_after_help().unwrap().to_string();
            assert!(help.contains(&format!("distmesh {name}")), "{name}");
            assert!(help.contains("Exit codes:\n"), "{name}");
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{name} {arg}");
            }
        }
    }

    #[test]
    fn a_flattened_struct_does_not_take_the_place_of_a_commands_help() {
        let build = BuildArgs::augment_args(Clap::new("build"));
        let about = build.get_about().unwrap().to_string();
        assert!(about.starts_with("Run a build command"), "{about}");
    }

    #[test]
    fn an_option_stands_under_its_own_heading() {
        for command in all().get_subcommands() {
            for arg in command
                .get_arguments()
                .filter(|arg| arg.get_help_heading() == Some("Session"))
            {
                let session = [
                    "rendezvous",
                    "session",
                    "secret_file",
                    "trust_run",
                    "bind",
                    "stun",
                ];
                assert!(session.contains(&arg.get_id().as_str()), "{arg}");
            }
        }
    }

    #[test]
    fn every_option_has_a_variable_of_its_own_name() {
        for command in all().get_subcommands().chain([&command()]) {
            let named = command
                .get_arguments()
                .filter(|arg| arg.get_long().is_some());
            for arg in named.filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
                let option = arg.get_long().unwrap().replace('-', "_").to_uppercase();
                let variable = arg.get_env().unwrap().to_str().unwrap();
                // DISTMESH_JOBS would say how many.
                let wanted = match option.as_str() {
                    "JOBS" => "DISTMESH_JOBS_ONLY".to_owned(),
                    _ => format!("DISTMESH_{option}"),
                };
                assert_eq!(variable, wanted, "{}", command.get_name());
            }
        }
    }

    #[test]
    fn a_build_runs_what_stands_after_the_dashes_and_nothing_else_is_needed() {
        let build: BuildArgs = parse(&["--", "make", "-j", "--", "--wait"]).unwrap();
        assert_eq!(build.command, ["make", "-j", "--", "--wait"]);
        assert_eq!((build.min_workers, build.require_workers), (0, None));
        assert_eq!(build.wait, Duration::from_secs(60));
        assert!(!build.ccache && !build.reconfigure);
    }

    #[test]
    fn zero_slots_are_refused() {
        let error = parse::<WorkerArgs>(&["--slots", "0"]).unwrap_err();
        assert!(explain(&error).to_string().contains("from 1 upwards"));
        assert!(parse::<BuildArgs>(&["--local-slots", "0", "--", "make"]).is_err());
    }

    #[test]
    fn once_is_unset_set_or_unset_on_purpose() {
        let once = |args: &[&str]| parse::<WorkerArgs>(args).unwrap().once;
        assert_eq!(once(&[]), None);
        assert_eq!(once(&["--once"]), Some(true));
        assert_eq!(once(&["--once=false"]), Some(false));
    }

    #[test]
    fn stun_servers_are_two_public_ones_those_that_are_named_or_none() {
        let servers = |args: &[&str]| parse::<SessionArgs>(args).unwrap().stun.servers();
        assert_eq!(servers(&[]).len(), 2);
        assert_eq!(servers(&["--stun", "a:1", "--stun", "b:2,c:3"]).len(), 3);
        assert_eq!(servers(&["--stun", "none"]), []);
        assert_eq!(servers(&["--stun", "a:1", "--stun", "none"]), []);
    }

    #[test]
    fn a_session_is_where_and_which_and_by_which_secret() {
        let session: SessionArgs = parse(&[
            "--rendezvous",
            "dir:/mnt/mesh",
            "--session",
            "nightly",
            "--secret-file",
            "key",
            "--bind",
            "0.0.0.0:7000",
        ])
        .unwrap();
        assert_eq!(session.rendezvous.unwrap().to_string(), "dir:/mnt/mesh");
        assert_eq!(session.session.unwrap().as_str(), "nightly");
        assert_eq!(session.bind.unwrap().port(), 7000);
        for wrong in [
            ["--session", "a/b"],
            ["--bind", "7000"],
            ["--rendezvous", "gitlab"],
        ] {
            assert!(parse::<SessionArgs>(&wrong).is_err(), "{wrong:?}");
        }
    }
}
