//! Who the workers are, what they offer, and for which of our compilers each is admitted: pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    admission::{self, CompilerIdentity, Verdict},
    dispatch::WorkerUpdate,
    event::{Admission, Compiler, LinkState, WorkerView},
    mesh::Route,
    session::{NatClass, NodeName, PeerId},
    wire::Offer,
};

/// The workers of a session and the compilers of its primary.
#[derive(Debug, Default)]
pub(super) struct Roster {
    workers: BTreeMap<PeerId, Worker>,
    compilers: BTreeMap<Compiler, CompilerIdentity>,
    /// The last verdict on each worker and compiler that was said: why it was refused, if it was.
    said: BTreeMap<(String, Compiler), Option<String>>,
}

/// What a link told us.
#[derive(Clone, Debug)]
pub(super) struct LinkNews {
    pub(super) peer: PeerId,
    pub(super) name: NodeName,
    pub(super) state: LinkState,
    pub(super) rtt_us: Option<u64>,
    pub(super) route: Option<Route>,
    pub(super) nat: NatClass,
    pub(super) reason: String,
    /// Milliseconds since the session began.
    pub(super) since_start_ms: u64,
}

#[derive(Debug)]
struct Worker {
    name: NodeName,
    state: LinkState,
    offer: Option<Offer>,
    leaving: bool,
    admitted: BTreeMap<Compiler, String>,
    refused: BTreeMap<Compiler, String>,
    /// Compilers that it is still asking its own about.
    undecided: BTreeSet<Compiler>,
    /// It has judged, once since its link came up, all that we had: targets apart, which builds name as they go.
    settled: bool,
    rtt_us: Option<u64>,
    /// The last one, for the report of a link that is down.
    route: Option<Route>,
    nat: NatClass,
    reason: String,
    up_after_ms: Option<u64>,
}

impl Roster {
    /// A link changed; `true` when it has just come up, and so wants a control stream.
    pub(super) fn handle_link(&mut self, news: LinkNews) -> bool {
        if !self.workers.contains_key(&news.peer) {
            // One that was started again has another key: what it was before is its ghost.
            self.workers.retain(|_, worker| worker.name != news.name);
        }
        let worker = self
            .workers
            .entry(news.peer)
            .or_insert_with(|| Worker::new(news.name));
        let was = std::mem::replace(&mut worker.state, news.state);
        worker.rtt_us = news.rtt_us.or(worker.rtt_us);
        worker.route = news.route.or(worker.route);
        worker.nat = news.nat;
        worker.reason = news.reason;
        if news.state == LinkState::Up {
            worker.up_after_ms.get_or_insert(news.since_start_ms);
        }
        if news.state == LinkState::Down {
            // Its streams are gone: it offers again on the next control stream.
            worker.offer = None;
            worker.settled = false;
        }
        news.state == LinkState::Up && !matches!(was, LinkState::Up | LinkState::Suspect)
    }

    /// A worker said what it can do.
    pub(super) fn handle_offer(&mut self, peer: PeerId, offer: Offer) {
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.offer = Some(offer);
            worker.admit(&self.compilers);
        }
    }

    /// A worker serves somebody else.
    pub(super) fn handle_busy(&mut self, peer: PeerId) {
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.offer = None;
            worker.admit(&self.compilers);
        }
    }

    /// A worker takes no more jobs.
    pub(super) fn handle_leaving(&mut self, peer: PeerId) {
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.leaving = true;
        }
    }

    /// A worker's process ended: it is forgotten, a new one has a new key.
    pub(super) fn handle_gone(&mut self, peer: PeerId) {
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.state = LinkState::Down;
            worker.leaving = true;
            worker.offer = None;
        }
    }

    /// One of our own compilers was identified.
    pub(super) fn handle_compiler(&mut self, compiler: Compiler, identity: CompilerIdentity) {
        self.compilers.insert(compiler, identity);
        for worker in self.workers.values_mut() {
            worker.admit(&self.compilers);
        }
    }

    /// One of our own compilers is not what it was.
    pub(super) fn forget_compiler(&mut self, compiler: &Compiler) {
        self.compilers.remove(compiler);
        for worker in self.workers.values_mut() {
            worker.admit(&self.compilers);
        }
    }

    /// What dispatch has to know of one worker.
    pub(super) fn update(&self, peer: PeerId) -> Option<WorkerUpdate> {
        let worker = self.workers.get(&peer)?;
        Some(WorkerUpdate {
            peer,
            name: worker.name.clone(),
            slots: worker.slots(),
            state: worker.state,
            admitted: worker.admitted.clone(),
            refused: worker.refused.clone(),
            undecided: worker.undecided.clone(),
        })
    }

    /// Every worker that was ever linked, or tried to be.
    pub(super) fn peers(&self) -> Vec<PeerId> {
        self.workers.keys().copied().collect()
    }

    /// Admissions and refusals that were not said before.
    pub(super) fn news(&mut self) -> Vec<Admission> {
        let mut news = Vec::new();
        for worker in self.workers.values() {
            let name = worker.name.to_string();
            let admitted = worker.admitted.keys().map(|compiler| (compiler, None));
            let refused = worker
                .refused
                .iter()
                .map(|(compiler, reason)| (compiler, Some(reason.clone())));
            for (compiler, refused) in admitted.chain(refused) {
                let key = (name.clone(), compiler.clone());
                if self.said.insert(key, refused.clone()) != Some(refused.clone()) {
                    news.push(Admission {
                        worker: name.clone(),
                        compiler: compiler.clone(),
                        refused,
                    });
                }
            }
        }
        news
    }

    /// Every refusal that holds.
    pub(super) fn refusals(&self) -> impl Iterator<Item = Admission> {
        self.workers.values().flat_map(|worker| {
            let refused = worker.refused.iter();
            refused.map(|(compiler, reason)| Admission {
                worker: worker.name.to_string(),
                compiler: compiler.clone(),
                refused: Some(reason.clone()),
            })
        })
    }

    /// Workers that can take jobs now. One counts when it has judged all compilers that we know, so that a build that waits for it
    /// finds it able; what it judges afterwards does not take it away again.
    pub(super) fn ready(&mut self) -> u32 {
        let mut ready = 0;
        for worker in self.workers.values_mut() {
            if worker.state == LinkState::Up && worker.slots() > 0 {
                worker.settled |= worker.undecided.iter().all(|open| open.target.is_some());
                ready += u32::from(worker.settled);
            }
        }
        ready
    }

    /// True while a link is not as it should be, so that the rendezvous is worth asking often.
    pub(super) fn wants_news(&self) -> bool {
        self.workers.values().all(|worker| worker.leaving)
            || self
                .workers
                .values()
                .any(|worker| !worker.leaving && worker.state != LinkState::Up)
    }

    /// A worker's label; its key's start if it has never been linked.
    fn name(&self, peer: PeerId) -> String {
        let known = self.workers.get(&peer);
        known.map_or_else(|| peer.to_string(), |worker| worker.name.to_string())
    }

    /// Every worker as status and report show it.
    pub(super) fn views(&self, jobs: impl Fn(&str) -> u64) -> Vec<WorkerView> {
        self.workers
            .values()
            .map(|worker| WorkerView {
                name: worker.name.to_string(),
                slots: worker.offer.as_ref().map_or(0, |offer| offer.slots),
                jobs: jobs(worker.name.as_str()),
                state: worker.state,
                path: worker.route.map(|route| match route {
                    Route::Direct(_) => "direct".to_owned(),
                    Route::Relayed(_) => "relayed".to_owned(),
                }),
                relay: worker
                    .route
                    .and_then(Route::relay)
                    .map(|relay| self.name(relay)),
                nat: Some(worker.nat.to_string()),
                reason: Some(worker.reason.clone()),
                up_after_ms: worker.up_after_ms,
                rtt_us: worker.rtt_us,
            })
            .collect()
    }
}

impl Worker {
    fn new(name: NodeName) -> Self {
        Self {
            name,
            state: LinkState::Punching,
            offer: None,
            leaving: false,
            admitted: BTreeMap::new(),
            refused: BTreeMap::new(),
            undecided: BTreeSet::new(),
            settled: false,
            rtt_us: None,
            route: None,
            nat: NatClass::Unknown,
            reason: String::new(),
            up_after_ms: None,
        }
    }

    fn slots(&self) -> u32 {
        match &self.offer {
            Some(offer) if !self.leaving => offer.slots,
            _ => 0,
        }
    }

    fn admit(&mut self, compilers: &BTreeMap<Compiler, CompilerIdentity>) {
        self.admitted.clear();
        self.refused.clear();
        self.undecided.clear();
        let Some(offer) = &self.offer else { return };
        for (compiler, ours) in compilers {
            match verdict(offer, compiler, ours) {
                Some(Verdict::Admitted { worker_path }) => {
                    self.admitted.insert(compiler.clone(), worker_path);
                }
                Some(Verdict::Refused { reason }) => {
                    self.refused.insert(compiler.clone(), reason);
                }
                None => {
                    self.undecided.insert(compiler.clone());
                }
            }
        }
    }
}

/// `None` while the worker is asking the compiler in question, because it has just heard of ours or its own was replaced.
fn verdict(offer: &Offer, compiler: &Compiler, ours: &CompilerIdentity) -> Option<Verdict> {
    let (verdict, may_follow) = match &compiler.target {
        None => {
            let verdict = admission::admit(ours, &offer.compilers);
            (verdict, offer.looking || offer.more)
        }
        Some(target) => {
            let able = offer.targets.get(target)?;
            let verdict = admission::admit_for_target(ours, able, &offer.compilers);
            (verdict, offer.looking)
        }
    };
    let stands = !may_follow || matches!(verdict, Verdict::Admitted { .. });
    stands.then_some(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gcc(version: &str) -> CompilerIdentity {
        CompilerIdentity {
            path: "/usr/bin/gcc".into(),
            version: version.into(),
            target: "x86_64-linux-gnu".into(),
            fingerprint: version.into(),
            canary: version.into(),
        }
    }

    fn link(state: LinkState) -> LinkNews {
        LinkNews {
            peer: PeerId([1; 32]),
            name: "w1".parse().unwrap(),
            state,
            rtt_us: None,
            route: Some(Route::Direct("192.0.2.1:1".parse().unwrap())),
            nat: NatClass::EndpointIndependent,
            reason: "connected".into(),
            since_start_ms: 5,
        }
    }

    fn offer(version: &str, slots: u32) -> Offer {
        Offer {
            version: "0".into(),
            slots,
            compilers: vec![gcc(version)],
            targets: BTreeMap::new(),
            looking: false,
            more: false,
        }
    }

    #[test]
    fn a_link_that_comes_up_wants_a_control_stream_once() {
        let mut roster = Roster::default();
        assert!(!roster.handle_link(link(LinkState::Punching)));
        assert!(roster.handle_link(link(LinkState::Up)));
        assert!(!roster.handle_link(link(LinkState::Suspect)));
        assert!(
            !roster.handle_link(link(LinkState::Up)),
            "its streams outlived the suspicion"
        );
        assert!(!roster.handle_link(link(LinkState::Down)));
        assert!(
            roster.handle_link(link(LinkState::Up)),
            "the old stream died with the link"
        );
    }

    #[test]
    fn a_worker_is_admitted_whichever_of_offer_and_compiler_comes_first() {
        for compiler_first in [false, true] {
            let mut roster = Roster::default();
            roster.handle_link(link(LinkState::Up));
            if compiler_first {
                roster.handle_compiler("/usr/bin/gcc".into(), gcc("12"));
            }
            roster.handle_offer(PeerId([1; 32]), offer("12", 4));
            roster.handle_compiler("/usr/bin/gcc".into(), gcc("12"));
            let update = roster.update(PeerId([1; 32])).unwrap();
            assert_eq!(update.slots, 4);
            assert!(
                update.admitted.contains_key(&"/usr/bin/gcc".into()),
                "{compiler_first}"
            );
        }
    }

    #[test]
    fn another_version_is_refused_and_said_once() {
        let mut roster = Roster::default();
        roster.handle_link(link(LinkState::Up));
        roster.handle_compiler("/usr/bin/gcc".into(), gcc("12"));
        roster.handle_offer(PeerId([1; 32]), offer("13", 4));
        let news = roster.news();
        assert!(
            news.iter().any(|admission| admission.refused.is_some()),
            "{news:?}"
        );
        assert!(roster.news().is_empty());
        assert!(roster.refusals().eq(news), "a later build is told so too");
    }

    #[test]
    fn a_target_is_judged_when_the_worker_has_answered_for_it_and_not_by_the_default() {
        let mut roster = Roster::default();
        let peer = PeerId([1; 32]);
        let named = Compiler::from("/usr/bin/clang --target=arm");
        let clang = |target: &str| CompilerIdentity {
            path: "/usr/bin/clang".into(),
            version: "clang version 14.0.6".into(),
            target: target.into(),
            ..gcc("14")
        };
        roster.handle_link(link(LinkState::Up));
        roster.handle_compiler(named.clone(), clang("arm"));
        let before = Offer {
            compilers: vec![clang("arm")],
            ..offer("14", 1)
        };
        roster.handle_offer(peer, before.clone());
        let update = roster.update(peer).unwrap();
        assert!(update.admitted.is_empty() && update.refused.is_empty());
        for (able, admitted) in [(vec![], false), (vec![clang("arm")], true)] {
            let offer = Offer {
                targets: BTreeMap::from([("arm".to_owned(), able)]),
                ..before.clone()
            };
            roster.handle_offer(peer, offer);
            let update = roster.update(peer).unwrap();
            assert_eq!(update.admitted.contains_key(&named), admitted);
            assert_eq!(update.refused.contains_key(&named), !admitted);
        }
    }

    #[test]
    fn a_worker_that_has_not_asked_all_its_compilers_is_refused_when_it_has() {
        let mut roster = Roster::default();
        let peer = PeerId([1; 32]);
        roster.handle_link(link(LinkState::Up));
        for version in ["12", "13"] {
            let ours = Compiler::from(format!("/usr/bin/gcc-{version}").as_str());
            roster.handle_compiler(ours, gcc(version));
        }
        for (more, refused) in [(true, 0), (false, 1)] {
            let offer = Offer {
                more,
                ..offer("12", 4)
            };
            roster.handle_offer(peer, offer);
            let update = roster.update(peer).unwrap();
            assert_eq!(update.admitted.len(), 1);
            assert_eq!(update.refused.len(), refused);
            assert_eq!(update.undecided.len(), 1 - refused);
            assert_eq!(
                roster.ready(),
                refused as u32,
                "not before it has judged all"
            );
        }
        roster.handle_compiler("/usr/bin/clang".into(), gcc("14"));
        let more = Offer {
            more: true,
            ..offer("12", 4)
        };
        roster.handle_offer(peer, more);
        assert_eq!(roster.update(peer).unwrap().undecided.len(), 2);
        assert_eq!(
            roster.ready(),
            1,
            "one that is asked later takes nobody away"
        );
    }

    #[test]
    fn a_compiler_that_is_replaced_is_withdrawn_silently_and_judged_when_it_was_asked() {
        let mut roster = Roster::default();
        let peer = PeerId([1; 32]);
        roster.handle_link(link(LinkState::Up));
        roster.handle_compiler("/usr/bin/gcc".into(), gcc("12"));
        roster.handle_offer(peer, offer("12", 4));
        assert_eq!(roster.news().len(), 1);
        let looking = Offer {
            compilers: Vec::new(),
            looking: true,
            ..offer("12", 4)
        };
        roster.handle_offer(peer, looking);
        let update = roster.update(peer).unwrap();
        assert!(update.admitted.is_empty() && update.refused.is_empty());
        assert_eq!(roster.news(), []);
        roster.handle_offer(peer, offer("13", 4));
        assert_eq!(roster.update(peer).unwrap().refused.len(), 1);
        assert!(roster.news()[0].refused.is_some());
        roster.handle_offer(peer, offer("12", 4));
        assert_eq!(roster.news()[0].refused, None, "it was put back");
    }

    #[test]
    fn a_worker_that_was_started_again_replaces_its_ghost() {
        let mut roster = Roster::default();
        roster.handle_link(link(LinkState::Down));
        assert!(roster.wants_news());
        roster.handle_link(LinkNews {
            peer: PeerId([2; 32]),
            ..link(LinkState::Up)
        });
        assert_eq!(roster.peers(), [PeerId([2; 32])]);
        assert!(!roster.wants_news());
    }

    #[test]
    fn a_leaving_worker_offers_nothing() {
        let mut roster = Roster::default();
        roster.handle_link(link(LinkState::Up));
        roster.handle_offer(PeerId([1; 32]), offer("12", 4));
        assert_eq!(roster.ready(), 1);
        roster.handle_leaving(PeerId([1; 32]));
        assert_eq!(roster.update(PeerId([1; 32])).unwrap().slots, 0);
        assert_eq!(roster.ready(), 0);
    }
}
