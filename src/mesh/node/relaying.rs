//! The node as a relay, and as one who needs relays.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Datagram, Mesh};
use crate::{
    mesh::{
        approach::{Approach, OPENLY_FIRST, by_the_clock},
        datagram::{Kind, classify_datagram},
        obstacle::Obstacle,
        outbox::{MeshEvent, Relayed},
        peer::Peer,
        probe::short_id,
        relay::{self, Relay, RelayHeader},
        route::Route,
    },
    session::{PeerId, Role},
};

/// A peer without a direct path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lacking {
    since: Instant,
    /// Since when nothing has changed that gives new hope for one.
    hoping_since: Instant,
    /// Since when there has been none at all.
    pathless_since: Option<Instant>,
    /// When that was last said.
    said: Option<Instant>,
}

impl Mesh {
    /// Where a datagram for the peer goes first, and what has to be put in front of it.
    pub fn first_hop(&self, peer: PeerId) -> Option<(SocketAddr, Option<RelayHeader>)> {
        match self.path(peer)? {
            Route::Direct(addr) => Some((addr, None)),
            Route::Relayed(relay) => {
                let via = self.peers.get(&relay)?.direct_path()?;
                Some((via, Some(relay::header(&self.own.peer, &peer))))
            }
        }
    }

    /// A datagram that a peer forwarded to us, or that we are asked to forward.
    pub(super) fn handle_frame<'a>(
        &mut self,
        from: SocketAddr,
        bytes: &'a [u8],
        now: Instant,
    ) -> Datagram<'a> {
        let (Some(frame), Some(neighbour)) = (relay::read(bytes), self.neighbour(from, now)) else {
            return Datagram::Unknown;
        };
        if frame.receiver != short_id(&self.own.peer) {
            if frame.sender == short_id(&neighbour)
                && let Some(receiver) = self.peer_by_short_id(frame.receiver)
            {
                self.forward((neighbour, receiver), bytes, now);
            }
            return Datagram::Taken;
        }
        match classify_datagram(frame.payload) {
            Kind::Probe => {
                self.handle_probe((Route::Relayed(neighbour), from), frame.payload, now);
                Datagram::Taken
            }
            Kind::WireGuard => Datagram::WireGuard(frame.payload),
            Kind::Stun | Kind::Relayed | Kind::Unknown => Datagram::Unknown,
        }
    }

    /// Gives what this node itself sends through relays its first hop.
    pub(super) fn forward_own(&mut self) {
        while let Some(Relayed { relay, to, payload }) = self.out.relayed.pop_front() {
            let via = self.peers.get(&relay).and_then(|peer| peer.direct_path());
            // A relay that went away is a probe without an answer.
            if let Some(via) = via {
                let header = relay::header(&self.own.peer, &to);
                self.out.send(via, [&header[..], &payload].concat());
            }
        }
    }

    /// An authenticated probe came this way.
    pub(super) fn note_source(&mut self, route: Route, peer: PeerId) {
        let Route::Direct(addr) = route else { return };
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&addr) {
            let peers = &self.peers;
            self.sources.retain(|_, peer| peers.contains_key(peer));
            if self.sources.len() >= MAX_SOURCES {
                self.sources.pop_first();
            }
        }
        self.sources.insert(addr, peer);
    }

    /// Something changed: looks soon who is to be asked to forward.
    pub(super) fn look_for_relays(&mut self, now: Instant) {
        let soon = now + LOOK_SOON;
        self.next_relays = Some(self.next_relays.map_or(soon, |due| due.min(soon)));
        self.wake_at(self.next_relays);
    }

    /// Asks peers to forward to those that have no direct path, and no others.
    pub(super) fn handle_relays(&mut self, now: Instant) {
        if self.next_relays.is_none_or(|due| due > now) {
            return;
        }
        self.note_lacking(now);
        for (peer, Lacking { since, .. }) in self.lacking.clone() {
            let lacking = now.saturating_duration_since(since);
            let chosen = match lacking >= self.patience(peer) {
                true => relay::choose(self.possible_relays(peer), (self.own.peer, peer), lacking),
                false => Vec::new(),
            };
            self.ask(peer, chosen, now);
        }
        self.set_approaches(now);
        self.say_obstacles(now);
        self.say_stuck(now);
        self.next_relays = (!self.lacking.is_empty()).then(|| now + LOOK);
    }

    /// The peer that is known to be at this address.
    fn neighbour(&self, addr: SocketAddr, now: Instant) -> Option<PeerId> {
        let peer = *self.sources.get(&addr)?;
        let answers = self.peers.get(&peer)?.answers_at(addr, now);
        answers.then_some(peer)
    }

    fn forward(&mut self, (sender, receiver): (PeerId, PeerId), bytes: &[u8], now: Instant) {
        self.note_time(now);
        for needed in [sender, receiver] {
            if let Some(peer) = self.peers.get_mut(&needed) {
                peer.wake(now);
            }
        }
        let to = self
            .peers
            .get(&receiver)
            .and_then(|peer| peer.direct_path());
        if let Some(to) = to {
            self.out.send(to, bytes.to_vec());
        }
        self.wake_for(receiver);
    }

    fn note_lacking(&mut self, now: Instant) {
        let known = std::mem::take(&mut self.lacking);
        for (id, peer) in &mut self.peers {
            if peer.needs_relay(now) {
                let fresh = Lacking {
                    since: now,
                    hoping_since: now,
                    pathless_since: None,
                    said: None,
                };
                let mut lacking = known.get(id).copied().unwrap_or(fresh);
                lacking.pathless_since = match peer.path() {
                    Some(_) => None,
                    None => lacking.pathless_since.or(Some(now)),
                };
                self.lacking.insert(*id, lacking);
            } else {
                peer.set_relays(&BTreeSet::new(), now);
                peer.set_approach(Approach::Openly);
            }
        }
    }

    /// An address or a class is news: what did not work before may work now.
    pub(super) fn note_hope(&mut self, peer: Option<PeerId>, now: Instant) {
        for (id, lacking) in &mut self.lacking {
            if peer.is_none_or(|peer| peer == *id) {
                lacking.hoping_since = now;
            }
        }
    }

    /// A relayed pair whose NATs should not be in the way may be kept apart by what one of them remembers.
    fn set_approaches(&mut self, now: Instant) {
        let unix = Duration::from_millis(self.own.start_ms) + (now - self.born) + self.slept;
        for (id, lacking) in &self.lacking {
            let Some(peer) = self.peers.get_mut(id) else {
                continue;
            };
            let hopeful = !relay::is_hard(self.own.nat, peer.descriptor().nat);
            let relayed = peer.path().and_then(Route::relay).is_some();
            let tried = now.saturating_duration_since(lacking.hoping_since) >= OPENLY_FIRST;
            peer.set_approach(match hopeful && relayed && tried {
                true => by_the_clock(unix),
                false => Approach::Openly,
            });
        }
    }

    fn say_obstacles(&mut self, now: Instant) {
        for (peer, lacking) in self.lacking.clone() {
            let Some(since) = lacking.pathless_since else {
                continue;
            };
            let pathless = now.saturating_duration_since(since);
            let said_lately = |said| now.saturating_duration_since(said) < SAY_AGAIN;
            if pathless < SAY_AFTER || lacking.said.is_some_and(said_lately) {
                continue;
            }
            // One that was reached and went is missed once; what keeps one away that never came may change.
            let had_path = self.peers.get(&peer).is_some_and(|peer| peer.had_path());
            if had_path && lacking.said.is_some_and(|said| said > since) {
                continue;
            }
            let known = self.peers.get(&peer);
            let theirs = known.map(|peer| peer.descriptor().nat);
            let obstacle = Obstacle {
                pathless,
                narrow: known.is_some_and(|peer| peer.is_narrow(now)),
                ours: self.own.nat,
                theirs: theirs.unwrap_or_default(),
                others: self.possible_relays(peer).len(),
            };
            self.out.tell(MeshEvent::Unreachable { peer, obstacle });
            self.lacking.insert(
                peer,
                Lacking {
                    said: Some(now),
                    ..lacking
                },
            );
        }
    }

    /// Says when nobody at all has ever been reachable: after 10 s, then after twice as long each time, up to a limit. A
    /// socket that reached somebody is not the reason when he is silent.
    fn say_stuck(&mut self, now: Instant) {
        let mut links = self.peers.values().filter(|peer| peer.is_for_link());
        let stuck = links.clone().next().is_some() && links.all(|peer| !peer.had_path());
        if !stuck {
            self.stuck = None;
            return;
        }
        let (since, said) = *self.stuck.get_or_insert((now, 0));
        let patience = (SAY_AFTER * 2_u32.saturating_pow(said)).min(SAY_AGAIN);
        if now.saturating_duration_since(since) >= patience {
            self.stuck = Some((now, said + 1));
            self.careful = true;
            self.peers.values_mut().for_each(Peer::set_careful);
            self.out.tell(MeshEvent::Stuck);
        }
    }

    /// A pair that the classes of its NATs give no hope for does not wait for a failure; nor does one that had a path.
    fn patience(&self, peer: PeerId) -> Duration {
        let Some(peer) = self.peers.get(&peer) else {
            return Duration::ZERO;
        };
        let hard = relay::is_hard(self.own.nat, peer.descriptor().nat);
        match hard || peer.had_path() {
            true => Duration::ZERO,
            false => PATIENCE,
        }
    }

    fn possible_relays(&self, between: PeerId) -> Vec<Relay> {
        let workers = self
            .peers
            .iter()
            .filter(|(id, peer)| **id != between && peer.descriptor().role == Role::Worker);
        workers
            .map(|(id, peer)| Relay {
                peer: *id,
                nat: peer.descriptor().nat,
            })
            .collect()
    }

    fn ask(&mut self, peer: PeerId, chosen: Vec<PeerId>, now: Instant) {
        let mut ready = BTreeSet::new();
        let in_use = self.peers.get(&peer).and_then(|peer| peer.path()?.relay());
        for relay in chosen.into_iter().chain(in_use) {
            if let Some(relaying) = self.peers.get_mut(&relay) {
                relaying.wake(now);
                if relaying.direct_path().is_some() {
                    ready.insert(relay);
                }
            }
            self.wake_for(relay);
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.set_relays(&ready, now);
            if let Some(relay) = in_use.filter(|relay| !ready.contains(relay)) {
                peer.handle_relay_lost(relay, now, &mut self.out);
            }
        }
        self.wake_for(peer);
    }
}

/// Who sent from where, for a thousand peers with a few addresses each.
const MAX_SOURCES: usize = 4_096;
/// Direct paths come within a second if they come at all.
const PATIENCE: Duration = Duration::from_secs(1);
/// A hundred links that come up together are one reason to look, not a hundred.
const LOOK_SOON: Duration = Duration::from_millis(20);
/// Everything that works has worked by now (nat.md section 5: a fresh socket after 10 s without success).
const SAY_AFTER: Duration = Duration::from_secs(10);
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// How often the choice is looked at again while somebody has no direct path.
const LOOK: Duration = Duration::from_millis(250);
