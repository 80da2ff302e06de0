//! Whose process is at the other end of a loopback connection.

use std::net::SocketAddr;

#[cfg(target_os = "linux")]
mod diag;

/// Only our own user and root may use the ports: everybody on the machine can connect to loopback.
///
/// The kernel is asked for the one socket. To read its table of all of them, where it answers no such question, takes
/// milliseconds even if there are few, and longer with every connection of the last minute.
#[cfg(target_os = "linux")]
pub(super) fn is_ours(client: SocketAddr, server: SocketAddr) -> bool {
    let (SocketAddr::V4(own), SocketAddr::V4(peer)) = (client, server) else {
        return false;
    };
    let uid = diag::uid(own, peer).unwrap_or_else(|_| {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        owner(&table, client, server)
    });
    uid.is_some_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw())
}

/// Other systems do not tell a socket's owner cheaply.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_ours(_: SocketAddr, _: SocketAddr) -> bool {
    true
}

/// Column 2 is the socket's own address, 3 its peer, 4 its state, 8 the uid (proc_pid_net(5)). Only an established connection
/// counts: of one that is closing the kernel says that it is root's.
#[cfg(target_os = "linux")]
fn owner(table: &str, client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let ends = [hex(client)?, hex(server)?];
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let same = columns.get(1..4) == Some(&[&ends[0], &ends[1], ESTABLISHED]);
        same.then(|| columns.get(7)?.parse().ok())?
    })
}

#[cfg(target_os = "linux")]
fn hex(addr: SocketAddr) -> Option<String> {
    let SocketAddr::V4(addr) = addr else {
        return None;
    };
    let ip = u32::from_ne_bytes(addr.ip().octets());
    Some(format!("{ip:08X}:{:04X}", addr.port()))
}

/// `TCP_ESTABLISHED`, as the table writes it.
#[cfg(target_os = "linux")]
const ESTABLISHED: &str = "01";

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_connection_s_owner_is_read_from_the_kernel_s_table() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(server).unwrap();
        let client = client.local_addr().unwrap();
        assert!(is_ours(client, server));
        let table = format!(
            "head\n 0: {} {} 01 0:0 0:0 0 4242 0 1\n",
            hex(client).unwrap(),
            hex(server).unwrap()
        );
        assert_eq!(owner(&table, client, server), Some(4242));
        assert_eq!(owner(&table, server, client), None);
    }
}
