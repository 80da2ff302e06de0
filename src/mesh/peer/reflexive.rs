//! Peer-reflexive candidates (RFC 8445, section 7.3.1.3): addresses that a peer's pings come from. Which are worth knocking at,
//! and for how long.

use std::time::{Duration, Instant};

use super::{Peer, names};
use crate::{
    mesh::{choice::STALE_ANSWER, nat, probe::Size, punch::Punch, route::Route},
    session::CandidateKind,
};

impl Peer {
    /// A ping proves that the peer is behind its source, not that it can be reached there: that is checked at once.
    pub(super) fn handle_ping(&mut self, (from, size): (Route, Size), now: Instant) {
        if let Some(punch) = self.punches.get_mut(&from) {
            punch.handle_mention(now);
            // Both ends of a way that is too narrow would hurry each other for ever.
            let known = punch.answered_within(STALE_ANSWER, now) || punch.is_narrow(now);
            if !known {
                punch.hurry(now);
            }
            return;
        }
        let kind = match from {
            Route::Relayed(_) if self.needs_relay(now) => CandidateKind::Relayed,
            Route::Direct(addr) if nat::is_usable(addr) && self.may_learn_reflexive(now) => {
                CandidateKind::PeerReflexive
            }
            Route::Relayed(_) | Route::Direct(_) => return,
        };
        let mut punch = Punch::new(from, kind, now);
        if size == Size::Short {
            punch.begin_short();
        }
        self.punches.insert(from, punch);
    }

    /// Two dependent mappings that let everybody in show each other a new address with every probe: that chase has no end.
    fn may_learn_reflexive(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.learnt.0) >= LEARNING {
            self.learnt = (now, 0);
        }
        self.learnt.1 += 1;
        self.learnt.1 <= MAX_LEARNT && self.make_room_for_reflexive(now)
    }

    /// Drops the peer-reflexive candidate that has been of no use for longest, if there are too many.
    fn make_room_for_reflexive(&mut self, now: Instant) -> bool {
        let reflexive = |punch: &&Punch| {
            punch.kind == CandidateKind::PeerReflexive && Some(punch.route) != self.path
        };
        if self.punches.values().filter(reflexive).count() < MAX_REFLEXIVE {
            return true;
        }
        let useless = |punch: &&Punch| !punch.answered_within(STALE_ANSWER, now);
        let oldest = self
            .punches
            .values()
            .filter(reflexive)
            .filter(useless)
            .max_by_key(|punch| punch.idle_for(now))
            .map(|punch| punch.route);
        oldest.is_some_and(|route| self.punches.remove(&route).is_some())
    }

    /// Forgets addresses that a peer was once seen at and isn't any more.
    pub(super) fn forget_idle(&mut self, now: Instant) {
        let path = self.path;
        let published = &self.descriptor.candidates;
        self.punches.retain(|route, punch| {
            punch.kind != CandidateKind::PeerReflexive
                || path == Some(*route)
                || punch.idle_for(now) < REFLEXIVE_LIFETIME
                || names(published, *route)
        });
    }
}

/// A peer behind a dependent NAT shows one address a mapping; more at a time is noise.
const MAX_REFLEXIVE: usize = 8;
/// A mapping that changes is one new address; a restarted burst from several is a few.
const MAX_LEARNT: u32 = 8;
const LEARNING: Duration = Duration::from_secs(5);
/// Two standby rounds without an answer or a ping and then some: the mapping is gone.
const REFLEXIVE_LIFETIME: Duration = Duration::from_secs(30);
