//! Transaction ids that nobody can guess.

use ring::hmac;

/// The 96 bits that tie an answer to its question (RFC 8489 section 5); probes use the same size.
pub(super) type TransactionId = [u8; 12];

/// A stream of unpredictable ids: HMAC-SHA256 of a counter, keyed by the node's seed and a label.
#[derive(Debug)]
pub(super) struct TransactionIds {
    key: hmac::Key,
    count: u64,
}

impl TransactionIds {
    /// Streams of different labels have nothing in common.
    pub(super) fn new(seed: &[u8; 32], label: &[u8]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, seed);
        let derived = hmac::sign(&root, label);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
            count: 0,
        }
    }

    /// Returns an id, and its number in the stream, from 1.
    pub(super) fn next(&mut self) -> (TransactionId, u64) {
        self.count += 1;
        let tag = hmac::sign(&self.key, &self.count.to_be_bytes());
        let mut id = TransactionId::default();
        id.copy_from_slice(&tag.as_ref()[..size_of::<TransactionId>()]);
        (id, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_and_by_label_and_never_repeat() {
        let mut seen = std::collections::BTreeSet::new();
        for (seed, label) in [([1; 32], b"a"), ([1; 32], b"b"), ([2; 32], b"a")] {
            let mut ids = TransactionIds::new(&seed, label);
            for _ in 0..100 {
                assert!(seen.insert(ids.next().0), "an id came twice");
            }
        }
    }
}
