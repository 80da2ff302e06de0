//! The loop that publishes, renews, lists and fetches.

use std::{collections::BTreeSet, fmt, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{Entry, EntryName, Exchange, Opened, Rendezvous, RendezvousError};
use crate::{
    machine::clock::in_step,
    session::{self, Descriptor, OpenError, SessionKeys, SessionName},
};

/// What [`run`] works with.
pub struct ExchangeConfig {
    /// Where descriptors are exchanged.
    pub rendezvous: Arc<dyn Rendezvous>,
    /// Keys of the session.
    pub keys: Arc<SessionKeys>,
    /// The session.
    pub session: SessionName,
    /// Our own descriptor; each change is published at once.
    pub me: watch::Receiver<Descriptor>,
    /// Takes the peers' descriptors.
    pub found: mpsc::Sender<Descriptor>,
    /// Takes what a person should know.
    pub notices: mpsc::Sender<Notice>,
    /// True while somebody is missing or silent.
    pub quick: watch::Receiver<bool>,
    /// Becomes true, or is dropped, when the node ends.
    pub stop: watch::Receiver<bool>,
}

/// What a person should know of the rendezvous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Somebody uses this rendezvous and session with another secret.
    OtherSecret {
        /// The node's label, as its entry's name says.
        node: String,
    },
    /// Something lies there that is no descriptor.
    Junk {
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        error: OpenError,
    },
    /// There is more that does not open; it is told no longer.
    More,
    /// The rendezvous does not work; it is tried again.
    Trouble(String),
    /// It works again.
    Recovered,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherSecret { node } => write!(
                f,
                "{node} published a descriptor that this secret does not open: give every machine the same secret \
                 (--secret-file or ENCRYPTION_KEY)"
            ),
            Self::Junk { entry, error } => write!(f, "ignored {entry}: {error}"),
            Self::More => f.write_str(
                "more lies in the rendezvous that this secret does not open: it is ignored without a word from now on",
            ),
            Self::Trouble(error) => write!(f, "{error}; trying again"),
            Self::Recovered => f.write_str("the rendezvous works again"),
        }
    }
}

/// Publishes our descriptor and finds those of others until told to stop; then withdraws.
///
/// No error ends it: whatever fails is said once, and tried again.
pub async fn run(config: ExchangeConfig) {
    let mut me = config.me.clone();
    let mut quick = config.quick.clone();
    let mut stop = config.stop.clone();
    let exchange = Exchange::new(config.session.clone(), me.borrow().peer);
    let mut poller = Poller {
        config,
        exchange,
        published: None,
        tried: None,
        renewed: Instant::now(),
        refused: 0,
        failing: None,
        trouble: None,
    };
    while !*stop.borrow() {
        let current = me.borrow_and_update().clone();
        let published = {
            let mut publishing = pin!(poller.publish_or_renew(&current));
            tokio::select! {
                published = &mut publishing => published,
                _ = stop.changed() => {
                    // What is on its way there could arrive after its withdrawal.
                    drop(timeout(LANDS, publishing).await);
                    break;
                }
            }
        };
        // A service that is slow to answer keeps nobody from leaving.
        tokio::select! {
            looked = poller.look() => poller.judge(published.and(looked)).await,
            _ = stop.changed() => break,
        }
        let interval = poller
            .config
            .rendezvous
            .poll_interval(*quick.borrow_and_update());
        tokio::select! {
            () = sleep_until(in_step((Instant::now() + interval).into_std()).into()) => {}
            Ok(()) = me.changed() => {}
            Ok(()) = quick.changed() => {}
            _ = stop.changed() => break,
        }
    }
    poller.withdraw().await;
}

struct Poller {
    config: ExchangeConfig,
    exchange: Exchange,
    published: Option<EntryName>,
    /// What was last to be published: it may lie there although nobody has said so.
    tried: Option<EntryName>,
    renewed: Instant,
    /// Entries that did not open, and of which a person was told.
    refused: u32,
    /// Since when it fails, and what a person was told of it.
    failing: Option<Instant>,
    trouble: Option<String>,
}

impl Poller {
    /// Tells a person how a turn went, if that is news.
    async fn judge(&mut self, outcome: Result<(), RendezvousError>) {
        if outcome.is_ok() {
            self.failing = None;
        }
        match outcome {
            Ok(()) if self.trouble.take().is_some() => self.tell(Notice::Recovered).await,
            Ok(()) => {}
            Err(error) => self.complain(error.to_string()).await,
        }
    }

    async fn publish_or_renew(&mut self, me: &Descriptor) -> Result<(), RendezvousError> {
        let name = EntryName::of(me, &self.config.session);
        let published = self.published.as_ref() == Some(&name);
        if published && self.renewed.elapsed() < RENEW {
            return Ok(());
        }
        // An entry that cannot be renewed was removed by somebody: it is published again.
        if !published || !self.config.rendezvous.renew(&name).await? {
            self.tried = Some(name.clone());
            self.publish(me, &name).await?;
        }
        self.published = Some(name);
        self.renewed = Instant::now();
        Ok(())
    }

    async fn publish(&self, me: &Descriptor, name: &EntryName) -> Result<(), RendezvousError> {
        let rendezvous = &self.config.rendezvous;
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).map_err(|error| RendezvousError {
            doing: "seal the descriptor for",
            what: rendezvous.describe(),
            source: std::io::Error::other(error),
        })?;
        let sealed = session::seal(me, &self.config.keys, &self.config.session, nonce);
        rendezvous.publish(name, &sealed).await
    }

    /// Fetches what is new, some at once; an entry that cannot be fetched keeps nobody from the others.
    async fn look(&mut self) -> Result<(), RendezvousError> {
        let listed = self.config.rendezvous.list().await?;
        let wanted = self.exchange.wanted(&listed, self.published.as_ref());
        let mut outcome = Ok(());
        for some in wanted.chunks(AT_ONCE) {
            let mut fetching = JoinSet::new();
            for entry in some.iter().cloned() {
                let rendezvous = Arc::clone(&self.config.rendezvous);
                fetching.spawn(async move { (rendezvous.fetch(&entry).await, entry) });
            }
            while let Some(fetched) = fetching.join_next().await {
                match fetched {
                    Ok((Ok(Some(sealed)), entry)) => self.open(entry, &sealed).await,
                    Ok((Ok(None), _)) | Err(_) => {}
                    Ok((Err(error), _)) => outcome = Err(error),
                }
            }
        }
        outcome
    }

    async fn open(&mut self, entry: Entry, sealed: &[u8]) {
        let opened = session::open(sealed, &self.config.keys, &self.config.session);
        let name = entry.name.clone();
        match self.exchange.handle_opened(entry, opened) {
            // The node ends when nobody takes descriptors any more; `stop` says so.
            Opened::Peer(descriptor) => drop(self.config.found.send(*descriptor).await),
            Opened::Nothing | Opened::Refused(OpenError::Truncated) => {}
            Opened::Refused(OpenError::Locked) => {
                let node = format!("{} {}", name.role, name.node);
                self.tell_refused(Notice::OtherSecret { node }).await;
            }
            Opened::Refused(error) => {
                let entry = name.to_string();
                self.tell_refused(Notice::Junk { entry, error }).await;
            }
        }
    }

    async fn withdraw(&mut self) {
        let names = [self.published.take(), self.tried.take()];
        let names: BTreeSet<EntryName> = names.into_iter().flatten().collect();
        for name in names {
            // The lease does what a failed withdrawal leaves undone.
            drop(self.config.rendezvous.withdraw(&name).await);
        }
    }

    async fn complain(&mut self, error: String) {
        let since = *self.failing.get_or_insert_with(Instant::now);
        let lasts = since.elapsed() >= self.config.rendezvous.patience();
        if lasts && self.trouble.as_ref() != Some(&error) {
            self.trouble = Some(error.clone());
            self.tell(Notice::Trouble(error)).await;
        }
    }

    /// Whoever can write there may write much.
    async fn tell_refused(&mut self, notice: Notice) {
        self.refused = self.refused.saturating_add(1);
        match self.refused {
            ..MOST_REFUSED => self.tell(notice).await,
            MOST_REFUSED => self.tell(Notice::More).await,
            _ => {}
        }
    }

    async fn tell(&self, notice: Notice) {
        // Nobody reads notices while the node ends.
        drop(self.config.notices.send(notice).await);
    }
}

/// Twenty entries in three round trips, and no burst that a service would take amiss.
const AT_ONCE: usize = 8;

/// A store on a busy machine was seen to take so long to write; one that takes longer keeps nobody from leaving.
const LANDS: Duration = Duration::from_secs(2);

/// More than a run has runners.
const MOST_REFUSED: u32 = 64;

/// A sixth of a directory's lease.
const RENEW: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        rendezvous::{BoxFuture, Directory},
        session::{NatClass, PeerId, Role, Secret},
    };

    struct Node {
        me: watch::Sender<Descriptor>,
        stop: watch::Sender<bool>,
        found: mpsc::Receiver<Descriptor>,
        notices: mpsc::Receiver<Notice>,
        task: tokio::task::JoinHandle<()>,
    }

    fn descriptor(name: &str, key: u8, seq: u64) -> Descriptor {
        let role = if key == 0 {
            Role::Primary
        } else {
            Role::Worker
        };
        let name = name.parse().unwrap();
        let nat = NatClass::Unknown;
        Descriptor {
            role,
            name,
            start_ms: 1,
            seq,
            peer: PeerId([key; 32]),
            stream_key: [0; 32],
            candidates: vec![],
            nat,
        }
    }

    fn start(dir: &Path, secret: &str, descriptor: Descriptor) -> Node {
        start_at(Arc::new(Directory::open(dir).unwrap()), secret, descriptor)
    }

    fn start_at(rendezvous: Arc<dyn Rendezvous>, secret: &str, descriptor: Descriptor) -> Node {
        let session: SessionName = "s".parse().unwrap();
        let keys = SessionKeys::derive(&Secret::new(secret.into()).unwrap(), &session).unwrap();
        let (me, my) = watch::channel(descriptor);
        let (stop, stopped) = watch::channel(false);
        let (found_tx, found) = mpsc::channel(16);
        let (notices_tx, notices) = mpsc::channel(16);
        let task = tokio::spawn(run(ExchangeConfig {
            rendezvous,
            keys: Arc::new(keys),
            session,
            me: my,
            found: found_tx,
            notices: notices_tx,
            quick: watch::channel(true).1,
            stop: stopped,
        }));
        Node {
            me,
            stop,
            found,
            notices,
            task,
        }
    }

    #[tokio::test]
    async fn two_nodes_find_each_other_and_hear_of_changes() {
        let tmp = tempfile::tempdir().unwrap();
        let mut primary = start(tmp.path(), "one secret for all", descriptor("p", 0, 1));
        let mut worker = start(tmp.path(), "one secret for all", descriptor("w", 1, 1));
        assert_eq!(primary.found.recv().await, Some(descriptor("w", 1, 1)));
        assert_eq!(worker.found.recv().await, Some(descriptor("p", 0, 1)));
        worker.me.send(descriptor("w", 1, 2)).unwrap();
        assert_eq!(primary.found.recv().await, Some(descriptor("w", 1, 2)));
        for node in [primary, worker] {
            node.stop.send(true).unwrap();
            node.task.await.unwrap();
        }
        assert_eq!(
            std::fs::read_dir(tmp.path()).unwrap().count(),
            0,
            "both withdrew"
        );
    }

    /// A directory that is written by somebody else, who takes his time, and answers later still if at all.
    #[derive(Debug)]
    struct Slow {
        directory: Arc<Directory>,
        answers: bool,
    }

    impl Rendezvous for Slow {
        fn publish<'a>(
            &'a self,
            name: &'a EntryName,
            sealed: &'a [u8],
        ) -> BoxFuture<'a, Result<(), RendezvousError>> {
            let directory = Arc::clone(&self.directory);
            let (name, sealed) = (name.clone(), sealed.to_owned());
            let written = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                directory.publish(&name, &sealed).await
            });
            Box::pin(async move {
                let published = written.await.unwrap();
                if !self.answers {
                    std::future::pending::<()>().await;
                }
                published
            })
        }

        fn list(&self) -> BoxFuture<'_, Result<Vec<Entry>, RendezvousError>> {
            self.directory.list()
        }

        fn fetch<'a>(
            &'a self,
            entry: &'a Entry,
        ) -> BoxFuture<'a, Result<Option<Vec<u8>>, RendezvousError>> {
            self.directory.fetch(entry)
        }

        fn renew<'a>(
            &'a self,
            name: &'a EntryName,
        ) -> BoxFuture<'a, Result<bool, RendezvousError>> {
            self.directory.renew(name)
        }

        fn withdraw<'a>(
            &'a self,
            name: &'a EntryName,
        ) -> BoxFuture<'a, Result<(), RendezvousError>> {
            self.directory.withdraw(name)
        }

        fn poll_interval(&self, quick: bool) -> Duration {
            self.directory.poll_interval(quick)
        }

        fn describe(&self) -> String {
            self.directory.describe()
        }
    }

    #[tokio::test]
    async fn what_is_being_published_when_the_node_ends_is_withdrawn_too() {
        for answers in [true, false] {
            let tmp = tempfile::tempdir().unwrap();
            let directory = Arc::new(Directory::open(tmp.path()).unwrap());
            let slow = Arc::new(Slow { directory, answers });
            let node = start_at(slow, "one", descriptor("w", 1, 1));
            tokio::time::sleep(Duration::from_millis(50)).await;
            node.stop.send(true).unwrap();
            node.task.await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            let left = std::fs::read_dir(tmp.path()).unwrap().count();
            assert_eq!(left, 0, "answers: {answers}");
        }
    }

    #[tokio::test]
    async fn both_sides_are_told_of_different_secrets_once() {
        let tmp = tempfile::tempdir().unwrap();
        let mut primary = start(tmp.path(), "one", descriptor("p", 0, 1));
        let mut worker = start(tmp.path(), "two", descriptor("w", 1, 1));
        assert_eq!(
            primary.notices.recv().await,
            Some(Notice::OtherSecret {
                node: "worker w".into()
            })
        );
        assert_eq!(
            worker.notices.recv().await,
            Some(Notice::OtherSecret {
                node: "primary p".into()
            })
        );
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(
            primary.notices.try_recv().is_err(),
            "said once, not at every poll"
        );
        assert!(primary.found.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_stranger_who_writes_much_is_told_of_only_so_often() {
        let tmp = tempfile::tempdir().unwrap();
        let mut node = start(tmp.path(), "one", descriptor("p", 0, 1));
        let session: SessionName = "s".parse().unwrap();
        let keys = SessionKeys::derive(&Secret::new("two".into()).unwrap(), &session).unwrap();
        let directory = Directory::open(tmp.path()).unwrap();
        for n in 0..MOST_REFUSED as u8 + 8 {
            let stranger = descriptor(&format!("w{n}"), 1 + n, 1);
            let sealed = session::seal(&stranger, &keys, &session, [n; 24]);
            let name = EntryName::of(&stranger, &session);
            directory.publish(&name, &sealed).await.unwrap();
        }
        for _ in 1..MOST_REFUSED {
            let notice = node.notices.recv().await;
            assert!(
                matches!(notice, Some(Notice::OtherSecret { .. })),
                "{notice:?}"
            );
        }
        assert_eq!(node.notices.recv().await, Some(Notice::More));
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(node.notices.try_recv().is_err(), "and no more");
    }

    #[tokio::test]
    async fn an_entry_that_somebody_removed_is_found_out_and_a_broken_directory_is_survived() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("d");
        let mut node = start(&dir, "one", descriptor("w", 1, 1));
        while std::fs::read_dir(&dir).unwrap().next().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::fs::rename(&dir, tmp.path().join("away")).unwrap();
        assert!(matches!(
            node.notices.recv().await,
            Some(Notice::Trouble(_))
        ));
        std::fs::rename(tmp.path().join("away"), &dir).unwrap();
        assert_eq!(node.notices.recv().await, Some(Notice::Recovered));
    }
}
