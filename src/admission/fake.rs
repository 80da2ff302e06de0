//! Compilers for tests, written as shell scripts.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Writes an executable script. A shell writes it, not we: a process that some other test starts at this moment would
/// inherit our open file, and the kernel runs no file that is open for writing.
pub(super) fn script(directory: &Path, name: &str, body: &str) -> PathBuf {
    let path = directory.join(name);
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("#!/bin/sh\n{body}\n");
    shell
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(shell.wait().unwrap().success());
    path
}
