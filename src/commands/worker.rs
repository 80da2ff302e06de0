//! `distmesh worker`.

use std::{ffi::OsString, path::Path};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use super::setup::{Setup, path_from_env, unique_name};
use crate::{
    admission::Catalogue,
    cli::WorkerArgs,
    distcc::{Daemon, DaemonConfig, daemon_search},
    error::{Failure, OrFail},
    machine,
    rendezvous::github::Ending,
    session::Role,
    ui::Ui,
    worker::{self, WorkerConfig, WorkerNews},
};

/// Serves until there is a reason to stop.
pub async fn worker(args: &WorkerArgs, ui: &Ui) -> Result<u8, Failure> {
    let setup = Setup::new(&args.session, ui).await?;
    if args.until_artifact.is_some() && setup.github().is_none() {
        return Err(Failure::usage(
            "--until-artifact waits for an artifact of a run of GitHub Actions: it needs --rendezvous github",
        ));
    }
    let slots = slots(args, ui);
    let dir = setup.dir.private("worker")?;
    let search = path_from_env("PATH").unwrap_or_default().into_os_string();
    let compilers = compilers(search.clone(), dir.path(), ui).await?;
    let found = compilers.compilers().len();
    let config = DaemonConfig {
        distccd: "distccd".into(),
        dir: dir.path().to_owned(),
        slots,
        compilers: compilers.paths(),
        search,
        nice: NICE,
    };
    let daemon = daemon(args, config).await?;
    let name = args.name.clone().map_or_else(unique_name, Ok)?;
    ui.say(format!(
        "worker {name}: {slots} slots, {} compilers; session {}, {}",
        found,
        setup.session,
        setup.rendezvous()
    ));
    let (lonely, lonely_now) = watch::channel(true);
    let config = WorkerConfig {
        node: setup.node(Role::Worker, name),
        daemon,
        compilers,
        slots,
        once: args.once.unwrap_or_else(|| path_from_env("CI").is_some()),
        wait_primary: args.wait_primary,
        max_lifetime: args.max_lifetime,
        lonely,
    };
    let (tell, mut news) = mpsc::channel(NEWS);
    let (stop, stopped) = watch::channel(None);
    if let Some(github) = setup.github() {
        let until = args.until_artifact.clone();
        let ending = Ending {
            github,
            until,
            lonely: lonely_now,
        };
        let stop = stop.clone();
        tokio::spawn(async move { stop.send_replace(Some(ending.reason().await)) });
    }
    let teller = ui.clone();
    let telling = tokio::spawn(async move {
        while let Some(news) = news.recv().await {
            say(&teller, news);
        }
    });
    let served = tokio::select! {
        served = worker::run(config, tell, stopped) => served,
        () = signals(ui, stop) => return Ok(0),
    };
    // Ends with the role, which held the sender; what it said last is still shown.
    drop(telling.await);
    let reason = served
        .or_cannot("start the worker")
        .map_err(|failure| failure.maybe_hint(setup.bind_hint()))?;
    ui.say(format!("worker stopped: {reason}"));
    Ok(0)
}

fn slots(args: &WorkerArgs, ui: &Ui) -> u32 {
    if let Some(given) = args.slots {
        return given.get();
    }
    let found = machine::slots();
    ui.detail(format!("{} slots: {}", found.count, found.reason));
    found.count
}

async fn compilers(search: OsString, scratch: &Path, ui: &Ui) -> Result<Catalogue, Failure> {
    let scratch = scratch.to_owned();
    let found = tokio::task::spawn_blocking(move || Catalogue::find(search, scratch));
    let (compilers, troubles) = found.await.or_cannot("look for compilers")?;
    for trouble in troubles {
        ui.warn(trouble);
    }
    if compilers.compilers().is_empty() {
        return Err(Failure::cannot_run("there is no compiler on PATH")
            .hint("install one: apt-get install gcc g++"));
    }
    Ok(compilers)
}

/// Starts distccd in a private directory, or finds the one that was named.
async fn daemon(args: &WorkerArgs, config: DaemonConfig) -> Result<Daemon, Failure> {
    if let Some(addr) = args.distccd {
        return Daemon::external(addr)
            .await
            .or_cannot(format!("use distccd at {addr}"))
            .map_err(|failure| {
                failure.hint(format!(
                    "start it with `distccd --daemon --listen {} --port {} --allow-private`, or leave --distccd out",
                    addr.ip(),
                    addr.port()
                ))
            });
    }
    let found = which::which_in_global("distccd", Some(daemon_search(&config.search)));
    let program = found
        .and_then(|mut found| found.next().ok_or(which::Error::CannotFindBinaryPath))
        .or_cannot("find distccd")
        .map_err(|failure| {
            failure
                .hint("install it (apt-get install distcc), or name a running one with --distccd")
        })?;
    let config = DaemonConfig {
        distccd: program,
        ..config
    };
    Daemon::start(config).await.or_cannot("start distccd")
}

fn say(ui: &Ui, news: WorkerNews) {
    match news {
        WorkerNews::Link {
            name,
            state,
            reason,
        } => {
            ui.say(format!("link to {name} is {state}: {reason}"));
        }
        WorkerNews::Compiled(compile) => ui.say(compile),
        WorkerNews::Notice(text) => ui.warn(text),
    }
}

/// The first signal lets running jobs end; returns at the second.
async fn signals(ui: &Ui, stop: watch::Sender<Option<String>>) {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    let mut next =
        async || tokio::select! { _ = term.recv() => "SIGTERM", _ = int.recv() => "SIGINT" };
    let first = next().await;
    ui.say(format!(
        "{first}: running compiles may end; once more stops at once"
    ));
    stop.send_replace(Some(first.to_owned()));
    next().await;
}

/// A line a compile; when a terminal is that slow, lines are left out, not jobs.
const NEWS: usize = 1024;

/// Compilers give way to the process that carries the tunnel.
const NICE: i32 = 5;
