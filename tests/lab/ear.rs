//! Plain sockets on the lab's machines, for what is to be seen without distmesh.

use std::{
    collections::BTreeSet,
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::lab::Host;

/// A socket of a machine in the lab; what it hears is compared by what was said.
pub(crate) struct Ear(UdpSocket);

impl Ear {
    /// Binds a port of the host; 0 for any.
    pub(crate) fn on(host: &Host, port: u16) -> Self {
        let namespace = File::open(format!("/run/netns/{}", host.netns)).unwrap();
        // Only the thread that enters the namespace is in it; its socket stays there.
        let bound = std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()
        });
        Self(bound.join().unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    pub(crate) fn say(&self, what: &str, to: SocketAddr) {
        self.0.send_to(what.as_bytes(), to).unwrap();
    }

    /// The next thing said, and where it came from; `None` after a silence much longer than any line of this lab.
    pub(crate) fn hear(&self) -> Option<(String, SocketAddr)> {
        self.hear_within(Duration::from_millis(250))
    }

    pub(crate) fn hear_within(&self, patience: Duration) -> Option<(String, SocketAddr)> {
        let mut buffer = [0; 2_000];
        self.0.set_read_timeout(Some(patience)).unwrap();
        let (length, from) = self.0.recv_from(&mut buffer).ok()?;
        let what = String::from_utf8(buffer[..length].to_vec()).unwrap();
        Some((what, from))
    }

    /// All that is said until a silence.
    pub(crate) fn hear_all(&self) -> BTreeSet<String> {
        let mut heard = BTreeSet::new();
        while let Some((what, _)) = self.hear() {
            heard.insert(what);
        }
        heard
    }

    /// Where the other is seen from here when it says something.
    #[track_caller]
    pub(crate) fn sees(&self, other: &Self, at: SocketAddr) -> SocketAddr {
        other.say("where am I?", at);
        self.hear_within(PATIENCE).expect("nothing came").1
    }
}

/// Somebody on the open internet: two ports of one machine, and a port of another.
pub(crate) struct Outside {
    pub(crate) ears: [Ear; 3],
    pub(crate) addrs: [SocketAddr; 3],
}

impl Outside {
    pub(crate) fn on(one: &Host, two: &Host) -> Self {
        let ears = [one, one, two].map(|host| Ear::on(host, 0));
        let addr = |n: usize, host: &Host| SocketAddr::new(host.ip, ears[n].port());
        let addrs = [addr(0, one), addr(1, one), addr(2, two)];
        Self { ears, addrs }
    }

    /// Where the three see a socket.
    #[track_caller]
    pub(crate) fn see(&self, inside: &Ear) -> [SocketAddr; 3] {
        [0, 1, 2].map(|n| self.ears[n].sees(inside, self.addrs[n]))
    }

    /// What a port-preserving Linux router without a firewall does when the first of the three speaks unasked, while the last is
    /// known or not: the kernel and the NAT box have to agree.
    #[track_caller]
    pub(crate) fn check_null_binding(&self, inside: &Ear, router: IpAddr, known_first: bool) {
        let kept = SocketAddr::new(router, inside.port());
        if known_first {
            assert_eq!(self.ears[2].sees(inside, self.addrs[2]), kept);
        }
        self.ears[0].say("unsolicited", kept);
        assert_eq!(inside.hear(), None);
        let [moved, later, known] = self.see(inside);
        assert_ne!(moved, kept);
        assert_eq!(later, moved, "new flows follow the newest");
        assert_eq!(known, if known_first { kept } else { moved });
    }
}

/// For what has to come: longer than a busy machine takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
