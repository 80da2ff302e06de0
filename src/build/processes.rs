//! The processes below a process.

use std::collections::BTreeMap;

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

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
    pub(super) fn leaves(&self, root: u32, except: &str) -> u32 {
        let below = self.below(root).into_iter();
        let leaves = below.filter(|pid| {
            !self.children.contains_key(pid)
                && self.names.get(pid).is_none_or(|name| name != except)
        });
        u32::try_from(leaves.count()).unwrap_or(u32::MAX)
    }
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
                tree.leaves(2, ""),
                tree.leaves(2, "distcc"),
                tree.leaves(6, "")
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
}
