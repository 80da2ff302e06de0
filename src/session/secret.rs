//! The secret that the members of a session share.

use std::fmt;

use zeroize::Zeroizing;

/// What the members of a session share; wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Bytes that cannot serve as a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Nothing is left without the final newline.
    #[error("the secret is empty: make one with `distmesh keygen`")]
    Empty,
    /// More than a GitHub secret can hold.
    #[error("the secret has {0} bytes, more than the {MAX_SECRET} that are allowed")]
    TooLong(usize),
}

impl Secret {
    /// Takes a secret as read from a file or a variable; one final newline is not part of it.
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecretError> {
        let mut bytes = Zeroizing::new(bytes);
        let kept = bytes.strip_suffix(b"\n").map_or(bytes.len(), |rest| {
            rest.strip_suffix(b"\r").unwrap_or(rest).len()
        });
        bytes.truncate(kept);
        match bytes.len() {
            0 => Err(SecretError::Empty),
            n if n > MAX_SECRET => Err(SecretError::TooLong(n)),
            _ => Ok(Self(bytes)),
        }
    }

    /// Writes 32 random bytes as 64 hex digits, a form that survives every editor and web form.
    pub fn from_random(random: &[u8; 32]) -> Self {
        let mut text = Zeroizing::new(Vec::with_capacity(64));
        for byte in random {
            for nibble in [byte >> 4, byte & 15] {
                text.push(b"0123456789abcdef"[nibble as usize]);
            }
        }
        Self(text)
    }

    /// What stands in for a secret when everybody who knows these public facts is trusted. It hides nothing.
    pub fn of_public_facts(facts: &str) -> Self {
        Self(Zeroizing::new(
            format!("distmesh trusts this run\n{facts}").into_bytes(),
        ))
    }

    /// True when a secret is worth guessing: whoever can read the rendezvous can try secrets offline.
    pub fn is_short(&self) -> bool {
        self.0.len() < SHORT
    }

    /// The secret itself, to derive keys from or to write into its file.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The size limit of a GitHub Actions secret.
const MAX_SECRET: usize = 48 * 1024;

/// Sixteen typed characters are the least that Argon2id can stretch into something costly to guess.
const SHORT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_newline_is_not_part_of_the_secret() {
        for text in ["correct horse", "correct horse\n", "correct horse\r\n"] {
            assert_eq!(Secret::new(text.into()).unwrap().expose(), b"correct horse");
        }
    }

    #[test]
    fn an_empty_and_an_oversized_secret_are_refused() {
        assert_eq!(Secret::new(b"\n".to_vec()), Err(SecretError::Empty));
        assert_eq!(
            Secret::new(vec![b'x'; MAX_SECRET + 1]),
            Err(SecretError::TooLong(MAX_SECRET + 1))
        );
        assert!(Secret::new(vec![b'x'; MAX_SECRET]).is_ok());
    }

    #[test]
    fn a_generated_secret_is_long_and_is_never_shown() {
        let secret = Secret::from_random(&[0xa5; 32]);
        assert_eq!(secret.expose(), "a5".repeat(32).as_bytes());
        assert!(!secret.is_short());
        assert!(Secret::new(b"hunter2".to_vec()).unwrap().is_short());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
