//! The process under measurement on the worker's side: the relay before distccd.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use distmesh::{
    admission::Catalogue,
    distcc::relay,
    session::{Descriptor, Role},
    tunnel::{Stream, Tunnel, TunnelEvent},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpListener,
    runtime::Runtime,
    sync::mpsc::UnboundedReceiver,
};

use crate::{
    measure::usage::Usage,
    role::{answer, say, told},
    tunnels,
};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) distccd: SocketAddr,
    /// Reached through the tunnel, not by TCP.
    pub(crate) tunnel: bool,
    /// Where a gcc is, and nothing else.
    pub(crate) compilers: PathBuf,
}

/// Vouches for compilers as a worker does: by a look at the files of the real gcc, before and after each job.
#[derive(Clone)]
struct Desk {
    distccd: SocketAddr,
    catalogue: Arc<Catalogue>,
    gcc: Arc<str>,
}

pub(crate) fn live(runtime: &Runtime, task: &Task) {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let search = task.compilers.clone().into_os_string();
    let (catalogue, warnings) = Catalogue::find(search, scratch.path().to_owned());
    assert!(warnings.is_empty(), "{warnings:?}");
    let gcc = catalogue.paths()[0].to_str().expect("a plain path").into();
    let desk = Desk {
        distccd: task.distccd,
        catalogue: Arc::new(catalogue),
        gcc,
    };
    if task.tunnel {
        let (tunnel, events) = tunnels::start(tunnels::keys(), Role::Worker, 0);
        say(&[&*tunnel.descriptor().borrow()]);
        tunnel.peer_found(told::<Descriptor>(runtime).expect("the primary's descriptor"));
        runtime.spawn(desk.serve_streams(tunnel, events));
    } else {
        let listener = TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(listener).expect("a free port");
        say(&[listener.local_addr().expect("its address")]);
        runtime.spawn(desk.serve_connections(listener));
    }
    answer(runtime, Usage::of_this_process);
}

impl Desk {
    async fn serve_connections(self, listener: TcpListener) {
        while let Ok((connection, _)) = listener.accept().await {
            connection.set_nodelay(true).expect("a fresh connection");
            let (recv, send) = connection.into_split();
            tokio::spawn(self.clone().relay(recv, send));
        }
    }

    async fn serve_streams(self, _tunnel: Tunnel, mut events: UnboundedReceiver<TunnelEvent>) {
        while let Some(event) = events.recv().await {
            if let TunnelEvent::Incoming { stream, .. } = event {
                let Stream { send, mut recv } = stream;
                let desk = self.clone();
                tokio::spawn(async move {
                    // The stream's kind: here it is always a job.
                    if recv.read_u8().await.is_ok() {
                        desk.relay(recv, send).await;
                    }
                });
            }
        }
    }

    async fn relay<R, W>(self, recv: R, send: W)
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let vouches = |_: &str| self.catalogue.vouches_for(&self.gcc);
        if let Err(error) = relay(recv, send, self.distccd, vouches).await {
            eprintln!("a job failed in the relay: {error}");
        }
    }
}
