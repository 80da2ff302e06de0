//! The primary's role: workers in, jobs out.
//!
//! One task owns the roster; it takes one event at a time (a link, a worker's message, an identified compiler, a
//! request of the control socket), changes the roster, and tells dispatch and whoever watches. Each live worker has one
//! control stream, read by a task of its own that only forwards what it hears.

mod compilers;
mod conversation;
mod roster;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    admission::{self, Identified},
    dispatch::{BuildDesk, Dispatch, JobStreams},
    event::{BuildFeedback, BuildUpdate, Compiler, Event, LinkChange, WorkerView},
    node::{Node, NodeConfig, NodeError, NodeEvents},
    rendezvous::Notice,
    session::{PeerId, Role},
    tunnel::TunnelEvent,
    wire::ToPrimary,
};

use compilers::Compilers;
use conversation::Heard;
use roster::{LinkNews, Roster};

/// Everything a primary has to be told.
pub struct PrimaryConfig {
    /// The node.
    pub node: NodeConfig,
    /// A private directory: for bodies that do not fit into memory, and to ask compilers in.
    pub scratch: PathBuf,
    /// Compilers to identify at once, so that the first job need not wait.
    pub compilers: Vec<PathBuf>,
}

/// A running primary; [`Primary::stop`] ends it.
pub struct Primary {
    handle: PrimaryHandle,
    task: JoinHandle<()>,
}

/// What others may ask of the primary.
#[derive(Clone)]
pub struct PrimaryHandle {
    asks: mpsc::Sender<Ask>,
    events: broadcast::Sender<Event>,
    incidents: watch::Receiver<VecDeque<Event>>,
    ready: watch::Receiver<u32>,
    dispatch: Dispatch,
}

/// The primary has stopped.
#[derive(Debug, thiserror::Error)]
#[error("the session has ended")]
pub struct Ended;

enum Ask {
    Views(oneshot::Sender<Vec<WorkerView>>),
    Refusals(oneshot::Sender<Vec<Event>>),
    Compiler(Compiler),
    Stop(String),
}

impl Primary {
    /// Starts the node and the role.
    pub fn start(config: PrimaryConfig) -> Result<Self, NodeError> {
        let (node, events) = Node::start(config.node)?;
        let dispatch = Dispatch::new(
            Arc::new(JobStreams(node.tunnel.clone())),
            config.scratch.clone(),
        );
        let (asks, asked) = mpsc::channel(QUEUE);
        let (broadcast, _) = broadcast::channel(EVENT_BACKLOG);
        let (ready_now, ready) = watch::channel(0);
        let (recent, incidents) = watch::channel(VecDeque::new());
        let handle = PrimaryHandle {
            asks,
            events: broadcast.clone(),
            incidents,
            ready,
            dispatch: dispatch.clone(),
        };
        let (inbox, heard) = mpsc::channel(QUEUE);
        let mut desk = Desk {
            roster: Roster::default(),
            dispatch,
            node,
            events: broadcast,
            recent,
            ready: ready_now,
            compilers: Compilers::new(config.scratch, inbox.clone()),
            inbox,
            goodbye: watch::channel(None).0,
            began: now(),
        };
        for names in admission::one_compiler_each(&config.compilers) {
            desk.identify(names, None);
        }
        let task = tokio::spawn(desk.run(events, asked, heard));
        Ok(Self { handle, task })
    }

    /// A handle for others.
    pub fn handle(&self) -> PrimaryHandle {
        self.handle.clone()
    }

    /// Says goodbye to the workers and ends.
    pub async fn stop(self, reason: &str) {
        drop(self.handle.asks.send(Ask::Stop(reason.to_owned())).await);
        drop(self.task.await);
    }
}

impl PrimaryHandle {
    /// The workers, now.
    pub async fn views(&self) -> Result<Vec<WorkerView>, Ended> {
        let (reply, views) = oneshot::channel();
        self.asks.send(Ask::Views(reply)).await.map_err(|_| Ended)?;
        views.await.map_err(|_| Ended)
    }

    /// How many workers can take jobs now; changes are seen on the channel.
    pub fn ready(&self) -> watch::Receiver<u32> {
        self.ready.clone()
    }

    /// What happens from now on. A reader that falls behind loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The last incidents, for who comes late: a wrong secret is noticed before the first build asks.
    pub fn incidents(&self) -> Vec<Event> {
        self.incidents.borrow().iter().rev().cloned().collect()
    }

    /// Which workers are refused for which compilers now, for who comes late.
    pub async fn refusals(&self) -> Result<Vec<Event>, Ended> {
        let (reply, refusals) = oneshot::channel();
        let ask = Ask::Refusals(reply);
        self.asks.send(ask).await.map_err(|_| Ended)?;
        refusals.await.map_err(|_| Ended)
    }

    /// Opens the ports of one build.
    pub fn open_build(&self, updates: mpsc::Sender<BuildUpdate>) -> io::Result<BuildDesk> {
        self.dispatch.open_build(updates)
    }

    /// Passes on what a build says.
    pub async fn feedback(&self, desk: &BuildDesk, feedback: BuildFeedback) {
        if let BuildFeedback::CompilerSeen { compiler } = &feedback {
            drop(self.asks.send(Ask::Compiler(compiler.clone())).await);
        }
        desk.feedback(feedback);
    }
}

/// The owner of the roster.
struct Desk {
    roster: Roster,
    dispatch: Dispatch,
    node: Node,
    events: broadcast::Sender<Event>,
    recent: watch::Sender<VecDeque<Event>>,
    ready: watch::Sender<u32>,
    inbox: mpsc::Sender<Heard>,
    goodbye: watch::Sender<Option<String>>,
    compilers: Compilers,
    began: Instant,
}

enum Input {
    Tunnel(TunnelEvent),
    Notice(Notice),
    Heard(Heard),
    Ask(Ask),
}

impl Desk {
    async fn run(
        mut self,
        mut node: NodeEvents,
        mut asked: mpsc::Receiver<Ask>,
        mut heard: mpsc::Receiver<Heard>,
    ) {
        loop {
            let input = tokio::select! {
                Some(event) = node.tunnel.recv() => Input::Tunnel(event),
                Some(notice) = node.rendezvous.recv() => Input::Notice(notice),
                Some(heard) = heard.recv() => Input::Heard(heard),
                Some(ask) = asked.recv() => Input::Ask(ask),
                else => break,
            };
            match input {
                Input::Tunnel(event) => self.handle_tunnel(event),
                Input::Notice(notice) => self.incident(notice.to_string()),
                Input::Heard(heard) => self.handle_heard(heard),
                Input::Ask(Ask::Views(reply)) => drop(reply.send(self.views())),
                Input::Ask(Ask::Refusals(reply)) => {
                    let refusals = self.roster.refusals().map(Event::Admission);
                    drop(reply.send(refusals.collect()));
                }
                Input::Ask(Ask::Compiler(Compiler { path, target })) => {
                    self.identify(vec![path.into()], target);
                }
                Input::Ask(Ask::Stop(reason)) => {
                    self.goodbye.send_replace(Some(reason));
                    break;
                }
            }
            self.tell_ready();
            self.node.look_quickly(self.roster.wants_news());
        }
        let reason = self.goodbye.borrow().clone().unwrap_or_default();
        // Conversations write their goodbye and wait until it was read; the tunnel then closes what is left. Nobody reads
        // the inbox any more, so one of them may be stuck: hence the limit.
        drop(heard);
        drop(tokio::time::timeout(GOODBYE, self.goodbye.closed()).await);
        self.node.stop(&reason).await;
    }

    fn handle_tunnel(&mut self, event: TunnelEvent) {
        match event {
            TunnelEvent::Link {
                role: Role::Primary,
                ..
            }
            | TunnelEvent::Incoming { .. } => {}
            TunnelEvent::Link {
                peer,
                name,
                role: Role::Worker,
                state,
                reason,
                route,
                nat,
                rtt,
            } => {
                self.say(Event::Link(LinkChange {
                    peer: name.to_string(),
                    state,
                    reason: reason.clone(),
                }));
                let since_start_ms = now().duration_since(self.began).as_millis() as u64;
                let rtt_us = rtt.map(|rtt| rtt.as_micros() as u64);
                if self.roster.handle_link(LinkNews {
                    peer,
                    name,
                    state,
                    rtt_us,
                    route,
                    nat,
                    reason,
                    since_start_ms,
                }) {
                    self.converse(peer);
                }
                self.tell_dispatch(peer);
            }
            TunnelEvent::PeerClosed { peer, .. } => {
                self.node.forget(peer);
                self.roster.handle_gone(peer);
                self.tell_dispatch(peer);
                self.dispatch.remove_worker(peer);
            }
        }
    }

    fn handle_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Message {
                peer,
                message: ToPrimary::Offer(offer),
            } => {
                self.roster.handle_offer(peer, offer);
                self.say_admissions();
                self.tell_dispatch(peer);
            }
            Heard::Message {
                peer,
                message: ToPrimary::Moved(descriptor),
            } => {
                // A worker speaks for itself alone.
                if descriptor.peer == peer {
                    self.node.learn(*descriptor);
                }
            }
            Heard::Message {
                peer,
                message: ToPrimary::Busy { primary },
            } => {
                self.roster.handle_busy(peer);
                self.tell_dispatch(peer);
                self.say_worker(
                    peer,
                    &format!(
                        "serves another primary of this session, {primary}, and comes when that one is gone; \
                         for two builds at once use `distmesh up` or another --session"
                    ),
                );
            }
            Heard::Message {
                peer,
                message: ToPrimary::Leaving { reason },
            } => {
                self.roster.handle_leaving(peer);
                self.tell_dispatch(peer);
                self.say_worker(peer, &format!("is leaving: {reason}"));
            }
            Heard::Message {
                message: ToPrimary::Unknown,
                ..
            } => {}
            Heard::Broken { peer, reason } => self.say_worker(peer, &reason),
            Heard::Asked { compiler, answer } => self.handle_answer(compiler, answer),
        }
    }

    fn tell_ready(&mut self) {
        let now = if self.compilers.are_known() {
            self.roster.ready()
        } else {
            0
        };
        self.ready
            .send_if_modified(|ready| std::mem::replace(ready, now) != now);
    }

    fn converse(&self, peer: PeerId) {
        let conversation = conversation::Conversation {
            peer,
            tunnel: self.node.tunnel.clone(),
            inbox: self.inbox.clone(),
            me: self.node.tunnel.descriptor(),
            book: self.node.book(),
            wants: self.compilers.wants(),
            goodbye: self.goodbye.subscribe(),
        };
        tokio::spawn(conversation.run());
    }

    fn identify(&mut self, names: Vec<PathBuf>, target: Option<String>) {
        for changed in self.compilers.ask(names, target) {
            self.roster.forget_compiler(&changed);
            self.tell_dispatch_all();
        }
    }

    fn handle_answer(&mut self, compiler: Compiler, answer: Result<Identified, String>) {
        self.compilers
            .handle_answer(&compiler, answer.as_ref().ok());
        match answer {
            Ok(identified) => {
                self.roster.handle_compiler(compiler, identified.compiler);
                self.say_admissions();
                self.tell_dispatch_all();
            }
            Err(why) => self.incident(format!("{compiler} stays local: {why}")),
        }
    }

    fn views(&self) -> Vec<WorkerView> {
        let answered: BTreeMap<String, u64> = self
            .dispatch
            .worker_views()
            .into_iter()
            .map(|view| (view.name, view.jobs))
            .collect();
        self.roster
            .views(|name| answered.get(name).copied().unwrap_or_default())
    }

    fn tell_dispatch_all(&self) {
        for peer in self.roster.peers() {
            self.tell_dispatch(peer);
        }
    }

    fn tell_dispatch(&self, peer: PeerId) {
        let Some(update) = self.roster.update(peer) else {
            return;
        };
        let name = update.name.to_string();
        if let Err(error) = self.dispatch.update_worker(update) {
            self.incident(format!(
                "worker {name} gets no jobs: no port can be opened for it ({error})"
            ));
        }
    }

    fn say_admissions(&mut self) {
        for admission in self.roster.news() {
            self.say(Event::Admission(admission));
        }
    }

    fn say_worker(&self, peer: PeerId, what: &str) {
        let name = self
            .roster
            .update(peer)
            .map_or_else(|| peer.to_string(), |worker| worker.name.to_string());
        self.incident(format!("worker {name} {what}"));
    }

    fn incident(&self, text: String) {
        let event = Event::Incident { text };
        self.recent.send_modify(|recent| {
            recent.truncate(RECENT - 1);
            recent.push_front(event.clone());
        });
        self.say(event);
    }

    fn say(&self, event: Event) {
        // Nobody listening is no error: the session runs in the background too.
        drop(self.events.send(event));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a shell: the clock is read here and passed on"
)]
fn now() -> Instant {
    Instant::now()
}

/// Messages wait here while the desk handles one; senders wait when it is full.
const QUEUE: usize = 64;

/// Enough to see what is wrong.
const RECENT: usize = 16;

/// A watcher that is this far behind loses events: it is shown the present, not the past.
const EVENT_BACKLOG: usize = 256;

/// Two round trips of a slow path; a worker that hears nothing finds out by the link's silence.
const GOODBYE: Duration = Duration::from_secs(1);
