//! `distmesh build`.

use std::{
    env, fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    down::is_absent,
    hosting::{Host, Hosted, LOOK_AGAIN, tell_other_rendezvous, tell_ready, wait_for_workers},
    setup::session_dir,
    tell,
};
use crate::{
    build::{self, BuildNews, BuildOptions, BuildOutcome},
    cli::BuildArgs,
    control::{self, BuildLine, Request, Status},
    error::{Failure, OrFail},
    event::{BuildUpdate, Event, Record},
    machine::{self, clock::in_step, cpu::CpuTime},
    node::unix_ms,
    report::{self, Cpu, End, EventLog, Tally},
    session::PrivateDir,
    ui::Ui,
};

/// Runs the command with the session's workers, or without any, and passes its exit code on.
pub async fn build(args: &BuildArgs, ui: &Ui) -> Result<u8, Failure> {
    let watch = Watch::new(args, ui)?;
    let (outcome, watch) = match Joined::ready(args, ui).await {
        Ok((session, line)) => session.build(args, watch, line).await?,
        // A build that cannot be distributed is still a build, unless workers were made a condition.
        Err(failure) if args.require_workers.is_none() => {
            ui.warn(format!(
                "building on this machine alone: {}",
                failure.in_one_line()
            ));
            alone(args, watch).await?
        }
        Err(failure) => return Err(failure),
    };
    // The command has ended as it has, whatever becomes of its report.
    if let Err(failure) = watch.finish(args, &outcome) {
        ui.warn(failure.in_one_line());
    }
    if let Some(signal) = outcome.signal {
        ui.end_progress();
        machine::end::by_signal(signal);
    }
    Ok(u8::try_from(outcome.exit).unwrap_or(u8::MAX))
}

/// A build's part in a session.
struct Joined {
    dir: PrivateDir,
    socket: PathBuf,
    own: Option<Box<Hosted>>,
}

impl Joined {
    async fn new(args: &BuildArgs, ui: &Ui) -> Result<Self, Failure> {
        which::which("distcc")
            .or_cannot("find distcc")
            .map_err(|failure| {
                failure.hint("install it: apt-get install distcc, or brew install distcc")
            })?;
        let (_, session, dir) = session_dir(args.session.session.clone())?;
        let socket = dir.control_socket();
        let deadline = now() + CHANGING_HANDS;
        let own = loop {
            match Host::join(&args.session, &args.command, ui).await? {
                Host::Own(hosted) => break Some(hosted),
                // Its holder is about to begin, or saying goodbye: then the session will be ours.
                Host::Other(_) if now() < deadline && is_silent(&socket).await => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Host::Other(holder) => {
                    ui.detail(format!(
                        "process {holder} holds session {session}: using it"
                    ));
                    if let Ok(status) = control::ask(&socket, Request::Status).await {
                        tell_other_rendezvous(ui, &args.session, &status);
                    }
                    break None;
                }
            }
        };
        Ok(Self {
            dir: dir.private("build")?,
            socket,
            own,
        })
    }

    /// With the workers that were waited for, and a desk.
    async fn ready(args: &BuildArgs, ui: &Ui) -> Result<(Self, BuildLine), Failure> {
        let session = Self::new(args, ui).await?;
        match session.open(args, ui).await {
            Ok(line) => Ok((session, line)),
            Err(failure) => {
                session.leave("the build could not start").await;
                Err(failure)
            }
        }
    }

    async fn open(&self, args: &BuildArgs, ui: &Ui) -> Result<BuildLine, Failure> {
        self.wait(args, ui).await?;
        let line = match &self.own {
            Some(own) => control::open_build_here(own.handle()),
            None => control::open_build(&self.socket).await,
        };
        line.or_cannot("reach the session")
    }

    async fn build(
        self,
        args: &BuildArgs,
        watch: Watch,
        line: BuildLine,
    ) -> Result<(BuildOutcome, Watch), Failure> {
        let built = self.run(args, watch, line).await;
        let reason = match &built {
            Ok((outcome, _)) => format!("the build ended with {}", outcome.exit),
            Err(_) => "the build could not start".to_owned(),
        };
        self.leave(&reason).await;
        built
    }

    async fn leave(self, reason: &str) {
        if let Some(own) = self.own {
            own.stop(reason).await;
        }
    }

    async fn wait(&self, args: &BuildArgs, ui: &Ui) -> Result<(), Failure> {
        let required = args.require_workers.unwrap_or_default();
        let wanted = args.min_workers.max(required);
        let ready = wait_for_workers(&self.socket, wanted, args.wait, |ready, now| {
            if wanted > 0 {
                let line = format!("waiting for workers: {ready} of {wanted} are up");
                ui.progress(&line, now);
            }
        })
        .await?;
        ui.end_progress();
        if ready < required {
            let wait = humantime::format_duration(args.wait);
            let what = format!("{ready} of the {required} required workers came within {wait}");
            return Err(Failure::too_few_workers(what)
                .hint("look at the workers' output, or wait longer with --wait"));
        }
        tell_ready(ui, ready, wanted);
        Ok(())
    }

    async fn run(
        &self,
        args: &BuildArgs,
        mut watch: Watch,
        line: BuildLine,
    ) -> Result<(BuildOutcome, Watch), Failure> {
        let before = self.status().await;
        if let Ok(before) = &before {
            watch.tally.handle_workers(&before.workers);
        }
        let (outcome, mut watch) = serve(args, watch, self.dir.path().join("b"), line).await?;
        // The session knows more of its workers than dispatch: when they came up, and how far away they are.
        if let Ok(status) = self.status().await {
            if let (None, Ok(before)) = (&self.own, before) {
                watch.session_ms = status.cpu_ms.saturating_sub(before.cpu_ms);
            }
            watch.tally.handle_workers(&status.workers);
        }
        Ok((outcome, watch))
    }

    async fn status(&self) -> io::Result<Status> {
        control::ask(&self.socket, Request::Status).await
    }
}

/// The command without a session: the same shims and jobserver, nothing to send work to.
async fn alone(args: &BuildArgs, watch: Watch) -> Result<(BuildOutcome, Watch), Failure> {
    // Below the directories of some batch systems no socket has room.
    let parent = Some(env::temp_dir()).filter(|dir| dir.as_os_str().len() <= ROOM_FOR_SOCKETS);
    let dir = tempfile::Builder::new()
        .prefix("distmesh-")
        .tempdir_in(parent.unwrap_or_else(|| "/tmp".into()))
        .or_cannot("make a temporary directory")?;
    let (_, updates) = mpsc::channel(1);
    let (feedback, _) = mpsc::channel(1);
    let line = BuildLine {
        updates,
        feedback,
        load_now: None,
    };
    serve(args, watch, dir.path().join("build"), line).await
}

async fn serve(
    args: &BuildArgs,
    watch: Watch,
    dir: PathBuf,
    line: BuildLine,
) -> Result<(BuildOutcome, Watch), Failure> {
    let options = BuildOptions {
        command: args.command.clone(),
        dir,
        exe: build::shim::program().or_cannot("find this program's own file")?,
        env: env::vars_os().collect(),
        local_slots: args
            .local_slots
            .map_or_else(|| machine::slots().count, NonZeroU32::get),
        reconfigure: args.reconfigure,
        ccache: args.ccache,
        adapt: !args.no_adapt,
        load_now: line.load_now,
    };
    let ui = watch.ui.clone();
    let unheard = Watch {
        ui: ui.clone(),
        tally: Tally::new(args.workers),
        log: EventLog::nowhere(),
        began: now(),
        spent: CpuTime::now(),
        session_ms: 0,
    };
    ui.share_terminal(true);
    let (updates, to_build) = mpsc::channel(UPDATES);
    let (news, heard) = mpsc::unbounded_channel();
    let watching = tokio::spawn(watch.run(line.updates, updates, heard));
    let outcome = build::run(options, to_build, line.feedback, news).await;
    ui.share_terminal(false);
    // Ends when the session has told all; one that hangs must not keep a build that is over.
    let watch = match tokio::time::timeout(LAST_WORDS, watching).await {
        Ok(watch) => watch.or_cannot("count the jobs")?,
        Err(_) => {
            ui.warn("the session does not say what its workers did: the summary lacks them");
            unheard
        }
    };
    Ok((outcome.or_cannot("run the command")?, watch))
}

async fn is_silent(socket: &Path) -> bool {
    let asked = control::ask::<Status>(socket, Request::Status).await;
    asked.is_err_and(|error| is_absent(&error))
}

/// Who looks on: counts, logs, and tells the person.
struct Watch {
    ui: Ui,
    tally: Tally,
    log: EventLog,
    began: Instant,
    /// CPU time before the command.
    spent: CpuTime,
    /// CPU time of a session in another process, in milliseconds.
    session_ms: u64,
}

impl Watch {
    fn new(args: &BuildArgs, ui: &Ui) -> Result<Self, Failure> {
        let log = match &args.report {
            Some(dir) => {
                fs::create_dir_all(dir).or_cannot(writing(dir))?;
                EventLog::append_to(&dir.join("events.jsonl"))
            }
            None => EventLog::nowhere(),
        };
        Ok(Self {
            ui: ui.clone(),
            tally: Tally::new(args.workers),
            log,
            began: now(),
            spent: CpuTime::now(),
            session_ms: 0,
        })
    }

    /// Passes on to the build what the session says, until both have ended.
    async fn run(
        mut self,
        mut updates: mpsc::Receiver<BuildUpdate>,
        to_build: mpsc::Sender<BuildUpdate>,
        mut news: mpsc::UnboundedReceiver<BuildNews>,
    ) -> Self {
        self.began = now();
        self.spent = CpuTime::now();
        let mut tick = tokio::time::interval_at(in_step(now()).into(), PROGRESS);
        // Gone when the session is: the build has to know it.
        let mut to_build = Some(to_build);
        let mut build = true;
        while to_build.is_some() || build {
            tokio::select! {
                update = updates.recv(), if to_build.is_some() => match (update, &to_build) {
                    (Some(update), Some(to_build)) => {
                        self.handle_update(&update);
                        // A build that is over takes no more updates; the tally does.
                        drop(to_build.send(update).await);
                    }
                    _ => to_build = None,
                },
                said = news.recv(), if build => match said {
                    Some(said) => self.handle_news(said),
                    None => build = false,
                },
                _ = tick.tick() => {
                    self.log.flush();
                    self.ui.progress(&self.tally.progress().to_string(), now());
                }
            }
        }
        self
    }

    fn handle_update(&mut self, update: &BuildUpdate) {
        match update {
            BuildUpdate::Event(event) => {
                tell(&self.ui, event);
                self.record(event.clone());
            }
            BuildUpdate::Job(job) => self.record(Event::Job(job.clone())),
            BuildUpdate::Hosts { .. }
            | BuildUpdate::Admitted { .. }
            | BuildUpdate::Refused { .. }
            | BuildUpdate::Load { .. }
            | BuildUpdate::Worker(_) => self.tally.handle_update(update),
        }
    }

    fn handle_news(&mut self, said: BuildNews) {
        match said {
            BuildNews::Notice(text) => self.ui.warn(text),
            BuildNews::Seen(seen) => self.record(Event::CompileSeen(seen)),
            BuildNews::Incident(text) => {
                self.ui.warn(&text);
                self.record(Event::Incident { text });
            }
            // These came from the session, and were seen on their way to the build.
            BuildNews::Job(_) | BuildNews::Worker(_) | BuildNews::Refused { .. } => {}
        }
    }

    fn record(&mut self, event: Event) {
        let record = Record {
            at_ms: unix_ms(),
            event,
        };
        self.log.append(&record);
        self.tally.handle(&record);
    }

    /// Says what became of the build.
    fn finish(self, args: &BuildArgs, outcome: &BuildOutcome) -> Result<(), Failure> {
        let end = End {
            exit_code: outcome.exit,
            wall: now() - self.began,
        };
        let mut report =
            self.tally
                .report(end)
                .with_calls(outcome.remote, &outcome.local, outcome.cancelled);
        report.cpu = self.cpu(outcome);
        self.ui.end_progress();
        for line in report.summary() {
            self.ui.say(line);
        }
        if let Some(dir) = &args.report {
            let file = report::write(dir, &report).or_cannot(writing(dir))?;
            self.ui.say(format!("report: {}", file.display()));
        }
        Ok(())
    }

    /// `None` where the system does not tell what the command spent.
    fn cpu(&self, outcome: &BuildOutcome) -> Option<Cpu> {
        let spent = CpuTime::now().since(self.spent);
        let session = Duration::from_millis(self.session_ms);
        (!spent.descendants.is_zero()).then(|| Cpu {
            build_s: spent
                .descendants
                .saturating_sub(outcome.shims)
                .as_secs_f64(),
            distmesh_s: (spent.own + session + outcome.shims).as_secs_f64(),
            spare_s: outcome.spare.as_secs_f64(),
            cores: machine::granted_cores(),
        })
    }
}

fn writing(dir: &Path) -> String {
    format!("write the report to {}", dir.display())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a shell: the clock is read here and passed on"
)]
fn now() -> Instant {
    Instant::now()
}

/// Somewhat longer than a session takes to say goodbye and to withdraw its descriptor; one that begins takes a moment.
const CHANGING_HANDS: Duration = Duration::from_secs(10);

/// With `/distmesh-`, six letters and `/build/record.sock` it makes 100 bytes, of 103 that an address may have (`sockaddr_un` of macOS).
const ROOM_FOR_SOCKETS: usize = 66;

/// Updates on their way to a build that is busy.
const UPDATES: usize = 256;

/// The session tells of the last jobs within a fraction of a second.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How often progress is looked at; the screen decides how often it is shown. Sixteen steps, see [`in_step`].
const PROGRESS: Duration = Duration::from_millis(1_024);
