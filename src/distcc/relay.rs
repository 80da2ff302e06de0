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

use super::{Malformed, RequestParser, ResponseParser};

const CHUNK: usize = 64 << 10;
/// distcc's own connect timeout; distccd on this machine accepts at once or not at all.
const CONNECT: Duration = Duration::from_secs(4);

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
    /// Something else than distcc asked.
    #[error("the primary's request is not distcc's: {0}")]
    Request(Malformed),
    /// distccd broke off.
    #[error("distccd closed before its answer was complete")]
    Incomplete,
    /// Something else than distccd answered.
    #[error("distccd's answer is not distcc's: {0}")]
    Garbage(#[from] Malformed),
    /// A broken connection to distccd.
    #[error("the connection to distccd broke: {0}")]
    Distccd(io::Error),
    /// The answer could not be delivered.
    #[error("the primary takes no answer: {0}")]
    Send(io::Error),
}

/// Carries the request from `recv` to distccd and the answer back to `send`, which is shut down after a whole answer.
///
/// `vouches` is asked for the compiler before distccd runs it and again before the first byte of the answer goes out: one that
/// is replaced meanwhile has answered for nobody.
///
/// The connection to distccd is never half-closed (distccd takes that for an abort). When `recv` ends before the answer is
/// complete the job is cancelled and the connection closed, upon which distccd kills the compiler.
pub async fn relay<R, W>(
    recv: R,
    send: W,
    distccd: SocketAddr,
    vouches: impl Fn(&str) -> bool + Send + Sync,
) -> Result<(), RelayError>
where
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

/// Lets only those compilers work that somebody vouches for.
struct Gate<V> {
    vouches: V,
    /// What the request names, once it has.
    compiler: OnceLock<String>,
}

impl<V: Fn(&str) -> bool> Gate<V> {
    fn check(&self) -> Result<(), RelayError> {
        match self.compiler.get() {
            Some(compiler) if !(self.vouches)(compiler) => Err(RelayError::Changed {
                compiler: compiler.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Reads along until the compiler is named.
    fn handle(&self, parser: &mut RequestParser, chunk: &[u8]) -> Result<(), RelayError> {
        if self.compiler.get().is_some() {
            return Ok(());
        }
        parser.feed(chunk).map_err(RelayError::Request)?;
        if !parser.has_arguments() {
            return Ok(());
        }
        let compiler = parser.arguments().compiler().path;
        self.compiler.get_or_init(|| compiler);
        self.check()
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

/// Carries bytes until the stream ends, which is always too early: the primary keeps it open until it has its answer.
async fn request<V: Fn(&str) -> bool>(
    mut recv: impl AsyncRead + Unpin,
    mut to: WriteHalf<'_>,
    gate: &Gate<V>,
) -> RelayError {
    let mut parser = RequestParser::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = recv.read(&mut chunk).await.unwrap_or(0);
        if count == 0 {
            return RelayError::Cancelled;
        }
        if let Err(error) = gate.handle(&mut parser, &chunk[..count]) {
            return error;
        }
        if let Err(error) = to.write_all(&chunk[..count]).await {
            return RelayError::Distccd(error);
        }
    }
}

/// distccd answers when the compiler has ended, so at the first byte the compiler is looked at for the second time.
async fn answer<V: Fn(&str) -> bool>(
    mut from: ReadHalf<'_>,
    mut send: impl AsyncWrite + Unpin,
    gate: &Gate<V>,
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
        send.write_all(&chunk[..used])
            .await
            .map_err(RelayError::Send)?;
    }
    send.shutdown().await.map_err(RelayError::Send)
}
