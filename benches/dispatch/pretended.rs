//! Workers whose compiles are sleep.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use distmesh::{
    session::{Descriptor, Role},
    tunnel::{Tunnel, TunnelEvent},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc::UnboundedReceiver,
    time::sleep,
};

use crate::{
    talk::{NUMBER, Talk, number, parse_number},
    tunnels,
};

/// One worker: what it says, and how many jobs it has and has had at once.
pub(crate) struct Pretended {
    talk: Talk,
    answer: Vec<u8>,
    running: AtomicU32,
    most: AtomicU32,
}

impl Pretended {
    pub(crate) fn new(talk: &Talk) -> Arc<Self> {
        let mut answer = talk.answer_head();
        answer.resize(answer.len() + talk.object, b'o');
        Arc::new(Self {
            talk: talk.clone(),
            answer,
            running: AtomicU32::new(0),
            most: AtomicU32::new(0),
        })
    }

    /// The most jobs that it ever had at once.
    pub(crate) fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// Serves TCP connections; where.
    pub(crate) async fn listen(self: Arc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let at = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                drop(connection.set_nodelay(true));
                let (recv, send) = connection.into_split();
                tokio::spawn(self.clone().serve(recv, send));
            }
        });
        at
    }

    /// Serves a tunnel's streams.
    pub(crate) async fn serve_streams(
        self: Arc<Self>,
        _tunnel: Tunnel,
        mut events: UnboundedReceiver<TunnelEvent>,
    ) {
        while let Some(event) = events.recv().await {
            if let TunnelEvent::Incoming { stream, .. } = event {
                let mut recv = stream.recv;
                let worker = self.clone();
                tokio::spawn(async move {
                    if recv.read_u8().await.is_ok() {
                        worker.serve(recv, stream.send).await;
                    }
                });
            }
        }
    }

    /// One job, if it is not given up.
    async fn serve<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        self: Arc<Self>,
        mut recv: R,
        mut send: W,
    ) {
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(running, Ordering::Relaxed);
        let job = self.read(&mut recv).await;
        if let Some(job) = job {
            sleep(self.talk.compile_time(job)).await;
            self.running.fetch_sub(1, Ordering::Relaxed);
            drop(self.answer(job, &mut send).await);
        } else {
            self.running.fetch_sub(1, Ordering::Relaxed);
        }
        // Whoever has the answer closes first, as with distccd.
        while matches!(recv.read(&mut [0; 64]).await, Ok(1..)) {}
    }

    async fn read(&self, recv: &mut (impl AsyncRead + Unpin)) -> Option<u32> {
        let mut head = self.talk.request_head();
        recv.read_exact(&mut head).await.ok()?;
        let mut number = [0; NUMBER];
        recv.read_exact(&mut number).await.ok()?;
        skip(recv, self.talk.source - NUMBER).await?;
        parse_number(number)
    }

    async fn answer(&self, job: u32, send: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        let body = self.talk.answer_head().len();
        send.write_all(&self.answer[..body]).await?;
        send.write_all(&number(job)).await?;
        send.write_all(&self.answer[body + NUMBER..]).await?;
        send.shutdown().await
    }
}

/// Reads so many bytes and forgets them; `None` if they do not come.
pub(crate) async fn skip(from: &mut (impl AsyncRead + Unpin), mut bytes: usize) -> Option<()> {
    let mut chunk = vec![0; CHUNK.min(bytes)];
    while bytes > 0 {
        let room = CHUNK.min(bytes);
        match from.read(&mut chunk[..room]).await {
            Ok(count @ 1..) => bytes -= count,
            Ok(0) | Err(_) => return None,
        }
    }
    Some(())
}

/// Starts a tunnel for each; their descriptors, and where to tell them of the primary.
pub(crate) fn with_tunnels(workers: &[Arc<Pretended>]) -> (Vec<Descriptor>, Vec<Tunnel>) {
    let keys = tunnels::keys();
    let mut told = (Vec::new(), Vec::new());
    for (number, worker) in workers.iter().enumerate() {
        let (tunnel, events) = tunnels::start(keys.clone(), Role::Worker, number);
        told.0.push(tunnel.descriptor().borrow().clone());
        told.1.push(tunnel.clone());
        tokio::spawn(worker.clone().serve_streams(tunnel, events));
    }
    told
}

const CHUNK: usize = 64 << 10;
