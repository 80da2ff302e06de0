//! The node's one UDP port, in batches: segments of one size go to the kernel, and come from it, together (GSO, GRO).

#[cfg(target_os = "linux")]
mod linked;
#[cfg(not(target_os = "linux"))]
#[path = "socket/unlinked.rs"]
mod linked;

use std::{
    collections::BTreeSet,
    future::poll_fn,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::sockopt;
use tokio::{io::Interest, net::UdpSocket};

use linked::Linked;

/// A bound UDP socket. Addresses it gives and takes are plain IPv4 or IPv6, never IPv4 mapped into IPv6.
pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    dual: bool,
    linked: Linked,
    buffers: Vec<Vec<u8>>,
    pending: Vec<Batch>,
    /// Buffers of batches that were sent.
    spare: Vec<Vec<u8>>,
}

/// Datagrams of one size to one address; the last may be shorter.
struct Batch {
    to: SocketAddr,
    segment: usize,
    bytes: Vec<u8>,
    full: bool,
}

impl Socket {
    /// Binds to `addr`, or to any port of IPv6 and IPv4 together, or of IPv4 alone where there is no IPv6.
    pub(super) fn bind(addr: Option<SocketAddr>) -> io::Result<Self> {
        let socket = match addr {
            Some(addr) => std::net::UdpSocket::bind(addr),
            None => std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
                .or_else(|_| std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))),
        }?;
        socket.set_nonblocking(true)?;
        let dual = socket.local_addr()?.is_ipv6();
        let socket = UdpSocket::from_std(socket)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Without the right to more the kernel gives `rmem_max`; QUIC's windows hold with that too.
        drop(state.set_recv_buffer_size(UdpSockRef::from(&socket), KERNEL_BUFFER));
        drop(state.set_send_buffer_size(UdpSockRef::from(&socket), KERNEL_BUFFER));
        let buffers = (0..BATCHES).map(|_| vec![0; LARGEST_BATCH]).collect();
        Ok(Self {
            socket,
            state,
            dual,
            linked: Linked::default(),
            buffers,
            pending: Vec::new(),
            spare: Vec::new(),
        })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Gives the peers at these addresses receive buffers of their own, where the system can.
    pub(super) fn link(&mut self, remotes: impl Iterator<Item = SocketAddr>) {
        let remotes: BTreeSet<_> = remotes.map(|remote| self.destination(remote)).collect();
        self.linked.set(&self.socket, &remotes);
    }

    /// Waits until something has come.
    pub(super) async fn readable(&self) {
        poll_fn(|context| {
            // Both are asked, so that either wakes the task. An error is seen when something is received.
            let main = self.socket.poll_recv_ready(context).map(drop);
            let linked = self.linked.poll_readable(context);
            if main.is_ready() { main } else { linked }
        })
        .await;
    }

    /// Hands what has come to `take`, datagram by datagram, one batch of each socket at most.
    pub(super) fn receive(&mut self, mut take: impl FnMut(SocketAddr, &[u8])) {
        let Self {
            socket,
            state,
            linked,
            buffers,
            ..
        } = self;
        for (socket, state) in std::iter::once((&*socket, &*state)).chain(linked.iter()) {
            for _ in 0..CALLS {
                match receive(socket, state, buffers, &mut take) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error of an earlier datagram is reported here; the probes see to it.
                    Err(error) => {
                        tracing::trace!(%error, "receive");
                        break;
                    }
                }
            }
        }
    }

    /// Puts a datagram, given in parts, into the current batch, or begins a new one.
    pub(super) fn queue(&mut self, to: SocketAddr, parts: &[&[u8]]) {
        let most = self.state.max_gso_segments().clamp(1, SEGMENTS);
        let len = parts.iter().map(|part| part.len()).sum();
        if let Some(batch) = self.pending.last_mut()
            && batch.takes(to, len, most)
        {
            parts
                .iter()
                .for_each(|part| batch.bytes.extend_from_slice(part));
            // A shorter datagram ends its batch: segments have one size.
            batch.full = len < batch.segment;
            return;
        }
        self.begin(to, parts, false);
    }

    /// Puts a datagram into a batch of its own. One that may be too long for the way has to be: where the device itself cannot take the
    /// segments of a batch, quinn-udp gives up GSO for all.
    pub(super) fn queue_alone(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.begin(to, &[datagram], true);
    }

    fn begin(&mut self, to: SocketAddr, parts: &[&[u8]], full: bool) {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        self.pending.push(Batch {
            to,
            segment: bytes.len(),
            bytes,
            full,
        });
    }

    /// Sends a datagram that is not to get far. Where the system cannot do that, it is not sent.
    pub(super) fn send_near(&self, to: SocketAddr, datagram: &[u8], ttl: u8) {
        if let Err(error) = self.try_send_near(to, datagram, ttl) {
            tracing::debug!(%to, %error, "a datagram that should die on the way was not sent");
        }
    }

    fn try_send_near(&self, to: SocketAddr, datagram: &[u8], ttl: u8) -> io::Result<()> {
        let socket = &self.socket;
        if to.is_ipv6() {
            sockopt::set_ipv6_unicast_hops(socket, Some(ttl))?;
            let sent = socket.try_send_to(datagram, to);
            sockopt::set_ipv6_unicast_hops(socket, None)?;
            return sent.map(drop);
        }
        let usual = sockopt::ip_ttl(socket)?;
        sockopt::set_ip_ttl(socket, ttl.into())?;
        let sent = socket.try_send_to(datagram, self.destination(to));
        sockopt::set_ip_ttl(socket, usual)?;
        sent.map(drop)
    }

    /// Sends every batch. A datagram that the kernel does not take is lost, as it would be on the way.
    pub(super) async fn flush(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        for batch in &pending {
            let to = self.destination(batch.to);
            let transmit = Transmit {
                destination: to,
                ecn: None,
                contents: &batch.bytes,
                segment_size: (batch.bytes.len() > batch.segment).then_some(batch.segment),
                src_ip: None,
            };
            let send = || {
                self.state
                    .try_send(UdpSockRef::from(&self.socket), &transmit)
            };
            match self.socket.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A full send buffer empties within a millisecond; a device that is gone must not stop the loop.
                    drop(tokio::time::timeout(SEND_PATIENCE, self.socket.writable()).await);
                    // Asked of the kernel, not of tokio: there may be room long before the kernel says that there is.
                    if let Err(error) = send() {
                        tracing::trace!(%to, %error, "datagrams not sent");
                    }
                }
                Err(error) => tracing::trace!(%to, %error, "datagrams not sent"),
                Ok(()) => {}
            }
        }
        let room = SPARE.saturating_sub(self.spare.len());
        self.spare
            .extend(pending.drain(..).take(room).map(|batch| batch.bytes));
        self.pending = pending;
    }

    fn destination(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(v4) if self.dual => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
            IpAddr::V4(_) | IpAddr::V6(_) => to,
        }
    }
}

fn receive(
    socket: &UdpSocket,
    state: &UdpSocketState,
    buffers: &mut [Vec<u8>],
    take: &mut impl FnMut(SocketAddr, &[u8]),
) -> io::Result<()> {
    let mut metas = [RecvMeta::default(); BATCHES];
    let mut count = 0;
    // Not called for a socket that is not ready, as most are not.
    let read = socket.try_io(Interest::READABLE, || {
        let mut slices: Vec<IoSliceMut<'_>> = buffers
            .iter_mut()
            .map(|buffer| IoSliceMut::new(buffer))
            .collect();
        count = state.recv(UdpSockRef::from(socket), &mut slices, &mut metas)?;
        // Fewer than were asked for: it is empty, and need not be asked again before it wakes this task.
        match count < FULL {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => Ok(()),
        }
    });
    if count == 0 {
        return read;
    }
    for (meta, buffer) in metas.iter().zip(buffers).take(count) {
        let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
        for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
            take(from, datagram);
        }
    }
    Ok(())
}

impl Batch {
    fn takes(&self, to: SocketAddr, len: usize, most: usize) -> bool {
        self.to == to && !self.full && len <= self.segment && self.bytes.len() < self.segment * most
    }
}

/// Asked of the kernel each way: 20 ms of what this loop can take at the most.
const KERNEL_BUFFER: usize = 4 << 20;

/// In Mbit/s nothing is gained beyond 8 to 16 segments a call, and a large buffer is charged fourfold on arrival; but each call is
/// acknowledged, and a job's request is done in half as many. `cargo bench --bench tunnel` holds its bars with either.
const SEGMENTS: usize = 32;

/// As many batches as one call can read: there may be more.
const FULL: usize = if BATCHES < quinn_udp::BATCH_SIZE {
    BATCHES
} else {
    quinn_udp::BATCH_SIZE
};

/// Where a call reads a single datagram, as on macOS, it takes more of them to read as many.
const CALLS: usize = BATCHES.div_ceil(FULL);

/// Batches read in one call; each may hold 64 KiB where the kernel joins datagrams.
const BATCHES: usize = 32;
const LARGEST_BATCH: usize = 64 << 10;

/// Buffers that are kept for the next batches: a burst's, 43 KB each.
const SPARE: usize = 32;

const SEND_PATIENCE: Duration = Duration::from_millis(10);
