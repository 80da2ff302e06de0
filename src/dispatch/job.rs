//! The task behind one client: a request, its attempts, one answer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    attempt::{AttemptFailure, Request, Response, attempt, write_spool},
    frontend::{Shared, lock, now},
    scheduler::JobId,
    state::Order,
};
use crate::{
    distcc::hand_back_answer,
    event::{JobOutcome, JobRecord},
    session::PeerId,
};

/// One client and its attempts.
pub(super) struct Job {
    end: JobEnd,
    record: JobRecord,
    shared: Arc<Shared>,
    id: JobId,
    request: Arc<Request>,
    arrived: Instant,
    /// Dropping them aborts the compiles.
    attempts: JoinSet<Attempted>,
    handles: BTreeMap<PeerId, AbortHandle>,
}

/// How an attempt ended.
struct Attempted {
    worker: PeerId,
    began: Instant,
    result: Result<Response, AttemptFailure>,
}

/// One thing that happened to a job.
enum Happened {
    Order(Option<Order>),
    ClientGone,
    Ended(Attempted),
    Abandoned,
}

impl Job {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: JobId,
        request: Request,
        source_bytes: Option<u64>,
        prepared: Duration,
    ) -> Self {
        let record = JobRecord {
            job: id.0,
            compiler: request.parser.arguments().compiler(),
            source: request.parser.arguments().source(),
            source_bytes,
            worker: None,
            outcome: JobOutcome::Cancelled,
            attempts: 0,
            hedged: false,
            prepared,
            queued: Duration::ZERO,
            ran: Duration::ZERO,
            bytes_up: request.len(),
            bytes_down: 0,
        };
        Self {
            end: JobEnd {
                shared: shared.clone(),
                id,
            },
            record,
            shared,
            id,
            request: Arc::new(request),
            arrived: Instant::now(),
            attempts: JoinSet::new(),
            handles: BTreeMap::new(),
        }
    }

    /// Serves the client until it has its answer or goes away; what became of the job.
    pub(super) async fn run(
        mut self,
        mut client: TcpStream,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) -> JobRecord {
        loop {
            let mut byte = [0];
            let happened = tokio::select! { biased;
                order = orders.recv() => Happened::Order(order),
                Some(ended) = self.attempts.join_next() => match ended {
                    Ok(ended) => Happened::Ended(ended),
                    Err(aborted) if aborted.is_cancelled() => Happened::Abandoned,
                    // distcc tries again, and then here.
                    Err(_) => Happened::ClientGone,
                },
                _ = client.read(&mut byte) => Happened::ClientGone,
            };
            match happened {
                Happened::Order(Some(Order::Attempt {
                    worker,
                    compiler,
                    hedge,
                })) => {
                    self.record.attempts += 1;
                    self.record.hedged |= hedge;
                    self.attempt(worker, compiler);
                }
                Happened::Order(Some(Order::Abandon { worker })) => {
                    let handle = self.handles.remove(&worker);
                    handle.into_iter().for_each(|handle| handle.abort());
                }
                Happened::Order(Some(Order::HandBack(outcome))) => {
                    return self.hand_back(client, outcome).await;
                }
                Happened::Ended(Attempted {
                    worker,
                    began,
                    result: Ok(response),
                }) => {
                    // The others end with the set.
                    self.attempts = JoinSet::new();
                    let ran = began.elapsed();
                    self.record.queued = began - self.arrived;
                    self.record.ran = ran;
                    {
                        let mut state = lock(&self.shared.state);
                        self.record.worker = state.worker_name(worker);
                        state.handle_done(self.id, worker, ran, now());
                    }
                    return self.answer(client, &response).await;
                }
                Happened::Ended(Attempted {
                    worker,
                    result: Err(failure),
                    ..
                }) => self.handle_failure(worker, &failure),
                Happened::Abandoned => {}
                Happened::ClientGone | Happened::Order(None) => return self.record,
            }
        }
    }

    fn attempt(&mut self, worker: PeerId, compiler: String) {
        let (shared, request) = (self.shared.clone(), self.request.clone());
        let began = Instant::now();
        let handle = self.attempts.spawn(async move {
            let (transport, spill) = (&*shared.transport, &shared.spill);
            let result = attempt(transport, worker, &compiler, &request, spill).await;
            Attempted {
                worker,
                began,
                result,
            }
        });
        self.handles.insert(worker, handle);
    }

    fn handle_failure(&mut self, worker: PeerId, failure: &AttemptFailure) {
        self.handles.remove(&worker);
        let mut state = lock(&self.shared.state);
        let name = state.worker_name(worker);
        tracing::info!(job = self.id.0, worker = name, %failure, "attempt failed");
        state.handle_attempt_failed(self.id, worker, &failure.to_string(), now());
    }

    async fn answer(mut self, mut client: TcpStream, response: &Response) -> JobRecord {
        // First: when the client has ended, no load may count its job.
        drop(self.end);
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

    async fn hand_back(mut self, mut client: TcpStream, outcome: JobOutcome) -> JobRecord {
        self.attempts = JoinSet::new();
        drop(self.end);
        let answer = hand_back_answer(self.request.parser.version());
        if let Err(error) = client.write_all(&answer).await {
            tracing::debug!(job = self.id.0, %error, "the client did not wait for its job");
        }
        self.record.worker = None;
        self.record.outcome = outcome;
        self.record
    }
}

/// Takes the job out of the scheduler however its task ends.
struct JobEnd {
    shared: Arc<Shared>,
    id: JobId,
}

impl Drop for JobEnd {
    fn drop(&mut self) {
        lock(&self.shared.state).handle_end(self.id, now());
    }
}
