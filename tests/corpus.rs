//! What the fuzzers found, again: every input of `fuzz/corpus` still has the properties that the fuzz targets check.
#![expect(clippy::unwrap_used, reason = "a test may fail that way")]

use std::{
    panic::catch_unwind,
    path::{Path, PathBuf},
};

#[expect(unreachable_pub, reason = "it is the library of the fuzz targets")]
#[path = "../fuzz/src/lib.rs"]
mod properties;

use properties::{datagram, descriptor, message, request, response, stun};

/// Checks every input of one target; names all that fail.
fn replay(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let entries = std::fs::read_dir(dir.join(target)).unwrap();
    let files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    let fails = |file: &&PathBuf| {
        let bytes = std::fs::read(file).unwrap();
        catch_unwind(|| check(&bytes)).is_err()
    };
    let failed: Vec<_> = files.iter().filter(fails).collect();
    assert!(!files.is_empty() && failed.is_empty(), "{failed:?}");
}

#[test]
fn requests_are_cut_where_they_end() {
    replay("request", request::check);
}

#[test]
fn responses_are_cut_where_they_end_and_judged() {
    replay("response", response::check);
}

#[test]
fn stun_answers_are_believed_only_for_what_they_may_say() {
    replay("stun", stun::check);
}

#[test]
fn datagrams_of_strangers_change_nothing() {
    replay("datagram", datagram::check);
}

#[test]
fn descriptors_open_as_they_were_sealed() {
    replay("descriptor", descriptor::check);
}

#[test]
fn control_messages_are_understood_as_they_were_meant() {
    replay("message", message::check);
}
