//! The wrapped command: its environment, its compilers and its jobserver.
//!
//! A private **build dir** ([`layout`]) stands first on PATH. Its links all lead to this program, which looks at the name it
//! was called by ([`shim`]). A **compiler shim** decides by its [`arguments`] whether distcc may have the compile; a **tool
//! shim** rewrites `-j` ([`jobs`]). CMake gets a stable **launcher** instead ([`cmake`]), so that its cache names only real
//! compilers and tools: in a CMake tree the masquerade is hidden.
//!
//! **The jobserver.** Each make that starts on its own gets two pipes: it takes tokens from one and returns them into the
//! other, and only we move tokens between them. The [`broker`] grants one while the jobs that are not in dispatch's hands
//! are below the local limit and the workers' capacity is not used up; `-jN` is a ceiling of that make alone. A make that
//! ends gives everything back, however it ended; tokens lost by a killed sub-make are found by counting the threads of processes.
//! Memory pressure lowers the limit ([`memory`](crate::machine::memory)). A make's job without a token counts as local even while
//! it is at a worker: make starts the next one in its place without asking.
//!
//! **Compiles at home.** A compile that a worker could do runs here where that makes the build faster: [`home`] decides, by what it
//! measures, and lays permits into a pipe; a shim that finds one compiles here.
//!
//! **Limits.** ninja before 1.13 has no jobserver client: it gets a fixed `-j` for the workers that are there when it
//! starts, dispatch queues what is too much, and its links and scripts are bounded by that `-j` only. Each of several
//! sub-makes that run at once has a first job that no token governs: when such jobs come back from workers together, there
//! can be as many more local recipes than the limit, until they end.
//!
//! **The end.** The hosts file is emptied, then the ports lose their shields, then the caller may close them: distcc tries
//! a shielded port for ever. If the session in another process ends before the build, the build does the same and goes on by itself; if
//! the build's own process is killed, a guard does it and ends the command.
//!
//! Invariant: whatever goes wrong in here, the real tool still runs with the arguments that were typed.

pub mod arguments;
mod bell;
pub mod broker;
mod child;
pub mod cmake;
mod desk;
mod guard;
pub mod home;
mod hosts;
pub mod jobs;
mod kept;
pub mod layout;
mod makes;
mod outcome;
mod pace;
mod pause;
mod permits;
pub mod processes;
mod pulse;
mod record;
mod run;
pub mod shim;

pub use outcome::BuildOutcome;
pub use run::{BuildError, BuildNews, BuildOptions, run};
