//! What all builds of a session share: workers, jobs, the scheduler. Every change drains the scheduler.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, mpsc},
};

use super::scheduler::{Capability, Decision, JobId, JobSpec, Presence, Scheduler};
use crate::{
    distcc::HostLine,
    event::{BuildUpdate, Compiler, Event, JobOutcome, JobRecord, LinkState, Load, WorkerView},
    session::{NodeName, PeerId},
};

/// Opens streams to workers' distccd.
pub trait Transport: Send + Sync + 'static {
    /// A fresh stream to that worker's distccd.
    fn open(
        &self,
        worker: PeerId,
    ) -> std::pin::Pin<Box<dyn Future<Output = io::Result<JobIo>> + Send + '_>>;
}

/// One stream. Dropping it aborts the compile at once.
pub struct JobIo {
    /// From the worker.
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    /// To the worker; stays open until the response is complete.
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
}

/// Everything dispatch must know of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerUpdate {
    /// Who.
    pub peer: PeerId,
    /// Its label.
    pub name: NodeName,
    /// Compiles at once.
    pub slots: u32,
    /// Its link.
    pub state: LinkState,
    /// Admitted compilers: the primary's, and the worker's path.
    pub admitted: BTreeMap<Compiler, String>,
    /// Refused compilers: the primary's, and the reason.
    pub refused: BTreeMap<Compiler, String>,
}

/// What a job's task is told.
pub(super) enum Order {
    Attempt {
        worker: PeerId,
        compiler: String,
        hedge: bool,
    },
    Abandon {
        worker: PeerId,
    },
    HandBack(JobOutcome),
}

pub(super) struct Build {
    /// By the worker's label: one that comes again has its old port.
    pub(super) ports: BTreeMap<NodeName, u16>,
    /// For jobs that no worker is wished for.
    pub(super) queue: u16,
    pub(super) records: Vec<JobRecord>,
    pub(super) changed: Arc<Notify>,
}

struct Job {
    build: u64,
    compiler: Compiler,
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) scheduler: Scheduler,
    pub(super) workers: BTreeMap<PeerId, WorkerUpdate>,
    answered: BTreeMap<NodeName, u64>,
    pub(super) builds: BTreeMap<u64, Build>,
    jobs: BTreeMap<JobId, Job>,
    last_id: u64,
}

/// What a build was told last, or should be told now, apart from its job records.
#[derive(Default)]
pub(super) struct Snapshot {
    hosts: Option<Vec<String>>,
    admitted: Option<BTreeSet<Compiler>>,
    refused: BTreeMap<Compiler, String>,
    load: Option<Load>,
    workers: Vec<WorkerView>,
    negligible: BTreeSet<PeerId>,
}

impl State {
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn handle_worker(&mut self, update: WorkerUpdate, now: Instant) {
        let can = Capability {
            slots: update.slots,
            presence: match update.state {
                LinkState::Up => Presence::Live,
                LinkState::Suspect => Presence::Silent,
                LinkState::Punching | LinkState::Handshaking | LinkState::Down => Presence::Gone,
            },
            compilers: update.admitted.keys().cloned().collect(),
        };
        let peer = update.peer;
        self.forget_ghosts(&update, now);
        self.workers.insert(peer, update);
        self.scheduler.handle_worker(peer, can, now);
        self.drain();
    }

    /// A worker that was started again has another key; what it was before is never seen again.
    fn forget_ghosts(&mut self, of: &WorkerUpdate, now: Instant) {
        let same = |worker: &WorkerUpdate| worker.name == of.name && worker.peer != of.peer;
        let ghosts = self.workers.values().filter(|worker| same(worker));
        let ghosts: Vec<PeerId> = ghosts.map(|worker| worker.peer).collect();
        for ghost in ghosts {
            self.workers.remove(&ghost);
            self.scheduler.handle_ghost(ghost, now);
        }
    }

    pub(super) fn handle_worker_gone(&mut self, peer: PeerId, now: Instant) {
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.state = LinkState::Down;
        }
        self.scheduler
            .handle_worker(peer, Capability::default(), now);
        self.drain();
    }

    pub(super) fn handle_job(
        &mut self,
        build: u64,
        spec: JobSpec,
        now: Instant,
    ) -> (JobId, mpsc::UnboundedReceiver<Order>) {
        let id = JobId(self.next_id());
        let (orders, receiver) = mpsc::unbounded_channel();
        let job = Job {
            build,
            compiler: spec.compiler.clone(),
            orders,
        };
        self.jobs.insert(id, job);
        self.scheduler.handle_job(id, spec, now);
        self.drain();
        (id, receiver)
    }

    pub(super) fn handle_attempt_failed(
        &mut self,
        job: JobId,
        worker: PeerId,
        reason: &str,
        now: Instant,
    ) {
        self.scheduler
            .handle_attempt_failed(job, worker, reason, now);
        self.drain();
    }

    pub(super) fn handle_done(&mut self, job: JobId, worker: PeerId, ran: Duration, now: Instant) {
        if let Some(worker) = self.workers.get(&worker) {
            *self.answered.entry(worker.name.clone()).or_default() += 1;
        }
        self.scheduler
            .handle_done(job, worker, ran.as_secs_f64(), now);
        self.drain();
    }

    /// The job's task ends, for whatever reason.
    pub(super) fn handle_end(&mut self, job: JobId, now: Instant) {
        self.jobs.remove(&job);
        self.scheduler.handle_cancel(job, now);
        self.drain();
    }

    /// Looks for jobs that take too long; returns how soon to look again, if at all.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Duration> {
        self.scheduler.handle_timeout(now);
        if self.give_orders() {
            self.notify();
        }
        self.scheduler.look_again()
    }

    /// How soon to look for jobs that take too long.
    pub(super) fn look_again(&self) -> Option<Duration> {
        self.scheduler.look_again()
    }

    /// There is room for so many of the build's stranded jobs; the oldest go first.
    pub(super) fn handle_hand_back(&mut self, build: u64, count: u32, now: Instant) {
        let of_build = self.jobs.iter().filter(|(_, job)| job.build == build);
        let stranded = of_build
            .map(|(id, _)| *id)
            .filter(|id| self.scheduler.is_stranded(*id));
        let chosen: Vec<JobId> = stranded.take(count as usize).collect();
        for id in chosen {
            self.scheduler.handle_cancel(id, now);
            if let Some(job) = self.jobs.remove(&id) {
                let _ = job
                    .orders
                    .send(Order::HandBack(JobOutcome::ReturnedToClient));
            }
        }
        self.drain();
    }

    /// The build's machine is idle: so many of its late jobs go home, the oldest first.
    pub(super) fn handle_idle(
        &mut self,
        build: u64,
        count: u32,
        compile_time: Option<Duration>,
        now: Instant,
    ) {
        if let Some(time) = compile_time {
            self.scheduler.handle_home(time.as_secs_f64());
        }
        let of_build = self.jobs.iter().filter(|(_, job)| job.build == build);
        let late = of_build
            .map(|(id, _)| *id)
            .filter(|id| self.scheduler.is_late_for_home(*id, now));
        let chosen: Vec<JobId> = late.take(count as usize).collect();
        for id in chosen {
            self.scheduler.handle_called_back(id, now);
            if let Some(job) = self.jobs.remove(&id) {
                let _ = job.orders.send(Order::HandBack(JobOutcome::CalledBack));
            }
        }
        self.drain();
    }

    pub(super) fn record(&mut self, build: u64, record: JobRecord) {
        if let Some(build) = self.builds.get_mut(&build) {
            build.records.push(record);
            build.changed.notify_one();
        }
    }

    pub(super) fn worker_name(&self, peer: PeerId) -> Option<String> {
        self.workers
            .get(&peer)
            .map(|worker| worker.name.to_string())
    }

    pub(super) fn peer_named(&self, name: &NodeName) -> Option<PeerId> {
        let mut workers = self.workers.values();
        workers
            .find(|worker| worker.name == *name)
            .map(|worker| worker.peer)
    }

    pub(super) fn worker_views(&self) -> Vec<WorkerView> {
        let view = |worker: &WorkerUpdate| WorkerView {
            name: worker.name.to_string(),
            slots: worker.slots,
            jobs: self.answered.get(&worker.name).copied().unwrap_or(0),
            state: worker.state,
            path: None,
            relay: None,
            nat: None,
            reason: None,
            up_after_ms: None,
            rtt_us: None,
        };
        self.workers.values().map(view).collect()
    }

    /// What changed for this build since `last`, and its job records.
    pub(super) fn updates(
        &mut self,
        id: u64,
        last: &mut Snapshot,
        now: Instant,
    ) -> Vec<BuildUpdate> {
        let mut updates = Vec::new();
        let hosts = Some(self.host_lines(id));
        if hosts != last.hosts {
            let queue = self.builds.get(&id).map_or(0, |build| build.queue);
            updates.extend(
                hosts
                    .clone()
                    .map(|lines| BuildUpdate::Hosts { lines, queue }),
            );
            last.hosts = hosts;
        }
        let admitted = Some(self.admitted());
        if admitted != last.admitted {
            updates.extend(
                admitted
                    .clone()
                    .map(|compilers| BuildUpdate::Admitted { compilers }),
            );
            last.admitted = admitted;
        }
        let refused = self.refused();
        let new = refused
            .iter()
            .filter(|(compiler, reason)| last.refused.get(*compiler) != Some(reason));
        updates.extend(new.map(|(compiler, reason)| BuildUpdate::Refused {
            compiler: compiler.clone(),
            reason: reason.clone(),
        }));
        last.refused = refused;
        let negligible = self.negligible();
        let new = negligible.difference(&last.negligible);
        updates.extend(new.map(|peer| BuildUpdate::Event(self.say_negligible(*peer))));
        last.negligible.extend(negligible);
        let views = self.worker_views();
        let new = views.iter().filter(|view| !last.workers.contains(view));
        updates.extend(new.cloned().map(BuildUpdate::Worker));
        last.workers = views;
        let records = self
            .builds
            .get_mut(&id)
            .map(|build| std::mem::take(&mut build.records));
        updates.extend(records.into_iter().flatten().map(BuildUpdate::Job));
        let load = Some(self.load(id, now));
        if load != last.load {
            updates.extend(load.map(BuildUpdate::Load));
            last.load = load;
        }
        updates
    }

    fn negligible(&self) -> BTreeSet<PeerId> {
        let known = self.workers.keys().copied();
        known
            .filter(|peer| self.scheduler.is_negligible(*peer))
            .collect()
    }

    fn say_negligible(&self, peer: PeerId) -> Event {
        let name = self.worker_name(peer).unwrap_or_default();
        Event::Incident {
            text: format!(
                "{name} is worth less than a quarter of a core of this machine, by its speed or its link's: it gets a job now and then"
            ),
        }
    }

    fn live(&self) -> impl Iterator<Item = &WorkerUpdate> {
        self.workers
            .values()
            .filter(|worker| worker.state == LinkState::Up)
    }

    /// Those that are silent for a moment too: most come back, and their compilers stay distributable meanwhile.
    fn known(&self) -> impl Iterator<Item = &WorkerUpdate> {
        self.workers
            .values()
            .filter(|worker| matches!(worker.state, LinkState::Up | LinkState::Suspect))
    }

    /// Most slots first: distcc fills hosts in order. A suspect worker keeps its line, so that a hiccup does not rewrite
    /// the file; down takes it out.
    fn host_lines(&self, build: u64) -> Vec<String> {
        let Some(build) = self.builds.get(&build) else {
            return Vec::new();
        };
        let mut shown: Vec<&WorkerUpdate> = self
            .known()
            .filter(|worker| worker.slots > 0 && !worker.admitted.is_empty())
            .collect();
        shown.sort_by_key(|worker| (std::cmp::Reverse(worker.slots), worker.peer));
        let line = |worker: &&WorkerUpdate| {
            let port = *build.ports.get(&worker.name)?;
            let line = HostLine {
                port,
                slots: worker.slots,
                lzo: true,
                cpp: false,
            };
            Some(line.to_string())
        };
        shown.iter().filter_map(line).collect()
    }

    fn admitted(&self) -> BTreeSet<Compiler> {
        self.known()
            .flat_map(|worker| worker.admitted.keys().cloned())
            .collect()
    }

    /// Compilers that some live worker refuses and none takes.
    fn refused(&self) -> BTreeMap<Compiler, String> {
        let taken = self.admitted();
        let mut refused: BTreeMap<&Compiler, BTreeMap<&String, Vec<String>>> = BTreeMap::new();
        for worker in self.live() {
            for (compiler, reason) in &worker.refused {
                let reasons = refused.entry(compiler).or_default();
                reasons
                    .entry(reason)
                    .or_default()
                    .push(worker.name.to_string());
            }
        }
        refused.retain(|compiler, _| !taken.contains(*compiler));
        let in_words = |reasons: BTreeMap<&String, Vec<String>>| {
            let each = reasons
                .into_iter()
                .map(|(reason, names)| format!("{}: {reason}", names.join(", ")));
            each.collect::<Vec<_>>().join("; ")
        };
        refused
            .into_iter()
            .map(|(compiler, reasons)| (compiler.clone(), in_words(reasons)))
            .collect()
    }

    fn load(&self, build: u64, now: Instant) -> Load {
        let ours = || self.jobs.iter().filter(|(_, job)| job.build == build);
        Load {
            capacity: self.scheduler.capacity(now),
            in_dispatch: ours().count() as u32,
            stranded: ours()
                .filter(|(id, _)| self.scheduler.is_stranded(**id))
                .count() as u32,
        }
    }

    fn drain(&mut self) {
        self.give_orders();
        self.notify();
    }

    fn notify(&self) {
        let builds = self.builds.values();
        builds.for_each(|build| build.changed.notify_one());
    }

    /// Passes the scheduler's decisions on; returns whether there were any.
    fn give_orders(&mut self) -> bool {
        let mut any = false;
        while let Some(decision) = self.scheduler.poll_event() {
            any = true;
            match decision {
                Decision::Assign { job, worker, hedge } => self.order_attempt(job, worker, hedge),
                Decision::Abandon { job, worker } => self.order(job, Order::Abandon { worker }),
                Decision::Strand { job } => {
                    tracing::debug!(job = job.0, "no live worker can do this job");
                }
                Decision::GiveUp { job, reason } => {
                    tracing::info!(job = job.0, reason, "every attempt failed");
                }
            }
        }
        any
    }

    fn order_attempt(&self, id: JobId, worker: PeerId, hedge: bool) {
        let (Some(job), Some(on)) = (self.jobs.get(&id), self.workers.get(&worker)) else {
            return;
        };
        let path = on.admitted.get(&job.compiler);
        let path = path.unwrap_or(&job.compiler.path);
        let order = Order::Attempt {
            worker,
            compiler: path.clone(),
            hedge,
        };
        self.order(id, order);
    }

    fn order(&self, id: JobId, order: Order) {
        // A task that has just ended no longer listens; its end cancels the job.
        if let Some(job) = self.jobs.get(&id) {
            let _ = job.orders.send(order);
        }
    }
}
