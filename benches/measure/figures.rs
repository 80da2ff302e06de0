//! Figures of many runs.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

/// What many figures come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// How many there are.
    pub(crate) n: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// By nearest rank: every one of them is a figure that was measured. Not a number where nothing was.
    pub(crate) fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let rank = |percent: usize| (figures.len() * percent).div_ceil(100).max(1) - 1;
        let at = |percent| figures.get(rank(percent)).copied().unwrap_or(f64::NAN);
        Self {
            n: figures.len(),
            p50: at(50),
            p99: at(99),
            max: at(100),
        }
    }
}

/// Writes everything that was measured to a file, for machines.
pub(crate) fn write_json(path: &Path, all: &impl Serialize) {
    let text = serde_json::to_string_pretty(all).expect("figures are plain");
    if let Err(error) = fs::write(path, text + "\n") {
        eprintln!("cannot write {}: {error}", path.display());
    }
}
