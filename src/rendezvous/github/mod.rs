//! Artifacts of a GitHub Actions run as the rendezvous.
//!
//! A descriptor is one **artifact** of the run, a zip file with one entry. It is **published** through the results service
//! (artifact version 4: Create, one PUT to the blob store, Finalize), which only a job's runtime token opens. Lists and
//! contents come from the same service, and from the **REST API** where only `GITHUB_TOKEN` is accepted.
//!
//! - **Copies.** A name is used once: a failed Finalize burns it, a lost answer may have taken it, so the next try has another
//!   name. Readers match by what a name says, take the newest copy that opens, and then the next.
//! - **Attempts.** What an earlier attempt of the run left is listed too: its names say so, and its backend ids.
//! - **No lease.** An artifact lives as long as the run's others. Renewing means looking whether it is still listed; missing in
//!   several lists, it is published again. It is deleted on exit.
//! - **Trust.** Any job of the run can list, replace and delete all of this; what is sealed proves itself, so digests are not
//!   looked at. Addresses in the blob store are signed: they go through a client that knows no token, and into no log.
//! - **Limits.** One `policy` for all requests; REST requests are paid from a budget.
//!
//! Pure: [`Run`] and [`Access`] (the environment), names, zip files, bodies, policy, and the `catalogue` of what was listed.
//! [`GitHub`] is the shell.

mod api;
mod archive;
mod catalogue;
mod claims;
mod ending;
mod http;
mod name;
mod policy;
mod publishing;
mod rest;
mod run;
mod service;
mod twirp;

pub use ending::Ending;
pub use name::Pattern;
pub use rest::runner_label;
pub use run::{Access, EnvironmentError, Run};
pub use service::GitHub;
