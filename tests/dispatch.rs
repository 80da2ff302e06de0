//! Dispatch between real distcc clients or hand-made requests, and real distccd's or workers that misbehave.
#![expect(clippy::unwrap_used, reason = "a test may fail that way")]

mod support;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use distmesh::{
    dispatch::{BuildDesk, Dispatch, JobIo, Transport, WorkerUpdate},
    distcc::backoff_shield,
    event::{BuildFeedback, BuildUpdate, JobOutcome, JobRecord, LinkState},
    session::PeerId,
};
use support::Distccd;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    time::timeout,
};

const V3: &[u8] = b"DIST00000003CDIR00000001/ARGC00000002ARGV00000003gccARGV00000003a.cNFIL00000001NAME00000004/a.cFILE00000001x";
const V3_DONE: &[u8] =
    b"DONE00000003STAT00000000SERR00000000SOUT00000000DOTO00000003objDOTD00000002d\n";

#[derive(Default)]
struct Tcp(Mutex<BTreeMap<PeerId, SocketAddr>>);

impl Transport for Tcp {
    fn open(&self, worker: PeerId) -> Pin<Box<dyn Future<Output = io::Result<JobIo>> + Send + '_>> {
        let to = self.0.lock().unwrap()[&worker];
        Box::pin(async move {
            let (read, write) = TcpStream::connect(to).await?.into_split();
            Ok(JobIo {
                read: Box::new(read),
                write: Box::new(write),
            })
        })
    }
}

struct Site {
    tcp: Arc<Tcp>,
    dispatch: Dispatch,
    desk: BuildDesk,
    updates: mpsc::Receiver<BuildUpdate>,
    spill: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let spill = tempfile::tempdir().unwrap();
        let tcp = Arc::new(Tcp::default());
        let dispatch = Dispatch::new(tcp.clone(), spill.path().to_owned());
        let (tx, updates) = mpsc::channel(100);
        let desk = dispatch.open_build(tx).unwrap();
        Self {
            tcp,
            dispatch,
            desk,
            updates,
            spill,
        }
    }

    fn worker(&self, n: u8, at: SocketAddr, state: LinkState) {
        let peer = PeerId([n; 32]);
        self.tcp.0.lock().unwrap().insert(peer, at);
        let update = WorkerUpdate {
            peer,
            name: format!("w{n}").parse().unwrap(),
            slots: 4,
            state,
            admitted: [("gcc".into(), "gcc".to_owned())].into(),
            refused: BTreeMap::new(),
        };
        self.dispatch.update_worker(update).unwrap();
    }

    fn port(&self, n: u8) -> u16 {
        self.desk.port(PeerId([n; 32])).unwrap()
    }

    async fn client(&self, n: u8, request: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(("127.0.0.1", self.port(n)))
            .await
            .unwrap();
        client.write_all(request).await.unwrap();
        client
    }

    async fn find<T>(&mut self, pick: impl Fn(BuildUpdate) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = pick(self.updates.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(10), found).await.unwrap()
    }

    async fn record(&mut self) -> JobRecord {
        self.find(|update| {
            if let BuildUpdate::Job(job) = update {
                Some(job)
            } else {
                None
            }
        })
        .await
    }

    async fn stranded(&mut self, count: u32) {
        self.find(|update| {
            matches!(update, BuildUpdate::Load(load) if load.stranded == count).then_some(())
        })
        .await;
    }
}

/// A worker that reads `needs` bytes and answers with `answer`; `hang` keeps the stream open afterwards.
async fn fake(
    needs: usize,
    answer: Vec<u8>,
    hang: bool,
) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (tx, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; needs];
            if stream.read_exact(&mut request).await.is_err() {
                continue;
            }
            let _ = tx.send(request);
            let _ = stream.write_all(&answer).await;
            while hang && matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {}
            let _ = tx.send(b"end".to_vec());
        }
    });
    (at, seen)
}

async fn read_all(mut client: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = client.read_to_end(&mut answer);
    timeout(Duration::from_secs(10), read)
        .await
        .unwrap()
        .unwrap();
    answer
}

#[tokio::test]
async fn a_pump_request_and_its_answer_pass_unchanged() {
    let mut site = Site::new();
    let (at, mut seen) = fake(V3.len(), V3_DONE.to_vec(), false).await;
    site.worker(1, at, LinkState::Up);
    assert_eq!(read_all(site.client(1, V3).await).await, V3_DONE);
    assert_eq!(seen.recv().await.unwrap(), V3);
    assert_eq!(site.record().await.outcome, JobOutcome::Compiled);
}

#[tokio::test]
async fn a_worker_that_breaks_off_anywhere_or_talks_garbage_costs_one_attempt() {
    let cuts = (0..V3_DONE.len()).map(|cut| V3_DONE[..cut].to_vec());
    for answer in cuts.chain([b"HTTP/1.1 400 no".to_vec(), V3_DONE.to_ascii_lowercase()]) {
        let (bad, _seen) = fake(V3.len(), answer.clone(), false).await;
        let (good, _seen) = fake(V3.len(), V3_DONE.to_vec(), false).await;
        // Anew each time: a worker that has failed is not asked first.
        let mut site = Site::new();
        site.worker(1, bad, LinkState::Up);
        site.worker(2, good, LinkState::Up);
        assert_eq!(read_all(site.client(1, V3).await).await, V3_DONE);
        let record = site.record().await;
        assert_eq!(
            (record.attempts, record.outcome),
            (2, JobOutcome::Compiled),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_attempt() {
    let mut site = Site::new();
    let (at, mut seen) = fake(V3.len(), Vec::new(), true).await;
    site.worker(1, at, LinkState::Up);
    let client = site.client(1, V3).await;
    seen.recv().await.unwrap();
    drop(client);
    assert_eq!(seen.recv().await.unwrap(), b"end");
    assert_eq!(site.record().await.outcome, JobOutcome::Cancelled);
}

#[tokio::test]
async fn stranded_jobs_are_handed_back_one_by_one() {
    let mut site = Site::new();
    let (at, _seen) = fake(V3.len(), V3_DONE.to_vec(), false).await;
    site.worker(1, at, LinkState::Down);
    let clients = [
        site.client(1, V3).await,
        site.client(1, V3).await,
        site.client(1, V3).await,
    ];
    site.stranded(3).await;
    site.desk.feedback(BuildFeedback::HandBack { jobs: 1 });
    assert_eq!(site.record().await.outcome, JobOutcome::ReturnedToClient);
    // The others are dispatched after all when a worker comes.
    site.worker(1, at, LinkState::Up);
    let mut answers = Vec::new();
    for client in clients {
        answers.push(read_all(client).await);
    }
    assert_eq!(
        answers.iter().filter(|answer| *answer == V3_DONE).count(),
        2
    );
    let handed = b"DONE00000003STAT00006400SERR00000000SOUT00000000DOTO00000000";
    assert_eq!(answers.iter().filter(|answer| *answer == handed).count(), 1);
}

#[tokio::test]
async fn a_large_request_reaches_the_worker_whole_and_leaves_no_file() {
    let mut site = Site::new();
    let body = vec![b'x'; 9 << 20];
    let head = format!(
        "DIST00000001ARGC00000001ARGV00000003gccDOTI{:08x}",
        body.len()
    );
    let request = [head.as_bytes(), &body].concat();
    let done = [b"DONE00000001", &V3_DONE[12..V3_DONE.len() - 14]].concat();
    let (at, mut seen) = fake(request.len(), done.clone(), false).await;
    site.worker(1, at, LinkState::Up);
    assert_eq!(read_all(site.client(1, &request).await).await, done);
    assert!(seen.recv().await.unwrap() == request);
    site.record().await;
    assert_eq!(std::fs::read_dir(site.spill.path()).unwrap().count(), 0);
}

fn distcc(dir: &Path, source: &str) -> Command {
    let mut command = Command::new("distcc");
    command
        .args(["gcc", "-c", source, "-o", &format!("{source}.o")])
        .current_dir(dir)
        .env_remove("DISTCC_HOSTS")
        .env("DISTCC_DIR", dir)
        .env("DISTCC_LOG", dir.join("log"))
        .env("DISTCC_NO_REWRITE_CROSS", "1")
        .env("DISTCC_BACKOFF_PERIOD", "1")
        .stderr(Stdio::null());
    command
}

#[tokio::test]
async fn real_clients_compile_through_dispatch_and_an_error_benches_nobody() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("lock")).unwrap();
    std::fs::write(dir.path().join("good.c"), "int main(void) { return 0; }\n").unwrap();
    std::fs::write(dir.path().join("bad.c"), "int main(void) { return x; }\n").unwrap();
    let mut site = Site::new();
    let daemon = Distccd::start(dir.path(), 4).await;
    site.worker(1, daemon.at, LinkState::Up);
    backoff_shield(dir.path(), site.port(1)).unwrap();
    let mut outcomes = Vec::new();
    for option in ["", ",lzo"] {
        let hosts = format!("127.0.0.1:{}/4{option}\n", site.port(1));
        std::fs::write(dir.path().join("hosts"), hosts).unwrap();
        for source in ["good.c", "bad.c", "good.c"] {
            let status = distcc(dir.path(), source).status().await.unwrap();
            assert_eq!(status.success(), source == "good.c");
            outcomes.push(site.record().await.outcome);
        }
    }
    use JobOutcome::{CompileError, Compiled};
    assert_eq!(outcomes, [Compiled, CompileError, Compiled].repeat(2));
}

#[tokio::test]
async fn a_worker_that_dies_in_mid_job_is_invisible_to_the_client() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("good.c"), "int main(void) { return 0; }\n").unwrap();
    let mut site = Site::new();
    let (hung, mut seen) = fake(12, Vec::new(), true).await;
    let daemon = Distccd::start(dir.path(), 4).await;
    site.worker(1, hung, LinkState::Up);
    let hosts = format!("127.0.0.1:{}/4,lzo\n", site.port(1));
    std::fs::write(dir.path().join("hosts"), hosts).unwrap();
    let mut client = distcc(dir.path(), "good.c")
        .env("DISTCC_FALLBACK", "0")
        .spawn()
        .unwrap();
    seen.recv().await.unwrap();
    site.worker(2, daemon.at, LinkState::Up);
    site.worker(1, hung, LinkState::Down);
    let succeeded = client.wait().await.unwrap().success();
    assert!(succeeded);
    let record = site.record().await;
    assert_eq!((record.worker.as_deref(), record.attempts), (Some("w2"), 2));
}

type Recording = Arc<Mutex<[Vec<u8>; 2]>>;

/// Relays every connection to `upstream` and keeps what passed, up and down.
async fn recorder(upstream: SocketAddr) -> (SocketAddr, Recording) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let recording = Recording::default();
    let kept = recording.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (from_client, to_client) = client.into_split();
            let server = TcpStream::connect(upstream).await.unwrap();
            let (from_server, to_server) = server.into_split();
            let up = relay(from_client, to_server, kept.clone(), 0);
            let down = relay(from_server, to_client, kept.clone(), 1);
            // A close of either side closes the other whole, as distcc does.
            tokio::select! { () = up => {}, () = down => {} }
        }
    });
    (at, recording)
}

async fn relay(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    kept: Recording,
    way: usize,
) {
    let mut chunk = vec![0; 65536];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        kept.lock().unwrap()[way].extend(&chunk[..count]);
        if to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_recording_of_real_traffic_is_the_same_on_both_sides_of_dispatch() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("good.c"),
        "#include <stdio.h>\nint main(void) { return puts(\"x\"); }\n",
    )
    .unwrap();
    let daemon = Distccd::start(dir.path(), 4).await;
    let mut same = Vec::new();
    for (option, magic) in [("", b"DIST00000001"), (",lzo", b"DIST00000002")] {
        let mut site = Site::new();
        let (worker, behind) = recorder(daemon.at).await;
        site.worker(1, worker, LinkState::Up);
        let (front, before) = recorder(([127, 0, 0, 1], site.port(1)).into()).await;
        let hosts = format!("127.0.0.1:{}/4{option}\n", front.port());
        std::fs::write(dir.path().join("hosts"), hosts).unwrap();
        let status = distcc(dir.path(), "good.c").status().await.unwrap();
        assert_eq!(site.record().await.outcome, JobOutcome::Compiled);
        let (before, behind) = (before.lock().unwrap(), behind.lock().unwrap());
        let whole = before[0].starts_with(magic) && before[1].starts_with(b"DONE");
        same.push(status.success() && whole && *before == *behind);
    }
    assert_eq!(same, [true, true]);
}

#[tokio::test]
async fn a_good_source_goes_remote_while_a_bad_one_is_retried_locally() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("lock")).unwrap();
    let mut site = Site::new();
    let daemon = Distccd::start(dir.path(), 4).await;
    site.worker(1, daemon.at, LinkState::Up);
    backoff_shield(dir.path(), site.port(1)).unwrap();
    let hosts = format!("127.0.0.1:{}/4,lzo\n", site.port(1));
    std::fs::write(dir.path().join("hosts"), hosts).unwrap();
    // distcc benches a host only until its own local retry has failed too: make that take a while.
    let slow: String = (0..20_000)
        .map(|n| format!("int f{n}(int a) {{ return a * {n}; }}\n"))
        .collect();
    std::fs::write(dir.path().join("bad.c"), slow + "int g = x;\n").unwrap();
    std::fs::write(dir.path().join("good.c"), "int f;\n").unwrap();
    let mut bad = distcc(dir.path(), "bad.c").spawn().unwrap();
    assert_eq!(site.record().await.outcome, JobOutcome::CompileError);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let good = distcc(dir.path(), "good.c").status().await.unwrap();
    let retrying = bad.try_wait().unwrap().is_none();
    bad.wait().await.unwrap();
    assert!(good.success() && retrying);
    assert_eq!(site.record().await.outcome, JobOutcome::Compiled);
}
