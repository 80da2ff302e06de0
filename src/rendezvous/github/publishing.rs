//! Publishing: Create, one PUT, Finalize; another name where one was burned.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::{
    GitHub, archive,
    catalogue::Found,
    http::{Ask, CallError},
    service::RESULTS,
    twirp,
};
use crate::rendezvous::{
    EntryName,
    ambient::{jitter, lock, now},
};

impl GitHub {
    /// Publishes, unless the last failure is too fresh.
    pub(super) async fn publish_now(
        &self,
        name: &EntryName,
        sealed: &[u8],
    ) -> Result<(), CallError> {
        let (backoff, because) = lock(&self.publishing).clone();
        if backoff.rest(now()).is_some() {
            return Err(CallError::Resting { because });
        }
        let pause = self.results().and_then(|(service, _)| service.rest());
        if pause.is_some() {
            // Not even a name is spent.
            return Err(CallError::Paused { service: RESULTS });
        }
        let published = self.upload(name, sealed).await;
        let (backoff, because) = &mut *lock(&self.publishing);
        match &published {
            Ok(()) => backoff.handle_success(),
            Err(error) => {
                let full = matches!(error, CallError::Quota);
                let least = if full { QUOTA_PAUSE } else { Duration::ZERO };
                backoff.handle_failure(least, jitter(), now());
                *because = error.to_string();
            }
        }
        published
    }

    /// Uploads under the first name that works: one whose Finalize failed is burned, and so is one that a lost answer took.
    async fn upload(&self, entry: &EntryName, sealed: &[u8]) -> Result<(), CallError> {
        let zip = archive::pack(FILE, sealed);
        let mut last = CallError::Taken;
        for _ in 0..NAMES {
            self.spend_name()?;
            let name = lock(&self.catalogue).fresh_name(entry);
            match self.upload_as(&name, &zip).await {
                Ok(artifact) => {
                    let older = lock(&self.catalogue).handle_published(entry, artifact);
                    self.delete(older).await;
                    return Ok(());
                }
                // Another name would not help.
                Err(
                    error @ (CallError::Paused { .. }
                    | CallError::Quota
                    | CallError::Unauthorised { .. }),
                ) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn spend_name(&self) -> Result<(), CallError> {
        let mut names = lock(&self.names);
        if names.rest(now()).is_some() {
            let because = "this job has made so many artifacts that it has to wait".to_owned();
            return Err(CallError::Resting { because });
        }
        names.spend(now());
        Ok(())
    }

    async fn upload_as(&self, name: &str, zip: &[u8]) -> Result<Found, CallError> {
        let refused = |what: &str| CallError::Broken {
            service: RESULTS,
            trouble: format!("did not {what} the artifact"),
        };
        let Some((_, ids)) = self.results() else {
            return Err(CallError::Unauthorised { service: RESULTS });
        };
        let created: twirp::Created = self.call(&twirp::create(ids, name), false).await?;
        if !created.ok {
            return Err(refused("create"));
        }
        let put = Ask::put(&created.signed_upload_url, zip.to_vec())
            .with(BLOB_TYPE, HeaderValue::from_static("BlockBlob"))
            // Without it other clients do not unpack what they download.
            .with(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
        self.blobs.ask(&put).await?;
        let sha256: String = Sha256::digest(zip)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let finalize = twirp::finalize(ids, name, zip.len(), &sha256);
        let finalized: twirp::Finalized = self.call(&finalize, false).await?;
        if !finalized.ok {
            return Err(refused("finalize"));
        }
        Ok(Found {
            id: finalized.artifact_id,
            name: name.to_owned(),
            owner: Some(ids.clone()),
        })
    }

    /// What cannot be deleted goes with the run's other artifacts, when their time is over.
    pub(super) async fn delete(&self, artifacts: Vec<Found>) {
        for Found { name, owner, .. } in artifacts {
            let Some(owner) = owner else { continue };
            let deleted: Result<serde_json::Value, _> =
                self.call(&twirp::delete(&owner, &name), false).await;
            if let Err(error) = deleted {
                tracing::debug!(%error, "an artifact of ours stays");
            }
        }
    }
}

const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
const CONTENT_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-content-type");

/// What is inside the zip file.
const FILE: &str = "descriptor";

/// Names that one publication may burn before it rests.
const NAMES: u32 = 3;

/// A full storage is emptied by a person, if at all.
const QUOTA_PAUSE: Duration = Duration::from_secs(15 * 60);
