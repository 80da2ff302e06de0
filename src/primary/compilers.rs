//! The primary's own compilers: each is asked who it is when a build may need it, and again when it has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use tokio::sync::{mpsc, watch};

use super::conversation::{Heard, Wants};
use crate::{
    admission::{self, Identified},
    event::Compiler,
};

/// Which compilers were asked, and what is to be told of them.
pub(super) struct Compilers {
    scratch: PathBuf,
    inbox: mpsc::Sender<Heard>,
    asked: BTreeSet<Compiler>,
    /// Those that have said who they are.
    known: BTreeMap<Compiler, Identified>,
    /// Questions without an answer yet.
    open: usize,
    /// The first ones have answered.
    ready: bool,
    wants: watch::Sender<Wants>,
}

impl Compilers {
    /// `scratch` is a private directory to ask in; answers go to the inbox.
    pub(super) fn new(scratch: PathBuf, inbox: mpsc::Sender<Heard>) -> Self {
        Self {
            scratch,
            inbox,
            asked: BTreeSet::new(),
            known: BTreeMap::new(),
            open: 0,
            ready: false,
            wants: watch::channel(Wants::default()).0,
        }
    }

    /// Until the first ones have answered no worker can be admitted for anything; those that are asked later change nothing in what is
    /// known.
    pub(super) fn are_known(&self) -> bool {
        self.ready || self.open == 0
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

    /// A compiler has answered, perhaps without saying who it is: then a later build asks it again.
    pub(super) fn handle_answer(&mut self, compiler: &Compiler, identified: Option<&Identified>) {
        self.open -= 1;
        self.ready |= self.open == 0;
        let Some(identified) = identified else {
            self.asked.remove(compiler);
            return;
        };
        let identity = &identified.compiler;
        self.wants.send_if_modified(|wants| {
            let new = compiler.target.is_none() && !wants.compilers.contains(identity);
            if new {
                wants.compilers.push(identity.clone());
            }
            new
        });
        self.known.insert(compiler.clone(), identified.clone());
    }

    fn forget_changed(&mut self, compiler: &Compiler) -> bool {
        let is_current = |known: &Identified| known.stamp.is_current();
        if self.known.get(compiler).is_none_or(is_current) {
            return false;
        }
        self.asked.remove(compiler);
        let old = self.known.remove(compiler).map(|known| known.compiler);
        self.wants.send_if_modified(|wants| {
            wants.compilers.retain(|known| Some(known) != old.as_ref());
            // Workers need not hear of it.
            false
        });
        true
    }
}
