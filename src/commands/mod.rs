//! One file per subcommand: it takes its parsed arguments, wires rooms together and answers with an exit code, or with a
//! [`Failure`] that says what could not be done.

mod build;
mod completions;
mod doctor;
mod down;
mod hosting;
mod hosts;
mod keygen;
mod man;
mod setup;
mod status;
mod up;
mod worker;

use std::{ffi::OsString, future::Future, io, time::Instant};

pub use build::build;
pub use completions::completions;
pub use doctor::doctor;
pub use down::down;
pub use hosts::hosts;
pub use keygen::keygen;
pub use man::man;
pub use status::status;
pub use up::up;
pub use worker::worker;

use tokio::runtime::{Builder, Runtime};

use crate::{
    cli::{Cli, Command},
    error::{Failure, Kind, OrFail},
    event::Event,
    machine::{self, clock::start_steps},
    report::{self, Weight},
    ui::Ui,
};

/// Does what the command line says; answers with the exit code.
pub fn run(cli: Cli, ui: &Ui) -> Result<u8, Failure> {
    let own = ui.clone();
    match cli.command {
        Command::Build(args) => in_runtime(async move { build(&args, &own).await }),
        Command::Worker(args) => or_alone(in_runtime(async move { worker(&args, &own).await }), ui),
        Command::Up(args) => or_alone(in_runtime(async move { up(&args, &own).await }), ui),
        Command::Down(args) => in_runtime(async move { down(&args, &own).await }),
        Command::Hosts(args) => in_runtime(async move { hosts(&args, &own).await }),
        Command::Status(args) => in_runtime(async move { status(&args, &own).await }),
        Command::Keygen(args) => keygen(&args, ui),
        Command::Doctor(args) => doctor(&args, ui),
        Command::Completions(args) => completions(&args, ui),
        Command::Man(args) => man(&args, ui),
    }
}

/// A run that has no secret, a fork's pull request above all, builds on one machine: that is said, and no failure of a worker or
/// session that nobody could have used. Their jobs would be red for no fault of anybody's.
fn or_alone(outcome: Result<u8, Failure>, ui: &Ui) -> Result<u8, Failure> {
    match outcome {
        Err(failure) if failure.kind() == Kind::NoSecret => {
            ui.warn(format!("builds are local: {}", failure.in_one_line()));
            Ok(0)
        }
        other => other,
    }
}

/// Drives a command that waits for many things at once.
///
/// It runs as a task of the runtime, not on the thread that waits for its end: there, everything that happens would wake two threads.
pub fn in_runtime<C>(command: C) -> Result<u8, Failure>
where
    C: Future<Output = Result<u8, Failure>> + Send + 'static,
{
    let runtime = runtime().or_cannot("start the threads that this command needs")?;
    let result = runtime.block_on(async {
        let ended = tokio::spawn(command).await;
        ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    });
    // A blocking call that hangs (a name server, a dead network file system) must not keep the process.
    runtime.shutdown_background();
    result
}

/// No more threads than cores that are ours: between two threads that share one every wake-up costs a switch, and a wake-up takes
/// longer than most of what is done after it.
#[expect(
    clippy::disallowed_methods,
    reason = "a shell: the clock is read here and passed on"
)]
pub fn runtime() -> io::Result<Runtime> {
    let mut builder = match machine::slots().count {
        1 => Builder::new_current_thread(),
        cores => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(cores.min(MOST_THREADS) as usize);
            builder
        }
    };
    let runtime = builder.enable_all().build()?;
    // Its timers count from the end of its making.
    start_steps(Instant::now());
    Ok(runtime)
}

/// One carries the tunnel, the others what dispatch reads and writes: beside compilers more are not of use.
const MOST_THREADS: u32 = 4;

/// The process's environment, for rooms that take it as an argument.
#[expect(
    clippy::disallowed_methods,
    reason = "commands are the shell that reads the environment"
)]
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Tells a person of an event, if it is worth it.
fn tell(ui: &Ui, event: &Event) {
    match report::line(event) {
        Some((Weight::Detail, text)) => ui.detail(text),
        Some((Weight::News, text)) => ui.say(text),
        Some((Weight::Warning, text)) => ui.warn(text),
        None => {}
    }
}
