//! The labels of a session and of its nodes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a node is in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Owns the source, runs the build.
    Primary,
    /// Compiles for the primary.
    Worker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Worker => "worker",
        })
    }
}

/// A name that cannot serve as a label: it is empty, too long, or has a character that file names or artifact names forbid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is not a valid name: use 1 to {MAX_NAME} of the characters A-Z a-z 0-9 . _ and -, and start with a letter or digit"
)]
pub struct InvalidName {
    name: String,
}

/// The name of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionName(String);

/// The label of one node; unique by default, never an identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// Labels become parts of file names and of artifact names; 64 bytes leave room for the rest of either.
const MAX_NAME: usize = 64;

fn parse_label(name: &str) -> Result<String, InvalidName> {
    let head_ok = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    let rest_ok = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if head_ok && rest_ok && name.len() <= MAX_NAME {
        return Ok(name.to_owned());
    }
    Err(InvalidName {
        name: name.to_owned(),
    })
}

macro_rules! label {
    ($name:ident) => {
        impl $name {
            /// The label as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                parse_label(name).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                name.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

label!(SessionName);
label!(NodeName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_safe_file_name() {
        for good in ["default", "run-1234.2", "a", "0_b"] {
            assert_eq!(good.parse::<SessionName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-x", "a/b", "a b", "ü", &"x".repeat(65)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?} was accepted");
        }
    }
}
