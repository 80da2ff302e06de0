//! What makes two compilers the same.

use serde::{Deserialize, Serialize};

/// A compiler as its own output describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompilerIdentity {
    /// Absolute path on the machine that reports it.
    pub path: String,
    /// First line of `--version`, and for clang the installed revision: what a person reads.
    pub version: String,
    /// `-dumpmachine`: the default target.
    pub target: String,
    /// SHA-256 (hex) of everything else that decides the output: full version text, default flags, specs.
    pub fingerprint: String,
}
