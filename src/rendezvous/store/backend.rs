//! The two kinds of stores behind one face.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::{
    ClientOptions, GetOptions, ListResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload,
    RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    http::{HttpBuilder, HttpStore},
    list::{PaginatedListOptions, PaginatedListStore},
    path::Path,
};

use super::{
    address::StoreAddress,
    leases::Listing,
    service::StoreRefusal,
    trouble::Kind,
    wire::{ServerTime, Wire},
};
use crate::{rendezvous::EntryName, session::MAX_SEALED};

/// A store, and where in it our objects are.
#[derive(Debug)]
pub(super) struct Backend {
    store: Either,
    prefix: String,
    /// The store in words, for a person.
    pub(super) place: String,
    /// Which of the two it is.
    pub(super) kind: Kind,
}

#[derive(Debug)]
enum Either {
    S3(AmazonS3),
    WebDav(HttpStore),
}

impl Backend {
    /// Makes the client; nothing is asked yet. Of the variables, those of AWS matter.
    pub(super) fn new(
        address: &StoreAddress,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, StoreRefusal> {
        match address {
            StoreAddress::S3 { bucket, prefix } => {
                let builder = from_variables(variables).with_bucket_name(bucket);
                let endpoint = endpoint(&builder)?;
                let place = match &endpoint {
                    Some(endpoint) => format!("the bucket {address} at {endpoint}"),
                    None => format!("the bucket {address}"),
                };
                let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
                Ok(Self {
                    store: Either::S3(s3(builder, plain)?),
                    prefix: prefix.clone(),
                    place,
                    kind: Kind::S3,
                })
            }
            StoreAddress::WebDav {
                origin,
                path,
                login,
            } => {
                let plain = address.is_plain();
                let wire = Wire::new(plain, login.as_ref()).map_err(StoreRefusal::no_roots)?;
                let options = ClientOptions::new().with_allow_http(plain);
                let store = HttpBuilder::new()
                    .with_url(origin)
                    .with_client_options(options)
                    .with_retry(once())
                    .with_http_connector(wire)
                    .build();
                Ok(Self {
                    store: Either::WebDav(store.map_err(StoreRefusal::unusable)?),
                    prefix: path.clone(),
                    place: format!("the WebDAV collection {address}"),
                    kind: Kind::WebDav,
                })
            }
        }
    }

    fn store(&self) -> &dyn ObjectStore {
        match &self.store {
            Either::S3(store) => store,
            Either::WebDav(store) => store,
        }
    }

    fn below(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.prefix)
        }
    }

    fn path(&self, name: &EntryName) -> object_store::Result<Path> {
        Ok(Path::parse(self.below(&name.to_string()))?)
    }

    pub(super) async fn put(&self, name: &EntryName, sealed: Bytes) -> object_store::Result<()> {
        let payload = PutPayload::from(sealed);
        self.store().put(&self.path(name)?, payload).await?;
        Ok(())
    }

    /// An object's bytes, and one byte over the limit at most; `None` if there is none.
    pub(super) async fn get(&self, name: &EntryName) -> object_store::Result<Option<Vec<u8>>> {
        let path = self.path(name)?;
        let got = self.store().get_opts(&path, GetOptions::default()).await;
        let mut stream = match got {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            got => got?.into_stream(),
        };
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() > MAX_SEALED {
                bytes.truncate(MAX_SEALED + 1);
                break;
            }
        }
        Ok(Some(bytes))
    }

    pub(super) async fn delete(&self, name: &EntryName) -> object_store::Result<()> {
        match self.store().delete(&self.path(name)?).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            deleted => deleted,
        }
    }

    /// The objects whose names begin so, and which are named like entries.
    pub(super) async fn list(&self, begin: &str) -> object_store::Result<Listing> {
        let mut listing = Listing::default();
        match &self.store {
            Either::S3(store) => {
                let begin = self.below(begin);
                let mut page_token = None;
                for _ in 0..PAGES {
                    let options = PaginatedListOptions {
                        page_token: page_token.take(),
                        ..PaginatedListOptions::default()
                    };
                    let page = store.list_paginated(Some(&begin), options).await?;
                    take(&page.result, &mut listing);
                    page_token = page.page_token;
                    if page_token.is_none() {
                        break;
                    }
                }
            }
            Either::WebDav(store) => {
                let prefix = Path::parse(&self.prefix)?;
                let prefix = Some(&prefix).filter(|_| !self.prefix.is_empty());
                take(&store.list_with_delimiter(prefix).await?, &mut listing);
                // A collection is listed whole.
                let wanted = |name: &EntryName| name.to_string().starts_with(begin);
                listing.objects.retain(|(name, _)| wanted(name));
            }
        }
        Ok(listing)
    }
}

fn take(result: &ListResult, listing: &mut Listing) {
    if let Some(ServerTime(now)) = result.extensions.get() {
        listing.now = Some(*now);
    }
    let entry = |object: &ObjectMeta| {
        let name = object.location.filename()?.parse().ok()?;
        Some((name, object.last_modified.timestamp()))
    };
    listing
        .objects
        .extend(result.objects.iter().filter_map(entry));
}

/// What `AmazonS3Builder::from_env` does, but that a variable which is empty counts as not set.
fn from_variables(variables: impl Iterator<Item = (String, String)>) -> AmazonS3Builder {
    variables
        .filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty())
        .fold(AmazonS3Builder::new(), |builder, (name, value)| match name
            .to_ascii_lowercase()
            .parse::<AmazonS3ConfigKey>()
        {
            Ok(key) => builder.with_config(key, value),
            Err(_) => builder,
        })
}

/// The server's address, if one is named.
fn endpoint(builder: &AmazonS3Builder) -> Result<Option<String>, StoreRefusal> {
    let named = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let mut named = named.iter().filter_map(|key| builder.get_config_value(key));
    let Some(endpoint) = named.next() else {
        return Ok(None);
    };
    let url = url::Url::parse(&endpoint).ok();
    let usable = url.filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    });
    match usable {
        Some(_) => Ok(Some(endpoint)),
        // It is not quoted: somebody may have put a password into it.
        None => Err(StoreRefusal::new(
            "AWS_ENDPOINT_URL is no address of a server",
            "write it like https://s3.example.org or http://192.0.2.1:9000",
        )),
    }
}

fn s3(builder: AmazonS3Builder, plain: bool) -> Result<AmazonS3, StoreRefusal> {
    let set = |key| builder.get_config_value(&key).is_some();
    let (id, secret) = (
        AmazonS3ConfigKey::AccessKeyId,
        AmazonS3ConfigKey::SecretAccessKey,
    );
    if set(id) != set(secret) {
        return Err(StoreRefusal::new(
            "half of its key is missing",
            "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ));
    }
    let wire = Wire::new(plain, None).map_err(StoreRefusal::no_roots)?;
    builder
        .with_allow_http(plain)
        .with_disable_bulk_delete(true)
        .with_retry(once())
        .with_http_connector(wire)
        .build()
        .map_err(StoreRefusal::unusable)
}

/// The wire tries again by itself.
fn once() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::ZERO,
        ..RetryConfig::default()
    }
}

/// A thousand objects a page: more than any session has. Who fills a bucket with more hides some.
const PAGES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(variables: &[(&str, &str)]) -> Result<Backend, StoreRefusal> {
        let variables = variables.iter();
        let variables = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Backend::new(&"s3://b/p".parse().unwrap(), variables)
    }

    #[test]
    fn the_usual_variables_say_where_the_bucket_is() {
        let keys = [
            ("AWS_ACCESS_KEY_ID", "AKIA"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
            ("AWS_ENDPOINT_URL_S3", ""),
            ("AWS_UNHEARD_OF", "x"),
        ];
        let made = backend(&keys).unwrap();
        assert_eq!(made.place, "the bucket s3://b/p at http://127.0.0.1:9000");
        assert!(!format!("{made:?}").contains("hunter2"));
        assert_eq!(backend(&keys[..2]).unwrap().place, "the bucket s3://b/p");
    }

    #[test]
    fn half_of_a_key_and_no_address_are_refused_at_once() {
        for (variables, says) in [
            ([("AWS_ACCESS_KEY_ID", "AKIA")], "AWS_SECRET_ACCESS_KEY"),
            ([("AWS_SECRET_ACCESS_KEY", "hunter2")], "AWS_ACCESS_KEY_ID"),
            ([("AWS_ENDPOINT_URL", "minio:9000")], "https://"),
            ([("AWS_ENDPOINT_URL_S3", "http://u:hunter2@h")], "https://"),
        ] {
            let refused = backend(&variables).unwrap_err().to_string();
            assert!(refused.contains(says), "{variables:?}: {refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }
}
