//! An object store as the rendezvous: a bucket of S3 and its kin, or a WebDAV collection.
//!
//! A descriptor is one **object**, named like its entry below the address's prefix. Everything goes through the crate
//! `object_store`; what it sends goes over our own wire, so that TLS, time limits and retries are those of the rest.
//!
//! - **Lease.** An object's time of modification is its lease, as in a directory, and both times are the server's: that of the
//!   object, and the `Date` of the answer that lists it. Renewing is writing the object again, once a minute, or as soon as it is
//!   not listed any more.
//! - **Cost.** Requests are paid by somebody. Only this session's objects are listed, at GitHub's pace: quickly while somebody is
//!   missing, twice a minute when all are linked. One wider look, at the start, removes what killed nodes of any session left.
//! - **Trust.** Whoever can write there can replace and delete all of this; what is sealed proves itself. Answers are bounded in
//!   size and time. No credential and no word of the server is ever said, but for the short name of a refusal.
//! - **Refusals.** What will not mend itself (keys, rights, bucket, certificate) ends the start with what to do about it. A server
//!   that is out of reach is tried again, later each time.
//!
//! Pure: [`StoreAddress`], `leases`, `trouble`. Shells: `wire` (HTTP), `backend` (the two kinds), [`Store`].

mod address;
mod backend;
mod leases;
mod service;
mod trouble;
mod wire;

pub use address::{Login, StoreAddress, without_logins};
pub use service::{Store, StoreRefusal};
