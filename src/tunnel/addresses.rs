//! Where this machine can be reached without a NAT.

use std::net::{IpAddr, SocketAddr};

use sysinfo::Networks;

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
