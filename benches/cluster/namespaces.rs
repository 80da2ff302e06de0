//! Namespaces of its own for a benchmark, so that nothing outlives it.

use std::{
    env,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

/// Set for the process inside the namespaces.
const INSIDE: &str = "DISTMESH_BENCH_INSIDE";

/// Runs the benchmark once more in namespaces of its own for processes, mounts and network: the caller goes on only inside of
/// them. `packages` have all the tools.
pub(crate) fn enter(tools: &[&str], packages: &str) -> Result<(), ExitCode> {
    if env::var_os(INSIDE).is_some() {
        run("ip link set lo up");
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("needs root for its namespaces: run it with sudo -E");
        return Err(ExitCode::from(2));
    }
    for tool in ["unshare", "nsenter", "ip", "nft"].iter().chain(tools) {
        if which::which(tool).is_err() {
            eprintln!("needs {tool}: apt-get install util-linux iproute2 nftables {packages}");
            return Err(ExitCode::from(2));
        }
    }
    let own = env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let error = Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(own)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
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
