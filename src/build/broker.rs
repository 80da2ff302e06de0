//! How many tokens make may hold: pure policy.

use crate::event::Load;

/// What the broker knows when it decides.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Tokens granted and not returned, those still unread in the pipe included.
    pub outstanding: u32,
    /// Jobs this machine may run at once.
    pub local_limit: u32,
    /// The lowest `-jN` a person asked for.
    pub ceiling: Option<u32>,
    /// The workers.
    pub load: Load,
}

/// Tokens to grant now. Every make runs one job without a token, so that progress never stops.
#[must_use]
pub fn grant(view: View) -> u32 {
    let running = view.outstanding.saturating_add(1);
    let here = running.saturating_sub(view.load.in_dispatch);
    let room_here = view.local_limit.saturating_sub(here);
    let total = view
        .local_limit
        .saturating_add(view.load.capacity)
        .min(view.ceiling.unwrap_or(u32::MAX));
    room_here.min(total.saturating_sub(running))
}

/// Unread tokens to take back, because room has gone since they were granted.
#[must_use]
pub fn reclaim(view: View, unread: u32) -> u32 {
    let running = view.outstanding.saturating_add(1);
    let here = running.saturating_sub(view.load.in_dispatch);
    here.saturating_sub(view.local_limit.max(1)).min(unread)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_grant_never_exceeds_any_limit(outstanding in 0u32..300, local_limit in 1u32..64, capacity in 0u32..300,
            in_dispatch in 0u32..300, ceiling in proptest::option::of(1u32..300)) {
            let load = Load { capacity, in_dispatch, stranded: 0 };
            let granted = grant(View { outstanding, local_limit, ceiling, load });
            if granted > 0 {
                let running = outstanding + 1 + granted;
                prop_assert!(running.saturating_sub(in_dispatch) <= local_limit);
                prop_assert!(running <= local_limit + capacity);
                prop_assert!(ceiling.is_none_or(|ceiling| running <= ceiling));
            }
        }
    }

    #[test]
    fn jobs_in_dispatch_make_room_for_as_many_more() {
        let view = |in_dispatch| View {
            outstanding: 3,
            local_limit: 4,
            ceiling: None,
            load: Load {
                capacity: 8,
                in_dispatch,
                stranded: 0,
            },
        };
        assert_eq!((grant(view(0)), grant(view(3))), (0, 3));
    }
}
