//! What an answer means, and what a person can do about it. Pure.

use std::{error::Error, io};

use http::{Method, StatusCode};

/// Why there is no answer. Its words hold no address, no credential, and nothing that the server wrote but the short name of its
/// refusal: S3 repeats what was signed in its error documents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    #[error("it is out of reach: {0}")]
    Unreachable(String),
    #[error("it does not answer in time")]
    Silent,
    #[error("it has no certificate that is trusted here: {0}")]
    Certificate(String),
    #[error("it does not speak TLS")]
    NoTls,
    #[error("it answers {0}")]
    Busy(u16),
    #[error("it refused with {}", refusal(*status, code.as_deref()))]
    Refused { status: u16, code: Option<String> },
    #[error("there are no credentials")]
    NoCredentials,
    #[error("it would be asked without encryption")]
    Plain,
    #[error("it answered something else than was asked for")]
    Strange,
    #[error("its answer is too long")]
    TooLong,
}

/// Whose words and variables a cure has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    S3,
    WebDav,
}

/// Judges a status; `None` is an answer. `body` is looked at only where it is a refusal's.
pub(super) fn judge(method: &Method, status: StatusCode, body: &[u8]) -> Option<CallError> {
    let code = code(body);
    let refused = |code| {
        let status = status.as_u16();
        Some(CallError::Refused { status, code })
    };
    match status.as_u16() {
        200..=299 | 304 => None,
        501 | 505 | 507 => refused(code),
        408 | 429 | 500..=599 => Some(CallError::Busy(status.as_u16())),
        404 if code.as_deref() == Some(NO_BUCKET) => refused(code),
        // A conflict is a collection that has to be made first; making one that is there is not allowed.
        404 | 409 | 412 | 416 => None,
        405 if method.as_str() == "MKCOL" => None,
        _ => refused(code),
    }
}

/// The short name in a refusal of S3: `<Code>AccessDenied</Code>`.
fn code(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_name = code.len() <= LONGEST_CODE && code.bytes().all(|b| b.is_ascii_alphabetic());
    (is_name && !code.is_empty()).then(|| code.to_owned())
}

fn refusal(status: u16, code: Option<&str>) -> String {
    let number = StatusCode::from_u16(status);
    let reason = number.ok().and_then(|status| status.canonical_reason());
    let word = code.or(reason).unwrap_or("no reason");
    format!("{status} ({word})")
}

/// What is wrong on the way there.
pub(super) fn on_the_way(error: &(dyn Error + 'static)) -> CallError {
    let mut innermost = error;
    loop {
        if let Some(tls) = tls_error(innermost) {
            return of_tls(tls);
        }
        match innermost.source() {
            Some(source) => innermost = source,
            None => return CallError::Unreachable(innermost.to_string()),
        }
    }
}

fn of_tls(error: &rustls::Error) -> CallError {
    if let rustls::Error::InvalidCertificate(wrong) = error {
        // What follows the first word may be what the server has put into its certificate.
        let wrong = format!("{wrong:?}");
        let word = wrong.split(|c: char| !c.is_ascii_alphanumeric()).next();
        return CallError::Certificate(word.unwrap_or_default().to_owned());
    }
    if let rustls::Error::InvalidMessage(_) = error {
        return CallError::NoTls;
    }
    CallError::Unreachable(error.to_string())
}

/// An error of TLS travels inside one of input and output, which does not name it as its source.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(io) = error.downcast_ref::<io::Error>() {
        return tls_error(io.get_ref()?);
    }
    error.downcast_ref::<rustls::Error>()
}

/// Finds what our wire said in what the crate makes of it.
pub(super) fn of_store(error: &(dyn Error + 'static)) -> CallError {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(call) = error.downcast_ref::<CallError>() {
            return call.clone();
        }
        if let Some(found) = error.downcast_ref::<object_store::Error>().and_then(status) {
            return CallError::Refused {
                status: found,
                code: None,
            };
        }
        next = error.source();
    }
    CallError::Strange
}

/// The status of an answer that was one for the wire, but not what the crate hoped for.
fn status(error: &object_store::Error) -> Option<u16> {
    if let object_store::Error::NotFound { .. } = error {
        return Some(404);
    }
    if let object_store::Error::AlreadyExists { .. } = error {
        return Some(409);
    }
    None
}

impl CallError {
    /// True when time alone does not mend it.
    pub(super) fn lasts(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Silent | Self::Busy(_) => false,
            Self::Certificate(_)
            | Self::NoTls
            | Self::Refused { .. }
            | Self::NoCredentials
            | Self::Plain
            | Self::Strange
            | Self::TooLong => true,
        }
    }

    /// What to do about it.
    pub(super) fn cure(&self, kind: Kind) -> &'static str {
        match (kind, self) {
            (_, Self::Certificate(_)) => {
                "name its authority's certificates in SSL_CERT_FILE, or apt-get install ca-certificates"
            }
            (Kind::S3, Self::NoTls) => {
                "write AWS_ENDPOINT_URL with http:// if it is meant to do without"
            }
            (Kind::WebDav, Self::NoTls) => "write http:// if it is meant to do without",
            (Kind::S3, Self::Refused { status, code }) => of_s3(*status, code.as_deref()),
            (Kind::WebDav, Self::Refused { status, .. }) => of_web_dav(*status),
            (_, Self::NoCredentials) => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; a CI gives its secrets to protected branches only, if it is told so"
            }
            (Kind::S3, Self::Unreachable(_) | Self::Silent | Self::Busy(_) | Self::Plain) => {
                "check AWS_ENDPOINT_URL and the network"
            }
            (Kind::WebDav, Self::Unreachable(_) | Self::Silent | Self::Busy(_) | Self::Plain) => {
                "check its address and the network"
            }
            (Kind::S3, Self::TooLong) => "give distmesh a prefix of its own: too much lies there",
            (Kind::WebDav, Self::TooLong) => {
                "give distmesh a collection of its own: too much lies there"
            }
            (Kind::S3, Self::Strange) => {
                "check AWS_ENDPOINT_URL: what is there does not speak like S3"
            }
            (Kind::WebDav, Self::Strange) => {
                "check its address: what is there does not speak WebDAV"
            }
        }
    }
}

fn of_s3(status: u16, code: Option<&str>) -> &'static str {
    match (code, status) {
        (Some("InvalidAccessKeyId" | "SignatureDoesNotMatch"), _) => {
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        }
        (Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired"), _) => {
            "get fresh credentials: AWS_SESSION_TOKEN is not good any more"
        }
        (Some("RequestTimeTooSkewed"), _) => "set this machine's clock",
        (Some(NO_BUCKET), _) => "make the bucket, or check its name and AWS_ENDPOINT_URL",
        (Some("AuthorizationHeaderMalformed" | "PermanentRedirect"), _) | (_, 300..=399) => {
            "set AWS_REGION to the bucket's region"
        }
        (_, 401 | 403) => {
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; they must be allowed to list the bucket, and to read, write and \
             delete below the prefix"
        }
        (_, 404) => "check the bucket's name and AWS_ENDPOINT_URL",
        (_, 400) => "check AWS_REGION, and whether AWS_ENDPOINT_URL should begin with https://",
        _ => "check AWS_ENDPOINT_URL: what is there does not speak like S3",
    }
}

fn of_web_dav(status: u16) -> &'static str {
    match status {
        300..=399 => "write the address that it answers with, often https:// instead of http://",
        400 => "check whether the address should begin with https://",
        401 => {
            "check user and password: https://USER:PASSWORD@HOST/PATH, with %40 for @ and %2F for /"
        }
        403 => "this user must be allowed to read and write there",
        507 => "make room there: its storage is full",
        404 | 409 => "make the collection above it, or check its path",
        _ => "check its address: what is there does not speak WebDAV",
    }
}

const NO_BUCKET: &str = "NoSuchBucket";

/// The longest known is half as long.
const LONGEST_CODE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(method: &str, status: u16, body: &str) -> Option<CallError> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        judge(&method, status, body.as_bytes())
    }

    fn refused(status: u16, code: Option<&str>) -> Option<CallError> {
        let code = code.map(str::to_owned);
        Some(CallError::Refused { status, code })
    }

    #[test]
    fn each_status_has_its_meaning() {
        let gone = "<Error><Code>NoSuchBucket</Code><BucketName>b</BucketName></Error>";
        for (method, status, body, meaning) in [
            ("GET", 200, "", None),
            ("GET", 404, "<Error><Code>NoSuchKey</Code></Error>", None),
            ("GET", 404, gone, refused(404, Some("NoSuchBucket"))),
            ("PUT", 409, "", None),
            ("MKCOL", 405, "", None),
            ("PROPFIND", 405, "", refused(405, None)),
            ("PROPFIND", 501, "", refused(501, None)),
            ("PUT", 507, "", refused(507, None)),
            ("PROPFIND", 401, "<Code>", refused(401, None)),
            ("PROPFIND", 301, "", refused(301, None)),
            (
                "GET",
                503,
                "<Code>SlowDown</Code>",
                Some(CallError::Busy(503)),
            ),
            ("GET", 429, "", Some(CallError::Busy(429))),
        ] {
            assert_eq!(judged(method, status, body), meaning, "{method} {status}");
        }
    }

    #[test]
    fn nothing_of_a_refusal_is_repeated_but_its_short_name() {
        let body = "<Error><Code>SignatureDoesNotMatch</Code><StringToSign>AWS4-HMAC-SHA256 top secret</StringToSign></Error>";
        let error = judged("GET", 403, body).unwrap();
        assert_eq!(
            error.to_string(),
            "it refused with 403 (SignatureDoesNotMatch)"
        );
        for liar in [
            "<Code>top secret</Code>",
            "<Code></Code>",
            "<Code>\u{1b}[2J</Code>",
            &format!("<Code>{}</Code>", "x".repeat(65)),
        ] {
            let error = judged("GET", 403, liar).unwrap();
            assert_eq!(error.to_string(), "it refused with 403 (Forbidden)");
        }
    }

    #[test]
    fn what_time_does_not_mend_is_told_from_what_it_does() {
        for passing in [
            CallError::Unreachable("Connection refused".into()),
            CallError::Silent,
            CallError::Busy(503),
        ] {
            assert!(!passing.lasts(), "{passing}");
        }
        for lasting in [
            CallError::NoTls,
            CallError::NoCredentials,
            refused(403, None).unwrap(),
            CallError::Strange,
        ] {
            assert!(lasting.lasts(), "{lasting}");
        }
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        let s3 = |status, code| refused(status, code).unwrap().cure(Kind::S3);
        assert!(s3(403, Some("InvalidAccessKeyId")).contains("AWS_ACCESS_KEY_ID"));
        assert!(s3(404, Some("NoSuchBucket")).contains("make the bucket"));
        assert!(s3(301, None).contains("AWS_REGION"));
        assert!(s3(403, Some("RequestTimeTooSkewed")).contains("clock"));
        assert!(s3(403, None).contains("list the bucket"));
        let dav = |status| refused(status, None).unwrap().cure(Kind::WebDav);
        assert!(dav(401).contains("USER:PASSWORD"));
        assert!(dav(302).contains("https://"));
        assert!(dav(405).contains("WebDAV") && dav(501).contains("WebDAV"));
        assert!(dav(507).contains("full"));
    }

    #[test]
    fn what_tls_says_is_found_inside_other_errors() {
        use rustls::{CertificateError, InvalidMessage};
        let wrapped = |error: rustls::Error| io::Error::other(io::Error::other(error));
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert_eq!(
            on_the_way(&wrapped(unknown)),
            CallError::Certificate("UnknownIssuer".into())
        );
        let other = rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected: rustls::pki_types::ServerName::try_from("store.example").unwrap(),
            presented: vec!["whatever the server likes".into()],
        });
        assert_eq!(
            on_the_way(&wrapped(other)),
            CallError::Certificate("NotValidForNameContext".into())
        );
        let plain = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert_eq!(on_the_way(&wrapped(plain)), CallError::NoTls);
        let refused = io::Error::other("nobody listens");
        assert_eq!(
            on_the_way(&refused),
            CallError::Unreachable("nobody listens".into())
        );
    }

    #[test]
    fn our_own_words_are_found_inside_the_crates() {
        let inner = object_store::client::HttpError::new(
            object_store::client::HttpErrorKind::Unknown,
            CallError::NoTls,
        );
        let error = object_store::Error::Generic {
            store: "S3",
            source: Box::new(inner),
        };
        assert_eq!(of_store(&error), CallError::NoTls);
        let gone = object_store::Error::NotFound {
            path: "x".into(),
            source: "gone".into(),
        };
        assert_eq!(of_store(&gone), refused(404, None).unwrap());
        assert_eq!(of_store(&io::Error::other("?")), CallError::Strange);
    }
}
