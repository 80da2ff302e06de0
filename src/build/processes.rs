//! The processes below a process.

use std::collections::BTreeMap;

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

use crate::machine::processes;

/// All processes at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    children: BTreeMap<u32, Vec<u32>>,
    names: BTreeMap<u32, String>,
}

impl Processes {
    /// Looks.
    pub(super) fn now() -> Self {
        let mut system = System::new();
        let kind = ProcessRefreshKind::nothing().without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
        let known = system.processes().values().map(|process| {
            let parent = process.parent().map_or(0, sysinfo::Pid::as_u32);
            let name = process.name().to_string_lossy().into_owned();
            (process.pid().as_u32(), parent, name)
        });
        Self::of(known)
    }

    /// From (process, parent, name).
    fn of(known: impl Iterator<Item = (u32, u32, String)>) -> Self {
        let mut processes = Self::default();
        for (pid, parent, name) in known {
            processes.children.entry(parent).or_default().push(pid);
            processes.names.insert(pid, name);
        }
        processes
    }

    /// Everything below a process.
    pub(super) fn below(&self, root: u32) -> Vec<u32> {
        let mut found: Vec<u32> = Vec::new();
        let mut next = vec![root];
        while let Some(pid) = next.pop() {
            let children = self.children.get(&pid).into_iter().flatten();
            next.extend(children.clone());
            found.extend(children);
        }
        found
    }

    /// How many processes below it have no child of their own and another name than `except`.
    fn leaves(&self, root: u32, except: Option<&str>) -> u32 {
        let is_other = |name: &String| except.is_none_or(|except| name != except);
        let below = self.below(root).into_iter();
        let leaves = below.filter(|pid| {
            !self.children.contains_key(pid) && self.names.get(pid).is_none_or(is_other)
        });
        u32::try_from(leaves.count()).unwrap_or(u32::MAX)
    }
}

/// How many processes below `root` have no child of their own and another name than `except`.
///
/// Where the kernel tells who a process' children are, only these are looked at, however many the machine has.
pub(super) fn leaves(root: u32, except: Option<&str>) -> u32 {
    if !processes::are_told() {
        return Processes::now().leaves(root, except);
    }
    let leaves = told_leaves(root);
    let leaves = leaves.filter(|process| except.is_none_or(|except| name(*process) != except));
    u32::try_from(leaves.count()).unwrap_or(u32::MAX)
}

fn told_leaves(root: u32) -> impl Iterator<Item = u32> {
    let tree = processes::tree(root).into_iter();
    let leaves = tree.filter(move |(process, below)| *process != root && below.is_empty());
    leaves.map(|(process, _)| process)
}

fn name(process: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{process}/comm"));
    name.unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_counted_below_one_process_only() {
        let tree = [
            (1, 0, "init"),
            (2, 1, "make"),
            (3, 2, "sh"),
            (4, 3, "cc1"),
            (5, 2, "distcc"),
            (6, 1, "other"),
        ];
        let tree = Processes::of(
            tree.into_iter()
                .map(|(pid, parent, name)| (pid, parent, name.to_owned())),
        );
        assert_eq!(
            (
                tree.leaves(2, None),
                tree.leaves(2, Some("distcc")),
                tree.leaves(6, None)
            ),
            (2, 1, 0)
        );
        assert_eq!(tree.below(2).len(), 3);
    }

    #[test]
    fn a_real_child_is_seen() {
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .spawn()
            .unwrap();
        let below = Processes::now().below(std::process::id());
        let seen = below.contains(&child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen);
    }

    #[test]
    fn leaves_of_real_processes_are_counted_either_way() {
        use std::io::Read as _;

        let script = "sleep 60 & cat <&3 & sh -c 'sleep 60; true' & echo; wait";
        let mut shell = std::process::Command::new("sh")
            .args(["-c", &format!("exec 3<&0; {script}")])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0];
        shell.stdout.take().unwrap().read_exact(&mut said).unwrap();
        let counted = |except: Option<&str>| {
            let slowly = Processes::now().leaves(shell.id(), except);
            (leaves(shell.id(), except), slowly)
        };
        // They have been started, but not all of them are what they will be.
        let counts = [(None, 3), (Some("sleep"), 1)];
        let right = counts.map(|(except, count)| {
            (0..1_000).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(5));
                counted(except) == (count, count)
            })
        });
        for process in Processes::now()
            .below(shell.id())
            .into_iter()
            .chain([shell.id()])
        {
            let process = rustix::process::Pid::from_raw(process as i32).unwrap();
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
        shell.wait().unwrap();
        assert_eq!(right, [true, true]);
    }
}
