//! A distccd's response.

use distmesh::distcc::{Malformed, ResponseParser};

use super::splits::splits;

/// What came of feeding one response.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    outcome: Result<usize, Malformed>,
    version: u32,
    status: u32,
    is_complete: bool,
    fault: Option<String>,
}

/// Checks one stream from a worker.
pub fn check(bytes: &[u8]) {
    let [whole, single, halves] = splits(bytes).map(|pieces| feed(&pieces));
    assert_eq!(whole, single, "single bytes");
    assert_eq!(whole, halves, "two halves");
    let Ok(used) = whole.outcome else {
        return;
    };
    assert_eq!(whole.is_complete, used < bytes.len() || is_whole(bytes));
    if whole.is_complete {
        check_complete(&bytes[..used], &whole);
    }
}

fn check_complete(bytes: &[u8], parsed: &Parsed) {
    assert!(is_whole(bytes));
    assert!(!feed(&[&bytes[..bytes.len() - 1]]).is_complete);
    // It goes into a log and to a person.
    let said = parsed.fault.as_deref().unwrap_or_default();
    assert!(said.len() < 200 && !said.contains(char::is_control));
    if parsed.fault.is_none() {
        // What distcc makes of it: the exit code of a compiler, and an object exactly if that is 0.
        let exit = parsed.status >> 8;
        assert_eq!(parsed.status, exit << 8);
        assert!(exit < 100 || (121..256).contains(&exit));
        assert_eq!(exit == 0, !packet_at(bytes, 4).body.is_empty());
    }
}

/// One packet, read the short way: all of it is there.
struct Packet<'a> {
    token: &'a [u8],
    value: u32,
    body: &'a [u8],
}

fn packet_at(mut bytes: &[u8], n: usize) -> Packet<'_> {
    for _ in 0..n {
        bytes = packet(bytes).map_or(&[], |(_, rest)| rest);
    }
    let nothing = Packet {
        token: &[],
        value: 0,
        body: &[],
    };
    packet(bytes).map_or(nothing, |(packet, _)| packet)
}

fn packet(bytes: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let (token, rest) = bytes.split_at_checked(4)?;
    let (digits, rest) = rest.split_at_checked(8)?;
    let value = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    let length = if matches!(token, b"DONE" | b"STAT") {
        0
    } else {
        value as usize
    };
    let (body, rest) = rest.split_at_checked(length)?;
    Some((Packet { token, value, body }, rest))
}

/// Whether the bytes are one response and nothing else.
fn is_whole(bytes: &[u8]) -> bool {
    let deps = packet_at(bytes, 0).value == 3 && packet_at(bytes, 1).value == 0;
    let tokens: [&[u8]; 6] = [b"DONE", b"STAT", b"SERR", b"SOUT", b"DOTO", b"DOTD"];
    let tokens = if deps { &tokens[..] } else { &tokens[..5] };
    let mut rest = bytes;
    for token in tokens {
        match packet(rest) {
            Some((packet, after)) if packet.token == *token => rest = after,
            _ => return false,
        }
    }
    rest.is_empty()
}

fn feed(pieces: &[&[u8]]) -> Parsed {
    let mut parser = ResponseParser::default();
    let mut outcome = Ok(0);
    for piece in pieces {
        let fed = parser.feed(piece);
        assert!(fed.iter().all(|used| *used <= piece.len()));
        outcome = outcome.and_then(|before| Ok(before + fed?));
        if outcome.is_err() {
            break;
        }
    }
    let whole = parser.is_complete() && outcome.is_ok();
    Parsed {
        version: parser.version(),
        status: parser.status(),
        is_complete: whole,
        fault: parser.fault().filter(|_| whole),
        outcome,
    }
}
