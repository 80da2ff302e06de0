//! What two linked nodes say to each other, beside jobs.
//!
//! Every stream inside a tunnel begins with one [`StreamKind`] byte. On the control stream, opened once by the primary, each
//! message is one line of JSON ([`ToPrimary`], [`ToWorker`]); unknown messages and fields are ignored, so that versions can
//! differ by a little. A job stream carries one distcc request, and back one distcc response.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{admission::CompilerIdentity, session::Descriptor};

/// The first byte of every stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamKind {
    /// JSON lines, for as long as the link lives.
    Control = 0,
    /// One distcc request and its response.
    Job = 1,
}

impl StreamKind {
    /// The kind that a first byte names; `None` for a byte of a later version.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Control),
            1 => Some(Self::Job),
            _ => None,
        }
    }
}

/// What a worker tells its primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToPrimary {
    /// First message unless the worker is busy, and again whenever something in it changed.
    Offer(Offer),
    /// The worker's descriptor as it is now: a new mapping is known here before the rendezvous tells.
    Moved(Box<Descriptor>),
    /// Instead of an offer, while the worker serves another primary; the offer follows when that one is gone.
    Busy {
        /// The other primary's name.
        primary: String,
    },
    /// The worker is about to stop: send no more jobs; those running are finished.
    Leaving {
        /// Why, for a person.
        reason: String,
    },
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// What a worker can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// distmesh's version, for a person when two differ.
    pub version: String,
    /// Compiles at once; 0 while distccd is not healthy.
    pub slots: u32,
    /// The compilers that it compiles with, as they are by default.
    pub compilers: Vec<CompilerIdentity>,
    /// The same as they are for the targets that the primary named; a target that is missing was not asked for yet.
    #[serde(default)]
    pub targets: BTreeMap<String, Vec<CompilerIdentity>>,
    /// Some are still being asked: what is missing here may follow.
    #[serde(default)]
    pub looking: bool,
    /// There are others that were not asked: they are once the primary has named a compiler that none of these is.
    #[serde(default)]
    pub more: bool,
}

/// What a primary tells its worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToWorker {
    /// First message.
    Hello {
        /// distmesh's version.
        version: String,
    },
    /// Somebody's descriptor, the primary's own or another worker's: who may have to relay is known without the rendezvous.
    Met(Box<Descriptor>),
    /// The primary has this compiler: offer one like it.
    Compiler(Box<CompilerIdentity>),
    /// The build compiles for this target: offer what the compilers are for it.
    Target {
        /// As the build's arguments name it.
        target: String,
    },
    /// The primary is done.
    Goodbye {
        /// Why, for a person.
        reason: String,
    },
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_fields_of_later_versions_are_ignored() {
        let message = r#"{"type":"sing","song":["la"],"reason":1}"#;
        assert_eq!(
            serde_json::from_str::<ToWorker>(message).unwrap(),
            ToWorker::Unknown
        );
        assert_eq!(
            serde_json::from_str::<ToPrimary>(message).unwrap(),
            ToPrimary::Unknown
        );
        let hello = r#"{"type":"hello","version":"9","mood":{"good":true}}"#;
        assert!(matches!(
            serde_json::from_str(hello).unwrap(),
            ToWorker::Hello { .. }
        ));
        assert!(serde_json::from_str::<ToWorker>("{}").is_err());
    }
}
