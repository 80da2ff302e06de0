//! `distmesh status`.

use std::fmt::Write;

use super::{hosts::ask, setup::session_dir};
use crate::{
    cli::StatusArgs,
    control::{Request, Status},
    error::{Failure, OrFail},
    event::{LinkState, WorkerView},
    ui::{Ui, clean},
};

/// Prints the session as it is now.
pub async fn status(args: &StatusArgs, ui: &Ui) -> Result<u8, Failure> {
    let (_, session, dir) = session_dir(args.which.session.clone())?;
    let status: Status = ask(&dir.control_socket(), Request::Status, session.as_str()).await?;
    if args.json {
        let text = serde_json::to_string_pretty(&status).or_cannot("write JSON")?;
        ui.print(&format!("{text}\n"))?;
    } else {
        let table = table(&status);
        // What a worker says of itself is in it.
        let lines = table.lines().map(|line| clean(line) + "\n");
        ui.print(&lines.collect::<String>())?;
    }
    Ok(0)
}

fn table(status: &Status) -> String {
    let mut text = format!(
        "session {} (process {}), {}\n",
        status.session, status.pid, status.rendezvous
    );
    if status.workers.is_empty() {
        text += "no worker yet\n";
        return text;
    }
    let width = status
        .workers
        .iter()
        .map(|worker| worker.name.len())
        .max()
        .unwrap_or_default()
        .max(NAME.len());
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "{NAME:width$}  {:13}{:>5} {:>7} {:>9}  {:8}  {:27}  path",
        "link", "slots", "jobs", "RTT", "up after", "NAT"
    );
    for worker in &status.workers {
        let _ = writeln!(text, "{}", row(worker, width));
    }
    text
}

fn row(worker: &WorkerView, width: usize) -> String {
    let unknown = || "-".to_owned();
    let rtt = worker
        .rtt_us
        .map_or_else(unknown, |us| format!("{:.1} ms", us as f64 / 1e3));
    let up_after = worker
        .up_after_ms
        .map_or_else(unknown, |ms| format!("{:.1} s", ms as f64 / 1e3));
    format!(
        "{:width$}  {:13}{:>5} {:>7} {rtt:>9}  {up_after:8}  {:27}  {}",
        worker.name,
        worker.state,
        worker.slots,
        worker.jobs,
        worker.nat.as_deref().unwrap_or("-"),
        how(worker)
    )
}

/// The way to a worker that is up; why there is none to the others.
fn how(worker: &WorkerView) -> String {
    match (worker.state, &worker.path, &worker.relay) {
        (LinkState::Up, Some(path), Some(relay)) => format!("{path} by {relay}"),
        (LinkState::Up, Some(path), None) => path.clone(),
        _ => worker.reason.clone().unwrap_or_default(),
    }
}

const NAME: &str = "worker";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_a_worker_and_says_when_there_is_none() {
        let worker = WorkerView {
            name: "attic".into(),
            slots: 4,
            jobs: 120,
            state: LinkState::Up,
            path: Some("relayed".into()),
            relay: Some("cellar".into()),
            nat: Some("endpoint-independent".into()),
            reason: Some("connected".into()),
            up_after_ms: Some(740),
            rtt_us: Some(1500),
        };
        let mut status = Status {
            session: "default".into(),
            pid: 7,
            rendezvous: "dir:/x".into(),
            ready: 1,
            workers: vec![worker],
            cpu_ms: 0,
        };
        let text = table(&status);
        let row: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(
            row[..8],
            ["attic", "up", "4", "120", "1.5", "ms", "0.7", "s"]
        );
        assert_eq!(row[8..].join(" "), "endpoint-independent relayed by cellar");
        status.workers[0].state = LinkState::Down;
        status.workers[0].reason = Some("no answer on any path".into());
        assert!(table(&status).ends_with("no answer on any path\n"));
        status.workers.clear();
        assert!(table(&status).contains("no worker yet"));
    }
}
