//! Which of a peer's candidates are pinged, how often, and how far the pings may get.

use std::time::{Duration, Instant};

use super::{Peer, names};
use crate::mesh::{
    approach::Approach,
    liveness::State,
    outbox::Outbox,
    probe::{Probe, Size},
    punch::{Cadence, Punch},
    route::Route,
};

impl Peer {
    fn cadence(&self, route: Route, now: Instant) -> Cadence {
        let is_relayed = self.path.is_some_and(|path| path.relay().is_some());
        match self.liveness.state() {
            State::Suspect => Cadence::Burst,
            State::Up if self.path == Some(route) => Cadence::Path,
            // A direct path is worth a packet a second and address that the peer names.
            State::Up if is_relayed && self.is_published(route) => Cadence::Knock,
            State::Up if now.saturating_duration_since(self.up_since) >= KEEP_KNOCKING => {
                Cadence::Standby
            }
            State::Up | State::Punching | State::Down => Cadence::Knock,
        }
    }

    fn is_published(&self, route: Route) -> bool {
        names(&self.descriptor.candidates, route)
    }

    /// `company`: something else is sent at this moment anyhow.
    pub(super) fn send_due(&mut self, now: Instant, company: bool, out: &mut Outbox) {
        if self.path_falters(now) {
            for punch in self.punches.values_mut() {
                punch.hurry(now);
            }
        }
        let due = |punch: &&Punch| punch.is_due(now) || company && punch.may_join(now);
        let routes: Vec<_> = self.punches.values().filter(due).map(|p| p.route).collect();
        for route in routes {
            let approach = self.approach_to(route, now);
            if approach == Approach::Aside {
                self.punches
                    .get_mut(&route)
                    .into_iter()
                    .for_each(|punch| punch.put_off(now));
                continue;
            }
            let (id, number) = self.ids.next();
            let asks = self.is_for_link() || now < self.needed_until;
            let size = self.punches.get(&route).map_or(Size::Full, Punch::size);
            let ping = self.key.seal(&Probe::Ping { id, number, asks }, size);
            match route {
                Route::Direct(addr) if approach == Approach::Near => out.send_near(addr, ping),
                Route::Direct(_) | Route::Relayed(_) => out.send_by(route, self.id, ping),
            }
            let cadence = self.cadence(route, now);
            if let Some(punch) = self.punches.get_mut(&route) {
                punch.handle_sent((id, size), cadence, now);
            }
        }
    }

    fn approach_to(&self, route: Route, now: Instant) -> Approach {
        let near = self
            .punches
            .get(&route)
            .is_some_and(|punch| punch.is_near(now));
        match route {
            Route::Relayed(_) => Approach::Openly,
            Route::Direct(_) if self.path == Some(route) => Approach::Openly,
            Route::Direct(_) if near => Approach::Near,
            Route::Direct(_) => self.approach,
        }
    }

    /// The path is due again and has left pings unanswered: the other candidates are asked with it.
    fn path_falters(&self, now: Instant) -> bool {
        let falters = |path: &Punch| path.unanswered() >= FALTERING && path.is_due(now);
        self.path_punch().is_some_and(falters)
    }
}

/// One lost ping is weather; two are a reason to look for other ways.
const FALTERING: u32 = 2;
/// Whoever stops knocking at its first success may leave the other side without one (`facts`: stopping early failed it).
const KEEP_KNOCKING: Duration = Duration::from_secs(3);
