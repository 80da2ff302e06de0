//! How far a probe may travel.
//!
//! A NAT that remembers unsolicited packets to itself (a null binding: nat.md, section 1) gives the inside host another port
//! towards their sender, and a strict filter on the other side then never lets it in. Whoever knocks first spoils it, so the
//! two have to open their own NATs before either is heard: with probes that die on the way. What was spoilt before has to be
//! forgotten first, by silence or by a fresh socket.

use std::time::Duration;

/// How a peer's own addresses are approached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Approach {
    /// Probes go all the way.
    #[default]
    Openly,
    /// They open the own NAT and die before the other.
    Near,
    /// None are sent.
    Aside,
}

/// What two nodes do that ought to have a direct path and are relayed: the same at the same time, by the wall clock.
pub(super) fn by_the_clock(unix: Duration) -> Approach {
    match unix.as_secs() % 60 {
        // conntrack forgets an unanswered flow after 30 s.
        0..=37 => Approach::Aside,
        // Longer than clocks on a network differ.
        38..=43 => Approach::Near,
        _ => Approach::Openly,
    }
}

/// Enough for the own NAT, and a provider's behind it; few peers' NATs are as close.
pub(super) const NEAR_TTL: u8 = 4;
/// After a fresh socket the two hear of each other this far apart at most, or try again.
pub(super) const NEAR_FIRST: Duration = Duration::from_secs(5);
/// A direct path that has not come by now needs help.
pub(super) const OPENLY_FIRST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_silence_enough_to_forget_and_knocks_enough_to_try() {
        let all: Vec<_> = (0..60)
            .map(|s| by_the_clock(Duration::from_secs(s)))
            .collect();
        let count = |wanted| all.iter().filter(|approach| **approach == wanted).count();
        assert!(
            count(Approach::Aside) > 30
                && count(Approach::Near) > 4
                && count(Approach::Openly) > 10
        );
    }
}
