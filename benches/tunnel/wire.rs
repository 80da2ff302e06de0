//! A wire that takes its time: one thread between two TUN devices that holds every packet back for as long.
//!
//! It neither drops nor reorders. The kernel cuts and checksums what it gives to a TUN device without offloads, so that every
//! packet is one that a real wire could carry.

use std::{
    collections::VecDeque,
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{tun, watch::now};

/// Packets that a device holds while the wire's thread waits for a core: 20 ms at 5 Gbit/s.
pub(crate) const QUEUE: usize = 10_000;

/// Packets read from one end before the other is looked at.
const BATCH: usize = 64;

/// A thread that only sleeps looks this often whether it should end.
const LOOK: Duration = Duration::from_millis(100);

/// Larger than any packet.
const LARGEST: usize = 2048;

/// A running wire between the devices `end0` and `end1`; dropping it stops the thread.
pub(crate) struct Wire {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    pub(crate) fn start(delay: Duration) -> Self {
        let ends = [tun::open("end0"), tun::open("end1")];
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || carry(&ends, delay, &stopped));
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// What flies in one direction, in order, and buffers for what will.
#[derive(Default)]
struct Direction {
    flying: VecDeque<(Instant, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
}

impl Direction {
    fn take_from(&mut self, end: &File, delay: Duration) {
        let due = now() + delay;
        for _ in 0..BATCH {
            let mut buffer = self.spare.pop().unwrap_or_default();
            buffer.resize(LARGEST, 0);
            let Some(length) = tun::read(end, &mut buffer).map(<[u8]>::len) else {
                self.spare.push(buffer);
                return;
            };
            buffer.truncate(length);
            self.flying.push_back((due, buffer));
        }
    }

    fn give_to(&mut self, end: &File) {
        let now = now();
        let due = self.flying.partition_point(|(due, _)| *due <= now);
        for (_, packet) in self.flying.drain(..due) {
            tun::write(end, &packet);
            self.spare.push(packet);
        }
    }
}

fn carry(ends: &[File; 2], delay: Duration, stop: &AtomicBool) {
    // A wire is no load: it goes before what is measured.
    let _ = rustix::process::setpriority_process(None, -20);
    let mut directions = [Direction::default(), Direction::default()];
    while !stop.load(Ordering::Relaxed) {
        let due = directions
            .iter()
            .filter_map(|direction| Some(direction.flying.front()?.0));
        let wait = due
            .min()
            .map_or(LOOK, |due| due.saturating_duration_since(now()).min(LOOK));
        let mut fds = ends.each_ref().map(|end| PollFd::new(end, PollFlags::IN));
        let wait = Timespec::try_from(wait).expect("a short time");
        let _ = poll(&mut fds, Some(&wait));
        for (from, direction) in directions.iter_mut().enumerate() {
            direction.take_from(&ends[from], delay);
            direction.give_to(&ends[1 - from]);
        }
    }
}
