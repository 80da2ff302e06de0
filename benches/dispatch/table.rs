//! What was measured, for people.

use crate::{
    overhead::{Row, Way},
    scale::Outcome,
};

/// Prints what each way costs; whether dispatch and relay are within their bars.
pub(crate) fn overhead(rows: &[Row]) -> bool {
    println!("{OVERHEAD}");
    println!(
        "{:>9} {:>9} {:<9} {:>5} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}",
        "source KB",
        "object KB",
        "way",
        "n",
        "wall ms",
        "p99 ms",
        "added ms",
        "primary",
        "worker",
        "CPU ms"
    );
    for row in rows {
        println!(
            "{:>9} {:>9} {:<9} {:>5} {:>8.2} {:>8.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
            row.sizes.source / 1000,
            row.sizes.object / 1000,
            format!("{:?}", row.way).to_lowercase(),
            row.wall.n,
            row.wall.p50,
            row.wall.p99,
            row.added.p50,
            row.primary,
            row.worker,
            row.primary + row.worker,
        );
    }
    let relays = rows.iter().filter(|row| row.way == Way::Relay);
    let kept = relays.map(keeps_its_bar).filter(|kept| !kept).count() == 0;
    println!();
    kept
}

/// Prints whether it does.
fn keeps_its_bar(row: &Row) -> bool {
    let (wall, cpu) = (row.added.p50, row.primary + row.worker);
    let kept = wall <= MOST_WALL && cpu <= MOST_CPU;
    println!(
        "bar at {} KB: at most {MOST_WALL} ms of wall and {MOST_CPU} ms of CPU a job more: {}",
        row.sizes.source / 1000,
        if kept { "kept" } else { "MISSED" }
    );
    kept
}

/// Prints how much was carried; whether it was all that was asked for, in little enough memory.
pub(crate) fn scale(outcomes: &[Outcome]) -> bool {
    println!("{SCALE}");
    println!(
        "{:>7} {:>5} {:>6} {:>9} {:>9} {:>8} {:>7} {:>8} {:>8} {:>8} {:>7} {:>8} {:>8} {:>8}",
        "workers",
        "slots",
        "over",
        "source KB",
        "object KB",
        "jobs/s",
        "failed",
        "late p50",
        "late p99",
        "attempts",
        "CPU ms",
        "idle MiB",
        "peak MiB",
        "then MiB"
    );
    outcomes.iter().for_each(tell);
    let kept = outcomes.iter().all(Outcome::keeps_its_bar);
    println!(
        "bar: all jobs answered, by tcp as fast as they came, and idle memory under {MOST_MEMORY} MiB: {}\n",
        if kept { "kept" } else { "MISSED" }
    );
    kept
}

fn tell(outcome: &Outcome) {
    let (scale, load) = (outcome.scale, &outcome.load);
    let late = |which: fn(&crate::measure::figures::Spread) -> f64| {
        load.added.as_ref().map_or(f64::NAN, which)
    };
    println!(
        "{:>7} {:>5} {:>6} {:>9} {:>9} {:>8.0} {:>7} {:>8.1} {:>8.1} {:>8} {:>7.2} {:>8.0} {:>8.0} {:>8.0}",
        scale.workers,
        scale.slots * scale.workers as u32,
        if scale.tunnel { "tunnel" } else { "tcp" },
        scale.sizes.source / 1000,
        scale.sizes.object / 1000,
        load.achieved,
        load.failed,
        late(|late| late.p50),
        late(|late| late.p99),
        outcome.attempts,
        outcome.cpu,
        outcome.idle,
        outcome.peak,
        outcome.after,
    );
}

impl Outcome {
    /// Every job was answered, at the first attempt or a later one, and no worker had more than it has slots.
    pub(crate) fn is_whole(&self) -> bool {
        self.load.failed == 0
            && self.load.answered == self.scale.rate * self.scale.seconds
            && self.load.most <= self.scale.slots
    }

    fn keeps_its_bar(&self) -> bool {
        // With tunnels both ends' cryptography shares the cores: how much that carries is told, not judged.
        let enough = f64::from(self.scale.rate) * ALL;
        let fast = self.scale.tunnel || self.load.achieved >= enough;
        self.is_whole() && fast && self.idle < MOST_MEMORY
    }
}

const MOST_WALL: f64 = 1.0;
const MOST_CPU: f64 = 0.5;
const MOST_MEMORY: f64 = 200.0;
/// Compiles differ in length, so that answers of a window are not exactly those of its clients.
const ALL: f64 = 0.98;

const OVERHEAD: &str = "Overhead. One job at a time: from the start of stock distcc to its end, with a preprocessed source, so that distcc only sends.\n\
         distccd runs a stand-in for a compiler, the same for every way, that writes an object and nothing else. Protocol 1, no lzo.\n\
         Everything is on loopback, in turn, round by round. `added` is the median difference to `direct` within a round.\n\
         \n\
         direct    distcc → distccd\n\
         dispatch  distcc → distmesh's dispatch → TCP → distccd\n\
         relay     distcc → dispatch → TCP → a worker's relay, with its looks at gcc's files → distccd; the bars are for this one\n\
         tunnel    the same with QUIC inside WireGuard in place of TCP between dispatch and relay\n\
         \n\
         CPU is that of distmesh's processes, primary and worker, by their own CPU clocks, the kernel's part included.\n";

const SCALE: &str = "Scale. Clients come to dispatch's listening ports at a steady rate, each with a connection and a request of its own; pretended\n\
         workers hold a job for as long as its compile, and answer. Clients and workers share one process, dispatch has another; both\n\
         have this machine's cores in common. By `tcp` each attempt is a connection, by `tunnel` a stream of the worker's link.\n\
         `late` is what a job took longer than its compile. CPU and memory are those of the process with dispatch: memory before the\n\
         first job, at the most, and after the last.\n";
