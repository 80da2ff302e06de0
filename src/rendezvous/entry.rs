//! The names of entries.

use std::{fmt, str::FromStr};

use crate::session::{Descriptor, NodeName, Role, SessionName};

/// The name of one published descriptor: `distmesh~SESSION~ROLE~NODE~START~SEQ`.
///
/// `~` is no character of a label and is allowed in file and artifact names. A name is a hint, not a proof: only what is
/// sealed inside counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName {
    /// The cluster.
    pub session: SessionName,
    /// What the node is.
    pub role: Role,
    /// The node's label.
    pub node: NodeName,
    /// When the node's process started, in Unix milliseconds.
    pub start_ms: u64,
    /// Counts the descriptors of that process.
    pub seq: u64,
}

/// One published copy of an entry: the same name may be published again, where the first copy was damaged or removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// What it says it is.
    pub name: EntryName,
    /// The rendezvous's own number of the copy; the larger is newer. 0 where a name has one copy.
    pub copy: u64,
}

/// A name that no distmesh of this version gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a distmesh entry")]
pub struct InvalidEntryName;

impl EntryName {
    /// The name under which a descriptor is published.
    pub fn of(descriptor: &Descriptor, session: &SessionName) -> Self {
        Self {
            session: session.clone(),
            role: descriptor.role,
            node: descriptor.name.clone(),
            start_ms: descriptor.start_ms,
            seq: descriptor.seq,
        }
    }

    /// True when both were published under one label, by the same process or by an earlier one.
    pub fn same_node(&self, other: &Self) -> bool {
        (&self.session, self.role, &self.node) == (&other.session, other.role, &other.node)
    }

    /// Orders the entries of one node: the larger is newer.
    pub fn version(&self) -> (u64, u64) {
        (self.start_ms, self.seq)
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            session,
            role,
            node,
            start_ms,
            seq,
        } = self;
        write!(f, "distmesh~{session}~{role}~{node}~{start_ms}~{seq}")
    }
}

impl FromStr for EntryName {
    type Err = InvalidEntryName;

    fn from_str(name: &str) -> Result<Self, InvalidEntryName> {
        let parts: Vec<&str> = name.split('~').collect();
        let ["distmesh", session, role, node, start, seq] = parts[..] else {
            return Err(InvalidEntryName);
        };
        let entry = Self {
            session: session.parse().map_err(|_| InvalidEntryName)?,
            role: match role {
                "primary" => Role::Primary,
                "worker" => Role::Worker,
                _ => return Err(InvalidEntryName),
            },
            node: node.parse().map_err(|_| InvalidEntryName)?,
            start_ms: start.parse().map_err(|_| InvalidEntryName)?,
            seq: seq.parse().map_err(|_| InvalidEntryName)?,
        };
        // One entry, one name: `+7` and `007` are numbers too.
        (entry.to_string() == name)
            .then_some(entry)
            .ok_or(InvalidEntryName)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_reads_back_as_what_was_written(
            session in "[a-z0-9][A-Za-z0-9._-]{0,20}",
            node in "[a-z0-9][A-Za-z0-9._-]{0,20}",
            worker: bool, start_ms: u64, seq: u64,
        ) {
            let role = if worker { Role::Worker } else { Role::Primary };
            let (session, node) = (session.parse().unwrap(), node.parse().unwrap());
            let name = EntryName { session, role, node, start_ms, seq };
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }

        #[test]
        fn any_text_is_safe_to_parse_and_has_one_meaning(text in ".{0,80}") {
            if let Ok(name) = text.parse::<EntryName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn what_others_leave_lying_about_is_no_entry() {
        for junk in [
            "",
            "README",
            "distmesh~s~worker~w~1",
            "distmesh~s~worker~w~01~1",
            "distmesh~s~boss~w~1~1",
            "~~~~~",
        ] {
            assert_eq!(junk.parse::<EntryName>(), Err(InvalidEntryName), "{junk}");
        }
    }
}
