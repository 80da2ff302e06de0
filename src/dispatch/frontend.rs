//! The listening ports and the tasks behind them.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use super::{
    attempt::Request,
    job::Job,
    owner,
    scheduler::JobSpec,
    spool::Spill,
    state::{Build, State, Transport, WorkerUpdate},
    told::Snapshot,
};
use crate::{
    event::{BuildFeedback, BuildUpdate, LoadNow, WorkerView},
    machine::clock::{in_step, monotonic_ns},
    session::{NodeName, PeerId},
};

/// Changes that come together (a worker and its admissions) reach a build as one; no person or jobserver notices 3 ms.
const DEBOUNCE: Duration = Duration::from_millis(3);
/// Linux gives as much without being asked for more (`net.core.rmem_max`), and twice that. A preprocessed source mostly fits, so that
/// distcc writes it at once instead of waking us for every 64 KB; measured, a job of 250 KB costs an eighth less CPU.
const ROOM: usize = 208 << 10;
/// Out of descriptors: let some jobs end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the builds of one session. A handle: clones share everything.
#[derive(Clone)]
pub struct Dispatch {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) spill: Arc<Spill>,
    pub(super) state: Mutex<State>,
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
            spill: Spill::new(spill),
            state: Mutex::default(),
            builds: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// A worker came or changed. Call it inside a tokio runtime: a new worker gets a port in every build.
    pub fn update_worker(&self, update: WorkerUpdate) -> io::Result<()> {
        let name = update.name.clone();
        let builds = lock(&self.shared.builds).clone();
        let bound = builds
            .iter()
            .try_for_each(|(build, end)| self.shared.listen(*build, &name, end));
        lock(&self.shared.state).handle_worker(update, now());
        bound
    }

    /// A worker is gone: its line goes, its ports stay bound, its jobs are attempted elsewhere.
    pub fn remove_worker(&self, peer: PeerId) {
        lock(&self.shared.state).handle_worker_gone(peer, now());
    }

    /// Opens the ports of one build. Call it inside a tokio runtime.
    pub fn open_build(&self, updates: mpsc::Sender<BuildUpdate>) -> io::Result<BuildDesk> {
        let (open, end) = watch::channel(());
        let changed = Arc::new(Notify::new());
        let queue = listener()?;
        let (id, names) = {
            let mut state = lock(&self.shared.state);
            let id = state.next_id();
            let build = Build {
                ports: Default::default(),
                queue: queue.local_addr()?.port(),
                records: Vec::new(),
                sending: BTreeMap::new(),
                load_asked: false,
                changed: changed.clone(),
            };
            state.builds.insert(id, build);
            let workers = state.workers.values();
            let names: Vec<_> = workers.map(|worker| worker.name.clone()).collect();
            (id, names)
        };
        let desk = BuildDesk {
            id,
            shared: self.shared.clone(),
            _open: open,
        };
        lock(&self.shared.builds).push((id, end.clone()));
        self.shared.accept(queue, id, None, &end)?;
        names
            .iter()
            .try_for_each(|name| self.shared.listen(id, name, &end))?;
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
                lock(&self.shared.state).handle_hand_back(self.id, jobs, now());
            }
            BuildFeedback::Idle { jobs, compile_ms } => {
                let time = compile_ms.map(Duration::from_millis);
                lock(&self.shared.state).handle_idle(self.id, jobs, time, now());
            }
            BuildFeedback::Sending { source, bytes } => {
                lock(&self.shared.state).handle_sending(self.id, source, bytes);
            }
            BuildFeedback::AskLoad => lock(&self.shared.state).handle_ask_load(self.id),
            // Admission's subject: the role forwards it there.
            BuildFeedback::CompilerSeen { compiler } => tracing::debug!(%compiler, "compiler seen"),
        }
    }

    /// A way to ask for the build's load from the same process.
    pub fn load_now(&self) -> LoadNow {
        let (shared, id) = (self.shared.clone(), self.id);
        LoadNow::new(move || {
            // A job that has left by now is in no load of now.
            let at_ns = monotonic_ns();
            let load = lock(&shared.state).load_now(id, now())?;
            Some((load, at_ns))
        })
    }

    /// The build's port for a worker, for those who watch the ports.
    pub fn port(&self, peer: PeerId) -> Option<u16> {
        let state = lock(&self.shared.state);
        let name = &state.workers.get(&peer)?.name;
        state.builds.get(&self.id)?.ports.get(name).copied()
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
        name: &NodeName,
        end: &watch::Receiver<()>,
    ) -> io::Result<()> {
        let mut state = lock(&self.state);
        let Some(open) = state
            .builds
            .get_mut(&build)
            .filter(|build| !build.ports.contains_key(name))
        else {
            return Ok(());
        };
        let listener = listener()?;
        open.ports
            .insert(name.clone(), listener.local_addr()?.port());
        self.accept(listener, build, Some(name.clone()), end)
    }

    fn accept(
        self: &Arc<Self>,
        listener: std::net::TcpListener,
        build: u64,
        wish: Option<NodeName>,
        end: &watch::Receiver<()>,
    ) -> io::Result<()> {
        let desk = Desk {
            shared: self.clone(),
            build,
            wish,
            end: end.clone(),
        };
        tokio::spawn(until(
            end.clone(),
            desk.accept(TcpListener::from_std(listener)?),
        ));
        Ok(())
    }
}

fn listener() -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    sockopt::set_socket_recv_buffer_size(&listener, ROOM)?;
    Ok(listener)
}

/// One port of one build.
#[derive(Clone)]
struct Desk {
    shared: Arc<Shared>,
    build: u64,
    /// Whom distcc would like.
    wish: Option<NodeName>,
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
        let accepted = Instant::now();
        match Request::read(&mut client, &self.shared.spill).await {
            Ok(Some(request)) => self.run(client, request, accepted.elapsed()).await,
            Ok(None) => tracing::trace!("the client left before its request was complete"),
            Err(error) => tracing::debug!(%error, "no request"),
        }
    }

    async fn run(self, client: TcpStream, request: Request, prepared: Duration) {
        let (id, orders, source_bytes) = {
            let mut state = lock(&self.shared.state);
            let wish = self.wish.as_ref();
            let arguments = request.parser.arguments();
            let source = arguments.source();
            let source_bytes = source.and_then(|name| state.sent(self.build, &name));
            let spec = JobSpec {
                compiler: arguments.compiler(),
                preferred: wish.and_then(|name| state.peer_named(name)),
                bytes: request.len(),
                source_bytes,
            };
            let (id, orders) = state.handle_job(self.build, spec, now());
            (id, orders, source_bytes)
        };
        let job = Job::new(self.shared.clone(), id, request, source_bytes, prepared);
        let record = job.run(client, orders).await;
        lock(&self.shared.state).record(self.build, record);
    }
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
        let told = Instant::now();
        // What has changed until now is in the state that follows.
        pin!(changed.notified()).enable();
        // A job that has left by now is in no load of now.
        let at_ns = monotonic_ns();
        let new = lock(&shared.state).updates(id, &mut last, now(), at_ns);
        for update in new {
            let room = look_after_jobs(&shared, id, updates.reserve()).await;
            let Ok(room) = room else { return };
            room.send(update);
        }
        look_after_jobs(&shared, id, changed.notified()).await;
        // What comes after a while is told at once, and what follows it, together.
        if told.elapsed() < DEBOUNCE {
            tokio::time::sleep_until(told + DEBOUNCE).await;
        }
    }
}

/// Looks for jobs that take too long, as long as the build has any, until something happens. Every build's task does so: it costs little,
/// and none is special. What happens in the second half of a pause serves as its end, so that a busy build is not woken for it.
async fn look_after_jobs<T>(shared: &Shared, build: u64, happens: impl Future<Output = T>) -> T {
    let mut happens = pin!(happens);
    loop {
        let (pause, looked) = {
            let mut state = lock(&shared.state);
            let looked = *state.looked.get_or_insert_with(now);
            (state.look_again(build), Instant::from_std(looked))
        };
        let Some(pause) = pause else {
            return happens.await;
        };
        let happened = tokio::select! {
            happened = &mut happens => Some(happened),
            () = tokio::time::sleep_until(in_step((looked + pause).into_std()).into()) => None,
        };
        let now = Instant::now();
        let mut state = lock(&shared.state);
        // Another build's task may have looked meanwhile.
        let looked = state.looked.map_or(now, Instant::from_std);
        if now >= looked + pause / 2 {
            state.looked = Some(now.into_std());
            state.handle_timeout(now.into_std());
        }
        drop(state);
        if let Some(happened) = happened {
            return happened;
        }
    }
}

/// Runs a build's task until the build ends.
async fn until(mut end: watch::Receiver<()>, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        _ = end.changed() => {}
    }
}

pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
