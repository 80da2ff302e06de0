//! What is said to the results service, and what it answers: JSON in the form of Twirp. Pure.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::claims::BackendIds;

/// A call of the service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// The path to post to.
    pub(super) path: String,
    /// What to post.
    pub(super) body: Value,
}

/// Reserves a name.
pub(super) fn create(ids: &BackendIds, name: &str) -> Call {
    // Version 4 is a zip file; its time of deletion is left to the repository's settings.
    call(
        "CreateArtifact",
        ids,
        json!({"name": name, "version": VERSION}),
    )
}

/// Makes what was uploaded visible. `sha256` is of the blob, in hex.
pub(super) fn finalize(ids: &BackendIds, name: &str, size: usize, sha256: &str) -> Call {
    let rest = json!({"name": name, "size": size.to_string(), "hash": format!("sha256:{sha256}")});
    call("FinalizeArtifact", ids, rest)
}

/// Asks for all artifacts of the run.
pub(super) fn list(ids: &BackendIds) -> Call {
    call("ListArtifacts", ids, json!({}))
}

/// Asks where an artifact lies; `ids` are those of its uploader.
pub(super) fn signed_url(ids: &BackendIds, name: &str) -> Call {
    call("GetSignedArtifactURL", ids, json!({"name": name}))
}

/// Removes an artifact; `ids` are those of its uploader.
pub(super) fn delete(ids: &BackendIds, name: &str) -> Call {
    call("DeleteArtifact", ids, json!({"name": name}))
}

fn call(method: &str, ids: &BackendIds, mut body: Value) -> Call {
    body["workflow_run_backend_id"] = json!(ids.run);
    body["workflow_job_run_backend_id"] = json!(ids.job);
    Call {
        path: format!("/twirp/github.actions.results.api.v1.ArtifactService/{method}"),
        body,
    }
}

/// Answer to [`create`].
#[derive(Debug, Deserialize)]
pub(super) struct Created {
    #[serde(default)]
    pub(super) ok: bool,
    #[serde(default, alias = "signedUploadUrl")]
    pub(super) signed_upload_url: String,
}

/// Answer to [`finalize`].
#[derive(Debug, Deserialize)]
pub(super) struct Finalized {
    #[serde(default)]
    pub(super) ok: bool,
    #[serde(default, alias = "artifactId", deserialize_with = "int64")]
    pub(super) artifact_id: u64,
}

/// Answer to [`signed_url`].
#[derive(Debug, Deserialize)]
pub(super) struct Signed {
    #[serde(alias = "signedUrl")]
    pub(super) signed_url: String,
}

/// Answer to [`list`].
#[derive(Debug, Deserialize)]
pub(super) struct List {
    // Twirp leaves out what is empty.
    #[serde(default)]
    pub(super) artifacts: Vec<Listed>,
}

/// One artifact of a list.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Listed {
    #[serde(alias = "workflowRunBackendId")]
    pub(super) workflow_run_backend_id: String,
    #[serde(alias = "workflowJobRunBackendId")]
    pub(super) workflow_job_run_backend_id: String,
    #[serde(alias = "databaseId", deserialize_with = "int64")]
    pub(super) database_id: u64,
    pub(super) name: String,
}

/// What a service says of an error, in the way of either.
pub(super) fn trouble(body: &[u8]) -> String {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let words = said["msg"].as_str().or(said["message"].as_str());
    words.unwrap_or_default().to_owned()
}

/// An int64 is text in this form of JSON, and a number in others.
fn int64<'de, D: Deserializer<'de>>(value: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(value)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// The artifact version of a zip file; later ones need clients that know them.
const VERSION: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> BackendIds {
        BackendIds {
            run: "r".into(),
            job: "j".into(),
        }
    }

    #[test]
    fn numbers_of_64_bits_travel_as_text() {
        let call = finalize(&ids(), "n", 144, "ab");
        assert!(call.path.ends_with(".v1.ArtifactService/FinalizeArtifact"));
        assert_eq!(
            call.body,
            json!({"name": "n", "size": "144", "hash": "sha256:ab",
                "workflow_run_backend_id": "r", "workflow_job_run_backend_id": "j"})
        );
        let answer: Finalized =
            serde_json::from_str(r#"{"ok":true,"artifact_id":"1001"}"#).unwrap();
        assert!(answer.ok && answer.artifact_id == 1001);
    }

    #[test]
    fn an_error_is_told_in_the_words_of_either_service() {
        for body in [
            r#"{"code":"x","msg":"no"}"#,
            r#"{"message":"no","status":"403"}"#,
            r#"{"msg":"no","message":"other"}"#,
        ] {
            assert_eq!(trouble(body.as_bytes()), "no");
        }
        assert_eq!(trouble(b"<html>"), "");
    }

    #[test]
    fn a_list_may_be_empty_and_may_say_more_than_we_read() {
        let empty: List = serde_json::from_str("{}").unwrap();
        assert!(empty.artifacts.is_empty());
        let list: List = serde_json::from_value(json!({"artifacts": [{
            "workflow_run_backend_id": "r", "workflow_job_run_backend_id": "j", "database_id": "7",
            "name": "n", "size": "9", "created_at": {"seconds": 1}, "digest": {"value": "sha256:x"}}]}))
        .unwrap();
        assert_eq!(list.artifacts[0].database_id, 7);
    }
}
