//! Tunnels on loopback.

use std::sync::Arc;

use distmesh::{
    session::{Identity, Role, Secret, SessionKeys},
    tunnel::{Tunnel, TunnelConfig, TunnelEvent},
};
use tokio::sync::mpsc::UnboundedReceiver;

/// The keys of the benchmark's session. Deriving them takes a while: nodes of one process share them.
pub(crate) fn keys() -> Arc<SessionKeys> {
    let secret = Secret::new(b"a secret of no importance, and long".to_vec()).expect("long enough");
    let session = "bench".parse().expect("a plain name");
    Arc::new(SessionKeys::derive(&secret, &session).expect("keys"))
}

/// A node of the benchmark's session.
pub(crate) fn start(
    keys: Arc<SessionKeys>,
    role: Role,
    number: usize,
) -> (Tunnel, UnboundedReceiver<TunnelEvent>) {
    Tunnel::start(TunnelConfig {
        identity: Identity::generate().expect("randomness"),
        keys,
        role,
        name: format!("{role}-{number}").parse().expect("a plain name"),
        start_ms: 1,
        bind: Some(([127, 0, 0, 1], 0).into()),
        stun: Vec::new(),
    })
    .expect("a UDP socket")
}
