//! The rendezvous itself: objects of a store.

use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    address::StoreAddress,
    backend::Backend,
    leases::{Due, Own},
    trouble::{self, CallError, Kind},
};
use crate::{
    rendezvous::{
        BoxFuture, Entry, EntryName, Rendezvous, RendezvousError,
        ambient::{jitter, lock, now},
        retry::Backoff,
    },
    session::SessionName,
};

/// A bucket or a WebDAV collection, as one session uses it.
#[derive(Debug)]
pub struct Store {
    backend: Backend,
    session: SessionName,
    own: Mutex<Own>,
    /// What was listed last.
    listed: Mutex<Vec<Entry>>,
    pause: Mutex<Backoff>,
    /// Something failed since the last list.
    stumbled: AtomicBool,
    polls: AtomicU32,
}

/// Why a store cannot be used at all, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}: {cure}")]
pub struct StoreRefusal {
    /// What is wrong.
    pub why: String,
    /// What a person can do.
    pub cure: String,
}

impl StoreRefusal {
    pub(super) fn new(why: impl Into<String>, cure: impl Into<String>) -> Self {
        let (why, cure) = (why.into(), cure.into());
        Self { why, cure }
    }

    fn of(error: &CallError, kind: Kind) -> Self {
        Self::new(error.to_string(), error.cure(kind))
    }

    pub(super) fn no_roots(error: io::Error) -> Self {
        Self::new(
            format!("it needs the certificates of public authorities: {error}"),
            "apt-get install ca-certificates",
        )
    }

    pub(super) fn unusable(error: object_store::Error) -> Self {
        Self::new(
            format!("its client cannot be made: {error}"),
            "check the address and the variables that begin with AWS_",
        )
    }
}

impl Store {
    /// Makes the client; nothing is asked yet. Of the variables, those that begin with `AWS_` matter, and only for a bucket.
    pub fn new(
        address: &StoreAddress,
        session: SessionName,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, StoreRefusal> {
        Ok(Self {
            backend: Backend::new(address, variables)?,
            session,
            own: Mutex::default(),
            listed: Mutex::default(),
            pause: Mutex::default(),
            stumbled: AtomicBool::new(false),
            polls: AtomicU32::new(0),
        })
    }

    /// Looks there for the first time, and removes what was forgotten there. Fails if time alone will not mend what is wrong; a
    /// store that is only out of reach is left to the polls.
    pub async fn first_look(&self) -> Result<(), StoreRefusal> {
        let looked = tokio::time::timeout(FIRST_LOOK, self.backend.list(OURS)).await;
        let listing = match looked.map(|listed| listed.map_err(|error| trouble::of_store(&error))) {
            Ok(Ok(listing)) => listing,
            Ok(Err(error)) if error.lasts() => {
                return Err(StoreRefusal::of(&error, self.backend.kind));
            }
            Ok(Err(_)) | Err(_) => return Ok(()),
        };
        *lock(&self.listed) = listing.live(&self.session);
        for name in listing.forgotten() {
            // Somebody who may not, or a neighbour who was quicker: nobody depends on it.
            let removed = self.within(self.backend.delete(&name)).await;
            tracing::debug!(%name, removed = removed.is_ok(), "forgotten");
        }
        Ok(())
    }

    /// Bounds a call, and remembers that it failed.
    async fn within<T>(
        &self,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, CallError> {
        let outcome = match tokio::time::timeout(CALL, call).await {
            Err(_) => Err(CallError::Silent),
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(trouble::of_store(&error)),
        };
        self.stumbled.fetch_or(outcome.is_err(), Ordering::Relaxed);
        outcome
    }

    /// A list ends a turn, which may have begun with publishing: one that failed makes the pause longer.
    fn end_turn(&self) {
        self.polls.fetch_add(1, Ordering::Relaxed);
        let mut pause = lock(&self.pause);
        if self.stumbled.swap(false, Ordering::Relaxed) {
            pause.handle_failure(Duration::ZERO, jitter(), now());
        } else {
            pause.handle_success();
        }
    }

    async fn write(&self, name: &EntryName, sealed: Bytes) -> Result<(), CallError> {
        self.within(self.backend.put(name, sealed)).await?;
        lock(&self.own).handle_written(name, now());
        Ok(())
    }

    async fn publish_now(&self, name: &EntryName, sealed: &[u8]) -> Result<(), CallError> {
        let sealed = Bytes::copy_from_slice(sealed);
        lock(&self.own).handle_publish(name, sealed.clone());
        self.write(name, sealed).await?;
        let older = |other: &EntryName| other.same_node(name) && other.version() < name.version();
        let mut outdated = lock(&self.own).names();
        outdated.extend(lock(&self.listed).iter().map(|entry| entry.name.clone()));
        outdated.retain(older);
        outdated.sort();
        outdated.dedup();
        for older in &outdated {
            self.remove(older).await?;
        }
        Ok(())
    }

    async fn remove(&self, name: &EntryName) -> Result<(), CallError> {
        self.within(self.backend.delete(name)).await?;
        lock(&self.own).handle_removed(name);
        lock(&self.listed).retain(|entry| entry.name != *name);
        Ok(())
    }

    async fn list_now(&self) -> Result<Vec<Entry>, CallError> {
        let ours = format!("{OURS}{}~", self.session);
        let listing = self.within(self.backend.list(&ours)).await?;
        let live = listing.live(&self.session);
        lock(&self.own).handle_list(&live);
        lock(&self.listed).clone_from(&live);
        Ok(live)
    }

    async fn renew_now(&self, name: &EntryName) -> Result<bool, CallError> {
        let due = lock(&self.own).due(name, now());
        match due {
            Due::Lost => Ok(false),
            Due::Fresh => Ok(true),
            Due::Write(sealed) => self.write(name, sealed).await.map(|()| true),
        }
    }

    /// Everything of ours goes: that of a call whose answer was lost, too.
    async fn withdraw_now(&self, name: &EntryName) -> Result<(), CallError> {
        let mut names = lock(&self.own).names();
        names.retain(|other| other != name);
        names.insert(0, name.clone());
        for name in &names {
            self.remove(name).await?;
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str, error: &CallError) -> RendezvousError {
        RendezvousError {
            doing,
            what: self.describe(),
            source: io::Error::other(StoreRefusal::of(error, self.backend.kind)),
        }
    }
}

impl Rendezvous for Store {
    fn publish<'a>(
        &'a self,
        name: &'a EntryName,
        sealed: &'a [u8],
    ) -> BoxFuture<'a, Result<(), RendezvousError>> {
        Box::pin(async move {
            let published = self.publish_now(name, sealed).await;
            published.map_err(|error| self.failed("publish in", &error))
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Entry>, RendezvousError>> {
        Box::pin(async move {
            let listed = self.list_now().await;
            self.end_turn();
            listed.map_err(|error| self.failed("list", &error))
        })
    }

    fn fetch<'a>(
        &'a self,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, RendezvousError>> {
        Box::pin(async move {
            let fetched = self.within(self.backend.get(&entry.name)).await;
            fetched.map_err(|error| self.failed("read an entry of", &error))
        })
    }

    fn renew<'a>(&'a self, name: &'a EntryName) -> BoxFuture<'a, Result<bool, RendezvousError>> {
        Box::pin(async move {
            let renewed = self.renew_now(name).await;
            renewed.map_err(|error| self.failed("renew an entry of", &error))
        })
    }

    fn withdraw<'a>(&'a self, name: &'a EntryName) -> BoxFuture<'a, Result<(), RendezvousError>> {
        Box::pin(async move {
            let withdrawn = self.withdraw_now(name).await;
            withdrawn.map_err(|error| self.failed("remove an entry of", &error))
        })
    }

    fn poll_interval(&self, quick: bool) -> Duration {
        let polls = self.polls.load(Ordering::Relaxed);
        let rest = lock(&self.pause).rest(now()).unwrap_or_default();
        pace(quick, polls).mul_f64(0.8 + 0.4 * jitter()).max(rest)
    }

    fn describe(&self) -> String {
        self.backend.place.clone()
    }
}

fn pace(quick: bool, polls: u32) -> Duration {
    if quick {
        (QUICK + QUICK / 4 * polls.min(100)).min(QUICK_LATER)
    } else {
        CALM
    }
}

/// What every entry's name begins with.
const OURS: &str = "distmesh~";

/// A build must not wait longer for its first look; the polls go on with it.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Three tries of a server that answers, or two of one that does not.
const CALL: Duration = Duration::from_secs(25);

/// While somebody is missing: soon at first, when everybody starts at once, then at a pace that costs a node half a cent an hour at
/// S3's prices.
const QUICK: Duration = Duration::from_secs(1);
const QUICK_LATER: Duration = Duration::from_secs(5);

/// While all is well, links themselves tell what changes: this is for those who come late.
const CALM: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_quick_at_first_and_seldom_when_all_is_well() {
        let secs = |quick, polls| pace(quick, polls).as_secs_f32();
        assert_eq!((secs(true, 0), secs(true, 4)), (1.0, 2.0));
        assert_eq!((secs(true, 99), secs(true, u32::MAX)), (5.0, 5.0));
        assert_eq!(secs(false, 0), 30.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_out_of_reach_does_not_end_the_start_and_is_asked_ever_less_often() {
        let address = "http://127.0.0.1:1/mesh".parse().unwrap();
        let store = Store::new(&address, "s".parse().unwrap(), std::iter::empty()).unwrap();
        store.first_look().await.unwrap();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let error = store.list().await.unwrap_err().to_string();
            assert!(
                error.starts_with(
                    "cannot list the WebDAV collection http://127.0.0.1:1/mesh: it is out of reach: "
                ),
                "{error}"
            );
            assert!(
                error.ends_with(": check its address and the network"),
                "{error}"
            );
            waits.push(store.poll_interval(true));
        }
        assert!(waits[7] > Duration::from_secs(40), "{waits:?}");
    }
}
