//! What is worth fetching, and whom it concerns: pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{Entry, EntryName};
use crate::session::{Descriptor, NodeName, OpenError, PeerId, Role, SessionName};

/// One node's view of its rendezvous.
#[derive(Debug)]
pub struct Exchange {
    session: SessionName,
    me: PeerId,
    seen: BTreeSet<Entry>,
    newest: BTreeMap<(Role, NodeName), (u64, u64)>,
}

/// What came of an entry that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// A peer, new or changed.
    Peer(Box<Descriptor>),
    /// Our own, or older than what is known.
    Nothing,
    /// Not a descriptor that we can open.
    Refused(OpenError),
}

impl Exchange {
    /// A view that has seen nothing yet.
    pub fn new(session: SessionName, me: PeerId) -> Self {
        Self {
            session,
            me,
            seen: BTreeSet::new(),
            newest: BTreeMap::new(),
        }
    }

    /// Chooses from a list what to fetch: of every node the newest copy that is neither known nor our own, primaries first. A
    /// copy that is refused makes way for the next one at the next turn.
    pub fn wanted(&mut self, listed: &[Entry], mine: Option<&EntryName>) -> Vec<Entry> {
        let ours: BTreeSet<&Entry> = listed
            .iter()
            .filter(|entry| entry.name.session == self.session)
            .collect();
        // What is listed no more may be forgotten, so that memory does not grow with the session's age.
        self.seen.retain(|entry| ours.contains(entry));
        let mut fresh: Vec<&Entry> = ours
            .into_iter()
            .filter(|entry| !self.seen.contains(*entry) && Some(&entry.name) != mine)
            .filter(|entry| !self.knows(&entry.name))
            .collect();
        fresh.sort_by_key(|entry| {
            let name = &entry.name;
            let newest_first = Reverse((name.version(), entry.copy));
            (name.role, &name.node, newest_first)
        });
        fresh.dedup_by(|later, first| later.name.same_node(&first.name));
        fresh.into_iter().take(A_TURN).cloned().collect()
    }

    /// True when a descriptor at least as new as this entry says it is was opened.
    fn knows(&self, name: &EntryName) -> bool {
        let newest = self.newest.get(&(name.role, name.node.clone()));
        newest.is_some_and(|newest| name.version() <= *newest)
    }

    /// Takes the result of opening an entry. Names prove nothing: only the descriptor's own words count.
    pub fn handle_opened(&mut self, entry: Entry, opened: Result<Descriptor, OpenError>) -> Opened {
        // A truncated file may still be on its way; it is looked at again.
        if opened != Err(OpenError::Truncated) {
            self.seen.insert(entry);
        }
        let descriptor = match opened {
            Err(error) => return Opened::Refused(error),
            Ok(descriptor) if descriptor.peer == self.me => return Opened::Nothing,
            Ok(descriptor) => descriptor,
        };
        let newest = self
            .newest
            .entry((descriptor.role, descriptor.name.clone()))
            .or_default();
        if descriptor.version() <= *newest {
            return Opened::Nothing;
        }
        *newest = descriptor.version();
        Opened::Peer(Box::new(descriptor))
    }
}

/// A rendezvous full of a stranger's entries must not keep a node from its own work for long.
const A_TURN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::NatClass;

    fn entry(node: &str, start_ms: u64, seq: u64) -> Entry {
        copy(node, start_ms, seq, 0)
    }

    fn copy(node: &str, start_ms: u64, seq: u64, copy: u64) -> Entry {
        let name = format!("distmesh~s~worker~{node}~{start_ms}~{seq}");
        Entry {
            name: name.parse().unwrap(),
            copy,
        }
    }

    fn descriptor(key: u8, start_ms: u64, seq: u64) -> Descriptor {
        Descriptor {
            role: Role::Worker,
            name: "w".parse().unwrap(),
            start_ms,
            seq,
            peer: PeerId([key; 32]),
            stream_key: [0; 32],
            candidates: vec![],
            nat: NatClass::Unknown,
        }
    }

    fn exchange() -> Exchange {
        Exchange::new("s".parse().unwrap(), PeerId([1; 32]))
    }

    #[test]
    fn an_entry_is_fetched_once_and_other_sessions_never() {
        let mut exchange = exchange();
        let mut other = entry("w", 1, 1);
        other.name.session = "t".parse().unwrap();
        assert_eq!(
            exchange.wanted(&[entry("w", 1, 1), other.clone()], None),
            [entry("w", 1, 1)]
        );
        exchange.handle_opened(entry("w", 1, 1), Ok(descriptor(2, 1, 1)));
        assert!(exchange.wanted(&[entry("w", 1, 1), other], None).is_empty());
    }

    #[test]
    fn of_a_node_the_newest_copy_is_fetched_and_older_ones_only_if_it_is_refused() {
        let mut exchange = exchange();
        let listed = [
            entry("w", 1, 1),
            copy("w", 1, 2, 7),
            copy("w", 1, 2, 9),
            entry("v", 1, 1),
        ];
        let wanted = exchange.wanted(&listed, Some(&entry("v", 1, 1).name));
        assert_eq!(wanted, [copy("w", 1, 2, 9)], "our own is not fetched");
        exchange.handle_opened(copy("w", 1, 2, 9), Err(OpenError::Locked));
        let wanted = exchange.wanted(&listed[..3], None);
        assert_eq!(wanted, [copy("w", 1, 2, 7)], "somebody replaced it");
        exchange.handle_opened(copy("w", 1, 2, 7), Ok(descriptor(2, 1, 2)));
        assert!(exchange.wanted(&listed[..3], None).is_empty());
    }

    #[test]
    fn primaries_come_first_and_a_flood_is_cut() {
        let mut exchange = exchange();
        let mut primary = entry("z", 1, 1);
        primary.name.role = Role::Primary;
        let mut listed: Vec<Entry> = (0..200).map(|n| entry(&format!("w{n}"), 1, 1)).collect();
        listed.push(primary.clone());
        let wanted = exchange.wanted(&listed, None);
        assert_eq!((&wanted[0], wanted.len()), (&primary, A_TURN));
    }

    #[test]
    fn a_truncated_entry_is_looked_at_again_and_a_locked_one_is_not() {
        let mut exchange = exchange();
        let refused = exchange.handle_opened(entry("w", 1, 1), Err(OpenError::Truncated));
        assert_eq!(refused, Opened::Refused(OpenError::Truncated));
        assert_eq!(exchange.wanted(&[entry("w", 1, 1)], None).len(), 1);
        exchange.handle_opened(entry("w", 1, 1), Err(OpenError::Locked));
        assert!(exchange.wanted(&[entry("w", 1, 1)], None).is_empty());
    }

    #[test]
    fn our_own_and_older_descriptors_are_nothing_new() {
        let mut exchange = exchange();
        assert_eq!(
            exchange.handle_opened(entry("w", 9, 9), Ok(descriptor(1, 9, 9))),
            Opened::Nothing
        );
        let restarted = descriptor(3, 2, 1);
        let opened = exchange.handle_opened(entry("w", 2, 1), Ok(restarted.clone()));
        assert_eq!(opened, Opened::Peer(Box::new(restarted)));
        let ghost = exchange.handle_opened(entry("w", 1, 7), Ok(descriptor(2, 1, 7)));
        assert_eq!(
            ghost,
            Opened::Nothing,
            "a restarted node does not lose to its own ghost"
        );
    }

    #[test]
    fn a_lying_name_changes_nothing() {
        let mut exchange = exchange();
        exchange.handle_opened(entry("w", 5, 5), Ok(descriptor(2, 5, 5)));
        let replayed = exchange.handle_opened(entry("w", 99, 99), Ok(descriptor(2, 4, 4)));
        assert_eq!(replayed, Opened::Nothing);
    }
}
