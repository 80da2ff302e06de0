//! Stands between distcc clients and the workers: a job is held until its whole response is here, so it can be attempted
//! again anywhere and a worker's death is invisible to distcc.
//!
//! - A build opens a [`BuildDesk`]: one listening port on 127.0.0.1 per worker that ever was, and one for the **queue**. The port
//!   is only distcc's wish; the [`Scheduler`] decides.
//! - A **job** is one request, an **attempt** one try of it on one worker. What is the worker's fault costs an attempt. While a
//!   worker is silent, stuck or late its jobs are attempted elsewhere too; the first answer wins.
//! - A worker whose attempts fail is **benched**: for a quarter of a second at first, longer each time, until one succeeds.
//! - A job that no live worker can do is **stranded**: it is handed back when the build says that there is room, by an
//!   answer that makes distcc compile locally. A closed connection would make it try the same port again.
//!
//! Invariants: no worker above its slots, none that is suspect or down, only those admitted for exactly this compiler; no
//! byte reaches the client before the response is complete; the bytes of a job pass unchanged but for the compiler's path.

mod attempt;
mod buffers;
mod frontend;
mod job;
mod owner;
mod scheduler;
mod spool;
mod standing;
mod state;
mod streams;
mod told;

pub use frontend::{BuildDesk, Dispatch};
pub use scheduler::{Capability, Decision, JobId, JobSpec, Presence, Scheduler};
pub use state::{JobIo, Transport, WorkerUpdate};
pub use streams::JobStreams;
