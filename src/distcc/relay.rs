//! Carries one job between a stream and distccd.

use std::{io, net::SocketAddr, sync::OnceLock, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::timeout,
};

use super::{Fed, Malformed, RequestParser, ResponseParser};

const CHUNK: usize = 64 << 10;
/// distcc's own connect timeout; distccd on this machine accepts at once or not at all.
const CONNECT: Duration = Duration::from_secs(4);
/// Primary and worker do nothing but read and write here: who moves no byte for so long is stuck, and holds one of distccd's
/// processes meanwhile. The primary gives an attempt up after the same time.
const STALL: Duration = Duration::from_secs(60);

/// Why a job got no whole answer. The stream is reset in each case, and the primary attempts elsewhere if it still wants to.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// distccd takes no connection.
    #[error("distccd at {addr} takes no connection: {source}")]
    Connect {
        /// Where it should be.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The primary took the job back.
    #[error("the primary cancelled the job")]
    Cancelled,
    /// The compiler is none that the primary was offered, or has changed since.
    #[error("{compiler} is not the compiler that was offered")]
    Changed {
        /// The compiler that the request names.
        compiler: String,
    },
    /// distccd broke off.
    #[error("distccd closed before its answer was complete")]
    Incomplete,
    /// Something else than distccd answered.
    #[error("distccd's answer is not distcc's: {0}")]
    Garbage(#[from] Malformed),
    /// The primary sends something else than one request.
    #[error("the primary's request is not distcc's: {0}")]
    BadRequest(Malformed),
    /// Somebody does not do his part.
    #[error("a job is stuck: {0}")]
    Stalled(&'static str),
    /// A broken connection to distccd.
    #[error("the connection to distccd broke: {0}")]
    Distccd(io::Error),
    /// The answer could not be delivered.
    #[error("the primary takes no answer: {0}")]
    Send(io::Error),
}

/// Carries the request from `recv` to distccd and the answer back to `send`, which is shut down after a whole answer.
///
/// `vouches` is asked for the compiler, as what it then is, before distccd runs it and again before the first byte of the answer goes
/// out: one that is replaced meanwhile has answered for nobody.
///
/// The connection to distccd is never half-closed (distccd takes that for an abort). When `recv` ends before the answer is
/// complete the job is cancelled and the connection closed, upon which distccd kills the compiler.
pub async fn relay<R, W, T>(
    recv: R,
    send: W,
    distccd: SocketAddr,
    vouches: impl Fn(&str) -> Option<T> + Send + Sync,
) -> Result<(), RelayError>
where
    T: PartialEq + Send + Sync,
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let mut connection = connect(distccd).await?;
    let (from, to) = connection.split();
    let gate = Gate {
        vouches,
        compiler: OnceLock::new(),
    };
    tokio::select! {
        // An answer that is there wins over a stream that its owner has just dropped because he has read all of it.
        biased;
        answered = answer(from, send, &gate) => answered,
        error = request(recv, to, &gate) => Err(error),
    }
}

/// Lets only those compilers work that somebody vouches for, and that are then what they were when the job came.
struct Gate<V, T> {
    vouches: V,
    /// What the request names, once it has, and what it was.
    compiler: OnceLock<(String, T)>,
}

impl<V: Fn(&str) -> Option<T>, T: PartialEq> Gate<V, T> {
    fn check(&self) -> Result<(), RelayError> {
        match self.compiler.get() {
            Some((compiler, was)) if (self.vouches)(compiler).as_ref() != Some(was) => {
                Err(RelayError::Changed {
                    compiler: compiler.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Looks at what was read so far, until the compiler is named.
    fn handle(&self, parser: &RequestParser) -> Result<(), RelayError> {
        if self.compiler.get().is_some() || !parser.has_arguments() {
            return Ok(());
        }
        let compiler = parser.arguments().compiler().path;
        let Some(is) = (self.vouches)(&compiler) else {
            return Err(RelayError::Changed { compiler });
        };
        self.compiler.get_or_init(|| (compiler, is));
        Ok(())
    }
}

async fn connect(addr: SocketAddr) -> Result<TcpStream, RelayError> {
    let connecting = timeout(CONNECT, TcpStream::connect(addr)).await;
    let connection = connecting
        .map_err(|elapsed| io::Error::new(io::ErrorKind::TimedOut, elapsed))
        .and_then(|connected| connected)
        .and_then(|connection| connection.set_nodelay(true).map(|()| connection));
    connection.map_err(|source| RelayError::Connect { addr, source })
}

/// Carries the request, and waits for the stream to end, which is always too early: the primary keeps it open until it has its
/// answer.
async fn request<V: Fn(&str) -> Option<T>, T: PartialEq>(
    mut recv: impl AsyncRead + Unpin,
    mut to: WriteHalf<'_>,
    gate: &Gate<V, T>,
) -> RelayError {
    let mut parser = RequestParser::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        let reading = recv.read(&mut chunk);
        let read = match parser.is_complete() {
            true => reading.await,
            false => match timeout(STALL, reading).await {
                Ok(read) => read,
                Err(_) => return RelayError::Stalled("the primary sends no more of its request"),
            },
        };
        let count = read.unwrap_or(0);
        if count == 0 {
            return RelayError::Cancelled;
        }
        match parser.feed(&chunk[..count]) {
            Ok(Fed { head, body }) if head + body == count => {}
            Ok(Fed { head, body }) => {
                return RelayError::BadRequest(Malformed::Surplus(count - head - body));
            }
            Err(malformed) => return RelayError::BadRequest(malformed),
        }
        if let Err(error) = gate.handle(&parser) {
            return error;
        }
        match timeout(STALL, to.write_all(&chunk[..count])).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return RelayError::Distccd(error),
            Err(_) => return RelayError::Stalled("distccd takes no more of a request"),
        }
    }
}

/// distccd answers when the compiler has ended, so at the first byte the compiler is looked at for the second time.
async fn answer<V: Fn(&str) -> Option<T>, T: PartialEq>(
    mut from: ReadHalf<'_>,
    mut send: impl AsyncWrite + Unpin,
    gate: &Gate<V, T>,
) -> Result<(), RelayError> {
    let mut parser = ResponseParser::default();
    let mut chunk = vec![0; CHUNK];
    let mut begun = false;
    while !parser.is_complete() {
        let count = from.read(&mut chunk).await.map_err(RelayError::Distccd)?;
        if count == 0 {
            return Err(RelayError::Incomplete);
        }
        if !std::mem::replace(&mut begun, true) {
            gate.check()?;
        }
        let used = parser.feed(&chunk[..count])?;
        if used < count {
            return Err(Malformed::Surplus(count - used).into());
        }
        let sent = timeout(STALL, send.write_all(&chunk[..used])).await;
        let sent = sent.map_err(|_| RelayError::Stalled("the primary takes no answer"))?;
        sent.map_err(RelayError::Send)?;
    }
    send.shutdown().await.map_err(RelayError::Send)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{DuplexStream, duplex},
        net::TcpListener,
        task::JoinHandle,
        time::Instant,
    };

    use super::*;

    const REQUEST: &[u8] = b"DIST00000001ARGC00000001ARGV00000003gccDOTI00000004abcd";
    const HEAD: usize = REQUEST.len() - 16;

    /// A relayed job with both its ends in the test's hands.
    struct Job {
        primary: DuplexStream,
        distccd: TcpStream,
        relay: JoinHandle<Result<(), RelayError>>,
        began: Instant,
    }

    async fn job() -> Job {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (primary, worker) = duplex(CHUNK);
        let (recv, send) = tokio::io::split(worker);
        let relay = tokio::spawn(relay(recv, send, addr, |_| Some(())));
        Job {
            primary,
            distccd: listener.accept().await.unwrap().0,
            relay,
            began: Instant::now(),
        }
    }

    /// The relay ends by itself, as late as it should, and distccd is free again.
    async fn ends(mut job: Job, why: &str) {
        let told = job.relay.await.unwrap().unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
        let waited = job.began.elapsed();
        assert!((STALL..2 * STALL).contains(&waited), "{waited:?}");
        drop(job.primary);
        let mut rest = vec![0; CHUNK];
        while matches!(job.distccd.read(&mut rest).await, Ok(1..)) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_primary_that_stops_in_mid_request_does_not_keep_distccd() {
        let mut job = job().await;
        job.primary.write_all(&REQUEST[..HEAD]).await.unwrap();
        ends(job, "sends no more").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_primary_that_takes_no_answer_does_not_keep_distccd() {
        let mut job = job().await;
        job.primary.write_all(REQUEST).await.unwrap();
        let large = format!("DONE00000001STAT00000000SERR{:08x}", 4 * CHUNK);
        job.distccd.write_all(large.as_bytes()).await.unwrap();
        job.distccd.write_all(&vec![b'x'; 4 * CHUNK]).await.unwrap();
        ends(job, "takes no answer").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_distccd_that_takes_no_request_does_not_keep_the_primary() {
        let mut job = job().await;
        let large = format!(
            "DIST00000001ARGC00000001ARGV00000003gccDOTI{:08x}",
            64 << 20
        );
        job.primary.write_all(large.as_bytes()).await.unwrap();
        while job.primary.write_all(&[b'x'; CHUNK]).await.is_ok() {}
        ends(job, "distccd takes no more").await;
    }

    #[tokio::test]
    async fn what_is_not_one_request_is_refused() {
        for bytes in [&b"GET / HTTP/1.1"[..], &[REQUEST, b"DIST"].concat()] {
            let mut job = job().await;
            job.primary.write_all(bytes).await.unwrap();
            let refused = job.relay.await.unwrap();
            assert!(
                matches!(refused, Err(RelayError::BadRequest(_))),
                "{refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn an_answer_with_more_behind_it_is_an_error() {
        let mut job = job().await;
        job.primary.write_all(REQUEST).await.unwrap();
        let surplus = b"DONE00000001STAT00000100SERR00000000SOUT00000000DOTO00000000x";
        job.distccd.write_all(surplus).await.unwrap();
        let refused = job.relay.await.unwrap();
        assert!(
            matches!(refused, Err(RelayError::Garbage(_))),
            "{refused:?}"
        );
    }
}
