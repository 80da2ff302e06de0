//! Whose process is at the other end of a loopback connection.

use std::net::SocketAddr;

/// Only our own user and root may use the ports: everybody on the machine can connect to loopback.
#[cfg(target_os = "linux")]
pub(super) fn is_ours(client: SocketAddr, server: SocketAddr) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/net/tcp") else {
        return false;
    };
    let uid = owner(&table, client, server);
    uid.is_some_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw())
}

/// Other systems do not tell a socket's owner cheaply.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_ours(_: SocketAddr, _: SocketAddr) -> bool {
    true
}

/// Column 2 is the socket's own address, 3 its peer, 8 the uid (proc_pid_net(5)).
#[cfg(target_os = "linux")]
fn owner(table: &str, client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let ends = [hex(client)?, hex(server)?];
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let same =
            columns.get(1) == Some(&ends[0].as_str()) && columns.get(2) == Some(&ends[1].as_str());
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
