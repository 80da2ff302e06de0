//! Keeps what the worker says of its compilers true: others install, upgrade and remove them while it lives.

use std::{collections::VecDeque, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{WorkerNews, streams::Desk};
use crate::admission::{Catalogue, Want};

/// Looks after the offer's compilers.
pub(super) struct Keeper {
    pub(super) catalogue: Catalogue,
    /// What primaries would have.
    pub(super) wanted: mpsc::Receiver<Want>,
    pub(super) desk: Arc<Desk>,
    /// What distccd may run.
    pub(super) allowed: watch::Sender<Vec<PathBuf>>,
    pub(super) news: mpsc::Sender<WorkerNews>,
    /// Why compilers could not be asked; each is told once.
    pub(super) troubles: VecDeque<String>,
    /// When those are asked again.
    pub(super) retry: Option<Instant>,
}

impl Keeper {
    /// Until the worker ends.
    pub(super) async fn run(mut self) {
        loop {
            let worth_it = tokio::select! {
                Some(want) = self.wanted.recv() => self.want(want),
                () = sleep(LOOK) => self.look(Instant::now()),
            };
            if worth_it && self.renew().await {
                self.retry = Some(Instant::now() + RETRY);
            }
        }
    }

    /// A primary names all that it has at once: that is looked for together.
    fn want(&mut self, first: Want) -> bool {
        let mut worth_it = self.catalogue.want(first);
        while let Ok(want) = self.wanted.try_recv() {
            worth_it |= self.catalogue.want(want);
        }
        worth_it
    }

    fn look(&mut self, now: Instant) -> bool {
        if self.retry.is_some_and(|due| due <= now) {
            self.retry = None;
            self.catalogue.retry();
            return true;
        }
        !self.catalogue.is_current()
    }

    /// What has changed is withdrawn at once and offered again when it has been asked. Whether some could not be asked now.
    async fn renew(&mut self) -> bool {
        if self.catalogue.retire() {
            self.desk.offer_compilers(&self.catalogue, true);
            self.tell("compilers of this machine have changed: they are asked again".to_owned());
        }
        let mut catalogue = self.catalogue.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let troubles = catalogue.renew();
            (catalogue, troubles)
        });
        let Ok((catalogue, troubles)) = asked.await else {
            return true;
        };
        self.catalogue = catalogue;
        self.allow();
        self.desk.offer_compilers(&self.catalogue, false);
        if !self.catalogue.has_failed() {
            // What is mended may come again, and is news then.
            self.troubles.retain(|old| troubles.contains(old));
        }
        let new = troubles.into_iter();
        let new: Vec<_> = new.filter(|new| !self.troubles.contains(new)).collect();
        for trouble in &new {
            self.tell(trouble.clone());
        }
        let troubled = self.catalogue.has_failed() && !new.is_empty();
        self.troubles.extend(new);
        let excess = self.troubles.len().saturating_sub(MOST_TROUBLES);
        self.troubles.drain(..excess);
        troubled
    }

    fn allow(&self) {
        let paths = self.catalogue.paths();
        self.allowed.send_if_modified(|allowed| {
            let new = needs_another_list(allowed, &paths);
            if new {
                *allowed = paths;
            }
            new
        });
    }

    fn tell(&self, text: String) {
        // As the role does: nobody waits for a terminal.
        drop(self.news.try_send(WorkerNews::Notice(text)));
    }
}

/// distccd is started again for compilers that are new, and keeps a list with some that are gone; but not with its canary's, the first:
/// without that one no distccd would be healthy again.
fn needs_another_list(allowed: &[PathBuf], paths: &[PathBuf]) -> bool {
    let lost = allowed
        .first()
        .is_some_and(|canary| !paths.contains(canary));
    let new = paths.iter().any(|path| !allowed.contains(path));
    new || lost && !paths.is_empty()
}

/// Some dozens of files are looked at each time. Every job looks at those of its compiler itself, so that this may be late.
const LOOK: Duration = Duration::from_secs(1);

/// A package manager that was met at work is done after some seconds.
const RETRY: Duration = Duration::from_secs(10);

/// One or two for each of a machine's compilers.
const MOST_TROUBLES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distccd_is_started_again_for_new_compilers_and_for_another_canary() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let allowed = paths(&["/c++", "/cc", "/gcc"]);
        for (found, needs) in [
            (&["/c++", "/cc", "/gcc"][..], false),
            (&["/c++", "/gcc"], false),
            (&["/c++", "/cc", "/clang"], true),
            (&["/cc", "/gcc"], true),
            (&[], false),
        ] {
            assert_eq!(
                needs_another_list(&allowed, &paths(found)),
                needs,
                "{found:?}"
            );
        }
    }
}
