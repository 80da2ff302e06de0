//! The worker's role: jobs in, distccd behind.
//!
//! One task owns the role's state and takes one event at a time: a link, a stream from the primary, distccd's health, a
//! compile it logged, a reason to stop. Another keeps the offered compilers true. Each stream is served by a task of its own: a control stream by the offers it
//! sends, a job stream by [`crate::distcc::relay`].

mod compilers;
mod primaries;
mod slots;
mod streams;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::{
    admission::Catalogue,
    distcc::{Daemon, DaemonEvent, Health},
    event::LinkState,
    machine::memory::available_kib,
    node::{Node, NodeConfig, NodeError, NodeEvents},
    rendezvous::Notice,
    session::{PeerId, Role},
    tunnel::TunnelEvent,
    wire::Offer,
};

use compilers::Keeper;
use primaries::Primaries;
use slots::Slots;
use streams::{Desk, PrimarySaid, Talk};

/// Everything a worker has to be told.
pub struct WorkerConfig {
    /// The node.
    pub node: NodeConfig,
    /// The running distccd.
    pub daemon: Daemon,
    /// The compilers of this machine; the daemon has all of them in its list.
    pub compilers: Catalogue,
    /// Compiles at once.
    pub slots: u32,
    /// Stop at the primary's goodbye, unless another one is linked.
    pub once: bool,
    /// Stop when no primary was linked for this long.
    pub wait_primary: Option<Duration>,
    /// Stop after this long, whatever happens.
    pub max_lifetime: Option<Duration>,
    /// Told whether no primary is linked.
    pub lonely: watch::Sender<bool>,
}

/// What a person at the worker is told as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerNews {
    /// A link changed.
    Link {
        /// The primary's label.
        name: String,
        /// Its state now.
        state: LinkState,
        /// Why.
        reason: String,
    },
    /// distccd compiled something; one line.
    Compiled(String),
    /// Something a person should know of.
    Notice(String),
}

/// Serves until there is a reason to stop, and returns it.
pub async fn run(
    config: WorkerConfig,
    news: mpsc::Sender<WorkerNews>,
    stop: watch::Receiver<Option<String>>,
) -> Result<String, NodeError> {
    let (node, events) = Node::start(config.node)?;
    let (offers, _) = watch::channel(Offer {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: 0,
        compilers: Vec::new(),
        targets: BTreeMap::new(),
        looking: false,
        more: false,
    });
    let (said, hears) = mpsc::channel(QUEUE);
    let (wants, wanted) = mpsc::channel(QUEUE);
    let serving = Serving {
        desk: Arc::new(Desk::new(
            offers,
            node.tunnel.descriptor(),
            config.daemon.addr(),
            config.daemon.jobs(),
            Talk { said, wants },
        )),
        slots: Slots::new(config.slots),
        once: config.once,
        wait_primary: config.wait_primary,
        primaries: Primaries::default(),
        lonely_since: Instant::now(),
        look_at_memory: Instant::now(),
        ends: config
            .max_lifetime
            .map(|lifetime| Instant::now() + lifetime),
        max_lifetime: config.max_lifetime,
        lonely: config.lonely,
        news,
    };
    serving.desk.offer_compilers(&config.compilers, false);
    let mut daemon = config.daemon;
    let keeper = Keeper {
        catalogue: config.compilers,
        wanted,
        desk: Arc::clone(&serving.desk),
        allowed: daemon.allowed(),
        news: serving.news.clone(),
        troubles: VecDeque::new(),
        retry: None,
    };
    let keeping = tokio::spawn(keeper.run());
    let reason = serving.run(&node, events, hears, &mut daemon, stop).await;
    keeping.abort();
    node.stop(&reason).await;
    daemon.stop().await;
    Ok(reason)
}

struct Serving {
    desk: Arc<Desk>,
    slots: Slots,
    once: bool,
    wait_primary: Option<Duration>,
    primaries: Primaries,
    lonely_since: Instant,
    look_at_memory: Instant,
    ends: Option<Instant>,
    max_lifetime: Option<Duration>,
    lonely: watch::Sender<bool>,
    news: mpsc::Sender<WorkerNews>,
}

enum Input {
    Tunnel(TunnelEvent),
    Rendezvous(Notice),
    Said(PrimarySaid),
    Daemon(DaemonEvent),
    Health,
    Stop,
    Clock,
}

impl Serving {
    async fn run(
        mut self,
        node: &Node,
        mut events: NodeEvents,
        mut hears: mpsc::Receiver<PrimarySaid>,
        daemon: &mut Daemon,
        mut stop: watch::Receiver<Option<String>>,
    ) -> String {
        let mut health = daemon.health();
        self.handle_health(&health.borrow_and_update().clone());
        let reason = loop {
            let input = tokio::select! {
                Some(event) = events.tunnel.recv() => Input::Tunnel(event),
                Some(notice) = events.rendezvous.recv() => Input::Rendezvous(notice),
                Some(said) = hears.recv() => Input::Said(said),
                Some(event) = daemon.next_event() => Input::Daemon(event),
                Ok(()) = health.changed() => Input::Health,
                _ = stop.changed() => Input::Stop,
                () = sleep_until(self.next_deadline()) => Input::Clock,
            };
            let ended = match input {
                Input::Tunnel(event) => self.handle_tunnel(event),
                Input::Rendezvous(notice) => self.tell(WorkerNews::Notice(notice.to_string())),
                Input::Said(PrimarySaid::Met(descriptor)) => {
                    node.learn(*descriptor);
                    None
                }
                Input::Said(said) => self.handle_said(said),
                Input::Daemon(event) => self.handle_daemon(event),
                Input::Health => self.handle_health(&health.borrow_and_update().clone()),
                Input::Stop => Some(
                    stop.borrow()
                        .clone()
                        .unwrap_or_else(|| "asked to stop".to_owned()),
                ),
                Input::Clock => self.handle_clock(Instant::now()),
            };
            if let Some(reason) = ended {
                break reason;
            }
            let lonely = self.primaries.is_empty();
            node.look_quickly(lonely);
            self.lonely
                .send_if_modified(|now| std::mem::replace(now, lonely) != lonely);
        };
        self.drain(&reason, &mut events).await;
        reason
    }

    fn handle_tunnel(&mut self, event: TunnelEvent) -> Option<String> {
        match event {
            TunnelEvent::Link {
                role: Role::Worker, ..
            } => None,
            TunnelEvent::Link {
                peer,
                name,
                role: Role::Primary,
                state,
                reason,
                ..
            } => {
                self.note_link(peer, name.as_str(), state);
                self.tell(WorkerNews::Link {
                    name: name.to_string(),
                    state,
                    reason,
                })
            }
            TunnelEvent::Incoming { peer, stream } => {
                tokio::spawn(streams::serve(Arc::clone(&self.desk), peer, stream));
                None
            }
            TunnelEvent::PeerClosed { peer, reason } => {
                self.note_link(peer, "", LinkState::Down);
                self.tell(WorkerNews::Notice(format!(
                    "the primary closed the link: {reason}"
                )));
                self.ends_after_goodbye(peer, &reason)
            }
        }
    }

    fn note_link(&mut self, peer: PeerId, name: &str, state: LinkState) {
        let was_lonely = self.primaries.is_empty();
        self.primaries.handle_link(peer, name, state);
        // Of one that cannot be reached there is news again and again.
        if !was_lonely && self.primaries.is_empty() {
            self.lonely_since = Instant::now();
        }
        self.desk.serve(self.primaries.served());
    }

    fn handle_said(&mut self, said: PrimarySaid) -> Option<String> {
        match said {
            PrimarySaid::Met(_) => None,
            PrimarySaid::Goodbye { peer, reason } => self.ends_after_goodbye(peer, &reason),
            PrimarySaid::Nonsense { reason } => self.tell(WorkerNews::Notice(reason)),
            PrimarySaid::JobFailed { reason } => self.tell(WorkerNews::Notice(reason)),
        }
    }

    /// Another primary that is linked is being served, or its turn has come.
    fn ends_after_goodbye(&self, peer: PeerId, reason: &str) -> Option<String> {
        let ends = self.once && !self.primaries.has_other_than(peer);
        ends.then(|| format!("the primary is done: {reason}"))
    }

    fn handle_daemon(&mut self, event: DaemonEvent) -> Option<String> {
        self.tell(match event {
            DaemonEvent::Compiled(compile) => WorkerNews::Compiled(compile.to_string()),
            DaemonEvent::Trouble(text) => WorkerNews::Notice(text),
        })
    }

    /// A worker whose distccd does not compile offers no slots.
    fn handle_health(&mut self, health: &Health) -> Option<String> {
        self.slots.handle_health(*health == Health::Healthy);
        self.offer_slots(Instant::now());
        match health {
            Health::Unhealthy(reason) => self.tell(WorkerNews::Notice(format!(
                "distccd is not healthy: {reason}"
            ))),
            Health::Healthy => None,
        }
    }

    fn offer_slots(&mut self, now: Instant) {
        let available = available_kib();
        let offer = self.slots.offer(self.desk.running(), available);
        self.desk.offer_slots(offer);
        if let Some(scarce) = self.slots.tell(offer, available, now.into_std()) {
            self.tell(WorkerNews::Notice(scarce));
        }
        self.look_at_memory = now + MEMORY_EVERY;
    }

    fn handle_clock(&mut self, now: Instant) -> Option<String> {
        if now >= self.look_at_memory {
            self.offer_slots(now);
        }
        if let (Some(ends), Some(lifetime)) = (self.ends, self.max_lifetime)
            && now >= ends
        {
            return Some(format!(
                "--max-lifetime of {} is over",
                humantime::format_duration(lifetime)
            ));
        }
        let wait = self.wait_primary?;
        let over = self.primaries.is_empty() && now >= self.lonely_since + wait;
        over.then(|| format!("no primary for {}", humantime::format_duration(wait)))
    }

    fn next_deadline(&self) -> Instant {
        let lonely = self
            .wait_primary
            .filter(|_| self.primaries.is_empty())
            .map(|wait| self.lonely_since + wait);
        [self.ends, lonely]
            .into_iter()
            .flatten()
            .fold(self.look_at_memory, Instant::min)
    }

    /// Tells the primaries, and gives the jobs that run the time to end. A job that a primary sends before it has heard of it is
    /// refused at once, so that it does not wait for that.
    async fn drain(&self, reason: &str, events: &mut NodeEvents) {
        self.desk.leave(reason);
        let serving = async {
            while let Some(event) = events.tunnel.recv().await {
                if let TunnelEvent::Incoming { peer, stream } = event {
                    tokio::spawn(streams::serve(Arc::clone(&self.desk), peer, stream));
                }
            }
            std::future::pending::<()>().await;
        };
        let idle = async {
            tokio::select! {
                () = self.desk.idle() => {}
                () = serving => {}
            }
        };
        if tokio::time::timeout(DRAIN, idle).await.is_err() {
            self.tell(WorkerNews::Notice(
                "some jobs did not end in time; the primary does them elsewhere".to_owned(),
            ));
        }
    }

    /// Returns `None`, so that a handler can end with it: telling is no reason to stop.
    fn tell(&self, news: WorkerNews) -> Option<String> {
        // A full queue means that nobody reads; the worker's work must not wait for a terminal.
        drop(self.news.try_send(news));
        None
    }
}

/// Messages wait here while the role handles one.
const QUEUE: usize = 64;

/// A compile needs seconds to take hundreds of MiB.
const MEMORY_EVERY: Duration = Duration::from_secs(1);

/// A compile of half a minute may end; CI runners send SIGKILL some time after SIGTERM, so no longer.
const DRAIN: Duration = Duration::from_secs(30);
