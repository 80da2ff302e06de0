//! Nodes that are nothing but an exchange of descriptors.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use distmesh::{
    rendezvous::{
        self, ExchangeConfig, Notice,
        github::{Access, GitHub, Run},
    },
    session::{Descriptor, NatClass, PeerId, Role, Secret, SessionKeys, SessionName},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::fake::Fake;

/// One node of the run.
pub struct Node {
    name: String,
    found: mpsc::Receiver<Descriptor>,
    notices: mpsc::Receiver<Notice>,
    known: BTreeSet<String>,
    pub said: Vec<String>,
    pub me: watch::Sender<Descriptor>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// The rendezvous as a job of the fake's run sees it; `leave_out` are variables that it is not given.
pub fn github(fake: &Fake, attempt: u32, job: &str, leave_out: &[&str]) -> (Run, GitHub) {
    let env = fake.env(attempt, job);
    let get = |name: &str| {
        let found = env.iter().find(|(key, _)| *key == name);
        let found = found.filter(|_| !leave_out.contains(&name));
        found.map(|(_, value)| value.clone())
    };
    let run = Run::from_env(get).unwrap();
    let access = Access::from_env(get).unwrap();
    let github = GitHub::new(run.clone(), &access, run.session()).unwrap();
    (run, github)
}

/// What a node publishes; job 0 is the primary.
pub fn descriptor(job: u8, seq: u64) -> Descriptor {
    Descriptor {
        role: if job == 0 {
            Role::Primary
        } else {
            Role::Worker
        },
        name: format!("GitHub-Actions-{job}-4711").parse().unwrap(),
        start_ms: 1_764_000_000_000,
        seq,
        peer: PeerId([job + 1; 32]),
        stream_key: [0; 32],
        candidates: vec![],
        nat: NatClass::Unknown,
    }
}

/// Derived once a session: stretching is slow on purpose.
fn keys(session: &SessionName) -> Arc<SessionKeys> {
    static KEYS: Mutex<BTreeMap<SessionName, Arc<SessionKeys>>> = Mutex::new(BTreeMap::new());
    let mut keys = KEYS.lock().unwrap();
    let derived = keys.entry(session.clone()).or_insert_with(|| {
        let secret = Secret::new(b"a secret that is long enough".to_vec()).unwrap();
        Arc::new(SessionKeys::derive(&secret, session).unwrap())
    });
    Arc::clone(derived)
}

impl Node {
    pub fn start(fake: &Fake, attempt: u32, job: u8) -> Self {
        let (run, github) = github(fake, attempt, &job.to_string(), &[]);
        let me = descriptor(job, 1);
        let session = run.session();
        let name = me.name.to_string();
        let (me, my) = watch::channel(me);
        let (stop, stopped) = watch::channel(false);
        let (found_tx, found) = mpsc::channel(64);
        let (notices_tx, notices) = mpsc::channel(1024);
        let task = tokio::spawn(rendezvous::run(ExchangeConfig {
            rendezvous: Arc::new(github),
            keys: keys(&session),
            session,
            me: my,
            found: found_tx,
            notices: notices_tx,
            quick: watch::channel(true).1,
            stop: stopped,
        }));
        Self {
            name,
            found,
            notices,
            known: BTreeSet::new(),
            said: Vec::new(),
            me,
            stop,
            task,
        }
    }

    /// Waits until it knows so many others, or the time is over.
    pub async fn knows(&mut self, others: usize, until: Instant) -> bool {
        while self.known.len() < others {
            tokio::select! {
                Some(found) = self.found.recv() => drop(self.known.insert(found.name.to_string())),
                Some(notice) = self.notices.recv() => self.said.push(format!("{}: {notice}", self.name)),
                () = tokio::time::sleep_until(until) => break,
            }
        }
        while let Ok(notice) = self.notices.try_recv() {
            self.said.push(format!("{}: {notice}", self.name));
        }
        self.known.len() == others
    }

    /// The next descriptor that it finds.
    pub async fn next(&mut self) -> Descriptor {
        let found = tokio::time::timeout(Duration::from_secs(60), self.found.recv());
        found.await.expect("something within a minute").unwrap()
    }

    /// Ends as a process does that is killed.
    pub fn kill(self) {
        self.task.abort();
    }

    pub async fn stop(self) {
        self.stop.send_replace(true);
        drop(self.found);
        drop(self.notices);
        self.task.await.unwrap();
    }
}

/// A storage that is full stays so for as long as a test.
pub const FULL: &str = "storage is full";

/// Some nodes of one run.
pub struct Nodes(pub Vec<Node>);

impl Nodes {
    pub fn start(fake: &Fake, attempt: u32, count: u8) -> Self {
        Self(
            (0..count)
                .map(|job| Node::start(fake, attempt, job))
                .collect(),
        )
    }

    /// True when everybody knows everybody else within this time. Ends early when somebody said why that cannot be.
    pub async fn form(&mut self, within: Duration) -> bool {
        let patience = Instant::now() + within;
        let others = self.0.len() - 1;
        while Instant::now() < patience && !self.said().contains(FULL) {
            let until = Instant::now() + Duration::from_millis(500);
            let mut formed = true;
            for node in &mut self.0 {
                formed &= node.knows(others, until).await;
            }
            if formed {
                return true;
            }
        }
        false
    }

    /// Everything that they told people.
    pub fn said(&self) -> String {
        let said: Vec<&str> = self
            .0
            .iter()
            .flat_map(|node| &node.said)
            .map(String::as_str)
            .collect();
        said.join("\n")
    }

    pub fn kill(self) {
        self.0.into_iter().for_each(Node::kill);
    }

    pub async fn stop(self) {
        for node in self.0 {
            node.stop().await;
        }
    }
}
