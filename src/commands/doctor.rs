//! `distmesh doctor`: what this machine has, judged.
//!
//! `probe` looks (tools, limits, variables) and `outside` asks STUN servers: shells. `checks` judges what they found: pure. The list
//! of checks is rendered twice, for a person and as JSON.

mod checks;
mod findings;
mod outside;
mod probe;

use std::fmt::Write;

use serde::Serialize;

use self::checks::{Check, State, Verdict};
use crate::{
    cli::DoctorArgs,
    error::{Failure, OrFail},
    ui::Ui,
};

/// Checks this machine; answers with 1 when distmesh can be of no use here.
pub fn doctor(args: &DoctorArgs, ui: &Ui) -> Result<u8, Failure> {
    let asked = outside::ask(args.stun.servers());
    let mut findings = probe::look();
    findings.outside = asked.answers();
    findings.nat = outside::nat(&findings.outside);
    let verdict = checks::judge(&findings);
    let text = if args.json {
        json(&verdict)?
    } else {
        table(&verdict)
    };
    ui.print(&text)?;
    Ok(if verdict.useful() { 0 } else { 1 })
}

#[derive(Serialize)]
struct Json<'a> {
    version: &'static str,
    useful: bool,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

fn json(verdict: &Verdict) -> Result<String, Failure> {
    let json = Json {
        version: env!("CARGO_PKG_VERSION"),
        useful: verdict.useful(),
        verdict,
    };
    let text = serde_json::to_string_pretty(&json).or_cannot("write JSON")?;
    Ok(text + "\n")
}

fn table(verdict: &Verdict) -> String {
    let width = verdict
        .checks
        .iter()
        .map(|check| check.name.chars().count());
    let width = width.max().unwrap_or(0);
    let mut text = String::new();
    for check in &verdict.checks {
        text += &line(check, width);
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{}", conclusion(verdict));
    text
}

fn line(check: &Check, width: usize) -> String {
    let state = match check.state {
        State::Ok => "ok",
        State::Warn => "warn",
        State::Missing => "missing",
    };
    let mut line = format!("{state:7}  {:width$}  {}\n", check.name, check.what);
    if let Some(hint) = &check.hint {
        let _ = writeln!(line, "{:7}  {:width$}  try: {hint}", "", "");
    }
    line
}

fn conclusion(verdict: &Verdict) -> &'static str {
    match (verdict.can_build, verdict.can_work) {
        (true, true) => "This machine can build, and compile for others.",
        (true, false) => "This machine can build, but not compile for others.",
        (false, true) => "This machine can compile for others, but not build.",
        (false, false) => "distmesh can be of no use here: see what is missing above.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(can_build: bool) -> Verdict {
        Verdict {
            can_build,
            can_work: false,
            checks: vec![
                Check::ok("distcc", "3.4, /usr/bin/distcc"),
                Check::missing("distccd", "not found").hint("install distcc"),
            ],
        }
    }

    #[test]
    fn a_person_gets_a_line_a_check_and_its_hint_below() {
        insta::assert_snapshot!(table(&verdict(true)), @r"
        ok       distcc   3.4, /usr/bin/distcc
        missing  distccd  not found
                          try: install distcc

        This machine can build, but not compile for others.
        ");
    }

    #[test]
    fn a_script_gets_the_same_as_json() {
        let json: serde_json::Value =
            serde_json::from_str(&json(&verdict(false)).unwrap()).unwrap();
        assert_eq!(json["useful"], false);
        assert_eq!(json["can_build"], false);
        assert_eq!(json["checks"][1]["state"], "missing");
        assert_eq!(json["checks"][1]["hint"], "install distcc");
    }
}
