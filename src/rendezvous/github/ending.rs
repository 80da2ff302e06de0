//! When the run has no more use for a worker.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{GitHub, Pattern};

/// Watches the run beside a worker.
pub struct Ending {
    /// The run's artifacts.
    pub github: Arc<GitHub>,
    /// The artifact that ends the work.
    pub until: Option<Pattern>,
    /// True while no primary is linked.
    pub lonely: watch::Receiver<bool>,
}

impl Ending {
    /// Returns the reason to stop, once there is one. Whoever is linked to a primary is told by it; the artifact alone counts
    /// then too.
    ///
    /// Lists are read by the exchange, seldom while a primary is linked and often when it has gone silent; nothing is asked
    /// twice here.
    pub async fn reason(mut self) -> String {
        let mut lists = self.github.lists();
        let mut lonely_since = None;
        let mut primaries = (0, Instant::now());
        loop {
            let seen = self.github.primaries_seen();
            if primaries.0 != seen {
                primaries = (seen, Instant::now());
            }
            if *self.lonely.borrow_and_update() {
                lonely_since.get_or_insert_with(Instant::now);
            } else {
                lonely_since = None;
            }
            let since = lonely_since.map(|since| primaries.1.max(since));
            if let Some(reason) = self.look(since).await {
                return reason;
            }
            tokio::select! {
                Ok(()) = lists.changed() => {}
                Ok(()) = self.lonely.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// `since`: since when no primary is linked and none has newly appeared.
    async fn look(&self, since: Option<Instant>) -> Option<String> {
        if let Some(pattern) = &self.until
            && let Some(name) = self.github.released(pattern).await
        {
            return Some(format!("artifact {name} has appeared"));
        }
        let since = since?;
        if self.github.has_expired() {
            return Some("the job's token has expired, so no primary can be found".to_owned());
        }
        if since.elapsed() < LINKING {
            return None;
        }
        let ended = self.github.primaries_ended().await?;
        // One may have come while GitHub was asked.
        let lonely = *self.lonely.borrow();
        lonely.then(|| format!("the primary's job has ended: {ended}"))
    }
}

/// A primary that has just been found is linked within this time, and its job need not be asked for.
const LINKING: Duration = Duration::from_secs(10);

/// Without a rendezvous that answers there are no lists to wait for.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
