//! What all runs came to, for a person.

use std::collections::BTreeSet;

use crate::{
    arms::{Arm, Run},
    cluster::stock::Setting,
    median::median,
};

/// The runs of one arm, of one setting, with one number of workers.
pub(crate) struct Series {
    pub(crate) arm: Arm,
    pub(crate) setting: Option<Setting>,
    pub(crate) workers: usize,
    /// Seconds, in order.
    walls: Vec<f64>,
    /// Seconds of the primary's CPU, in order.
    cpus: Vec<f64>,
    /// The shares of it that were distmesh's own, in order.
    owns: Vec<f64>,
    failed: usize,
    wrong: usize,
}

impl Series {
    fn of(runs: &[&Run]) -> Self {
        let sorted = |values: Vec<f64>| {
            let mut values = values;
            values.sort_by(f64::total_cmp);
            values
        };
        Self {
            arm: runs[0].arm,
            setting: runs[0].setting,
            workers: runs[0].workers,
            walls: sorted(runs.iter().map(|run| run.wall).collect()),
            cpus: sorted(runs.iter().filter_map(|run| run.cpu).collect()),
            owns: sorted(
                runs.iter()
                    .filter_map(|run| Some(run.own? / run.cpu?))
                    .collect(),
            ),
            failed: runs.iter().filter(|run| run.exit != Some(0)).count(),
            wrong: runs.iter().map(|run| run.wrong.len()).sum(),
        }
    }

    pub(crate) fn wall(&self) -> f64 {
        median(&self.walls)
    }

    pub(crate) fn count(&self) -> usize {
        self.walls.len()
    }

    /// Seconds of the primary's CPU.
    pub(crate) fn cpu(&self) -> f64 {
        median(&self.cpus)
    }

    /// The share of it that was distmesh's own.
    pub(crate) fn own(&self) -> Option<f64> {
        (!self.owns.is_empty()).then(|| median(&self.owns))
    }

    pub(crate) fn wrong(&self) -> usize {
        self.wrong
    }

    pub(crate) fn spread(&self) -> String {
        match (self.walls.first(), self.walls.last()) {
            (Some(least), Some(most)) => format!("{least:.1}–{most:.1}"),
            _ => String::new(),
        }
    }
}

/// All series; those of a grid's search are left out.
pub(crate) fn series(runs: &[Run]) -> Vec<Series> {
    let measured = || runs.iter().filter(|run| !run.search);
    let key = |run: &Run| (run.workers, run.arm, run.setting);
    let keys: BTreeSet<_> = measured().map(key).collect();
    keys.into_iter()
        .map(|wanted| {
            let same: Vec<_> = measured().filter(|run| key(run) == wanted).collect();
            Series::of(&same)
        })
        .collect()
}

/// What bounds any speed-up with so many workers.
pub(crate) struct Ceilings {
    local: f64,
    /// The local build's CPU, and the least that the primary spent when all compiles were elsewhere.
    work: Option<(f64, f64)>,
}

impl Ceilings {
    /// Of all runs, those of a grid's search, too: the settings that send everything away need not be among the quickest.
    pub(crate) fn of(runs: &[Run]) -> Option<Self> {
        let local: Vec<_> = runs.iter().filter(|run| run.arm == Arm::Local).collect();
        if local.is_empty() {
            return None;
        }
        let local = Series::of(&local);
        let sent = runs.iter().filter(|run| {
            let here = run.setting.map_or(1, |setting| setting.localhost);
            run.arm == Arm::Stock && here == 0
        });
        let primary = sent.filter_map(|run| run.cpu).min_by(f64::total_cmp);
        let work = primary.map(|primary| (local.cpu(), primary));
        Some(Self {
            local: local.wall(),
            work: work.filter(|(all, _)| all.is_finite()),
        })
    }

    pub(crate) fn speedup(&self, series: &Series) -> f64 {
        self.local / series.wall()
    }

    /// How many times as fast the primary's own work lets a build be.
    pub(crate) fn of_primary(&self) -> Option<f64> {
        self.work.map(|(all, primary)| all / primary)
    }

    /// The lower of this and the number of machines.
    pub(crate) fn lower(&self, workers: usize) -> f64 {
        let machines = (workers + 1) as f64;
        self.of_primary().unwrap_or(f64::INFINITY).min(machines)
    }
}

/// Prints a table; returns whether every build ended well.
pub(crate) fn tell(runs: &[Run]) -> bool {
    let all = series(runs);
    let ceilings = Ceilings::of(runs);
    println!(
        "\n{:>7}  {:<16} {:<26} {:>2} {:>8} {:>13} {:>8} {:>9} {:>8} {:>6} {:>6}",
        "workers",
        "arm",
        "setting",
        "n",
        "wall s",
        "spread",
        "CPU s",
        "speed-up",
        "of best",
        "failed",
        "wrong"
    );
    for series in &all {
        let setting = series.setting.map(|setting| setting.to_string());
        let known = ceilings.as_ref();
        let speedup = known.map_or(f64::NAN, |known| known.speedup(series));
        let lower = known.map_or(f64::NAN, |known| known.lower(series.workers));
        println!(
            "{:>7}  {:<16} {:<26} {:>2} {:>8.1} {:>13} {:>8.1} {:>9.2} {:>7.0}% {:>6} {:>6}",
            series.workers,
            format!("{:?}", series.arm),
            setting.unwrap_or_default(),
            series.count(),
            series.wall(),
            series.spread(),
            series.cpu(),
            speedup,
            100.0 * speedup / lower,
            series.failed,
            series.wrong,
        );
    }
    for (own, series) in all
        .iter()
        .filter_map(|series| Some((series.own()?, series)))
    {
        println!(
            "{} workers: {:.1} % of the primary's CPU is distmesh's own",
            series.workers,
            100.0 * own
        );
    }
    if let Some(known) = &ceilings {
        tell_ceilings(known);
    }
    compare(&all);
    // icecream's debug information tells that it preprocesses in its own way.
    let right = |run: &Run| run.wrong.is_empty() || run.arm == Arm::Icecream;
    runs.iter().all(|run| run.exit == Some(0) && right(run))
}

fn tell_ceilings(known: &Ceilings) {
    let Some((all, primary)) = known.work else {
        return;
    };
    println!(
        "\nthe primary's own work: {primary:.1} s of {all:.1} s CPU, so no number of workers makes it more than {:.1} times as fast\n\
         'of best': of the lower of that and the number of machines",
        all / primary
    );
}

/// The quickest.
pub(crate) fn best<'a>(series: impl Iterator<Item = &'a Series>) -> Option<&'a Series> {
    series.min_by(|a, b| a.wall().total_cmp(&b.wall()))
}

/// distmesh beside the best of stock distcc's settings.
fn compare(all: &[Series]) {
    for ours in all.iter().filter(|series| series.arm == Arm::Distmesh) {
        let same = |series: &&Series| series.arm == Arm::Stock && series.workers == ours.workers;
        let best = best(all.iter().filter(same));
        let Some(best) = best else { continue };
        let setting = best.setting.map(|setting| setting.to_string());
        println!(
            "{} workers: distmesh takes {:.3} of the time of stock distcc, the best of what was measured: {}",
            ours.workers,
            ours.wall() / best.wall(),
            setting.unwrap_or_default(),
        );
    }
}
