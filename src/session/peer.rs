//! A node's identity as others see it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A node's WireGuard public key (X25519, RFC 7748), which is its identity for one run.
///
/// Shown as the first eight hex digits: enough to tell peers apart in a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerId(pub [u8; 32]);

/// Text that is not the 64 hex digits of a public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer id is 64 hex digits")]
pub struct InvalidPeerId;

impl PeerId {
    /// The key's 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// All 64 hex digits.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

impl FromStr for PeerId {
    type Err = InvalidPeerId;

    fn from_str(hex: &str) -> Result<Self, InvalidPeerId> {
        let mut key = [0; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(InvalidPeerId);
        }
        for (byte, digits) in key.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| InvalidPeerId)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| InvalidPeerId)?;
        }
        Ok(Self(key))
    }
}

impl TryFrom<String> for PeerId {
    type Error = InvalidPeerId;
    fn try_from(hex: String) -> Result<Self, InvalidPeerId> {
        hex.parse()
    }
}

impl From<PeerId> for String {
    fn from(id: PeerId) -> Self {
        id.to_hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips() {
        let id = PeerId(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_hex().parse::<PeerId>(), Ok(id));
        assert_eq!("00".repeat(31).parse::<PeerId>(), Err(InvalidPeerId));
        assert_eq!("zz".repeat(32).parse::<PeerId>(), Err(InvalidPeerId));
    }
}
