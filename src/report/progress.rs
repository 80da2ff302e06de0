//! How far a build is, in one line.

use std::fmt;

/// How far a build is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Workers whose link is up.
    pub workers: u32,
    /// Workers that the person said would come.
    pub expected: Option<u32>,
    /// Compiles that the workers do at once.
    pub slots: u32,
    /// Compiles made by workers.
    pub remote: u64,
    /// Compiles that were done here.
    pub local: u64,
    /// Jobs in dispatch's hands.
    pub running: u32,
}

/// `3 workers, 12 slots · 118 remote, 4 local · 14 running`
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.expected.filter(|expected| *expected > self.workers);
        match (self.workers, missing) {
            (0, None) => f.write_str("no worker yet")?,
            (workers, Some(expected)) => write!(f, "{workers} of {}", counted(expected, "worker"))?,
            (workers, None) => f.write_str(&counted(workers, "worker"))?,
        }
        if self.workers > 0 {
            write!(f, ", {}", counted(self.slots, "slot"))?;
        }
        write!(f, " · {} remote, {} local", self.remote, self.local)?;
        if self.running > 0 {
            write!(f, " · {} running", self.running)?;
        }
        Ok(())
    }
}

/// `1 worker`, `2 workers`.
pub(super) fn counted(count: impl Into<u64>, what: &str) -> String {
    let count = count.into();
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use crate::{
        event::{BuildUpdate, LinkState, Load},
        report::{
            Tally,
            summary::tests::{job, worker},
        },
    };

    #[test]
    fn progress_follows_the_facts() {
        let mut tally = Tally::new(None);
        assert_eq!(
            tally.progress().to_string(),
            "no worker yet · 0 remote, 0 local"
        );
        tally.handle_worker(&worker("attic", 4, LinkState::Up));
        tally.handle_worker(&worker("cellar", 8, LinkState::Suspect));
        tally.handle_worker(&worker("shed", 8, LinkState::Down));
        tally.handle_job(&job(crate::event::JobOutcome::Compiled, 1));
        tally.handle_update(&BuildUpdate::Load {
            load: Load {
                capacity: 12,
                in_dispatch: 14,
                stranded: 0,
            },
            at_ns: 0,
        });
        assert_eq!(
            tally.progress().to_string(),
            "2 workers, 12 slots · 1 remote, 0 local · 14 running"
        );
    }

    #[test]
    fn missing_workers_are_shown_when_a_number_was_expected() {
        let mut tally = Tally::new(Some(3));
        assert_eq!(
            tally.progress().to_string(),
            "0 of 3 workers · 0 remote, 0 local"
        );
        tally.handle_worker(&worker("attic", 1, LinkState::Up));
        assert_eq!(
            tally.progress().to_string(),
            "1 of 3 workers, 1 slot · 0 remote, 0 local"
        );
    }
}
