//! Which primary a worker serves. Pure.

use crate::{event::LinkState, session::PeerId};

use super::streams::Served;

/// The primaries that are linked, in the order in which they came: the first is served as long as its link lives, and the
/// others wait. Jobs of two primaries would make each believe that it has all the slots.
#[derive(Debug, Default)]
pub(super) struct Primaries(Vec<Served>);

impl Primaries {
    /// A primary's link changed. A suspect one keeps its place: it is provably gone only when its link is down.
    pub(super) fn handle_link(&mut self, peer: PeerId, name: &str, state: LinkState) {
        let known = self.0.iter().position(|primary| primary.peer == peer);
        match (state, known) {
            (LinkState::Up | LinkState::Suspect, None) => self.0.push(Served {
                peer,
                name: name.to_owned(),
            }),
            (LinkState::Up | LinkState::Suspect, Some(_)) | (_, None) => {}
            (LinkState::Punching | LinkState::Handshaking | LinkState::Down, Some(at)) => {
                self.0.remove(at);
            }
        }
    }

    pub(super) fn served(&self) -> Option<Served> {
        self.0.first().cloned()
    }

    pub(super) fn has_other_than(&self, peer: PeerId) -> bool {
        self.0.iter().any(|primary| primary.peer != peer)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_served_until_its_link_is_down_and_then_the_next() {
        let [a, b] = [PeerId([1; 32]), PeerId([2; 32])];
        let mut primaries = Primaries::default();
        let served = |primaries: &Primaries| primaries.served().map(|served| served.name);
        assert_eq!(served(&primaries), None);
        primaries.handle_link(a, "a", LinkState::Up);
        assert!(primaries.has_other_than(b) && !primaries.has_other_than(a));
        primaries.handle_link(b, "b", LinkState::Up);
        assert!(primaries.has_other_than(b) && primaries.has_other_than(a));
        primaries.handle_link(a, "a", LinkState::Suspect);
        assert_eq!(served(&primaries), Some("a".to_owned()));
        primaries.handle_link(a, "a", LinkState::Up);
        assert_eq!(served(&primaries), Some("a".to_owned()));
        primaries.handle_link(a, "a", LinkState::Down);
        assert_eq!(served(&primaries), Some("b".to_owned()));
        primaries.handle_link(a, "a", LinkState::Up);
        assert_eq!(served(&primaries), Some("b".to_owned()));
        primaries.handle_link(b, "b", LinkState::Down);
        primaries.handle_link(a, "a", LinkState::Down);
        assert!(primaries.is_empty());
    }
}
