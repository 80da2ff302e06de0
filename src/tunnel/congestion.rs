//! A congestion controller for the paths between build machines.
//!
//! Stock cubic collapses at 0.1 % of random loss, which is common between cloud networks, and a job then takes seconds.
//! This one takes loss for what it is: it slows down when more than 4 % of a round trip's bytes are lost, or when packets
//! wait in a queue, and grows otherwise. Pure.
//!
//! A queue is what makes round trips longer than the shortest. QUIC's own memory of that is for ever, but a link moves: from a cable to
//! the way around it. So the shortest is counted here, anew for each path.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory},
};

/// Makes [`LossTolerant`] controllers, and tells them of moves.
#[derive(Debug, Default)]
pub(super) struct LossTolerantFactory {
    moves: Arc<AtomicU64>,
}

impl LossTolerantFactory {
    /// The path is another one from now on.
    pub(super) fn handle_move(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }
}

impl ControllerFactory for LossTolerantFactory {
    fn build(self: Arc<Self>, now: Instant, _mtu: u16) -> Box<dyn Controller> {
        Box::new(LossTolerant {
            seen: self.moves.load(Ordering::Relaxed),
            moves: self.moves.clone(),
            since: now,
            shortest: Duration::MAX,
            window: INITIAL,
            round_began: now,
            acked: 0,
            lost: 0,
            limited: false,
        })
    }
}

/// Counts a round trip's bytes, and decides once a round.
#[derive(Clone, Debug)]
struct LossTolerant {
    moves: Arc<AtomicU64>,
    /// How many of them were seen.
    seen: u64,
    /// What was sent earlier went another way.
    since: Instant,
    /// The shortest round trip on this path.
    shortest: Duration,
    window: u64,
    round_began: Instant,
    acked: u64,
    lost: u64,
    /// The application had nothing more to send: then the window says nothing about the path.
    limited: bool,
}

impl LossTolerant {
    fn end_round(&mut self, now: Instant, rtt: &RttEstimator) {
        let total = self.acked + self.lost;
        let queued = rtt.get() > self.shortest.saturating_mul(2).saturating_add(QUEUE_SLACK);
        self.window = if self.lost * 100 > total * LOSS_PERCENT || queued {
            self.window * 7 / 8
        } else if self.limited {
            self.window
        } else {
            self.window + self.acked / 2
        }
        .clamp(FLOOR, CAP);
        (self.acked, self.lost, self.limited, self.round_began) = (0, 0, false, now);
    }
}

impl Controller for LossTolerant {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        let moves = self.moves.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.seen, moves) != moves {
            (self.since, self.shortest) = (now, Duration::MAX);
        }
        if sent >= self.since {
            self.shortest = self.shortest.min(now.saturating_duration_since(sent));
        }
        self.acked += bytes;
        self.limited |= app_limited;
        if now.saturating_duration_since(self.round_began) >= rtt.get() {
            self.end_round(now, rtt);
        }
    }

    fn on_congestion_event(
        &mut self,
        _now: Instant,
        _sent: Instant,
        persistent: bool,
        lost_bytes: u64,
    ) {
        self.lost += lost_bytes;
        if persistent {
            self.window = FLOOR;
        }
    }

    fn on_mtu_update(&mut self, _mtu: u16) {}

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// A whole preprocessed file of the usual size goes out in the first round trip.
const INITIAL: u64 = 256 << 10;

/// Loss that is not congestion must not stop a link: at 100 ms this still carries 10 Mbit/s.
const FLOOR: u64 = 128 << 10;

/// What a connection's flow-control window allows: more could not be used.
const CAP: u64 = 16 << 20;

/// Up to here loss is taken for random. Measured: at 1 % a job of 250 KB stays within two round trips.
const LOSS_PERCENT: u64 = 4;

/// Acknowledgements are delayed by up to 25 ms (RFC 9000 section 18.2), which is no queue.
const QUEUE_SLACK: Duration = Duration::from_millis(25);
