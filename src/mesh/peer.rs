//! One peer: its candidates, the path among them, and whether it is there.

mod pinging;
mod reflexive;
mod relaying;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    approach::{Approach, NEAR_FIRST},
    choice::{STALE_ANSWER, is_better, is_failing},
    liveness::{Change, Liveness, State},
    nat,
    outbox::{MeshEvent, Outbox},
    probe::{Probe, ProbeKey, Size},
    punch::{Answer, Punch},
    replay::ReplayWindow,
    route::Route,
    transaction::{TransactionId, TransactionIds},
};
use crate::session::{Candidate, CandidateKind, Descriptor, PeerId};

/// What a peer is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// A link: it is looked for as long as it may live.
    Link,
    /// Forwarding, one way or the other: until this moment, and then it is left in peace until somebody needs it again.
    Forwarding(Instant),
}

/// Where a peer sees this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observed {
    /// The address that was pinged.
    via: Route,
    pub(super) addr: SocketAddr,
    /// When it was first seen there.
    pub(super) since: Instant,
    /// When it was last seen there.
    pub(super) at: Instant,
}

/// Everything about one peer.
#[derive(Debug)]
pub(super) struct Peer {
    id: PeerId,
    descriptor: Descriptor,
    key: ProbeKey,
    ids: TransactionIds,
    pings_heard: ReplayWindow,
    interest: Interest,
    /// Until when it is this node that needs the peer for forwarding.
    needed_until: Instant,
    punches: BTreeMap<Route, Punch>,
    path: Option<Route>,
    /// When the peer last went up.
    up_since: Instant,
    liveness: Liveness,
    observed: Option<Observed>,
    /// Peer-reflexive candidates learnt since a moment.
    learnt: (Instant, u32),
    approach: Approach,
    /// A fresh socket was taken because nobody was reached with the last: the peers' NATs must not hear it first.
    careful: bool,
    /// Asleep, and what that takes has been done.
    is_resting: bool,
}

impl Peer {
    /// Begins to knock at every candidate.
    pub(super) fn new(
        descriptor: Descriptor,
        interest: Interest,
        (key, ids): (ProbeKey, TransactionIds),
        now: Instant,
    ) -> Self {
        let mut peer = Self {
            id: descriptor.peer,
            interest,
            needed_until: now,
            key,
            ids,
            pings_heard: ReplayWindow::default(),
            punches: BTreeMap::new(),
            path: None,
            up_since: now,
            liveness: Liveness::new(now),
            observed: None,
            learnt: (now, 0),
            approach: Approach::Openly,
            careful: false,
            is_resting: interest != Interest::Link,
            descriptor,
        };
        peer.add_published(now);
        peer
    }

    pub(super) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The way to send data.
    pub(super) fn path(&self) -> Option<Route> {
        self.path.filter(|_| self.has_path())
    }

    /// The address at which the peer itself answers.
    pub(super) fn direct_path(&self) -> Option<SocketAddr> {
        self.path()?.direct()
    }

    /// Whether the peer answered at this address lately.
    pub(super) fn answers_at(&self, addr: SocketAddr, now: Instant) -> bool {
        let punch = self.punches.get(&Route::Direct(addr));
        punch.is_some_and(|punch| punch.answered_within(PROVEN_FOR, now))
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.path_punch()?.rtt()
    }

    /// Where the peer sees this node over the path in use, if nobody is in between.
    pub(super) fn observed(&self) -> Option<Observed> {
        self.observed.filter(|seen| self.path() == Some(seen.via))
    }

    /// A newer descriptor of this very run of the peer.
    pub(super) fn handle_descriptor(&mut self, descriptor: Descriptor, now: Instant) {
        self.descriptor = descriptor;
        let published = &self.descriptor.candidates;
        let path = self.path;
        self.punches.retain(|route, punch| {
            path == Some(*route)
                || matches!(
                    punch.kind,
                    CandidateKind::PeerReflexive | CandidateKind::Relayed
                )
                || punch.answered_within(STALE_ANSWER, now)
                || names(published, *route)
        });
        self.add_published(now);
        if !matches!(self.liveness.state(), State::Up) {
            self.restart(now);
        }
    }

    /// This node's own addresses changed: the peers' packets need new holes.
    pub(super) fn handle_own_change(&mut self, now: Instant) {
        for punch in self.punches.values_mut() {
            punch.hurry(now);
        }
        if !self.has_path() {
            self.restart(now);
            self.keep_near(now);
        }
    }

    /// This node's interfaces changed: packets to the peer's addresses may take another way, with another MTU.
    pub(super) fn handle_own_interfaces(&mut self) {
        self.punches.values_mut().for_each(Punch::doubt_width);
    }

    /// Whether only short packets get through to it.
    pub(super) fn is_narrow(&self, now: Instant) -> bool {
        let mut punches = self.punches.values();
        punches.any(|punch| punch.is_narrow(now))
    }

    /// From now on a new address is approached with care.
    pub(super) fn set_careful(&mut self) {
        self.careful = true;
    }

    pub(super) fn set_approach(&mut self, approach: Approach) {
        self.approach = approach;
    }

    fn keep_near(&mut self, now: Instant) {
        if self.careful {
            for punch in self.punches.values_mut() {
                punch.keep_near(now + NEAR_FIRST);
            }
        }
    }

    /// Returns whether the bytes, which came from `source`, were a probe of this peer's.
    pub(super) fn handle_probe(
        &mut self,
        (from, source): (Route, SocketAddr),
        bytes: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> bool {
        let Some((probe, size)) = self.key.open(bytes).zip(Size::of(bytes)) else {
            return false;
        };
        match probe {
            Probe::Ping { id, number, asks } => {
                let pong = Probe::Pong {
                    id,
                    observed: source,
                };
                out.send_by(from, self.id, self.key.seal(&pong, size));
                if self.pings_heard.is_news(number) {
                    if asks {
                        self.stay_awake(now);
                    }
                    if !self.is_asleep(now) {
                        self.handle_ping((from, size), now);
                    }
                }
                if self.is_asleep(now) {
                    return true;
                }
                // One that comes over a way that works, not the first of a storm.
                let answers = |punch: &Punch| punch.answered_within(PROVEN_FOR, now);
                let company = self.punches.get(&from).is_some_and(answers);
                self.send_due(now, company, out);
            }
            Probe::Pong { .. } if self.is_asleep(now) => {}
            Probe::Pong { id, observed } => {
                self.handle_pong((from, size), (id, observed), now, out);
            }
        }
        true
    }

    /// Authenticated data came in.
    pub(super) fn handle_traffic(&mut self, now: Instant, out: &mut Outbox) {
        let change = self.liveness.handle_traffic(now);
        self.apply(change, now, out);
        let path = self.path.filter(|_| self.liveness.state() == State::Up);
        if let Some(punch) = path.and_then(|path| self.punches.get_mut(&path)) {
            punch.handle_traffic(now);
        }
    }

    /// This node was not running for `gap`.
    pub(super) fn handle_stall(&mut self, gap: Duration, now: Instant) {
        self.liveness.extend(gap, now);
        for punch in self.punches.values_mut() {
            punch.handle_stall();
        }
    }

    /// `company`: the path of some peer is pinged at this very moment.
    pub(super) fn handle_timeout(&mut self, now: Instant, company: bool, out: &mut Outbox) {
        if self.is_asleep(now) {
            return self.rest(out);
        }
        while let Some(change) = self.liveness.handle_timeout(now) {
            self.apply(Some(change), now, out);
        }
        self.forget_idle(now);
        self.send_due(now, company, out);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let until = match self.interest {
            Interest::Forwarding(until) => Some(until),
            Interest::Link => None,
        };
        if self.is_resting {
            return None;
        }
        let pings = self.punches.values().map(Punch::poll_timeout);
        pings.chain(self.liveness.poll_timeout()).chain(until).min()
    }

    /// Whether the path is pinged at the next timeout, and not for being in trouble.
    pub(super) fn is_path_due(&self, now: Instant) -> bool {
        let due = |path: &Punch| path.is_patient() && path.is_due(now);
        self.path_punch().is_some_and(due)
    }

    fn path_punch(&self) -> Option<&Punch> {
        self.punches.get(&self.path()?)
    }

    fn has_path(&self) -> bool {
        matches!(self.liveness.state(), State::Up | State::Suspect)
    }

    fn add_published(&mut self, now: Instant) {
        let published = self.descriptor.candidates.iter();
        for Candidate { kind, addr } in published.take(MAX_PUBLISHED).copied() {
            // Who relays is found out by asking, not by reading.
            if kind == CandidateKind::Relayed || !nat::is_usable(addr) {
                continue;
            }
            let route = Route::Direct(addr);
            let near = self.careful.then_some(now + NEAR_FIRST);
            let fresh = || {
                let mut punch = Punch::new(route, kind, now);
                near.into_iter().for_each(|until| punch.keep_near(until));
                punch
            };
            self.punches.entry(route).or_insert_with(fresh).kind = kind;
        }
    }

    fn restart(&mut self, now: Instant) {
        for punch in self.punches.values_mut() {
            punch.restart(now);
        }
    }

    fn handle_pong(
        &mut self,
        (from, size): (Route, Size),
        (id, observed): (TransactionId, SocketAddr),
        now: Instant,
        out: &mut Outbox,
    ) {
        let Some(punch) = self.punches.get_mut(&from) else {
            return;
        };
        match punch.handle_answer((&id, size), now) {
            Answer::Usable => {}
            Answer::Narrow | Answer::Stray => return,
        }
        self.note_observed(from, observed, now);
        let moved = self.choose_path(from, now);
        let was_up = self.has_path();
        let change = self.liveness.handle_answer(now);
        if moved && was_up {
            let (peer, route) = (self.id, from);
            out.tell(MeshEvent::PathMoved { peer, route });
        }
        self.apply(change, now, out);
        self.pace(from, now);
    }

    /// After an answer: the path rests, and an answer that needs a second one gets its chance.
    fn pace(&mut self, from: Route, now: Instant) {
        let state = self.liveness.state();
        let is_path = self.path == Some(from);
        let Some(punch) = self.punches.get_mut(&from) else {
            return;
        };
        match state {
            State::Up if is_path => punch.rest(),
            State::Down => punch.hurry(now),
            State::Up | State::Punching | State::Suspect => {}
        }
    }

    /// The peer sees this node over this way; over a relay it is the relay that it sees.
    fn note_observed(&mut self, via: Route, addr: SocketAddr, now: Instant) {
        if via.direct().is_none() {
            return;
        }
        let same = |seen: &Observed| (seen.via, seen.addr) == (via, addr);
        let since = self.observed.filter(same).map_or(now, |seen| seen.since);
        self.observed = Some(Observed {
            via,
            addr,
            since,
            at: now,
        });
    }

    /// Takes `answered` for the path if that is an improvement; returns whether it did.
    fn choose_path(&mut self, answered: Route, now: Instant) -> bool {
        let current = self.path.and_then(|path| self.punches.get(&path));
        let better = match (current, self.punches.get(&answered)) {
            (Some(current), Some(_)) if current.route == answered => false,
            (Some(current), Some(_)) if is_failing(current, now) => true,
            (Some(current), Some(new)) => is_better(new, current),
            (None, new) => new.is_some(),
            (Some(_), None) => false,
        };
        if better {
            self.path = Some(answered);
        }
        better
    }

    fn apply(&mut self, change: Option<Change>, now: Instant, out: &mut Outbox) {
        let Some(change) = change else { return };
        let peer = self.id;
        match change {
            Change::Up => {
                self.up_since = now;
                let Some(route) = self.path else { return };
                out.tell(MeshEvent::PathUp { peer, route });
            }
            Change::Recovered => out.tell(MeshEvent::PathRecovered { peer }),
            Change::Suspect { silent_for } => {
                self.handle_own_change(now);
                out.wants_stun = true;
                out.tell(MeshEvent::PathSuspect { peer, silent_for });
            }
            Change::Down => {
                self.path = None;
                self.observed = None;
                out.tell(MeshEvent::PathDown { peer });
            }
        }
    }
}

/// Whether one of these is where the route leads.
fn names(candidates: &[Candidate], route: Route) -> bool {
    let mut addrs = candidates.iter().map(|candidate| candidate.addr);
    addrs.any(|addr| Some(addr) == route.direct())
}

/// An honest node has a handful of interfaces and three STUN servers.
pub(super) const MAX_PUBLISHED: usize = 32;
/// Three of a standby's rounds of 5 s: an answer this old still says where a peer is.
const PROVEN_FOR: Duration = Duration::from_secs(15);
