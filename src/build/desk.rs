//! What the session does while the command runs: one handler per thing that happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::bell::Bell;
use super::broker::{Holder, Limits, Returns, ahead, counted_here, here, room, surely_here};
use super::home::{Home, Idle, Moment, Permit, Sent};
use super::hosts::Hosts;
use super::kept::Kept;
use super::layout::State;
use super::makes::Makes;
use super::outcome::Tally;
use super::pace::Outlook;
use super::permits::Permits;
use super::processes::Processes;
use super::record::Said;
use super::{BuildNews, BuildOptions};
use crate::event::{
    BuildFeedback, BuildUpdate, CompileSeen, Compiler, JobOutcome, JobRecord, LinkState, Load,
    Route,
};
use crate::machine::memory::{affordable, available_kib};

/// Memory does not vanish faster than compilers allocate it.
const MEMORY_EVERY: Duration = Duration::from_secs(1);
/// Looking at all processes takes milliseconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Stranded jobs and no token to count by: quick, for machines stand idle.
const LOOK_WHEN_STRANDED: Duration = Duration::from_millis(250);
/// Means change slowly.
const TELL_PACE_EVERY: Duration = Duration::from_secs(2);
/// Together with the 3 s that made it suspect, what a wiped mapping takes to be replaced.
const COME_BACK: Duration = Duration::from_millis(1500);
/// Jobs that were handed back show in the next load. If none comes, the jobs had just ended.
const LOAD_DUE: Duration = Duration::from_secs(1);

pub(super) struct Desk {
    pub(super) options: BuildOptions,
    pub(super) hosts: Hosts,
    pub(super) tally: Tally,
    state: State,
    written: Option<State>,
    makes: Makes,
    bell: Bell,
    returns: Returns,
    load: Load,
    /// The local limit that memory allows.
    limit: u32,
    memory_seen: Option<Instant>,
    looked_here: Option<Instant>,
    looked_idle: Option<Instant>,
    told_pace: Option<Instant>,
    told_stays: bool,
    handed: Option<(Instant, u32)>,
    root: u32,
    /// Workers that are suspect, and since when.
    silent: BTreeMap<String, Instant>,
    home: Home,
    kept: Kept,
    permits: Permits,
    idle: Idle,
    known: BTreeSet<Compiler>,
    noticed: BTreeSet<String>,
    refused: BTreeSet<Compiler>,
    /// What dispatch has not yet taken.
    outbox: VecDeque<BuildFeedback>,
    feedback: mpsc::Sender<BuildFeedback>,
    news: mpsc::UnboundedSender<BuildNews>,
}

/// The two ways out.
pub(super) struct Outlets {
    pub(super) feedback: mpsc::Sender<BuildFeedback>,
    pub(super) news: mpsc::UnboundedSender<BuildNews>,
}

impl Desk {
    pub(super) fn open(options: BuildOptions, state: State, outlets: Outlets) -> io::Result<Self> {
        let mut desk = Self {
            hosts: Hosts::create(&options.dir, state.local)?,
            tally: Tally::default(),
            written: None,
            makes: Makes::default(),
            bell: Bell::default(),
            returns: Returns::default(),
            load: Load::default(),
            limit: state.local,
            state,
            memory_seen: None,
            looked_here: None,
            looked_idle: None,
            told_pace: None,
            told_stays: false,
            handed: None,
            root: 0,
            silent: BTreeMap::new(),
            home: Home::default(),
            kept: Kept::default(),
            permits: Permits::open(&options.dir)?,
            idle: Idle::default(),
            known: BTreeSet::new(),
            noticed: BTreeSet::new(),
            refused: BTreeSet::new(),
            outbox: VecDeque::new(),
            feedback: outlets.feedback,
            news: outlets.news,
            options,
        };
        desk.write_state()?;
        Ok(desk)
    }

    /// The command runs, as this process.
    pub(super) fn handle_start(&mut self, root: u32) {
        self.root = root;
    }

    pub(super) fn handle_said(&mut self, said: Said, now: Instant) {
        match said {
            Said::Compile(seen) => {
                self.tally.handle_compile(&seen);
                self.note_compile(seen, now);
            }
            Said::CacheMissed(seen) => {
                self.tally.handle_cache_missed(&seen);
                self.note_compile(seen, now);
            }
            Said::Kept {
                pid,
                permit,
                source_bytes,
            } => {
                self.kept.handle_begin(pid, permit, source_bytes, now);
                self.home.handle_kept(permit);
            }
            Said::AskedCache { compiler } => {
                self.tally.handle_asked_cache();
                self.note_compiler(compiler);
            }
            Said::Make(began) => self.makes.handle_begin(began, Some(&self.bell)),
            Said::Notice(text) => self.notice(text),
            Said::Blind(text) => {
                self.tally.blind.insert(text.clone());
                self.notice(text);
            }
        }
    }

    fn note_compile(&mut self, seen: CompileSeen, now: Instant) {
        if seen.route == Route::Distcc {
            self.home.handle_sent(seen.source_bytes, now);
            if let (Some(source), Some(bytes)) = (&seen.source, seen.source_bytes) {
                let source = source.clone();
                self.outbox
                    .push_back(BuildFeedback::Sending { source, bytes });
            }
        }
        self.note_compiler(seen.compiler.clone());
        // Before the job itself is there.
        self.flush();
        self.tell(BuildNews::Seen(seen));
    }

    fn note_compiler(&mut self, compiler: Compiler) {
        if self.known.insert(compiler.clone()) {
            self.outbox
                .push_back(BuildFeedback::CompilerSeen { compiler });
        }
    }

    /// Something a person should know, once.
    pub(super) fn notice(&mut self, text: String) {
        if self.noticed.insert(text.clone()) {
            self.tell(BuildNews::Notice(text));
        }
    }

    fn tell(&self, news: BuildNews) {
        // Nobody may be interested.
        let _ = self.news.send(news);
    }

    pub(super) fn handle_update(&mut self, update: BuildUpdate, now: Instant) -> io::Result<()> {
        match update {
            BuildUpdate::Hosts { lines, queue } => self.hosts.set_lines(lines, queue)?,
            BuildUpdate::Admitted { compilers } => {
                self.state.compilers = compilers;
                self.write_state()?;
            }
            BuildUpdate::Refused { compiler, reason } => {
                // Once: with every worker that comes the reason grows, and the summary has the last.
                if self.refused.insert(compiler.clone()) {
                    self.notice(format!("{compiler} is not distributed: {reason}"));
                }
                self.tell(BuildNews::Refused { compiler, reason });
            }
            BuildUpdate::Load { load, at_ns } => self.take_load(load, at_ns)?,
            BuildUpdate::Job(job) => self.take_job(job),
            BuildUpdate::Worker(worker) => {
                match worker.state {
                    LinkState::Suspect => {
                        self.silent.entry(worker.name.clone()).or_insert(now);
                    }
                    LinkState::Punching
                    | LinkState::Handshaking
                    | LinkState::Up
                    | LinkState::Down => {
                        self.silent.remove(&worker.name);
                    }
                }
                self.tell(BuildNews::Worker(worker));
            }
            BuildUpdate::Event(_) => {}
        }
        Ok(())
    }

    fn take_job(&mut self, job: JobRecord) {
        if job.outcome == JobOutcome::Compiled {
            self.home.handle_answered(Sent {
                prepared: job.prepared,
                ran: job.ran,
            });
        }
        self.tally.jobs.push(job.clone());
        self.tell(BuildNews::Job(job));
    }

    fn take_load(&mut self, load: Load, at_ns: u64) -> io::Result<()> {
        self.returns.handle_load(at_ns);
        // One that was asked for tells nothing of them.
        if load != self.load {
            self.handed = None;
        }
        self.load = load;
        self.state.capacity = load.capacity;
        self.state.spare_at_most = self.home.spare_at_most(self.state.spare_at_most);
        let away = load.capacity.saturating_add(ahead(load.capacity));
        self.hosts
            .set_ceiling(self.state.local.saturating_add(away))?;
        self.write_state()
    }

    fn write_state(&mut self) -> io::Result<()> {
        if self.written.as_ref() != Some(&self.state) {
            self.state.write(&self.options.dir)?;
            self.written = Some(self.state.clone());
        }
        Ok(())
    }

    /// Whether a compile is to give way to whatever begins.
    pub(super) fn holds_spare(&self) -> bool {
        self.kept.count(Permit::Spare) > 0
    }

    /// A token came back.
    pub(super) async fn returned(&self) {
        self.bell.rung().await;
    }

    /// Moves tokens, hands jobs back, looks around.
    pub(super) fn handle_tick(&mut self, now: Instant) -> Outlook {
        self.makes.reap();
        let holders = self.makes.settle();
        let (tokens, by_ns) = self.makes.take_returned();
        self.returns.handle_returned(tokens, by_ns);
        if is_due(&mut self.memory_seen, now, MEMORY_EVERY) {
            let running = here(&holders, self.load());
            self.limit = affordable(self.state.local, running, available_kib());
        }
        self.hand_back(&holders, now);
        self.call_back(&holders, now);
        self.offer_home(&holders, now);
        let room = self.room(&holders);
        self.makes.deal(&holders, room);
        self.makes.find_lost(&holders, now);
        self.flush();
        match holders.len() {
            _ if self.home.is_settling() => Outlook::Changing,
            0 | 1 => Outlook::Still,
            _ => Outlook::Shared,
        }
    }

    /// The load as far as it is certain.
    fn load(&self) -> Load {
        self.returns.lower(self.load)
    }

    /// How many more jobs may start. Asks for the load where it is not certain and more may be possible: to start, or to bring home.
    fn room(&mut self, holders: &[Holder]) -> u32 {
        let certain = self.load();
        let room_now = room(holders, self.limits(certain));
        let idle = holders.iter().any(|holder| holder.unread > 0);
        let matters = || room_now < room(holders, self.limits(self.load));
        if certain != self.load
            && (idle || self.load.stranded > 0 || matters())
            && self.returns.asks()
        {
            self.outbox.push_back(BuildFeedback::AskLoad);
        }
        room_now
    }

    fn limits(&self, mut load: Load) -> Limits {
        // Jobs just handed back run here, but the load does not show it yet.
        let coming = self.handed.map_or(0, |(_, jobs)| jobs);
        if self.home.stays() {
            // What is out is out; nothing more is to go.
            load.capacity = load.capacity.min(load.in_dispatch);
        }
        // What waits takes memory, too.
        let ahead = match self.limit < self.state.local || self.home.stays() {
            true => 0,
            false => ahead(load.capacity),
        };
        Limits {
            local: self.limit.saturating_sub(coming),
            load,
            ahead,
            spare: self.kept.count(Permit::Spare),
            offered: self.permits.spare(),
            ready: self.permits.ready(),
        }
    }

    /// Lays out permits to compile here.
    fn offer_home(&mut self, holders: &[Holder], now: Instant) {
        for (permit, took, source_bytes) in self.kept.reap(now) {
            self.home.handle_compiled(permit, took, source_bytes);
            if permit == Permit::Spare {
                self.tally.spare += took;
            }
        }
        if !self.options.adapt {
            return;
        }
        let moment = self.moment(holders, now);
        self.kept
            .let_rest(moment.here + moment.spare > moment.local, now);
        self.permits.offer(self.home.offer(&moment));
        let stays = self.home.stays();
        if std::mem::replace(&mut self.told_stays, stays) != stays {
            self.tell_verdict();
        }
    }

    fn moment(&self, holders: &[Holder], now: Instant) -> Moment {
        let spare = self.kept.count(Permit::Spare);
        let here = match holders {
            // ninja has no tokens but as many jobs as there is room for everywhere.
            [] => {
                let all = self.state.local.saturating_add(self.load().capacity);
                all.saturating_sub(self.load().in_dispatch)
            }
            _ => counted_here(holders, self.load(), self.limit),
        };
        Moment {
            now,
            local: self.limit,
            here: here.saturating_sub(spare),
            spare,
            kept: self.kept.count(Permit::Ordinary),
            load: self.load(),
        }
    }

    fn tell_verdict(&self) {
        let text = match self.home.verdict() {
            Some((sending, compiling)) => format!(
                "sending a compile costs this machine {} ms and compiling it {} ms: compiles stay here, but for one now and then",
                sending.as_millis(),
                compiling.as_millis()
            ),
            None => "sending a compile is the cheaper way again".to_owned(),
        };
        self.tell(BuildNews::Incident(text));
    }

    /// Jobs come home when there is nothing else to do.
    fn call_back(&mut self, holders: &[Holder], now: Instant) {
        if !self.options.adapt || self.may_come_back(now) {
            return;
        }
        if self.load().in_dispatch == 0 {
            self.idle.handle_wanted();
            return;
        }
        let room = self.unwanted_room(holders, now);
        let jobs = room.map_or(0, |room| self.idle.handle_tick(room, now));
        // Dispatch weighs its workers against this machine, idle or not.
        let known = self.home.compile_time();
        if jobs > 0 || known.is_some() && is_due(&mut self.told_pace, now, TELL_PACE_EVERY) {
            let compile_ms = known.map(|time| time.as_millis() as u64);
            self.outbox
                .push_back(BuildFeedback::Idle { jobs, compile_ms });
        }
    }

    /// Room here that nobody asks for: a make that leaves tokens unread has nothing to start. One that has no token to read may
    /// have used them up for jobs that wait for a worker. `None` where something may want to start, and before the next look.
    fn unwanted_room(&mut self, holders: &[Holder], now: Instant) -> Option<u32> {
        if !holders.is_empty() {
            let room = self.limit.saturating_sub(surely_here(holders, self.load()));
            let asks = holders.iter().all(|holder| holder.unread == 0);
            let waits = self.load().in_dispatch > self.load().capacity;
            if asks && (room == 0 || !waits) {
                self.idle.handle_wanted();
                return None;
            }
            return Some(room);
        }
        // ninja has no tokens: whatever runs here is of its choice.
        is_due(&mut self.looked_idle, now, LOOK_EVERY).then_some(())?;
        let here = Processes::now().leaves(self.root, "distcc");
        let room = self.limit.saturating_sub(here);
        if room == 0 {
            self.idle.handle_wanted();
        }
        Some(room)
    }

    /// Stranded jobs go before new ones: their make already waits for them.
    fn hand_back(&mut self, holders: &[Holder], now: Instant) {
        if let Some((since, _)) = self.handed
            && now.duration_since(since) >= LOAD_DUE
        {
            self.handed = None;
        }
        if self.load.stranded == 0 || self.handed.is_some() || self.may_come_back(now) {
            return;
        }
        let Some(here) = self.running_here(holders, now) else {
            return;
        };
        let jobs = self.limit.saturating_sub(here).min(self.load.stranded);
        if jobs > 0 {
            self.handed = Some((now, jobs));
            self.outbox.push_back(BuildFeedback::HandBack { jobs });
        }
    }

    /// A worker has just fallen silent: a lost mapping is found again within a second or two, and its jobs with it.
    fn may_come_back(&self, now: Instant) -> bool {
        let since = |since: &Instant| now.duration_since(*since);
        self.silent.values().any(|silent| since(silent) < COME_BACK)
    }

    /// By tokens, which a job that waits for a slot holds too; when those leave no room, and under ninja, which has
    /// none, by processes other than waiting clients. `None` before the next look.
    fn running_here(&mut self, holders: &[Holder], now: Instant) -> Option<u32> {
        let by_tokens = surely_here(holders, self.load());
        if !holders.is_empty() && by_tokens < self.limit {
            return Some(by_tokens);
        }
        is_due(&mut self.looked_here, now, LOOK_WHEN_STRANDED)
            .then(|| Processes::now().leaves(self.root, "distcc"))
    }

    fn flush(&mut self) {
        while let Some(next) = self.outbox.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(next)) = self.feedback.try_send(next) {
                return self.outbox.push_front(next);
            }
        }
    }
}

/// Whether it is time again; if so, from now on it is not.
fn is_due(last: &mut Option<Instant>, now: Instant, every: Duration) -> bool {
    let due = last.is_none_or(|last| now.duration_since(last) >= every);
    if due {
        *last = Some(now);
    }
    due
}
