//! Keys: from the secret to what descriptors and pairs of nodes use.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use boringtun::x25519::{PublicKey, StaticSecret};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{PeerId, Secret, SessionName};

/// The keys of one session, the same on every member.
pub struct SessionKeys {
    seal: Zeroizing<[u8; 32]>,
    mix: Zeroizing<[u8; 32]>,
}

/// The keys of one pair of nodes, the same on both.
#[derive(Clone, PartialEq, Eq)]
pub struct PairKeys {
    /// Authenticates probes.
    pub probe: Zeroizing<[u8; 32]>,
    /// WireGuard's pre-shared key.
    pub preshared: Zeroizing<[u8; 32]>,
}

/// Keys that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Argon2id could not run.
    #[error("cannot derive keys from the secret: not enough memory")]
    Stretch,
    /// The peer's public key gives a shared secret that everybody knows (RFC 7748 section 6.1).
    #[error("the peer's public key is not a usable one")]
    WeakPeer,
}

impl SessionKeys {
    /// Stretches the secret. Takes some tens of milliseconds and 19 MiB, on purpose.
    pub fn derive(secret: &Secret, session: &SessionName) -> Result<Self, KeyError> {
        let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32)).map_err(|_| KeyError::Stretch)?;
        let mut root = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(
                secret.expose(),
                format!("distmesh 1 {session}").as_bytes(),
                root.as_mut(),
            )
            .map_err(|_| KeyError::Stretch)?;
        let hkdf = Hkdf::<Sha256>::new(None, root.as_ref());
        Ok(Self {
            seal: expand(&hkdf, &[b"seal"]),
            mix: expand(&hkdf, &[b"mix"]),
        })
    }

    /// Derives what `me` shares with `peer`, and nobody without both the session's secret and one of the two private keys.
    pub fn pair(&self, me: &StaticSecret, peer: &PeerId) -> Result<PairKeys, KeyError> {
        let shared = me.diffie_hellman(&PublicKey::from(*peer.as_bytes()));
        if !shared.was_contributory() {
            return Err(KeyError::WeakPeer);
        }
        let mine = PublicKey::from(me).to_bytes();
        let (low, high) = if mine < peer.0 {
            (mine, peer.0)
        } else {
            (peer.0, mine)
        };
        let hkdf = Hkdf::<Sha256>::new(Some(self.mix.as_ref()), shared.as_bytes());
        Ok(PairKeys {
            probe: expand(&hkdf, &[b"probe", &low, &high]),
            preshared: expand(&hkdf, &[b"preshared", &low, &high]),
        })
    }

    /// Keys without the cost of stretching, for tests that need many.
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self {
            seal: Zeroizing::new([1; 32]),
            mix: Zeroizing::new([2; 32]),
        }
    }

    /// The key that seals descriptors.
    pub(super) fn seal(&self) -> &[u8; 32] {
        &self.seal
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(…)")
    }
}

impl fmt::Debug for PairKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairKeys(…)")
    }
}

fn expand(hkdf: &Hkdf<Sha256>, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    // RFC 5869 section 2.3: only an output longer than 255 hashes can fail.
    let filled = hkdf.expand_multi_info(info, key.as_mut());
    debug_assert!(filled.is_ok(), "32 bytes are one hash");
    key
}

/// 19 MiB, two passes, one lane: the OWASP Password Storage Cheat Sheet's minimum for Argon2id. A runner has the memory, and
/// a guess costs an attacker the same.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secret: &str, session: &str) -> SessionKeys {
        SessionKeys::derive(
            &Secret::new(secret.into()).unwrap(),
            &session.parse().unwrap(),
        )
        .unwrap()
    }

    fn node(seed: u8) -> (StaticSecret, PeerId) {
        let private = StaticSecret::from([seed; 32]);
        let peer = PeerId(PublicKey::from(&private).to_bytes());
        (private, peer)
    }

    #[test]
    fn both_ends_of_a_pair_derive_the_same_keys() {
        let keys = keys("a long enough secret", "s");
        let ((a, a_id), (b, b_id)) = (node(1), node(2));
        let pair = keys.pair(&a, &b_id).unwrap();
        assert!(pair == keys.pair(&b, &a_id).unwrap());
        assert_ne!(pair.probe, pair.preshared);
        let (_, c_id) = node(3);
        assert!(pair != keys.pair(&a, &c_id).unwrap());
    }

    #[test]
    fn another_secret_or_session_gives_other_keys() {
        let (a, _) = node(1);
        let (_, b) = node(2);
        let pair = |secret, session| keys(secret, session).pair(&a, &b).unwrap();
        assert!(pair("one", "s") != pair("two", "s"));
        assert!(pair("one", "s") != pair("one", "t"));
    }

    #[test]
    fn public_facts_in_the_place_of_a_secret_give_every_pair_its_own_keys() {
        let of_run = |facts| {
            let secret = Secret::of_public_facts(facts);
            SessionKeys::derive(&secret, &"7.1".parse().unwrap()).unwrap()
        };
        let ((a, a_id), (b, b_id), (c, _)) = (node(1), node(2), node(3));
        let keys = of_run("https://github.com o/r 7 1");
        let pair = keys.pair(&a, &b_id).unwrap();
        assert!(pair == keys.pair(&b, &a_id).unwrap());
        assert!(
            pair != keys.pair(&c, &b_id).unwrap(),
            "a private key is needed"
        );
        assert!(
            pair != of_run("https://github.com o/r 7 2")
                .pair(&a, &b_id)
                .unwrap()
        );
    }

    #[test]
    fn a_public_key_of_low_order_is_refused() {
        let (a, _) = node(1);
        assert_eq!(
            keys("one", "s").pair(&a, &PeerId([0; 32])),
            Err(KeyError::WeakPeer)
        );
    }

    #[test]
    fn keys_are_never_shown() {
        let keys = keys("one", "s");
        let pair = keys.pair(&node(1).0, &node(2).1).unwrap();
        assert_eq!(format!("{keys:?} {pair:?}"), "SessionKeys(…) PairKeys(…)");
    }
}
