//! See DESIGN.

pub mod client;
