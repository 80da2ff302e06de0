//! Events rendered for a person: progress, summary, `report.json`.
//!
//! A [`Tally`] takes every fact of a build once and can say at any time how far it is ([`Progress`]) and at the end what became of it
//! ([`Report`]). The summary is rendered from the report, so that both always agree.
//!
//! What is counted: every compile that the wrapped command asked for was **seen**. It ended **remote** (a worker made its object) or
//! **local**, and then has a reason; only a cancelled one is neither. A summary never hides why nothing was distributed.
//!
//! [`EventLog`] and [`write()`] are the thin shells: a full disk costs the log, never the build.

mod ceiling;
mod event_log;
mod file;
mod lines;
mod outcome;
mod progress;
mod summary;
mod tally;

pub use ceiling::Cpu;
pub use event_log::EventLog;
pub use file::write;
pub use lines::{Weight, line};
pub use outcome::{Incident, Jobs, Refusal, Report, WorkerReport};
pub use progress::Progress;
pub use tally::{End, Tally};
