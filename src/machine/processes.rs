//! The processes that a process has started, asked of the kernel one by one: cheap, and blind to those of other threads and to orphans.

use std::{collections::BTreeSet, fs};

/// Those that a process has started and that run; of one with several threads only what its first thread has started.
///
/// Needs Linux with `CONFIG_PROC_CHILDREN`, which all distributions set; empty elsewhere.
pub fn children(process: u32) -> Vec<u32> {
    if !cfg!(target_os = "linux") {
        return Vec::new();
    }
    let text = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    text.unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// The same with all that those have started.
pub fn descendants(process: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut next = children(process);
    while let Some(process) = next.pop() {
        if found.insert(process) {
            next.extend(children(process));
        }
    }
    found
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        io::Read as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn grandchildren_are_descendants() {
        // The inner shell has said its line once the reader it started runs, too; both end with the pipe.
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'cat <&3 & echo; wait' 3<&0; true"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0];
        let mut stdout = shell.stdout.take().unwrap();
        stdout.read_exact(&mut said).unwrap();
        let (near, all) = (children(shell.id()), descendants(shell.id()));
        // Ends its input, too.
        shell.wait().unwrap();
        assert_eq!((near.len(), all.len()), (1, 2));
        assert!(all.contains(&near[0]));
    }
}
