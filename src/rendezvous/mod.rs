//! Where descriptors are exchanged.
//!
//! A **rendezvous** is anything in which small named **entries** can be published, listed and fetched. It may be slow,
//! eventually consistent and hostile: entries are sealed and authenticated before they come here, their names are only
//! hints, the newest valid one of a node wins, and junk is ignored and counted.
//!
//! - [`Rendezvous`] is the trait; [`Directory`] keeps entries as files of a directory that all nodes can reach.
//! - [`github::GitHub`] keeps them as artifacts of a GitHub Actions run, [`store::Store`] as objects of a bucket or of a WebDAV
//!   collection.
//! - An entry lives on a **lease** that its node renews; one that is not renewed is passed over, and removed in the end.
//! - [`Exchange`] decides what is worth fetching and whom it concerns: pure. [`run`] is its shell.

mod ambient;
mod directory;
mod entry;
mod exchange;
pub mod github;
mod poller;
mod retry;
pub mod store;

use std::{fmt, future::Future, pin::Pin, time::Duration};

pub use directory::Directory;
pub use entry::{Entry, EntryName, InvalidEntryName};
pub use exchange::{Exchange, Opened};
pub use poller::{ExchangeConfig, Notice, run};

/// A boxed future, so that the trait can be used as an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Publishes, lists and fetches entries.
pub trait Rendezvous: Send + Sync + fmt::Debug {
    /// Publishes an entry, and removes older ones of the same node.
    fn publish<'a>(
        &'a self,
        name: &'a EntryName,
        sealed: &'a [u8],
    ) -> BoxFuture<'a, Result<(), RendezvousError>>;

    /// The entries whose lease has not run out, this node's own among them.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Entry>, RendezvousError>>;

    /// An entry's bytes; `None` when it has gone since it was listed.
    fn fetch<'a>(
        &'a self,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, RendezvousError>>;

    /// Renews an entry's lease; `false` when the entry is not there any more.
    fn renew<'a>(&'a self, name: &'a EntryName) -> BoxFuture<'a, Result<bool, RendezvousError>>;

    /// Removes an entry.
    fn withdraw<'a>(&'a self, name: &'a EntryName) -> BoxFuture<'a, Result<(), RendezvousError>>;

    /// How long to wait between two polls: when somebody is missing or silent, and when all is well.
    fn poll_interval(&self, quick: bool) -> Duration;

    /// How long it may fail before a person is told of it.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// The rendezvous in words, for a person.
    fn describe(&self) -> String;
}

/// A rendezvous that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {what}: {source}")]
pub struct RendezvousError {
    /// What was tried: `publish in`, `list`, …
    pub doing: &'static str,
    /// With what.
    pub what: String,
    /// Why it failed.
    pub source: std::io::Error,
}
