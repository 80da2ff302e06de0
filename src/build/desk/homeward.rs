//! What runs here although workers could have it: by permit, handed back because no worker can, or called home because nothing else
//! is left.

use std::time::{Duration, Instant};

use super::super::broker::{Holder, counted_here, surely_here};
use super::super::home::{Moment, Permit};
use super::super::processes::leaves;
use super::{BuildFeedback, BuildNews, Desk, is_due};

impl Desk {
    /// Lays out permits to compile here; returns whether this machine has better to do than spare compiles.
    pub(super) fn offer_home(&mut self, holders: &[Holder], now: Instant) -> bool {
        for (permit, took, source_bytes) in self.kept.reap(now) {
            self.home.handle_compiled(permit, took, source_bytes);
            if permit == Permit::Spare {
                self.tally.spare += took;
            }
        }
        if !self.options.adapt {
            return false;
        }
        let moment = self.moment(holders, now);
        self.permits.offer(self.home.offer(&moment));
        let stays = self.home.stays();
        if std::mem::replace(&mut self.told_stays, stays) != stays {
            self.tell_verdict();
        }
        moment.here + moment.spare > moment.local
    }

    fn moment(&self, holders: &[Holder], now: Instant) -> Moment {
        let spare = self.kept.count(Permit::Spare);
        let here = match holders {
            // ninja has no tokens but as many jobs as there is room for everywhere.
            [] => {
                let all = self.state.local.saturating_add(self.load().capacity);
                all.saturating_sub(self.load().in_dispatch)
            }
            _ => counted_here(holders, self.load(), self.limit),
        };
        Moment {
            now,
            local: self.limit,
            here: here.saturating_sub(spare),
            spare,
            kept: self.kept.count(Permit::Ordinary),
            load: self.load(),
        }
    }

    fn tell_verdict(&self) {
        let text = match self.home.verdict() {
            Some((sending, compiling)) => format!(
                "sending a compile costs this machine {} ms and compiling it {} ms: compiles stay here, but for one now and then",
                sending.as_millis(),
                compiling.as_millis()
            ),
            None => "sending a compile is the cheaper way again".to_owned(),
        };
        self.tell(BuildNews::Incident(text));
    }

    /// Jobs come home when there is nothing else to do.
    pub(super) fn call_back(&mut self, holders: &[Holder], now: Instant) {
        if !self.options.adapt || self.may_come_back(now) {
            return;
        }
        if self.load().in_dispatch == 0 {
            self.idle.handle_wanted();
            return;
        }
        let room = self.unwanted_room(holders, now);
        let jobs = room.map_or(0, |room| self.idle.handle_tick(room, now));
        // Dispatch weighs its workers against this machine, idle or not.
        let known = self.home.compile_time();
        if jobs > 0 || known.is_some() && is_due(&mut self.told_pace, now, TELL_PACE_EVERY) {
            let compile_ms = known.map(|time| time.as_millis() as u64);
            self.outbox
                .push_back(BuildFeedback::Idle { jobs, compile_ms });
        }
    }

    /// Room here that nobody asks for: a make that leaves tokens unread has nothing to start. One that has no token to read may
    /// have used them up for jobs that wait for a worker. `None` where something may want to start, and before the next look.
    fn unwanted_room(&mut self, holders: &[Holder], now: Instant) -> Option<u32> {
        if !holders.is_empty() {
            let room = self.limit.saturating_sub(surely_here(holders, self.load()));
            let asks = holders.iter().all(|holder| holder.unread == 0);
            let waits = self.load().in_dispatch > self.load().capacity;
            if asks && (room == 0 || !waits) {
                self.idle.handle_wanted();
                return None;
            }
            return Some(room);
        }
        // ninja has no tokens: whatever runs here is of its choice.
        is_due(&mut self.looked_idle, now, LOOK_EVERY).then_some(())?;
        let here = leaves(self.root, Some("distcc"));
        let room = self.limit.saturating_sub(here);
        if room == 0 {
            self.idle.handle_wanted();
            return None;
        }
        Some(room)
    }

    /// Stranded jobs go before new ones: their make already waits for them.
    pub(super) fn hand_back(&mut self, holders: &[Holder], now: Instant) {
        if let Some((since, _)) = self.handed
            && now.duration_since(since) >= LOAD_DUE
        {
            self.handed = None;
        }
        if self.load.stranded == 0 || self.handed.is_some() || self.may_come_back(now) {
            return;
        }
        let Some(here) = self.running_here(holders, now) else {
            return;
        };
        let jobs = self.limit.saturating_sub(here).min(self.load.stranded);
        if jobs > 0 {
            self.handed = Some((now, jobs));
            self.outbox.push_back(BuildFeedback::HandBack { jobs });
        }
    }

    /// A worker has just fallen silent: a lost mapping is found again within a second or two, and its jobs with it.
    fn may_come_back(&self, now: Instant) -> bool {
        let since = |since: &Instant| now.duration_since(*since);
        self.silent.values().any(|silent| since(silent) < COME_BACK)
    }

    /// By tokens, which a job that waits for a slot holds too; when those leave no room, and under ninja, which has
    /// none, by processes other than waiting clients. `None` before the next look.
    fn running_here(&mut self, holders: &[Holder], now: Instant) -> Option<u32> {
        let by_tokens = surely_here(holders, self.load());
        if !holders.is_empty() && by_tokens < self.limit {
            return Some(by_tokens);
        }
        is_due(&mut self.looked_here, now, LOOK_WHEN_STRANDED)
            .then(|| leaves(self.root, Some("distcc")))
    }
}

/// A look costs several system calls for each process of the build.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Stranded jobs and no token to count by: quick, for machines stand idle.
const LOOK_WHEN_STRANDED: Duration = Duration::from_millis(250);
/// Means change slowly.
const TELL_PACE_EVERY: Duration = Duration::from_secs(2);
/// Together with the 3 s that made it suspect, what a wiped mapping takes to be replaced.
const COME_BACK: Duration = Duration::from_millis(1500);
/// Jobs that were handed back show in the next load. If none comes, the jobs had just ended.
const LOAD_DUE: Duration = Duration::from_secs(1);
