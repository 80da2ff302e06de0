//! What more machines are worth: the same tree built here alone, by stock distcc and by distmesh, under the same quotas.
//!
//! Every machine has the same share of a core, so `n` workers can at best make a build `n + 1` times as fast; and what the primary
//! has to do itself in any case (preprocess, run distcc, link) is a second ceiling. Stock distcc gets the bare network and the best of a
//! grid of settings; distmesh gets a router with NAT before every machine, and no settings.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark is a program of its own: it prints, and reads the clock and its environment"
)]

mod arms;
#[expect(
    dead_code,
    reason = "shared with another benchmark, which uses the rest"
)]
#[path = "../cluster/mod.rs"]
mod cluster;
#[expect(
    dead_code,
    reason = "shared with another benchmark, which uses the rest"
)]
#[path = "../measure/figures.rs"]
mod figures;
mod icecream;
mod markdown;
mod measured;
#[path = "../measure/median.rs"]
mod median;
mod plot;
mod table;
mod wireguard;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};

use arms::{Arm, Stage};
use cluster::{
    Cluster, Size, isolate,
    site::Site,
    tree::{CPPCHECK, GIT, REDIS, Recipe, SMALL, Tree},
};
use measured::Measured;

/// Builds a real tree on throttled machines, by each of several means in turn.
#[derive(Debug, Parser)]
struct Args {
    /// What is built
    #[arg(long, value_enum, default_value = "redis")]
    tree: Source,
    /// Numbers of workers; with the first, the best settings of stock distcc are searched
    #[arg(long, value_delimiter = ',', default_value = "4")]
    workers: Vec<usize>,
    /// Runs of each arm
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Runs of the local build, which takes longest
    #[arg(long)]
    local_runs: Option<u32>,
    /// Only these arms
    #[arg(long, value_enum, value_delimiter = ',')]
    arm: Vec<Arm>,
    /// Cores of each machine [default: so that all machines together have 1.8]
    #[arg(long)]
    quota: Option<f64>,
    /// Compiles at once on each worker of distcc and icecream
    #[arg(long, default_value_t = 2)]
    slots: u32,
    /// Compiles at once on each worker of distmesh [default: as many as it thinks right]
    #[arg(long)]
    own_slots: Option<u32>,
    /// Stock distcc with the usual settings only, not the whole grid
    #[arg(long)]
    no_grid: bool,
    /// Search the grid with every number of workers, which takes long
    #[arg(long)]
    every_grid: bool,
    /// Build nothing: tell what these files, written by --json, hold together
    #[arg(long, num_args = 1.., value_name = "FILE")]
    from: Vec<PathBuf>,
    /// Write all runs to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw speed-up over workers into this file
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Write the table in Markdown into this file
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// A small tree, no quotas, once: whether everything works, not how fast
    #[arg(long)]
    quick: bool,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Source {
    Redis,
    Git,
    Cppcheck,
    Small,
}

/// Two cores less what the benchmark, the kernel's timers and the network need.
const CORES: f64 = 1.8;

impl Args {
    fn quicken(&mut self) {
        if self.quick {
            self.tree = Source::Small;
            self.workers = vec![2];
            self.runs = 1;
            self.no_grid = true;
        }
    }

    fn arms(&self) -> Vec<Arm> {
        match self.arm.as_slice() {
            [] if self.quick => vec![Arm::Local, Arm::Stock, Arm::Distmesh],
            [] => Arm::value_variants().to_vec(),
            chosen => chosen.to_vec(),
        }
    }

    fn size(&self) -> Size {
        let workers = self.workers.iter().copied().max().unwrap_or_default();
        let share = || CORES / (workers + 1) as f64;
        Size {
            workers,
            quota: (!self.quick).then(|| self.quota.unwrap_or_else(share)),
            slots: self.slots,
            own_slots: self.own_slots,
        }
    }
}

impl Source {
    fn recipe(self) -> Recipe {
        match self {
            Self::Redis => REDIS,
            Self::Git => GIT,
            Self::Cppcheck => CPPCHECK,
            Self::Small => SMALL,
        }
    }
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    args.quicken();
    let measured = if args.from.is_empty() {
        measure(&args)
    } else {
        Measured::read(&args.from).map_err(complain)
    };
    let measured = match measured {
        Ok(measured) => measured,
        Err(code) => return code,
    };
    let good = table::tell(&measured.runs);
    match write(&args, &measured) {
        Ok(()) if good => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => complain(error),
    }
}

fn complain(error: String) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(2)
}

fn measure(args: &Args) -> Result<Measured, ExitCode> {
    let (recipe, arms, size) = (args.tree.recipe(), args.arms(), args.size());
    Tree::fetch(recipe)
        .and_then(|()| arms::lacking(&arms))
        .map_err(complain)?;
    isolate()?;
    let mut stage = Stage::new(Site::new(Cluster::new(size), recipe));
    for (n, workers) in args.workers.iter().enumerate() {
        stage.site.cluster.employ(*workers);
        stage.begin();
        if arms.contains(&Arm::Stock) && !args.no_grid {
            if n == 0 || args.every_grid {
                stage.search_grid();
            } else {
                stage.scale_grid(args.workers[0]);
            }
        }
        for run in 0..args.runs {
            for arm in &arms {
                // The local build does not depend on the workers.
                let local = n == 0 && args.local_runs.is_none_or(|runs| run < runs);
                if *arm != Arm::Local || local {
                    stage.run(*arm);
                    keep(args, &measured(args, &stage));
                }
            }
        }
    }
    let throttled = stage.site.cluster.throttled();
    println!("\nthrottled periods: {}", throttled.join(", "));
    Ok(measured(args, &stage))
}

/// What there is so far.
fn measured(args: &Args, stage: &Stage) -> Measured {
    let size = args.size();
    Measured {
        tree: args.tree.recipe().package.to_owned(),
        cores: size.quota,
        slots: size.slots,
        own_slots: size.own_slots,
        runs: stage.runs.clone(),
    }
}

/// After every run: what an hour has brought must not be lost with the next run.
fn keep(args: &Args, measured: &Measured) {
    if let Some(path) = &args.json {
        figures::write_json(path, measured);
    }
}

/// Into the files that were asked for.
fn write(args: &Args, measured: &Measured) -> Result<(), String> {
    keep(args, measured);
    let drawn = args.svg.as_ref().map(|path| {
        let text = plot::speedup(&measured.tree, &measured.runs);
        (path, text.map_err(|error| error.to_string()))
    });
    let told = args.markdown.as_ref();
    let told = told.map(|path| (path, Ok(markdown::table(measured))));
    for (path, text) in drawn.into_iter().chain(told) {
        let written =
            text.and_then(|text| fs::write(path, text).map_err(|error| error.to_string()));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}
