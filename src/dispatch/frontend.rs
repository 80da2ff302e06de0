//! The listening ports and the tasks behind them.

use std::{
    future::{Future, pending},
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use super::{
    attempt::{AttemptFailure, Request, Response, attempt, write_spool},
    owner,
    scheduler::JobId,
    state::{Build, Order, Snapshot, State, Transport, WorkerUpdate},
};
use crate::{
    distcc::hand_back_answer,
    event::{BuildFeedback, BuildUpdate, JobOutcome, JobRecord, WorkerView},
    session::PeerId,
};

/// Changes that come together (a worker and its admissions) reach a build as one; no person or jobserver notices 3 ms.
const DEBOUNCE: Duration = Duration::from_millis(3);
/// Out of descriptors: let some jobs end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the builds of one session. A handle: clones share everything.
#[derive(Clone)]
pub struct Dispatch {
    shared: Arc<Shared>,
}

struct Shared {
    transport: Arc<dyn Transport>,
    spill: PathBuf,
    state: Mutex<State>,
    /// The ends of builds by number, for listeners of workers that come later.
    builds: Mutex<Vec<(u64, watch::Receiver<()>)>>,
}

/// One build's ports. Dropping it closes them and cancels the build's jobs.
pub struct BuildDesk {
    id: u64,
    shared: Arc<Shared>,
    _open: watch::Sender<()>,
}

impl Dispatch {
    /// `spill` is a private directory for large bodies.
    pub fn new(transport: Arc<dyn Transport>, spill: PathBuf) -> Self {
        let shared = Shared {
            transport,
            spill,
            state: Mutex::default(),
            builds: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// A worker came or changed. Call it inside a tokio runtime: a new worker gets a port in every build.
    pub fn update_worker(&self, update: WorkerUpdate) -> io::Result<()> {
        let peer = update.peer;
        let builds = lock(&self.shared.builds).clone();
        let bound = builds
            .iter()
            .try_for_each(|(build, end)| self.shared.listen(*build, peer, end));
        lock(&self.shared.state).handle_worker(update);
        bound
    }

    /// A worker is gone: its line goes, its ports stay bound, its jobs are attempted elsewhere.
    pub fn remove_worker(&self, peer: PeerId) {
        lock(&self.shared.state).handle_worker_gone(peer);
    }

    /// Opens the ports of one build. Call it inside a tokio runtime.
    pub fn open_build(&self, updates: mpsc::Sender<BuildUpdate>) -> io::Result<BuildDesk> {
        let (open, end) = watch::channel(());
        let changed = Arc::new(Notify::new());
        let (id, peers) = {
            let mut state = lock(&self.shared.state);
            let id = state.next_id();
            let build = Build {
                ports: Default::default(),
                records: Vec::new(),
                changed: changed.clone(),
            };
            state.builds.insert(id, build);
            (id, state.workers.keys().copied().collect::<Vec<_>>())
        };
        let desk = BuildDesk {
            id,
            shared: self.shared.clone(),
            _open: open,
        };
        lock(&self.shared.builds).push((id, end.clone()));
        peers
            .iter()
            .try_for_each(|peer| self.shared.listen(id, *peer, &end))?;
        tokio::spawn(until(
            end,
            push_updates(self.shared.clone(), id, changed, updates),
        ));
        Ok(desk)
    }

    /// Every worker that ever was, with the jobs it answered.
    pub fn worker_views(&self) -> Vec<WorkerView> {
        lock(&self.shared.state).worker_views()
    }
}

impl BuildDesk {
    /// The build tells what it needs.
    pub fn feedback(&self, feedback: BuildFeedback) {
        match feedback {
            BuildFeedback::HandBack { jobs } => {
                lock(&self.shared.state).handle_hand_back(self.id, jobs);
            }
            // Admission's subject: the role forwards it there.
            BuildFeedback::CompilerSeen { compiler } => tracing::debug!(compiler, "compiler seen"),
        }
    }

    /// The build's port for a worker, for those who watch the ports.
    pub fn port(&self, peer: PeerId) -> Option<u16> {
        lock(&self.shared.state)
            .builds
            .get(&self.id)?
            .ports
            .get(&peer)
            .copied()
    }
}

impl Drop for BuildDesk {
    fn drop(&mut self) {
        lock(&self.shared.builds).retain(|(id, _)| *id != self.id);
        lock(&self.shared.state).builds.remove(&self.id);
    }
}

impl Shared {
    fn listen(
        self: &Arc<Self>,
        build: u64,
        peer: PeerId,
        end: &watch::Receiver<()>,
    ) -> io::Result<()> {
        let mut state = lock(&self.state);
        let Some(open) = state
            .builds
            .get_mut(&build)
            .filter(|build| !build.ports.contains_key(&peer))
        else {
            return Ok(());
        };
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        open.ports.insert(peer, listener.local_addr()?.port());
        let desk = Desk {
            shared: self.clone(),
            build,
            peer,
            end: end.clone(),
        };
        tokio::spawn(until(
            end.clone(),
            desk.accept(TcpListener::from_std(listener)?),
        ));
        Ok(())
    }
}

/// One port of one build.
#[derive(Clone)]
struct Desk {
    shared: Arc<Shared>,
    build: u64,
    peer: PeerId,
    end: watch::Receiver<()>,
}

impl Desk {
    async fn accept(self, listener: TcpListener) {
        loop {
            let Ok((client, from)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let desk = self.clone();
            tokio::spawn(until(self.end.clone(), async move {
                desk.serve(client, from).await;
            }));
        }
    }

    async fn serve(self, mut client: TcpStream, from: SocketAddr) {
        if !client.local_addr().is_ok_and(|to| owner::is_ours(from, to)) {
            tracing::warn!(%from, "a connection of another user was refused");
            return;
        }
        match Request::read(&mut client, &self.shared.spill).await {
            Ok(Some(request)) => self.run(client, request).await,
            Ok(None) => tracing::trace!("the client left before its request was complete"),
            Err(error) => tracing::debug!(%error, "no request"),
        }
    }

    async fn run(self, client: TcpStream, request: Request) {
        let compiler = request.parser.arguments().compiler();
        let (id, orders) =
            lock(&self.shared.state).handle_job(self.build, compiler.clone(), self.peer);
        let job = Job {
            _end: JobEnd {
                shared: self.shared.clone(),
                id,
            },
            record: JobRecord {
                job: id.0,
                compiler,
                source: request.parser.arguments().source(),
                worker: None,
                outcome: JobOutcome::Cancelled,
                attempts: 0,
                queued: Duration::ZERO,
                ran: Duration::ZERO,
                bytes_up: request.len(),
                bytes_down: 0,
            },
            shared: self.shared.clone(),
            id,
        };
        let record = job.run(client, &request, orders).await;
        lock(&self.shared.state).record(self.build, record);
    }
}

/// Takes the job out of the scheduler however its task ends.
struct JobEnd {
    shared: Arc<Shared>,
    id: JobId,
}

impl Drop for JobEnd {
    fn drop(&mut self) {
        lock(&self.shared.state).handle_end(self.id);
    }
}

struct Job {
    _end: JobEnd,
    record: JobRecord,
    shared: Arc<Shared>,
    id: JobId,
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Response, AttemptFailure>> + Send + 'a>>;

/// One thing that happened to a job.
enum Happened {
    Order(Option<Order>),
    ClientGone,
    Ended(Result<Response, AttemptFailure>),
}

impl Job {
    async fn run(
        mut self,
        mut client: TcpStream,
        request: &Request,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) -> JobRecord {
        let shared = self.shared.clone();
        let mut running: Running<'_> = Box::pin(pending());
        let (mut queued_at, mut chosen_at) = (Instant::now(), Instant::now());
        let mut on = None;
        loop {
            let mut byte = [0];
            // The newest order first: an answer of an attempt that was just replaced is not waited for.
            let happened = tokio::select! { biased;
                order = orders.recv() => Happened::Order(order),
                answer = &mut running => Happened::Ended(answer),
                _ = client.read(&mut byte) => Happened::ClientGone,
            };
            match happened {
                // Back from suspect before anyone else took the job: its attempt never stopped.
                Happened::Order(Some(Order::Attempt { worker, .. })) if on == Some(worker) => {}
                Happened::Order(Some(Order::Attempt { worker, compiler })) => {
                    self.record.attempts += 1;
                    self.record.worker = lock(&shared.state).worker_name(worker);
                    on = Some(worker);
                    chosen_at = Instant::now();
                    self.record.queued = chosen_at - queued_at;
                    running = run_attempt(&shared, worker, compiler, request);
                }
                Happened::Ended(Ok(response)) => {
                    self.record.ran = chosen_at.elapsed();
                    if let Some(worker) = on {
                        lock(&shared.state).handle_done(
                            self.id,
                            worker,
                            self.record.ran.as_secs_f64(),
                        );
                    }
                    return self.answer(client, &response).await;
                }
                Happened::Ended(Err(failure)) => {
                    tracing::info!(job = self.id.0, worker = self.record.worker, %failure, "attempt failed");
                    running = Box::pin(pending());
                    on = None;
                    queued_at = Instant::now();
                    lock(&shared.state).handle_attempt_failed(self.id, &failure.to_string());
                }
                Happened::Order(Some(Order::HandBack)) => {
                    return self.hand_back(client, request).await;
                }
                Happened::ClientGone | Happened::Order(None) => return self.record,
            }
        }
    }

    async fn answer(mut self, mut client: TcpStream, response: &Response) -> JobRecord {
        self.record.bytes_down = response.bytes.len();
        // In protocol 3 a client without `-MD` closes before the last body: a broken pipe there is success.
        if let Err(error) = write_spool(&mut client, &response.bytes).await {
            tracing::debug!(job = self.id.0, %error, "the client did not take the whole answer");
        }
        self.record.outcome = match response.status {
            0 => JobOutcome::Compiled,
            _ => JobOutcome::CompileError,
        };
        self.record
    }

    async fn hand_back(mut self, mut client: TcpStream, request: &Request) -> JobRecord {
        let answer = hand_back_answer(request.parser.version());
        if let Err(error) = client.write_all(&answer).await {
            tracing::debug!(job = self.id.0, %error, "the client did not wait for its job");
        }
        self.record.worker = None;
        self.record.outcome = JobOutcome::ReturnedToClient;
        self.record
    }
}

fn run_attempt<'a>(
    shared: &'a Shared,
    worker: PeerId,
    compiler: String,
    request: &'a Request,
) -> Running<'a> {
    let (transport, spill): (_, &Path) = (&*shared.transport, &shared.spill);
    Box::pin(async move { attempt(transport, worker, &compiler, request, spill).await })
}

/// Tells a build what changed. Only this task waits for a slow build; what it finds afterwards is the newest state.
async fn push_updates(
    shared: Arc<Shared>,
    id: u64,
    changed: Arc<Notify>,
    updates: mpsc::Sender<BuildUpdate>,
) {
    let mut last = Snapshot::default();
    loop {
        let new = lock(&shared.state).updates(id, &mut last);
        for update in new {
            if updates.send(update).await.is_err() {
                return;
            }
        }
        changed.notified().await;
        tokio::time::sleep(DEBOUNCE).await;
    }
}

/// Runs a build's task until the build ends.
async fn until(mut end: watch::Receiver<()>, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        _ = end.changed() => {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
