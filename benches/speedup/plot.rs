//! Speed-up over the number of workers, as SVG.

use std::error::Error;

use plotters::prelude::*;

use crate::{
    arms::{Arm, Run},
    table::{Ceilings, Series, series},
};

const SIZE: (u32, u32) = (760, 480);
const OURS: RGBColor = RGBColor(0, 102, 204);
const STOCK: RGBColor = RGBColor(204, 102, 0);
const TUNNELLED: RGBColor = RGBColor(153, 153, 51);

/// Draws what was measured beside the two lines that nothing can pass.
pub(crate) fn speedup(tree: &str, runs: &[Run]) -> Result<String, Box<dyn Error>> {
    let all = series(runs);
    let known = Ceilings::of(runs).ok_or("no local build to compare with")?;
    let most = all.iter().map(|series| series.workers).max().unwrap_or(1);
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let machines = (most + 1) as f64;
        let mut chart = ChartBuilder::on(&root)
            .caption(
                format!("{tree}: speed-up over the local build"),
                ("sans-serif", 18),
            )
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(44)
            .build_cartesian_2d(0.0..most as f64, 1.0..machines)?;
        chart
            .configure_mesh()
            .x_desc("workers")
            .y_desc("times as fast")
            .x_labels(most + 1)
            .draw()?;
        let line = [(0.0, 1.0), (most as f64, machines)];
        chart
            .draw_series(LineSeries::new(line, BLACK.mix(0.5)))?
            .label("number of machines")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.mix(0.5)));
        if let Some(ceiling) = known.of_primary().filter(|ceiling| *ceiling < machines) {
            let line = [(0.0, ceiling), (most as f64, ceiling)];
            chart
                .draw_series(LineSeries::new(line, RED.mix(0.5)))?
                .label("the primary's own work")
                .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], RED.mix(0.5)));
        }
        for (arm, name, colour) in [
            (Arm::Distmesh, "distmesh, behind NAT", OURS),
            (
                Arm::Stock,
                "distcc, the best setting measured, bare network",
                STOCK,
            ),
            (Arm::StockWireguard, "distcc over wireguard-go", TUNNELLED),
        ] {
            let points = points(arm, &all, &known);
            if points.is_empty() {
                continue;
            }
            chart
                .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)).point_size(3))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .draw()?;
        root.present()?;
    }
    Ok(text)
}

/// The best of an arm's settings for each number of workers; alone it is as fast as the local build.
fn points(arm: Arm, all: &[Series], known: &Ceilings) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for series in all.iter().filter(|series| series.arm == arm) {
        let (x, y) = (series.workers as f64, known.speedup(series));
        match points.last_mut() {
            Some(last) if last.0 == x => last.1 = last.1.max(y),
            _ => points.push((x, y)),
        }
    }
    points
}
