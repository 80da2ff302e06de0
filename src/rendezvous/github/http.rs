//! Requests over octocrab's client, under the one policy.

use std::{
    error::Error,
    fmt, io,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Limited};
use octocrab::Octocrab;
use serde::de::DeserializeOwned;

use super::{
    policy::{self, Reply, Verdict},
    run::Token,
    twirp,
};
use crate::rendezvous::{
    ambient::{jitter, lock, now},
    retry::{self, Backoff},
};

/// One service, and what it told us of its limits.
pub(super) struct Service {
    client: Octocrab,
    name: &'static str,
    pause: Mutex<Backoff>,
}

/// A request that can be made again.
pub(super) struct Ask {
    method: Method,
    uri: String,
    headers: HeaderMap,
    body: Vec<u8>,
    limit: usize,
    json: bool,
    repeatable: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) unchanged: bool,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer. Its words never name an address or a credential.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    // Without the time: a person is told the same thing once.
    #[error("{service} wants fewer requests")]
    Paused { service: &'static str },
    #[error("{because}")]
    Resting { because: String },
    #[error("{service} does not accept this job's token: it has expired, or is of another run")]
    Unauthorised { service: &'static str },
    #[error("the account's artifact storage is full")]
    Quota,
    #[error("it is not there")]
    Gone,
    #[error("the name is taken")]
    Taken,
    #[error("{service} refused with {status}: {message}")]
    Refused {
        service: &'static str,
        status: u16,
        message: String,
    },
    #[error("{service} {trouble}")]
    Broken {
        service: &'static str,
        trouble: String,
    },
}

impl Service {
    /// A service at `base`; `token` is shown to nobody else.
    pub(super) fn new(
        name: &'static str,
        base: &Uri,
        token: Option<&Token>,
    ) -> Result<Self, CallError> {
        let broken = |error: octocrab::Error| CallError::Broken {
            service: name,
            trouble: format!("cannot be used: {}", innermost(&error)),
        };
        let mut builder = Octocrab::builder().base_uri(base.clone()).map_err(broken)?;
        if let Some(token) = token {
            builder = builder.personal_token(token.expose().to_owned());
        }
        Ok(Self {
            client: builder.build().map_err(broken)?,
            name,
            pause: Mutex::default(),
        })
    }

    /// How long the service wants to be left alone.
    pub(super) fn rest(&self) -> Option<Duration> {
        lock(&self.pause).rest(now())
    }

    /// Asks, again if need be.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Answer, CallError> {
        let service = self.name;
        if self.rest().is_some() {
            return Err(CallError::Paused { service });
        }
        let mut tries = 1;
        loop {
            let came = self.once(ask).await;
            let verdict = came
                .as_ref()
                .map_or(Verdict::Again, |(reply, _)| policy::judge(reply));
            let retry = retry::again(tries, jitter()).filter(|_| ask.repeatable);
            match (verdict, retry) {
                (Verdict::Again, Some(wait)) => tokio::time::sleep(wait).await,
                (verdict, _) => return self.conclude(verdict, came),
            }
            tries += 1;
        }
    }

    /// Asks for JSON.
    pub(super) async fn ask_json<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T, CallError> {
        self.parse(&self.ask(ask).await?.body)
    }

    /// Reads JSON.
    pub(super) fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, CallError> {
        // The mistake's own words would quote the answer, which may hold a signed address.
        serde_json::from_slice(body)
            .map_err(|_| self.broken("answered something else than was asked for".to_owned()))
    }

    fn conclude(
        &self,
        verdict: Verdict,
        outcome: Result<(Reply, Answer), String>,
    ) -> Result<Answer, CallError> {
        let (reply, mut answer) = match outcome {
            Ok(came) => came,
            Err(trouble) => return Err(self.broken(trouble)),
        };
        let service = self.name;
        tracing::debug!(service, status = reply.status, ?verdict, "answered");
        match verdict {
            Verdict::Good | Verdict::Unchanged => {
                lock(&self.pause).handle_success();
                answer.unchanged = verdict == Verdict::Unchanged;
                Ok(answer)
            }
            Verdict::Slower(wait) => {
                let least = wait.unwrap_or_default();
                lock(&self.pause).handle_failure(least, jitter(), now());
                Err(CallError::Paused { service })
            }
            Verdict::Again => Err(self.broken(format!("answers {}", reply.status))),
            Verdict::Quota => Err(CallError::Quota),
            Verdict::Unauthorised => Err(CallError::Unauthorised { service }),
            Verdict::Gone => Err(CallError::Gone),
            Verdict::Taken => Err(CallError::Taken),
            Verdict::Refused => Err(CallError::Refused {
                service,
                status: reply.status,
                message: reply.message,
            }),
        }
    }

    fn broken(&self, trouble: String) -> CallError {
        let service = self.name;
        CallError::Broken { service, trouble }
    }

    /// One request and its whole answer, within a fixed time.
    async fn once(&self, ask: &Ask) -> Result<(Reply, Answer), String> {
        let service = self.name;
        tracing::debug!(service, method = %ask.method, "asking");
        match tokio::time::timeout(DEADLINE, self.exchange(ask)).await {
            Ok(came) => came,
            Err(_) => Err(format!(
                "did not answer within {}",
                humantime::format_duration(DEADLINE)
            )),
        }
    }

    async fn exchange(&self, ask: &Ask) -> Result<(Reply, Answer), String> {
        let trouble = |error: &dyn Error| format!("is out of reach: {}", innermost(error));
        let mut request = Request::new(ask.body.clone());
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask
            .uri
            .parse()
            .map_err(|_| "named an unusable address".to_owned())?;
        *request.headers_mut() = ask.headers.clone();
        let response = self.client.execute(request).await;
        let (parts, body) = response.map_err(|error| trouble(&error))?.into_parts();
        let body = Limited::new(body, ask.limit).collect().await;
        let body = body.map_err(|error| trouble(error.as_ref()))?.to_bytes();
        if ask.json && parts.status.is_success() && !is_json(&body) {
            return Err("answered something that is no JSON".to_owned());
        }
        let reply = reply(parts.status.as_u16(), &parts.headers, &body);
        let answer = Answer {
            unchanged: false,
            headers: parts.headers,
            body: body.to_vec(),
        };
        Ok((reply, answer))
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({})", self.name)
    }
}

impl Ask {
    /// Gets something of at most `limit` bytes.
    pub(super) fn get(uri: &str, limit: usize) -> Self {
        Self::new(Method::GET, uri, Vec::new(), limit)
    }

    /// Posts JSON.
    pub(super) fn post(uri: &str, body: &serde_json::Value, limit: usize) -> Self {
        let json = HeaderValue::from_static("application/json");
        let body = body.to_string().into_bytes();
        Self::new(Method::POST, uri, body, limit)
            .with(header::CONTENT_TYPE, json)
            .json()
    }

    /// Puts bytes.
    pub(super) fn put(uri: &str, body: Vec<u8>) -> Self {
        let bytes = HeaderValue::from_static("application/octet-stream");
        Self::new(Method::PUT, uri, body, ERROR_BODY).with(header::CONTENT_TYPE, bytes)
    }

    fn new(method: Method, uri: &str, body: Vec<u8>, limit: usize) -> Self {
        Self {
            method,
            uri: uri.to_owned(),
            headers: HeaderMap::new(),
            body,
            limit: limit.max(ERROR_BODY),
            json: false,
            repeatable: true,
        }
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Makes the request once only: it is not known whether a failed one did its work.
    pub(super) fn once(mut self) -> Self {
        self.repeatable = false;
        self
    }

    /// What comes must be JSON: anything else was put there by somebody in between.
    pub(super) fn json(mut self) -> Self {
        self.json = true;
        self
    }
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

fn reply(status: u16, headers: &HeaderMap, body: &[u8]) -> Reply {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let reset = number("x-ratelimit-reset").map(|at| at.saturating_sub(unix_seconds()));
    let words = if status >= 400 {
        twirp::trouble(body)
    } else {
        String::new()
    };
    Reply {
        status,
        retry_after: number("retry-after"),
        exhausted: reset.filter(|_| number("x-ratelimit-remaining") == Some(0)),
        message: words.chars().take(MESSAGE).collect(),
    }
}

/// What went wrong at the bottom: the layers above it only repeat what was asked, with its address.
fn innermost(error: &dyn Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

impl From<CallError> for io::Error {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            CallError::Unauthorised { .. } => io::ErrorKind::PermissionDenied,
            CallError::Gone => io::ErrorKind::NotFound,
            CallError::Taken => io::ErrorKind::AlreadyExists,
            CallError::Quota => io::ErrorKind::QuotaExceeded,
            CallError::Paused { .. }
            | CallError::Resting { .. }
            | CallError::Refused { .. }
            | CallError::Broken { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

fn unix_seconds() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed();
    since.unwrap_or_default().as_secs()
}

/// The slowest call was measured at a third of a second; a connection that takes this long is better made anew.
const DEADLINE: Duration = Duration::from_secs(10);

/// Enough for what an error says.
const ERROR_BODY: usize = 64 << 10;

/// A sentence; an error that is a whole web page helps nobody.
const MESSAGE: usize = 200;
