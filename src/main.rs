//! Parse, set up, dispatch, exit code.

mod memory;

use std::{ffi::OsString, io::IsTerminal, process::ExitCode};

use distmesh::{
    cli::{self, Cli, OutputArgs},
    commands,
    error::Failure,
    ui::{LogLines, Ui},
};

fn main() -> ExitCode {
    distmesh::build::shim::run_if_shim();
    ExitCode::from(exit_code())
}

fn exit_code() -> u8 {
    let cli = match Cli::parse_from_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return answer_parser(&error),
    };
    let ui = Ui::on_standard_streams(cli.output, commands::variable);
    let verbose = if cli.output.quiet {
        0
    } else {
        cli.output.verbose
    };
    start_log(&ui, verbose, commands::variable("DISTMESH_LOG"));
    let code = commands::run(cli, &ui).unwrap_or_else(|failure| report(&ui, &failure));
    ui.end_progress();
    code
}

fn report(ui: &Ui, failure: &Failure) -> u8 {
    ui.fail(failure);
    failure.kind().exit_code()
}

/// Help and version, or what is wrong with the command line.
fn answer_parser(error: &clap::Error) -> u8 {
    let ui = Ui::on_standard_streams(OutputArgs::default(), commands::variable);
    let help = error.render();
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        ui.verbatim(&if ui.has_colour() {
            help.ansi().to_string()
        } else {
            help.to_string()
        });
        return 2;
    }
    if error.use_stderr() {
        return report(&ui, &cli::explain(error));
    }
    let coloured = ui.has_colour() && std::io::stdout().is_terminal();
    let text = if coloured {
        help.ansi().to_string()
    } else {
        help.to_string()
    };
    ui.print(&text)
        .map_or_else(|failure| report(&ui, &failure), |()| 0)
}

/// The debug log, off unless asked for: `-v`, or `DISTMESH_LOG` with the directives of `tracing_subscriber::EnvFilter`.
fn start_log(ui: &Ui, verbose: u8, directives: Option<OsString>) {
    let by_verbosity = ["off", "distmesh=info", "distmesh=debug", "distmesh=trace"];
    let directives = directives.filter(|text| !text.is_empty()).map_or_else(
        || by_verbosity[usize::from(verbose).min(3)].to_owned(),
        |text| text.to_string_lossy().into_owned(),
    );
    let Ok(filter) = tracing_subscriber::EnvFilter::try_new(&directives) else {
        return ui.warn(format!(
            "DISTMESH_LOG={directives} is not understood; try DISTMESH_LOG=distmesh=debug"
        ));
    };
    let lines = LogLines(ui.clone());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ui.has_colour())
        .with_writer(move || lines.clone())
        .init();
}
