//! The results service.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    Fault, Request, Response, Shared,
    store::{self, Artifact},
};

pub const METHODS: &[&str] = &[
    "CreateArtifact",
    "FinalizeArtifact",
    "ListArtifacts",
    "GetSignedArtifactURL",
    "DeleteArtifact",
];

/// Who asks, by the token.
struct Caller {
    run: String,
    job: String,
    attempt: u32,
}

pub fn answer(shared: &mut Shared, request: &Request, fault: Option<Fault>) -> Response {
    let method = request.path.rsplit('/').next().unwrap_or_default();
    let Some(caller) = caller(shared, request) else {
        return error(401, "unauthenticated", "invalid token");
    };
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return error(400, "malformed", "the json request could not be decoded");
    };
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    if text("workflow_run_backend_id") != caller.run && method == "GetSignedArtifactURL" {
        return error(404, "not_found", "artifact of an earlier attempt");
    }
    if text("workflow_run_backend_id") != caller.run {
        return error(401, "unauthenticated", "the run is another one");
    }
    let own_job = text("workflow_job_run_backend_id") == caller.job;
    let name = text("name");
    match method {
        "CreateArtifact" | "FinalizeArtifact" if !own_job => {
            error(401, "unauthenticated", "the job is another one")
        }
        "CreateArtifact" => create(shared, &caller, &name, fault),
        "FinalizeArtifact" => finalize(shared, &caller, &name, &body, fault),
        "ListArtifacts" => list(shared, &caller, &body, fault),
        "GetSignedArtifactURL" => signed(shared, &caller, &name, fault),
        "DeleteArtifact" => delete(shared, &caller, &name),
        _ => error(404, "bad_route", "no such method"),
    }
}

fn caller(shared: &Shared, request: &Request) -> Option<Caller> {
    let token = request
        .headers
        .get("authorization")?
        .strip_prefix("Bearer ")?;
    let [_, payload, super::SIGNATURE] = token.split('.').collect::<Vec<_>>()[..] else {
        return None;
    };
    let claims: Value =
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    if claims["exp"].as_i64()? < shared.store.now() - shared.store.skew {
        return None;
    }
    let scopes = claims["scp"].as_str()?;
    let scope = scopes
        .split(' ')
        .find_map(|scope| scope.strip_prefix("Actions.Results:"))?;
    let (run, job) = scope.split_once(':')?;
    let attempt = job.split('-').nth(1)?.parse().ok()?;
    Some(Caller {
        run: run.to_owned(),
        job: job.to_owned(),
        attempt,
    })
}

fn create(shared: &mut Shared, caller: &Caller, name: &str, fault: Option<Fault>) -> Response {
    if name.is_empty() || name.contains(['"', ':', '<', '>', '|', '*', '?', '\r', '\n', '\\', '/'])
    {
        return error(400, "invalid_argument", "artifact name is not valid");
    }
    let taken =
        |a: &&Artifact| a.attempt == caller.attempt && a.name == name && (!a.deleted || a.burned);
    if shared
        .store
        .artifacts
        .iter()
        .any(|artifact| taken(&artifact))
    {
        return error(
            409,
            "already_exists",
            "an artifact with this name already exists on the workflow run",
        );
    }
    let id = shared.store.add(Artifact {
        name: name.to_owned(),
        attempt: caller.attempt,
        run: caller.run.clone(),
        job: caller.job.clone(),
        ..Artifact::default()
    });
    let lifetime = if fault == Some(Fault::SignedExpired) {
        -60
    } else {
        3600
    };
    let url = shared.sign(id, "cw", lifetime);
    Response::json(200, &json!({"ok": true, "signed_upload_url": url}))
}

fn finalize(
    shared: &mut Shared,
    caller: &Caller,
    name: &str,
    body: &Value,
    fault: Option<Fault>,
) -> Response {
    let same = |a: &&mut Artifact| {
        a.attempt == caller.attempt && a.name == name && a.job == caller.job && !a.deleted
    };
    let Some(artifact) = shared.store.artifacts.iter_mut().rev().find(same) else {
        return error(404, "not_found", "no such artifact");
    };
    if artifact.burned || fault == Some(Fault::BurnedName) {
        artifact.burned = true;
        return error(500, "internal", "could not finalize");
    }
    let size = body["size"]
        .as_str()
        .and_then(|size| size.parse::<usize>().ok());
    if size.is_none() || (!artifact.append && size != Some(artifact.blob.len())) {
        return error(
            400,
            "invalid_argument",
            "size does not match what was uploaded",
        );
    }
    let repeated = artifact.finalized;
    artifact.finalized = true;
    artifact.digest = match fault {
        Some(Fault::WrongDigest) => format!("sha256:{}", "0".repeat(64)),
        _ => body["hash"].as_str().unwrap_or_default().to_owned(),
    };
    artifact.deleted = matches!(fault, Some(Fault::Deleted | Fault::Replaced));
    let (mut id, copy) = (artifact.id, artifact.clone());
    if repeated || fault == Some(Fault::DuplicateName) {
        id = shared.store.add(copy.clone());
    }
    if fault == Some(Fault::Replaced) {
        let blob = b"PK\x03\x04 not what you think".to_vec();
        let job = "job-0-stranger".to_owned();
        shared.store.add(Artifact {
            blob,
            job,
            deleted: false,
            ..copy
        });
    }
    Response::json(200, &json!({"ok": true, "artifact_id": id.to_string()}))
}

fn list(shared: &Shared, caller: &Caller, body: &Value, fault: Option<Fault>) -> Response {
    let wanted = |artifact: &&Artifact| {
        let name = body["name_filter"]
            .as_str()
            .is_none_or(|name| name == artifact.name);
        let id = body["id_filter"]
            .as_str()
            .is_none_or(|id| id == artifact.id.to_string());
        artifact.is_visible() && artifact.attempt <= caller.attempt && name && id
    };
    let mut listed: Vec<Value> = shared
        .store
        .artifacts
        .iter()
        .filter(wanted)
        .map(shown)
        .collect();
    match fault {
        Some(Fault::StaleList) => listed.clear(),
        Some(Fault::PartialList) => listed.truncate(listed.len() / 2),
        _ => {}
    }
    if listed.is_empty() {
        return Response::json(200, &json!({}));
    }
    Response::json(200, &json!({ "artifacts": listed }))
}

fn shown(artifact: &Artifact) -> Value {
    json!({
        "workflow_run_backend_id": artifact.run,
        "workflow_job_run_backend_id": artifact.job,
        "database_id": artifact.id.to_string(),
        "name": artifact.name,
        "size": artifact.blob.len().to_string(),
        "created_at": store::rfc3339(artifact.created),
        "digest": artifact.digest,
    })
}

fn signed(shared: &mut Shared, caller: &Caller, name: &str, fault: Option<Fault>) -> Response {
    let found = shared
        .store
        .visible(caller.attempt, name)
        .map(|artifact| artifact.id);
    let Some(id) = found.filter(|_| fault != Some(Fault::SignedGone)) else {
        return error(404, "not_found", "artifact not found");
    };
    let lifetime = if fault == Some(Fault::SignedExpired) {
        -60
    } else {
        600
    };
    Response::json(200, &json!({"signed_url": shared.sign(id, "r", lifetime)}))
}

fn delete(shared: &mut Shared, caller: &Caller, name: &str) -> Response {
    let Some(artifact) = shared.store.visible(caller.attempt, name) else {
        return error(404, "not_found", "artifact not found");
    };
    artifact.deleted = true;
    let id = artifact.id.to_string();
    Response::json(200, &json!({"ok": true, "artifact_id": id}))
}

fn error(status: u16, code: &str, msg: &str) -> Response {
    Response::json(status, &json!({"code": code, "msg": msg}))
}
