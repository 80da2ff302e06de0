//! The REST API.

use serde_json::{Value, json};

use super::{
    Fault, GITHUB_TOKEN, REPOSITORY, RUN, Request, Response, Shared,
    store::{self, Artifact},
};

pub fn answer(shared: &mut Shared, request: &Request, fault: Option<Fault>) -> Response {
    let token = request.headers.get("authorization");
    if token.map(String::as_str) != Some(&format!("Bearer {GITHUB_TOKEN}")) {
        return message(401, "Bad credentials");
    }
    let left = shared.store.remaining.unwrap_or(1000);
    let reset = shared.store.now() + 1800;
    let limits = |response: Response, left: u32| {
        response
            .with("x-ratelimit-limit", "1000")
            .with("x-ratelimit-remaining", left.to_string())
            .with("x-ratelimit-reset", reset.to_string())
    };
    if left == 0 {
        return limits(message(403, "API rate limit exceeded"), 0);
    }
    let response = conditional(route(shared, request, fault), request);
    let left = if response.status == 304 {
        left
    } else {
        left - 1
    };
    shared.store.remaining = Some(left);
    limits(response, left)
}

fn route(shared: &mut Shared, request: &Request, fault: Option<Fault>) -> Response {
    let base = format!("/repos/{REPOSITORY}/actions/");
    // An Enterprise Server has its API below a path.
    let path = request
        .path
        .strip_prefix("/api/v3")
        .unwrap_or(&request.path);
    let Some(path) = path.strip_prefix(&base) else {
        return message(404, "Not Found");
    };
    let run = RUN.to_string();
    match path.split('/').collect::<Vec<_>>()[..] {
        ["runs", id, "artifacts"] if id == run => artifacts(shared, request, fault),
        ["runs", id, "attempts", attempt] if id == run => {
            let number = attempt.parse().unwrap_or(0);
            let began = store::rfc3339(shared.store.began(number));
            let body = json!({"id": RUN, "run_attempt": number, "status": "in_progress", "run_started_at": began});
            Response::json(200, &body)
        }
        ["runs", id, "attempts", _, "jobs"] if id == run => {
            let jobs = &shared.store.jobs;
            Response::json(200, &json!({"total_count": jobs.len(), "jobs": jobs}))
        }
        ["artifacts", id] => with_artifact(shared, id, |_, artifact| {
            Response::json(200, &shown(artifact))
        }),
        ["artifacts", id, "zip"] => with_artifact(shared, id, |shared, artifact| {
            if artifact.expired {
                return message(410, "Artifact has expired");
            }
            Response::empty(302).with("location", shared.sign(artifact.id, "r", 60))
        }),
        _ => message(404, "Not Found"),
    }
}

fn with_artifact(
    shared: &mut Shared,
    id: &str,
    answer: impl Fn(&Shared, &Artifact) -> Response,
) -> Response {
    let found = id
        .parse()
        .ok()
        .and_then(|id| shared.store.by_id(id).cloned());
    match found.filter(Artifact::is_visible) {
        Some(artifact) => answer(shared, &artifact),
        None => message(404, "Not Found"),
    }
}

fn artifacts(shared: &Shared, request: &Request, fault: Option<Fault>) -> Response {
    let number = |name: &str, default| {
        request
            .query
            .get(name)
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    };
    let (size, page) = (number("per_page", 30).min(100), number("page", 1));
    let named = |a: &&Artifact| request.query.get("name").is_none_or(|name| *name == a.name);
    let visible = shared
        .store
        .artifacts
        .iter()
        .rev()
        .filter(|a| a.is_visible());
    let mut all: Vec<Value> = visible.filter(named).map(shown).collect();
    match fault {
        Some(Fault::StaleList) => all.clear(),
        Some(Fault::PartialList) => all.truncate(all.len() / 2),
        _ => {}
    }
    let total = all.len();
    let from = ((page - 1) * size).min(total);
    let to = (from + size).min(total);
    let response = Response::json(
        200,
        &json!({"total_count": total, "artifacts": all[from..to]}),
    );
    if to == total {
        return response;
    }
    let next = format!(
        "<{}{}?per_page={size}&page={}>; rel=\"next\"",
        shared.api,
        request.path,
        page + 1
    );
    response.with("link", next)
}

fn shown(artifact: &Artifact) -> Value {
    json!({
        "id": artifact.id,
        "name": artifact.name,
        "size_in_bytes": artifact.blob.len(),
        "expired": artifact.expired,
        "created_at": store::rfc3339(artifact.created),
        "digest": artifact.digest,
    })
}

fn conditional(response: Response, request: &Request) -> Response {
    if response.status != 200 {
        return response;
    }
    let etag = format!("W/\"{}\"", store::sha256(&response.body));
    if request.headers.get("if-none-match") == Some(&etag) {
        return Response::empty(304).with("etag", etag);
    }
    response.with("etag", etag)
}

fn message(status: u16, text: &str) -> Response {
    Response::json(status, &json!({"message": text}))
}
