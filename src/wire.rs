//! What two linked nodes say to each other, beside jobs.
//!
//! Every stream inside a tunnel begins with one [`StreamKind`] byte. On the control stream, opened once by the primary, each
//! message is one line of JSON ([`ToPrimary`], [`ToWorker`]); unknown messages and fields are ignored, so that versions can
//! differ by a little. A job stream carries one distcc request, and back one distcc response.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

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

/// Reads the next message, of at most `longest` bytes; `None` when the stream has ended or broken.
///
/// Whoever gives up waiting, for something else that happens, hands in the same `begun` the next time: it keeps what has come of a
/// message.
pub async fn next_message<M: DeserializeOwned>(
    lines: &mut BufReader<impl AsyncRead + Unpin>,
    begun: &mut Vec<u8>,
    longest: u64,
) -> Result<Option<M>, serde_json::Error> {
    let room = longest.saturating_sub(begun.len() as u64);
    let read = lines.take(room).read_until(b'\n', begun).await;
    if read.is_err() || begun.is_empty() {
        return Ok(None);
    }
    let message = serde_json::from_slice(begun);
    begun.clear();
    message.map(Some)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_message_is_whole_although_the_wait_for_it_was_given_up() {
        let (mut far, near) = tokio::io::duplex(256);
        let (mut lines, mut begun) = (BufReader::new(near), Vec::new());
        let goodbye = ToWorker::Goodbye {
            reason: "so".into(),
        };
        let text = serde_json::to_vec(&goodbye).unwrap();
        for byte in text.iter().chain(b"\n") {
            let next = next_message::<ToWorker>(&mut lines, &mut begun, 100);
            // Ready for nothing yet, so that this ends first.
            tokio::select! { biased;
                _ = next => panic!("that was no message yet"),
                () = std::future::ready(()) => {}
            }
            far.write_all(&[*byte]).await.unwrap();
        }
        let next = next_message(&mut lines, &mut begun, 100).await.unwrap();
        assert_eq!(next, Some(goodbye));
        far.write_all(&[b' '; 120]).await.unwrap();
        let endless = next_message::<ToWorker>(&mut lines, &mut begun, 100).await;
        assert!(endless.is_err() && begun.is_empty());
        drop(far);
        let rest = next_message::<ToWorker>(&mut lines, &mut begun, 100).await;
        assert!(rest.is_err(), "20 bytes of one");
        let end = next_message::<ToWorker>(&mut lines, &mut begun, 100).await;
        assert!(matches!(end, Ok(None)));
    }

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
