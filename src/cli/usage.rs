//! A wrong command line, explained in the same form as every other failure.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::{error::Failure, rendezvous::store::without_logins};

/// Says what is wrong with a command line, and what would be right.
pub fn explain(error: &clap::Error) -> Failure {
    let text = without_secrets(error);
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (what, rest) = split(text);
    let usage = rest.iter().find_map(|line| line.strip_prefix("Usage: "));
    let tip = rest.iter().find_map(|line| line.strip_prefix("tip: "));
    let mut failure = Failure::usage(what.join(" "));
    if let Some(usage) = usage {
        failure = failure.form(usage);
    }
    // clap tells the form of the command only when it is the form that is wrong.
    let help = usage.map_or_else(
        || "the same command with --help tells what it takes".to_owned(),
        |usage| format!("{} --help", called(usage)),
    );
    let hint = missing_command(error, usage).or(tip.map(did_you_mean));
    failure.hint(hint.unwrap_or(help))
}

/// A wrong value is quoted, but not an address: it may have a password in it, and what is wrong may be just where.
fn without_secrets(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let (argument, value) = (
        error.get(ContextKind::InvalidArg),
        error.get(ContextKind::InvalidValue),
    );
    match (argument, value) {
        (Some(ContextValue::String(argument)), Some(ContextValue::String(value)))
            if argument.starts_with("--rendezvous") && value.contains('@') =>
        {
            text.replacen(&format!("value '{value}' "), "value ", 1)
        }
        _ => without_logins(&text),
    }
}

/// The lines that say what is wrong, and those after them, trimmed.
fn split(text: &str) -> (Vec<&str>, Vec<&str>) {
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let of_rest = |line: &&str| {
        ["tip: ", "Usage: ", "For more "]
            .iter()
            .any(|head| line.starts_with(head))
    };
    let end = lines.iter().position(of_rest).unwrap_or(lines.len());
    (lines[..end].to_vec(), lines[end..].to_vec())
}

/// `distmesh build` of `distmesh build [OPTIONS] -- <COMMAND>...`.
fn called(usage: &str) -> String {
    let word = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    usage
        .split(' ')
        .take_while(word)
        .collect::<Vec<_>>()
        .join(" ")
}

/// `a similar argument exists: '--wait'` as a question.
fn did_you_mean(tip: &str) -> String {
    match tip.split_once(": ") {
        Some((head, names)) if head.contains("similar") => {
            format!("did you mean {}?", names.replace('\'', ""))
        }
        _ => tip.to_owned(),
    }
}

/// The mistake that everybody makes once: the command without `--`, or no command.
fn missing_command(error: &clap::Error, usage: Option<&str>) -> Option<String> {
    let called = called(usage?);
    if !called.ends_with(" build") {
        return None;
    }
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::MissingRequiredArgument, _) => Some(format!("{called} -- make -j")),
        (ErrorKind::UnknownArgument, Some(ContextValue::String(word)))
            if !word.starts_with('-') =>
        {
            Some(format!("put `--` before the command: {called} -- {word} …"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::*;
    use crate::cli::{BuildArgs, WorkerArgs};

    fn said(args: &[&str]) -> String {
        let command = Command::new("distmesh")
            .subcommand(BuildArgs::augment_args(Command::new("build")))
            .subcommand(WorkerArgs::augment_args(Command::new("worker")));
        let args = ["distmesh"].iter().chain(args);
        explain(&command.try_get_matches_from(args).unwrap_err()).to_string()
    }

    #[test]
    fn a_build_without_a_command_is_told_how_to_give_one() {
        for args in [&["build"][..], &["build", "--"]] {
            let said = said(args);
            assert!(said.contains("COMMAND"), "{said}");
            assert!(
                said.ends_with("\n  try: distmesh build -- make -j"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_command_without_the_two_dashes_is_told_where_they_go() {
        let said = said(&["build", "make", "-j"]);
        assert!(
            said.ends_with("try: put `--` before the command: distmesh build -- make …"),
            "{said}"
        );
    }

    #[test]
    fn a_misspelt_option_gets_the_one_that_was_meant() {
        let said = said(&["worker", "--slot", "3"]);
        assert!(said.ends_with("try: did you mean --slots?"), "{said}");
        assert!(
            said.starts_with("error: unexpected argument '--slot'"),
            "{said}"
        );
    }

    #[test]
    fn a_wrong_value_is_answered_with_the_right_form() {
        let lifetime = said(&["worker", "--max-lifetime", "90"]);
        assert!(lifetime.contains("did you mean 90s?"), "{lifetime}");
        let said = said(&["worker", "--rendezvous", "gitlab"]);
        assert!(said.contains("dir:PATH"), "{said}");
        assert!(said.contains("try: "), "{said}");
    }

    #[test]
    fn a_wrong_address_that_may_have_a_password_in_it_is_not_quoted() {
        for address in [
            "https://u:hunter2@h/p?x",
            "u:hunter2@h/p",
            "https:/u:hunter2@h/p",
            "https://u:hun ter2@h/p?x",
            "//u:hunter2@h/p",
        ] {
            let said = said(&["worker", "--rendezvous", address]);
            assert!(!said.contains("ter2"), "{said}");
            assert!(said.contains("invalid value for '--rendezvous"), "{said}");
        }
        let said = said(&["worker", "--rendezvous", "https://u:hun ter2@h/p?x"]);
        assert!(said.contains("USER:PASSWORD@HOST"), "{said}");
    }
}
