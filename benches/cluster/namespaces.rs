//! Namespaces of its own for a benchmark, so that nothing outlives it.

use std::{
    env,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

#[path = "../measure/tools.rs"]
mod tools;

/// Set for the process inside the namespaces.
const INSIDE: &str = "DISTMESH_BENCH_INSIDE";

/// Directories that cargo adds for what it starts: every program of a build would look there for its libraries first.
const OF_CARGO: &str = "LD_LIBRARY_PATH";

/// What every benchmark needs, and Debian's packages that have it.
const TOOLS: [(&str, &str); 3] = [
    ("unshare", "util-linux"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
];

/// Runs the benchmark once more in namespaces of its own for processes, mounts and network, if these tools are there, too: the
/// caller goes on only inside of them.
pub(crate) fn enter(needed: &[(&str, &str)]) -> Result<(), ExitCode> {
    if env::var_os(INSIDE).is_some() {
        run("ip link set lo up");
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("needs root for namespaces and CPU quotas: run it with sudo -E");
        return Err(ExitCode::from(2));
    }
    if let Some(what) = tools::missing(&[&TOOLS, needed].concat()) {
        eprintln!("{what}");
        return Err(ExitCode::from(2));
    }
    let own = env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let error = Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(own)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        .env_remove(OF_CARGO)
        .exec();
    eprintln!("cannot run unshare: {error}");
    Err(ExitCode::from(2))
}

/// Runs a command that has to succeed.
pub(crate) fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap_or_default())
        .args(words)
        .stdout(Stdio::null())
        .status();
    let done = status.as_ref().is_ok_and(std::process::ExitStatus::success);
    assert!(done, "`{command}` failed: {status:?}");
}
