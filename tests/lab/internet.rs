//! The lab's internet: one thread between all TUN devices, with a NAT box and weather for each site.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    nat::{NatBox, rng::Rng},
    packet::Datagram,
    tun,
};

/// What a site's line does to every packet, each way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    pub(crate) loss_per_mille: u64,
    /// Bytes a second; `None` for no limit.
    pub(crate) rate: Option<u64>,
    /// The cable is pulled.
    pub(crate) cut: bool,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss_per_mille: 0,
            rate: None,
            cut: false,
        }
    }
}

/// A network with one way out.
pub(crate) struct Site {
    pub(crate) nat: Option<NatBox>,
    pub(crate) weather: Weather,
    /// When the line will have carried what is on it, outwards and inwards.
    busy_until: [Instant; 2],
}

/// The way a datagram takes over a site's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

/// A datagram on a line.
struct Flying {
    site: usize,
    way: Way,
    /// The site that it came from.
    from: usize,
    datagram: Datagram,
}

struct Host {
    site: usize,
    addrs: Vec<IpAddr>,
    device: Arc<File>,
}

/// Everything between the hosts.
pub(crate) struct Core {
    pub(crate) sites: Vec<Site>,
    hosts: Vec<Host>,
    rng: Rng,
    flying: BinaryHeap<Reverse<(Instant, u64)>>,
    cargo: std::collections::BTreeMap<u64, Flying>,
    sent: u64,
}

/// A running internet; dropping it stops the thread.
pub(crate) struct Internet {
    core: Arc<Mutex<Core>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Internet {
    pub(crate) fn start(seed: u64) -> Self {
        let core = Arc::new(Mutex::new(Core {
            sites: Vec::new(),
            hosts: Vec::new(),
            rng: Rng::new(seed),
            flying: BinaryHeap::new(),
            cargo: std::collections::BTreeMap::new(),
            sent: 0,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&core), Arc::clone(&stop));
        let thread = std::thread::spawn(move || carry(&shared, &stopped));
        Self {
            core,
            stop,
            thread: Some(thread),
        }
    }

    /// The state, to be looked at or changed.
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap()
    }

    pub(crate) fn add_site(&self, nat: Option<NatBox>) -> usize {
        let mut core = self.core();
        core.sites.push(Site {
            nat,
            weather: Weather::default(),
            busy_until: [now(); 2],
        });
        core.sites.len() - 1
    }

    pub(crate) fn add_host(&self, site: usize, addrs: Vec<IpAddr>, device: File) {
        self.core().hosts.push(Host {
            site,
            addrs,
            device: Arc::new(device),
        });
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn carry(core: &Mutex<Core>, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let (devices, wait) = {
            let core = core.lock().unwrap();
            let devices: Vec<_> = core
                .hosts
                .iter()
                .map(|host| Arc::clone(&host.device))
                .collect();
            let due = core.flying.peek().map(|Reverse((due, _))| *due);
            let wait = due.map_or(LOOK, |due| due.saturating_duration_since(now()).min(LOOK));
            (devices, wait)
        };
        let mut fds: Vec<_> = devices
            .iter()
            .map(|device| PollFd::new(&**device, PollFlags::IN))
            .collect();
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: wait.subsec_nanos().into(),
        };
        let _ = poll(&mut fds, Some(&timeout));
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut core = core.lock().unwrap();
        for (host, device) in devices.iter().enumerate().filter(|(host, _)| ready[*host]) {
            while let Some(packet) = tun::read(device, &mut buffer) {
                if let Some(datagram) = Datagram::read(packet) {
                    core.depart(host, datagram);
                }
            }
        }
        core.deliver_due();
    }
}

impl Core {
    /// A datagram leaves a host.
    fn depart(&mut self, host: usize, mut datagram: Datagram) {
        let at = now();
        let site = self.hosts[host].site;
        let local = self
            .hosts
            .iter()
            .position(|other| other.site == site && other.addrs.contains(&datagram.to.ip()));
        // In a site behind a NAT neighbours reach each other without it.
        if let Some(neighbour) = local.filter(|_| self.sites[site].nat.is_some()) {
            return tun::write(&self.hosts[neighbour].device, &datagram.write());
        }
        if let Some(nat) = &mut self.sites[site].nat {
            datagram.from = nat.outbound(datagram.from, datagram.to, at, &mut self.rng);
        }
        if datagram.ttl < HOPS {
            return;
        }
        datagram.ttl -= HOPS;
        self.fly(Flying {
            site,
            way: Way::Out,
            from: site,
            datagram,
        });
    }

    fn deliver_due(&mut self) {
        while let Some(Reverse((due, id))) = self.flying.peek().copied() {
            if due > now() {
                return;
            }
            self.flying.pop();
            let Some(flying) = self.cargo.remove(&id) else {
                continue;
            };
            match flying.way {
                Way::Out => self.cross(flying),
                Way::In => self.arrive(flying),
            }
        }
    }

    /// A datagram has left a site, and takes the line of the one that it was sent to; none if nobody has that address.
    fn cross(&mut self, flying: Flying) {
        let ip = flying.datagram.to.ip();
        let owns = |site: &Site| site.nat.as_ref().is_some_and(|nat| nat.pool.contains(&ip));
        let public = self.public_host(ip).map(|host| self.hosts[host].site);
        if let Some(site) = public.or_else(|| self.sites.iter().position(owns)) {
            self.fly(Flying {
                site,
                way: Way::In,
                ..flying
            });
        }
    }

    /// A datagram has come in over a site's line.
    fn arrive(&mut self, flying: Flying) {
        let (site, mut datagram) = (flying.site, flying.datagram);
        if let Some(nat) = &mut self.sites[site].nat {
            if flying.from == site && !nat.behaviour.hairpin {
                return;
            }
            let Some(inside) = nat.inbound(datagram.from, datagram.to, now()) else {
                return;
            };
            datagram.to = inside;
        }
        let ip = datagram.to.ip();
        let here = |host: &&Host| host.site == site && host.addrs.contains(&ip);
        if let Some(host) = self.hosts.iter().find(here) {
            tun::write(&host.device, &datagram.write());
        }
    }

    fn public_host(&self, ip: IpAddr) -> Option<usize> {
        self.hosts
            .iter()
            .position(|host| self.sites[host.site].nat.is_none() && host.addrs.contains(&ip))
    }

    /// Puts a datagram on a line, unless the line loses it.
    fn fly(&mut self, flying: Flying) {
        let (at, site) = (now(), flying.site);
        if !self.passes(site) {
            return;
        }
        let weather = self.sites[site].weather;
        let jitter = self.rng.below(weather.jitter.as_micros() as u64 + 1);
        let mut carried = at;
        if let Some(rate) = weather.rate {
            let bytes = flying.datagram.payload.len() as u64 + 28;
            let line = &mut self.sites[site].busy_until[flying.way as usize];
            // A queue of 100 ms: what does not fit is dropped, as routers do.
            if line.saturating_duration_since(at) > Duration::from_millis(100) {
                return;
            }
            *line = (*line).max(at) + Duration::from_secs(bytes) / rate as u32;
            carried = *line;
        }
        let due = carried + weather.delay + Duration::from_micros(jitter);
        self.sent += 1;
        self.flying.push(Reverse((due, self.sent)));
        self.cargo.insert(self.sent, flying);
    }

    /// Whether the line carries the next packet.
    fn passes(&mut self, site: usize) -> bool {
        let Weather {
            cut,
            loss_per_mille,
            ..
        } = self.sites[site].weather;
        !cut && !self.rng.per_mille(loss_per_mille)
    }
}

#[expect(clippy::disallowed_methods, reason = "the lab runs in real time")]
fn now() -> Instant {
    Instant::now()
}

/// New hosts are noticed within this.
const LOOK: Duration = Duration::from_millis(5);
/// Routers between any two sites.
pub(crate) const HOPS: u8 = 6;
