//! The processes that a process has started, asked of the kernel one by one: cheap, and blind to orphans.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path};

/// Whether this system tells them: Linux with `CONFIG_PROC_CHILDREN`, which all distributions set.
pub fn are_told() -> bool {
    Path::new("/proc/thread-self/children").exists()
}

/// Those that a process has started and that nobody has waited for; none where [`are_told`] says no.
pub fn children(process: u32) -> Vec<u32> {
    look(process).1
}

/// How many threads a process has, and its children.
fn look(process: u32) -> (u32, Vec<u32>) {
    if !cfg!(target_os = "linux") {
        return (0, Vec::new());
    }
    let tasks = format!("/proc/{process}/task");
    let started = |thread: &str| {
        let text = read(&format!("{tasks}/{thread}/children"));
        let words = text.split_ascii_whitespace();
        words.filter_map(|word| word.parse().ok()).collect()
    };
    let threads = threads_in(&tasks);
    let children = match threads {
        1 => started(&process.to_string()),
        _ => {
            let threads = fs::read_dir(&tasks).into_iter().flatten().flatten();
            let names = threads.filter_map(|thread| thread.file_name().into_string().ok());
            names
                .flat_map(|thread: String| -> Vec<u32> { started(&thread) })
                .collect()
        }
    };
    (threads, children)
}

/// A file that is mostly empty or a line: by as few system calls as that takes, for there are hundreds. Empty if it cannot be read.
fn read(path: &str) -> String {
    use rustix::fs::{Mode, OFlags};
    let mut bytes = vec![0; SHORT];
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let count = file.and_then(|file| rustix::io::read(file, &mut bytes[..]));
    match count {
        // There may be more.
        Ok(SHORT) => fs::read_to_string(path).unwrap_or_default(),
        Ok(count) => String::from_utf8_lossy(&bytes[..count]).into_owned(),
        Err(_) => String::new(),
    }
}

const SHORT: usize = 1024;

/// A directory has a link for each directory in it, and two more.
fn threads_in(tasks: &str) -> u32 {
    let links = fs::metadata(tasks).map_or(0, |tasks| tasks.nlink());
    u32::try_from(links.saturating_sub(2)).unwrap_or(u32::MAX)
}

/// A process and all below it, each with its children.
pub fn tree(root: u32) -> BTreeMap<u32, Vec<u32>> {
    let known = walk(root).into_iter();
    known
        .map(|(process, (_, below))| (process, below))
        .collect()
}

/// How many threads the processes below one have that have no child of their own. One that has gone meanwhile counts as one.
pub fn leaf_threads(root: u32) -> u32 {
    let known = walk(root).into_iter();
    let leaves = known.filter(|(process, (_, below))| *process != root && below.is_empty());
    let threads = leaves.map(|(_, (threads, _))| threads.max(1));
    threads.fold(0, u32::saturating_add)
}

fn walk(root: u32) -> BTreeMap<u32, (u32, Vec<u32>)> {
    let mut known = BTreeMap::new();
    let mut next = vec![root];
    while let Some(process) = next.pop() {
        known.entry(process).or_insert_with(|| {
            let (threads, below) = look(process);
            next.extend(&below);
            (threads, below)
        });
    }
    known
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        io::Read as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn grandchildren_belong_to_the_tree() {
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
        let (near, all) = (children(shell.id()), tree(shell.id()));
        // Ends its input, too.
        shell.wait().unwrap();
        assert_eq!((near.len(), all.len()), (1, 3));
        assert_eq!(all[&shell.id()], near);
        assert_eq!(all[&near[0]].len(), 1);
    }

    #[test]
    fn what_another_thread_has_started_is_a_child() {
        let mut sleep = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let sleep = Command::new("sleep").arg("60").spawn().unwrap();
                assert!(children(std::process::id()).contains(&sleep.id()));
                assert!(look(std::process::id()).0 > 1);
                assert_eq!(look(sleep.id()).0, 1);
                sleep
            });
            thread.join().unwrap()
        });
        // The thread has ended: its children are another's now.
        assert!(children(std::process::id()).contains(&sleep.id()));
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert!(!children(std::process::id()).contains(&sleep.id()));
    }
}
