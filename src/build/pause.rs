//! Stops and resumes a compile that is only to use time that nobody else wants.
//!
//! The lowest priority is not enough: under a CPU quota, as containers have it, a compile that runs on another core takes the
//! quota from the preprocessors that feed the workers.

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::processes::children;

/// Stops a process and all that it started, and returns whom it reached. Who is stopped starts no other, so that these are all of them until
/// they are resumed.
pub(super) fn stop(root: u32) -> Vec<Pid> {
    let (mut reached, mut known) = (Vec::new(), BTreeSet::new());
    let mut next = vec![root];
    while let Some(process) = next.pop() {
        let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) else {
            continue;
        };
        // Who has just ended needs no signal, and has no children.
        if known.insert(process) && kill_process(pid, Signal::STOP).is_ok() {
            reached.push(pid);
            next.extend(children(process));
        }
    }
    reached
}

/// Resumes those that were stopped.
pub(super) fn resume(stopped: &[Pid]) {
    for pid in stopped {
        // Who was killed meanwhile needs no signal.
        let _ = kill_process(*pid, Signal::CONT);
    }
}
