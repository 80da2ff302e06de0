//! Samples, their medians, the table, and which bar was met.

use serde::Serialize;

use crate::{
    arms::Arm,
    traffic::{REQUEST, RESPONSE},
};

/// What one arm did in one cell in one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) run: u32,
    pub(crate) arm: Arm,
    pub(crate) rtt_ms: f64,
    pub(crate) loss_percent: f64,
    pub(crate) mbit: f64,
    /// Seconds of processor time per GB: the sender's, the receiver's.
    pub(crate) cpu: [f64; 2],
    /// The longest time without a byte in the bulk transfer, in seconds.
    pub(crate) stall: f64,
    pub(crate) jobs: usize,
    /// Milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Jobs at once.
pub(crate) const JOBS: usize = 16;

/// The bars: see the module.
const TIMES: f64 = 2.0;
const ROUND_TRIPS: f64 = 2.5;
const SLACK_MS: f64 = 3.0;
const P99_MS: f64 = 1_000.0;
const STALL: f64 = 1.0;

/// A row of the table: an arm in a cell.
type Row<'a> = Vec<&'a Sample>;

pub(crate) fn quantile(values: &mut [f64], at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get((last as f64 * at).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

fn median(row: &Row<'_>, what: impl Fn(&Sample) -> f64) -> f64 {
    quantile(
        &mut row.iter().map(|sample| what(sample)).collect::<Vec<_>>(),
        0.5,
    )
}

/// The longest stall of any run: of these the worst counts.
fn stall(row: &Row<'_>) -> f64 {
    row.iter().map(|sample| sample.stall).fold(0.0, f64::max)
}

/// The rows of each cell, in the order in which they were measured.
fn cells(samples: &[Sample]) -> Vec<Vec<Row<'_>>> {
    let mut cells: Vec<Vec<Row<'_>>> = Vec::new();
    let same_cell =
        |a: &Sample, b: &Sample| (a.rtt_ms, a.loss_percent) == (b.rtt_ms, b.loss_percent);
    for sample in samples {
        let known = cells.iter().position(|cell| same_cell(cell[0][0], sample));
        let cell = known.unwrap_or_else(|| {
            cells.push(Vec::new());
            cells.len() - 1
        });
        match cells[cell].iter().position(|row| row[0].arm == sample.arm) {
            Some(row) => cells[cell][row].push(sample),
            None => cells[cell].push(vec![sample]),
        }
    }
    cells
}

/// Prints the medians.
pub(crate) fn tell(samples: &[Sample]) {
    let cells = cells(samples);
    println!(
        "\n{:>6} {:>6}  {:13} {:>8} {:>13} {:>9} {:>8} {:>8} {:>6}",
        "RTT ms", "loss %", "", "Mbit/s", "CPU-s/GB", "stall ms", "p50 ms", "p99 ms", "jobs"
    );
    for row in cells.iter().flatten() {
        println!(
            "{:>6} {:>6}  {:13} {:>8.0} {:>6.1}/{:<6.1} {:>9.0} {:>8.1} {:>8.1} {:>6}",
            row[0].rtt_ms,
            row[0].loss_percent,
            row[0].arm,
            median(row, |s| s.mbit),
            median(row, |s| s.cpu[0]),
            median(row, |s| s.cpu[1]),
            stall(row) * 1e3,
            median(row, |s| s.p50),
            median(row, |s| s.p99),
            row.iter().map(|s| s.jobs).sum::<usize>(),
        );
    }
    println!(
        "\nMedians of the runs; of stalls the longest. CPU: sender/receiver, the kernel's share included."
    );
}

/// Says of each bar whether it was met; `true` when all were.
pub(crate) fn judge_all(samples: &[Sample]) -> bool {
    let capacity = samples
        .iter()
        .filter(|s| s.arm == Arm::Distmesh)
        .map(|s| s.mbit)
        .fold(f64::NAN, f64::max);
    let verdicts: Vec<_> = cells(samples)
        .iter()
        .flat_map(|cell| judge(cell, capacity))
        .collect();
    for (met, what) in &verdicts {
        println!("{} {what}", if *met { "met   " } else { "MISSED" });
    }
    let rival = |s: &Sample| matches!(s.arm, Arm::WireguardGo | Arm::Boringtun);
    if !samples.iter().any(rival) {
        println!("NOT JUDGED: twice the throughput of others, for none was measured");
    }
    !verdicts.is_empty() && verdicts.iter().all(|(met, _)| *met)
}

fn judge(cell: &[Row<'_>], capacity: f64) -> Vec<(bool, String)> {
    let Some(ours) = cell.iter().find(|row| row[0].arm == Arm::Distmesh) else {
        return Vec::new();
    };
    let place = format!("{} ms {} %", ours[0].rtt_ms, ours[0].loss_percent);
    let rivals = cell
        .iter()
        .filter(|row| matches!(row[0].arm, Arm::WireguardGo | Arm::Boringtun));
    let mut verdicts: Vec<_> = rivals.flat_map(|row| against(&place, ours, row)).collect();
    // All of them share the way: the last byte of the last job has waited for those of the others.
    let bits = (JOBS * (REQUEST + RESPONSE) * 8) as f64;
    let bound = ROUND_TRIPS * ours[0].rtt_ms + bits / (capacity * 1e3) + SLACK_MS;
    let (p50, p99) = (median(ours, |s| s.p50), median(ours, |s| s.p99));
    verdicts.push((
        p50 <= bound,
        format!("{place}: p50 of {JOBS} jobs at once {p50:.1} ms, at most {bound:.1}"),
    ));
    verdicts.push((
        p99 <= P99_MS,
        format!("{place}: their p99 {p99:.0} ms, at most {P99_MS}"),
    ));
    let stall = stall(ours);
    verdicts.push((
        stall <= STALL,
        format!(
            "{place}: longest stall {:.0} ms, at most {:.0}",
            stall * 1e3,
            STALL * 1e3
        ),
    ));
    verdicts
}

fn against(place: &str, ours: &Row<'_>, theirs: &Row<'_>) -> [(bool, String); 2] {
    let rival = theirs[0].arm;
    let times = median(ours, |s| s.mbit) / median(theirs, |s| s.mbit);
    let [sender, receiver] = [0, 1].map(|end| {
        let of = |row: &Row<'_>| median(row, |s| s.cpu[end]);
        (of(ours), of(theirs))
    });
    [
        (
            times >= TIMES,
            format!("{place}: bulk {times:.1} times that of {rival}, at least {TIMES}"),
        ),
        (
            sender.0 < sender.1 && receiver.0 < receiver.1,
            format!(
                "{place}: CPU-s/GB {:.1}/{:.1}, less than {rival}'s {:.1}/{:.1}",
                sender.0, receiver.0, sender.1, receiver.1
            ),
        ),
    ]
}
