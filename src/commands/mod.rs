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

use std::{ffi::OsString, future::Future};

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

use crate::{
    cli::{Cli, Command},
    error::{Failure, Kind, OrFail},
    event::Event,
    report::{self, Weight},
    ui::Ui,
};

/// Does what the command line says; answers with the exit code.
pub fn run(cli: Cli, ui: &Ui) -> Result<u8, Failure> {
    match cli.command {
        Command::Build(args) => in_runtime(build(&args, ui)),
        Command::Worker(args) => or_alone(in_runtime(worker(&args, ui)), ui),
        Command::Up(args) => or_alone(in_runtime(up(&args, ui)), ui),
        Command::Down(args) => in_runtime(down(&args, ui)),
        Command::Hosts(args) => in_runtime(hosts(&args, ui)),
        Command::Status(args) => in_runtime(status(&args, ui)),
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
pub fn in_runtime(command: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .or_cannot("start the threads that this command needs")?;
    let result = runtime.block_on(command);
    // A blocking call that hangs (a name server, a dead network file system) must not keep the process.
    runtime.shutdown_background();
    result
}

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
