//! The load: clients that come at a steady rate, whatever becomes of those before, and the pretended workers.

use std::{sync::Arc, time::Duration};

use distmesh::session::Descriptor;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    sync::mpsc,
};

use crate::{
    clock::now,
    measure::{figures::Spread, usage::Usage},
    pretended::{Pretended, skip, with_tunnels},
    role::{say, told},
    talk::{NUMBER, Talk, number},
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) workers: usize,
    pub(crate) tunnel: bool,
    pub(crate) talk: Talk,
    /// Jobs a second.
    pub(crate) rate: u32,
    pub(crate) jobs: u32,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) answered: u32,
    /// Clients whose answer did not come whole.
    pub(crate) failed: u32,
    /// Answers a second, from the moment when the first jobs could have ended.
    pub(crate) achieved: f64,
    /// Milliseconds that each job took longer than its compile.
    pub(crate) added: Option<Spread>,
    /// The most jobs that any worker ever had at once.
    pub(crate) most: u32,
    pub(crate) usage: Usage,
}

pub(crate) fn live(runtime: &Runtime, task: &Task) {
    let workers: Vec<_> = (0..task.workers)
        .map(|_| Pretended::new(&task.talk))
        .collect();
    if task.tunnel {
        let (descriptors, tunnels) = with_tunnels(&workers);
        say(&descriptors);
        let primary: Descriptor = told(runtime).expect("the primary's descriptor");
        for tunnel in tunnels {
            tunnel.peer_found(primary.clone());
        }
    } else {
        let listening = workers.iter().cloned().map(Pretended::listen);
        let at: Vec<_> = listening.map(|worker| runtime.block_on(worker)).collect();
        say(&at);
    }
    let Some(ports) = told::<Vec<u16>>(runtime) else {
        return;
    };
    let before = Usage::of_this_process();
    let mut report = runtime.block_on(drive(task, Arc::new(ports)));
    report.most = workers
        .iter()
        .map(|worker| worker.most())
        .max()
        .unwrap_or(0);
    report.usage = Usage::of_this_process();
    report.usage.cpu -= before.cpu;
    say(&report);
    // The links stay up until nobody needs them.
    while told::<()>(runtime).is_some() {}
}

/// What one client saw.
struct Seen {
    /// Since the load began.
    at: Duration,
    /// Longer than the compile; `None` for an answer that did not come.
    added: Option<Duration>,
}

async fn drive(task: &Task, ports: Arc<Vec<u16>>) -> Report {
    let (seen, mut all_seen) = mpsc::unbounded_channel();
    let began = now();
    let talk = Arc::new(task.talk.clone());
    let source = Arc::new(vec![b's'; task.talk.source - NUMBER]);
    let mut job = 0;
    while job < task.jobs {
        let due = (began.elapsed().as_secs_f64() * f64::from(task.rate)) as u32;
        while job < due.min(task.jobs) {
            let port = ports[job as usize % ports.len()];
            let (talk, source, seen) = (talk.clone(), source.clone(), seen.clone());
            tokio::spawn(async move {
                let sent = now();
                let whole = client(port, job, &talk, &source).await.is_some();
                let added = sent.elapsed().saturating_sub(talk.compile_time(job));
                let at = began.elapsed();
                let added = whole.then_some(added);
                drop(seen.send(Seen { at, added }));
            });
            job += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(seen);
    let mut all = Vec::new();
    while let Some(seen) = all_seen.recv().await {
        all.push(seen);
    }
    tell(&all, task)
}

fn tell(all: &[Seen], task: &Task) -> Report {
    let added: Vec<_> = all
        .iter()
        .filter_map(|seen| Some(seen.added?.as_secs_f64() * 1e3))
        .collect();
    // Between the end of the first jobs and the last client, answers come at the rate of dispatch.
    let from = task.talk.compile.mul_f64(2.0).as_secs_f64();
    let to = f64::from(task.jobs) / f64::from(task.rate);
    let within = all.iter().filter(|seen| {
        let at = seen.at.as_secs_f64();
        seen.added.is_some() && at >= from && at < to
    });
    Report {
        answered: added.len() as u32,
        failed: (all.len() - added.len()) as u32,
        achieved: within.count() as f64 / (to - from),
        added: (!added.is_empty()).then(|| Spread::of(added)),
        ..Report::default()
    }
}

/// Sends a request and reads the whole answer; `None` if it is not the one to this job.
async fn client(port: u16, job: u32, talk: &Talk, source: &[u8]) -> Option<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let head = [&talk.request_head()[..], &number(job)].concat();
    stream.write_all(&head).await.ok()?;
    stream.write_all(source).await.ok()?;
    let mut answer = vec![0; talk.answer_head().len() + NUMBER];
    stream.read_exact(&mut answer).await.ok()?;
    skip(&mut stream, talk.object - NUMBER).await?;
    (answer == [&talk.answer_head()[..], &number(job)].concat()).then_some(())
}
