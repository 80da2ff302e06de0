//! The process behind [`crate::lab::Lab::node`]: the program's tunnel and rendezvous, telling what happens to its links.

use std::{
    env,
    io::{Read, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use distmesh::{
    event::LinkState,
    mesh::Route,
    node::{Node, NodeConfig, unix_ms},
    rendezvous::Directory,
    session::{Role, Secret, SessionKeys},
    tunnel::{Stream, TunnelEvent},
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
#[ignore = "a process that other tests start"]
fn a_node() {
    live_if_asked();
}

/// Is a node to the end of its standard input, if the environment says so.
pub(crate) fn live_if_asked() -> bool {
    let Ok(role) = env::var("LAB_ROLE") else {
        return false;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(live(if role == "primary" {
        Role::Primary
    } else {
        Role::Worker
    }));
    true
}

async fn live(role: Role) {
    let session = "lab".parse().unwrap();
    let secret = Secret::new(b"a laboratory's".to_vec()).unwrap();
    let config = NodeConfig {
        role,
        name: env::var("LAB_NAME").unwrap().parse().unwrap(),
        keys: Arc::new(SessionKeys::derive(&secret, &session).unwrap()),
        session,
        rendezvous: Arc::new(
            Directory::open(Path::new(&env::var("LAB_RENDEZVOUS").unwrap())).unwrap(),
        ),
        bind: None,
        stun: env::var("LAB_STUN")
            .unwrap()
            .split(',')
            .map(|addr| addr.parse().unwrap())
            .collect(),
    };
    let (node, mut events) = Node::start(config).unwrap();
    let mut described = node.tunnel.descriptor();
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    tokio::pin!(ended);
    loop {
        tokio::select! {
            Some(event) = events.tunnel.recv() => handle(&node, event),
            Ok(()) = described.changed() => {
                let nat = described.borrow_and_update().nat.to_string();
                say(&json!({"ms": unix_ms(), "nat": nat}));
            }
            Some(_) = events.rendezvous.recv() => {}
            _ = &mut ended => break,
        }
    }
    node.stop("the story is over").await;
}

fn handle(node: &Node, event: TunnelEvent) {
    match event {
        TunnelEvent::Link {
            peer,
            name,
            state,
            reason,
            route,
            rtt,
            ..
        } => {
            let route = route.map(|route| match route {
                Route::Direct(_) => "direct",
                Route::Relayed(_) => "relayed",
            });
            let name = name.to_string();
            say(&json!({
                "ms": unix_ms(), "peer": name, "state": state.to_string(), "reason": reason, "route": route,
                "rtt_us": rtt.map(|rtt| rtt.as_micros() as u64),
            }));
            if state == LinkState::Up && reason == "connected" {
                let tunnel = node.tunnel.clone();
                tokio::spawn(async move {
                    while let Ok(stream) = tunnel.open(peer).await {
                        if echoes(stream).await {
                            say(&json!({"ms": unix_ms(), "echo": name}));
                        }
                        let Some(pause) = pause() else { return };
                        tokio::time::sleep(pause).await;
                    }
                });
            }
        }
        TunnelEvent::Incoming { stream, .. } => drop(tokio::spawn(echo(stream))),
        TunnelEvent::PeerClosed { reason, .. } => say(&json!({"ms": unix_ms(), "closed": reason})),
    }
}

/// Between two echoes: what the story wrote into a file; for ever, if there is none.
fn pause() -> Option<Duration> {
    let text = std::fs::read_to_string(env::var("LAB_PAUSE_MS").ok()?).ok()?;
    Some(Duration::from_millis(text.trim().parse().ok()?))
}

/// Sends more than fits into a few packets, and waits for all of it.
async fn echoes(mut stream: Stream) -> bool {
    let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    let mut back = Vec::new();
    let send = async {
        stream.send.write_all(&sent).await?;
        stream.send.shutdown().await
    };
    let (sending, reading) = tokio::join!(send, stream.recv.read_to_end(&mut back));
    sending.is_ok() && reading.is_ok() && back == sent
}

async fn echo(stream: Stream) {
    let Stream { mut send, mut recv } = stream;
    if tokio::io::copy(&mut recv, &mut send).await.is_ok() {
        // The other side sees an end only if this one gets through.
        let _ = send.shutdown().await;
    }
}

fn say(line: &serde_json::Value) {
    let mut out = std::io::stdout();
    // The test runner leaves a line unfinished before the first. Nobody listens when the story is over.
    let _ = writeln!(out, "\n{line}");
    let _ = out.flush();
}
