//! Keeps what the worker says of its compilers true: others install, upgrade and remove them while it lives.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
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
    /// Why compilers could not be asked the last time; each is told once.
    pub(super) troubles: Vec<String>,
}

impl Keeper {
    /// Until the worker ends.
    pub(super) async fn run(mut self) {
        let mut pause = LOOK;
        loop {
            let worth_it = tokio::select! {
                Some(want) = self.wanted.recv() => self.want(want),
                () = sleep(pause) => self.look(pause == RETRY),
            };
            if !worth_it {
                continue;
            }
            let troubled = self.renew().await;
            pause = if troubled { RETRY } else { LOOK };
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

    fn look(&mut self, again: bool) -> bool {
        if again {
            self.catalogue.retry();
        }
        again || !self.catalogue.is_current()
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
        let known = std::mem::replace(&mut self.troubles, troubles);
        let new = self.troubles.iter().filter(|new| !known.contains(new));
        let told = new.map(|new| self.tell(new.clone())).count();
        told > 0
    }

    /// distccd is started again for compilers that are new, and keeps a list with some that are gone.
    fn allow(&self) {
        let paths = self.catalogue.paths();
        self.allowed.send_if_modified(|allowed| {
            let new = paths.iter().any(|path| !allowed.contains(path));
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

/// Some dozens of files are looked at each time. Every job looks at those of its compiler itself, so that this may be late.
const LOOK: Duration = Duration::from_secs(1);

/// A package manager that was met at work is done after some seconds.
const RETRY: Duration = Duration::from_secs(10);
