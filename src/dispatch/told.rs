//! What a build is told of the workers and of its jobs: the news since it was told last.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::state::{State, WorkerUpdate};
use crate::{
    distcc::HostLine,
    event::{BuildUpdate, Compiler, Event, LinkState, Load, WorkerView},
    session::PeerId,
};

/// What a build was told last, or should be told now, apart from its job records.
#[derive(Default)]
pub(super) struct Snapshot {
    hosts: Option<Vec<String>>,
    admitted: Option<BTreeSet<Compiler>>,
    refused: BTreeMap<Compiler, String>,
    load: Option<Load>,
    /// Which state of the workers this is.
    workers_seen: Option<u64>,
    workers: Vec<WorkerView>,
    negligible: BTreeSet<PeerId>,
}

impl State {
    /// What changed for this build since `last`, and its job records.
    pub(super) fn updates(
        &mut self,
        id: u64,
        last: &mut Snapshot,
        now: Instant,
        at_ns: u64,
    ) -> Vec<BuildUpdate> {
        let mut updates = Vec::new();
        // Most news is of jobs: what workers are and can is compared only when one has changed.
        if last.workers_seen != Some(self.workers_changed) {
            last.workers_seen = Some(self.workers_changed);
            updates = self.worker_updates(id, last);
        }
        let negligible = self.negligible();
        let new = negligible.difference(&last.negligible);
        updates.extend(new.map(|peer| BuildUpdate::Event(self.say_negligible(*peer))));
        last.negligible.extend(negligible);
        let records = self
            .builds
            .get_mut(&id)
            .map(|build| std::mem::take(&mut build.records));
        updates.extend(records.into_iter().flatten().map(BuildUpdate::Job));
        let load = self.load(id, now);
        let asked = self.builds.get_mut(&id);
        let asked = asked.is_some_and(|build| std::mem::take(&mut build.load_asked));
        if asked || last.load != Some(load) {
            updates.push(BuildUpdate::Load { load, at_ns });
            last.load = Some(load);
        }
        updates
    }

    fn worker_updates(&self, id: u64, last: &mut Snapshot) -> Vec<BuildUpdate> {
        let mut updates = Vec::new();
        let hosts = Some(self.host_lines(id));
        if hosts != last.hosts {
            let queue = self.builds.get(&id).map_or(0, |build| build.queue);
            let lines = hosts.clone();
            updates.extend(lines.map(|lines| BuildUpdate::Hosts { lines, queue }));
            last.hosts = hosts;
        }
        let admitted = Some(self.admitted());
        if admitted != last.admitted {
            let compilers = admitted.clone();
            updates.extend(compilers.map(|compilers| BuildUpdate::Admitted { compilers }));
            last.admitted = admitted;
        }
        let refused = self.refused();
        let new = refused
            .iter()
            .filter(|(compiler, reason)| last.refused.get(*compiler) != Some(reason));
        updates.extend(new.map(|(compiler, reason)| BuildUpdate::Refused {
            compiler: compiler.clone(),
            reason: reason.clone(),
        }));
        last.refused = refused;
        let views = self.worker_views();
        let new = views.iter().filter(|view| !last.workers.contains(view));
        updates.extend(new.cloned().map(BuildUpdate::Worker));
        last.workers = views;
        updates
    }

    fn negligible(&self) -> BTreeSet<PeerId> {
        let known = self.workers.keys().copied();
        known
            .filter(|peer| self.scheduler.is_negligible(*peer))
            .collect()
    }

    fn say_negligible(&self, peer: PeerId) -> Event {
        let name = self.worker_name(peer).unwrap_or_default();
        Event::Incident {
            text: format!(
                "{name} is worth less than a quarter of a core of this machine, by its speed or its link's: it gets a job now and then"
            ),
        }
    }

    fn live(&self) -> impl Iterator<Item = &WorkerUpdate> {
        self.workers
            .values()
            .filter(|worker| worker.state == LinkState::Up)
    }

    /// Those that are silent for a moment too: most come back, and their compilers stay distributable meanwhile.
    fn known(&self) -> impl Iterator<Item = &WorkerUpdate> {
        self.workers
            .values()
            .filter(|worker| matches!(worker.state, LinkState::Up | LinkState::Suspect))
    }

    /// Most slots first: distcc fills hosts in order. A suspect worker keeps its line, so that a hiccup does not rewrite
    /// the file; down takes it out.
    fn host_lines(&self, build: u64) -> Vec<String> {
        let Some(build) = self.builds.get(&build) else {
            return Vec::new();
        };
        let mut shown: Vec<&WorkerUpdate> = self
            .known()
            .filter(|worker| worker.slots > 0 && !worker.admitted.is_empty())
            .collect();
        shown.sort_by_key(|worker| (std::cmp::Reverse(worker.slots), worker.peer));
        let line = |worker: &&WorkerUpdate| {
            let port = *build.ports.get(&worker.name)?;
            let line = HostLine {
                port,
                slots: worker.slots,
                lzo: true,
                cpp: false,
            };
            Some(line.to_string())
        };
        shown.iter().filter_map(line).collect()
    }

    fn admitted(&self) -> BTreeSet<Compiler> {
        self.known()
            .flat_map(|worker| worker.admitted.keys().cloned())
            .collect()
    }

    /// Compilers that some live worker refuses and none takes or may yet take.
    fn refused(&self) -> BTreeMap<Compiler, String> {
        let undecided = self.live().flat_map(|worker| worker.undecided.iter());
        let mut taken = self.admitted();
        taken.extend(undecided.cloned());
        let mut refused: BTreeMap<&Compiler, BTreeMap<&String, Vec<String>>> = BTreeMap::new();
        for worker in self.live() {
            for (compiler, reason) in &worker.refused {
                let reasons = refused.entry(compiler).or_default();
                reasons
                    .entry(reason)
                    .or_default()
                    .push(worker.name.to_string());
            }
        }
        refused.retain(|compiler, _| !taken.contains(*compiler));
        let in_words = |reasons: BTreeMap<&String, Vec<String>>| {
            let each = reasons
                .into_iter()
                .map(|(reason, names)| format!("{}: {reason}", names.join(", ")));
            each.collect::<Vec<_>>().join("; ")
        };
        refused
            .into_iter()
            .map(|(compiler, reasons)| (compiler.clone(), in_words(reasons)))
            .collect()
    }

    /// The build's load, for a build that asks. What it is told next has a load again, for it may be that of before.
    pub(super) fn load_now(&mut self, build: u64, now: Instant) -> Option<Load> {
        self.builds.get_mut(&build)?.load_asked = true;
        Some(self.load(build, now))
    }

    fn load(&self, build: u64, now: Instant) -> Load {
        let ours = || self.jobs.iter().filter(|(_, job)| job.build == build);
        Load {
            capacity: self.scheduler.capacity(now),
            in_dispatch: ours().count() as u32,
            stranded: ours()
                .filter(|(id, _)| self.scheduler.is_stranded(**id))
                .count() as u32,
        }
    }
}
