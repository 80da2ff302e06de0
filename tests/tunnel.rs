//! Two real tunnels on this machine's loopback: links, streams, and how they end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use distmesh::{
    event::LinkState,
    session::{Identity, PeerId, Role, Secret, SessionKeys},
    tunnel::{Stream, Tunnel, TunnelConfig, TunnelEvent},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc::UnboundedReceiver,
    time::timeout,
};

type Events = UnboundedReceiver<TunnelEvent>;

struct Node {
    tunnel: Tunnel,
    events: Events,
    peer: PeerId,
}

fn node(role: Role, secret: &str) -> Node {
    let keys = SessionKeys::derive(&Secret::new(secret.into()).unwrap(), &"s".parse().unwrap());
    let identity = Identity::generate().unwrap();
    let peer = identity.peer();
    let config = TunnelConfig {
        identity,
        keys: Arc::new(keys.unwrap()),
        role,
        name: role.to_string().parse().unwrap(),
        start_ms: 1,
        bind: Some("127.0.0.1:0".parse().unwrap()),
        stun: vec![],
    };
    let (tunnel, events) = Tunnel::start(config).unwrap();
    Node {
        tunnel,
        events,
        peer,
    }
}

fn introduce(a: &Node, b: &Node) {
    a.tunnel.peer_found(b.tunnel.descriptor().borrow().clone());
    b.tunnel.peer_found(a.tunnel.descriptor().borrow().clone());
}

/// A step that never comes fails the test instead of hanging it.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), what)
        .await
        .expect("it never happened")
}

async fn until_state(events: &mut Events, wanted: LinkState) {
    soon(async {
        loop {
            if let Some(TunnelEvent::Link { state, .. }) = events.recv().await
                && state == wanted
            {
                return;
            }
        }
    })
    .await;
}

async fn incoming(events: &mut Events) -> Stream {
    soon(async {
        loop {
            if let Some(TunnelEvent::Incoming { stream, .. }) = events.recv().await {
                return stream;
            }
        }
    })
    .await
}

async fn linked() -> (Node, Node) {
    let (mut primary, mut worker) = (node(Role::Primary, "one"), node(Role::Worker, "one"));
    introduce(&primary, &worker);
    until_state(&mut primary.events, LinkState::Up).await;
    until_state(&mut worker.events, LinkState::Up).await;
    (primary, worker)
}

fn noise(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// What a worker does with a job: reads all, checks it, answers.
async fn answer(mut stream: Stream) {
    let mut request = Vec::new();
    stream.recv.read_to_end(&mut request).await.unwrap();
    let seed = u32::from_be_bytes(request[..4].try_into().unwrap());
    assert!(request[4..] == noise(250_000, seed));
    stream
        .send
        .write_all(&noise(100_000, seed + 1))
        .await
        .unwrap();
    stream.send.shutdown().await.unwrap();
}

async fn ask(tunnel: Tunnel, peer: PeerId, seed: u32) {
    let mut stream = tunnel.open(peer).await.unwrap();
    stream.send.write_all(&seed.to_be_bytes()).await.unwrap();
    stream.send.write_all(&noise(250_000, seed)).await.unwrap();
    stream.send.shutdown().await.unwrap();
    let mut response = Vec::new();
    stream.recv.read_to_end(&mut response).await.unwrap();
    assert!(response == noise(100_000, seed + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_jobs_at_once_arrive_whole() {
    let (primary, mut worker) = linked().await;
    tokio::spawn(async move {
        loop {
            tokio::spawn(answer(incoming(&mut worker.events).await));
        }
    });
    let jobs: Vec<_> = (0..100)
        .map(|seed| tokio::spawn(ask(primary.tunnel.clone(), worker.peer, seed)))
        .collect();
    for job in jobs {
        soon(job).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_given_up_is_noticed_by_the_worker() {
    let (primary, mut worker) = linked().await;
    let mut stream = primary.tunnel.open(worker.peer).await.unwrap();
    stream.send.write_all(b"half a request").await.unwrap();
    let mut seen = incoming(&mut worker.events).await;
    let mut begin = [0; 14];
    soon(seen.recv.read_exact(&mut begin)).await.unwrap();
    drop(stream);
    let error = soon(seen.recv.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_gives_a_job_up_is_noticed_while_the_primary_waits() {
    let (primary, mut worker) = linked().await;
    let mut stream = primary.tunnel.open(worker.peer).await.unwrap();
    stream.send.write_all(b"a request").await.unwrap();
    drop(incoming(&mut worker.events).await);
    let error = soon(stream.recv.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_breaks_the_streams_and_says_why() {
    let (mut primary, worker) = linked().await;
    let mut stream = primary.tunnel.open(worker.peer).await.unwrap();
    stream.send.write_all(b"a request").await.unwrap();
    soon(worker.tunnel.stop("the machine is needed")).await;
    assert!(soon(stream.recv.read_u8()).await.is_err());
    let reason = soon(async {
        loop {
            if let Some(TunnelEvent::PeerClosed { reason, .. }) = primary.events.recv().await {
                return reason;
            }
        }
    });
    assert_eq!(reason.await, "the machine is needed");
    assert!(primary.tunnel.open(worker.peer).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_secret_makes_no_link() {
    let (mut primary, worker) = (node(Role::Primary, "one"), node(Role::Worker, "two"));
    introduce(&primary, &worker);
    let up = timeout(
        Duration::from_secs(2),
        until_state(&mut primary.events, LinkState::Handshaking),
    );
    assert!(up.await.is_err(), "a probe under another key was believed");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let keys = SessionKeys::derive(
        &Secret::new(b"one".to_vec()).unwrap(),
        &"s".parse().unwrap(),
    );
    let config = TunnelConfig {
        identity: Identity::generate().unwrap(),
        keys: Arc::new(keys.unwrap()),
        role: Role::Worker,
        name: "w".parse().unwrap(),
        start_ms: 1,
        bind: Some(taken.local_addr().unwrap()),
        stun: vec![],
    };
    let error = Tunnel::start(config).map(drop).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot bind a UDP socket to {}",
            taken.local_addr().unwrap()
        )
    );
}
