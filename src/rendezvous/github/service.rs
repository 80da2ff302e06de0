//! The rendezvous itself: artifacts of the run.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::{
    api::Rest,
    archive,
    catalogue::{Catalogue, Found},
    claims::BackendIds,
    http::{Ask, CallError, Service},
    name::{Pattern, Scope},
    policy::Budget,
    rest,
    run::{Access, ResultsAccess, Run},
    twirp,
};
use crate::{
    rendezvous::{
        BoxFuture, Entry, EntryName, Rendezvous, RendezvousError,
        ambient::{jitter, lock, now},
        retry::{Backoff, CALM, pace, swayed},
    },
    session::{MAX_SEALED, SessionName},
};

/// The artifacts of one attempt of a run.
#[derive(Debug)]
pub struct GitHub {
    run: Run,
    results: Option<(Service, BackendIds)>,
    rest: Option<Rest>,
    pub(super) blobs: Service,
    pub(super) catalogue: Mutex<Catalogue>,
    /// When to publish again, and why not now.
    pub(super) publishing: Mutex<(Backoff, String)>,
    /// What is left of a job's artifacts.
    pub(super) names: Mutex<Budget>,
    rejected: AtomicU32,
    polls: AtomicU32,
    lists: watch::Sender<u64>,
}

impl GitHub {
    /// Makes the clients; nothing is asked yet. A run may have several sessions: this is the node's own.
    pub fn new(run: Run, access: &Access, session: SessionName) -> Result<Self, RendezvousError> {
        let scope = Scope {
            attempt: run.attempt,
            session: run.session(),
        };
        let failed = |error: CallError| RendezvousError {
            doing: "use",
            what: describe(&run),
            source: error.into(),
        };
        let results = access.results.as_ref().map(results_service).transpose();
        let rest = access.rest.as_ref().map(Rest::new);
        let nowhere = http::Uri::from_static("https://blob.invalid");
        Ok(Self {
            results: results.map_err(failed)?,
            rest: rest.transpose().map_err(failed)?,
            blobs: Service::new("the artifact storage", &nowhere, None).map_err(failed)?,
            catalogue: Mutex::new(Catalogue::new(scope, session)),
            publishing: Mutex::default(),
            names: Mutex::new(Budget::of_names(now())),
            rejected: AtomicU32::new(0),
            polls: AtomicU32::new(0),
            lists: watch::channel(0).0,
            run,
        })
    }

    /// Counts the lists that were read: whoever looks for artifacts looks when it changes.
    pub fn lists(&self) -> watch::Receiver<u64> {
        self.lists.subscribe()
    }

    /// True when the results service does not accept our token any more. One refusal is not believed.
    pub fn has_expired(&self) -> bool {
        self.rejected.load(Ordering::Relaxed) >= REFUSALS
    }

    /// The name of an artifact of this attempt that is meant by `pattern` and can be downloaded, going by the last list.
    pub async fn released(&self, pattern: &Pattern) -> Option<String> {
        let found = lock(&self.catalogue).released(pattern);
        for artifact in found {
            // What earlier attempts left is listed too; its address is refused.
            let Some(owner) = &artifact.owner else {
                return Some(artifact.name);
            };
            if self.sign(owner, &artifact.name).await.is_ok() {
                return Some(artifact.name);
            }
        }
        None
    }

    /// How many primaries of the session were ever seen.
    pub fn primaries_seen(&self) -> usize {
        lock(&self.catalogue).primaries().len()
    }

    /// How the jobs of all primaries that were ever seen have ended; `None` while one has not, or nothing is known.
    pub async fn primaries_ended(&self) -> Option<String> {
        let primaries = lock(&self.catalogue).primaries().clone();
        if primaries.is_empty() {
            return None;
        }
        let rest = self.rest.as_ref()?;
        let jobs = rest
            .pages(|page| rest::jobs(&self.run, page), jobs_of)
            .await;
        let jobs = jobs
            .inspect_err(|error| tracing::debug!(%error, "no jobs"))
            .ok()?;
        let ended = primaries.iter().map(|(primary, start_ms)| {
            let jobs: Vec<_> = jobs.iter().filter(|job| job.runs(primary)).collect();
            rest::ended(&jobs, *start_ms)
        });
        let ended: Vec<&str> = ended.collect::<Option<_>>()?;
        ended.last().map(|conclusion| (*conclusion).to_owned())
    }

    fn failed(&self, doing: &'static str, error: CallError) -> RendezvousError {
        RendezvousError {
            doing,
            what: self.describe(),
            source: error.into(),
        }
    }

    /// The results service, as long as it accepts our token.
    pub(super) fn results(&self) -> Option<&(Service, BackendIds)> {
        self.results.as_ref().filter(|_| !self.has_expired())
    }

    pub(super) async fn call<T: serde::de::DeserializeOwned>(
        &self,
        call: &twirp::Call,
        repeatable: bool,
    ) -> Result<T, CallError> {
        let Some((service, _)) = self.results() else {
            return Err(CallError::Unauthorised { service: RESULTS });
        };
        let ask = Ask::post(&call.path, &call.body, MAX_LIST);
        let ask = if repeatable { ask } else { ask.once() };
        let answer = service.ask_json(&ask).await;
        match &answer {
            Err(CallError::Unauthorised { .. }) => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
            }
            Err(CallError::Paused { .. } | CallError::Broken { .. }) => {}
            Ok(_) | Err(_) => self.rejected.store(0, Ordering::Relaxed),
        }
        answer
    }

    async fn list_now(&self) -> Result<Vec<Entry>, CallError> {
        let found = match (self.results(), &self.rest) {
            (Some((_, ids)), _) => {
                let list: twirp::List = self.call(&twirp::list(ids), true).await?;
                this_run(ids, list)
            }
            (None, Some(rest)) => rest.artifacts(&self.run).await?,
            (None, None) => {
                return Err(CallError::Unauthorised { service: RESULTS });
            }
        };
        let mut catalogue = lock(&self.catalogue);
        catalogue.handle_list(found);
        self.lists.send_modify(|lists| *lists += 1);
        Ok(catalogue.entries(now()))
    }

    async fn fetch_now(&self, entry: &Entry) -> Result<Option<Vec<u8>>, CallError> {
        let Some(artifact) = lock(&self.catalogue).artifact(entry) else {
            return Ok(None);
        };
        let tries = lock(&self.catalogue).handle_fetch(artifact.id, jitter(), now());
        match self.download(&artifact).await {
            // It may have been damaged on its way. What is no zip file in the end is handed on as it is: nobody can open it, and
            // that is said.
            Ok(zip) => match archive::unpack(&zip, MAX_SEALED) {
                None if tries < DAMAGED => Ok(None),
                None => Ok(Some(zip)),
                sealed => Ok(sealed),
            },
            Err(CallError::Gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn download(&self, artifact: &Found) -> Result<Vec<u8>, CallError> {
        let address = match (&artifact.owner, &self.rest) {
            (Some(owner), _) => self.sign(owner, &artifact.name).await?,
            (None, Some(rest)) => rest.zip_address(&self.run, artifact.id).await?,
            (None, None) => return Err(CallError::Gone),
        };
        let answer = self.blobs.ask(&Ask::get(&address, MAX_BLOB)).await?;
        Ok(answer.body)
    }

    async fn sign(&self, owner: &BackendIds, name: &str) -> Result<String, CallError> {
        let signed: twirp::Signed = self.call(&twirp::signed_url(owner, name), true).await?;
        Ok(signed.signed_url)
    }
}

impl Rendezvous for GitHub {
    fn publish<'a>(
        &'a self,
        name: &'a EntryName,
        sealed: &'a [u8],
    ) -> BoxFuture<'a, Result<(), RendezvousError>> {
        Box::pin(async move {
            self.publish_now(name, sealed)
                .await
                .map_err(|error| self.failed("publish in", error))
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Entry>, RendezvousError>> {
        Box::pin(async move {
            self.polls.fetch_add(1, Ordering::Relaxed);
            self.list_now()
                .await
                .map_err(|error| self.failed("list", error))
        })
    }

    fn fetch<'a>(
        &'a self,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, RendezvousError>> {
        Box::pin(async move {
            self.fetch_now(entry)
                .await
                .map_err(|error| self.failed("read an entry of", error))
        })
    }

    /// An artifact lives as long as the run's others: there is nothing to renew, only to see that nobody deleted it.
    fn renew<'a>(&'a self, name: &'a EntryName) -> BoxFuture<'a, Result<bool, RendezvousError>> {
        let there = lock(&self.catalogue).still_there(name);
        Box::pin(async move { Ok(there) })
    }

    fn withdraw<'a>(&'a self, name: &'a EntryName) -> BoxFuture<'a, Result<(), RendezvousError>> {
        Box::pin(async move {
            let mine = lock(&self.catalogue).handle_withdrawn(name);
            self.delete(mine).await;
            Ok(())
        })
    }

    fn poll_interval(&self, quick: bool) -> Duration {
        let service = match (self.results(), &self.rest) {
            (Some((service, _)), _) => service.rest(),
            (None, Some(rest)) => rest.next(),
            (None, None) => Some(CALM),
        };
        let interval = if quick && self.results().is_none() {
            swayed(REST_POLL, jitter())
        } else {
            pace(quick, self.polls.load(Ordering::Relaxed), jitter())
        };
        interval.max(service.unwrap_or_default())
    }

    /// Everybody's answers fail now and then; what lasts is worth a warning.
    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn describe(&self) -> String {
        describe(&self.run)
    }
}

fn results_service(access: &ResultsAccess) -> Result<(Service, BackendIds), CallError> {
    let service = Service::new(RESULTS, &access.origin, Some(&access.token))?;
    Ok((service, access.ids.clone()))
}

/// Drops what the list says is of another attempt: each has a backend id of its own.
fn this_run(ids: &BackendIds, list: twirp::List) -> Vec<Found> {
    let ours = list
        .artifacts
        .into_iter()
        .filter(|listed| listed.workflow_run_backend_id == ids.run);
    ours.map(|listed| Found {
        id: listed.database_id,
        name: listed.name,
        owner: Some(BackendIds {
            run: listed.workflow_run_backend_id,
            job: listed.workflow_job_run_backend_id,
        }),
    })
    .collect()
}

fn jobs_of(page: rest::Jobs) -> Vec<rest::Job> {
    page.jobs
}

fn describe(run: &Run) -> String {
    format!("the artifacts of run {}, attempt {}", run.id, run.attempt)
}

pub(super) const RESULTS: &str = "GitHub's results service";

/// 401 three times running is an answer, not an accident.
const REFUSALS: u32 = 3;

/// A fifth damaged answer, a quarter of a minute after the first, is not an accident.
const DAMAGED: u32 = 5;

/// Three polls and what is tried again between them.
const PATIENCE: Duration = Duration::from_secs(15);

/// A thousand artifacts, with 4 KiB for each.
pub(super) const MAX_LIST: usize = 4 << 20;

/// A descriptor and the zip file around it.
const MAX_BLOB: usize = MAX_SEALED + (4 << 10);

/// Nothing new costs nothing, but 900 points a minute are everybody's.
const REST_POLL: Duration = Duration::from_secs(10);
