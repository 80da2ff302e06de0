//! Where an object store is, as a person writes it. Pure.

use std::{fmt, str::FromStr};

use percent_encoding::percent_decode_str;
use url::Url;
use zeroize::Zeroizing;

/// A place for objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAddress {
    /// A bucket of S3 or of something that speaks like it; where it is and who asks say the `AWS_…` variables.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// What the keys begin with, without a slash at its ends; may be empty.
        prefix: String,
    },
    /// A WebDAV collection.
    WebDav {
        /// Scheme, host and port.
        origin: String,
        /// The collection's path, decoded, without a slash at its ends; may be empty.
        path: String,
        /// Who asks.
        login: Option<Login>,
    },
}

/// A user and a password: never shown, the password wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The password; may be empty.
    pub password: Zeroizing<String>,
}

impl StoreAddress {
    /// True when what is sent to it is not encrypted, because the person wrote `http://`.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::WebDav { origin, .. } if origin.starts_with("http://"))
    }
}

impl FromStr for StoreAddress {
    type Err = String;

    /// Errors never quote the text: it may hold a password.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("s3", rest)) => s3(rest),
            Some(("http" | "https", _)) => web_dav(text),
            _ => Err(format!("write {FORMS}")),
        }
    }
}

fn s3(rest: &str) -> Result<StoreAddress, String> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !bucket.starts_with(|c: char| c.is_ascii_alphanumeric()) || !bucket.chars().all(usable) {
        return Err(
            "write s3://BUCKET/PREFIX; the server's address goes into AWS_ENDPOINT_URL, keys into AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY"
                .to_owned(),
        );
    }
    Ok(StoreAddress::S3 {
        bucket: bucket.to_owned(),
        prefix: segments(prefix.split('/').map(str::to_owned))?,
    })
}

fn web_dav(text: &str) -> Result<StoreAddress, String> {
    let wanted = "write https://HOST/PATH or https://USER:PASSWORD@HOST/PATH";
    let url = Url::parse(text).map_err(|error| format!("{error}; {wanted}"))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!(
            "a collection's address has no ? and no #; {wanted}"
        ));
    }
    let decoded = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map_or_else(|_| Err(NOT_UTF8.to_owned()), |text| Ok(text.into_owned()))
    };
    let (user, password) = (decoded(url.username())?, url.password());
    let login = match (user.as_str(), password) {
        ("", None) => None,
        ("", Some(_)) => return Err(format!("the user's name is missing; {wanted}")),
        (name, _) if name.contains(':') => {
            return Err("a user's name has no colon (RFC 7617)".to_owned());
        }
        (_, password) => Some(Login {
            password: Zeroizing::new(decoded(password.unwrap_or_default())?),
            user,
        }),
    };
    let parts: Result<Vec<_>, _> = url.path().split('/').skip(1).map(decoded).collect();
    Ok(StoreAddress::WebDav {
        origin: url.origin().ascii_serialization(),
        path: segments(parts?.into_iter())?,
        login,
    })
}

/// One path of its parts; a slash at the end is forgiven.
fn segments(parts: impl Iterator<Item = String>) -> Result<String, String> {
    let mut parts: Vec<String> = parts.collect();
    while parts.last().is_some_and(String::is_empty) {
        parts.pop();
    }
    for part in &parts {
        if part.is_empty() || part == "." || part == ".." {
            return Err("the path has an empty part, `.` or `..` in it".to_owned());
        }
        if part.contains('/') || part.chars().any(char::is_control) {
            return Err("the path has a character that no object's name should have".to_owned());
        }
    }
    Ok(parts.join("/"))
}

/// The address without who asks.
impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, path) = match self {
            Self::S3 { bucket, prefix } => (format!("s3://{bucket}"), prefix),
            Self::WebDav { origin, path, .. } => (origin.clone(), path),
        };
        f.write_str(&head)?;
        if path.is_empty() {
            return Ok(());
        }
        write!(f, "/{path}")
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// A text in which addresses may have users and passwords, without these.
pub fn without_logins(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + "://".len());
        shown += head;
        // What is wrong with an address may be its password: everything up to the last @ of the word is taken for one.
        let end = tail.find(char::is_whitespace).unwrap_or(tail.len());
        rest = match tail[..end].rfind('@') {
            Some(at) => {
                shown += "***";
                &tail[at..]
            }
            None => tail,
        };
    }
    shown + rest
}

/// What addresses look like.
const FORMS: &str = "s3://BUCKET/PREFIX or https://HOST/PATH (WebDAV)";

const NOT_UTF8: &str = "the address is not UTF-8 once it is decoded";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> StoreAddress {
        text.parse().unwrap()
    }

    #[test]
    fn a_bucket_has_a_name_and_perhaps_a_prefix() {
        for (text, bucket, prefix) in [
            ("s3://ci-cache", "ci-cache", ""),
            ("s3://ci-cache/", "ci-cache", ""),
            ("s3://ci.cache/distmesh/42/", "ci.cache", "distmesh/42"),
        ] {
            let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
            assert_eq!(parsed(text), StoreAddress::S3 { bucket, prefix }, "{text}");
        }
        assert_eq!(parsed("s3://b/p/").to_string(), "s3://b/p");
        for wrong in [
            "s3://",
            "s3:///p",
            "s3://key:secret@bucket/p",
            "s3://b//p",
            "s3://b/../p",
            "s3://b/p\u{7}",
            "gs://b",
            "b",
        ] {
            assert!(wrong.parse::<StoreAddress>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_collection_may_name_who_asks_and_does_not_show_it() {
        let address = parsed("https://anna%40home:p%3Aw%2Fx@dav.example.org:8443/mesh%20a/b/");
        let StoreAddress::WebDav {
            origin,
            path,
            login,
        } = &address
        else {
            panic!("{address:?}");
        };
        assert_eq!(origin, "https://dav.example.org:8443");
        assert_eq!(path, "mesh a/b");
        let login = login.as_ref().unwrap();
        assert_eq!(
            (login.user.as_str(), login.password.as_str()),
            ("anna@home", "p:w/x")
        );
        assert_eq!(address.to_string(), "https://dav.example.org:8443/mesh a/b");
        let debug = format!("{address:?}");
        assert!(!debug.contains("anna") && !debug.contains("p:w"), "{debug}");
        assert!(parsed("http://h/").is_plain() && !address.is_plain());
    }

    #[test]
    fn a_wrong_address_is_refused_without_being_quoted() {
        for wrong in [
            "https://",
            "https://:hunter2@h/p",
            "https://a:hunter2@h/p?x",
            "https://a:hunter2@h:99999/p",
            "https://a%3Ab:hunter2@h/",
            "https://a:hunter2@h/x%2Fy",
            "https://a:hunter2%FF@h/",
        ] {
            let error = wrong.parse::<StoreAddress>().unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_text_is_shown_without_users_and_passwords() {
        for (text, shown) in [
            (
                "invalid value 'https://u:p@h/x?y' for '--rendezvous'",
                "invalid value 'https://***@h/x?y' for '--rendezvous'",
            ),
            (
                "https://u:p@w@h and http://h/",
                "https://***@h and http://h/",
            ),
            ("https://u:p/w#@h", "https://***@h"),
            ("no address, a@b", "no address, a@b"),
        ] {
            assert_eq!(without_logins(text), shown);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_safe_to_parse_and_what_is_shown_reads_back(text in "(s3|https?)://.{0,40}") {
            if let Ok(address @ StoreAddress::S3 { .. }) = text.parse::<StoreAddress>() {
                prop_assert_eq!(parsed(&address.to_string()), address);
            }
        }
    }
}
