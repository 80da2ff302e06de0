//! What makes two compilers the same.

use serde::{Deserialize, Serialize};

/// A compiler as its own output describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompilerIdentity {
    /// Absolute path on the machine that reports it.
    pub path: String,
    /// First line of `--version`, where gcc's driver has its own name (`gcc`, `g++`) instead of the one it was called by:
    /// what a person reads.
    pub version: String,
    /// `-dumpmachine`: the default target.
    pub target: String,
    /// SHA-256 (hex) of everything that decides the output: full version text, target, build options, specs, default
    /// flags, and the language that the driver takes a C file for.
    pub fingerprint: String,
    /// SHA-256 (hex) of the object that it makes of the canary, a preprocessed source: driver, code generator and assembler
    /// have all worked on it.
    pub canary: String,
}
