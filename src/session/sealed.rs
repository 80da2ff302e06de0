//! Descriptors as they travel: encrypted, authenticated, and bound to their session and node.
//!
//! Layout, integers big-endian: `DMD1`, role (1 byte), public key (32), start (8), sequence (8), nonce (24), ciphertext with
//! its 16-byte tag. All that stands before the nonce, and the session's name, is associated data: an entry cannot be moved to
//! another session, node or sequence number.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

use super::{Descriptor, Role, SessionKeys, SessionName};

/// Why bytes are not a descriptor of this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Something else lies there.
    #[error("not a distmesh descriptor")]
    NotADescriptor,
    /// The end is missing: still being written, or cut off.
    #[error("a truncated descriptor")]
    Truncated,
    /// Far larger than any descriptor.
    #[error("a descriptor of {0} bytes, more than the {MAX_SEALED} that are allowed")]
    TooLarge(usize),
    /// Sealed with another key, or tampered with.
    #[error("a descriptor that this secret does not open")]
    Locked,
    /// Sealed by a member, yet not readable: another version.
    #[error("a descriptor that this version of distmesh cannot read")]
    Malformed,
}

/// Seals a descriptor. The nonce must be fresh and random: 24 bytes never repeat by chance.
pub fn seal(
    descriptor: &Descriptor,
    keys: &SessionKeys,
    session: &SessionName,
    nonce: [u8; 24],
) -> Vec<u8> {
    let mut sealed = header(descriptor);
    let plain = serde_json::to_vec(descriptor).unwrap_or_default();
    let payload = Payload {
        msg: &plain,
        aad: &associated(&sealed, session),
    };
    let cipher = XChaCha20Poly1305::new(keys.seal().into());
    // The cipher refuses only messages beyond 256 GiB.
    let locked = cipher
        .encrypt(XNonce::from_slice(&nonce), payload)
        .unwrap_or_default();
    sealed.extend(nonce);
    sealed.extend(locked);
    sealed
}

/// Opens what [`seal`] made; any bytes are safe to give.
pub fn open(
    bytes: &[u8],
    keys: &SessionKeys,
    session: &SessionName,
) -> Result<Descriptor, OpenError> {
    if bytes.len() > MAX_SEALED {
        return Err(OpenError::TooLarge(bytes.len()));
    }
    if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
        return Err(OpenError::NotADescriptor);
    }
    let (header, rest) = bytes.split_at_checked(HEADER).ok_or(OpenError::Truncated)?;
    let (nonce, locked) = rest.split_at_checked(NONCE).ok_or(OpenError::Truncated)?;
    if locked.len() < TAG {
        return Err(OpenError::Truncated);
    }
    let payload = Payload {
        msg: locked,
        aad: &associated(header, session),
    };
    let cipher = XChaCha20Poly1305::new(keys.seal().into());
    let plain = cipher
        .decrypt(XNonce::from_slice(nonce), payload)
        .map_err(|_| OpenError::Locked)?;
    let descriptor: Descriptor =
        serde_json::from_slice(&plain).map_err(|_| OpenError::Malformed)?;
    let honest =
        self::header(&descriptor) == header && descriptor.candidates.len() <= MAX_CANDIDATES;
    honest.then_some(descriptor).ok_or(OpenError::Malformed)
}

fn header(descriptor: &Descriptor) -> Vec<u8> {
    let role = match descriptor.role {
        Role::Primary => 0,
        Role::Worker => 1,
    };
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.push(role);
    header.extend(descriptor.peer.as_bytes());
    header.extend(descriptor.start_ms.to_be_bytes());
    header.extend(descriptor.seq.to_be_bytes());
    header
}

fn associated(header: &[u8], session: &SessionName) -> Vec<u8> {
    [header, session.as_str().as_bytes()].concat()
}

/// Names the format and its version.
const MAGIC: &[u8; 4] = b"DMD1";
const HEADER: usize = 4 + 1 + 32 + 8 + 8;
const NONCE: usize = 24;
const TAG: usize = 16;

/// A descriptor with 64 candidates is about 5 KiB.
pub const MAX_SEALED: usize = 16 * 1024;

/// A machine with more addresses than this has containers, not ways to be reached; each candidate costs a probe a second.
pub const MAX_CANDIDATES: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::{Candidate, CandidateKind, NatClass, PeerId, Secret};

    fn session(name: &str) -> SessionName {
        name.parse().unwrap()
    }

    fn keys(secret: &str) -> SessionKeys {
        SessionKeys::derive(&Secret::new(secret.into()).unwrap(), &session("s")).unwrap()
    }

    fn descriptor(candidates: usize) -> Descriptor {
        let candidate = Candidate {
            kind: CandidateKind::Host,
            addr: "192.0.2.1:4000".parse().unwrap(),
        };
        Descriptor {
            role: Role::Worker,
            name: "w1".parse().unwrap(),
            start_ms: 17,
            seq: 3,
            peer: PeerId([7; 32]),
            stream_key: [9; 32],
            candidates: vec![candidate; candidates],
            nat: NatClass::Unknown,
        }
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_secret_only() {
        let sealed = seal(&descriptor(2), &keys("one"), &session("s"), [1; 24]);
        assert_eq!(
            open(&sealed, &keys("one"), &session("s")),
            Ok(descriptor(2))
        );
        assert_eq!(
            open(&sealed, &keys("two"), &session("s")),
            Err(OpenError::Locked)
        );
        assert_eq!(
            open(&sealed, &keys("one"), &session("t")),
            Err(OpenError::Locked)
        );
    }

    #[test]
    fn nothing_of_the_contents_shows() {
        let sealed = seal(&descriptor(1), &keys("one"), &session("s"), [1; 24]);
        assert!(!sealed.windows(9).any(|window| window == b"192.0.2.1"));
    }

    #[test]
    fn a_changed_bit_anywhere_is_noticed() {
        let keys = keys("one");
        let sealed = seal(&descriptor(1), &keys, &session("s"), [1; 24]);
        for byte in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[byte] ^= 1 << (byte % 8);
            assert!(open(&forged, &keys, &session("s")).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn a_cut_off_descriptor_is_called_truncated_or_does_not_open() {
        let keys = keys("one");
        let sealed = seal(&descriptor(1), &keys, &session("s"), [1; 24]);
        for len in 0..sealed.len() {
            let short = open(&sealed[..len], &keys, &session("s"));
            let expected = if len < HEADER + NONCE + TAG {
                OpenError::Truncated
            } else {
                OpenError::Locked
            };
            assert_eq!(short, Err(expected), "{len} bytes");
        }
    }

    #[test]
    fn too_many_candidates_and_too_many_bytes_are_refused() {
        let keys = keys("one");
        let sealed = seal(
            &descriptor(MAX_CANDIDATES + 1),
            &keys,
            &session("s"),
            [1; 24],
        );
        assert_eq!(
            open(&sealed, &keys, &session("s")),
            Err(OpenError::Malformed)
        );
        let huge = vec![b'D'; MAX_SEALED + 1];
        assert_eq!(
            open(&huge, &keys, &session("s")),
            Err(OpenError::TooLarge(MAX_SEALED + 1))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe_to_open(bytes in proptest::collection::vec(any::<u8>(), 0..400), magic: bool) {
            let keys = SessionKeys::for_tests();
            let bytes = if magic { [MAGIC.as_slice(), &bytes].concat() } else { bytes };
            prop_assert!(open(&bytes, &keys, &session("s")).is_err());
        }
    }
}
