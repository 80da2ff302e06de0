//! Throughput and latency of the tunnel, beside raw TCP, wireguard-go and boringtun-cli: two machines (network namespaces), one
//! transfer, then 16 jobs at once on one warm link.
//!
//! The bars: bulk twice that of either WireGuard, with less CPU per GB on both ends; p50 of the jobs at most 2.5 round trips,
//! the time that all jobs' bytes take at the tunnel's best rate in this run, and 3 ms; p99 at most 1 s; no stall over 1 s.
//! `--quick` asserts nothing of time: every byte arrived as it was sent, every job was answered.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark is a program of its own: it prints, and reads the clock and its environment"
)]

mod arms;
mod endpoint;
#[expect(
    dead_code,
    reason = "shared with another benchmark, which uses the rest"
)]
#[path = "../measure/figures.rs"]
mod figures;
#[path = "../../src/memory.rs"]
mod memory;
#[path = "../cluster/namespaces.rs"]
mod namespaces;
mod network;
mod results;
mod traffic;
#[path = "../../tests/lab/tun.rs"]
mod tun;
#[path = "../cluster/watch.rs"]
mod watch;
mod wire;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;

use arms::{Arm, Started};
use endpoint::{Task, Told};
use network::{Network, Way};
use results::{JOBS, Sample, quantile};

/// Measures the tunnel beside raw TCP, wireguard-go and boringtun-cli.
#[derive(Debug, Parser)]
struct Args {
    /// Runs of each cell and arm
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Only these arms
    #[arg(long, value_enum, value_delimiter = ',')]
    arm: Vec<Arm>,
    /// Round-trip times in ms
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 5.0, 20.0])]
    rtt: Vec<f64>,
    /// Loss in %, each way
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 0.1, 1.0])]
    loss: Vec<f64>,
    /// Seconds of each transfer, and of each round of jobs
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Congestion control of TCP [default: this machine's]
    #[arg(long)]
    tcp: Option<String>,
    /// Correctness only, in a second a cell: distmesh and raw TCP, one run
    #[arg(long)]
    quick: bool,
    /// Write all samples to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if let Some(done) = endpoint::serve_if_asked() {
        return done;
    }
    let mut args = Args::parse();
    if let Err(code) = namespaces::enter(&[("ethtool", "ethtool"), ("sysctl", "procps")]) {
        return code;
    }
    if !Path::new("/dev/net/tun").exists() {
        eprintln!("needs /dev/net/tun: modprobe tun");
        return ExitCode::from(2);
    }
    if args.quick {
        (args.runs, args.seconds) = (1, 1.0);
    }
    // For the daemons' control sockets and the names of namespaces.
    namespaces::run("mount -t tmpfs tmpfs /run");
    let arms = chosen(&args);
    header(&args);
    let samples = measure(&args, &arms);
    results::tell(&samples);
    let met = if args.quick {
        println!("Every byte arrived and every job was answered; times are not judged.");
        true
    } else {
        results::judge_all(&samples)
    };
    if let Some(path) = &args.json {
        figures::write_json(path, &samples);
    }
    if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The arms that are wanted and can be run; says which cannot.
fn chosen(args: &Args) -> Vec<Arm> {
    let wanted = match (args.arm.is_empty(), args.quick) {
        (false, _) => args.arm.clone(),
        (true, true) => vec![Arm::Raw, Arm::Distmesh],
        (true, false) => vec![Arm::Raw, Arm::WireguardGo, Arm::Boringtun, Arm::Distmesh],
    };
    let can = |arm: &Arm| match arm.missing() {
        Some(what) => {
            eprintln!("without {arm}, which needs {what}");
            false
        }
        None => true,
    };
    wanted.into_iter().filter(can).collect()
}

fn header(args: &Args) {
    let setting = |name: &str| {
        let path = Path::new("/proc/sys/net").join(name);
        fs::read_to_string(path).unwrap_or_else(|_| "unknown".to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let tcp = args.tcp.clone();
    println!(
        "{cores} cores. {}\nTCP: {}; rmem_max {}; {} runs, {} s each.",
        network::describe(),
        tcp.unwrap_or_else(|| setting("ipv4/tcp_congestion_control"))
            .trim(),
        setting("core/rmem_max").trim(),
        args.runs,
        args.seconds,
    );
}

/// Every arm in every cell, one after another, again and again.
fn measure(args: &Args, arms: &[Arm]) -> Vec<Sample> {
    let mut samples = Vec::new();
    for run in 1..=args.runs {
        for &rtt in &args.rtt {
            for &loss in &args.loss {
                let way = Way {
                    rtt: Duration::from_secs_f64(rtt / 1e3),
                    loss,
                };
                for &arm in arms {
                    let sample = one(args, way, arm, run);
                    println!("{}", serde_json::to_string(&sample).unwrap_or_default());
                    samples.push(sample);
                }
            }
        }
    }
    samples
}

/// One arm in one cell, on a network that nobody has used.
fn one(args: &Args, way: Way, arm: Arm, run: u32) -> Sample {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tunnel");
    drop(fs::remove_dir_all(&dir));
    fs::create_dir_all(&dir).expect("a directory");
    let network = Network::new(way, args.tcp.as_deref());
    let mut started = arm.start(&network, &dir);
    let (bulk, cpu) = bulk(&mut started, args.seconds);
    let Told::Jobs(mut took) = started.perform(Task::Jobs {
        at_once: JOBS,
        seconds: args.seconds,
    }) else {
        panic!("no answer to jobs");
    };
    assert!(bulk.intact, "{arm}: not every byte arrived as it was sent");
    assert!(took.len() >= JOBS, "{arm}: a job was not answered");
    let gigabytes = bulk.bytes as f64 / 1e9;
    Sample {
        run,
        arm,
        rtt_ms: way.rtt.as_secs_f64() * 1e3,
        loss_percent: way.loss,
        mbit: gigabytes * 8e3 / bulk.seconds,
        cpu: cpu.map(|seconds| seconds / gigabytes),
        stall: bulk.stall,
        jobs: took.len(),
        p50: quantile(&mut took, 0.5),
        p99: quantile(&mut took, 0.99),
    }
}

fn bulk(started: &mut Started, seconds: f64) -> (traffic::Bulk, [f64; 2]) {
    let before = started.cpu();
    let Told::Bulk(bulk) = started.perform(Task::Bulk { seconds }) else {
        panic!("no answer to bulk");
    };
    let after = started.cpu();
    (bulk, [0, 1].map(|end| after[end] - before[end]))
}
