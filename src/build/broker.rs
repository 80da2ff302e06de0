//! Who may start how many jobs: pure policy.
//!
//! Each make that starts on its own is a **holder** with its own pair of pipes; its sub-makes share them. It runs one job
//! without a token, takes a token for every further one, and returns it when that job ends.

use std::collections::VecDeque;

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
    /// The workers; jobs whose tokens may have come back are not counted, see [`Returns::lower`].
    pub load: Load,
    /// Jobs that may wait for a worker, ready to go, see [`ahead`].
    pub ahead: u32,
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

/// Simulated with the times of cppcheck's 71 compiles, on eight workers of one slot, when a second of waiting weighed as much as one of
/// compiling: 173 s with 1, 160 s with 2, 142 s with 4, and 176 s with two jobs in all.
const AHEAD_PER_SLOT: u32 = 4;
/// A throttled primary had prepared 16 jobs for four slots, and stood still, before it came to the longest. Simulated with the queue's
/// order of today, cppcheck on eight workers takes 146 s with 32, 140 s with 40 or more.
const AHEAD_AT_LEAST: u32 = 40;
/// With redis's or cppcheck's requests 60 to 90 MiB.
const AHEAD_AT_MOST: u32 = 64;

/// How many more jobs may start now.
#[must_use]
pub fn room(holders: &[Holder], limits: Limits) -> u32 {
    let running: u32 = holders.iter().map(|holder| holder.running()).sum();
    let here = counted_here(holders, limits.load, limits.local).saturating_sub(limits.spare);
    let room_here = limits.local.saturating_sub(here);
    let away = limits.load.capacity.saturating_add(limits.ahead);
    let total = limits.local.saturating_add(away);
    let beside = limits.spare.saturating_add(limits.offered);
    let room_anywhere = total.saturating_add(beside).saturating_sub(running);
    // Where workers have gone, more jobs are out than there are slots: this machine need not wait for them.
    room_here.min(room_anywhere.max(limits.ready))
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

/// Tokens that came back and whose jobs the newest load may still count.
///
/// A job leaves dispatch before its answer does, and so before its token comes back: a load that was made after a token was seen does
/// not count its job. (Only that of a client which was killed may stay in dispatch for the moment that it takes to see it gone.) Until
/// one comes, each such token is in doubt, for its job may have been a local one or one of those in the load.
/// All moments are nanoseconds of the system's monotonic clock, see [`monotonic_ns`](crate::machine::clock::monotonic_ns).
#[derive(Clone, Debug, Default)]
pub struct Returns {
    doubtful: VecDeque<(u64, u32)>,
    asked: bool,
}

/// Where no load comes, tokens of different moments are kept as if all were seen at the last.
const MOMENTS: usize = 64;

impl Returns {
    /// Tokens came back, and were seen by then.
    pub fn handle_returned(&mut self, tokens: u32, by_ns: u64) {
        if tokens == 0 {
            return;
        }
        let before = match self.doubtful.len() < MOMENTS {
            true => None,
            false => self.doubtful.pop_back(),
        };
        let before = before.map_or(0, |(_, tokens)| tokens);
        self.doubtful
            .push_back((by_ns, before.saturating_add(tokens)));
    }

    /// A load came that was made then.
    pub fn handle_load(&mut self, at_ns: u64) {
        self.asked = false;
        while self.doubtful.front().is_some_and(|(by, _)| *by < at_ns) {
            self.doubtful.pop_front();
        }
    }

    /// The load without jobs whose tokens may have come back.
    #[must_use]
    pub fn lower(&self, load: Load) -> Load {
        let doubtful = self.doubtful.iter().map(|(_, tokens)| *tokens);
        let doubtful = doubtful.fold(0, u32::saturating_add);
        Load {
            in_dispatch: load.in_dispatch.saturating_sub(doubtful),
            ..load
        }
    }

    /// Doubt stands in the way: whether to ask for a load now, which is so once until one comes.
    pub fn asks(&mut self) -> bool {
        !std::mem::replace(&mut self.asked, true)
    }
}

/// Finds tokens that nobody will return, because the sub-make that took them was killed.
///
/// A token stands for a job, and a running job is at least one thread of a process below its make that has no child of its own (a
/// **leaf**); so is the job without a token. Fewer of them than that, look after look, and the difference is lost.
#[derive(Clone, Debug, Default)]
pub struct LossWatch {
    missing: VecDeque<u32>,
}

/// With looks 1 s apart, 3 s: a make that took a token starts its job within milliseconds.
const LOOKS: usize = 4;

impl LossWatch {
    /// A look: tokens held, jobs that may run below the make. Returns how many tokens are lost.
    pub fn handle_look(&mut self, held: u32, jobs: u32) -> u32 {
        self.missing
            .push_back((held + 1).saturating_sub(jobs.max(1)));
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
        assert_eq!((ahead(0), ahead(1), ahead(1_024)), (0, 40, 64));
    }

    #[test]
    fn with_its_workers_gone_this_machine_takes_what_it_is_permitted() {
        let gone = limits(2, 0, 8);
        assert_eq!(room(&[holder(8, 0)], gone), 0);
        assert_eq!(room(&[holder(8, 0)], Limits { ready: 4, ..gone }), 1);
        assert_eq!(room(&[holder(9, 0)], Limits { ready: 4, ..gone }), 0);
    }

    #[test]
    fn a_token_is_in_doubt_until_a_load_that_was_made_later() {
        let (mut returns, load) = (Returns::default(), limits(2, 8, 4).load);
        let counted = |returns: &Returns| returns.lower(load).in_dispatch;
        returns.handle_returned(1, 10);
        returns.handle_returned(2, 20);
        returns.handle_load(10);
        assert_eq!(counted(&returns), 1, "neither was later");
        returns.handle_load(11);
        assert_eq!((counted(&returns), returns.asks()), (2, true));
        assert!(!returns.asks(), "it was asked for");
        returns.handle_load(21);
        assert_eq!((counted(&returns), returns.asks()), (4, true));
        (0..1_000).for_each(|at| returns.handle_returned(1, at));
        returns.handle_load(999);
        assert_eq!(counted(&returns), 0, "the last has not been made up for");
        returns.handle_load(1_000);
        assert_eq!(counted(&returns), 4);
    }

    #[test]
    fn a_token_in_doubt_takes_room_only_where_its_job_made_any() {
        let (mut returns, away) = (Returns::default(), limits(2, 8, 3));
        returns.handle_returned(1, 10);
        let lowered = |held| {
            let load = returns.lower(away.load);
            room(&[holder(held, 0)], Limits { load, ..away })
        };
        assert_eq!(room(&[holder(3, 0)], away), 1);
        assert_eq!(lowered(3), 0, "one of four may have been here before");
        assert_eq!(lowered(1), 1, "all that are left are away");
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
