//! A distcc client's request.

use distmesh::distcc::{Malformed, RequestParser};

use super::splits::splits;

/// No path of the corpus: another compiler than any request's own.
const ELSEWHERE: &str = "/opt/elsewhere/bin/cc";

/// What came of feeding one request.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    outcome: Result<(), Malformed>,
    version: u32,
    head: Vec<u8>,
    body: Vec<u8>,
    args: Vec<Vec<u8>>,
    is_complete: bool,
}

/// Checks one stream from a client.
pub fn check(bytes: &[u8]) {
    let [whole, single, halves] = splits(bytes).map(|pieces| feed(&pieces));
    let (parser, parsed) = whole;
    assert_eq!(parsed, single.1, "single bytes");
    assert_eq!(parsed, halves.1, "two halves");
    check_memory(&parser, bytes.len());
    if parsed.outcome.is_ok() {
        let used = [&parsed.head[..], &parsed.body].concat();
        assert!(bytes.starts_with(&used));
        assert!(parsed.is_complete || used.len() == bytes.len());
    }
    if parsed.is_complete {
        check_complete(&parser, &parsed);
    }
}

/// What is kept is what came, whatever lengths were announced; a vector doubles when it grows.
fn check_memory(parser: &RequestParser, fed: usize) {
    const SMALLEST: usize = 8;
    let args = parser.arguments().raw();
    let held: usize = args.iter().map(Vec::capacity).sum();
    assert!(parser.head().len() <= fed);
    assert!(held <= 2 * fed + SMALLEST * args.len());
}

fn check_complete(parser: &RequestParser, parsed: &Parsed) {
    assert!(!parser.may_be_abandoned());
    let arguments = parser.arguments();
    let compiler = arguments.compiler();
    assert!(compiler.target.is_none() || arguments.raw().len() > 1);
    let named = [
        Some(compiler.path.clone()),
        compiler.target,
        arguments.source(),
        arguments.language(),
    ];
    // Bytes that are no UTF-8 grow threefold when they are replaced.
    let shown: usize = named.iter().flatten().map(String::len).sum();
    assert!(shown <= 4 * 3 * parsed.head.len());
    for compiler in [compiler.path, ELSEWHERE.to_owned()] {
        let again = [&parser.head_for(&compiler)[..], &parsed.body].concat();
        let (_, again) = feed(&[&again]);
        let mut args = parsed.args.clone();
        args.iter_mut()
            .take(1)
            .for_each(|first| *first = compiler.clone().into_bytes());
        assert!(again.is_complete && again.outcome.is_ok());
        assert_eq!(again.args, args);
        assert_eq!(again.body, parsed.body);
        assert_eq!(again.version, parsed.version);
    }
    check_cut(parsed);
}

/// Without its last byte a request is not whole, and with another one it is the same.
fn check_cut(parsed: &Parsed) {
    let mut bytes = [&parsed.head[..], &parsed.body].concat();
    assert!(!feed(&[&bytes[..bytes.len() - 1]]).1.is_complete);
    bytes.push(b'D');
    assert_eq!(feed(&[&bytes]).1, *parsed);
}

fn feed(pieces: &[&[u8]]) -> (RequestParser, Parsed) {
    let mut parser = RequestParser::default();
    let (mut outcome, mut body) = (Ok(()), Vec::new());
    for piece in pieces {
        match parser.feed(piece) {
            Ok(fed) => {
                assert!(fed.head + fed.body <= piece.len());
                body.extend(&piece[fed.head..fed.head + fed.body]);
            }
            Err(malformed) => {
                // How much of the last piece was kept is nobody's business.
                (outcome, body) = (Err(malformed), Vec::new());
                break;
            }
        }
    }
    let failed = outcome.is_err();
    let kept = |bytes: &[u8]| if failed { Vec::new() } else { bytes.to_vec() };
    let parsed = Parsed {
        version: parser.version(),
        head: kept(parser.head()),
        args: if failed {
            Vec::new()
        } else {
            parser.arguments().raw().to_vec()
        },
        is_complete: parser.is_complete() && !failed,
        outcome,
        body,
    };
    (parser, parsed)
}
