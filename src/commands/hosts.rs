//! `distmesh hosts`.

use super::{down::is_absent, setup::session_dir};
use crate::{
    cli::HostsArgs,
    control::{self, Hosts, Request},
    distcc::hosts_env,
    error::{Failure, OrFail},
    machine,
    ui::Ui,
};

/// Prints the host line, or the number of jobs.
pub async fn hosts(args: &HostsArgs, ui: &Ui) -> Result<u8, Failure> {
    let (_, session, dir) = session_dir(args.which.session.clone())?;
    let hosts: Hosts = ask(&dir.control_socket(), Request::Hosts, session.as_str()).await?;
    if args.jobs {
        // What distcc sends away, and what this machine preprocesses and links meanwhile.
        ui.print(&format!("{}\n", hosts.capacity + machine::slots().count))?;
    } else {
        ui.print(&format!("{}\n", hosts_env(&hosts.lines)))?;
    }
    Ok(0)
}

/// Asks the session of this machine.
pub(super) async fn ask<T: serde::de::DeserializeOwned>(
    socket: &std::path::Path,
    request: Request,
    session: &str,
) -> Result<T, Failure> {
    match control::ask(socket, request).await {
        Err(error) if is_absent(&error) => Err(Failure::cannot_run(format!(
            "no session {session} runs on this machine"
        ))
        .hint("start one with `distmesh up`, or name another with --session")),
        other => other.or_cannot(format!("ask session {session}")),
    }
}
