//! `distmesh man`

use std::io;

use clap_mangen::Man;

use crate::{
    cli::{self, ManArgs},
    error::{Failure, OrFail},
    ui::Ui,
};

/// Prints the manual: one page, every subcommand a section of it.
pub fn man(_args: &ManArgs, ui: &Ui) -> Result<u8, Failure> {
    let page = page().or_cannot("write the manual page")?;
    ui.print(&page)?;
    Ok(0)
}

fn page() -> io::Result<String> {
    let mut command = cli::command().disable_help_subcommand(true);
    command.build();
    let man = Man::new(command.clone());
    let mut page = text(|out| man.render_title(out))?;
    page += &text(|out| man.render_name_section(out))?;
    page += &text(|out| man.render_synopsis_section(out))?;
    page += &text(|out| man.render_description_section(out))?;
    page += &notes(&command);
    page += &text(|out| man.render_options_section(out))?;
    for subcommand in command.get_subcommands() {
        page += &section(subcommand)?;
    }
    Ok(page)
}

/// A subcommand's own page, one level lower. Options that all subcommands have stand above.
fn section(command: &clap::Command) -> io::Result<String> {
    let everywhere = |arg: &clap::Arg| arg.is_global_set() || arg.get_id() == "help";
    let command = command.clone().mut_args(|arg| {
        if everywhere(&arg) {
            arg.hide(true)
        } else {
            arg
        }
    });
    let has_options = command.get_arguments().any(|arg| !arg.is_hide_set());
    let man = Man::new(command.clone());
    let mut parts = text(|out| man.render_synopsis_section(out))?;
    parts += &text(|out| man.render_description_section(out))?;
    if has_options {
        parts += &text(|out| man.render_options_section(out))?;
    }
    let name = command.get_name().to_uppercase();
    let parts = parts.replace("\n.SH ", "\n.SS ");
    Ok(format!(
        ".SH \"DISTMESH {name}\"\n{parts}{}",
        notes(&command)
    ))
}

/// Examples and exit codes, their lines and columns as they are.
fn notes(command: &clap::Command) -> String {
    let Some(text) = command.get_after_help() else {
        return String::new();
    };
    let text = text.to_string().replace('\\', "\\e").replace('-', "\\-");
    let shield = |line: &str| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}\n"),
        false => format!("{line}\n"),
    };
    let lines: String = text.lines().map(shield).collect();
    format!(".PP\n.nf\n{lines}.fi\n")
}

fn text(render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<String> {
    let mut out = Vec::new();
    render(&mut out)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}
