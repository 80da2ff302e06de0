//! One peer: its candidates, the path among them, and whether it is there.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    liveness::{Change, Liveness, State},
    nat,
    outbox::{MeshEvent, Outbox},
    probe::{Probe, ProbeKey},
    punch::{Cadence, Punch},
    replay::ReplayWindow,
    transaction::{TransactionId, TransactionIds},
};
use crate::session::{Candidate, CandidateKind, Descriptor, PeerId};

/// Everything about one peer.
#[derive(Debug)]
pub(super) struct Peer {
    id: PeerId,
    descriptor: Descriptor,
    key: ProbeKey,
    ids: TransactionIds,
    pings_heard: ReplayWindow,
    punches: BTreeMap<SocketAddr, Punch>,
    path: Option<SocketAddr>,
    /// When the peer last went up.
    up_since: Instant,
    liveness: Liveness,
    /// Where the peer last saw this node, by the address that was pinged.
    observed: Option<(SocketAddr, SocketAddr)>,
}

impl Peer {
    /// Begins to knock at every candidate.
    pub(super) fn new(
        descriptor: Descriptor,
        key: ProbeKey,
        ids: TransactionIds,
        now: Instant,
    ) -> Self {
        let mut peer = Self {
            id: descriptor.peer,
            key,
            ids,
            pings_heard: ReplayWindow::default(),
            punches: BTreeMap::new(),
            path: None,
            up_since: now,
            liveness: Liveness::new(now),
            observed: None,
            descriptor,
        };
        peer.add_published(now);
        peer
    }

    pub(super) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The address to send data to.
    pub(super) fn path(&self) -> Option<SocketAddr> {
        self.path.filter(|_| self.has_path())
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.punches.get(&self.path()?)?.rtt()
    }

    /// A newer descriptor of this very run of the peer.
    pub(super) fn handle_descriptor(&mut self, descriptor: Descriptor, now: Instant) {
        self.descriptor = descriptor;
        let published = &self.descriptor.candidates;
        let path = self.path;
        self.punches.retain(|addr, punch| {
            path == Some(*addr)
                || punch.kind == CandidateKind::PeerReflexive
                || punch.answered_within(STALE_ANSWER, now)
                || published.iter().any(|candidate| candidate.addr == *addr)
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
        }
    }

    /// Returns whether the bytes were a probe of this peer's.
    pub(super) fn handle_probe(
        &mut self,
        from: SocketAddr,
        bytes: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> bool {
        match self.key.open(bytes) {
            Some(Probe::Ping { id, number }) => {
                let observed = from;
                out.send(from, self.key.seal(&Probe::Pong { id, observed }));
                if self.pings_heard.is_news(number) {
                    self.handle_ping(from, now);
                }
                self.send_due(now, out);
                true
            }
            Some(Probe::Pong { id, observed }) => {
                self.handle_pong(from, (id, observed), now, out);
                true
            }
            None => false,
        }
    }

    /// Authenticated data came in.
    pub(super) fn handle_traffic(&mut self, now: Instant, out: &mut Outbox) {
        let change = self.liveness.handle_traffic(now);
        self.apply(change, now, out);
    }

    /// This node was not running for `gap`.
    pub(super) fn handle_stall(&mut self, gap: Duration, now: Instant) {
        self.liveness.extend(gap, now);
        for punch in self.punches.values_mut() {
            punch.handle_stall();
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(change) = self.liveness.handle_timeout(now) {
            self.apply(Some(change), now, out);
        }
        self.forget_idle(now);
        self.send_due(now, out);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let pings = self.punches.values().map(Punch::poll_timeout);
        pings.chain(self.liveness.poll_timeout()).min()
    }

    fn has_path(&self) -> bool {
        matches!(self.liveness.state(), State::Up | State::Suspect)
    }

    fn add_published(&mut self, now: Instant) {
        let published = self.descriptor.candidates.iter();
        for Candidate { kind, addr } in published.take(MAX_PUBLISHED).copied() {
            // Relays are a matter of their own: nothing answers a probe there.
            if kind == CandidateKind::Relayed || !nat::is_usable(addr) {
                continue;
            }
            let punch = self
                .punches
                .entry(addr)
                .or_insert_with(|| Punch::new(addr, kind, now));
            punch.kind = kind;
        }
    }

    fn restart(&mut self, now: Instant) {
        for punch in self.punches.values_mut() {
            punch.restart(now);
        }
    }

    /// A ping proves that the peer is behind its source, not that it can be reached there: that is checked at once.
    fn handle_ping(&mut self, from: SocketAddr, now: Instant) {
        if let Some(punch) = self.punches.get_mut(&from) {
            punch.handle_mention(now);
            if !punch.answered_within(STALE_ANSWER, now) {
                punch.hurry(now);
            }
            return;
        }
        if !nat::is_usable(from) || !self.make_room_for_reflexive(now) {
            return;
        }
        let punch = Punch::new(from, CandidateKind::PeerReflexive, now);
        self.punches.insert(from, punch);
    }

    /// Drops the peer-reflexive candidate that has been of no use for longest, if there are too many.
    fn make_room_for_reflexive(&mut self, now: Instant) -> bool {
        let reflexive = |punch: &&Punch| {
            punch.kind == CandidateKind::PeerReflexive && Some(punch.remote) != self.path
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
            .map(|punch| punch.remote);
        oldest.is_some_and(|remote| self.punches.remove(&remote).is_some())
    }

    fn handle_pong(
        &mut self,
        from: SocketAddr,
        (id, observed): (TransactionId, SocketAddr),
        now: Instant,
        out: &mut Outbox,
    ) {
        let Some(punch) = self.punches.get_mut(&from) else {
            return;
        };
        if !punch.handle_answer(&id, now) {
            return;
        }
        self.note_observed(from, observed, out);
        let moved = self.choose_path(from, now);
        let was_up = self.has_path();
        let change = self.liveness.handle_answer(now);
        if moved && was_up {
            let (peer, remote) = (self.id, from);
            out.tell(MeshEvent::PathMoved { peer, remote });
        }
        self.apply(change, now, out);
        self.pace(from, now);
    }

    /// After an answer: the path rests, and an answer that needs a second one gets its chance.
    fn pace(&mut self, from: SocketAddr, now: Instant) {
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

    /// The peer sees this node elsewhere than before, over the same way: our mapping changed.
    fn note_observed(&mut self, via: SocketAddr, observed: SocketAddr, out: &mut Outbox) {
        let before = self.observed.replace((via, observed));
        out.wants_stun |= before.is_some_and(|(old_via, old)| old_via == via && old != observed);
    }

    /// Takes `answered` for the path if that is an improvement; returns whether it did.
    fn choose_path(&mut self, answered: SocketAddr, now: Instant) -> bool {
        let current = self.path.and_then(|path| self.punches.get(&path));
        let better = match (current, self.punches.get(&answered)) {
            (Some(current), Some(_)) if current.remote == answered => false,
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
                let Some(remote) = self.path else { return };
                out.tell(MeshEvent::PathUp { peer, remote });
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

    fn cadence(&self, remote: SocketAddr, now: Instant) -> Cadence {
        match self.liveness.state() {
            State::Suspect => Cadence::Burst,
            State::Up if self.path == Some(remote) => Cadence::Path,
            State::Up if now.saturating_duration_since(self.up_since) >= KEEP_KNOCKING => {
                Cadence::Standby
            }
            State::Up | State::Punching | State::Down => Cadence::Knock,
        }
    }

    fn send_due(&mut self, now: Instant, out: &mut Outbox) {
        if self.path_falters(now) {
            for punch in self.punches.values_mut() {
                punch.hurry(now);
            }
        }
        let due = |punch: &&Punch| punch.is_due(now);
        let remotes: Vec<_> = self
            .punches
            .values()
            .filter(due)
            .map(|p| p.remote)
            .collect();
        for remote in remotes {
            let (id, number) = self.ids.next();
            out.send(remote, self.key.seal(&Probe::Ping { id, number }));
            let cadence = self.cadence(remote, now);
            if let Some(punch) = self.punches.get_mut(&remote) {
                punch.handle_sent(id, cadence, now);
            }
        }
    }

    /// The path is due again and has left pings unanswered: the other candidates are asked with it.
    fn path_falters(&self, now: Instant) -> bool {
        let path = self.path().and_then(|path| self.punches.get(&path));
        path.is_some_and(|path| path.unanswered() >= FALTERING && path.is_due(now))
    }

    /// Forgets addresses that a peer was once seen at and isn't any more.
    fn forget_idle(&mut self, now: Instant) {
        let path = self.path;
        self.punches.retain(|addr, punch| {
            punch.kind != CandidateKind::PeerReflexive
                || path == Some(*addr)
                || punch.idle_for(now) < REFLEXIVE_LIFETIME
        });
    }
}

/// The path leaves pings unanswered for so long that another one that just answered is preferred.
fn is_failing(path: &Punch, now: Instant) -> bool {
    path.unanswered() >= FAILING && !path.answered_within(STALE_ANSWER, now)
}

/// Shorter by a margin, or as short and without a NAT between. Never true both ways round, so paths cannot alternate.
fn is_better(new: &Punch, current: &Punch) -> bool {
    let (Some(new_rtt), Some(current_rtt)) = (new.rtt(), current.rtt()) else {
        return false;
    };
    let is_host = |punch: &Punch| punch.kind == CandidateKind::Host;
    if is_host(new) && !is_host(current) {
        return new_rtt <= current_rtt + HOST_BONUS;
    }
    new_rtt + RTT_MARGIN.max(current_rtt / 4) < current_rtt
}

/// An honest node has a handful of interfaces and three STUN servers.
const MAX_PUBLISHED: usize = 32;
/// A peer behind a dependent NAT shows one address a mapping; more at a time is noise.
const MAX_REFLEXIVE: usize = 8;
/// Two standby rounds without an answer or a ping and then some: the mapping is gone.
const REFLEXIVE_LIFETIME: Duration = Duration::from_secs(30);
/// The path is asked every second while it answers, then four times in the next: it is gone, or the loss is terrible.
const STALE_ANSWER: Duration = Duration::from_secs(2);
/// One lost ping is weather; two are a reason to look for other ways.
const FALTERING: u32 = 2;
/// At 20 % loss each way four unanswered pings in a row are 17 in 1,000; a path is not left for less.
const FAILING: u32 = 4;
/// Whoever stops knocking at its first success may leave the other side without one (`facts`: stopping early failed it).
const KEEP_KNOCKING: Duration = Duration::from_secs(3);
/// Below this, scheduling noise decides.
const RTT_MARGIN: Duration = Duration::from_millis(2);
/// What a path without a NAT may cost more: it has no mapping to lose. Less than [`RTT_MARGIN`].
const HOST_BONUS: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do as the epoch"
    )]
    fn two_paths_are_never_each_better_than_the_other() {
        let now = Instant::now();
        let measured = |kind, rtt: u64| {
            let mut punch = Punch::new("192.0.2.1:1".parse().unwrap(), kind, now);
            punch.handle_sent([0; 12], Cadence::Knock, now);
            assert!(punch.handle_answer(&[0; 12], now + Duration::from_micros(rtt)));
            punch
        };
        let kinds = [CandidateKind::Host, CandidateKind::ServerReflexive];
        for (a, b) in (0..8_000)
            .step_by(250)
            .flat_map(|a| (0..8_000).step_by(250).map(move |b| (a, b)))
        {
            for (kind_a, kind_b) in kinds.into_iter().flat_map(|a| kinds.map(|b| (a, b))) {
                let (a, b) = (measured(kind_a, a), measured(kind_b, b));
                assert!(!(is_better(&a, &b) && is_better(&b, &a)), "{a:?} {b:?}");
            }
        }
    }
}
