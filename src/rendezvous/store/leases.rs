//! Whose lease has run out, and when ours is due. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    rendezvous::{Entry, EntryName},
    session::SessionName,
};

/// What a list said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// The server's time, in Unix seconds, if it said so.
    pub(super) now: Option<i64>,
    /// Names of entries, and when their objects were written.
    pub(super) objects: Vec<(EntryName, i64)>,
}

impl Listing {
    /// The session's entries that are alive.
    pub(super) fn live(&self, session: &SessionName) -> Vec<Entry> {
        let alive = self
            .objects
            .iter()
            .filter(|(name, written)| name.session == *session && self.age(*written) <= LEASE);
        let mut live: Vec<Entry> = alive
            .map(|(name, _)| Entry {
                name: name.clone(),
                copy: 0,
            })
            .collect();
        live.sort();
        live
    }

    /// Entries of any session for which nobody comes back.
    pub(super) fn forgotten(&self) -> Vec<EntryName> {
        let old = self.objects.iter();
        old.filter(|(_, written)| self.age(*written) > FORGOTTEN)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// A server that does not say its time is at least as late as the newest thing it has.
    fn age(&self, written: i64) -> Duration {
        let newest = || self.objects.iter().map(|(_, written)| *written).max();
        let now = self.now.or_else(newest).unwrap_or(written);
        Duration::from_secs(u64::try_from(now.saturating_sub(written)).unwrap_or(0))
    }
}

/// What this node has published.
#[derive(Debug, Default)]
pub(super) struct Own {
    entries: BTreeMap<EntryName, Kept>,
}

#[derive(Debug)]
struct Kept {
    sealed: Bytes,
    written: Option<Instant>,
}

/// What there is to do about an entry of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It is not ours any more.
    Lost,
    /// Nothing.
    Fresh,
    /// Its object has to be written again.
    Write(Bytes),
}

impl Own {
    /// An object is about to be written. Remembered before it is: whether it came to be is not known if the answer is lost.
    pub(super) fn handle_publish(&mut self, name: &EntryName, sealed: Bytes) {
        let written = None;
        self.entries.insert(name.clone(), Kept { sealed, written });
    }

    /// It was written.
    pub(super) fn handle_written(&mut self, name: &EntryName, now: Instant) {
        if let Some(kept) = self.entries.get_mut(name) {
            kept.written = Some(now);
        }
    }

    /// A list came: what is not in it has to be written again.
    pub(super) fn handle_list(&mut self, live: &[Entry]) {
        for (name, kept) in &mut self.entries {
            if !live.iter().any(|entry| entry.name == *name) {
                kept.written = None;
            }
        }
    }

    /// An object was removed.
    pub(super) fn handle_removed(&mut self, name: &EntryName) {
        self.entries.remove(name);
    }

    /// What to do when the lease of an entry is to be renewed.
    pub(super) fn due(&self, name: &EntryName, now: Instant) -> Due {
        let Some(kept) = self.entries.get(name) else {
            return Due::Lost;
        };
        let fresh = kept
            .written
            .is_some_and(|written| now.saturating_duration_since(written) < RENEW);
        if fresh {
            Due::Fresh
        } else {
            Due::Write(kept.sealed.clone())
        }
    }

    /// Every name under which something of ours may lie there.
    pub(super) fn names(&self) -> Vec<EntryName> {
        self.entries.keys().cloned().collect()
    }
}

/// One request a minute and node is all that a lease costs.
const RENEW: Duration = Duration::from_secs(60);

/// Three missed renewals: a killed node's entry is passed over three minutes later. Until then it costs its peers some probes.
const LEASE: Duration = Duration::from_secs(200);

/// Nobody is suspended in the middle of a build for so long; who is writes its object again.
const FORGOTTEN: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn name(session: &str, node: &str, seq: u64) -> EntryName {
        let name = format!("distmesh~{session}~worker~{node}~5~{seq}");
        name.parse().unwrap()
    }

    fn listing(now: Option<i64>, ages: &[(&str, i64)]) -> Listing {
        let written = |age: &i64| 1_000_000 - age;
        let objects = ages
            .iter()
            .map(|(node, age)| (name("s", node, 1), written(age)));
        Listing {
            now,
            objects: objects.collect(),
        }
    }

    fn live(listing: &Listing) -> Vec<String> {
        let live = listing.live(&"s".parse().unwrap());
        let names = live.iter().map(|entry| entry.name.node.to_string());
        names.collect()
    }

    #[expect(clippy::disallowed_methods, reason = "some moment to begin with")]
    fn some_time() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_lease_runs_out_by_the_servers_clock_whatever_ours_says() {
        let ages = [
            ("fresh", 0),
            ("busy", 190),
            ("dead", 260),
            ("ancient", 7200),
        ];
        let listed = listing(Some(1_000_000), &ages);
        assert_eq!(live(&listed), ["busy", "fresh"]);
        assert_eq!(listed.forgotten(), [name("s", "ancient", 1)]);
        assert_eq!(live(&listing(Some(1_000_260), &ages)), Vec::<String>::new());
    }

    #[test]
    fn a_server_without_a_clock_is_as_late_as_the_newest_object() {
        let listed = listing(None, &[("a", 0), ("b", 100), ("c", 300)]);
        assert_eq!(live(&listed), ["a", "b"]);
        assert_eq!(live(&listing(None, &[("c", 300)])), ["c"]);
        let from_the_future = listing(Some(0), &[("c", 300)]);
        assert_eq!(live(&from_the_future), ["c"]);
    }

    #[test]
    fn other_sessions_are_not_listed_but_their_litter_is_found() {
        let objects = vec![(name("other", "w", 1), 0), (name("s", "w", 1), 9_000)];
        let now = Some(9_000);
        let listed = Listing { now, objects };
        assert_eq!(live(&listed), ["w"]);
        assert_eq!(listed.forgotten(), [name("other", "w", 1)]);
    }

    #[test]
    fn an_entry_is_written_again_once_a_minute_and_when_it_is_missing() {
        let (start, one) = (some_time(), name("s", "w", 1));
        let mut own = Own::default();
        assert_eq!(own.due(&one, start), Due::Lost);
        own.handle_publish(&one, "sealed".into());
        assert_eq!(own.due(&one, start), Due::Write("sealed".into()));
        own.handle_written(&one, start);
        own.handle_list(&[Entry {
            name: one.clone(),
            copy: 0,
        }]);
        assert_eq!(own.due(&one, start + RENEW / 2), Due::Fresh);
        assert_eq!(own.due(&one, start + RENEW), Due::Write("sealed".into()));
        own.handle_list(&[]);
        assert_eq!(own.due(&one, start), Due::Write("sealed".into()));
        assert_eq!(own.names(), std::slice::from_ref(&one));
        own.handle_removed(&one);
        assert_eq!(own.due(&one, start), Due::Lost);
    }
}
