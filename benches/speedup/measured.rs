//! What was measured, as it is kept in a file.

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::arms::Run;

/// Runs that may be compared with each other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) tree: String,
    /// Of each machine; `None`: without a quota.
    pub(crate) cores: Option<f64>,
    /// Compiles at once on each worker of distcc and icecream.
    pub(crate) slots: u32,
    /// On each worker of distmesh; `None`: its default.
    #[serde(default)]
    pub(crate) own_slots: Option<u32>,
    pub(crate) runs: Vec<Run>,
}

impl Measured {
    /// The runs of several files together.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, String> {
        let mut all: Option<Self> = None;
        for path in paths {
            let wrong = |why: String| format!("cannot use {}: {why}", path.display());
            let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
            let mut more: Self =
                serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
            match &mut all {
                None => all = Some(more),
                Some(all) if all.is_like(&more) => all.runs.append(&mut more.runs),
                Some(_) => {
                    return Err(wrong(
                        "another tree or other machines than before".to_owned(),
                    ));
                }
            }
        }
        all.ok_or_else(|| "no file to read".to_owned())
    }

    fn is_like(&self, other: &Self) -> bool {
        let key = |measured: &Self| {
            let cores = measured.cores.map(f64::to_bits);
            let slots = (measured.slots, measured.own_slots);
            (measured.tree.clone(), cores, slots)
        };
        key(self) == key(other)
    }
}
