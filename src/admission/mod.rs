//! The check that a worker compiles what the primary would.
//!
//! Before a worker gets a job with a given compiler, its compiler's [`CompilerIdentity`] is compared with the primary's.
//! Both sides make identities in the same way; the worker offers those of its [`Catalogue`], and for
//! each compiler of the build the primary asks [`admit`].
//!
//! # What is identity
//!
//! An identity says what a compiler makes of *preprocessed* source: version, target and default flags, for nothing else
//! travels. Where it is installed, what name it was called by and where it looks for headers do not enter, so that
//! `/usr/bin/cc` here is served by `/usr/local/bin/gcc` there. The driver's language does enter: `g++` takes even `x.c` for
//! C++. All of it is read from the compiler's own output and not from its name: a wrapper called `gcc` that adds a flag
//! shows in the commands that it would run (`-###`). What no output tells, an assembler that is another or broken, shows in the
//! object that the compiler makes of a canary: its digest is the last part of the identity.
//!
//! # Who is asked, and when
//!
//! To ask a compiler costs 0.1 to 0.2 s of CPU, and a machine may have a dozen. A build's primary asks the usual ones and those
//! that its command mentions, and each other one when it is called; a worker asks its usual ones, and the others when the primary
//! has a compiler that none of those is. Until it has, it is undecided about that compiler rather than refused.
//!
//! # A compiler for a target
//!
//! clang compiles for whatever `--target` says, on whatever host. When a build names a target, the compiler with that target is a
//! thing of its own: both sides ask all questions and make the canary with the target in front, so that the hosts' own defaults
//! do not enter, and what the host still shows is left out where it cannot matter (`output.rs` says what, and why). A worker is
//! asked for a target when the build first names it; the same `clang` may be refused by default and admitted for a target.
//!
//! # A compiler is a stranger's program
//!
//! It may hang, flood, wait for input or leave children behind. Each call has a deadline, a limit on output, no input and a
//! process group of its own that is killed whatever happened.

mod catalogue;
mod compare;
#[cfg(test)]
mod fake;
mod identity;
mod name;
mod output;
mod probe;
mod prober;
mod search;
mod stamp;

pub use catalogue::{Catalogue, Want};
pub use compare::{Verdict, admit, admit_for_target};
pub use identity::CompilerIdentity;
pub use prober::{Identified, identify_group, one_compiler_each};
pub use search::{compilers_on_path, likely_compilers};
pub use stamp::Stamp;
