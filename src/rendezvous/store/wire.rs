//! HTTP for the crate `object_store`: one client, with our TLS, our limits and our retries.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::DateTime;
use http::{HeaderMap, HeaderValue, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use object_store::{
    ClientConfigKey, ClientOptions,
    client::{
        HttpClient, HttpConnector as Connector, HttpError, HttpErrorKind, HttpRequest,
        HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
    },
};
use rustls::{ClientConfig, RootCertStore};

use super::{
    address::Login,
    trouble::{self, CallError},
};
use crate::rendezvous::{ambient::jitter, retry::again};

/// A client for one store, and for the services that give credentials for it.
#[derive(Clone)]
pub(super) struct Wire {
    client: Client<HttpsConnector<HttpConnector>, HttpRequestBody>,
    login: Option<HeaderValue>,
}

/// The server's time when it answered, in Unix seconds: an extension of the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerTime(pub(super) i64);

impl Wire {
    /// A client; `plain` when the store is spoken to without TLS.
    pub(super) fn new(plain: bool, login: Option<&Login>) -> io::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let builder = HttpsConnectorBuilder::new();
        let tls = match builder.with_provider_and_native_roots(Arc::clone(&ring)) {
            Ok(tls) => tls,
            // Without TLS no authority is needed.
            Err(_) if plain => HttpsConnectorBuilder::new().with_tls_config(no_roots(ring)?),
            Err(error) => return Err(error),
        };
        let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            login: login.map(basic).transpose()?,
        })
    }

    /// One request and the head of its answer, within a fixed time.
    async fn once(&self, request: HttpRequest, limit: Duration) -> Result<HttpResponse, CallError> {
        let answered = tokio::time::timeout(limit, self.exchange(request)).await;
        answered.unwrap_or(Err(CallError::Silent))
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, CallError> {
        let method = request.method().clone();
        let response = self.client.request(request).await;
        let (mut parts, body) = response
            .map_err(|error| trouble::on_the_way(&error))?
            .into_parts();
        tracing::debug!(%method, status = parts.status.as_u16(), "answered");
        if let Some(now) = server_time(&parts.headers) {
            parts.extensions.insert(now);
        }
        if !parts.status.is_success() {
            // What else than a refusal is so long is no refusal of S3.
            let body = Limited::new(body, ERROR_BODY).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            if let Some(error) = trouble::judge(&method, parts.status, &body) {
                return Err(error);
            }
            return Ok(HttpResponse::from_parts(parts, body.into()));
        }
        let body = Limited::new(body, MAX_BODY);
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Decode, broken_off(&*error)));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// Why an answer ended before it was whole.
fn broken_off(error: &(dyn Error + Send + Sync + 'static)) -> CallError {
    if error.is::<LengthLimitError>() {
        CallError::TooLong
    } else {
        trouble::on_the_way(error)
    }
}

impl Connector for Wire {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allowed = options.get_config_value(&ClientConfigKey::AllowHttp);
        Ok(HttpClient::new(Line {
            wire: self.clone(),
            plain: allowed.as_deref() == Some("true"),
        }))
    }
}

/// The wire as one user of it has it.
#[derive(Debug)]
struct Line {
    wire: Wire,
    plain: bool,
}

#[async_trait]
impl HttpService for Line {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // Whatever fails for good: retries are ours.
        let failed = |error| HttpError::new(HttpErrorKind::Unknown, error);
        self.prepare(&mut request).map_err(failed)?;
        if is_metadata(request.uri()) {
            let came = self.wire.once(request, METADATA).await;
            return came.map_err(|error| {
                tracing::debug!(%error, "no credentials from the machine's metadata");
                failed(CallError::NoCredentials)
            });
        }
        let mut tries = 1;
        loop {
            let came = self.wire.once(request.clone(), DEADLINE).await;
            match (came, again(tries, jitter())) {
                (Err(error), Some(wait)) if !error.lasts() => {
                    tracing::debug!(%error, tries, "trying again");
                    tokio::time::sleep(wait).await;
                }
                (came, _) => return came.map_err(failed),
            }
            tries += 1;
        }
    }
}

impl Line {
    fn prepare(&self, request: &mut HttpRequest) -> Result<(), CallError> {
        if request.uri().scheme_str() != Some("https") && !self.plain {
            return Err(CallError::Plain);
        }
        if matches!(request.method().as_str(), "PROPFIND" | "MKCOL") {
            let uri = as_collection(request.uri()).ok_or(CallError::Strange)?;
            *request.uri_mut() = uri;
        }
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, AGENT);
        if let Some(login) = &self.wire.login {
            headers.insert(header::AUTHORIZATION, login.clone());
        }
        Ok(())
    }
}

/// A collection's address ends with a slash (RFC 4918 section 5.2); some servers only redirect to it.
fn as_collection(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if path.ends_with('/') {
        return Some(uri.clone());
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}/")).ok()?);
    Uri::from_parts(parts).ok()
}

/// Where machines of a cloud are told what they may do: an address of the link itself.
fn is_metadata(uri: &Uri) -> bool {
    uri.host().is_some_and(|host| host.starts_with("169.254."))
}

/// RFC 7617.
fn basic(login: &Login) -> io::Result<HeaderValue> {
    let pair = format!("{}:{}", login.user, login.password.as_str());
    let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)));
    let mut value = value.map_err(io::Error::other)?;
    value.set_sensitive(true);
    Ok(value)
}

fn server_time(headers: &HeaderMap) -> Option<ServerTime> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let date = DateTime::parse_from_rfc2822(date).ok()?;
    Some(ServerTime(date.timestamp()))
}

fn no_roots(ring: Arc<rustls::crypto::CryptoProvider>) -> io::Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
    Ok(config
        .map_err(io::Error::other)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("distmesh/", env!("CARGO_PKG_VERSION")));

/// A round trip that takes longer is better tried anew, from another address of the server's.
const CONNECT: Duration = Duration::from_secs(4);

/// As for GitHub's services.
const DEADLINE: Duration = Duration::from_secs(10);

/// The metadata service is on the machine itself, or not there at all.
const METADATA: Duration = Duration::from_secs(2);

/// A list of a thousand objects of S3, or of as many resources with all their properties.
const MAX_BODY: usize = 4 << 20;

/// Enough for what an error says.
const ERROR_BODY: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use http::Method;
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn a_collection_is_asked_for_by_its_own_name() {
        let shown = |uri: &'static str| as_collection(&Uri::from_static(uri)).unwrap().to_string();
        assert_eq!(shown("https://h/a%20b"), "https://h/a%20b/");
        assert_eq!(shown("https://h/a/"), "https://h/a/");
        assert_eq!(shown("http://h:1"), "http://h:1/");
    }

    #[test]
    fn the_servers_clock_is_read_and_nonsense_is_not() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::DATE, HeaderValue::from_static(text));
            server_time(&headers).map(|ServerTime(at)| at)
        };
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(read("soon"), None);
        assert!(server_time(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_login_is_not_shown_by_its_header() {
        let login = Login {
            user: "Aladdin".to_owned(),
            password: Zeroizing::new("open sesame".to_owned()),
        };
        let header = basic(&login).unwrap();
        assert_eq!(
            header.to_str().unwrap(),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert_eq!(format!("{header:?}"), "Sensitive");
    }

    #[tokio::test]
    async fn what_was_not_asked_for_as_http_is_never_asked_without_tls() {
        let wire = Wire::new(true, None).unwrap();
        let ask = |allowed: bool| {
            let options = ClientOptions::new().with_allow_http(allowed);
            let line = wire.connect(&options).unwrap();
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            *request.uri_mut() = Uri::from_static("http://127.0.0.1:1/x");
            *request.method_mut() = Method::GET;
            async move { trouble::of_store(&line.execute(request).await.unwrap_err()) }
        };
        assert_eq!(ask(false).await, CallError::Plain);
        assert!(matches!(ask(true).await, CallError::Unreachable(_)));
    }
}
