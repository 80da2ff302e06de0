//! Descriptors: sealed by who knows whom, and what a holder of the secret may have written into one.

use std::sync::OnceLock;

use distmesh::{
    mesh::Mesh,
    session::{
        Descriptor, MAX_CANDIDATES, MAX_SEALED, OpenError, Role, Secret, SessionKeys, SessionName,
        open, seal,
    },
};

use super::net::{epoch, node, sent};

/// Where a sealed descriptor has its nonce.
const NONCE: std::ops::Range<usize> = 53..77;

/// Checks bytes found at the rendezvous; and the same as what was inside.
pub fn check(bytes: &[u8]) {
    match open(bytes, keys(), &session()) {
        Ok(descriptor) => check_genuine(bytes, &descriptor),
        Err(error) => {
            let too_large = matches!(error, OpenError::TooLarge(_));
            assert_eq!(too_large, bytes.len() > MAX_SEALED);
        }
    }
    if let Ok(descriptor) = serde_json::from_slice::<Descriptor>(bytes) {
        check_sealing(&descriptor);
        check_use(descriptor);
    }
}

/// Who lacks the key cannot change it: it must be what sealing its contents gives, bit by bit.
fn check_genuine(bytes: &[u8], descriptor: &Descriptor) {
    let nonce = bytes[NONCE].try_into().expect("24 bytes");
    assert!(seal(descriptor, keys(), &session(), nonce) == bytes);
    let other = "other".parse().expect("it is a name");
    assert_eq!(open(bytes, keys(), &other), Err(OpenError::Locked));
}

fn check_sealing(descriptor: &Descriptor) {
    let sealed = seal(descriptor, keys(), &session(), [7; 24]);
    let opened = open(&sealed, keys(), &session());
    if sealed.len() > MAX_SEALED {
        assert_eq!(opened, Err(OpenError::TooLarge(sealed.len())));
    } else if descriptor.candidates.len() > MAX_CANDIDATES {
        assert_eq!(opened, Err(OpenError::Malformed));
    } else {
        assert_eq!(opened.as_ref(), Ok(descriptor));
    }
    let (mut forged, at) = (sealed, descriptor.seq as usize);
    let at = at % forged.len();
    forged[at] ^= 1 << (at % 8);
    assert!(open(&forged, keys(), &session()).is_err(), "byte {at}");
}

/// A node knocks at no more doors than a descriptor may name, and only at such as are one node's.
fn check_use(descriptor: Descriptor) {
    for role in [Role::Primary, Role::Worker] {
        let mut mesh: Mesh = node(1, role).mesh;
        mesh.handle_descriptor(descriptor.clone(), [3; 32], epoch());
        mesh.handle_timeout(epoch());
        let sent = sent(&mut mesh);
        assert!(sent.len() <= MAX_CANDIDATES + 1);
        for to in sent.iter().map(|transmit| transmit.to) {
            assert!(to.port() != 0 && !to.ip().is_multicast() && !to.ip().is_unspecified());
        }
        assert!(mesh.poll_timeout().is_none_or(|due| due > epoch()));
    }
}

fn session() -> SessionName {
    "fuzz".parse().expect("it is a name")
}

/// Stretching takes its time, once.
fn keys() -> &'static SessionKeys {
    static KEYS: OnceLock<SessionKeys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let secret = Secret::new(b"known to everybody".to_vec()).expect("it is a secret");
        SessionKeys::derive(&secret, &session()).expect("there is memory")
    })
}
