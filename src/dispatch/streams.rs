//! Jobs over the tunnel.

use std::{future::Future, io, pin::Pin};

use tokio::io::AsyncWriteExt;

use super::{JobIo, Transport};
use crate::{session::PeerId, tunnel::Tunnel, wire::StreamKind};

/// One stream of the tunnel for each attempt.
pub struct JobStreams(pub Tunnel);

impl Transport for JobStreams {
    fn open(&self, worker: PeerId) -> Pin<Box<dyn Future<Output = io::Result<JobIo>> + Send + '_>> {
        Box::pin(async move {
            let mut stream = self.0.open(worker).await.map_err(io::Error::other)?;
            stream.send.write_u8(StreamKind::Job as u8).await?;
            Ok(JobIo {
                read: Box::new(stream.recv),
                write: Box::new(stream.send),
            })
        })
    }
}
