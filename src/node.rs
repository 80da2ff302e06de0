//! What both roles begin with: an identity, a tunnel, and an exchange of descriptors that feeds it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    rendezvous::{self, ExchangeConfig, Notice, Rendezvous},
    session::{
        Descriptor, Identity, IdentityError, NodeName, PeerId, Role, SessionKeys, SessionName,
    },
    tunnel::{Tunnel, TunnelConfig, TunnelError, TunnelEvent},
};

/// Everything a node has to be told.
pub struct NodeConfig {
    /// What it is.
    pub role: Role,
    /// Its label.
    pub name: NodeName,
    /// The cluster it belongs to.
    pub session: SessionName,
    /// Keys derived from the session's secret.
    pub keys: Arc<SessionKeys>,
    /// Where descriptors are exchanged.
    pub rendezvous: Arc<dyn Rendezvous>,
    /// Local UDP address; `None` for any port on all addresses.
    pub bind: Option<SocketAddr>,
    /// STUN servers.
    pub stun: Vec<SocketAddr>,
}

/// A node that could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No key could be made.
    #[error("cannot make a fresh identity")]
    Identity(#[from] IdentityError),
    /// The tunnel could not start.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
}

/// Descriptors by whose they are.
pub type Book = BTreeMap<PeerId, Descriptor>;

/// A running node: linked, or trying to be, with every peer it hears of.
pub struct Node {
    /// Streams to peers.
    pub tunnel: Tunnel,
    book: watch::Sender<Book>,
    quick: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    exchange: JoinHandle<()>,
    feeder: JoinHandle<()>,
}

/// What a node reports.
pub struct NodeEvents {
    /// Links and streams.
    pub tunnel: mpsc::UnboundedReceiver<TunnelEvent>,
    /// Trouble with the rendezvous.
    pub rendezvous: mpsc::Receiver<Notice>,
}

impl Node {
    /// Binds the socket, publishes the first descriptor and begins to look for peers.
    pub fn start(config: NodeConfig) -> Result<(Self, NodeEvents), NodeError> {
        let (tunnel, tunnel_events) = Tunnel::start(TunnelConfig {
            identity: Identity::generate()?,
            keys: Arc::clone(&config.keys),
            role: config.role,
            name: config.name,
            start_ms: unix_ms(),
            bind: config.bind,
            stun: config.stun,
        })?;
        let (found, descriptors) = mpsc::channel(FOUND_QUEUE);
        let (notices, notice_events) = mpsc::channel(FOUND_QUEUE);
        let (stop, stopped) = watch::channel(false);
        let (quick, quick_wanted) = watch::channel(true);
        let exchange = tokio::spawn(rendezvous::run(ExchangeConfig {
            rendezvous: config.rendezvous,
            keys: config.keys,
            session: config.session,
            me: tunnel.descriptor(),
            found,
            notices,
            quick: quick_wanted,
            stop: stopped,
        }));
        let (book, _) = watch::channel(Book::new());
        let feeder = tokio::spawn(feed(descriptors, tunnel.clone(), book.clone()));
        let node = Self {
            tunnel,
            book,
            quick,
            stop,
            exchange,
            feeder,
        };
        Ok((
            node,
            NodeEvents {
                tunnel: tunnel_events,
                rendezvous: notice_events,
            },
        ))
    }

    /// A peer told us of itself or of somebody else.
    pub fn learn(&self, descriptor: Descriptor) {
        learn(descriptor, &self.tunnel, &self.book);
    }

    /// The peer is gone: nobody needs to hear of it any more.
    pub fn forget(&self, peer: PeerId) {
        self.book
            .send_if_modified(|book| book.remove(&peer).is_some());
    }

    /// Everybody's newest descriptor, but our own.
    pub fn book(&self) -> watch::Receiver<Book> {
        self.book.subscribe()
    }

    /// Polls the rendezvous often (nobody is linked, or somebody is silent) or seldom (all is well).
    pub fn look_quickly(&self, quick: bool) {
        self.quick
            .send_if_modified(|now| std::mem::replace(now, quick) != quick);
    }

    /// Withdraws the descriptor and closes every link, so that peers notice at once.
    pub async fn stop(self, reason: &str) {
        self.stop.send_replace(true);
        self.tunnel.stop(reason).await;
        // The exchange ends by itself once it has withdrawn the descriptor; a rendezvous that does not answer must not
        // keep the process.
        let mut exchange = self.exchange;
        if tokio::time::timeout(WITHDRAW_WAIT, &mut exchange)
            .await
            .is_err()
        {
            exchange.abort();
        }
        self.feeder.abort();
    }
}

async fn feed(
    mut descriptors: mpsc::Receiver<Descriptor>,
    tunnel: Tunnel,
    book: watch::Sender<Book>,
) {
    while let Some(descriptor) = descriptors.recv().await {
        learn(descriptor, &tunnel, &book);
    }
}

fn learn(descriptor: Descriptor, tunnel: &Tunnel, book: &watch::Sender<Book>) {
    let news = book.send_if_modified(|book| {
        let known = book.get(&descriptor.peer).map(Descriptor::version);
        let news = known.is_none_or(|known| known < descriptor.version());
        if news {
            book.insert(descriptor.peer, descriptor.clone());
        }
        news
    });
    if news {
        tunnel.peer_found(descriptor);
    }
}

/// The wall clock, as descriptors and events use it.
pub fn unix_ms() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_millis() as u64)
}

/// Room for a burst of descriptors: the exchange waits when it is full, nothing is lost.
const FOUND_QUEUE: usize = 64;

/// A withdrawal is the removal of a file or two, or as many requests; past this the lease does the same. A store on a busy machine was seen to take two
/// seconds; only one that does not answer at all makes anybody wait for so long.
const WITHDRAW_WAIT: Duration = Duration::from_secs(5);
