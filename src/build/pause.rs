//! Stops and resumes a compile that is only to use time that nobody else wants.
//!
//! The lowest priority is not enough: under a CPU quota, as containers have it, a compile that runs on another core takes the
//! quota from the preprocessors that feed the workers.

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal, kill_process};

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

/// Needs a kernel with `CONFIG_PROC_CHILDREN` (all distributions'); without it, only the driver stops, and that for nothing.
#[cfg(target_os = "linux")]
fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn children(_process: u32) -> Vec<u32> {
    Vec::new()
}
