//! Where a second socket on the same port would take another's datagrams, all links share one.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    task::{Context, Poll},
};

use quinn_udp::UdpSocketState;
use tokio::net::UdpSocket;

/// No sockets.
#[derive(Default)]
pub(super) struct Linked;

impl Linked {
    pub(super) fn set(&mut self, _main: &UdpSocket, _remotes: &BTreeSet<SocketAddr>) {}

    pub(super) fn poll_readable(&self, _context: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&UdpSocket, &UdpSocketState)> {
        std::iter::empty()
    }
}
