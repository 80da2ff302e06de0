//! Which of two ways to a peer is the better one.

use std::time::{Duration, Instant};

use super::punch::Punch;
use crate::session::CandidateKind;

/// The path leaves pings unanswered for so long that another one that just answered is preferred.
pub(super) fn is_failing(path: &Punch, now: Instant) -> bool {
    path.unanswered() >= FAILING && !path.answered_within(STALE_ANSWER, now)
}

/// Direct instead of relayed, or shorter by a margin, or as short and without a NAT between. Never true both ways round, so
/// paths cannot alternate.
pub(super) fn is_better(new: &Punch, current: &Punch) -> bool {
    let (Some(new_rtt), Some(current_rtt)) = (new.rtt(), current.rtt()) else {
        return false;
    };
    let is_relayed = |punch: &Punch| punch.route.relay().is_some();
    if is_relayed(new) != is_relayed(current) {
        return is_relayed(current);
    }
    let is_host = |punch: &Punch| punch.kind == CandidateKind::Host;
    if is_host(new) && !is_host(current) {
        return new_rtt <= current_rtt + HOST_BONUS;
    }
    new_rtt + RTT_MARGIN.max(current_rtt / 4) < current_rtt
}

/// The path is asked every second while it answers, then four times in the next: it is gone, or the loss is terrible.
pub(super) const STALE_ANSWER: Duration = Duration::from_secs(2);
/// At 20 % loss each way four unanswered pings in a row are 17 in 1,000; a path is not left for less.
const FAILING: u32 = 4;
/// Below this, scheduling noise decides.
const RTT_MARGIN: Duration = Duration::from_millis(2);
/// What a path without a NAT may cost more: it has no mapping to lose. Less than [`RTT_MARGIN`].
const HOST_BONUS: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mesh::{probe::Size, punch::Cadence, route::Route},
        session::PeerId,
    };

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do as the epoch"
    )]
    fn two_paths_are_never_each_better_than_the_other() {
        let now = Instant::now();
        let measured = |kind, rtt: u64| {
            let route = match kind {
                CandidateKind::Relayed => Route::Relayed(PeerId([1; 32])),
                CandidateKind::Host
                | CandidateKind::ServerReflexive
                | CandidateKind::PeerReflexive => Route::Direct("192.0.2.1:1".parse().unwrap()),
            };
            let mut punch = Punch::new(route, kind, now);
            punch.handle_sent(([0; 12], Size::Full), Cadence::Knock, now);
            let then = now + Duration::from_micros(rtt);
            punch.handle_answer((&[0; 12], Size::Full), then);
            assert!(punch.rtt().is_some());
            punch
        };
        let kinds = [
            CandidateKind::Host,
            CandidateKind::ServerReflexive,
            CandidateKind::Relayed,
        ];
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
