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
    /// When the line will have carried what is on it.
    busy_until: Instant,
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
    cargo: std::collections::BTreeMap<u64, (usize, Datagram)>,
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
            busy_until: now(),
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
        let Some(departed) = self.pass_line(site, &datagram, at) else {
            return;
        };
        if datagram.ttl < HOPS {
            return;
        }
        datagram.ttl -= HOPS;
        self.sent += 1;
        self.flying.push(Reverse((departed, self.sent)));
        self.cargo.insert(self.sent, (site, datagram));
    }

    fn deliver_due(&mut self) {
        while let Some(Reverse((due, id))) = self.flying.peek().copied() {
            if due > now() {
                return;
            }
            self.flying.pop();
            if let Some((from, datagram)) = self.cargo.remove(&id) {
                self.arrive(from, datagram);
            }
        }
    }

    /// A datagram comes to the site that it was sent to.
    fn arrive(&mut self, from_site: usize, mut datagram: Datagram) {
        let at = now();
        let ip = datagram.to.ip();
        if let Some(host) = self.public_host(ip) {
            let site = self.hosts[host].site;
            if self.passes(site) {
                tun::write(&self.hosts[host].device, &datagram.write());
            }
            return;
        }
        let owns = |site: &Site| site.nat.as_ref().is_some_and(|nat| nat.pool.contains(&ip));
        let Some(site) = self.sites.iter().position(owns) else {
            return;
        };
        if !self.passes(site) {
            return;
        }
        let Some(nat) = &mut self.sites[site].nat else {
            return;
        };
        if from_site == site && !nat.behaviour.hairpin {
            return;
        }
        let Some(inside) = nat.inbound(datagram.from, datagram.to, at) else {
            return;
        };
        datagram.to = inside;
        let here = |host: &Host| host.site == site && host.addrs.contains(&inside.ip());
        if let Some(host) = self.hosts.iter().find(|host| here(host)) {
            tun::write(&host.device, &datagram.write());
        }
    }

    fn public_host(&self, ip: IpAddr) -> Option<usize> {
        self.hosts
            .iter()
            .position(|host| self.sites[host.site].nat.is_none() && host.addrs.contains(&ip))
    }

    /// When a datagram comes out at the far end; `None` if it does not.
    fn pass_line(&mut self, site: usize, datagram: &Datagram, at: Instant) -> Option<Instant> {
        if !self.passes(site) {
            return None;
        }
        let weather = self.sites[site].weather;
        let jitter = self.rng.below(weather.jitter.as_micros() as u64 + 1);
        let mut departs = at;
        if let Some(rate) = weather.rate {
            let bytes = datagram.payload.len() as u64 + 28;
            let line = &mut self.sites[site].busy_until;
            // A queue of 100 ms: what does not fit is dropped, as routers do.
            if line.saturating_duration_since(at) > Duration::from_millis(100) {
                return None;
            }
            *line = (*line).max(at) + Duration::from_secs(bytes) / rate as u32;
            departs = *line;
        }
        Some(departs + weather.delay + Duration::from_micros(jitter))
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
const HOPS: u8 = 6;
