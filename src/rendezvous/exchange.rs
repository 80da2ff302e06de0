//! What is worth fetching, and whom it concerns: pure.

use std::collections::{BTreeMap, BTreeSet};

use super::EntryName;
use crate::session::{Descriptor, NodeName, OpenError, PeerId, Role, SessionName};

/// One node's view of its rendezvous.
#[derive(Debug)]
pub struct Exchange {
    session: SessionName,
    me: PeerId,
    seen: BTreeSet<EntryName>,
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

    /// Chooses from a list what to fetch: of every node the newest entries that were not fetched before.
    pub fn wanted(&mut self, listed: &[EntryName]) -> Vec<EntryName> {
        let listed: BTreeSet<&EntryName> = listed
            .iter()
            .filter(|entry| entry.session == self.session)
            .collect();
        // What is listed no more may be forgotten, so that memory does not grow with the session's age.
        self.seen.retain(|entry| listed.contains(entry));
        let fresh = listed
            .into_iter()
            .filter(|entry| !self.seen.contains(*entry))
            .cloned();
        fresh.collect()
    }

    /// Takes the result of opening an entry. Names prove nothing: only the descriptor's own words count.
    pub fn handle_opened(
        &mut self,
        entry: EntryName,
        opened: Result<Descriptor, OpenError>,
    ) -> Opened {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::NatClass;

    fn entry(node: &str, start_ms: u64, seq: u64) -> EntryName {
        format!("distmesh~s~worker~{node}~{start_ms}~{seq}")
            .parse()
            .unwrap()
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
        let other: EntryName = "distmesh~t~worker~w~1~1".parse().unwrap();
        assert_eq!(
            exchange.wanted(&[entry("w", 1, 1), other.clone()]),
            [entry("w", 1, 1)]
        );
        exchange.handle_opened(entry("w", 1, 1), Ok(descriptor(2, 1, 1)));
        assert!(exchange.wanted(&[entry("w", 1, 1), other]).is_empty());
    }

    #[test]
    fn a_truncated_entry_is_looked_at_again_and_a_locked_one_is_not() {
        let mut exchange = exchange();
        let refused = exchange.handle_opened(entry("w", 1, 1), Err(OpenError::Truncated));
        assert_eq!(refused, Opened::Refused(OpenError::Truncated));
        assert_eq!(exchange.wanted(&[entry("w", 1, 1)]).len(), 1);
        exchange.handle_opened(entry("w", 1, 1), Err(OpenError::Locked));
        assert!(exchange.wanted(&[entry("w", 1, 1)]).is_empty());
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
