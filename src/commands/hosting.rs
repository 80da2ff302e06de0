//! A session's primary in this process: its lock, its node, its control socket, its event log.

use std::{ffi::OsString, path::Path, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle};

use super::setup::{Setup, path_from_env, session_dir, text_from_env, unique_name};
use crate::{
    admission,
    cli::SessionArgs,
    control::{self, Request, Server, Status},
    error::{Failure, OrFail},
    primary::{Primary, PrimaryConfig, PrimaryHandle},
    session::{PathError, PrimaryLock, PrivateDir, Role},
    ui::Ui,
};

/// A primary that lives as long as this value; [`Hosted::stop`] says goodbye to the workers.
pub(super) struct Hosted {
    primary: Primary,
    server: JoinHandle<()>,
    down: mpsc::Receiver<()>,
    // Dropped in this order: the directory goes before another process can take the lock.
    _scratch: PrivateDir,
    _lock: PrimaryLock,
}

/// Whose session this process uses.
pub(super) enum Host {
    /// Its own.
    Own(Box<Hosted>),
    /// That of another process, which `distmesh up` started or another build.
    Other(String),
}

impl Host {
    /// Uses the session of a living process, which needs neither secret nor rendezvous, or becomes its primary.
    /// `command` is what is built; a primary that becomes one for it asks the compilers first that it most likely uses, and no others.
    pub(super) async fn join(
        args: &SessionArgs,
        command: &[OsString],
        ui: &Ui,
    ) -> Result<Self, Failure> {
        let (_, _, dir) = session_dir(args.session.clone())?;
        // Only looked at: becoming the primary takes a while, and others would wait for a socket that is not there yet.
        match dir.lock_primary() {
            Err(PathError::Held(holder)) => Ok(Self::Other(holder)),
            Err(error) => Err(error.into()),
            Ok(looked) => {
                drop(looked);
                Self::new(&Setup::new(args, ui).await?, Some(command))
            }
        }
    }

    /// Becomes the session's primary, unless a living process is. Without a `command` it asks all compilers: a build that is not
    /// wrapped never says which one it calls.
    pub(super) fn new(setup: &Setup, command: Option<&[OsString]>) -> Result<Self, Failure> {
        let lock = match setup.dir.lock_primary() {
            Ok(lock) => lock,
            Err(PathError::Held(holder)) => return Ok(Self::Other(holder)),
            Err(error) => return Err(error.into()),
        };
        Ok(Self::Own(Box::new(Hosted::start(setup, command, lock)?)))
    }
}

impl Hosted {
    fn start(
        setup: &Setup,
        command: Option<&[OsString]>,
        lock: PrimaryLock,
    ) -> Result<Self, Failure> {
        let scratch = setup.dir.private("primary")?;
        let path = path_from_env("PATH").unwrap_or_default();
        let all = admission::compilers_on_path(path.as_os_str());
        let compilers = match command {
            Some(command) => admission::likely_compilers(&all, &mentioned(command)),
            None => all,
        };
        let primary = Primary::start(PrimaryConfig {
            node: setup.node(Role::Primary, unique_name()?),
            scratch: scratch.path().to_owned(),
            compilers,
        })
        .or_cannot("start a session")
        .map_err(|failure| failure.maybe_hint(setup.bind_hint()))?;
        let (ask, down) = mpsc::channel(1);
        let names = (setup.session.to_string(), setup.rendezvous());
        let socket = setup.dir.control_socket();
        let server = Server::bind(&socket, primary.handle(), names, ask)
            .or_cannot(format!("listen on {}", socket.display()))?;
        Ok(Self {
            primary,
            server: tokio::spawn(server.run()),
            down,
            _scratch: scratch,
            _lock: lock,
        })
    }

    /// The role, for those who watch it.
    pub(super) fn handle(&self) -> PrimaryHandle {
        self.primary.handle()
    }

    /// Waits until somebody asks for the session's end.
    pub(super) async fn asked_down(&mut self) {
        if self.down.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Says goodbye to the workers and removes the socket.
    pub(super) async fn stop(self, reason: &str) {
        self.server.abort();
        // An aborted task ends with an error, and its socket file is gone by then.
        drop(self.server.await);
        self.primary.stop(reason).await;
    }
}

/// Whatever could be a compiler's name in `CC`, `CXX` and the command: `make CC=clang`, `cmake -DCMAKE_C_COMPILER=gcc-11`,
/// `sh -c 'CC=clang; …'`.
fn mentioned(command: &[OsString]) -> Vec<String> {
    let set = ["CC", "CXX"].into_iter().filter_map(text_from_env);
    let said = command.iter();
    let said = said.map(|word| word.to_string_lossy().into_owned());
    let all: Vec<String> = set.chain(said).collect();
    let belongs = |char: char| char.is_alphanumeric() || "+-._/".contains(char);
    let words = all
        .iter()
        .flat_map(|text| text.split(|char| !belongs(char)));
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Waits until `wanted` workers can take jobs, or the time is over; returns how many can. `progress` is told each time.
pub(super) async fn wait_for_workers(
    socket: &Path,
    wanted: u32,
    wait: Duration,
    mut progress: impl FnMut(u32, std::time::Instant),
) -> Result<u32, Failure> {
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let ready = control::ask::<Status>(socket, Request::Status)
            .await
            .or_cannot("ask the session")?
            .ready;
        let now = tokio::time::Instant::now();
        progress(ready, now.into_std());
        if ready >= wanted || now >= deadline {
            return Ok(ready);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A session that runs keeps the rendezvous that it began with.
pub(super) fn tell_other_rendezvous(ui: &Ui, args: &SessionArgs, status: &Status) {
    let Status {
        session,
        rendezvous,
        ..
    } = status;
    let other = args.rendezvous.as_ref();
    if let Some(other) = other.filter(|other| !other.is_described_by(rendezvous)) {
        ui.warn(format!(
            "session {session} runs already and meets in {rendezvous}: {other} is ignored; end it with `distmesh down`, or give this \
             one another --session"
        ));
    }
}

/// Tells a person what came of the wait.
pub(super) fn tell_ready(ui: &Ui, ready: u32, wanted: u32) {
    match (ready, wanted) {
        (_, 0) => {}
        _ if ready < wanted => ui.warn(format!(
            "{ready} of {wanted} workers came in time; others may still join"
        )),
        (1, _) => ui.say("1 worker is up"),
        _ => ui.say(format!("{ready} workers are up")),
    }
}

/// A person does not notice a fifth of a second, and the session answers from memory.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_is_mentioned_however_it_stands_in_the_command() {
        for (command, name) in [
            (vec!["make", "CC=clang"], "clang"),
            (
                vec!["cmake", "-DCMAKE_CXX_COMPILER=/usr/bin/g++-11"],
                "/usr/bin/g++-11",
            ),
            (
                vec!["sh", "-c", "CC=\"ccache clang-14\";export CC;make"],
                "clang-14",
            ),
            (vec!["sh", "-c", "(CC='gcc-11' make -j4)"], "gcc-11"),
        ] {
            let command: Vec<_> = command.into_iter().map(OsString::from).collect();
            let mentioned = mentioned(&command);
            assert!(mentioned.iter().any(|word| word == name), "{mentioned:?}");
        }
    }
}
