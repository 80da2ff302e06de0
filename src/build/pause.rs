//! Stops and resumes a compile that is only to use time that nobody else wants.
//!
//! The lowest priority is not enough: under a CPU quota, as containers have it, a compile that runs on another core takes the
//! quota from the preprocessors that feed the workers.

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::processes::children;

/// Sends a signal to a process and to all that it started; those that it starts meanwhile are found by another look.
pub(super) fn signal_tree(root: u32, signal: Signal) {
    let mut reached = BTreeSet::new();
    let mut next = vec![root];
    while let Some(process) = next.pop() {
        if !reached.insert(process) {
            continue;
        }
        // Before, for who dies by the signal has none afterwards; and after, for who stops by it starts no other.
        next.extend(children(process));
        let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
        // Who has just ended needs no signal.
        let _ = pid.map(|pid| kill_process(pid, signal));
        next.extend(children(process));
    }
}
