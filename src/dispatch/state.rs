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
    event::{Compiler, JobOutcome, JobRecord, LinkState, WorkerView},
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
    /// The primary's compilers that it may yet be admitted for: it is asking its own.
    pub undecided: BTreeSet<Compiler>,
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
    /// The lengths of sources whose compiles are on their way here.
    pub(super) sending: BTreeMap<String, u64>,
    pub(super) load_asked: bool,
    pub(super) changed: Arc<Notify>,
}

pub(super) struct Job {
    pub(super) build: u64,
    compiler: Compiler,
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) scheduler: Scheduler,
    pub(super) workers: BTreeMap<PeerId, WorkerUpdate>,
    /// How often one of them came, changed or went.
    pub(super) workers_changed: u64,
    answered: BTreeMap<NodeName, u64>,
    pub(super) builds: BTreeMap<u64, Build>,
    pub(super) jobs: BTreeMap<JobId, Job>,
    /// When somebody looked for jobs that take too long.
    pub(super) looked: Option<Instant>,
    /// Slots that builds were told of.
    capacity: u32,
    last_id: u64,
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
        self.workers_changed += 1;
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
        self.workers_changed += 1;
        self.scheduler
            .handle_worker(peer, Capability::default(), now);
        self.drain();
    }

    /// A compile of a source of this length comes. In two directories may be two of a name, and some never come: it is a hint.
    pub(super) fn handle_sending(&mut self, build: u64, source: String, bytes: u64) {
        if let Some(build) = self.builds.get_mut(&build) {
            if build.sending.len() >= SENDING_AT_MOST {
                build.sending.clear();
            }
            build.sending.insert(source, bytes);
        }
    }

    /// It has come: its source's length, if that was told.
    pub(super) fn sent(&mut self, build: u64, source: &str) -> Option<u64> {
        self.builds.get_mut(&build)?.sending.remove(source)
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
        self.drain_for(Some(build), now);
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
        let build = self.jobs.get(&job).map(|job| job.build);
        self.drain_for(build, now);
    }

    /// The job's task ends, for whatever reason.
    pub(super) fn handle_end(&mut self, job: JobId, now: Instant) {
        let build = self.jobs.remove(&job).map(|job| job.build);
        self.scheduler.handle_cancel(job, now);
        self.drain_for(build, now);
    }

    /// Looks for jobs that take too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.scheduler.handle_timeout(now);
        if !self.give_orders().is_empty() {
            self.notify();
        }
    }

    /// How soon this build is to look for jobs that take too long; one without jobs leaves it to the others.
    pub(super) fn look_again(&self, build: u64) -> Option<Duration> {
        let has_jobs = self.jobs.values().any(|job| job.build == build);
        self.scheduler.look_again().filter(|_| has_jobs)
    }

    /// The build wants its load, changed or not.
    pub(super) fn handle_ask_load(&mut self, build: u64) {
        if let Some(build) = self.builds.get_mut(&build) {
            build.load_asked = true;
            build.changed.notify_one();
        }
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

    /// The build's machine is idle: so many of its jobs go home if that is better for them.
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
        let ids = of_build.map(|(id, _)| *id);
        let chosen = self.scheduler.better_at_home(ids, count as usize, now);
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

    fn drain(&mut self) {
        self.give_orders();
        self.notify();
    }

    /// After a change of one build's jobs: others are woken only by what concerns them too.
    fn drain_for(&mut self, build: Option<u64>, now: Instant) {
        let concerned = self.give_orders();
        let capacity = self.scheduler.capacity(now);
        if std::mem::replace(&mut self.capacity, capacity) != capacity {
            return self.notify();
        }
        for build in concerned.into_iter().chain(build) {
            if let Some(build) = self.builds.get(&build) {
                build.changed.notify_one();
            }
        }
    }

    fn notify(&self) {
        let builds = self.builds.values();
        builds.for_each(|build| build.changed.notify_one());
    }

    /// Passes the scheduler's decisions on; returns whose jobs they are about.
    fn give_orders(&mut self) -> BTreeSet<u64> {
        let mut concerned = BTreeSet::new();
        while let Some(decision) = self.scheduler.poll_event() {
            let (Decision::Assign { job, .. }
            | Decision::Abandon { job, .. }
            | Decision::Strand { job }
            | Decision::GiveUp { job, .. }) = &decision;
            concerned.extend(self.jobs.get(job).map(|job| job.build));
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
        concerned
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

/// More compiles than are ever on their way from the shim to here.
const SENDING_AT_MOST: usize = 4_096;
