//! What dispatch costs, and how much it carries.
//!
//! **Overhead**: the same stock distcc and distccd with and without distmesh between them, in turn. **Scale**: 256 pretended
//! workers and a thousand jobs a second. What runs is told from what measures: each in a process of its own.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark is a program of its own: it prints, and reads the clock and its environment"
)]

mod clock;
mod distccd;
mod load;
#[path = "../measure/mod.rs"]
mod measure;
#[path = "../../src/memory.rs"]
mod memory;
mod overhead;
mod pretended;
mod primary;
mod role;
mod scale;
mod table;
mod talk;
mod tunnels;
mod worker;

use std::{path::PathBuf, process::ExitCode, str::FromStr};

use clap::{Parser, ValueEnum};
use serde::Serialize;

use measure::{figures::write_json, tools::missing};
use overhead::{Row, Sizes};
use scale::{Outcome, Scale};

/// Measures what dispatch adds to a job, and dispatches a thousand jobs a second to 256 workers
#[derive(Debug, Parser)]
struct Args {
    /// Only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Overhead: jobs of each way and size
    #[arg(long, default_value_t = 500)]
    rounds: usize,
    /// Overhead: source and object in KB
    #[arg(long, value_delimiter = ',', default_value = "250:100,20:10")]
    sizes: Vec<Sizes>,
    /// Scale: workers
    #[arg(long, default_value_t = 256)]
    workers: usize,
    /// Scale: slots of each worker
    #[arg(long, default_value_t = 4)]
    slots: u32,
    /// Scale: jobs a second
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Scale: seconds
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Scale: milliseconds of a compile on average; at 1,000 jobs a second as many slots are busy
    #[arg(long, default_value_t = 700)]
    compile: u64,
    /// Scale: source and object in KB
    #[arg(long, value_delimiter = ',', default_value = "2:2,60:30,250:100")]
    load: Vec<Sizes>,
    /// Scale: reach the workers through a tunnel each, too, all of whose other ends share one process
    #[arg(long)]
    tunnel: bool,
    /// Look whether everything works, not how fast
    #[arg(long)]
    quick: bool,
    /// Write all figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Overhead,
    Scale,
}

#[derive(Default, Serialize)]
struct All {
    overhead: Vec<Row>,
    scale: Vec<Outcome>,
}

fn main() -> ExitCode {
    if let Some(done) = role::play_if_asked() {
        return done;
    }
    let mut args = Args::parse();
    let tools = [("distcc", "distcc"), ("distccd", "distcc"), ("gcc", "gcc")];
    if let Some(needs) = missing(&tools).filter(|_| args.only != Some(Part::Scale)) {
        eprintln!("{needs}");
        return ExitCode::from(2);
    }
    if args.quick {
        (args.rounds, args.workers, args.rate, args.seconds) = (3, 16, 200, 2);
        (args.compile, args.tunnel) = (100, true);
        args.load.truncate(1);
    }
    if run(&args) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether everything works, and, unless that is all that is asked, keeps its bars.
fn run(args: &Args) -> bool {
    let mut all = All::default();
    let mut kept = true;
    if args.only != Some(Part::Scale) {
        for sizes in &args.sizes {
            all.overhead.extend(overhead::run(*sizes, args.rounds));
        }
        kept &= table::overhead(&all.overhead);
    }
    if args.only != Some(Part::Overhead) {
        all.scale = args.scales().map(scale::run).collect();
        kept &= table::scale(&all.scale);
    }
    if let Some(path) = &args.json {
        write_json(path, &all);
    }
    all.scale.iter().all(Outcome::is_whole) && (kept || args.quick)
}

impl Args {
    fn scales(&self) -> impl Iterator<Item = Scale> {
        let ways = if self.tunnel {
            &[false, true][..]
        } else {
            &[false]
        };
        let scale = |sizes: Sizes, tunnel| Scale {
            workers: self.workers,
            slots: self.slots,
            rate: self.rate,
            seconds: self.seconds,
            sizes,
            compile: self.compile,
            tunnel,
        };
        let each = move |tunnel: &bool| {
            let tunnel = *tunnel;
            self.load.iter().map(move |sizes| scale(*sizes, tunnel))
        };
        ways.iter().flat_map(each)
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kb = |text: &str| text.parse::<usize>().ok().filter(|kb| *kb > 0);
        let both = text
            .split_once(':')
            .and_then(|(source, object)| Some((kb(source)?, kb(object)?)));
        let (source, object) = both.ok_or("two sizes in KB, like 250:100")?;
        Ok(Self {
            source: source * 1000,
            object: object * 1000,
        })
    }
}
