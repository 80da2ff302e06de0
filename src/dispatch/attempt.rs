//! One try of a job on one worker.

use std::{io, path::Path, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

use super::{Transport, spool::Spool};
use crate::{
    distcc::{Malformed, RequestParser, ResponseParser},
    session::PeerId,
};

const CHUNK: usize = 64 << 10;
/// A worker that takes no byte for so long is stuck, whatever its link says.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// The slowest translation units take minutes; the worker's own `--job-lifetime` ends earlier.
const FIRST_BYTE: Duration = Duration::from_secs(1800);
/// Once the answer has begun the compiler has ended: from here only the link is slow. Time to start with …
const ANSWER_GRACE: Duration = Duration::from_secs(30);
/// … and bytes a second below which it is not a link but a drip.
const SLOWEST_LINK: u64 = 16 << 10;

/// A whole request.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) parser: RequestParser,
    pub(super) body: Spool,
}

/// A whole response.
pub(super) struct Response {
    pub(super) bytes: Spool,
    pub(super) status: u32,
}

/// Why an attempt failed: always the worker's or its link's fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptFailure {
    #[error("the stream broke: {0}")]
    Stream(#[from] io::Error),
    #[error("the worker closed before its answer was complete")]
    Incomplete,
    #[error("the worker's answer is not distcc's: {0}")]
    Garbage(#[from] Malformed),
    #[error("{0}")]
    Fault(String),
    #[error("the worker is too slow: {0}")]
    Stalled(&'static str),
}

impl Request {
    /// Reads until the request is complete; `None` when the client went away.
    pub(super) async fn read(
        client: &mut (impl AsyncRead + Unpin),
        spill: &Path,
    ) -> io::Result<Option<Self>> {
        let mut request = Self::default();
        let mut chunk = vec![0; CHUNK];
        while !request.parser.is_complete() {
            let count = client.read(&mut chunk).await?;
            if count == 0 {
                return Ok(None);
            }
            let fed = request
                .parser
                .feed(&chunk[..count])
                .map_err(io::Error::other)?;
            request
                .body
                .append(&chunk[fed.head..fed.head + fed.body], spill)?;
        }
        Ok(Some(request))
    }

    pub(super) fn len(&self) -> u64 {
        self.parser.head().len() as u64 + self.body.len()
    }
}

/// Sends the request, reads the whole response, judges it. Dropping the future aborts the compile on the worker.
pub(super) async fn attempt(
    transport: &dyn Transport,
    worker: PeerId,
    compiler: &str,
    request: &Request,
    spill: &Path,
) -> Result<Response, AttemptFailure> {
    let opening = timeout(WRITE_STALL, transport.open(worker)).await;
    let mut stream =
        opening.map_err(|_| AttemptFailure::Stalled("no stream could be opened"))??;
    let head = request.parser.head_for(compiler);
    let sent = timeout(WRITE_STALL, stream.write.write_all(&head)).await;
    sent.map_err(|_| AttemptFailure::Stalled("it takes no bytes"))??;
    write_spool(&mut stream.write, &request.body).await?;
    stream.write.flush().await?;
    // The sending side stays open until the answer is complete: distccd takes its end for an abort.
    let response = read_response(&mut stream.read, spill).await?;
    Ok(response)
}

/// Copies a spool to a stream that must keep taking bytes.
pub(super) async fn write_spool(
    to: &mut (impl AsyncWrite + Unpin + ?Sized),
    spool: &Spool,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let count = spool.read_at(&mut chunk, offset)?;
        if count == 0 {
            return Ok(());
        }
        timeout(WRITE_STALL, to.write_all(&chunk[..count])).await??;
        offset += count as u64;
    }
}

async fn read_response(
    from: &mut (impl AsyncRead + Unpin + ?Sized),
    spill: &Path,
) -> Result<Response, AttemptFailure> {
    let (mut parser, mut bytes) = (ResponseParser::default(), Spool::default());
    let mut chunk = vec![0; CHUNK];
    let mut begun: Option<Instant> = None;
    while !parser.is_complete() {
        let due = begun.map_or(FIRST_BYTE, |begun| {
            patience(bytes.len()).saturating_sub(begun.elapsed())
        });
        let Ok(count) = timeout(due, from.read(&mut chunk)).await else {
            return Err(AttemptFailure::Stalled("its answer does not progress"));
        };
        let count = count?;
        if count == 0 {
            return Err(AttemptFailure::Incomplete);
        }
        begun = begun.or_else(|| Some(Instant::now()));
        let used = parser.feed(&chunk[..count])?;
        bytes.append(&chunk[..used], spill)?;
    }
    match parser.fault() {
        Some(fault) => Err(AttemptFailure::Fault(fault)),
        None => Ok(Response {
            bytes,
            status: parser.status(),
        }),
    }
}

/// How long an answer may have taken when so many bytes have come.
fn patience(received: u64) -> Duration {
    ANSWER_GRACE + Duration::from_secs(received / SLOWEST_LINK)
}
