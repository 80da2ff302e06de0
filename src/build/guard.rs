//! What happens to the command when the build's own process is killed.
//!
//! distcc tries a shielded port again for ever, and nobody would say when the ports close. So a small process of this program
//! waits, in a process group of its own, for the end of a pipe that only the session holds: then it empties the hosts file,
//! takes the shields away, ends the command and removes the build dir. When all is well the dir is gone before the pipe is.

use std::io::{self, BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::child::Scope;
use super::layout::LEASE;
use crate::distcc::{backoff_unshield, hosts_file};

/// The word that makes this program a guard.
pub(super) const WORD: &str = "__guard";
/// make ends its recipes and removes their half-made targets on SIGTERM; a linker may take a moment.
const GRACE: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(50);

/// The session's end of the pipe.
#[derive(Debug)]
pub(super) struct Guard {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    pub(super) fn start(exe: &Path, dir: &Path) -> io::Result<Self> {
        let mut process = Command::new(exe)
            .arg(WORD)
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()?;
        let pipe = process.stdin.take();
        Ok(Self { process, pipe })
    }

    /// Names the command to end.
    pub(super) fn watch(&mut self, scope: Scope) {
        if let Some(pipe) = &mut self.pipe {
            let (word, pid) = match scope {
                Scope::Group(pid) => ("group", pid),
                Scope::Tree(pid) => ("tree", pid),
            };
            let _ = writeln!(pipe, "{word} {pid}");
        }
    }
}

/// Drop it when the build dir is gone: then all was well.
impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.process.wait();
    }
}

/// The life of a guard.
pub(super) fn keep(dir: &Path) -> ! {
    let mut scope = None;
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        scope = parse(&line);
    }
    if dir.join(LEASE).exists() {
        calm(dir);
        if let Some(scope) = scope {
            end(scope);
        }
        let _ = std::fs::remove_dir_all(dir);
        // A directory that was made for this build alone is empty now; any other one stays.
        let _ = dir.parent().map(std::fs::remove_dir);
    }
    std::process::exit(0)
}

fn parse(line: &str) -> Option<Scope> {
    let (word, pid) = line.split_once(' ')?;
    let pid = pid.parse().ok()?;
    match word {
        "group" => Some(Scope::Group(pid)),
        "tree" => Some(Scope::Tree(pid)),
        _ => None,
    }
}

/// Leaves no host to try and none that must be tried again.
pub(super) fn calm(dir: &Path) {
    let distcc = dir.join("distcc");
    let _ = std::fs::write(distcc.join("hosts"), hosts_file(1, &[]));
    let marks = std::fs::read_dir(distcc.join("lock")).into_iter().flatten();
    for mark in marks.filter_map(Result::ok) {
        let name = mark.file_name();
        let port = name.to_str().and_then(|name| {
            let port = name.strip_prefix("backoff_tcp_127.0.0.1_")?;
            port.strip_suffix("_0")?.parse().ok()
        });
        if let Some(port) = port {
            let _ = backoff_unshield(&distcc, port);
        }
    }
}

fn end(scope: Scope) {
    let command = scope.members();
    command.send(Signal::TERM);
    let mut left = GRACE.as_millis() / STEP.as_millis();
    while left > 0 && command.exists() {
        std::thread::sleep(STEP);
        left -= 1;
    }
    command.send(Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distcc::backoff_shield;

    #[test]
    fn calming_leaves_no_host_and_no_shield() {
        let dir = tempfile::tempdir().unwrap();
        let distcc = dir.path().join("distcc");
        std::fs::create_dir_all(distcc.join("lock")).unwrap();
        std::fs::write(distcc.join("lock/cpu_localhost_0"), "").unwrap();
        backoff_shield(&distcc, 4000).unwrap();
        calm(dir.path());
        let hosts = std::fs::read_to_string(distcc.join("hosts")).unwrap();
        assert!(!hosts.contains("127.0.0.1"));
        let left: Vec<_> = std::fs::read_dir(distcc.join("lock"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["cpu_localhost_0"]);
    }

    #[test]
    fn a_line_names_the_command() {
        assert_eq!(parse("group 7"), Some(Scope::Group(7)));
        assert_eq!(parse("tree 8"), Some(Scope::Tree(8)));
        assert_eq!(parse("tree"), None);
    }
}
