//! Asks STUN servers how this machine is seen from outside.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use stunclient::StunClient;

use super::findings::Answer;
use crate::{
    cli::StunServer,
    mesh::{Observation, classify_nat},
    session::NatClass,
};

/// Questions on their way, one thread each: a name server that hangs holds up nobody else.
pub(super) struct Asked {
    questions: Vec<(StunServer, Receiver<Result<Observation, String>>)>,
    deadline: Instant,
}

/// Asks all servers at once.
pub(super) fn ask(servers: Vec<StunServer>) -> Asked {
    let question = |server: StunServer| {
        let (answer, receiver) = channel();
        let asked = server.clone();
        // The thread may outlive its answer's use; it ends with the process.
        thread::spawn(move || answer.send(query(&asked)));
        (server, receiver)
    };
    Asked {
        questions: servers.into_iter().map(question).collect(),
        deadline: now() + PATIENCE,
    }
}

impl Asked {
    /// Waits for the answers until the deadline.
    pub(super) fn answers(self) -> Vec<Answer> {
        let deadline = self.deadline;
        let answer = |(server, receiver): (StunServer, Receiver<Result<Observation, String>>)| {
            let left = deadline.saturating_duration_since(now());
            let seen = match receiver.recv_timeout(left) {
                Ok(seen) => seen,
                Err(RecvTimeoutError::Timeout) => {
                    Err(format!("no answer in {} s", PATIENCE.as_secs()))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    Err("the question could not be asked".to_owned())
                }
            };
            Answer {
                server,
                at: seen.as_ref().ok().map(|seen| seen.server),
                address: seen.map(|seen| seen.mapped),
            }
        };
        self.questions.into_iter().map(answer).collect()
    }
}

/// Asks those that answered once more, all from one socket, for what the NAT does with it.
pub(super) fn nat(answers: &[Answer]) -> NatClass {
    let servers = answers.iter().filter_map(|answer| answer.at);
    let servers: Vec<_> = servers.filter(SocketAddr::is_ipv4).collect();
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else {
        return NatClass::Unknown;
    };
    let ask = |server: &SocketAddr| {
        let mapped = client(*server).query_external_address(&socket).ok()?;
        Some(Observation {
            server: *server,
            mapped,
        })
    };
    let seen: Vec<_> = servers.iter().filter_map(ask).collect();
    let own: Vec<_> = servers
        .first()
        .and_then(|to| own_address(&socket, *to))
        .into_iter()
        .collect();
    classify_nat(&own, &seen)
}

/// The address that this machine sends from; connecting a UDP socket sends nothing.
fn own_address(socket: &UdpSocket, to: SocketAddr) -> Option<SocketAddr> {
    let port = socket.local_addr().ok()?.port();
    let route = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    route.connect(to).ok()?;
    Some(SocketAddr::new(route.local_addr().ok()?.ip(), port))
}

fn client(server: SocketAddr) -> StunClient {
    let mut client = StunClient::new(server);
    client
        .set_timeout(PATIENCE)
        .set_retry_interval(RETRY)
        .set_software(None);
    client
}

fn query(server: &StunServer) -> Result<Observation, String> {
    let addresses = (server.host.as_str(), server.port).to_socket_addrs();
    let addresses: Vec<_> = addresses
        .map_err(|_| "the name is not known here")?
        .collect();
    // IPv4 first: there the NATs are.
    let v4 = addresses.iter().find(|address| address.is_ipv4());
    let address = v4.or(addresses.first()).ok_or("the name has no address")?;
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).map_err(|error| error.to_string())?;
    let mapped = client(*address).query_external_address(&socket);
    let mapped = mapped.map_err(|error| why(&error))?;
    Ok(Observation {
        server: *address,
        mapped,
    })
}

fn why(error: &stunclient::Error) -> String {
    if let stunclient::Error::Socket(error) = error {
        return format!("UDP cannot go out: {error}");
    }
    if let stunclient::Error::Timeout(()) = error {
        return format!("no answer in {} s", PATIENCE.as_secs());
    }
    format!("not a STUN server: {error}")
}

#[expect(clippy::disallowed_methods, reason = "a shell with a deadline")]
fn now() -> Instant {
    Instant::now()
}

/// A server that needs longer than this is none that a link would want.
const PATIENCE: Duration = Duration::from_secs(3);

/// Six questions before we give up, should the network lose some.
const RETRY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: SocketAddr) -> StunServer {
        address.to_string().parse().unwrap()
    }

    /// A server that sends back what the closure makes of a request, once.
    fn answering(answer: impl FnOnce(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&answer(&buffer[..length]), from).unwrap();
        });
        address
    }

    #[test]
    fn a_server_tells_how_it_sees_us() {
        let address = answering(|request| {
            // A success response (RFC 8489) with XOR-MAPPED-ADDRESS 192.0.2.1:32853, as in RFC 5769 section 2.2.
            let mut response = vec![0x01, 0x01, 0x00, 0x0c];
            response.extend(&request[4..20]);
            response.extend([0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
            response
        });
        let answers = ask(vec![server(address)]).answers();
        assert_eq!(answers[0].address, Ok("192.0.2.1:32853".parse().unwrap()));
    }

    /// A server that answers everybody as if they came from another port each time, or always from the same.
    fn mapping(dependent: bool, own: u16) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let port = if dependent { own } else { 4_000 } ^ 0x2112;
                let mut response = vec![0x01, 0x01, 0x00, 0x0c];
                response.extend(&buffer[4..length.min(20)]);
                response.extend([0, 0x20, 0, 8, 0, 1]);
                response.extend(port.to_be_bytes());
                response.extend([0xe1, 0x12, 0xa6, 0x43]);
                socket.send_to(&response, from).unwrap();
            }
        });
        address
    }

    #[test]
    fn the_nat_is_told_from_what_two_servers_see_of_one_socket() {
        for (dependent, class) in [
            // Two ports of one address cannot show more of a mapping that looks the same.
            (false, NatClass::Unknown),
            (true, NatClass::AddressAndPortDependent),
        ] {
            let servers = [1, 2].map(|own| server(mapping(dependent, own)));
            assert_eq!(nat(&ask(servers.to_vec()).answers()), class);
        }
        assert_eq!(nat(&[]), NatClass::Unknown);
    }

    #[test]
    fn silence_nonsense_and_an_unknown_name_are_told_apart() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let nonsense = answering(|_| b"HTTP/1.1 400".to_vec());
        let unknown = "no-such-host.invalid:3478".parse().unwrap();
        let servers = vec![
            server(silent.local_addr().unwrap()),
            server(nonsense),
            unknown,
        ];
        let answers = ask(servers).answers();
        let said: Vec<_> = answers
            .into_iter()
            .map(|a| a.address.unwrap_err())
            .collect();
        assert_eq!(said[0], "no answer in 3 s");
        assert!(said[1].starts_with("not a STUN server"), "{said:?}");
        assert!(!said[2].is_empty());
    }
}
