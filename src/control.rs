//! The control socket: how other processes on this machine talk to the session's primary.
//!
//! A Unix socket in the private session directory, so that only its owner can connect. The client sends one [`Request`]
//! line. `status`, `hosts` and `down` get one line back; `build` turns the connection into the build's desk: updates flow
//! one way ([`BuildUpdate`]), feedback the other ([`BuildFeedback`]), until either side closes.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{
        broadcast::{self, error::RecvError},
        mpsc, watch,
    },
};

use crate::{
    dispatch::BuildDesk,
    event::{BuildFeedback, BuildUpdate, Event, LoadNow, WorkerView},
    machine::cpu,
    primary::PrimaryHandle,
};

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// The workers, now.
    Status,
    /// The host lines of a standing desk that lives as long as the session.
    Hosts,
    /// A desk of its own for one build.
    Build,
    /// End the session.
    Down,
}

/// The answer to [`Request::Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The session's name.
    pub session: String,
    /// The primary's process id.
    pub pid: u32,
    /// Where descriptors are exchanged, in words.
    pub rendezvous: String,
    /// How many workers can take jobs now.
    pub ready: u32,
    /// The workers.
    pub workers: Vec<WorkerView>,
    /// CPU time of the session's process in milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
}

/// The answer to [`Request::Hosts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// One `127.0.0.1:PORT/SLOTS,lzo` each.
    pub lines: Vec<String>,
    /// Slots of all live workers.
    pub capacity: u32,
}

/// The session's side of the socket.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    shared: Shared,
    standing: watch::Sender<Hosts>,
}

#[derive(Clone)]
struct Shared {
    primary: PrimaryHandle,
    session: String,
    rendezvous: String,
    hosts: watch::Receiver<Hosts>,
    down: mpsc::Sender<()>,
}

impl Server {
    /// Binds the socket; a socket file left by a dead session is replaced (the caller holds the session's lock).
    pub fn bind(
        path: &Path,
        primary: PrimaryHandle,
        names: (String, String),
        down: mpsc::Sender<()>,
    ) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        let (standing, hosts) = watch::channel(Hosts::default());
        let (session, rendezvous) = names;
        let shared = Shared {
            primary,
            session,
            rendezvous,
            hosts,
            down,
        };
        Ok(Self {
            listener,
            path: path.to_owned(),
            shared,
            standing,
        })
    }

    /// Serves until its task is aborted; then the socket file is removed.
    pub async fn run(self) {
        let _standing = tokio::spawn(standing_desk(
            self.shared.primary.clone(),
            self.standing.clone(),
        ));
        let _remove = RemoveOnDrop(self.path.clone());
        loop {
            // Accepting fails only when descriptors run out; the next client may have more luck.
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let shared = self.shared.clone();
            tokio::spawn(async move {
                // A client that went away is its own affair.
                drop(shared.serve(stream).await);
            });
        }
    }
}

/// The desk behind `distmesh hosts`, for builds that distmesh does not wrap: stranded jobs are handed back as they come.
async fn standing_desk(primary: PrimaryHandle, hosts: watch::Sender<Hosts>) {
    let (updates, mut updated) = mpsc::channel(UPDATES);
    let Ok(desk) = primary.open_build(updates) else {
        return;
    };
    while let Some(update) = updated.recv().await {
        match update {
            BuildUpdate::Hosts { lines, .. } => hosts.send_modify(|hosts| hosts.lines = lines),
            BuildUpdate::Load { load, .. } => {
                hosts.send_modify(|hosts| hosts.capacity = load.capacity);
                if load.stranded > 0 {
                    let jobs = load.stranded;
                    desk.feedback(BuildFeedback::HandBack { jobs });
                    // One that came meanwhile makes the load what it was, of which nobody would tell.
                    desk.feedback(BuildFeedback::AskLoad);
                }
            }
            BuildUpdate::Refused { .. }
            | BuildUpdate::Admitted { .. }
            | BuildUpdate::Job(_)
            | BuildUpdate::Worker(_)
            | BuildUpdate::Event(_) => {}
        }
    }
}

impl Shared {
    async fn serve(self, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read);
        let Some(request) = read_line::<Request>(&mut lines).await? else {
            return Ok(());
        };
        match request {
            Request::Status => {
                let workers = self.primary.views().await.map_err(io::Error::other)?;
                let status = Status {
                    session: self.session,
                    pid: std::process::id(),
                    rendezvous: self.rendezvous,
                    workers,
                    ready: *self.primary.ready().borrow(),
                    cpu_ms: cpu::own().as_millis() as u64,
                };
                write_line(&mut write, &status).await
            }
            Request::Hosts => {
                let hosts = self.hosts.borrow().clone();
                write_line(&mut write, &hosts).await
            }
            Request::Down => {
                // A second request while the first is served changes nothing.
                let _ = self.down.try_send(());
                // The client waits for the end of the connection, which comes with the end of the process.
                drop(lines.read_u8().await);
                Ok(())
            }
            Request::Build => self.serve_build(lines, write).await,
        }
    }

    /// Passes on what both say, line by line, until the conversation is over.
    async fn serve_build(
        self,
        lines: BufReader<OwnedReadHalf>,
        write: OwnedWriteHalf,
    ) -> io::Result<()> {
        let conversation = Conversation::open(self.primary)?;
        let (feedback, said) = mpsc::channel(UPDATES);
        let (update, updates) = mpsc::channel(UPDATES);
        let listen = async move {
            read_lines(lines, feedback).await;
            // What is still to be told decides the end.
            std::future::pending::<()>().await;
        };
        let talk = async move {
            tokio::select! {
                () = conversation.run(said, update) => {}
                () = listen => {}
            }
        };
        let ((), written) = tokio::join!(talk, write_lines(updates, write));
        written
    }
}

/// What a session and one of its builds say to each other.
struct Conversation {
    primary: PrimaryHandle,
    desk: BuildDesk,
    /// What happened before.
    incidents: Vec<Event>,
    updated: mpsc::Receiver<BuildUpdate>,
    events: broadcast::Receiver<Event>,
}

impl Conversation {
    fn open(primary: PrimaryHandle) -> io::Result<Self> {
        let (updates, updated) = mpsc::channel(UPDATES);
        Ok(Self {
            desk: primary.open_build(updates)?,
            incidents: primary.incidents(),
            events: primary.events(),
            updated,
            primary,
        })
    }

    /// Until either has ended.
    async fn run(self, mut said: mpsc::Receiver<BuildFeedback>, tell: mpsc::Sender<BuildUpdate>) {
        let Self {
            primary,
            desk,
            incidents: mut before,
            mut updated,
            mut events,
        } = self;
        before.extend(primary.refusals().await.unwrap_or_default());
        for event in before {
            if tell.send(BuildUpdate::Event(event)).await.is_err() {
                return;
            }
        }
        let listen = async {
            while let Some(feedback) = said.recv().await {
                primary.feedback(&desk, feedback).await;
            }
            // The build is over; what its last jobs did is still told.
            tokio::time::sleep(LAST_WORDS).await;
        };
        let speak = async {
            loop {
                let update = tokio::select! {
                    update = updated.recv() => update,
                    // One that falls behind misses some: the workers' state comes with the other updates anyway.
                    event = events.recv() => match event {
                        Ok(event) => Some(BuildUpdate::Event(event)),
                        Err(RecvError::Lagged(_)) => continue,
                        Err(RecvError::Closed) => None,
                    },
                };
                let Some(update) = update else { return };
                if tell.send(update).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! { () = listen => {} () = speak => {} }
    }
}

/// Asks one question and waits for its answer.
pub async fn ask<T: DeserializeOwned>(socket: &Path, request: Request) -> io::Result<T> {
    let (mut lines, _write) = connect(socket, request).await?;
    let answer = tokio::time::timeout(ANSWER, read_line(&mut lines)).await;
    let answer = answer
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the session does not answer"))??;
    answer.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the session closed the connection",
        )
    })
}

/// Asks the session to end and waits until it has.
pub async fn down(socket: &Path) -> io::Result<()> {
    let (mut lines, _write) = connect(socket, Request::Down).await?;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(DOWN, lines.read_to_end(&mut rest)).await;
    ended.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the session does not end"))??;
    Ok(())
}

/// A build's connection to its session.
pub struct BuildLine {
    /// What the session says; ends when the session does.
    pub updates: mpsc::Receiver<BuildUpdate>,
    /// What the build says.
    pub feedback: mpsc::Sender<BuildFeedback>,
    /// The short way to the load, if there is one.
    pub load_now: Option<LoadNow>,
}

/// Opens a desk for one build in the primary's own process.
pub fn open_build_here(primary: PrimaryHandle) -> io::Result<BuildLine> {
    let conversation = Conversation::open(primary)?;
    let (update, updates) = mpsc::channel(UPDATES);
    let (feedback, said) = mpsc::channel(UPDATES);
    let load_now = Some(conversation.desk.load_now());
    tokio::spawn(conversation.run(said, update));
    Ok(BuildLine {
        updates,
        feedback,
        load_now,
    })
}

/// Opens a desk for one build in the session of another process.
pub async fn open_build(socket: &Path) -> io::Result<BuildLine> {
    let (lines, write) = connect(socket, Request::Build).await?;
    let (update, updates) = mpsc::channel(UPDATES);
    let (feedback, said) = mpsc::channel(UPDATES);
    tokio::spawn(read_lines(lines, update));
    // A session that went away ends the updates, which says it.
    tokio::spawn(async move { drop(write_lines(said, write).await) });
    Ok(BuildLine {
        updates,
        feedback,
        load_now: None,
    })
}

async fn connect(
    socket: &Path,
    request: Request,
) -> io::Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
    let (read, mut write) = UnixStream::connect(socket).await?.into_split();
    write_line(&mut write, &request).await?;
    Ok((BufReader::new(read), write))
}

async fn read_line<T: DeserializeOwned>(
    lines: &mut BufReader<OwnedReadHalf>,
) -> io::Result<Option<T>> {
    let mut text = Vec::new();
    lines.take(MAX_LINE).read_until(b'\n', &mut text).await?;
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Until either end is gone, or says what cannot be read.
async fn read_lines<T: DeserializeOwned>(mut lines: BufReader<OwnedReadHalf>, to: mpsc::Sender<T>) {
    while let Ok(Some(next)) = read_line(&mut lines).await {
        if to.send(next).await.is_err() {
            return;
        }
    }
}

/// What is there together goes by one call.
async fn write_lines<T: Serialize>(
    mut from: mpsc::Receiver<T>,
    mut write: OwnedWriteHalf,
) -> io::Result<()> {
    while let Some(first) = from.recv().await {
        let mut text = line_of(&first)?;
        while let Ok(next) = from.try_recv() {
            text.extend(line_of(&next)?);
        }
        write.write_all(&text).await?;
    }
    Ok(())
}

async fn write_line<T: Serialize>(write: &mut OwnedWriteHalf, message: &T) -> io::Result<()> {
    write.write_all(&line_of(message)?).await
}

fn line_of<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(message)?;
    text.push(b'\n');
    Ok(text)
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        // Gone already is as good.
        drop(std::fs::remove_file(&self.0));
    }
}

/// The status of 256 workers is about 50 KiB.
const MAX_LINE: u64 = 4 << 20;

/// Updates in flight to one build; the session waits for a build that is slow to read, its jobs do not.
const UPDATES: usize = 256;

/// Dispatch tells of a job within a few milliseconds of its end.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(50);

/// A session answers from memory.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(5);

/// Longer than a session needs to say goodbye and to withdraw its descriptor.
const DOWN: std::time::Duration = std::time::Duration::from_secs(10);

/// Long enough for a descriptor to become free.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
