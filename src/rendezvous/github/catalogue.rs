//! What the lists have said so far: which copies there are, whether ours are among them, what else the run made. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    claims::BackendIds,
    name::{Pattern, Scope, is_distmesh},
};
use crate::{
    rendezvous::{Entry, EntryName, retry::Backoff},
    session::{NodeName, Role, SessionName},
};

/// One artifact, as either service lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The number that both services know it by.
    pub(super) id: u64,
    /// Its name.
    pub(super) name: String,
    /// Who uploaded it: only the results service says, and only it wants to know.
    pub(super) owner: Option<BackendIds>,
}

/// One node's knowledge of the run's artifacts.
#[derive(Debug)]
pub(super) struct Catalogue {
    scope: Scope,
    session: SessionName,
    copies: BTreeMap<Entry, Found>,
    fetches: BTreeMap<u64, Backoff>,
    others: Vec<Found>,
    primaries: BTreeMap<NodeName, u64>,
    mine: Vec<Mine>,
    /// Names that the current entry has used up.
    used: (Option<EntryName>, u32),
}

/// A copy that we published.
#[derive(Debug)]
struct Mine {
    entry: EntryName,
    artifact: Found,
    seen: bool,
    missed: u32,
}

impl Catalogue {
    /// Nothing is known yet.
    pub(super) fn new(scope: Scope, session: SessionName) -> Self {
        Self {
            scope,
            session,
            copies: BTreeMap::new(),
            fetches: BTreeMap::new(),
            others: Vec::new(),
            primaries: BTreeMap::new(),
            mine: Vec::new(),
            used: (None, 0),
        }
    }

    /// Takes a whole list. Two artifacts of one name (a Finalize that was repeated) are two copies.
    pub(super) fn handle_list(&mut self, found: Vec<Found>) {
        for mine in &mut self.mine {
            let listed = found.iter().any(|found| found.id == mine.artifact.id);
            // Our name with another number: the list is not late, somebody replaced it.
            mine.seen |= found.iter().any(|found| found.name == mine.artifact.name);
            mine.missed = if listed { 0 } else { mine.missed + 1 };
        }
        self.copies.clear();
        self.others.clear();
        for found in found {
            if let Some((name, _)) = self.scope.parse(&found.name) {
                self.note_primary(&name);
                let copy = found.id;
                self.copies.insert(Entry { name, copy }, found);
            } else if !is_distmesh(&found.name) {
                self.others.push(found);
            }
        }
        let ids: BTreeSet<u64> = self.copies.values().map(|found| found.id).collect();
        self.fetches.retain(|id, _| ids.contains(id));
    }

    fn note_primary(&mut self, name: &EntryName) {
        let room = self.primaries.len() < MAX_PRIMARIES;
        if name.role == Role::Primary && name.session == self.session && room {
            self.primaries.insert(name.node.clone(), name.start_ms);
        }
    }

    /// The copies that may be fetched now: one whose fetch failed has to rest.
    pub(super) fn entries(&self, now: Instant) -> Vec<Entry> {
        let rested = |found: &Found| {
            let fetch = self.fetches.get(&found.id);
            fetch.is_none_or(|fetch| fetch.rest(now).is_none())
        };
        let copies = self.copies.iter().filter(|(_, found)| rested(found));
        copies.map(|(entry, _)| entry.clone()).collect()
    }

    /// The artifact that holds a copy.
    pub(super) fn artifact(&self, entry: &Entry) -> Option<Found> {
        self.copies.get(entry).cloned()
    }

    /// A copy is fetched; how often it was. Whoever wants it again (it was not there, or damaged) waits longer each time.
    pub(super) fn handle_fetch(&mut self, id: u64, jitter: f64, now: Instant) -> u32 {
        let fetch = self.fetches.entry(id).or_default();
        fetch.handle_failure(Duration::ZERO, jitter, now);
        fetch.failures()
    }

    /// A name that this process has not used yet: a failed upload burns its name.
    pub(super) fn fresh_name(&mut self, entry: &EntryName) -> String {
        if self.used.0.as_ref() != Some(entry) {
            self.used = (Some(entry.clone()), 0);
        }
        let name = self.scope.name(entry, self.used.1);
        self.used.1 += 1;
        name
    }

    /// We published a copy; answers with those that it replaces.
    pub(super) fn handle_published(&mut self, entry: &EntryName, artifact: Found) -> Vec<Found> {
        let older = self.withdraw(|mine| mine.entry != *entry);
        self.mine.push(Mine {
            entry: entry.clone(),
            artifact,
            seen: false,
            missed: 0,
        });
        older
    }

    /// False when what we published is provably there no more. Lists are late and partial: one that lacks it proves nothing.
    pub(super) fn still_there(&self, entry: &EntryName) -> bool {
        self.mine.iter().any(|mine| {
            let unseen = NEVER_SEEN * self.used.1.clamp(1, 4);
            let patience = if mine.seen { MISSED } else { unseen };
            mine.entry == *entry && mine.missed < patience
        })
    }

    /// Gives up what we published under this entry's name.
    pub(super) fn handle_withdrawn(&mut self, entry: &EntryName) -> Vec<Found> {
        self.withdraw(|mine| mine.entry == *entry)
    }

    fn withdraw(&mut self, gone: impl Fn(&Mine) -> bool) -> Vec<Found> {
        let (gone, kept) = std::mem::take(&mut self.mine).into_iter().partition(gone);
        self.mine = kept;
        let gone: Vec<Mine> = gone;
        gone.into_iter().map(|mine| mine.artifact).collect()
    }

    /// The artifacts that others made and a person waits for; the newest first.
    pub(super) fn released(&self, pattern: &Pattern) -> Vec<Found> {
        let matching = self.others.iter().filter(|f| pattern.matches(&f.name));
        let mut found: Vec<Found> = matching.cloned().collect();
        found.sort_by_key(|found| std::cmp::Reverse(found.id));
        found
    }

    /// The labels of all primaries of our session that were ever listed, and when they started.
    pub(super) fn primaries(&self) -> &BTreeMap<NodeName, u64> {
        &self.primaries
    }
}

/// A list that lacks what the last one had is stale now and then, not three times running.
const MISSED: u32 = 3;

/// A new artifact may take some polls to be listed: five for the first name, five more for each that was tried since.
const NEVER_SEEN: u32 = 5;

/// A run has a primary, a few when builds follow each other; a stranger's thousand names are not remembered.
const MAX_PRIMARIES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Catalogue {
        let scope = Scope {
            attempt: 2,
            session: "7.2".parse().unwrap(),
        };
        Catalogue::new(scope.clone(), scope.session)
    }

    fn found(id: u64, name: &str) -> Found {
        Found {
            id,
            name: name.to_owned(),
            owner: None,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "some moment to begin with")]
    fn some_time() -> Instant {
        Instant::now()
    }

    fn listed(catalogue: &Catalogue) -> Vec<u64> {
        let entries = catalogue.entries(some_time());
        entries.into_iter().map(|entry| entry.copy).collect()
    }

    #[test]
    fn only_this_attempts_descriptors_are_entries() {
        let mut catalogue = catalogue();
        catalogue.handle_list(vec![
            found(1, "distmesh-1-primary-p-5.1"),
            found(2, "distmesh-2-primary-p-9.1"),
            found(3, "distmesh-2-primary-p-9.1"),
            found(4, "release"),
            found(5, "distmesh-linux"),
        ]);
        assert_eq!(listed(&catalogue), [2, 3], "duplicates are copies");
        let primaries: Vec<_> = catalogue.primaries().keys().map(NodeName::as_str).collect();
        assert_eq!(primaries, ["p"]);
        let released = |pattern: &str| catalogue.released(&pattern.parse().unwrap()).len();
        assert_eq!((released("release"), released("distmesh-*")), (1, 1));
    }

    #[test]
    fn the_primaries_of_another_session_are_not_ours() {
        let list = || {
            vec![
                found(1, "distmesh-2-primary-p-9.1"),
                found(2, "distmesh-2-primary-other~q-9.1"),
            ]
        };
        let ours = catalogue().scope.session;
        for (session, primary) in [(ours, "p"), ("other".parse().unwrap(), "q")] {
            let mut catalogue = Catalogue::new(catalogue().scope, session);
            catalogue.handle_list(list());
            let primaries: Vec<_> = catalogue.primaries().keys().map(NodeName::as_str).collect();
            assert_eq!(primaries, [primary]);
        }
    }

    #[test]
    fn a_copy_that_could_not_be_fetched_rests() {
        let (mut catalogue, now) = (catalogue(), some_time());
        catalogue.handle_list(vec![found(2, "distmesh-2-worker-w-9.1")]);
        catalogue.handle_fetch(2, 0.5, now);
        assert!(catalogue.entries(now).is_empty());
        assert_eq!(catalogue.entries(now + Duration::from_secs(2)).len(), 1);
    }

    #[test]
    fn a_name_is_used_once_and_a_new_entry_begins_anew() {
        let mut catalogue = catalogue();
        let (entry, _) = catalogue.scope.parse("distmesh-2-worker-w-9.1").unwrap();
        let names: Vec<_> = (0..3).map(|_| catalogue.fresh_name(&entry)).collect();
        assert_eq!(
            names,
            [
                "distmesh-2-worker-w-9.1",
                "distmesh-2-worker-w-9.1.1",
                "distmesh-2-worker-w-9.1.2"
            ]
        );
        let (next, _) = catalogue.scope.parse("distmesh-2-worker-w-9.2").unwrap();
        assert_eq!(catalogue.fresh_name(&next), "distmesh-2-worker-w-9.2");
    }

    #[test]
    fn what_we_published_is_gone_only_when_several_lists_say_so() {
        let mut catalogue = catalogue();
        let (entry, _) = catalogue.scope.parse("distmesh-2-worker-w-9.1").unwrap();
        assert!(!catalogue.still_there(&entry));
        catalogue.handle_published(&entry, found(3, "distmesh-2-worker-w-9.1"));
        catalogue.fresh_name(&entry);
        for _ in 0..4 {
            catalogue.handle_list(vec![]);
            assert!(catalogue.still_there(&entry), "not listed yet");
        }
        catalogue.handle_list(vec![found(3, "distmesh-2-worker-w-9.1")]);
        for missed in 0..4 {
            assert_eq!(catalogue.still_there(&entry), missed < 3);
            catalogue.handle_list(vec![]);
        }
    }

    #[test]
    fn what_somebody_replaced_is_missed_sooner_than_what_is_not_listed_yet() {
        let mut catalogue = catalogue();
        let (entry, _) = catalogue.scope.parse("distmesh-2-worker-w-9.1").unwrap();
        catalogue.fresh_name(&entry);
        catalogue.handle_published(&entry, found(3, "distmesh-2-worker-w-9.1"));
        for missed in 0..4 {
            assert_eq!(catalogue.still_there(&entry), missed < 3);
            catalogue.handle_list(vec![found(4, "distmesh-2-worker-w-9.1")]);
        }
    }

    #[test]
    fn a_newer_entry_replaces_our_older_ones() {
        let scope = catalogue().scope;
        let entry = |name| scope.parse(name).unwrap().0;
        let (one, two) = (
            entry("distmesh-2-worker-w-9.1"),
            entry("distmesh-2-worker-w-9.2"),
        );
        let mut catalogue = catalogue();
        assert!(catalogue.handle_published(&one, found(3, "a")).is_empty());
        assert!(catalogue.handle_published(&one, found(4, "b")).is_empty());
        let older = catalogue.handle_published(&two, found(5, "c"));
        assert_eq!(older.len(), 2);
        assert_eq!(catalogue.handle_withdrawn(&two), [found(5, "c")]);
        assert!(!catalogue.still_there(&two));
    }
}
