//! Names of artifacts. Pure.

use std::fmt::Write;

use super::super::EntryName;
use crate::session::{Role, SessionName};

/// What the names of one attempt's artifacts have in common.
///
/// An entry is the artifact `distmesh-ATTEMPT-ROLE-NODE-START.SEQ`. `.COPY` follows where the first name was burned, and
/// `SESSION~` stands before NODE where the session is not the run's own. None of the characters is one that GitHub forbids
/// (`" : < > | * ? \ /` and line ends).
///
/// The attempt is in the name because a list may show what earlier attempts of the same run left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// The attempt.
    pub(super) attempt: u32,
    /// The run's own session.
    pub(super) session: SessionName,
}

impl Scope {
    /// The name under which an entry's copy is published.
    pub(super) fn name(&self, entry: &EntryName, copy: u32) -> String {
        let EntryName {
            session,
            role,
            node,
            start_ms,
            seq,
        } = entry;
        let mut name = format!("{}{role}-", self.prefix());
        // Writing into a String cannot fail.
        if *session != self.session {
            let _ = write!(name, "{session}~");
        }
        let _ = write!(name, "{node}-{start_ms}.{seq}");
        if copy > 0 {
            let _ = write!(name, ".{copy}");
        }
        name
    }

    /// The entry and the copy that a name stands for; `None` for all that is not of this attempt, or not distmesh's.
    pub(super) fn parse(&self, name: &str) -> Option<(EntryName, u32)> {
        let rest = name.strip_prefix(&self.prefix())?;
        let (role, rest) = rest.split_once('-')?;
        let (who, version) = rest.rsplit_once('-')?;
        let (session, node) = match who.split_once('~') {
            Some((session, node)) => (session.parse().ok()?, node),
            None => (self.session.clone(), who),
        };
        let numbers: Vec<&str> = version.split('.').collect();
        let (start, seq, copy) = match numbers[..] {
            [start, seq] => (start, seq, 0),
            [start, seq, copy] => (start, seq, copy.parse().ok()?),
            _ => return None,
        };
        let entry = EntryName {
            session,
            role: match role {
                "primary" => Role::Primary,
                "worker" => Role::Worker,
                _ => return None,
            },
            node: node.parse().ok()?,
            start_ms: start.parse().ok()?,
            seq: seq.parse().ok()?,
        };
        // One entry, one name: `+7` and `007` are numbers too.
        (self.name(&entry, copy) == name).then_some((entry, copy))
    }

    fn prefix(&self) -> String {
        format!("distmesh-{}-", self.attempt)
    }
}

/// True for what any attempt of a distmesh published as a descriptor.
pub(super) fn is_distmesh(name: &str) -> bool {
    name.strip_prefix("distmesh-")
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(attempt, rest)| {
            attempt.bytes().all(|b| b.is_ascii_digit())
                && (rest.starts_with("primary-") || rest.starts_with("worker-"))
        })
}

/// Which artifacts end a worker's work: `NAME` exactly, or with a final `*`, which no artifact's name can have, all that begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// True when the artifact's name is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix) && !is_distmesh(name),
            None => name == self.0,
        }
    }
}

impl std::str::FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('*').unwrap_or(text);
        if name.is_empty() {
            return Err("write the artifact's name, or its beginning and `*`".to_owned());
        }
        let forbidden = |c: char| FORBIDDEN.contains(c) || c.is_control();
        match name.chars().find(|c| forbidden(*c)) {
            Some(c) => Err(format!("no artifact's name can have {c:?}")),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What GitHub allows in no artifact's name, beside line ends.
const FORBIDDEN: &str = "\":<>|*?\\/";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope() -> Scope {
        Scope {
            attempt: 2,
            session: "77.2".parse().unwrap(),
        }
    }

    fn entry(session: &str, node: &str) -> EntryName {
        EntryName {
            session: session.parse().unwrap(),
            role: Role::Worker,
            node: node.parse().unwrap(),
            start_ms: 1_764_000_000_000,
            seq: 3,
        }
    }

    #[test]
    fn a_name_says_attempt_role_node_and_sequence() {
        let name = |entry, copy| scope().name(&entry, copy);
        assert_eq!(
            name(entry("77.2", "GitHub-Actions-12-9"), 0),
            "distmesh-2-worker-GitHub-Actions-12-9-1764000000000.3"
        );
        assert_eq!(
            name(entry("nightly-x", "w"), 4),
            "distmesh-2-worker-nightly-x~w-1764000000000.3.4"
        );
    }

    #[test]
    fn other_attempts_and_other_artifacts_are_not_ours() {
        for name in [
            "distmesh-1-worker-w-5.1",
            "distmesh-2-worker-w-5",
            "distmesh-2-worker-w-05.1",
            "distmesh-2-worker-w-5.1.0",
            "distmesh-2-worker-77.2~w-5.1",
            "distmesh-2-boss-w-5.1",
            "distmesh-2-linux-x64",
            "release",
            "",
        ] {
            assert_eq!(scope().parse(name), None, "{name}");
        }
        assert!(is_distmesh("distmesh-1-worker-w-5.1"));
        assert!(!is_distmesh("distmesh-2-linux-x64"));
        assert!(!is_distmesh("distmesh-linux-worker-1"));
    }

    #[test]
    fn a_release_is_matched_exactly_or_by_its_beginning() {
        let matches = |pattern: &str, name| pattern.parse::<Pattern>().unwrap().matches(name);
        assert!(matches("release", "release"));
        assert!(!matches("release", "release-notes"));
        assert!(matches("release-*", "release-linux"));
        assert!(!matches("release-*", "release"));
        assert!(matches("distmesh*", "distmesh-x86_64"));
        assert!(!matches("distmesh*", "distmesh-2-primary-p-1.1"));
        for wrong in ["", "*", "a*b", "a/b", "a\nb"] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_reads_back_as_what_was_written(
            session in "[a-z0-9][A-Za-z0-9._-]{0,20}",
            node in "[a-z0-9][A-Za-z0-9._-]{0,20}",
            worker: bool, start_ms: u64, seq: u64, copy: u32,
        ) {
            let role = if worker { Role::Worker } else { Role::Primary };
            let (session, node) = (session.parse().unwrap(), node.parse().unwrap());
            let entry = EntryName { session, role, node, start_ms, seq };
            let name = scope().name(&entry, copy);
            prop_assert!(!name.contains(|c| FORBIDDEN.contains(c)));
            prop_assert_eq!(scope().parse(&name), Some((entry, copy)));
        }

        #[test]
        fn any_text_is_safe_to_parse_and_has_one_meaning(text in "(distmesh-2-(primary|worker)-)?.{0,60}") {
            if let Some((entry, copy)) = scope().parse(&text) {
                prop_assert_eq!(scope().name(&entry, copy), text);
            }
        }
    }
}
