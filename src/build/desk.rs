//! What the session does while the command runs: one handler per thing that happens.

mod homeward;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::bell::Bell;
use super::broker::{Holder, Limits, Returns, ahead, here, room};
use super::home::{Home, Idle, Permit, Sent};
use super::hosts::Hosts;
use super::kept::Kept;
use super::layout::State;
use super::makes::Makes;
use super::outcome::Tally;
use super::pace::Outlook;
use super::permits::Permits;
use super::record::Said;
use super::{BuildNews, BuildOptions};
use crate::event::{
    BuildFeedback, BuildUpdate, CompileSeen, Compiler, JobOutcome, JobRecord, LinkState, Load,
    LoadNow, Route,
};
use crate::machine::memory::{affordable, available_kib};

/// Memory does not vanish faster than compilers allocate it.
const MEMORY_EVERY: Duration = Duration::from_secs(1);

const SESSION_LOST: &str = "the session has ended: what is left compiles here; `distmesh up` starts another for the next build";

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
    /// When it was so, by the system's monotonic clock in nanoseconds.
    load_at_ns: u64,
    /// The local limit that memory allows.
    limit: u32,
    memory_seen: Option<Instant>,
    looked_here: Option<Instant>,
    looked_idle: Option<Instant>,
    told_pace: Option<Instant>,
    told_stays: bool,
    at_most: Option<AtMost>,
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

/// How many jobs the build was told to run at once.
struct AtMost {
    command: String,
    jobs: u32,
    told: bool,
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
            load_at_ns: 0,
            limit: state.local,
            state,
            memory_seen: None,
            looked_here: None,
            looked_idle: None,
            told_pace: None,
            told_stays: false,
            at_most: None,
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
            Said::Make(began) => {
                let limited = began.nested || began.ceiling.is_some();
                // The limit ended with the make that had it.
                self.at_most.take_if(|at_most| !limited && !at_most.told);
                self.makes.handle_begin(began, Some(&self.bell));
            }
            Said::AtMost { command, jobs } => {
                let told = self.at_most.take().is_some_and(|before| before.told);
                self.at_most = Some(AtMost {
                    command,
                    jobs,
                    told,
                });
                self.tell_at_most();
            }
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

    /// Scripts name a number that was right for one machine, and nobody would see why workers idle.
    fn tell_at_most(&mut self) {
        let capacity = self.state.capacity;
        if let Some(at_most) = &mut self.at_most
            && at_most.jobs < capacity
            && !std::mem::replace(&mut at_most.told, true)
        {
            let AtMost { command, jobs, .. } = at_most;
            let text = format!(
                "{command} keeps to {jobs} jobs at once, and the workers have room for more: leave the number away to use it"
            );
            self.tell(BuildNews::Incident(text));
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

    /// The session has ended and the build has not: all the rest is done here.
    pub(super) fn handle_session_lost(&mut self) -> io::Result<()> {
        let closed = self.hosts.handle_session_lost(self.state.local);
        self.load = Load::default();
        self.silent.clear();
        self.state.capacity = 0;
        let had_workers = !std::mem::take(&mut self.state.compilers).is_empty();
        if had_workers {
            self.tell(BuildNews::Incident(SESSION_LOST.to_owned()));
        }
        closed.and(self.write_state())
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
        // One that was asked for has overtaken it.
        if at_ns < self.load_at_ns {
            return Ok(());
        }
        self.load_at_ns = at_ns;
        self.returns.handle_load(at_ns);
        // One that was asked for tells nothing of them.
        if load != self.load {
            self.handed = None;
        }
        self.load = load;
        self.state.capacity = load.capacity;
        self.tell_at_most();
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

    /// Whether a load tells of nothing but jobs that have ended.
    pub(super) fn only_ended(&self, load: &Load) -> bool {
        let ended = load.in_dispatch <= self.load.in_dispatch;
        ended && load.capacity == self.load.capacity && load.stranded <= self.load.stranded
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
        // One job may always run.
        if self.state.local > 1 && is_due(&mut self.memory_seen, now, MEMORY_EVERY) {
            let running = here(&holders, self.load());
            self.limit = affordable(self.state.local, running, available_kib());
        }
        self.hand_back(&holders, now);
        self.call_back(&holders, now);
        let busy = self.offer_home(&holders, now);
        let room = self.room(&holders);
        let dealt = self.makes.deal(&holders, room);
        // Who got a token is about to use it: until then there is nothing new to see, and to go on for a few milliseconds is not worth two
        // signals for each process.
        self.kept.let_rest(busy || dealt, now);
        self.makes.find_lost(&holders, now);
        self.flush();
        match holders.len() {
            _ if self.home.is_settling() && !dealt => Outlook::Changing,
            2.. => Outlook::Shared,
            _ if self.kept.is_resting() && !busy => Outlook::Shared,
            _ if self.awaits() => Outlook::Waiting,
            _ => Outlook::Still,
        }
    }

    /// Whether something is under way of whose end nobody tells, or that falls due.
    fn awaits(&self) -> bool {
        self.kept.count(Permit::Spare) + self.kept.count(Permit::Ordinary) > 0
            || self.handed.is_some()
            || !self.silent.is_empty()
            || self.load.stranded > 0
            || self.idle.is_counting()
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
        if certain == self.load || !(idle || self.load.stranded > 0 || matters()) {
            return room_now;
        }
        if self.ask_load() {
            return room(holders, self.limits(self.load()));
        }
        room_now
    }

    /// Whether the load is the newest now; else it is asked for.
    fn ask_load(&mut self) -> bool {
        let now = self.options.load_now.as_ref().and_then(LoadNow::ask);
        if let Some((load, at_ns)) = now {
            // What could not be written is written with the next.
            drop(self.take_load(load, at_ns));
            return true;
        }
        if self.returns.asks() {
            self.outbox.push_back(BuildFeedback::AskLoad);
        }
        false
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
