//! The processes at the ends: this benchmark started again, once on each machine.
//!
//! The server serves; the client does what it is told on its standard input, one JSON line a task, and answers in kind.

use std::{
    env, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use distmesh::{
    event::LinkState,
    node::{Node, NodeConfig, NodeEvents},
    rendezvous::Directory,
    session::{PeerId, Role, Secret, SessionKeys},
    tunnel::{Stream, TunnelEvent},
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    traffic::{Bulk, Pattern, Reader, Writer},
    watch::now,
};

/// Names the end that a process is to be.
const END: &str = "DISTMESH_BENCH_END";

/// Which end, and what lies between.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct End {
    pub(crate) server: bool,
    pub(crate) via: Via,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Via {
    /// The server listens here.
    Tcp(SocketAddr),
    /// The nodes find each other in this directory.
    Mesh(PathBuf),
}

/// What a client is told to do.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum Task {
    Bulk { seconds: f64 },
    Jobs { at_once: usize, seconds: f64 },
}

/// What came of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Told {
    Ready,
    Bulk(Bulk),
    /// Milliseconds of each job.
    Jobs(Vec<f64>),
    Failed(String),
}

impl End {
    pub(crate) fn to_environment(&self) -> (&'static str, String) {
        (END, serde_json::to_string(self).expect("plain data"))
    }
}

/// Is an end, if this process was started as one.
pub(crate) fn serve_if_asked() -> Option<ExitCode> {
    let end: End = serde_json::from_str(&env::var(END).ok()?).expect("an end");
    // As the program does it: a task.
    let runtime = distmesh::commands::runtime().expect("a runtime");
    let done = runtime.block_on(async {
        let ended = tokio::spawn(live(end)).await;
        ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    });
    if let Err(error) = &done {
        say(&Told::Failed(error.to_string()));
    }
    runtime.shutdown_background();
    Some(if done.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn live(end: End) -> io::Result<()> {
    let pattern = Arc::new(Pattern::new());
    match (end.via, end.server) {
        (Via::Tcp(at), true) => serve_tcp(at, pattern).await,
        (Via::Tcp(at), false) => drive(Dial::Tcp(at), pattern).await,
        (Via::Mesh(rendezvous), true) => {
            let (_node, mut events) = node(Role::Worker, &rendezvous)?;
            await_link(&mut events).await?;
            say(&Told::Ready);
            while let Some(event) = events.tunnel.recv().await {
                if let TunnelEvent::Incoming { stream, .. } = event {
                    spawn_server(split(stream), &pattern);
                }
            }
            Ok(())
        }
        (Via::Mesh(rendezvous), false) => {
            let (node, mut events) = node(Role::Primary, &rendezvous)?;
            let peer = await_link(&mut events).await?;
            drive(Dial::Mesh(node, peer), pattern).await
        }
    }
}

fn node(role: Role, rendezvous: &Path) -> io::Result<(Node, NodeEvents)> {
    let session = "bench".parse().map_err(io::Error::other)?;
    let secret = Secret::new(b"a benchmark's".to_vec()).map_err(io::Error::other)?;
    let config = NodeConfig {
        role,
        name: role.to_string().parse().map_err(io::Error::other)?,
        keys: Arc::new(SessionKeys::derive(&secret, &session).map_err(io::Error::other)?),
        session,
        rendezvous: Arc::new(Directory::open(rendezvous).map_err(io::Error::other)?),
        bind: None,
        stun: Vec::new(),
    };
    Node::start(config).map_err(io::Error::other)
}

async fn await_link(events: &mut NodeEvents) -> io::Result<PeerId> {
    while let Some(event) = events.tunnel.recv().await {
        if let TunnelEvent::Link {
            peer,
            state: LinkState::Up,
            ..
        } = event
        {
            return Ok(peer);
        }
    }
    Err(io::Error::other("the tunnel ended"))
}

fn split(stream: Stream) -> (Reader, Writer) {
    (Box::new(stream.recv), Box::new(stream.send))
}

fn split_tcp(stream: TcpStream) -> io::Result<(Reader, Writer)> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Ok((Box::new(reader), Box::new(writer)))
}

async fn serve_tcp(at: SocketAddr, pattern: Arc<Pattern>) -> io::Result<()> {
    let listener = TcpListener::bind(at).await?;
    say(&Told::Ready);
    loop {
        let (stream, _) = listener.accept().await?;
        spawn_server(split_tcp(stream)?, &pattern);
    }
}

fn spawn_server((reader, writer): (Reader, Writer), pattern: &Arc<Pattern>) {
    let pattern = Arc::clone(pattern);
    tokio::spawn(async move {
        if let Err(error) = pattern.serve(reader, writer).await {
            // The client finds out, too: what it waits for does not come.
            eprintln!("the server: {error}");
        }
    });
}

/// How a client reaches its server.
enum Dial {
    Tcp(SocketAddr),
    Mesh(Node, PeerId),
}

impl Dial {
    async fn open(&self) -> io::Result<(Reader, Writer)> {
        match self {
            Self::Tcp(at) => split_tcp(TcpStream::connect(at).await?),
            Self::Mesh(node, peer) => {
                let stream = node.tunnel.open(*peer).await;
                stream.map(split).map_err(io::Error::other)
            }
        }
    }

    /// TCP connections stay warm; a link is warm for all of its streams, and a job has one of its own.
    fn keeps_lanes(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }
}

async fn drive(dial: Dial, pattern: Arc<Pattern>) -> io::Result<()> {
    let dial = Arc::new(dial);
    say(&Told::Ready);
    let (give, mut tasks) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            drop(give.blocking_send(line));
        }
    });
    while let Some(line) = tasks.recv().await {
        let told = match serde_json::from_str(&line)? {
            Task::Bulk { seconds } => {
                let time = Duration::from_secs_f64(seconds);
                Told::Bulk(pattern.send_bulk(dial.open().await?, time).await?)
            }
            Task::Jobs { at_once, seconds } => {
                let time = Duration::from_secs_f64(seconds);
                Told::Jobs(jobs(&dial, &pattern, at_once, time).await?)
            }
        };
        say(&told);
    }
    Ok(())
}

/// Jobs one after another on so many lanes, for so long. The first of each lane warms it and is not counted.
async fn jobs(
    dial: &Arc<Dial>,
    pattern: &Arc<Pattern>,
    at_once: usize,
    time: Duration,
) -> io::Result<Vec<f64>> {
    let until = now() + time;
    let mut lanes = JoinSet::new();
    for lane in 0..at_once as u64 {
        let (dial, pattern) = (Arc::clone(dial), Arc::clone(pattern));
        lanes.spawn(async move {
            let (mut took, mut line) = (Vec::new(), None);
            // Other bytes in each job, so that answers that are mixed up are noticed.
            for seed in (lane * 7_919..).step_by(131_071) {
                let began = now();
                let (reader, writer) = match &mut line {
                    Some(line) => line,
                    none => none.insert(dial.open().await?),
                };
                pattern.ask(seed, reader, writer).await?;
                took.push(began.elapsed().as_secs_f64() * 1e3);
                line = line.filter(|_| dial.keeps_lanes());
                if now() >= until && took.len() > 1 {
                    break;
                }
            }
            Ok::<_, io::Error>(took.split_off(1))
        });
    }
    let mut all = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        all.extend(lane.map_err(io::Error::other)??);
    }
    Ok(all)
}

fn say(told: &Told) {
    println!("{}", serde_json::to_string(told).expect("plain data"));
}
