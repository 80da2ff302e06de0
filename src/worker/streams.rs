//! The streams that a primary opens on its worker.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    sync::{mpsc, watch},
};

use crate::{
    admission::{Catalogue, Want},
    distcc::{RelayError, relay},
    session::{Descriptor, PeerId},
    tunnel::{RecvStream, SendStream, Stream},
    wire::{Offer, StreamKind, ToPrimary, ToWorker, next_message},
};

/// What the streams share.
pub(super) struct Desk {
    offers: watch::Sender<Offer>,
    /// What was offered, to be looked at again for every job.
    catalogue: watch::Sender<Catalogue>,
    leaving: watch::Sender<Option<String>>,
    running: watch::Sender<u32>,
    /// Whom the worker serves; others wait.
    served: watch::Sender<Option<Served>>,
    /// Our own descriptor.
    me: watch::Receiver<Descriptor>,
    distccd: SocketAddr,
    said: mpsc::Sender<PrimarySaid>,
    wants: mpsc::Sender<Want>,
}

/// The primary that has this worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) peer: PeerId,
    pub(super) name: String,
}

/// Where streams pass on what they hear.
pub(super) struct Talk {
    pub(super) said: mpsc::Sender<PrimarySaid>,
    /// What primaries would have of the compilers.
    pub(super) wants: mpsc::Sender<Want>,
}

/// What streams tell the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PrimarySaid {
    /// This primary is done.
    Goodbye { peer: PeerId, reason: String },
    /// Somebody's descriptor.
    Met(Box<Descriptor>),
    /// A stream that makes no sense.
    Nonsense { reason: String },
    /// A job that distccd did not answer.
    JobFailed { reason: String },
}

impl Desk {
    pub(super) fn new(
        offers: watch::Sender<Offer>,
        me: watch::Receiver<Descriptor>,
        distccd: SocketAddr,
        running: watch::Sender<u32>,
        talk: Talk,
    ) -> Self {
        let (leaving, _) = watch::channel(None);
        let (served, _) = watch::channel(None);
        let (catalogue, _) = watch::channel(Catalogue::default());
        Self {
            offers,
            catalogue,
            leaving,
            running,
            served,
            me,
            distccd,
            said: talk.said,
            wants: talk.wants,
        }
    }

    /// Changes the offer; every control stream sends the new one.
    pub(super) fn offer_slots(&self, slots: u32) {
        self.offers
            .send_if_modified(|offer| std::mem::replace(&mut offer.slots, slots) != slots);
    }

    /// Changes the offer's compilers; `looking` when some are being asked that may follow.
    pub(super) fn offer_compilers(&self, catalogue: &Catalogue, looking: bool) {
        self.catalogue.send_replace(catalogue.clone());
        self.offers.send_if_modified(|offer| {
            let new = Offer {
                compilers: catalogue.compilers(),
                targets: catalogue.targets(),
                looking,
                more: catalogue.has_unasked(),
                ..offer.clone()
            };
            let changed = new != *offer;
            *offer = new;
            changed
        });
    }

    /// Changes whom the worker serves.
    pub(super) fn serve(&self, primary: Option<Served>) {
        self.served
            .send_if_modified(|served| std::mem::replace(served, primary.clone()) != primary);
    }

    fn serves(&self, peer: PeerId) -> bool {
        let served = self.served.borrow();
        served.as_ref().is_some_and(|served| served.peer == peer)
    }

    /// What a primary is told of our slots and compilers.
    fn offer_to(&self, peer: PeerId) -> ToPrimary {
        match &*self.served.borrow() {
            Some(served) if served.peer != peer => ToPrimary::Busy {
                primary: served.name.clone(),
            },
            _ => ToPrimary::Offer(self.offers.borrow().clone()),
        }
    }

    /// Jobs that distccd has.
    pub(super) fn running(&self) -> u32 {
        *self.running.borrow()
    }

    /// Tells every primary that no more jobs are wanted.
    pub(super) fn leave(&self, reason: &str) {
        self.leaving.send_replace(Some(reason.to_owned()));
    }

    fn is_leaving(&self) -> bool {
        self.leaving.borrow().is_some()
    }

    /// Ends when no job runs.
    pub(super) async fn idle(&self) {
        // The desk holds the sender, so the channel cannot close.
        drop(
            self.running
                .subscribe()
                .wait_for(|running| *running == 0)
                .await,
        );
    }
}

/// Serves one stream to its end.
pub(super) async fn serve(desk: Arc<Desk>, peer: PeerId, stream: Stream) {
    let Stream { send, mut recv } = stream;
    let Ok(byte) = recv.read_u8().await else {
        return;
    };
    match StreamKind::from_byte(byte) {
        Some(StreamKind::Control) => control(&desk, peer, send, recv).await,
        Some(StreamKind::Job) if desk.serves(peer) && !desk.is_leaving() => {
            job(&desk, send, recv).await;
        }
        // It was told that it has to wait, or is being told that we leave.
        Some(StreamKind::Job) => {}
        None => {
            let reason = format!(
                "peer {peer} opened a stream of unknown kind {byte}: is its distmesh newer?"
            );
            drop(desk.said.send(PrimarySaid::Nonsense { reason }).await);
        }
    }
}

/// Counts one job, however it ends.
struct Running<'a>(&'a watch::Sender<u32>);

impl<'a> Running<'a> {
    fn begin(count: &'a watch::Sender<u32>) -> Self {
        count.send_modify(|running| *running += 1);
        Self(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

async fn job(desk: &Desk, send: SendStream, mut recv: RecvStream) {
    let outcome = {
        let _running = Running::begin(&desk.running);
        let vouches = |compiler: &str| desk.catalogue.borrow().vouches_for(compiler);
        let outcome = relay(&mut recv, send, desk.distccd, vouches).await;
        if outcome.is_ok() {
            // The answer is on its way. The primary drops its end when it has the whole; a worker that left before would take it along.
            let mut nowhere = tokio::io::sink();
            let taken = tokio::io::copy(&mut recv, &mut nowhere);
            drop(tokio::time::timeout(TAKEN, taken).await);
        }
        outcome
    };
    if let Err(error) = outcome
        && !matches!(error, RelayError::Cancelled | RelayError::Send(_))
    {
        drop(
            desk.said
                .send(PrimarySaid::JobFailed {
                    reason: error.to_string(),
                })
                .await,
        );
    }
}

async fn control(desk: &Desk, peer: PeerId, mut send: SendStream, recv: RecvStream) {
    let mut lines = BufReader::new(recv);
    let mut offers = desk.offers.subscribe();
    let mut served = desk.served.subscribe();
    let mut leaving = desk.leaving.subscribe();
    let mut me = desk.me.clone();
    offers.mark_changed();
    if leaving.borrow().is_some() {
        leaving.mark_changed();
    }
    let mut begun = Vec::new();
    loop {
        let message = tokio::select! {
            Ok(()) = offers.changed() => desk.offer_to(peer),
            Ok(()) = served.changed() => desk.offer_to(peer),
            Ok(()) = me.changed() => ToPrimary::Moved(Box::new(me.borrow_and_update().clone())),
            Ok(()) = leaving.changed() => {
                let reason = leaving.borrow_and_update().clone().unwrap_or_default();
                ToPrimary::Leaving { reason }
            }
            read = next_message(&mut lines, &mut begun, MAX_MESSAGE) => {
                let said = match read {
                    Ok(Some(ToWorker::Goodbye { reason })) => PrimarySaid::Goodbye { peer, reason },
                    Ok(Some(ToWorker::Hello { .. } | ToWorker::Unknown)) => continue,
                    Ok(Some(ToWorker::Compiler(compiler))) => {
                        drop(desk.wants.send(Want::Compiler(compiler)).await);
                        continue;
                    }
                    Ok(Some(ToWorker::Target { target })) => {
                        drop(desk.wants.send(Want::Target(target)).await);
                        continue;
                    }
                    Ok(Some(ToWorker::Met(descriptor))) => {
                        drop(desk.said.send(PrimarySaid::Met(descriptor)).await);
                        continue;
                    }
                    Ok(None) => return,
                    Err(error) => PrimarySaid::Nonsense {
                        reason: format!("the primary sent a message that cannot be read ({error})"),
                    },
                };
                drop(desk.said.send(said).await);
                return;
            }
        };
        let mut line = serde_json::to_vec(&message).unwrap_or_default();
        line.push(b'\n');
        if send.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// An answer of some MB takes a second or two on a slow link.
const TAKEN: Duration = Duration::from_secs(5);

/// A primary's messages are short; nothing larger is read into memory.
const MAX_MESSAGE: u64 = 64 << 10;
