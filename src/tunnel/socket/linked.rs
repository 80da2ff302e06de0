//! Sockets of their own for the links that are up: a receive buffer each.
//!
//! All links of a node share one port, and with it one receive buffer: 212,992 bytes on a stock Linux, which hold 92
//! datagrams. There a socket that is bound to the same port and connected to a peer gets what comes from him, and has a
//! buffer of its own (measured: `nat.md`, section 5). NATs see no difference: it is the same port.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use quinn_udp::{UdpSockRef, UdpSocketState};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, ipproto, socket_with, sockopt,
};
use tokio::net::UdpSocket;

use super::KERNEL_BUFFER;

/// The connected sockets, by the address that they are connected to.
#[derive(Default)]
pub(super) struct Linked {
    sockets: BTreeMap<SocketAddr, (UdpSocket, UdpSocketState)>,
}

impl Linked {
    /// Makes these the connected ones. A socket that cannot be had is no loss: the main one gets what comes.
    pub(super) fn set(&mut self, main: &UdpSocket, remotes: &BTreeSet<SocketAddr>) {
        self.sockets.retain(|remote, _| remotes.contains(remote));
        for remote in remotes {
            if self.sockets.contains_key(remote) {
                continue;
            }
            match connected(main, *remote) {
                Ok(socket) => drop(self.sockets.insert(*remote, socket)),
                Err(error) => tracing::debug!(%remote, %error, "no socket of its own for a link"),
            }
        }
    }

    /// Ready when one of them has something.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut any = Poll::Pending;
        // All are asked, so that each wakes the task.
        for (socket, _) in self.sockets.values() {
            if socket.poll_recv_ready(context).is_ready() {
                any = Poll::Ready(());
            }
        }
        any
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&UdpSocket, &UdpSocketState)> {
        self.sockets.values().map(|(socket, state)| (socket, state))
    }
}

fn connected(main: &UdpSocket, remote: SocketAddr) -> io::Result<(UdpSocket, UdpSocketState)> {
    let local = main.local_addr()?;
    let family = match local {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    // Set on the main one only now: when it was bound, a port that somebody else has was to be an error.
    sockopt::set_socket_reuseport(main, true)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
    sockopt::set_socket_reuseport(&socket, true)?;
    if local.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, sockopt::ipv6_v6only(main)?)?;
    }
    bind(&socket, &local)?;
    connect(&socket, &remote)?;
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(socket))?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    drop(state.set_recv_buffer_size(UdpSockRef::from(&socket), KERNEL_BUFFER));
    Ok((socket, state))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tunnel::socket::Socket;

    /// Sends from a socket of its own until a receive buffer is more than half full.
    async fn send_much(to: SocketAddr, count: usize) -> UdpSocket {
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..count {
            peer.send_to(&[0; 1_400], to).await.unwrap();
        }
        peer
    }

    /// How many of so many datagrams each of four peers get through before anybody reads.
    async fn received(linked: bool, count: usize) -> usize {
        let mut socket = Socket::bind(Some("127.0.0.1:0".parse().unwrap())).unwrap();
        let to = socket.local_addr().unwrap();
        let mut peers = Vec::new();
        for _ in 0..4 {
            peers.push(send_much(to, 1).await);
        }
        if linked {
            socket.link(peers.iter().map(|peer| peer.local_addr().unwrap()));
        }
        for peer in &peers {
            for _ in 1..count {
                peer.send_to(&[0; 1_400], to).await.unwrap();
            }
        }
        let mut received = 0;
        loop {
            let before = received;
            // Nothing more within this: what was dropped does not come.
            drop(tokio::time::timeout(Duration::from_millis(200), socket.readable()).await);
            socket.receive(|_, _| received += 1);
            if received == before {
                return received;
            }
        }
    }

    #[tokio::test]
    async fn every_link_has_a_receive_buffer_of_its_own() {
        let one = Socket::bind(Some("127.0.0.1:0".parse().unwrap())).unwrap();
        let buffer = sockopt::socket_recv_buffer_size(&one.socket).unwrap();
        // The kernel charges 2,304 bytes for each of these; together they are more than two buffers hold.
        let count = buffer / 2_304 * 6 / 10;
        assert_eq!(received(true, count).await, 4 * count);
        assert!(
            received(false, count).await < 4 * count,
            "one buffer held them all"
        );
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error_whatever_its_owner_does() {
        let mut first = Socket::bind(Some("127.0.0.1:0".parse().unwrap())).unwrap();
        first.link(["127.0.0.1:9".parse().unwrap()].into_iter());
        let again = Socket::bind(Some(first.local_addr().unwrap()));
        assert!(again.is_err());
    }
}
