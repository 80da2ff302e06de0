//! What happened, as plain types: the ground that every room stands on.
//!
//! Events are facts about the past. They are written to `events.jsonl`, one a line, and everything that a person is shown
//! (progress, status, report, trace) is rendered from them.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

mod compiler;

pub use compiler::Compiler;

/// One event with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A link changed state.
    Link(LinkChange),
    /// A worker was admitted, or refused, for one compiler.
    Admission(Admission),
    /// The wrapped command asked for a compile; how it will be done is not yet known.
    CompileSeen(CompileSeen),
    /// A remote job ended.
    Job(JobRecord),
    /// Something a person should know of.
    Incident {
        /// One sentence.
        text: String,
    },
}

/// A link's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// No path yet.
    Punching,
    /// A path, but no WireGuard session yet.
    Handshaking,
    /// Streams can be opened.
    Up,
    /// Silent for 3 s.
    Suspect,
    /// Silent for 10 s; probing goes on.
    Down,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Punching => "punching",
            Self::Handshaking => "handshaking",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

/// A link changed state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkChange {
    /// The peer's label.
    pub peer: String,
    /// The state it is in now.
    pub state: LinkState,
    /// Why, in words.
    pub reason: String,
}

/// A worker was admitted, or refused, for one compiler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The worker's label.
    pub worker: String,
    /// The primary's compiler.
    pub compiler: Compiler,
    /// Why it was refused, with the cure; `None` when it was admitted.
    pub refused: Option<String>,
}

/// A compiler call that the wrapped command made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileSeen {
    /// The primary's compiler.
    pub compiler: Compiler,
    /// The source file as named in the arguments, if one was recognised.
    pub source: Option<String>,
    /// Its length, without what it includes, of a compile that goes to distcc.
    #[serde(default)]
    pub source_bytes: Option<u64>,
    /// Where it was sent.
    pub route: Route,
    /// CPU time that this decision took, in microseconds, the start of its process included.
    #[serde(default)]
    pub spent_us: u64,
}

/// Where a compiler call was sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "route", content = "reason")]
pub enum Route {
    /// To distcc, which may still decide to run it here.
    Distcc,
    /// Here, because it is not a compile: linking, preprocessing, `-v`, …
    NotACompile,
    /// A compile that has to run here, and why.
    Local(String),
}

/// One job: a distcc request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Unique within the session.
    pub job: u64,
    /// The compiler that the request names.
    pub compiler: Compiler,
    /// The source file, if one was recognised.
    pub source: Option<String>,
    /// Its length, without what it includes, if the build told it.
    #[serde(default)]
    pub source_bytes: Option<u64>,
    /// The worker that answered; `None` when nobody did and the client compiled locally.
    pub worker: Option<String>,
    /// What became of it.
    pub outcome: JobOutcome,
    /// Attempts made, the last one included.
    pub attempts: u32,
    /// One of them was made only because another was slow.
    pub hedged: bool,
    /// From the client's connection until its request was complete: preprocessing.
    #[serde(default)]
    pub prepared: Duration,
    /// From the complete request until a worker was chosen (last attempt).
    pub queued: Duration,
    /// From the choice until the response was complete (last attempt).
    pub ran: Duration,
    /// Request size in bytes.
    pub bytes_up: u64,
    /// Response size in bytes.
    pub bytes_down: u64,
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobOutcome {
    /// The compiler exited 0.
    Compiled,
    /// The compiler reported an error; distcc compiles again locally to show it.
    CompileError,
    /// The client went away.
    Cancelled,
    /// No worker could do it; the client compiles locally.
    ReturnedToClient,
    /// It was late at its worker, and the client's machine idle: the client compiles locally.
    CalledBack,
}

/// What a build is told by the dispatch that serves it. It begins with all that is so, and of that [`Load`] comes last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "update", rename_all = "kebab-case")]
pub enum BuildUpdate {
    /// The host lines of the workers that are up, in order of preference; empty when none is.
    Hosts {
        /// One `127.0.0.1:PORT/SLOTS,lzo` each.
        lines: Vec<String>,
        /// The port for clients that find no free slot: their jobs wait in dispatch, preprocessed, instead of in distcc.
        queue: u16,
    },
    /// The compilers that at least one live worker is admitted for.
    Admitted {
        /// The primary's.
        compilers: std::collections::BTreeSet<Compiler>,
    },
    /// Why no live worker takes a compiler, in words.
    Refused {
        /// The primary's compiler.
        compiler: Compiler,
        /// The reasons, and the cure.
        reason: String,
    },
    /// How busy the workers are.
    Load {
        /// What was so.
        #[serde(flatten)]
        load: Load,
        /// When, in nanoseconds of the system's monotonic clock; it may include later jobs.
        at_ns: u64,
    },
    /// One of this build's jobs ended.
    Job(JobRecord),
    /// A worker of the session that came or changed; how many jobs it has answered is told by its status only.
    Worker(WorkerView),
    /// Something happened in the session.
    Event(Event),
}

/// How busy the workers are, and how much of it is this build's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Slots of all live workers.
    pub capacity: u32,
    /// This build's jobs whose whole request is in dispatch's hands, running or queued.
    pub in_dispatch: u32,
    /// Those of them that no live worker can do: they are handed back one by one, see [`BuildFeedback::HandBack`].
    pub stranded: u32,
}

/// Asks for a build's load as it is now, and when that was, by the system's monotonic clock in nanoseconds: where dispatch is in the
/// same process, this saves the way there and back. `None` when the session has ended.
#[derive(Clone)]
pub struct LoadNow(Arc<dyn Fn() -> Option<(Load, u64)> + Send + Sync>);

impl LoadNow {
    /// By this way.
    pub fn new(ask: impl Fn() -> Option<(Load, u64)> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Asks.
    #[must_use]
    pub fn ask(&self) -> Option<(Load, u64)> {
        (self.0)()
    }
}

impl fmt::Debug for LoadNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoadNow")
    }
}

/// What a build tells the dispatch that serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "feedback", rename_all = "kebab-case")]
pub enum BuildFeedback {
    /// This machine has room for so many of the stranded jobs: close that many connections, distcc compiles them here.
    HandBack {
        /// How many.
        jobs: u32,
    },
    /// This machine has nothing to do but wait: so many late jobs may come back.
    Idle {
        /// How many.
        jobs: u32,
        /// How long a compile takes here, in milliseconds, once that is known.
        compile_ms: Option<u64>,
    },
    /// A compile of this source goes to distcc: what the source's own length is, which tells more of how long it takes than the
    /// length of the preprocessed one.
    Sending {
        /// As named in the arguments.
        source: String,
        /// Without what it includes.
        bytes: u64,
    },
    /// Tell the load again, as it is now: a job's token came back, and the last one may be older.
    AskLoad,
    /// A compiler was called that was not known before: admit it if possible.
    CompilerSeen {
        /// The primary's.
        compiler: Compiler,
    },
}

/// A worker as status and report show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its label.
    pub name: String,
    /// Compiles at once.
    pub slots: u32,
    /// Jobs it has answered.
    pub jobs: u64,
    /// Its link's state.
    pub state: LinkState,
    /// `direct` or `relayed`, once there is a path.
    pub path: Option<String>,
    /// The worker that forwards, while the path is relayed.
    pub relay: Option<String>,
    /// What its NAT does, as far as it knows: `none`, `endpoint-independent`, …
    pub nat: Option<String>,
    /// Why the link is in this state, or why there is none.
    pub reason: Option<String>,
    /// From the session's start until its link was first up, in milliseconds.
    pub up_after_ms: Option<u64>,
    /// Smoothed round-trip time of the link in microseconds.
    pub rtt_us: Option<u64>,
}
