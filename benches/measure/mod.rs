//! What benchmarks measure with: figures of many runs, and what a process uses.

pub(crate) mod figures;
pub(crate) mod tools;
pub(crate) mod usage;
