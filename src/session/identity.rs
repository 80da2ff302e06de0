//! Who this process is, for one run.

use std::fmt;

use boringtun::x25519::{PublicKey, StaticSecret};
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use super::PeerId;

/// A node's private keys: made fresh at every start, kept in memory only, wiped when dropped.
pub struct Identity {
    wireguard: StaticSecret,
    stream_seed: Zeroizing<[u8; 32]>,
    stream_public: [u8; 32],
}

/// An identity that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
    /// The stream layer's key was refused.
    #[error("the stream key is not usable")]
    StreamKey,
}

impl Identity {
    /// Makes a fresh identity from the operating system's randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut seeds = Zeroizing::new([[0; 32]; 2]);
        for seed in seeds.iter_mut() {
            getrandom::fill(seed).map_err(|_| IdentityError::NoRandomness)?;
        }
        Self::from_seeds(seeds[0], seeds[1])
    }

    /// Makes the identity that these random bytes give: the WireGuard private key, and the Ed25519 seed (RFC 8032).
    pub fn from_seeds(wireguard: [u8; 32], stream: [u8; 32]) -> Result<Self, IdentityError> {
        let stream_seed = Zeroizing::new(stream);
        let pair = Ed25519KeyPair::from_seed_unchecked(stream_seed.as_ref())
            .map_err(|_| IdentityError::StreamKey)?;
        let stream_public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| IdentityError::StreamKey)?;
        Ok(Self {
            wireguard: StaticSecret::from(wireguard),
            stream_seed,
            stream_public,
        })
    }

    /// The public name of this identity.
    pub fn peer(&self) -> PeerId {
        PeerId(PublicKey::from(&self.wireguard).to_bytes())
    }

    /// The WireGuard private key.
    pub fn wireguard_private(&self) -> &StaticSecret {
        &self.wireguard
    }

    /// The Ed25519 public key that QUIC peers pin.
    pub fn stream_public(&self) -> [u8; 32] {
        self.stream_public
    }

    /// The Ed25519 private key as PKCS#8 version 1 (RFC 8410 section 7).
    pub fn stream_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([PKCS8_PREFIX, self.stream_seed.as_ref()].concat())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer())
    }
}

/// `SEQUENCE { version 0, AlgorithmIdentifier { 1.3.101.112 }, OCTET STRING { OCTET STRING (32 bytes) } }` up to the seed.
const PKCS8_PREFIX: &[u8] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_identities_differ_and_show_no_private_key() {
        let (one, two) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        assert_ne!(one.peer(), two.peer());
        assert_ne!(one.stream_public(), two.stream_public());
        assert_eq!(format!("{one:?}"), format!("Identity({})", one.peer()));
    }

    #[test]
    fn the_stream_key_reads_back_from_its_pkcs8_form() {
        let identity = Identity::from_seeds([3; 32], [4; 32]).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&identity.stream_pkcs8()).unwrap();
        assert_eq!(pair.public_key().as_ref(), identity.stream_public());
    }
}
