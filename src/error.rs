//! What a person is told when something cannot be done: what it was, why, and what to try.
//!
//! Rooms have errors of their own; a command turns one into a [`Failure`] at the place where it knows what it was doing:
//! `Directory::open(&path).or_cannot("use the rendezvous")?`. Where the cure is always the same, `From` adds it and `?` is enough.

use std::{error::Error, fmt, io};

use crate::{
    rendezvous::RendezvousError,
    session::{IdentityError, InvalidName, KeyError, PathError, SecretError},
};

/// Why distmesh stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line is wrong.
    Usage,
    /// The wrapped command could not be run, or a worker, a session or a command of ours could not do its work.
    CannotRun,
    /// The run has no secret, as that of a fork's pull request: builds go on alone.
    NoSecret,
    /// `--require-workers` was not met.
    TooFewWorkers,
}

impl Kind {
    /// The exit code. 96 and 97 are above what compilers and build tools use and below a shell's own.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::CannotRun | Self::NoSecret => 96,
            Self::TooFewWorkers => 97,
        }
    }
}

/// One thing that could not be done, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    kind: Kind,
    what: String,
    notes: Vec<(Label, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Because,
    Usage,
    Try,
}

impl Failure {
    /// The command line is wrong.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    /// Something could not be run or done: a sentence like `cannot use the rendezvous`.
    pub fn cannot_run(what: impl Into<String>) -> Self {
        Self::new(Kind::CannotRun, what)
    }

    /// Fewer workers came than were required.
    pub fn too_few_workers(what: impl Into<String>) -> Self {
        Self::new(Kind::TooFewWorkers, what)
    }

    /// A failure of a kind.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            notes: Vec::new(),
        }
    }

    /// Adds an error and all that caused it. A cause whose text its effect already has is not said twice.
    #[must_use]
    pub fn because(mut self, error: &dyn Error) -> Self {
        let mut cause = Some(error);
        let mut said = self.what.clone();
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.contains(&text) {
                self.notes.push((Label::Because, text.clone()));
                said = text;
            }
            cause = error.source();
        }
        self
    }

    /// Adds the form of the command line.
    #[must_use]
    pub fn form(mut self, usage: impl Into<String>) -> Self {
        self.notes.push((Label::Usage, usage.into()));
        self
    }

    /// Adds what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.notes.push((Label::Try, hint.into()));
        self
    }

    /// Adds what to try, if anything is known.
    #[must_use]
    pub fn maybe_hint(self, hint: Option<impl Into<String>>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// What, why and what to try, in one line: for a failure that is only a warning.
    pub fn in_one_line(&self) -> String {
        let notes: Vec<&str> = self.notes.iter().map(|(_, text)| text.as_str()).collect();
        let notes = if notes.is_empty() {
            String::new()
        } else {
            format!(" ({})", notes.join("; "))
        };
        one_line(&format!("{}{notes}", self.what))
    }

    /// Why distmesh stops.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The first line, without its causes.
    pub fn what(&self) -> &str {
        &self.what
    }
}

/// `error: WHAT`, then one indented line a cause and hint.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", one_line(&self.what))?;
        for (label, text) in &self.notes {
            let label = match label {
                Label::Because => "because",
                Label::Usage => "usage",
                Label::Try => "try",
            };
            write!(f, "\n  {label}: {}", one_line(text))?;
        }
        Ok(())
    }
}

/// For errors of the standard library and of rooms, where the command knows best what it was doing.
pub trait OrFail<T> {
    /// Turns an error into `cannot DOING`, with the error as its cause.
    fn or_cannot(self, doing: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Error> OrFail<T> for Result<T, E> {
    fn or_cannot(self, doing: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::cannot_run(format!("cannot {doing}")).because(&error))
    }
}

impl From<PathError> for Failure {
    fn from(error: PathError) -> Self {
        let hint = match &error {
            PathError::Io { source, .. } => hint_of_io(source),
            PathError::Secret { .. } => Some(MAKE_SECRET),
            PathError::Held(_) => Some("end that process, or give this build another --session"),
            PathError::NotPrivate { .. } | PathError::TooLong { .. } | PathError::NoRandomness => {
                None
            }
        };
        Self::outermost(&error).maybe_hint(hint)
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        Self::outermost(&error).hint(MAKE_SECRET)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::outermost(&error)
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        Self::outermost(&error)
    }
}

impl From<RendezvousError> for Failure {
    fn from(error: RendezvousError) -> Self {
        Self::outermost(&error).hint(
            "name a directory that this user may write to and that all nodes can reach: --rendezvous dir:PATH",
        )
    }
}

impl From<InvalidName> for Failure {
    fn from(error: InvalidName) -> Self {
        Self::usage(error.to_string())
    }
}

impl Failure {
    /// The error itself is what could not be done; its sources are the causes.
    fn outermost(error: &dyn Error) -> Self {
        Self::cannot_run(error.to_string()).because(error)
    }
}

const MAKE_SECRET: &str =
    "make a secret: `(umask 077; distmesh keygen >key)`, then --secret-file key on every node";

fn hint_of_io(error: &io::Error) -> Option<&'static str> {
    if error.kind() == io::ErrorKind::NotFound {
        return Some("check the path");
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Some(
            "check who may use it, or set DISTMESH_RUNTIME_DIR to a directory of your own",
        );
    }
    None
}

/// A cause with line breaks would look like several.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> io::Error {
        io::Error::new(io::ErrorKind::PermissionDenied, "permission denied")
    }

    #[test]
    fn a_failure_says_what_why_and_what_to_try() {
        let failure = Failure::cannot_run("cannot start\nthe session")
            .because(&denied())
            .hint("chmod it");
        assert_eq!(
            failure.to_string(),
            "error: cannot start the session\n  because: permission denied\n  try: chmod it"
        );
    }

    #[test]
    fn every_cause_of_the_chain_is_said_once() {
        let error = RendezvousError {
            doing: "use",
            what: "dir:/x".into(),
            source: denied(),
        };
        let text = Failure::from(error).to_string();
        assert_eq!(text.matches("permission denied").count(), 1, "{text}");

        let path = PathError::Io {
            path: "/x".into(),
            source: denied(),
        };
        let text = Failure::from(path).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..2],
            ["error: cannot use /x", "  because: permission denied"]
        );
        assert!(lines[2].starts_with("  try: "), "{text}");
    }

    #[test]
    fn the_exit_code_tells_a_script_whose_fault_it_was() {
        let code = |failure: Failure| failure.kind().exit_code();
        assert_eq!(code(Failure::usage("x")), 2);
        assert_eq!(code(Failure::cannot_run("x")), 96);
        assert_eq!(code(Failure::too_few_workers("x")), 97);
        assert_eq!(
            code(
                "bad name"
                    .parse::<crate::session::NodeName>()
                    .unwrap_err()
                    .into()
            ),
            2
        );
    }

    #[test]
    fn an_error_becomes_the_cause_of_what_the_command_was_doing() {
        let result: Result<(), io::Error> = Err(denied());
        let failure = result.or_cannot("write the report").unwrap_err();
        assert_eq!(failure.what(), "cannot write the report");
        assert!(failure.to_string().ends_with("because: permission denied"));
    }
}
