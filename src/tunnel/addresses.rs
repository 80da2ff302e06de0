//! Where this machine can be reached without a NAT.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use sysinfo::Networks;

/// Tells when the machine's addresses may have changed.
pub(super) struct AddressWatch {
    due: Instant,
    tables: Option<Vec<u8>>,
}

impl AddressWatch {
    /// They are as they are now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: now + EVERY,
            tables: tables(),
        }
    }

    /// When to ask again.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether it is time to look, and there is something new; where nobody tells, there may always be.
    pub(super) fn may_have_changed(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.due = now + EVERY;
        let before = std::mem::replace(&mut self.tables, tables());
        before.is_none() || before != self.tables
    }
}

/// Linux's tables, in which each address of this machine has a line: to list the addresses themselves takes seven files for each
/// interface.
fn tables() -> Option<Vec<u8>> {
    let mut tables = fs::read("/proc/thread-self/net/fib_trie").ok()?;
    tables.extend(fs::read("/proc/thread-self/net/if_inet6").unwrap_or_default());
    Some(tables)
}

/// Every address of this machine, with the socket's port; loopback too, for peers on the same machine.
pub(super) fn host_addresses(local: SocketAddr) -> Vec<SocketAddr> {
    if !local.ip().is_unspecified() {
        return vec![local];
    }
    let networks = Networks::new_with_refreshed_list();
    let addresses = networks
        .values()
        .flat_map(|network| network.ip_networks())
        .map(|network| network.addr);
    let usable = addresses.filter(|addr| local.is_ipv6() || addr.is_ipv4());
    // A link-local IPv6 address means nothing without its interface.
    let usable =
        usable.filter(|addr| !matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    let mut addresses: Vec<SocketAddr> = usable
        .map(|addr| SocketAddr::new(addr, local.port()))
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// A laptop that changes networks is found again within this.
const EVERY: Duration = Duration::from_secs(10);
