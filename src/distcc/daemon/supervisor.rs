//! Keeps one distccd healthy: starts it, looks after it, starts it again.

use std::{
    io, net::SocketAddr, os::unix::process::ExitStatusExt, path::PathBuf, pin::pin,
    process::ExitStatus, time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    CanaryFailure, DaemonConfig, DaemonError, DaemonEvent, Health, Pace, canary,
    guard::Guard,
    home::{Home, User},
    process::{Process, free_port},
    vitals::Vitals,
};

/// Another process can take the chosen port before distccd does, or end it; five times in a row it is not chance.
const PORTS: u32 = 5;
/// distccd binds within milliseconds; a machine that boots many workers at once takes longer.
const START: Duration = Duration::from_secs(30);
/// Between two tries to reach a distccd that does not listen yet, or that has just failed once.
const AGAIN: Duration = Duration::from_millis(50);
/// What distccd logs when its port is taken.
const PORT_TAKEN: &str = "Address already in use";
/// One failure may be the machine's bad moment; two in a row are distccd's.
const FAILURES: u32 = 2;
/// Names that a distccd of somebody else's probably allows, the likeliest first.
const USUAL_COMPILERS: [&str; 6] = [
    "gcc",
    "cc",
    "clang",
    "/usr/bin/gcc",
    "/usr/bin/cc",
    "/usr/bin/clang",
];

/// A distccd of our own.
#[derive(Debug)]
pub(super) struct Owned {
    config: DaemonConfig,
    pace: Pace,
    user: Option<User>,
    home: Home,
    guard: Guard,
    addr: SocketAddr,
    outlook: Outlook,
    process: Option<Process>,
}

/// What the supervisor sees of the worker around it, and tells it.
#[derive(Debug)]
pub(super) struct Outlook {
    /// Jobs that distccd has.
    pub(super) jobs: watch::Receiver<u32>,
    /// What it may run.
    pub(super) compilers: watch::Receiver<Vec<PathBuf>>,
    pub(super) events: mpsc::Sender<DaemonEvent>,
}

impl Owned {
    /// Returns once a compile succeeded.
    pub(super) async fn start(
        config: DaemonConfig,
        pace: Pace,
        outlook: Outlook,
    ) -> Result<Self, DaemonError> {
        let user = User::find().await;
        let home = Home::make(&config, user.as_ref())?;
        let system = |what| move |source| DaemonError::System { what, source };
        let guard = Guard::start(home.path()).map_err(system("start /bin/sh"))?;
        let addr = free_port().map_err(system("find a free port on 127.0.0.1"))?;
        let mut owned = Self {
            config,
            pace,
            user,
            home,
            guard,
            addr,
            outlook,
            process: None,
        };
        match owned.start_on_some_port().await {
            Ok(()) => Ok(owned),
            Err(error) => {
                owned.shut_down().await;
                Err(error)
            }
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Runs until told to stop, or until nobody is left to tell.
    pub(super) async fn supervise(
        mut self,
        health: watch::Sender<Health>,
        mut stop: oneshot::Receiver<()>,
    ) {
        tokio::select! {
            () = self.keep_alive(&health) => {}
            _ = &mut stop => {}
        }
        self.shut_down().await;
    }

    async fn start_on_some_port(&mut self) -> Result<(), DaemonError> {
        for _ in 1..PORTS {
            match self.run().await {
                Err(DaemonError::Exited { log, killed, .. })
                    if killed || log.contains(PORT_TAKEN) => {}
                other => return other,
            }
            self.addr = free_port().map_err(|source| DaemonError::System {
                what: "find a free port on 127.0.0.1",
                source,
            })?;
        }
        self.run().await
    }

    async fn keep_alive(&mut self, health: &watch::Sender<Health>) {
        let mut pause = self.pace.first_pause;
        loop {
            let since = Instant::now();
            let mut reason = self.look_after().await;
            if since.elapsed() > self.pace.longest_pause {
                pause = self.pace.first_pause;
            }
            loop {
                self.report(health, &reason);
                self.end_process().await;
                sleep(pause).await;
                pause = (pause * 2).min(self.pace.longest_pause);
                match self.run().await {
                    Ok(()) => break,
                    Err(error) => reason = error.to_string(),
                }
            }
            health.send_replace(Health::Healthy);
        }
    }

    fn report(&self, health: &watch::Sender<Health>, reason: &str) {
        let text = format!("distccd is started again: {reason}");
        if self
            .outlook
            .events
            .try_send(DaemonEvent::Trouble(text))
            .is_err()
        {
            tracing::debug!(reason, "nobody takes distccd's troubles");
        }
        health.send_replace(Health::Unhealthy(reason.to_owned()));
    }

    /// Returns when distccd has to be started again, and why.
    async fn look_after(&mut self) -> String {
        let (addr, pace) = (self.addr, self.pace);
        let compiler = compiler(&self.config);
        let Some(process) = &mut self.process else {
            return "it does not run".to_owned();
        };
        let session = process.session();
        let vitals = Vitals::new(session, process.journal.clone(), self.outlook.jobs.clone());
        let mut canaries = pin!(failing(addr, &compiler, pace, Some(vitals)));
        loop {
            tokio::select! {
                status = process.ended() => return format!("it ended ({})", told(status)),
                failure = &mut canaries => return failure.to_string(),
                Ok(()) = self.outlook.compilers.changed() => {
                    return "a compiler was installed".to_owned();
                }
                () = self.guard.ended() => {
                    if let Err(error) = self.guard.watch_anew(session, self.home.path()).await {
                        return format!("nobody could guard it: {error}");
                    }
                }
            }
        }
    }

    /// Starts distccd and waits for its first compile.
    async fn run(&mut self) -> Result<(), DaemonError> {
        self.end_process().await;
        self.config.compilers = self.outlook.compilers.borrow_and_update().clone();
        self.home.write_list(&self.config.compilers)?;
        let (config, user) = (&self.config, self.user.as_ref());
        let emptied = self.home.empty_tmp(user);
        emptied.map_err(|source| DaemonError::Home {
            path: self.home.path().to_owned(),
            source,
        })?;
        let port = self.addr.port();
        let process = Process::spawn(config, &self.home, user, port, self.outlook.events.clone())?;
        let session = process.session();
        let process = self.process.insert(process);
        self.guard
            .watch_anew(session, self.home.path())
            .await
            .map_err(|source| DaemonError::System {
                what: "tell the guard of distccd",
                source,
            })?;
        process
            .begin()
            .await
            .map_err(|source| DaemonError::System {
                what: "let distccd begin",
                source,
            })?;
        let compiler = compiler(&self.config);
        let ended = tokio::select! {
            // A distccd that could not bind must not be mistaken for the stranger who has the port.
            biased;
            ended = process.ended() => ended,
            first = first_compile(self.addr, &compiler) => return first.map_err(|failure| DaemonError::Canary {
                addr: self.addr,
                compiler,
                failure,
                log: process.journal.quote(),
            }),
        };
        Err(DaemonError::Exited {
            path: self.config.distccd.clone(),
            killed: ended.as_ref().is_ok_and(|status| status.signal().is_some()),
            status: told(ended),
            log: process.last_words().await,
        })
    }

    async fn end_process(&mut self) {
        let Some(process) = self.process.take() else {
            return;
        };
        process.kill().await;
        // The number may be given to another session from now on.
        if let Err(error) = self.guard.watch_none().await {
            tracing::warn!(%error, "the guard of distccd is gone");
        }
    }

    async fn shut_down(mut self) {
        self.end_process().await;
        self.guard.release().await;
    }
}

fn compiler(config: &DaemonConfig) -> String {
    let first = config.compilers.first();
    first
        .map(|path| path.display().to_string())
        .unwrap_or_default()
}

fn told(ended: io::Result<ExitStatus>) -> String {
    ended.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// Waits until something listens, then compiles once.
async fn first_compile(addr: SocketAddr, compiler: &str) -> Result<(), CanaryFailure> {
    let tries = async {
        loop {
            match canary::check(addr, compiler, START).await {
                Err(CanaryFailure::Io(_)) => sleep(AGAIN).await,
                other => return other,
            }
        }
    };
    let compiled = timeout(START, tries).await;
    compiled.unwrap_or(Err(CanaryFailure::Timeout(START)))
}

/// Sends canaries for ever, sooner when jobs run and nothing moves; returns when one found nothing moving, or when two in a
/// row failed although distccd did nothing else meanwhile.
async fn failing(
    addr: SocketAddr,
    compiler: &str,
    pace: Pace,
    mut vitals: Option<Vitals>,
) -> CanaryFailure {
    let mut failures = 0;
    loop {
        let pause = if failures == 0 { pace.every } else { AGAIN };
        tokio::select! {
            () = sleep(pause) => {}
            () = quiet(&mut vitals) => {}
        }
        let lines = || vitals.as_ref().map_or(0, Vitals::lines);
        let before = lines();
        let checked = tokio::select! {
            checked = canary::check(addr, compiler, pace.deadline) => checked,
            stalled = stalled(vitals.as_ref()) => return CanaryFailure::Stalled(stalled),
        };
        let Err(failure) = checked else {
            failures = 0;
            continue;
        };
        // A machine that is too busy for the canary but finishes jobs must not lose those that run.
        let slow = matches!(failure, CanaryFailure::Timeout(_)) && lines() > before;
        failures = if slow { 0 } else { failures + 1 };
        if failures == FAILURES {
            return failure;
        }
    }
}

async fn quiet(vitals: &mut Option<Vitals>) {
    match vitals {
        Some(vitals) => vitals.quiet().await,
        None => std::future::pending().await,
    }
}

async fn stalled(vitals: Option<&Vitals>) -> Duration {
    match vitals {
        Some(vitals) => vitals.stalled().await,
        None => std::future::pending().await,
    }
}

/// A distccd of somebody else's.
#[derive(Debug)]
pub(super) struct Foreign {
    addr: SocketAddr,
    compiler: &'static str,
    pace: Pace,
    events: mpsc::Sender<DaemonEvent>,
}

impl Foreign {
    /// Finds a compiler that it allows.
    pub(super) async fn find(
        addr: SocketAddr,
        pace: Pace,
        events: mpsc::Sender<DaemonEvent>,
    ) -> Result<Self, DaemonError> {
        let mut first_failure = None;
        for compiler in USUAL_COMPILERS {
            let failure = match canary::check(addr, compiler, pace.deadline).await {
                Ok(()) => {
                    return Ok(Self {
                        addr,
                        compiler,
                        pace,
                        events,
                    });
                }
                Err(failure) => failure,
            };
            let hopeless = matches!(failure, CanaryFailure::Io(_) | CanaryFailure::Timeout(_));
            first_failure.get_or_insert(failure);
            if hopeless {
                break;
            }
        }
        Err(DaemonError::Canary {
            addr,
            compiler: USUAL_COMPILERS[0].to_owned(),
            failure: first_failure.unwrap_or(CanaryFailure::Refused),
            log: String::new(),
        })
    }

    /// Runs until told to stop, or until nobody is left to tell.
    pub(super) async fn watch(
        self,
        health: watch::Sender<Health>,
        mut stop: oneshot::Receiver<()>,
    ) {
        tokio::select! {
            () = self.keep_watch(&health) => {}
            _ = &mut stop => {}
        }
    }

    async fn keep_watch(&self, health: &watch::Sender<Health>) {
        loop {
            let reason = failing(self.addr, self.compiler, self.pace, None).await;
            let reason = format!("distccd at {}: {reason}", self.addr);
            let _ = self.events.try_send(DaemonEvent::Trouble(reason.clone()));
            health.send_replace(Health::Unhealthy(reason));
            while let Err(error) = canary::check(self.addr, self.compiler, self.pace.deadline).await
            {
                tracing::debug!(%error, "distccd still fails");
                sleep(self.pace.longest_pause).await;
            }
            health.send_replace(Health::Healthy);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process;

    use tokio::net::TcpListener;

    use super::super::process::Journal;
    use super::*;

    /// No process has this number.
    const NO_SESSION: u32 = u32::MAX;

    /// Watches a distccd that accepts and never answers; returns how often it was asked, and the verdict, if one fell
    /// within ten canaries.
    async fn watch_a_silent_one(
        every: Duration,
        vitals: Option<Vitals>,
        asked: impl Fn(),
    ) -> (usize, Option<CanaryFailure>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let pace = Pace {
            every,
            deadline: Duration::from_millis(100),
            ..Pace::default()
        };
        let mut held = Vec::new();
        let mut watching = pin!(failing(addr, "gcc", pace, vitals));
        while held.len() < 10 {
            tokio::select! {
                failure = &mut watching => return (held.len(), Some(failure)),
                accepted = listener.accept() => held.push(accepted.unwrap()),
            }
            asked();
        }
        (held.len(), None)
    }

    #[tokio::test]
    async fn two_silences_in_a_row_are_a_failure() {
        let (asked, failure) = watch_a_silent_one(Duration::from_millis(1), None, || {}).await;
        assert_eq!(asked, 2);
        assert!(matches!(failure, Some(CanaryFailure::Timeout(_))));
    }

    #[tokio::test]
    async fn a_distccd_that_finishes_jobs_is_never_too_slow() {
        let journal = Journal::default();
        let (_jobs, running) = watch::channel(1);
        let vitals = Vitals::new(process::id(), journal.clone(), running);
        let every = Duration::from_millis(1);
        let (_, failure) = watch_a_silent_one(every, Some(vitals), || journal.count_line()).await;
        assert!(failure.is_none());
    }

    #[tokio::test]
    async fn jobs_without_any_movement_bring_the_canary_and_the_verdict_forward() {
        let (_jobs, running) = watch::channel(1);
        let vitals = Vitals::new(NO_SESSION, Journal::default(), running);
        let never = Duration::from_secs(3600);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let pace = Pace {
            every: never,
            deadline: never,
            ..Pace::default()
        };
        let failure = failing(addr, "gcc", pace, Some(vitals)).await;
        assert!(matches!(failure, CanaryFailure::Stalled(_)), "{failure}");
    }
}
