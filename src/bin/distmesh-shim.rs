//! The shim alone.
//!
//! A build starts it thousands of times, under the names of compilers and tools. The whole program would do, but to start it
//! takes three times the CPU: its loader has a thousand pages of addresses to correct.

use std::process::ExitCode;

fn main() -> ExitCode {
    distmesh::build::shim::run_if_shim();
    distmesh::build::shim::answer_directly()
}
