//! What the fake remembers.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

#[derive(Default)]
pub struct Store {
    pub artifacts: Vec<Artifact>,
    /// The attempt's jobs, as the API shows them.
    pub jobs: Vec<Value>,
    /// All attempts have one backend id (nobody knows for certain that they have not).
    pub shared_backend: bool,
    /// Seconds by which this server's clock is ahead.
    pub skew: i64,
    /// REST requests left; `None` for a thousand.
    pub remaining: Option<u32>,
    /// When each attempt began.
    pub began: BTreeMap<u32, i64>,
    /// Lists are answered as of this many artifacts ago.
    pub last_id: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Artifact {
    pub id: u64,
    pub name: String,
    pub attempt: u32,
    pub run: String,
    pub job: String,
    pub blob: Vec<u8>,
    pub content_type: String,
    pub blocks: BTreeMap<String, Vec<u8>>,
    pub version: u64,
    pub append: bool,
    pub finalized: bool,
    pub burned: bool,
    pub deleted: bool,
    pub expired: bool,
    pub created: i64,
    pub digest: String,
}

impl Store {
    pub fn run_backend(&self, attempt: u32) -> String {
        if self.shared_backend {
            "run-backend".to_owned()
        } else {
            format!("run-backend-{attempt}")
        }
    }

    /// This server's clock.
    pub fn now(&self) -> i64 {
        unix_seconds() + self.skew
    }

    pub fn add(&mut self, mut artifact: Artifact) -> u64 {
        self.last_id += 1;
        artifact.id = 1000 + self.last_id;
        artifact.created = self.now();
        let id = artifact.id;
        self.artifacts.push(artifact);
        id
    }

    pub fn by_id(&mut self, id: u64) -> Option<&mut Artifact> {
        let there = |artifact: &&mut Artifact| artifact.id == id && !artifact.deleted;
        self.artifacts.iter_mut().find(there)
    }

    /// The newest visible artifact of a name in an attempt.
    pub fn visible(&mut self, attempt: u32, name: &str) -> Option<&mut Artifact> {
        let same = |a: &&mut Artifact| a.attempt == attempt && a.name == name && a.is_visible();
        self.artifacts.iter_mut().rev().find(same)
    }

    /// When an attempt began: at the first question about it.
    pub fn began(&mut self, attempt: u32) -> i64 {
        let now = self.now();
        *self.began.entry(attempt).or_insert(now)
    }
}

impl Artifact {
    pub fn is_visible(&self) -> bool {
        self.finalized && !self.deleted && !self.burned
    }

    pub fn etag(&self) -> String {
        format!("\"0x{:x}-{}\"", self.id, self.version)
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unix_seconds() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_secs() as i64
}

pub fn rfc3339(seconds: i64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Reads what [`rfc3339`] wrote.
pub fn seconds(text: &str) -> Option<i64> {
    let at = humantime::parse_rfc3339(text).ok()?;
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs() as i64)
}
