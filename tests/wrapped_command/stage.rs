//! A directory to build in, and a session around one command.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use distmesh::build::{BuildError, BuildNews, BuildOptions, BuildOutcome, run};
use distmesh::dispatch::{BuildDesk, Dispatch, JobIo, Transport, WorkerUpdate};
use distmesh::event::{BuildFeedback, BuildUpdate, Compiler, LinkState, Load};
use distmesh::session::PeerId;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::Distccd;

/// The environment that a build gets, apart from what the test sets.
const CLEAN: &[&str] = &["MAKEFLAGS", "MAKELEVEL", "GNUMAKEFLAGS", "CC", "CXX"];

pub(crate) struct Stage {
    pub(crate) at: tempfile::TempDir,
    pub(crate) options: BuildOptions,
}

/// How a build ended, and what it told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) outcome: BuildOutcome,
    pub(crate) news: Vec<BuildNews>,
}

impl Stage {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let at = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = at.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let mut env: Vec<(OsString, OsString)> = std::env::vars_os()
            .filter(|(name, _)| CLEAN.iter().all(|unwanted| name != unwanted))
            .collect();
        for (name, dir) in [("XDG_DATA_HOME", "data"), ("CCACHE_DIR", "ccache")] {
            env.push((name.into(), at.path().join(dir).into()));
        }
        let options = BuildOptions {
            dir: at.path().join("sessions/build"),
            exe: PathBuf::from(env!("CARGO_BIN_EXE_distmesh-shim")),
            env,
            local_slots: 2,
            ..BuildOptions::default()
        };
        std::fs::create_dir_all(at.path().join("sessions")).unwrap();
        Self { at, options }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.at.path().join(name)
    }

    /// Object files that are there.
    pub(crate) fn objects(&self) -> usize {
        let entries = std::fs::read_dir(self.at.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().ends_with(".o"))
            .count()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The numbers in a file, one a line.
    pub(crate) fn numbers(&self, name: &str) -> Vec<u32> {
        let text = self.read(name);
        text.lines()
            .map(|line| line.trim().parse().unwrap())
            .collect()
    }

    pub(crate) fn most(&self, name: &str) -> u32 {
        self.numbers(name).into_iter().max().unwrap_or(0)
    }

    pub(crate) fn sh(&self, script: &str) -> BuildOptions {
        let script = format!("cd '{}' && {script}", self.at.path().display());
        BuildOptions {
            command: vec!["sh".into(), "-c".into(), script.into()],
            ..self.options.clone()
        }
    }

    /// A build whose workers have that many slots, and take no job.
    pub(crate) async fn build(&self, script: &str, capacity: u32) -> Told {
        let load = Load {
            capacity,
            ..Load::default()
        };
        self.try_build(self.sh(script), load).await.unwrap()
    }

    pub(crate) async fn try_build(
        &self,
        options: BuildOptions,
        load: Load,
    ) -> Result<Told, BuildError> {
        let (updates, received) = mpsc::channel(8);
        let (feedback, _feedback) = mpsc::channel(8);
        let (news, heard) = mpsc::unbounded_channel();
        updates
            .send(BuildUpdate::Load { load, at_ns: 0 })
            .await
            .unwrap();
        let outcome = run(options, received, feedback, news).await?;
        Ok(told(outcome, heard))
    }
}

fn told(outcome: BuildOutcome, mut heard: mpsc::UnboundedReceiver<BuildNews>) -> Told {
    let mut news = Vec::new();
    while let Ok(one) = heard.try_recv() {
        news.push(one);
    }
    Told { outcome, news }
}

impl Told {
    pub(crate) fn noticed(&self, text: &str) -> bool {
        let is = |news: &BuildNews| matches!(news, BuildNews::Notice(said) if said.contains(text));
        self.news.iter().any(is)
    }
}

/// One worker: a real distccd behind the real dispatch.
pub(crate) struct Worker {
    dispatch: Dispatch,
    _daemon: Distccd,
    slots: u32,
    /// What it is admitted for, by the path here.
    compilers: BTreeMap<Compiler, String>,
    _spill: tempfile::TempDir,
}

/// To distccd, by a way that takes so long.
struct Straight(SocketAddr, Duration);

/// What a worker is admitted for.
const CALLED: [(&str, &str); 4] = [
    ("gcc", ""),
    ("g++", ""),
    ("clang", ""),
    ("clang", " --target=aarch64-linux-gnu"),
];

impl Transport for Straight {
    fn open(&self, _: PeerId) -> Pin<Box<dyn Future<Output = io::Result<JobIo>> + Send + '_>> {
        Box::pin(async move {
            tokio::time::sleep(self.1).await;
            let (read, write) = TcpStream::connect(self.0).await?.into_split();
            Ok(JobIo {
                read: Box::new(read),
                write: Box::new(write),
            })
        })
    }
}

impl Worker {
    pub(crate) async fn start(slots: u32) -> Self {
        Self::start_far_away(slots, Duration::ZERO).await
    }

    /// A worker whose every job takes so much longer.
    pub(crate) async fn start_far_away(slots: u32, delay: Duration) -> Self {
        let spill = tempfile::tempdir().unwrap();
        let daemon = Distccd::start(spill.path(), slots).await;
        let dispatch = Dispatch::new(
            Arc::new(Straight(daemon.at, delay)),
            spill.path().to_owned(),
        );
        let worker = Self {
            dispatch,
            _daemon: daemon,
            slots,
            compilers: CALLED
                .map(|(name, target)| {
                    let compiler = format!("{}{target}", which(name)).into();
                    (compiler, name.to_owned())
                })
                .into(),
            _spill: spill,
        };
        worker.set_state(LinkState::Up);
        worker
    }

    /// Admits it for one more compiler, which is its gcc.
    pub(crate) fn admit(&mut self, compiler: &std::path::Path) {
        let path = compiler.to_str().unwrap();
        self.compilers.insert(path.into(), "gcc".to_owned());
        self.set_state(LinkState::Up);
    }

    pub(crate) fn set_state(&self, state: LinkState) {
        let update = WorkerUpdate {
            peer: PeerId([1; 32]),
            name: "w1".parse().unwrap(),
            slots: self.slots,
            state,
            admitted: self.compilers.clone(),
            refused: BTreeMap::new(),
            undecided: BTreeSet::new(),
        };
        self.dispatch.update_worker(update).unwrap();
    }

    /// A build on this worker; `meanwhile` may disturb it.
    pub(crate) async fn build(&self, mut options: BuildOptions) -> Told {
        let (updates, received) = mpsc::channel(100);
        let (feedback, mut fed) = mpsc::channel::<BuildFeedback>(100);
        let (news, heard) = mpsc::unbounded_channel();
        let desk: BuildDesk = self.dispatch.open_build(updates).unwrap();
        options.load_now = Some(desk.load_now());
        let pass_on = async {
            while let Some(feedback) = fed.recv().await {
                desk.feedback(feedback);
            }
            std::future::pending::<()>().await;
        };
        let outcome = tokio::select! {
            outcome = run(options, received, feedback, news) => outcome.unwrap(),
            () = pass_on => unreachable!(),
        };
        told(outcome, heard)
    }
}

/// The real tool, as a shim finds it.
pub(crate) fn which(name: &str) -> String {
    let path = std::env::var_os("PATH").unwrap();
    let mut found = std::env::split_paths(&path).map(|dir| dir.join(name));
    let found = found.find(|file| file.is_file()).unwrap();
    found.to_str().unwrap().to_owned()
}
