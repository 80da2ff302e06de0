//! `distmesh completions SHELL`

use crate::{
    cli::{self, CompletionsArgs},
    error::Failure,
    ui::Ui,
};

/// Prints a shell's completion script.
pub fn completions(args: &CompletionsArgs, ui: &Ui) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::command(), "distmesh", &mut script);
    ui.print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
