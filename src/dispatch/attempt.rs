//! One try of a job on one worker.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

use super::{
    JobIo, Transport,
    spool::{Spill, Spool},
};
use crate::{
    distcc::{Malformed, RequestParser, ResponseParser},
    session::PeerId,
};

const CHUNK: usize = 64 << 10;
/// Most answers are written by one call.
const PIECE: usize = 256 << 10;
/// A worker that takes no byte for so long, or gives none in mid-answer, is stuck, whatever its link says.
const STALL: Duration = Duration::from_secs(60);
/// The slowest translation units take minutes; the worker's own `--job-lifetime` ends earlier.
const FIRST_BYTE: Duration = Duration::from_secs(1800);
/// Once the answer has begun the compiler has ended: from here only the link is slow. Time to start with …
const ANSWER_GRACE: Duration = Duration::from_secs(30);
/// … and bytes a second below which it is not a link but a drip.
const SLOWEST_LINK: u64 = 16 << 10;

/// A whole request.
#[derive(Debug)]
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
    #[error("the worker answered before it had the whole request")]
    Early,
    #[error("the worker answered in protocol {0}, which is not the job's")]
    Protocol(u32),
    #[error("there is no room for the worker's answer: {0}")]
    NoRoom(io::Error),
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
        spill: &Arc<Spill>,
    ) -> io::Result<Option<Self>> {
        let (mut parser, mut body) = (RequestParser::default(), Spool::new(spill));
        let mut chunk = spill.buffer(CHUNK);
        while !parser.is_complete() {
            if parser.has_arguments() && body.has_room(enough(parser.left())) {
                let read = body.read_from(client).await?;
                if read.is_empty() {
                    return Ok(None);
                }
                let fed = parser.feed(read).map_err(io::Error::other)?;
                body.keep(fed.body);
                continue;
            }
            if read_chunk(client, &mut chunk).await? == 0 {
                return Ok(None);
            }
            let fed = parser.feed(&chunk).map_err(io::Error::other)?;
            if parser.has_arguments() {
                body.expect(parser.left().saturating_add(fed.body as u64));
            }
            body.append(&chunk[fed.head..fed.head + fed.body])?;
        }
        Ok(Some(Self { parser, body }))
    }

    pub(super) fn len(&self) -> u64 {
        self.parser.head().len() as u64 + self.body.len()
    }
}

/// How much room is worth reading into, where so many bytes are announced.
fn enough(left: u64) -> usize {
    left.clamp(1, CHUNK as u64) as usize
}

/// Replaces what is in `chunk` by what comes next, and says how much that is.
async fn read_chunk(from: &mut (impl AsyncRead + Unpin), chunk: &mut Vec<u8>) -> io::Result<usize> {
    chunk.clear();
    chunk.reserve(CHUNK);
    from.read_buf(chunk).await
}

/// Sends the request, reads the whole response, judges it. Every step has an end, however the worker behaves. Dropping the future aborts the compile on the worker.
pub(super) async fn attempt(
    transport: &dyn Transport,
    worker: PeerId,
    compiler: &str,
    request: &Request,
    spill: &Arc<Spill>,
) -> Result<Response, AttemptFailure> {
    let opening = timeout(STALL, transport.open(worker)).await;
    let opened = opening.map_err(|_| AttemptFailure::Stalled("no stream could be opened"))?;
    let JobIo {
        mut read,
        mut write,
    } = opened?;
    let mut byte = [0];
    tokio::select! {
        biased;
        sent = send(&mut write, compiler, request) => sent?,
        // distccd says nothing before it has everything: whatever this is, it is not an answer to this request.
        early = read.read(&mut byte) => return Err(match early? {
            0 => AttemptFailure::Incomplete,
            _ => AttemptFailure::Early,
        }),
    }
    // The sending side stays open until the answer is complete: distccd takes its end for an abort.
    read_response(&mut read, request.parser.version(), spill).await
}

async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    compiler: &str,
    request: &Request,
) -> Result<(), AttemptFailure> {
    let head = request.parser.head_for(compiler);
    let sent = timeout(STALL, to.write_all(&head)).await;
    sent.map_err(|_| AttemptFailure::Stalled("it takes no bytes"))??;
    write_spool(to, &request.body).await?;
    Ok(to.flush().await?)
}

/// Copies a spool to a stream that must keep taking bytes: 4 KiB a second at the least.
pub(super) async fn write_spool(
    to: &mut (impl AsyncWrite + Unpin + ?Sized),
    spool: &Spool,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut offset = 0;
    loop {
        let chunk = spool.chunk(offset, PIECE, &mut buffer)?;
        if chunk.is_empty() {
            return Ok(());
        }
        timeout(STALL, to.write_all(chunk)).await??;
        offset += chunk.len() as u64;
    }
}

async fn read_response(
    from: &mut (impl AsyncRead + Unpin),
    version: u32,
    spill: &Arc<Spill>,
) -> Result<Response, AttemptFailure> {
    let (mut parser, mut bytes) = (ResponseParser::default(), Spool::new(spill));
    bytes.expect(CHUNK as u64);
    let mut chunk = spill.buffer(0);
    let mut begun: Option<Instant> = None;
    while !parser.is_complete() {
        let due = begun.map_or(FIRST_BYTE, |begun| patience(bytes.len(), begun.elapsed()));
        let straight = bytes.has_room(enough(parser.left()));
        let reading = async {
            match straight {
                true => bytes.read_from(from).await,
                false => read_chunk(from, &mut chunk).await.map(|_| &chunk[..]),
            }
        };
        let Ok(read) = timeout(due, reading).await else {
            return Err(AttemptFailure::Stalled("its answer does not progress"));
        };
        let read = read?;
        if read.is_empty() {
            return Err(AttemptFailure::Incomplete);
        }
        begun = begun.or_else(|| Some(Instant::now()));
        let (count, used) = (read.len(), parser.feed(read)?);
        if used < count {
            return Err(Malformed::Surplus(count - used).into());
        }
        match straight {
            true => bytes.keep(count),
            false => bytes.append(&chunk).map_err(AttemptFailure::NoRoom)?,
        }
        bytes.expect(parser.left());
    }
    judge(&parser, version)?;
    let status = parser.status();
    Ok(Response { bytes, status })
}

fn judge(parser: &ResponseParser, version: u32) -> Result<(), AttemptFailure> {
    if parser.version() != version {
        return Err(AttemptFailure::Protocol(parser.version()));
    }
    parser
        .fault()
        .map_or(Ok(()), |fault| Err(AttemptFailure::Fault(fault)))
}

/// How much longer to wait for an answer that began a while ago and of which so many bytes have come.
fn patience(received: u64, since: Duration) -> Duration {
    let may_take = ANSWER_GRACE + Duration::from_secs(received / SLOWEST_LINK);
    may_take.saturating_sub(since).min(STALL)
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::Pin, sync::Mutex};

    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const REQUEST: &[u8] = b"DIST00000001ARGC00000001ARGV00000003gccDOTI00000004abcd";
    const HEAD: &[u8] = b"DONE00000001STAT00000000SERR00000000SOUT00000000";

    /// A worker that is reached once.
    struct Once(Mutex<Option<DuplexStream>>);

    impl Transport for Once {
        fn open(&self, _: PeerId) -> Pin<Box<dyn Future<Output = io::Result<JobIo>> + Send + '_>> {
            let stream = self.0.lock().unwrap().take().unwrap();
            let (read, write) = tokio::io::split(stream);
            let (read, write) = (Box::new(read), Box::new(write));
            Box::pin(async { Ok(JobIo { read, write }) })
        }
    }

    /// How the attempt ends, and after how long, with a worker that does what `worker` does with its end.
    async fn attempted<F: Future<Output = ()> + Send + 'static>(
        room: usize,
        worker: impl FnOnce(DuplexStream) -> F,
    ) -> (Result<u64, AttemptFailure>, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill::new(dir.path().to_owned());
        let request = Request::read(&mut &*REQUEST, &spill)
            .await
            .unwrap()
            .unwrap();
        let (ours, theirs) = duplex(room);
        tokio::spawn(worker(theirs));
        let (once, began) = (Once(Mutex::new(Some(ours))), Instant::now());
        let result = attempt(&once, PeerId([1; 32]), "gcc", &request, &spill).await;
        (result.map(|response| response.bytes.len()), began.elapsed())
    }

    async fn take_request(stream: &mut DuplexStream) {
        stream.read_exact(&mut [0; REQUEST.len()]).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_a_second_is_no_answer() {
        let (result, after) = attempted(REQUEST.len() / 2, |mut stream| async move {
            take_request(&mut stream).await;
            for byte in HEAD.iter().cycle() {
                drop(stream.write_all(&[*byte]).await);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
        .await;
        assert!(
            matches!(result, Err(AttemptFailure::Stalled(_))),
            "{result:?}"
        );
        assert_eq!(after, ANSWER_GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_link_gets_its_time_and_one_that_stops_does_not() {
        let object = 4_u32 << 20;
        for (chunks, pause, whole) in [(256, 900, true), (200, 900, false), (200, 0, false)] {
            let pause = Duration::from_millis(pause);
            let (result, after) = attempted(CHUNK, move |mut stream| async move {
                take_request(&mut stream).await;
                let head = [HEAD, format!("DOTO{object:08x}").as_bytes()].concat();
                stream.write_all(&head).await.unwrap();
                for _ in 0..chunks {
                    stream.write_all(&[b'x'; 16 << 10]).await.unwrap();
                    tokio::time::sleep(pause).await;
                }
                std::future::pending::<()>().await;
            })
            .await;
            assert_eq!(result.is_ok(), whole, "{result:?}");
            assert!(after <= pause * chunks + STALL, "{after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_takes_nothing_or_answers_too_soon_has_failed() {
        let (deaf, after) = attempted(REQUEST.len() / 2, |stream| async move {
            let _kept = stream;
            std::future::pending::<()>().await;
        })
        .await;
        assert!(matches!(deaf, Err(AttemptFailure::Stalled(_))), "{deaf:?}");
        assert_eq!(after, STALL);
        let (early, _) = attempted(REQUEST.len() / 2, |mut stream| async move {
            stream.write_all(b"DONE").await.unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        assert!(matches!(early, Err(AttemptFailure::Early)), "{early:?}");
    }
}
