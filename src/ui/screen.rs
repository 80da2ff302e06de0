//! What is written on standard error, and when.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use crate::{cli::OutputArgs, error::Failure};

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// What a person wants to know.
    #[default]
    Normal,
    /// What a person who looks for a fault wants to know.
    Verbose,
}

/// What standard error is, and what the person wants to see there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// A live line can be drawn.
    pub live: bool,
    /// Colours are understood and wanted.
    pub colour: bool,
    /// GitHub Actions reads along: warnings become annotations.
    pub github: bool,
    /// Strangers read along, as on every CI: addresses of machines are masked.
    pub masked: bool,
    /// How much is said.
    pub verbosity: Verbosity,
}

impl Settings {
    /// Settings by the command line, the stream and the environment (`NO_COLOR`, `TERM`, `GITHUB_ACTIONS`).
    pub fn new(output: OutputArgs, terminal: bool, env: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| env(name).is_some_and(|value| !value.is_empty());
        let live = terminal && env("TERM").is_none_or(|term| term != "dumb");
        Self {
            live,
            colour: live && !set("NO_COLOR"),
            github: env("GITHUB_ACTIONS").is_some_and(|value| value == "true"),
            masked: set("CI") || set("GITHUB_ACTIONS"),
            verbosity: match (output.quiet, output.verbose) {
                (true, _) => Verbosity::Quiet,
                (false, 0) => Verbosity::Normal,
                (false, _) => Verbosity::Verbose,
            },
        }
    }
}

/// The state of standard error. Every method answers with what is to be written there.
#[derive(Debug)]
pub struct Screen {
    settings: Settings,
    shared: bool,
    drawn: bool,
    last: Option<(String, Instant)>,
}

impl Screen {
    /// A screen on which nothing is drawn yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            shared: false,
            drawn: false,
            last: None,
        }
    }

    /// What the person wants to see.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// An ordinary line.
    pub fn say(&mut self, text: &str) -> String {
        self.at_least(Verbosity::Normal, text)
    }

    /// A line for who looks for a fault.
    pub fn detail(&mut self, text: &str) -> String {
        self.at_least(Verbosity::Verbose, text)
    }

    /// A warning; on GitHub an annotation too.
    pub fn warn(&mut self, text: &str) -> String {
        let label = self.painted(YELLOW, "warning:");
        let mut written = self.lines(&format!("{label} "), text);
        self.annotate("warning", text, &mut written);
        written
    }

    /// The end of the work; on GitHub an annotation too.
    pub fn fail(&mut self, failure: &Failure) -> String {
        let label = self.painted(RED, "error:");
        let text = failure.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let first = clean(first);
        let mut written = self.erase();
        written += &format!("{PREFIX}{label} {first}\n");
        for line in rest.lines() {
            written += &format!("{}\n", clean(line));
        }
        self.annotate("error", text, &mut written);
        written
    }

    /// Text that has its form already.
    pub fn verbatim(&mut self, text: &str) -> String {
        self.erase() + &disarmed(text)
    }

    /// How far the work is: redrawn in place on a terminal, else a line when the last one is some time ago and said something else.
    pub fn progress(&mut self, line: &str, width: Option<usize>, now: Instant) -> String {
        if self.settings.verbosity == Verbosity::Quiet {
            return String::new();
        }
        let line = clean(line);
        if self.settings.live && !self.shared {
            return self.redraw(&line, width.unwrap_or(DEFAULT_WIDTH));
        }
        let due = |(said, at): &(String, Instant)| {
            *said != line && now.saturating_duration_since(*at) >= SPARSE
        };
        if !self.last.as_ref().is_none_or(due) {
            return String::new();
        }
        let written = format!("{PREFIX}{line}\n");
        self.last = Some((line, now));
        written
    }

    /// Takes the live line away.
    pub fn erase(&mut self) -> String {
        if std::mem::take(&mut self.drawn) {
            return ERASE.to_owned();
        }
        String::new()
    }

    /// Another program writes to the terminal too, or no more.
    pub fn share(&mut self, shared: bool) -> String {
        self.shared = shared;
        self.erase()
    }

    fn redraw(&mut self, line: &str, width: usize) -> String {
        let line = format!("{PREFIX}{line}");
        // One column stays free: a terminal that is filled to the edge wraps, and a wrapped line cannot be erased.
        let line = shortened(&line, width.saturating_sub(1));
        self.drawn = true;
        format!("{ERASE}{line}")
    }

    fn at_least(&mut self, verbosity: Verbosity, text: &str) -> String {
        if self.settings.verbosity < verbosity {
            return String::new();
        }
        self.lines("", text)
    }

    /// The text, each of its lines under the prefix: nobody else's text can begin a line of ours.
    fn lines(&mut self, label: &str, text: &str) -> String {
        let mut written = self.erase();
        for line in text.lines() {
            written += &format!("{PREFIX}{label}{}\n", clean(line));
        }
        written
    }

    fn annotate(&self, command: &str, text: &str, written: &mut String) {
        if self.settings.github {
            // GitHub's workflow commands end at the line and take % for an escape.
            let lines: Vec<_> = text.lines().map(clean).collect();
            let escaped = lines.join("\n").replace('%', "%25").replace('\n', "%0A");
            *written += &format!("::{command} title=distmesh::{escaped}\n");
        }
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.settings.colour {
            return format!("{colour}{text}\x1b[0m");
        }
        text.to_owned()
    }
}

const PREFIX: &str = "distmesh: ";

/// To the first column, and away with what stands there (ECMA-48: EL).
const ERASE: &str = "\r\x1b[K";
const YELLOW: &str = "\x1b[1;33m";
const RED: &str = "\x1b[1;31m";

/// In a log, every ten seconds a line: an hour's build has 360 at most, and still seems alive.
const SPARSE: Duration = Duration::from_secs(10);

/// What terminals that do not tell their width have.
const DEFAULT_WIDTH: usize = 80;

/// The text without control characters: it may be a peer's, and a terminal obeys them. GitHub's runner obeys `##[command]` wherever it
/// stands in a line.
pub fn clean(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\t' {
            '\u{fffd}'
        } else {
            c
        }
    };
    let text: String = text.chars().map(shown).collect();
    disarmed(&text)
}

fn disarmed(text: &str) -> String {
    text.replace("##[", "##\u{200b}[")
}

/// The first `width` characters, the last an ellipsis if some are missing.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.extend((width > 0).then_some('…'));
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMINAL: Settings = Settings {
        live: true,
        colour: false,
        github: false,
        masked: false,
        verbosity: Verbosity::Normal,
    };

    #[expect(
        clippy::disallowed_methods,
        reason = "an origin for times made by hand"
    )]
    fn origin() -> Instant {
        Instant::now()
    }

    fn log() -> Screen {
        Screen::new(Settings::default())
    }

    #[test]
    fn a_terminal_line_is_redrawn_in_place_and_erased_before_any_other() {
        let (mut screen, now) = (Screen::new(TERMINAL), origin());
        assert_eq!(screen.progress("one", None, now), "\r\x1b[Kdistmesh: one");
        assert_eq!(screen.progress("two", None, now), "\r\x1b[Kdistmesh: two");
        assert_eq!(screen.say("news"), "\r\x1b[Kdistmesh: news\n");
        assert_eq!(
            screen.say("more"),
            "distmesh: more\n",
            "nothing is left to erase"
        );
    }

    #[test]
    fn a_live_line_never_fills_the_terminal_to_its_edge() {
        let mut screen = Screen::new(TERMINAL);
        let drawn = screen.progress("a long way to go · still", Some(20), origin());
        assert_eq!(drawn, "\r\x1b[Kdistmesh: a long w…");
        assert_eq!(screen.progress("x", Some(0), origin()), "\r\x1b[K");
    }

    #[test]
    fn a_log_gets_a_progress_line_every_ten_seconds_and_only_news() {
        let (mut screen, start) = (log(), origin());
        let mut at = |text: &str, s| screen.progress(text, None, start + Duration::from_secs(s));
        assert_eq!(at("one", 0), "distmesh: one\n");
        assert_eq!(at("two", 9), "");
        assert_eq!(at("two", 10), "distmesh: two\n");
        assert_eq!(at("two", 30), "", "nothing new");
        assert_eq!(at("three", 31), "distmesh: three\n");
    }

    #[test]
    fn a_terminal_that_another_program_writes_to_gets_lines_as_a_log_does() {
        let (mut screen, now) = (Screen::new(TERMINAL), origin());
        screen.progress("waiting", None, now);
        assert_eq!(screen.share(true), ERASE);
        assert_eq!(screen.progress("one", None, now), "distmesh: one\n");
        assert_eq!(screen.progress("two", None, now), "");
        assert_eq!(screen.share(false), "");
        assert_eq!(screen.progress("two", None, now), "\r\x1b[Kdistmesh: two");
    }

    #[test]
    fn quiet_keeps_warnings_and_errors_only() {
        let quiet = OutputArgs {
            quiet: true,
            verbose: 0,
        };
        let mut screen = Screen::new(Settings::new(quiet, false, |_| None));
        assert_eq!(screen.say("x"), "");
        assert_eq!(screen.progress("x", None, origin()), "");
        assert_eq!(screen.warn("x"), "distmesh: warning: x\n");
        assert_eq!(screen.fail(&Failure::usage("x")), "distmesh: error: x\n");
    }

    #[test]
    fn details_need_verbosity() {
        assert_eq!(log().detail("x"), "");
        let verbose = OutputArgs {
            quiet: false,
            verbose: 1,
        };
        let mut screen = Screen::new(Settings::new(verbose, false, |_| None));
        assert_eq!(screen.detail("x"), "distmesh: x\n");
    }

    #[test]
    fn on_github_a_warning_is_an_annotation_too() {
        let env = |name: &str| (name == "GITHUB_ACTIONS").then(|| "true".into());
        let mut screen = Screen::new(Settings::new(OutputArgs::default(), false, env));
        assert_eq!(
            screen.warn("100 %\nlost"),
            "distmesh: warning: 100 %\ndistmesh: warning: lost\n::warning title=distmesh::100 %25%0Alost\n"
        );
    }

    #[test]
    fn a_peers_text_can_neither_command_the_terminal_nor_github() {
        let mut screen = log();
        assert_eq!(
            screen.say("evil\x1b[2J\rname\n::error::x"),
            "distmesh: evil\u{fffd}[2J\u{fffd}name\ndistmesh: ::error::x\n"
        );
        for written in [
            screen.say("it leaves: ##[set-env name=a]b"),
            screen.warn("##[save-state name=a]b"),
            screen.verbatim("debug: ##[error]x\n"),
        ] {
            assert!(!written.contains("##["), "{written}");
        }
    }

    #[test]
    fn colours_need_a_terminal_that_wants_them() {
        let with = |terminal, vars: &'static [(&str, &str)]| {
            let env = |name: &str| {
                let found = vars.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            };
            Settings::new(OutputArgs::default(), terminal, env)
        };
        assert!(with(true, &[]).colour);
        assert!(
            with(true, &[("NO_COLOR", "")]).colour,
            "no-color.org: not empty"
        );
        assert!(!with(true, &[("NO_COLOR", "1")]).colour);
        assert!(!with(true, &[("TERM", "dumb")]).live);
        assert!(!with(false, &[]).colour);
        let mut screen = Screen::new(with(true, &[]));
        assert_eq!(screen.warn("x"), "distmesh: \x1b[1;33mwarning:\x1b[0m x\n");
    }
}
