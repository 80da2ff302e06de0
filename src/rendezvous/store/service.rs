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
    leases::{Due, Listing, Own},
    trouble::{self, CallError, Kind},
};
use crate::{
    rendezvous::{
        BoxFuture, Entry, EntryName, Rendezvous, RendezvousError,
        ambient::{jitter, lock, now},
        retry::{Backoff, pace},
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
        // What is left over, the next start removes.
        let swept = tokio::time::timeout(FIRST_LOOK, self.sweep(&listing)).await;
        tracing::debug!(whole = swept.is_ok(), "swept");
        Ok(())
    }

    /// Nobody depends on it: who may not, or finds a neighbour quicker, leaves it.
    async fn sweep(&self, listing: &Listing) {
        for name in listing.forgotten() {
            if let Err(error) = self.backend.delete(&name).await {
                let error = trouble::of_store(&error);
                tracing::debug!(%name, %error, "forgotten, and not removed");
                return;
            }
        }
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

    /// Everything of ours that was written goes, by whatever call.
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
        pace(quick, polls, jitter()).max(rest)
    }

    fn describe(&self) -> String {
        self.backend.place.clone()
    }
}

/// What every entry's name begins with.
const OURS: &str = "distmesh~";

/// A build must not wait longer for its first look; the polls go on with it.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Three tries of a server that answers, or two of one that does not.
const CALL: Duration = Duration::from_secs(25);

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A collection with one old name in it, which answers nobody who wants to remove that.
    async fn lists_and_does_not_remove(listener: TcpListener) {
        let list = "<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\"><D:response>\
                    <D:href>/mesh/distmesh~s~worker~ghost~1~1</D:href><D:propstat><D:prop>\
                    <D:getlastmodified>Mon, 01 Jan 2024 00:00:00 GMT</D:getlastmodified>\
                    <D:getcontentlength>1</D:getcontentlength><D:resourcetype/></D:prop>\
                    <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>";
        let answer = format!(
            "HTTP/1.1 207 Multi-Status\r\nDate: Wed, 03 Jan 2024 00:00:00 GMT\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{list}",
            list.len()
        );
        let mut left = Vec::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = client.read(&mut request).await.unwrap();
            if request[..read].starts_with(b"PROPFIND") {
                client.write_all(answer.as_bytes()).await.unwrap();
            } else {
                left.push(client);
            }
        }
    }

    #[tokio::test]
    async fn who_cannot_remove_what_was_forgotten_starts_all_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/mesh", listener.local_addr().unwrap());
        let server = tokio::spawn(lists_and_does_not_remove(listener));
        let store = Store::new(
            &address.parse().unwrap(),
            "s".parse().unwrap(),
            std::iter::empty(),
        );
        let store = store.unwrap();
        let listing = store.backend.list(OURS).await.unwrap();
        assert_eq!(listing.forgotten().len(), 1, "there is something to remove");
        let looked = tokio::time::timeout(CALL, store.first_look()).await;
        assert!(looked.is_ok(), "it waits for each of them");
        looked.unwrap().unwrap();
        assert!(!store.stumbled.load(Ordering::Relaxed));
        server.abort();
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
