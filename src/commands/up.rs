//! `distmesh up`.

use std::{
    env, fs,
    io::{self, Seek},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::broadcast::error::RecvError,
};

use super::{
    down::is_absent,
    hosting::{Host, tell_other_rendezvous, tell_ready, wait_for_workers},
    setup::{Setup, path_from_env, require_secret, session_dir},
};
use crate::{
    cli::UpArgs,
    control::{self, Request, Status},
    error::{Failure, OrFail},
    session::SessionDir,
    ui::Ui,
};

/// Makes sure that a session runs, and waits for its workers.
pub async fn up(args: &UpArgs, ui: &Ui) -> Result<u8, Failure> {
    if args.foreground {
        return serve(args, ui).await;
    }
    let (_, session, dir) = session_dir(args.session.session.clone())?;
    let socket = dir.control_socket();
    if let Some(status) = running(&socket).await? {
        ui.say(format!("session {session} is up already"));
        tell_other_rendezvous(ui, &args.session, &status);
    } else {
        require_secret(&args.session)?;
        start(&dir).await?;
        ui.say(format!("session {session} is up; `distmesh down` ends it"));
        ui.detail(format!("it writes to {}", log_of(&dir).display()));
    }
    let wanted = args.min_workers;
    let ready = wait_for_workers(&socket, wanted, args.wait, |ready, now| {
        if wanted > 0 {
            ui.progress(&format!("{ready} of {wanted} workers are up"), now);
        }
    })
    .await?;
    ui.end_progress();
    tell_ready(ui, ready, wanted);
    Ok(0)
}

async fn running(socket: &Path) -> Result<Option<Status>, Failure> {
    match control::ask(socket, Request::Status).await {
        Ok(status) => Ok(Some(status)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error).or_cannot("ask the session"),
    }
}

/// Starts this program again in the background, and waits until its control socket answers.
async fn start(dir: &SessionDir) -> Result<(), Failure> {
    let log = log_of(dir);
    let out = fs::File::create(&log).or_cannot(format!("write {}", log.display()))?;
    let mut child = background(out).or_cannot("start the session")?;
    loop {
        if running(&dir.control_socket()).await?.is_some() {
            return Ok(());
        }
        if let Some(status) = child.try_wait().or_cannot("start the session")? {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let said = io::Error::other(said.trim().to_owned());
            return Err(
                Failure::cannot_run(format!("the session ended with {status}")).because(&said),
            );
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What the process in the background says.
fn log_of(dir: &SessionDir) -> PathBuf {
    dir.path().join("up.log")
}

fn background(mut log: fs::File) -> io::Result<Child> {
    log.rewind()?;
    Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .arg("--foreground")
        .env(DETACH, "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// The session itself: runs until it is asked to end.
async fn serve(args: &UpArgs, ui: &Ui) -> Result<u8, Failure> {
    if path_from_env(DETACH).is_some() {
        // Away from the terminal: neither its ^C nor its end is meant for the session. It fails for a group's leader, who
        // is away already.
        let _ = rustix::process::setsid();
    }
    let setup = Setup::new(&args.session, ui).await?;
    let mut hosted = match Host::new(&setup, None)? {
        Host::Own(hosted) => hosted,
        Host::Other(holder) => {
            return Err(Failure::cannot_run(format!(
                "process {holder} already is this session's primary"
            ))
            .hint("use it, end it with `distmesh down`, or give this one another --session"));
        }
    };
    ui.say(format!(
        "session {} is up; {}",
        setup.session,
        setup.rendezvous()
    ));
    let mut events = hosted.handle().events();
    let teller = ui.clone();
    let telling = tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) => super::tell(&teller, &event),
                // Somebody was slow to read; the newest is still news.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            }
        }
    });
    let reason = tokio::select! {
        () = hosted.asked_down() => "distmesh down",
        reason = ended_by_signal() => reason,
    };
    hosted.stop(reason).await;
    telling.abort();
    ui.say(format!("session {} has ended: {reason}", setup.session));
    Ok(0)
}

async fn ended_by_signal() -> &'static str {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => "SIGTERM", _ = int.recv() => "SIGINT" }
}

/// Set for the process in the background.
const DETACH: &str = "DISTMESH_DETACH";

const LOOK_AGAIN: Duration = Duration::from_millis(50);
