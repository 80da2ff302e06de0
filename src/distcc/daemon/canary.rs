//! A tiny real compile over the wire: the only proof that distccd works.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::distcc::{Malformed, ResponseParser};

/// Recognised in the log, so that canaries are not shown as compiles.
pub(super) const SOURCE: &str = "distmesh-canary.c";
/// Valid C, C++ and Objective-C, and not empty: `-pedantic` compilers complain about an empty unit.
const TEXT: &str = "int distmesh_canary;\n";
const CHUNK: usize = 16 << 10;

/// Why a canary died.
#[derive(Debug, thiserror::Error)]
pub enum CanaryFailure {
    /// No connection, or a broken one.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It took the request and said nothing: so distccd refuses a compiler or a client.
    #[error(
        "it closed the connection without an answer, as it does for a compiler or a client that it does not allow"
    )]
    Refused,
    /// It broke off in mid-answer.
    #[error("it broke off in mid-answer")]
    Incomplete,
    /// Somebody else listens there.
    #[error("{0}")]
    NotDistcc(#[from] Malformed),
    /// distccd answered, the compiler failed.
    #[error("the compiler failed (exit code {exit}, signal {signal}){}", said(.stderr))]
    Compiler {
        /// Its exit code; 100 to 120 are distccd's own.
        exit: u32,
        /// The signal that ended it, or 0.
        signal: u32,
        /// The beginning of what it said.
        stderr: String,
    },
    /// Too slow.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Neither its log nor its processes nor their CPU time has moved.
    #[error(
        "it is asked for a compile, and nothing of it has moved for {0:?}: stopped, or full of dead clients"
    )]
    Stalled(Duration),
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() {
        return String::new();
    }
    format!(", saying {stderr:?}")
}

/// Compiles one line. A future that is dropped closes its connection, which ends the compile.
pub(super) async fn check(
    addr: SocketAddr,
    compiler: &str,
    deadline: Duration,
) -> Result<(), CanaryFailure> {
    let compile = timeout(deadline, compile(addr, compiler)).await;
    compile.unwrap_or(Err(CanaryFailure::Timeout(deadline)))
}

async fn compile(addr: SocketAddr, compiler: &str) -> Result<(), CanaryFailure> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(&request(compiler)).await?;
    let mut parser = ResponseParser::default();
    let mut chunk = vec![0; CHUNK];
    let mut received = 0;
    while !parser.is_complete() {
        let count = stream.read(&mut chunk).await?;
        if count == 0 && received == 0 {
            return Err(CanaryFailure::Refused);
        }
        if count == 0 {
            return Err(CanaryFailure::Incomplete);
        }
        received += count;
        parser.feed(&chunk[..count])?;
    }
    judge(&parser)
}

fn judge(parser: &ResponseParser) -> Result<(), CanaryFailure> {
    match parser.status() {
        0 => Ok(()),
        status => Err(CanaryFailure::Compiler {
            exit: (status >> 8) & 0xff,
            signal: status & 0x7f,
            stderr: parser.first_words(),
        }),
    }
}

/// A request of protocol 1: the text is already preprocessed.
fn request(compiler: &str) -> Vec<u8> {
    let args = [compiler, "-c", SOURCE, "-o", "distmesh-canary.o"];
    let mut request = format!("DIST00000001ARGC{:08x}", args.len());
    for arg in args {
        request += &format!("ARGV{:08x}{arg}", arg.len());
    }
    request += &format!("DOTI{:08x}{TEXT}", TEXT.len());
    request.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distcc::RequestParser;

    #[test]
    fn the_request_is_whole_and_names_its_compiler() {
        let mut parser = RequestParser::default();
        let request = request("/usr/bin/gcc");
        let fed = parser.feed(&request).unwrap();
        assert!(parser.is_complete());
        assert_eq!(fed.head + fed.body, request.len());
        assert_eq!(parser.arguments().compiler(), "/usr/bin/gcc".into());
        assert_eq!(parser.arguments().source().as_deref(), Some(SOURCE));
    }

    #[test]
    fn a_failed_compile_is_told_with_the_compiler_s_words() {
        let mut parser = ResponseParser::default();
        let answer = b"DONE00000001STAT00006e00SERR0000000cno cc1 here\nSOUT00000000DOTO00000000";
        parser.feed(answer).unwrap();
        let told = judge(&parser).unwrap_err().to_string();
        assert!(told.contains("exit code 110"), "{told}");
        assert!(told.contains("no cc1 here"), "{told}");
    }
}
