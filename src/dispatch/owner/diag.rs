//! Asks the kernel for one TCP socket: sock_diag(7), the exact lookup.

use std::{
    io,
    net::SocketAddrV4,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// The kernel has answered such a question. One that does not know them says that there is no such socket.
static ANSWERS: AtomicBool = AtomicBool::new(false);

/// The user that has the socket of an established connection; `None` if there is none, or it is not established.
///
/// # Errors
/// When the kernel does not answer such questions.
pub(super) fn uid(own: SocketAddrV4, peer: SocketAddrV4) -> io::Result<Option<u32>> {
    let mut buffer = [0; ANSWER];
    let answer = ask(&request(own, peer), &mut buffer);
    let found = answer.and_then(|answer| parse(answer, &ends(own, peer)));
    match &found {
        Ok(_) => ANSWERS.store(true, Ordering::Relaxed),
        Err(error) if is_none(error) && ANSWERS.load(Ordering::Relaxed) => return Ok(None),
        Err(_) => {}
    }
    found
}

fn is_none(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// The kernel answers while it takes the question: nothing is waited for.
fn ask<'a>(request: &[u8], buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&socket, request, SendFlags::empty())?;
    let (_, length) = recv(&socket, &mut *buffer, RecvFlags::DONTWAIT)?;
    buffer.get(..length).ok_or_else(unknown)
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(own: SocketAddrV4, peer: SocketAddrV4) -> Vec<u8> {
    let mut request = Vec::with_capacity(REQUEST as usize);
    request.extend(REQUEST.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(IS_REQUEST.to_ne_bytes());
    // Sequence number and sender: this socket asks once.
    request.extend([0; 8]);
    request.extend([INET, TCP, 0, 0]);
    request.extend(ALL_STATES.to_ne_bytes());
    request.extend(ends(own, peer));
    request.extend(ANY_INTERFACE.to_ne_bytes());
    request.extend(NO_COOKIE);
    request
}

/// The beginning of `struct inet_diag_sockid`: ports, and addresses in 16 bytes each.
fn ends(own: SocketAddrV4, peer: SocketAddrV4) -> [u8; 36] {
    let mut ends = [0; 36];
    ends[..2].copy_from_slice(&own.port().to_be_bytes());
    ends[2..4].copy_from_slice(&peer.port().to_be_bytes());
    ends[4..8].copy_from_slice(&own.ip().octets());
    ends[20..24].copy_from_slice(&peer.ip().octets());
    ends
}

/// `struct nlmsghdr`, then `struct inet_diag_msg` or an error.
///
/// Only an established connection counts: of one that is closing the kernel says that it is root's, and where there is none
/// it finds a listener at the same port.
fn parse(answer: &[u8], wanted: &[u8]) -> io::Result<Option<u32>> {
    match u16::from_ne_bytes(array(answer, KIND)?) {
        BY_FAMILY => {}
        ERROR => {
            let error = i32::from_ne_bytes(array(answer, HEADER)?);
            return Err(io::Error::from_raw_os_error(-error));
        }
        _ => return Err(unknown()),
    }
    let [state] = array(answer, HEADER + 1)?;
    let found = answer.get(HEADER + 4..HEADER + 4 + wanted.len());
    let uid = u32::from_ne_bytes(array(answer, UID)?);
    Ok((state == ESTABLISHED && found == Some(wanted)).then_some(uid))
}

fn array<const N: usize>(from: &[u8], at: usize) -> io::Result<[u8; N]> {
    let part = from.get(at..at + N).and_then(|part| part.try_into().ok());
    part.ok_or_else(unknown)
}

fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an answer of sock_diag")
}

/// `struct nlmsghdr`, and where in it the kind of a message is.
const HEADER: usize = 16;
const KIND: usize = 4;
/// `SOCK_DIAG_BY_FAMILY` and `NLMSG_ERROR`.
const BY_FAMILY: u16 = 20;
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`, without `NLM_F_DUMP`: one socket, not all.
const IS_REQUEST: u16 = 1;
/// Both structures of a request.
const REQUEST: u32 = 72;
/// `idiag_uid` of an answer.
const UID: usize = HEADER + 64;
/// `AF_INET`, `IPPROTO_TCP` and `TCP_ESTABLISHED`.
const INET: u8 = 2;
const TCP: u8 = 6;
const ESTABLISHED: u8 = 1;
const ALL_STATES: u32 = u32::MAX;
const ANY_INTERFACE: u32 = 0;
/// `INET_DIAG_NOCOOKIE`, twice.
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// The answer has 88 bytes, and attributes that nobody asked for.
const ANSWER: usize = 512;

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    fn v4(addr: io::Result<SocketAddr>) -> SocketAddrV4 {
        match addr.unwrap() {
            SocketAddr::V4(addr) => addr,
            SocketAddr::V6(addr) => panic!("{addr}"),
        }
    }

    /// A kernel that knows sock_diag agrees with its own table; another one refuses.
    #[test]
    fn the_kernel_tells_whose_an_open_connection_is_and_nothing_of_a_closed_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = v4(listener.local_addr());
        let stream = TcpStream::connect(server).unwrap();
        let client = v4(stream.local_addr());
        let own = rustix::process::geteuid().as_raw();
        let found = match uid(client, server) {
            Err(error) if is_none(&error) => return,
            other => other.unwrap(),
        };
        assert_eq!(found, Some(own));
        let accepted = listener.accept().unwrap().0;
        drop(stream);
        assert!(!matches!(uid(client, server), Ok(Some(_))), "closing");
        drop(accepted);
        assert!(!matches!(uid(client, server), Ok(Some(_))), "closed");
        // There is a listener at that port, but no connection.
        assert!(!matches!(uid(server, client), Ok(Some(_))), "listening");
    }

    #[test]
    fn a_question_has_the_kernel_s_layout() {
        let at = |port| SocketAddrV4::new([127, 0, 0, 1].into(), port);
        let question = request(at(1), at(2));
        assert_eq!(question.len(), REQUEST as usize);
        assert_eq!(question[..4], REQUEST.to_ne_bytes());
        assert_eq!(question[16..20], [INET, TCP, 0, 0]);
        assert_eq!(question[24..60], ends(at(1), at(2)));
    }

    #[test]
    fn an_answer_about_another_socket_or_another_state_names_nobody() {
        let at = |port| SocketAddrV4::new([127, 0, 0, 1].into(), port);
        let wanted = ends(at(1), at(2));
        let answer = |state: u8, ends: [u8; 36]| {
            let mut answer = vec![0; 88];
            answer[KIND] = BY_FAMILY as u8;
            answer[HEADER + 1] = state;
            answer[HEADER + 4..HEADER + 40].copy_from_slice(&ends);
            answer[UID] = 42;
            answer
        };
        let told = |answer: &[u8]| parse(answer, &wanted).ok().flatten();
        assert_eq!(told(&answer(ESTABLISHED, wanted)), Some(42));
        assert_eq!(told(&answer(6, wanted)), None);
        assert_eq!(told(&answer(ESTABLISHED, ends(at(2), at(1)))), None);
        let whole = answer(ESTABLISHED, wanted);
        for length in 0..UID + 4 {
            assert!(parse(&whole[..length], &wanted).is_err(), "{length}");
        }
    }

    #[test]
    fn an_error_of_the_kernel_s_is_no_answer() {
        let mut answer = vec![0; 36];
        answer[KIND] = ERROR as u8;
        answer[HEADER..HEADER + 4].copy_from_slice(&(-2_i32).to_ne_bytes());
        let error = parse(&answer, &[0; 36]).unwrap_err();
        assert!(is_none(&error));
    }
}
