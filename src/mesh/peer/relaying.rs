//! The peer as a relay, and as one who is reached through relays.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{Interest, PROVEN_FOR, Peer};
use crate::{
    mesh::{
        liveness::{Liveness, State},
        outbox::{MeshEvent, Outbox},
        punch::Punch,
        route::Route,
    },
    session::{CandidateKind, PeerId},
};

impl Peer {
    pub(in crate::mesh) fn is_for_link(&self) -> bool {
        self.interest == Interest::Link
    }

    /// Whether nobody needs the peer at the moment.
    pub(in crate::mesh) fn is_asleep(&self, now: Instant) -> bool {
        matches!(self.interest, Interest::Forwarding(until) if until <= now)
    }

    /// The peer is needed for forwarding, for a while from now.
    pub(in crate::mesh) fn wake(&mut self, now: Instant) {
        self.needed_until = now + FORWARDING;
        self.stay_awake(now);
    }

    /// This node or the peer needs the other. Only pings of the one that does keep both awake, or each would keep the other so for ever.
    pub(super) fn stay_awake(&mut self, now: Instant) {
        if self.is_for_link() {
            return;
        }
        if self.is_asleep(now) {
            self.is_resting = false;
            self.path = None;
            self.liveness = Liveness::new(now);
            self.restart(now);
        }
        self.interest = Interest::Forwarding(now + FORWARDING);
    }

    /// Whether there has ever been a path.
    pub(in crate::mesh) fn had_path(&self) -> bool {
        self.liveness.state() != State::Punching
    }

    /// Whether the direct path is missing or in doubt.
    pub(in crate::mesh) fn needs_relay(&self, now: Instant) -> bool {
        let wide = || self.path_punch().is_some_and(|path| !path.is_narrow(now));
        let good = self.liveness.state() == State::Up && self.direct_path().is_some() && wide();
        self.is_for_link() && !good
    }

    /// Knocks through these peers, and no others, unless they just answered.
    pub(in crate::mesh) fn set_relays(&mut self, relays: &BTreeSet<PeerId>, now: Instant) {
        let path = self.path();
        self.punches.retain(|route, punch| {
            route.relay().is_none_or(|relay| {
                relays.contains(&relay)
                    || (!relays.is_empty() && punch.answered_within(PROVEN_FOR, now))
                    || path == Some(*route)
            })
        });
        for relay in relays {
            let route = Route::Relayed(*relay);
            self.punches
                .entry(route)
                .or_insert_with(|| Punch::new(route, CandidateKind::Relayed, now));
        }
    }

    /// The relay itself cannot be reached any more.
    pub(in crate::mesh) fn handle_relay_lost(
        &mut self,
        relay: PeerId,
        now: Instant,
        out: &mut Outbox,
    ) {
        let lost = Route::Relayed(relay);
        if self.punches.remove(&lost).is_none() || self.path != Some(lost) {
            return;
        }
        let other = self
            .punches
            .values()
            .filter(|punch| punch.answered_within(PROVEN_FOR, now))
            .min_by_key(|punch| (punch.route.relay().is_some(), punch.rtt()));
        self.path = other.map(|punch| punch.route).or(self.path);
        if let Some(route) = self.path.filter(|route| *route != lost) {
            out.tell(MeshEvent::PathMoved {
                peer: self.id,
                route,
            });
        }
        self.restart(now);
    }

    /// Nobody needs the peer: its packets may be answered, but none are sent.
    pub(super) fn rest(&mut self, out: &mut Outbox) {
        if self.path.take().is_some() {
            out.tell(MeshEvent::PathDown { peer: self.id });
        }
        self.is_resting = true;
        self.observed = None;
        self.punches
            .retain(|_, punch| punch.kind != CandidateKind::PeerReflexive);
    }
}

/// Whoever needs a forwarder says so at least every 5 s.
const FORWARDING: Duration = Duration::from_secs(15);
