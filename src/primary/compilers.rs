//! The primary's own compilers: each is asked who it is when a build may need it, and again when it has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use tokio::sync::{mpsc, watch};

use super::conversation::{Heard, Wants};
use crate::{
    admission::{self, Identified, Stamp},
    event::Compiler,
};

/// Which compilers were asked, and what is to be told of them.
pub(super) struct Compilers {
    scratch: PathBuf,
    inbox: mpsc::Sender<Heard>,
    asked: BTreeSet<Compiler>,
    /// The files of those that have answered.
    stamps: BTreeMap<Compiler, Stamp>,
    /// Questions without an answer yet.
    open: usize,
    wants: watch::Sender<Wants>,
}

impl Compilers {
    /// `scratch` is a private directory to ask in; answers go to the inbox.
    pub(super) fn new(scratch: PathBuf, inbox: mpsc::Sender<Heard>) -> Self {
        Self {
            scratch,
            inbox,
            asked: BTreeSet::new(),
            stamps: BTreeMap::new(),
            open: 0,
            wants: watch::channel(Wants::default()).0,
        }
    }

    /// Until the first ones have answered no worker can be admitted for anything.
    pub(super) fn are_known(&self) -> bool {
        self.open == 0
    }

    /// What workers' compilers should be. They hear of a target at once, when their compilers can answer at the same time as
    /// ours, and of a compiler when it has said who it is.
    pub(super) fn wants(&self) -> watch::Receiver<Wants> {
        self.wants.subscribe()
    }

    /// Asks a compiler, by all its names, in the background, unless it was asked before and is what it was. Returns those names
    /// under which it is not: a session may outlive an upgrade of this machine's own compilers.
    pub(super) fn ask(&mut self, mut names: Vec<PathBuf>, target: Option<String>) -> Vec<Compiler> {
        let called = |name: &Path| Compiler {
            path: name.to_string_lossy().into_owned(),
            target: target.clone(),
        };
        let all = names.iter().map(|name| called(name));
        let changed: Vec<_> = all
            .filter(|compiler| self.forget_changed(compiler))
            .collect();
        names.retain(|name| self.asked.insert(called(name)));
        self.open += names.len();
        self.wants.send_if_modified(|wants| {
            let new = target.clone();
            new.is_some_and(|new| wants.targets.insert(new))
        });
        let (inbox, scratch) = (self.inbox.clone(), self.scratch.clone());
        tokio::task::spawn_blocking(move || {
            let answers = admission::identify_group(&names, target.as_deref(), &scratch);
            for (name, answer) in names.iter().zip(answers) {
                let compiler = Compiler {
                    path: name.to_string_lossy().into_owned(),
                    target: target.clone(),
                };
                drop(inbox.blocking_send(Heard::Asked { compiler, answer }));
            }
        });
        changed
    }

    /// A compiler has answered, perhaps without saying who it is.
    pub(super) fn handle_answer(&mut self, compiler: &Compiler, identified: Option<&Identified>) {
        self.open -= 1;
        let Some(Identified {
            compiler: identity,
            stamp,
        }) = identified
        else {
            return;
        };
        self.stamps.insert(compiler.clone(), stamp.clone());
        self.wants.send_if_modified(|wants| {
            let new = compiler.target.is_none() && !wants.compilers.contains(identity);
            if new {
                wants.compilers.push(identity.clone());
            }
            new
        });
    }

    fn forget_changed(&mut self, compiler: &Compiler) -> bool {
        let known = self.stamps.get(compiler);
        let changed = known.is_some_and(|stamp| !stamp.is_current());
        if changed {
            self.stamps.remove(compiler);
            self.asked.remove(compiler);
        }
        changed
    }
}
