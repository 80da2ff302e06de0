//! A fake GitHub: the results service, the REST API and the blob store, each at an origin of its own, on loopback.
//!
//! Blocking threads, one a connection: the least code that can also answer wrongly on purpose. What it does is what the facts
//! say of the real one: a namespace per attempt, 409 from Create onward, listed only after Finalize, signed addresses with
//! permissions and an end, conditional and ranged requests, rate limits. [`Fault`] names what it can do wrong.

mod blob;
mod faults;
mod rest;
mod results;
mod store;
mod wire;

use std::{
    collections::BTreeMap,
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub use faults::{Fault, Faults};
pub use store::{Artifact, Store};
use wire::{Request, Response};

/// A running fake; it ends with its process.
#[derive(Clone)]
pub struct Fake {
    /// Base of the REST API.
    pub api: String,
    /// Origin of the results service.
    pub results: String,
    /// Origin of the blob store.
    pub blobs: String,
    shared: Arc<Mutex<Shared>>,
}

/// What the three origins share.
pub struct Shared {
    pub store: Store,
    pub faults: Faults,
    pub counts: BTreeMap<String, u32>,
    blobs: String,
    api: String,
}

impl Fake {
    /// Starts the three origins at free ports.
    pub fn start() -> Self {
        let [api, results, blobs] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let at = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let fake = Self {
            api: at(&api),
            results: at(&results),
            blobs: at(&blobs),
            shared: Arc::new(Mutex::new(Shared {
                store: Store::default(),
                faults: Faults::default(),
                counts: BTreeMap::new(),
                blobs: at(&blobs),
                api: at(&api),
            })),
        };
        fake.serve(api, rest::answer);
        fake.serve(results, results::answer);
        fake.serve(blobs, blob::answer);
        fake
    }

    fn serve(&self, listener: TcpListener, answer: Answer) {
        let fake = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let fake = fake.clone();
                thread::spawn(move || fake.converse(stream, answer));
            }
        });
    }

    fn converse(&self, stream: TcpStream, answer: Answer) {
        // A peer that hangs up is no news.
        let _ = wire::converse(stream, |request| self.respond(&request, answer));
    }

    fn respond(&self, request: &Request, answer: Answer) -> Response {
        let mut shared = self.lock();
        if request.path.starts_with("/_fake/") {
            return shared.control(request);
        }
        let (endpoint, label) = endpoint(request);
        let fault = shared.faults.draw(endpoint);
        let refused = fault.and_then(Fault::refusal);
        let response = match refused {
            Some(refused) => refused,
            None => answer(&mut shared, request, fault),
        };
        let response = match fault {
            Some(fault) => fault.deliver(response),
            None => response,
        };
        let counted = match response.status {
            304 => format!("{label} (304)"),
            _ => label,
        };
        *shared.counts.entry(counted).or_default() += 1;
        response
    }

    /// The state, to look at or to change.
    pub fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The variables that a runner gives to a job.
    pub fn env(&self, attempt: u32, job: &str) -> Vec<(&'static str, String)> {
        self.lock().store.began(attempt);
        vec![
            ("GITHUB_ACTIONS", "true".into()),
            ("GITHUB_REPOSITORY", REPOSITORY.into()),
            ("GITHUB_RUN_ID", RUN.to_string()),
            ("GITHUB_RUN_ATTEMPT", attempt.to_string()),
            ("GITHUB_API_URL", self.api.clone()),
            ("GITHUB_TOKEN", GITHUB_TOKEN.into()),
            ("ACTIONS_RESULTS_URL", format!("{}/", self.results)),
            ("ACTIONS_RUNTIME_TOKEN", self.token(attempt, job)),
            ("RUNNER_NAME", format!("GitHub Actions {job}")),
        ]
    }

    /// A job's runtime token.
    pub fn token(&self, attempt: u32, job: &str) -> String {
        self.lock().token(attempt, job)
    }

    /// How often each endpoint was asked.
    pub fn counts(&self) -> BTreeMap<String, u32> {
        self.lock().counts.clone()
    }

    /// All REST requests that were answered with something new: those count against the quota.
    pub fn charged(&self) -> u32 {
        let charged = |name: &&String| name.starts_with("rest ") && !name.ends_with("(304)");
        let counts = self.counts();
        counts.keys().filter(charged).map(|name| counts[name]).sum()
    }
}

impl Shared {
    fn token(&self, attempt: u32, job: &str) -> String {
        let run = self.store.run_backend(attempt);
        let part = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let head = part(json!({"alg": "RS256", "typ": "JWT"}));
        let scope = format!("Actions.GenericRead:0 Actions.Results:{run}:job-{attempt}-{job}");
        let claims = part(json!({"scp": scope, "exp": store::unix_seconds() + 6 * 3600}));
        format!("{head}.{claims}.{SIGNATURE}")
    }

    /// What another process may ask of the fake itself.
    fn control(&mut self, request: &Request) -> Response {
        match request.path.as_str() {
            "/_fake/counts" => Response::json(200, &json!(self.counts)),
            "/_fake/jobs" => {
                self.store.jobs = serde_json::from_slice(&request.body).unwrap_or_default();
                Response::json(200, &json!({}))
            }
            "/_fake/fault" => {
                let name = request
                    .query
                    .get("name")
                    .and_then(|name| Fault::by_name(name));
                let times = request.query.get("times").and_then(|n| n.parse().ok());
                let Some(fault) = name else {
                    return Response::json(404, &json!({"faults": Fault::NAMES}));
                };
                self.faults.add(fault, times.unwrap_or(1));
                Response::json(200, &json!({}))
            }
            "/_fake/token" => {
                let get = |name: &str| request.query.get(name).cloned().unwrap_or_default();
                let token = self.token(get("attempt").parse().unwrap_or(1), &get("job"));
                Response::json(200, &json!({ "token": token }))
            }
            _ => Response::json(404, &json!({})),
        }
    }

    /// An address in the blob store: permissions `sp`, until `se`.
    fn sign(&self, artifact: u64, permissions: &str, seconds: i64) -> String {
        let end = store::rfc3339(self.store.now() + seconds);
        let blobs = &self.blobs;
        format!(
            "{blobs}/blob/{artifact}?se={}&sp={permissions}&sig=c2VjcmV0LXNpZ25hdHVyZQ%3D%3D",
            end.replace(':', "%3A")
        )
    }
}

type Answer = fn(&mut Shared, &Request, Option<Fault>) -> Response;

/// The endpoint of a request, and how it is counted.
fn endpoint(request: &Request) -> (&'static str, String) {
    let path = request.path.as_str();
    let known = |name: &'static str| (name, name.to_owned());
    if let Some(method) = path
        .rsplit_once("ArtifactService/")
        .map(|(_, method)| method)
    {
        let method = results::METHODS.iter().find(|known| **known == method);
        return method.map_or(known("other"), |method| {
            (*method, format!("results {method}"))
        });
    }
    if path.starts_with("/blob/") {
        return match request.method.as_str() {
            "PUT" => ("put", "blob put".to_owned()),
            _ => ("get", "blob get".to_owned()),
        };
    }
    match path {
        _ if path.ends_with("/artifacts") => ("rest", "rest artifacts".to_owned()),
        _ if path.ends_with("/zip") => ("rest", "rest zip".to_owned()),
        _ if path.ends_with("/jobs") => ("rest", "rest jobs".to_owned()),
        _ if path.contains("/attempts/") => ("rest", "rest attempt".to_owned()),
        _ => ("other", "rest other".to_owned()),
    }
}

pub const REPOSITORY: &str = "octo/project";
pub const RUN: u64 = 12_345_678_901;
pub const GITHUB_TOKEN: &str = "ghs_0123456789abcdefFAKE";
const SIGNATURE: &str = "ZmFrZS1zaWduYXR1cmU";
