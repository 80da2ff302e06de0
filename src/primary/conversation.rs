//! The control stream to one worker, from the primary's side.

use std::collections::BTreeSet;

use tokio::{
    io::{AsyncWriteExt, BufReader},
    sync::{mpsc, watch},
};

use crate::{
    admission::{CompilerIdentity, Identified},
    event::Compiler,
    node::Book,
    session::{Descriptor, PeerId},
    tunnel::Tunnel,
    wire::{StreamKind, ToPrimary, ToWorker, next_message},
};

/// What reaches the desk from tasks of its own.
#[derive(Debug)]
pub(super) enum Heard {
    /// A worker said something.
    Message { peer: PeerId, message: ToPrimary },
    /// A worker said something that makes no sense; its conversation is over.
    Broken { peer: PeerId, reason: String },
    /// One of our compilers said who it is, or there is a reason why not.
    Asked {
        compiler: Compiler,
        answer: Result<Identified, String>,
    },
}

/// What workers' compilers should be.
#[derive(Clone, Debug, Default)]
pub(super) struct Wants {
    /// Like one of ours each.
    pub(super) compilers: Vec<CompilerIdentity>,
    /// For the targets that builds name.
    pub(super) targets: BTreeSet<String>,
}

/// One worker's control stream.
pub(super) struct Conversation {
    pub(super) peer: PeerId,
    pub(super) tunnel: Tunnel,
    pub(super) inbox: mpsc::Sender<Heard>,
    /// Our own descriptor, and everybody else's: the worker hears of each, once a version.
    pub(super) me: watch::Receiver<Descriptor>,
    pub(super) book: watch::Receiver<Book>,
    /// The worker hears of each once.
    pub(super) wants: watch::Receiver<Wants>,
    pub(super) goodbye: watch::Receiver<Option<String>>,
}

impl Conversation {
    /// Talks until the link breaks or the session ends.
    pub(super) async fn run(mut self) {
        // A broken stream is the link's news, told by the tunnel; only nonsense is said here.
        if let Err(Nonsense(reason)) = self.talk().await {
            drop(
                self.inbox
                    .send(Heard::Broken {
                        peer: self.peer,
                        reason,
                    })
                    .await,
            );
        }
    }

    async fn talk(&mut self) -> Result<(), Nonsense> {
        let Ok(mut stream) = self.tunnel.open(self.peer).await else {
            return Ok(());
        };
        let hello = ToWorker::Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut opening = vec![StreamKind::Control as u8];
        opening.extend(line(&hello));
        if stream.send.write_all(&opening).await.is_err() {
            return Ok(());
        }
        let (mut lines, mut begun) = (BufReader::new(stream.recv), Vec::new());
        let mut told = Book::new();
        let mut named = Wants::default();
        self.book.mark_changed();
        self.wants.mark_changed();
        loop {
            tokio::select! {
                Ok(()) = self.book.changed() => {
                    let news = news(&self.book.borrow_and_update(), self.peer, &mut told);
                    if stream.send.write_all(&news).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(()) = self.wants.changed() => {
                    let news = new_wants(&self.wants.borrow_and_update(), &mut named);
                    if stream.send.write_all(&news).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(()) = self.me.changed() => {
                    let me = Box::new(self.me.borrow_and_update().clone());
                    if stream.send.write_all(&line(&ToWorker::Met(me))).await.is_err() {
                        return Ok(());
                    }
                }
                message = next_message(&mut lines, &mut begun, MAX_MESSAGE) => match message? {
                    Some(message) => drop(self.inbox.send(Heard::Message { peer: self.peer, message }).await),
                    None => return Ok(()),
                },
                _ = self.goodbye.changed() => {
                    let reason = self.goodbye.borrow().clone().unwrap_or_else(|| "the primary ended".to_owned());
                    drop(stream.send.write_all(&line(&ToWorker::Goodbye { reason })).await);
                    // The worker drops the stream once it has read this; the desk limits the wait.
                    while let Ok(Some(_)) = next_message::<ToPrimary>(&mut lines, &mut begun, MAX_MESSAGE).await {}
                    return Ok(());
                }
            }
        }
    }
}

/// The lines that bring a worker's knowledge up to date.
fn news(book: &Book, worker: PeerId, told: &mut Book) -> Vec<u8> {
    let newer = |descriptor: &&Descriptor| {
        let known = told.get(&descriptor.peer).map(Descriptor::version);
        descriptor.peer != worker && known < Some(descriptor.version())
    };
    let new: Vec<Descriptor> = book.values().filter(newer).cloned().collect();
    told.extend(
        new.iter()
            .map(|descriptor| (descriptor.peer, descriptor.clone())),
    );
    new.into_iter()
        .flat_map(|descriptor| line(&ToWorker::Met(Box::new(descriptor))))
        .collect()
}

/// The lines that name what is wanted to a worker that has heard of some.
fn new_wants(wants: &Wants, named: &mut Wants) -> Vec<u8> {
    let targets = wants.targets.difference(&named.targets).cloned();
    let targets = targets.map(|target| ToWorker::Target { target });
    let compilers = wants.compilers.iter();
    let compilers = compilers.filter(|compiler| !named.compilers.contains(compiler));
    let compilers = compilers
        .cloned()
        .map(|compiler| ToWorker::Compiler(Box::new(compiler)));
    let news = targets
        .chain(compilers)
        .flat_map(|want| line(&want))
        .collect();
    *named = wants.clone();
    news
}

/// A peer's bytes that are no message.
struct Nonsense(String);

impl From<serde_json::Error> for Nonsense {
    fn from(error: serde_json::Error) -> Self {
        Self(format!(
            "sent a message that this version cannot read ({error})"
        ))
    }
}

fn line(message: &ToWorker) -> Vec<u8> {
    let mut text = serde_json::to_vec(message).unwrap_or_default();
    text.push(b'\n');
    text
}

/// An offer of a hundred compilers is about 30 KiB; nothing larger is read into memory.
const MAX_MESSAGE: u64 = 1 << 20;
