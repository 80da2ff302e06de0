//! The REST API: artifacts and jobs, where `GITHUB_TOKEN` is accepted.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use http::{HeaderValue, header};
use serde::de::DeserializeOwned;

use super::{
    catalogue::Found,
    http::{Answer, Ask, CallError, Service},
    policy::Budget,
    rest,
    run::{RestAccess, Run},
    service::MAX_LIST,
};
use crate::rendezvous::ambient::{lock, now};

#[derive(Debug)]
pub(super) struct Rest {
    service: Service,
    budget: Mutex<Budget>,
    /// The last answer for each path, by its ETag: an answer that has not changed costs nothing (RFC 9110 section 13.1.2).
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    etag: HeaderValue,
    body: Vec<u8>,
    more: bool,
}

impl Rest {
    pub(super) fn new(access: &RestAccess) -> Result<Self, CallError> {
        Ok(Self {
            service: Service::new("GitHub's API", &access.base, Some(&access.token))?,
            budget: Mutex::new(Budget::of_requests(now())),
            known: Mutex::default(),
        })
    }

    /// The run's artifacts that this attempt made.
    pub(super) async fn artifacts(&self, run: &Run) -> Result<Vec<Found>, CallError> {
        let path = rest::attempt(run);
        // When it began does not change.
        let known = lock(&self.known).get(&path).cloned();
        let began = match known {
            Some(known) => known,
            None => self.get(&path).await?,
        };
        let began: rest::Attempt = self.service.parse(&began.body)?;
        let artifacts = self
            .pages(
                |page| rest::artifacts(run, page),
                |page: rest::Artifacts| page.artifacts,
            )
            .await?;
        let ours = artifacts.into_iter().filter(|artifact| {
            // Both times are the server's. What is older than the attempt is an earlier one's.
            !artifact.expired && artifact.created_at >= began.run_started_at
        });
        let found = ours.map(|rest::Artifact { id, name, .. }| Found {
            id,
            name,
            owner: None,
        });
        Ok(found.collect())
    }

    /// Where an artifact can be downloaded, for a minute.
    pub(super) async fn zip_address(&self, run: &Run, artifact: u64) -> Result<String, CallError> {
        let answer = self.paid(&Ask::get(&rest::zip(run, artifact), 0)).await?;
        let location = answer.headers.get(header::LOCATION);
        let address = location.and_then(|location| location.to_str().ok());
        address.map(str::to_owned).ok_or(CallError::Gone)
    }

    /// All pages of something, few enough that a server that always has one more does not keep us.
    pub(super) async fn pages<P: DeserializeOwned, T>(
        &self,
        path: impl Fn(u32) -> String,
        items: impl Fn(P) -> Vec<T>,
    ) -> Result<Vec<T>, CallError> {
        let mut all = Vec::new();
        for page in 1..=MAX_PAGES {
            let known = self.get(&path(page)).await?;
            all.extend(items(self.service.parse(&known.body)?));
            if !known.more {
                break;
            }
        }
        Ok(all)
    }

    /// Gets a page, or what it was when it has not changed.
    async fn get(&self, path: &str) -> Result<Known, CallError> {
        let known = lock(&self.known).get(path).cloned();
        let mut ask = Ask::get(path, MAX_LIST).json();
        if let Some(known) = &known {
            ask = ask.with(header::IF_NONE_MATCH, known.etag.clone());
        }
        let answer = self.paid(&ask).await?;
        if let (true, Some(known)) = (answer.unchanged, known) {
            return Ok(known);
        }
        let link = answer.headers.get(header::LINK);
        let fresh = Known {
            more: link.is_some_and(|link| link.to_str().is_ok_and(rest::has_next)),
            etag: answer
                .headers
                .get(header::ETAG)
                .cloned()
                .unwrap_or(HeaderValue::from_static("\"\"")),
            body: answer.body,
        };
        lock(&self.known).insert(path.to_owned(), fresh.clone());
        Ok(fresh)
    }

    /// Makes a request that counts, unless there is nothing new.
    async fn paid(&self, ask: &Ask) -> Result<Answer, CallError> {
        if lock(&self.budget).rest(now()).is_some() {
            let because = "our share of GitHub's API is used up for now".to_owned();
            return Err(CallError::Resting { because });
        }
        let answer = self.service.ask(ask).await;
        if !answer.as_ref().is_ok_and(|answer| answer.unchanged) {
            lock(&self.budget).spend(now());
        }
        answer
    }

    /// How long to wait before anything more is asked.
    pub(super) fn next(&self) -> Option<Duration> {
        let budget = lock(&self.budget).rest(now());
        self.service.rest().max(budget)
    }
}

/// A thousand artifacts or jobs; a matrix has at most 256.
const MAX_PAGES: u32 = 10;
