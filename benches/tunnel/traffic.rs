//! What is sent, and how it is checked: the same over a TCP connection and over a stream of the tunnel.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::watch::now;

pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// What a job sends and gets: a usual preprocessed file, compressed, and its object.
pub(crate) const REQUEST: usize = 250_000;
pub(crate) const RESPONSE: usize = 100_000;

/// What dispatch and the worker's relay read and write at once.
const CHUNK: usize = 64 << 10;

/// Longer than any window, so that bytes that come twice or are missing are noticed; short, so that checking is cheap.
const PERIOD: usize = 1 << 20;

const BULK: u8 = b'B';
const JOB: u8 = b'J';

/// Bytes that are known everywhere and repeat only after [`PERIOD`].
pub(crate) struct Pattern(Vec<u8>);

/// What the receiving end of a bulk transfer saw.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Bulk {
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// The longest time without a byte.
    pub(crate) stall: f64,
    pub(crate) intact: bool,
}

impl Pattern {
    pub(crate) fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes: Vec<u8> = (0..PERIOD)
            .map(|_| {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        // Twice, so that every piece of up to a period is one slice.
        bytes.extend_from_within(..);
        Self(bytes)
    }

    /// So many bytes from a position of the endless pattern.
    fn piece(&self, at: u64, length: usize) -> &[u8] {
        &self.0[(at % PERIOD as u64) as usize..][..length]
    }

    /// Sends for so long, and returns what the other end saw.
    pub(crate) async fn send_bulk(
        &self,
        (mut reader, mut writer): (Reader, Writer),
        time: Duration,
    ) -> io::Result<Bulk> {
        writer.write_all(&[BULK]).await?;
        let (until, mut sent) = (now() + time, 0_u64);
        while now() < until {
            writer.write_all(self.piece(sent, CHUNK)).await?;
            sent += CHUNK as u64;
        }
        writer.shutdown().await?;
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).await?;
        let mut seen: Bulk = serde_json::from_slice(&answer)?;
        seen.intact &= seen.bytes == sent;
        Ok(seen)
    }

    async fn receive_bulk(&self, reader: &mut Reader, writer: &mut Writer) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        let mut seen = Bulk {
            intact: true,
            ..Bulk::default()
        };
        let began = now();
        let mut last = began;
        loop {
            let count = reader.read(&mut chunk).await?;
            let at = now();
            seen.stall = seen.stall.max((at - last).as_secs_f64());
            last = at;
            if count == 0 {
                break;
            }
            seen.intact &= chunk[..count] == *self.piece(seen.bytes, count);
            seen.bytes += count as u64;
        }
        seen.seconds = (last - began).as_secs_f64();
        writer.write_all(&serde_json::to_vec(&seen)?).await?;
        writer.shutdown().await
    }

    /// Does a job; an answer that is wrong is an error.
    pub(crate) async fn ask(
        &self,
        seed: u64,
        reader: &mut Reader,
        writer: &mut Writer,
    ) -> io::Result<()> {
        let mut head = [JOB; 9];
        head[1..].copy_from_slice(&seed.to_be_bytes());
        writer.write_all(&head).await?;
        writer.write_all(self.piece(seed, REQUEST)).await?;
        let mut response = vec![0; RESPONSE];
        reader.read_exact(&mut response).await?;
        if response == self.piece(seed + 1, RESPONSE) {
            Ok(())
        } else {
            Err(io::Error::other("a wrong answer"))
        }
    }

    async fn answer(&self, reader: &mut Reader, writer: &mut Writer) -> io::Result<()> {
        let seed = reader.read_u64().await?;
        let mut request = vec![0; REQUEST];
        reader.read_exact(&mut request).await?;
        if request != self.piece(seed, REQUEST) {
            return Err(io::Error::other("a wrong request"));
        }
        writer.write_all(self.piece(seed + 1, RESPONSE)).await
    }

    /// Serves whatever is asked for until the other end has enough.
    pub(crate) async fn serve(&self, mut reader: Reader, mut writer: Writer) -> io::Result<()> {
        while let Ok(kind) = reader.read_u8().await {
            match kind {
                BULK => return self.receive_bulk(&mut reader, &mut writer).await,
                JOB => self.answer(&mut reader, &mut writer).await?,
                _ => return Err(io::Error::other("neither bulk nor job")),
            }
        }
        Ok(())
    }
}
