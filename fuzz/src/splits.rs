//! Ways to cut a stream into pieces: TCP and QUIC cut where they like.

/// The whole, single bytes, and two halves whose border depends on the bytes, so that a fuzzer can move it.
pub(crate) fn splits(bytes: &[u8]) -> [Vec<&[u8]>; 3] {
    let sum = bytes
        .iter()
        .fold(bytes.len(), |sum, byte| sum + usize::from(*byte));
    let (left, right) = bytes.split_at(sum % (bytes.len() + 1));
    [vec![bytes], bytes.chunks(1).collect(), vec![left, right]]
}
