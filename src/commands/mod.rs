//! One file per subcommand: it takes its parsed arguments, wires rooms together and answers with an exit code, or with a
//! [`Failure`] that says what could not be done.

mod completions;
mod doctor;
mod keygen;
mod man;

use std::{ffi::OsString, future::Future};

pub use completions::completions;
pub use doctor::doctor;
pub use keygen::keygen;
pub use man::man;

use crate::{
    cli::{Cli, Command},
    error::{Failure, OrFail},
    ui::Ui,
};

/// Does what the command line says; answers with the exit code.
pub fn run(cli: Cli, ui: &Ui) -> Result<u8, Failure> {
    match cli.command {
        Command::Keygen(args) => keygen(&args, ui),
        Command::Doctor(args) => doctor(&args, ui),
        Command::Completions(args) => completions(&args, ui),
        Command::Man(args) => man(&args, ui),
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
