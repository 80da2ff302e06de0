//! The table, for a page.

use crate::{
    arms::Arm,
    measured::Measured,
    table::{Ceilings, Series, best, series},
};

/// One row for each means and number of workers; of stock distcc's settings the best alone.
pub(crate) fn table(measured: &Measured) -> String {
    let all = series(&measured.runs);
    let ceilings = Ceilings::of(&measured.runs);
    let searched = measured.runs.iter().any(|run| run.search);
    let mut lines = vec![
        "| workers | built by | n | seconds | least–most | speed-up | of what is possible | primary's CPU, s |".to_owned(),
        "|--:|:--|--:|--:|--:|--:|--:|--:|".to_owned(),
    ];
    let mut keys: Vec<_> = all
        .iter()
        .map(|series| (series.workers, series.arm))
        .collect();
    keys.dedup();
    for key in keys {
        let same = all
            .iter()
            .filter(|series| (series.workers, series.arm) == key);
        lines.extend(best(same).map(|series| row(series, searched, ceilings.as_ref())));
    }
    lines.push(String::new());
    lines.push(conditions(measured, ceilings.as_ref()));
    lines.join("\n") + "\n"
}

/// `searched`: distcc's setting is the best of a grid.
fn row(series: &Series, searched: bool, ceilings: Option<&Ceilings>) -> String {
    let speedup = ceilings.map_or(f64::NAN, |known| known.speedup(series));
    let lower = ceilings.map_or(f64::NAN, |known| known.lower(series.workers));
    let share = if series.arm == Arm::Local {
        String::new()
    } else {
        format!("{:.0} %", 100.0 * speedup / lower)
    };
    let differs = match series.wrong() {
        0 => "",
        _ => ", other bytes in objects",
    };
    let own = series
        .own()
        .map(|own| format!(", {:.1} % distmesh", 100.0 * own));
    format!(
        "| {} | {}{differs} | {} | {:.1} | {} | {speedup:.2} | {share} | {:.1}{} |",
        series.workers,
        means(series, searched),
        series.count(),
        series.wall(),
        series.spread(),
        series.cpu(),
        own.unwrap_or_default(),
    )
}

fn means(series: &Series, searched: bool) -> String {
    let setting = series.setting.map(|setting| setting.to_string());
    let setting = setting.unwrap_or_default();
    match series.arm {
        Arm::Local => "`make -j2`, alone".to_owned(),
        Arm::Stock if searched => format!("distcc on the bare network, its best: {setting}"),
        Arm::Stock => format!("distcc on the bare network, as usual: {setting}"),
        Arm::StockWireguard => "the same over wireguard-go".to_owned(),
        Arm::Icecream => "icecream on the bare network".to_owned(),
        Arm::Distmesh => "**distmesh**, every machine behind NAT".to_owned(),
    }
}

fn conditions(measured: &Measured, ceilings: Option<&Ceilings>) -> String {
    let cores = measured.cores.map(|cores| format!("{cores:.2} of a core"));
    let cores = cores.unwrap_or_else(|| "no quota".to_owned());
    let ceiling = ceilings.and_then(Ceilings::of_primary);
    let ceiling = ceiling.map(|times| {
        format!(
            " What the primary has to do itself lets no mesh be more than {times:.1} times as fast."
        )
    });
    let own = measured.own_slots.map(|slots| slots.to_string());
    format!(
        "{}, every machine with {cores}, {} compiles at once on a worker (of distmesh {}); medians.{}",
        measured.tree,
        measured.slots,
        own.as_deref()
            .unwrap_or("its default, one for a core or part of one"),
        ceiling.unwrap_or_default()
    )
}
