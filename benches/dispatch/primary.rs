//! The process under measurement on the primary's side: dispatch, and where it is asked for the tunnel.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use distmesh::{
    dispatch::{BuildDesk, Dispatch, JobIo, JobStreams, Transport, WorkerUpdate},
    event::{BuildUpdate, JobOutcome, LinkState},
    session::{Descriptor, PeerId, Role},
    tunnel::TunnelEvent,
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    runtime::Runtime,
    sync::mpsc::{self, UnboundedReceiver},
};

use crate::{
    measure::usage::Usage,
    role::{answer, say},
    tunnels,
};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) slots: u32,
    /// For which all workers are admitted.
    pub(crate) compiler: String,
    pub(crate) over: Over,
}

/// How the workers are reached.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Over {
    /// A TCP connection on loopback for each attempt.
    Tcp(Vec<SocketAddr>),
    /// QUIC inside WireGuard: the worker is told this process's descriptor and finds its way.
    Tunnel(Vec<Descriptor>),
}

/// How it is, and what became of the jobs so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) usage: Usage,
    pub(crate) compiled: u64,
    /// Jobs that came to any other end.
    pub(crate) other: u64,
    pub(crate) attempts: u64,
}

pub(crate) fn live(runtime: &Runtime, task: Task) {
    let (transport, peers): (Arc<dyn Transport>, Vec<PeerId>) = match &task.over {
        Over::Tcp(at) => {
            let at: BTreeMap<_, _> = (0..).map(numbered).zip(at.iter().copied()).collect();
            let peers = at.keys().copied().collect();
            (Arc::new(Tcp(at)), peers)
        }
        Over::Tunnel(workers) => {
            let (tunnel, mut events) = tunnels::start(tunnels::keys(), Role::Primary, 0);
            say(&*tunnel.descriptor().borrow());
            let peers = workers.iter().map(|worker| worker.peer).collect();
            for worker in workers {
                tunnel.peer_found(worker.clone());
            }
            runtime.block_on(all_up(&mut events, workers.len()));
            // Events that nobody takes would be memory that grows.
            runtime.spawn(async move { while events.recv().await.is_some() {} });
            (Arc::new(JobStreams(tunnel)), peers)
        }
    };
    let spill = tempfile::tempdir().expect("a temporary directory");
    let dispatch = Dispatch::new(transport, spill.path().to_owned());
    let (updates, told) = mpsc::channel(UPDATES);
    let desk = dispatch.open_build(updates).expect("free ports");
    let counts = Arc::new(Mutex::new(Report::default()));
    runtime.spawn(count(told, counts.clone()));
    say(&ports(&dispatch, &desk, &task, &peers));
    answer(runtime, || Report {
        usage: Usage::of_this_process(),
        ..*counts.lock().unwrap_or_else(PoisonError::into_inner)
    });
}

fn numbered(number: u16) -> PeerId {
    let mut peer = [0; 32];
    peer[..2].copy_from_slice(&number.to_be_bytes());
    PeerId(peer)
}

/// Lets the workers in; the build's port for each.
fn ports(dispatch: &Dispatch, desk: &BuildDesk, task: &Task, peers: &[PeerId]) -> Vec<u16> {
    for (number, peer) in peers.iter().enumerate() {
        let update = WorkerUpdate {
            peer: *peer,
            name: format!("w{number}").parse().expect("a plain name"),
            slots: task.slots,
            state: LinkState::Up,
            admitted: [(task.compiler.as_str().into(), task.compiler.clone())].into(),
            refused: BTreeMap::new(),
            undecided: BTreeSet::new(),
        };
        dispatch.update_worker(update).expect("a free port");
    }
    let port = |peer: &PeerId| desk.port(*peer).expect("a worker that was let in");
    peers.iter().map(port).collect()
}

/// Waits for a link to each: one that is lost meanwhile comes up once more.
async fn all_up(events: &mut UnboundedReceiver<TunnelEvent>, workers: usize) {
    let mut up = BTreeSet::new();
    while up.len() < workers {
        let event = events.recv().await.expect("a tunnel that lives");
        if let TunnelEvent::Link {
            peer,
            state: LinkState::Up,
            ..
        } = event
        {
            up.insert(peer);
        }
    }
}

/// What a build does with what it is told, as far as it has to keep up.
async fn count(mut updates: mpsc::Receiver<BuildUpdate>, counts: Arc<Mutex<Report>>) {
    while let Some(update) = updates.recv().await {
        let BuildUpdate::Job(job) = update else {
            continue;
        };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.attempts += u64::from(job.attempts);
        let compiled = job.outcome == JobOutcome::Compiled;
        counts.compiled += u64::from(compiled);
        counts.other += u64::from(!compiled);
    }
}

struct Tcp(BTreeMap<PeerId, SocketAddr>);

impl Transport for Tcp {
    fn open(&self, worker: PeerId) -> Pin<Box<dyn Future<Output = io::Result<JobIo>> + Send + '_>> {
        let to = self.0.get(&worker).copied();
        Box::pin(async move {
            let stream = TcpStream::connect(to.ok_or(io::ErrorKind::NotFound)?).await?;
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            Ok(JobIo {
                read: Box::new(read),
                write: Box::new(write),
            })
        })
    }
}

/// As the control socket has it.
const UPDATES: usize = 64;
