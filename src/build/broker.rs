//! Who may start how many jobs: pure policy.
//!
//! Each make that starts on its own is a **holder** with its own pair of pipes; its sub-makes share them. It runs one job
//! without a token, takes a token for every further one, and returns it when that job ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::event::Load;

/// One make, as its pipes show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Tokens it took and did not return.
    pub held: u32,
    /// Tokens that wait in its pipe.
    pub unread: u32,
    /// The most jobs a person allows it.
    pub ceiling: Option<u32>,
    /// It runs as a job of another make: its first job is counted there.
    pub nested: bool,
}

impl Holder {
    fn running(self) -> u32 {
        self.held + u32::from(!self.nested)
    }

    fn may_take(self) -> u32 {
        let ceiling = self.ceiling.unwrap_or(u32::MAX);
        ceiling.saturating_sub(self.held + 1)
    }
}

/// What limits all of them together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Jobs this machine may run at once.
    pub local: u32,
    /// The workers.
    pub load: Load,
    /// Jobs that may wait for a worker, ready to go, see [`ahead`].
    pub ahead: u32,
    /// Tokens that came back from jobs which the load may still count, see [`Returns`].
    pub doubtful: u32,
    /// Compiles that run here beside the local limit, see [`home`](super::home).
    pub spare: u32,
    /// Permits for more of them that nobody has taken yet.
    pub offered: u32,
    /// All permits to compile here that nobody has taken yet: who takes one fills no slot of a worker.
    pub ready: u32,
}

/// Jobs that this machine runs now, or may run without asking: all but those whose request is in dispatch's hands. A make's
/// job without a token always counts: when it comes back from a worker, make starts the next one in its place, and that may
/// be a link.
#[must_use]
pub fn here(holders: &[Holder], load: Load) -> u32 {
    let running: u32 = holders.iter().map(|holder| holder.running()).sum();
    let held: u32 = holders.iter().map(|holder| holder.held).sum();
    running - load.in_dispatch.min(held)
}

/// Jobs that this machine runs now for certain: what stranded jobs are handed back by, which must come home even where
/// there is room for a single job.
#[must_use]
pub fn surely_here(holders: &[Holder], load: Load) -> u32 {
    let running: u32 = holders.iter().map(|holder| holder.running()).sum();
    running.saturating_sub(load.in_dispatch)
}

/// Jobs that count against a local limit: with room for one job, counting one that is away would leave the workers idle.
#[must_use]
pub fn counted_here(holders: &[Holder], load: Load, local: u32) -> u32 {
    match local {
        0 | 1 => surely_here(holders, load),
        _ => here(holders, load),
    }
}

/// How many jobs may wait for a worker, ready to go: from these dispatch takes the long ones first, so that a build does not wait for
/// one of them alone at its end. Each costs this machine a waiting client (0.7 MiB) and its request (4 MiB of it at most in memory);
/// and a make that stops at an error waits for all of them.
#[must_use]
pub fn ahead(capacity: u32) -> u32 {
    match capacity {
        0 => 0,
        _ => capacity
            .saturating_mul(AHEAD_PER_SLOT)
            .clamp(AHEAD_AT_LEAST, AHEAD_AT_MOST),
    }
}

/// Simulated with the times of cppcheck's 71 compiles, on eight workers of one slot: 173 s with 1, 160 s with 2, 142 s with 4, and
/// 176 s with two jobs in all.
const AHEAD_PER_SLOT: u32 = 4;
/// A throttled primary had prepared 16 jobs for four slots, and stood still, before it came to the longest.
const AHEAD_AT_LEAST: u32 = 32;
/// With redis's or cppcheck's requests 60 to 90 MiB.
const AHEAD_AT_MOST: u32 = 64;

/// How many more jobs may start now.
#[must_use]
pub fn room(holders: &[Holder], limits: Limits) -> u32 {
    let running: u32 = holders.iter().map(|holder| holder.running()).sum();
    let doubtful = limits.doubtful.min(limits.load.in_dispatch);
    let here = counted_here(holders, limits.load, limits.local).saturating_sub(limits.spare);
    let here = here.saturating_add(doubtful);
    let room_here = limits.local.saturating_sub(here);
    let away = limits.load.capacity.saturating_add(limits.ahead);
    let total = limits.local.saturating_add(away);
    let beside = limits.spare.saturating_add(limits.offered);
    let room_anywhere = total.saturating_add(beside).saturating_sub(running);
    // Where workers have gone, more jobs are out than there are slots: this machine need not wait for them.
    room_here.min(room_anywhere.max(limits.ready))
}

/// Believes in room only after a moment. A job's token comes back within a millisecond of its answer, the load without it
/// a few milliseconds later: what lies between looks like room for one more job here.
#[derive(Clone, Debug, Default)]
pub struct Steady {
    seen: VecDeque<u32>,
}

/// With ticks of 5 ms: 10 ms, against dispatch's 3 ms of gathering changes.
const STEADY_TICKS: usize = 3;

impl Steady {
    /// This tick's room; returns what was there at each of the last ticks. Without jobs in dispatch nothing lags.
    pub fn handle_tick(&mut self, room: u32, load: Load) -> u32 {
        self.seen.push_back(room);
        while self.seen.len() > STEADY_TICKS {
            self.seen.pop_front();
        }
        match load.in_dispatch {
            0 => room,
            _ => self.seen.iter().copied().min().unwrap_or(0),
        }
    }
}

/// How many unread tokens each holder's pipe should have, when there is that much room. A token that its make does not take
/// is moved to another one or taken back; a token that was taken is its make's until it returns it.
#[must_use]
pub fn deal(holders: &[Holder], mut room: u32) -> Vec<u32> {
    let mut dealt = vec![0; holders.len()];
    // Who emptied its pipe wants more; among those, who has least.
    let mut order: Vec<usize> = (0..holders.len()).collect();
    order.sort_by_key(|at| (holders[*at].unread > 0, holders[*at].held));
    while room > 0 {
        let before = room;
        for at in &order {
            if room > 0 && dealt[*at] < holders[*at].may_take() {
                dealt[*at] += 1;
                room -= 1;
            }
        }
        if room == before {
            break;
        }
    }
    dealt
}

/// Tokens that came back and whose job the load may still count: between the two lies the way of the news. The record of a
/// job clears one token; a token of a local job has no record and clears itself.
#[derive(Clone, Debug, Default)]
pub struct Returns {
    doubtful: VecDeque<Instant>,
    early_records: VecDeque<Instant>,
}

/// The news takes milliseconds, and tens of them on a busy machine.
const NEWS_TAKES: Duration = Duration::from_millis(60);

impl Returns {
    /// Tokens came back.
    pub fn handle_returned(&mut self, tokens: u32, now: Instant) {
        self.forget(now);
        for _ in 0..tokens {
            if self.early_records.pop_front().is_none() {
                self.doubtful.push_back(now);
            }
        }
    }

    /// A job has ended at a worker; its token comes now, or came just before.
    pub fn handle_record(&mut self, now: Instant) {
        self.forget(now);
        if self.doubtful.pop_front().is_none() {
            self.early_records.push_back(now);
        }
    }

    /// How many tokens are in doubt.
    pub fn doubtful(&mut self, now: Instant) -> u32 {
        self.forget(now);
        u32::try_from(self.doubtful.len()).unwrap_or(u32::MAX)
    }

    fn forget(&mut self, now: Instant) {
        for queue in [&mut self.doubtful, &mut self.early_records] {
            while queue
                .front()
                .is_some_and(|at| now.duration_since(*at) >= NEWS_TAKES)
            {
                queue.pop_front();
            }
        }
    }
}

/// Finds tokens that nobody will return, because the sub-make that took them was killed.
///
/// A token stands for a job, and a running job is at least one process below its make that has no child of its own (a
/// **leaf**); so is the job without a token. Fewer leaves than that, look after look, and the difference is lost.
#[derive(Clone, Debug, Default)]
pub struct LossWatch {
    missing: VecDeque<u32>,
}

/// With looks 1 s apart, 3 s: a make that took a token starts its job within milliseconds.
const LOOKS: usize = 4;

impl LossWatch {
    /// A look: tokens held, leaves below the make. Returns how many tokens are lost.
    pub fn handle_look(&mut self, held: u32, leaves: u32) -> u32 {
        self.missing
            .push_back((held + 1).saturating_sub(leaves.max(1)));
        if self.missing.len() < LOOKS {
            return 0;
        }
        let lost = self.missing.iter().copied().min().unwrap_or(0);
        self.missing.pop_front();
        for missing in &mut self.missing {
            *missing -= lost;
        }
        lost
    }

    /// Whether the last look missed any, which it also does where a job is just beginning.
    pub fn suspects(&self) -> bool {
        self.missing.back().is_some_and(|missing| *missing > 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(local: u32, capacity: u32, in_dispatch: u32) -> Limits {
        let load = Load {
            capacity,
            in_dispatch,
            stranded: 0,
        };
        Limits {
            local,
            load,
            ahead: 0,
            doubtful: 0,
            spare: 0,
            offered: 0,
            ready: 0,
        }
    }

    fn holder(held: u32, unread: u32) -> Holder {
        Holder {
            held,
            unread,
            ..Holder::default()
        }
    }

    fn any_holder() -> impl Strategy<Value = Holder> {
        let ceiling = proptest::option::of(1u32..50);
        (0u32..50, 0u32..50, ceiling, any::<bool>()).prop_map(|(held, unread, ceiling, nested)| {
            Holder {
                held,
                unread,
                ceiling,
                nested,
            }
        })
    }

    proptest! {
        #[test]
        fn a_deal_never_exceeds_any_limit(holders in proptest::collection::vec(any_holder(), 0..6), local in 1u32..64,
            capacity in 0u32..300, in_dispatch in 0u32..300) {
            let limits = limits(local, capacity, in_dispatch);
            let dealt = deal(&holders, room(&holders, limits));
            let sum: u32 = dealt.iter().sum();
            let running: u32 = holders.iter().map(|holder| holder.running()).sum();
            if sum > 0 {
                prop_assert!(running.saturating_sub(in_dispatch) + sum <= local);
                prop_assert!(running + sum <= local + capacity);
            }
            for (holder, tokens) in holders.iter().zip(&dealt) {
                prop_assert!(*tokens == 0 || holder.ceiling.is_none_or(|ceiling| holder.held + 1 + tokens <= ceiling));
            }
        }
    }

    #[test]
    fn jobs_in_dispatch_make_room_for_as_many_more() {
        assert_eq!(room(&[holder(3, 0)], limits(4, 8, 0)), 0);
        assert_eq!(room(&[holder(3, 0)], limits(4, 8, 2)), 2);
        let all_out = room(&[holder(11, 0)], limits(4, 8, 11));
        assert_eq!(all_out, 0, "the workers' capacity is used up");
    }

    #[test]
    fn the_job_without_a_token_counts_here_even_while_it_is_away() {
        assert_eq!(room(&[holder(1, 0)], limits(2, 8, 2)), 1);
        assert_eq!(surely_here(&[holder(1, 0)], limits(2, 8, 2).load), 0);
    }

    #[test]
    fn a_machine_with_room_for_one_job_still_feeds_the_workers() {
        let started = [0, 1, 2, 3].map(|out| room(&[holder(out, 0)], limits(1, 8, out + 1)));
        assert_eq!(started, [1, 1, 1, 1]);
        assert_eq!(room(&[holder(3, 0)], limits(1, 8, 3)), 0);
    }

    #[test]
    fn jobs_wait_ready_to_go_beside_those_that_run() {
        let full = limits(2, 8, 8);
        assert_eq!(room(&[holder(9, 0)], full), 0);
        let queue = Limits { ahead: 3, ..full };
        assert_eq!(room(&[holder(9, 0)], queue), 0, "here are two");
        let sent = limits(2, 8, 10);
        assert_eq!(room(&[holder(10, 0)], sent), 0);
        let queue = Limits { ahead: 3, ..sent };
        assert_eq!(room(&[holder(10, 0)], queue), 1);
        assert_eq!(room(&[holder(12, 0)], queue), 0);
        assert_eq!((ahead(0), ahead(1), ahead(1_024)), (0, 32, 64));
    }

    #[test]
    fn with_its_workers_gone_this_machine_takes_what_it_is_permitted() {
        let gone = limits(2, 0, 8);
        assert_eq!(room(&[holder(8, 0)], gone), 0);
        assert_eq!(room(&[holder(8, 0)], Limits { ready: 4, ..gone }), 1);
        assert_eq!(room(&[holder(9, 0)], Limits { ready: 4, ..gone }), 0);
    }

    #[test]
    fn room_that_only_a_late_load_shows_is_not_believed() {
        let (mut steady, busy) = (Steady::default(), limits(2, 8, 3).load);
        let believed = [0, 1, 0, 1, 1, 1].map(|room| steady.handle_tick(room, busy));
        assert_eq!(believed, [0, 0, 0, 0, 0, 1]);
        assert_eq!(steady.handle_tick(4, Load::default()), 4);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment serves as the first")]
    fn a_token_is_in_doubt_until_its_job_s_record_or_a_moment_later() {
        let (mut returns, start) = (Returns::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        returns.handle_returned(2, at(0));
        returns.handle_record(at(5));
        assert_eq!((returns.doubtful(at(6)), returns.doubtful(at(60))), (1, 0));
        returns.handle_record(at(70));
        returns.handle_returned(1, at(75));
        assert_eq!(returns.doubtful(at(75)), 0, "its record came first");
        let limits = Limits {
            doubtful: 1,
            ..limits(2, 8, 1)
        };
        assert_eq!(room(&[holder(1, 0)], limits), 0);
    }

    #[test]
    fn the_last_token_goes_to_the_make_that_wants_one() {
        let idle = deal(&[holder(0, 1), holder(3, 0)], 1);
        assert_eq!(idle, [0, 1], "the idle make's token moves");
        assert_eq!(
            deal(&[holder(2, 0), holder(0, 0)], 1),
            [0, 1],
            "the poorer first"
        );
    }

    #[test]
    fn two_makes_have_two_jobs_without_a_token_and_a_nested_one_has_none() {
        let nested = Holder {
            nested: true,
            ..Holder::default()
        };
        let load = Load::default();
        assert_eq!(here(&[holder(0, 0), holder(0, 0)], load), 2);
        assert_eq!(here(&[holder(0, 0), nested], load), 1);
    }

    #[test]
    fn tokens_are_lost_only_when_look_after_look_misses_them() {
        let mut watch = LossWatch::default();
        let looks = [2, 2, 5, 2, 4, 2, 2].map(|leaves| watch.handle_look(4, leaves));
        assert_eq!(looks, [0, 0, 0, 0, 0, 0, 1]);
        let more = [2, 2, 2].map(|leaves| watch.handle_look(3, leaves));
        assert_eq!(more, [0, 2, 0], "the rest is found without waiting anew");
    }
}
