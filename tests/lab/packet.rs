//! IPv4 and UDP, as much of them as the lab's internet carries.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// One datagram on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// Routers that it may still pass.
    pub(crate) ttl: u8,
    pub(crate) payload: Vec<u8>,
}

impl Datagram {
    /// Reads a packet; `None` for everything but whole UDP over IPv4.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 15) * 4;
        let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
        if packet[0] >> 4 != 4 || *packet.get(9)? != UDP || fragment != 0 {
            return None;
        }
        let udp = packet.get(header..)?;
        let address = |at: usize, port: usize| -> Option<SocketAddr> {
            let ip: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
            let port = u16::from_be_bytes(udp.get(port..port + 2)?.try_into().ok()?);
            Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
        };
        Some(Self {
            from: address(12, 0)?,
            to: address(16, 2)?,
            ttl: packet[8],
            payload: udp.get(8..)?.to_vec(),
        })
    }

    /// Writes a packet.
    pub(crate) fn write(&self) -> Vec<u8> {
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (self.from, self.to) else {
            panic!("only IPv4 here");
        };
        let udp_length = (8 + self.payload.len()) as u16;
        let mut ip = vec![0x45, 0];
        ip.extend((20 + udp_length).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, self.ttl, UDP, 0, 0]);
        ip.extend(from.ip().octets());
        ip.extend(to.ip().octets());
        let sum = checksum(&[&ip]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut udp = Vec::with_capacity(usize::from(udp_length));
        udp.extend(from.port().to_be_bytes());
        udp.extend(to.port().to_be_bytes());
        udp.extend(udp_length.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        let pseudo = [&ip[12..20], &[0, UDP], &udp_length.to_be_bytes()].concat();
        let sum = checksum(&[&pseudo, &udp]);
        udp[6..8].copy_from_slice(&if sum == 0 {
            [0xff; 2]
        } else {
            sum.to_be_bytes()
        });
        [ip, udp].concat()
    }
}

/// RFC 1071.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    let mut sum: u32 = words.map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

const UDP: u8 = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let datagram = Datagram {
            from: "10.0.0.2:5000".parse().unwrap(),
            to: "192.0.2.1:3478".parse().unwrap(),
            ttl: 64,
            payload: b"odd".to_vec(),
        };
        let packet = datagram.write();
        assert_eq!(Datagram::read(&packet), Some(datagram));
        assert_eq!(checksum(&[&packet[..20]]), 0, "the header sums up");
        assert_eq!(Datagram::read(&packet[..19]), None);
        assert_eq!(Datagram::read(&[]), None);
    }
}
