//! Dispatch between real distcc clients or hand-made requests, and real distccd's or workers that misbehave.
#![expect(clippy::unwrap_used, reason = "a test may fail that way")]

mod hostile;
mod site;
#[path = "../support/mod.rs"]
mod support;

use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use distmesh::{
    distcc::backoff_shield,
    event::{BuildFeedback, BuildUpdate, JobOutcome, LinkState},
    machine::clock::monotonic_ns,
    session::PeerId,
};
use site::{Site, V3, V3_DONE, fake, read_all};
use support::Distccd;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
};

#[tokio::test]
async fn a_pump_request_and_its_answer_pass_unchanged() {
    let mut site = Site::new();
    let (at, mut seen) = fake(V3.len(), V3_DONE.to_vec(), false).await;
    site.worker(1, at, LinkState::Up);
    assert_eq!(read_all(site.client(1, V3).await).await, V3_DONE);
    assert_eq!(seen.recv().await.unwrap(), V3);
    assert_eq!(site.record().await.outcome, JobOutcome::Compiled);
}

/// A token comes back after its job's answer: what is told later must not count the job.
#[tokio::test]
async fn a_job_leaves_dispatch_before_its_answer_does() {
    let mut site = Site::new();
    let object = vec![b'o'; 32 << 20];
    let length = format!("{:08x}", object.len());
    let head = b"DONE00000003STAT00000000SERR00000000SOUT00000000DOTO".as_slice();
    let answer = [head, length.as_bytes(), &object, b"DOTD00000002d\n"].concat();
    let (at, _seen) = fake(V3.len(), answer.clone(), false).await;
    site.worker(1, at, LinkState::Up);
    let client = site.client(1, V3).await;
    client.readable().await.unwrap();
    let began_ns = monotonic_ns();
    site.desk.feedback(BuildFeedback::AskLoad);
    let in_dispatch = site.find(|update| {
        let BuildUpdate::Load { load, at_ns } = update else {
            return None;
        };
        (at_ns > began_ns).then_some(load.in_dispatch)
    });
    assert_eq!(in_dispatch.await, 0, "most of the answer is still to come");
    assert_eq!(read_all(client).await, answer);
    assert_eq!(site.record().await.outcome, JobOutcome::Compiled);
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

/// Each job is news to the build; nothing but news may ever come. Nor need the build read any of it.
#[tokio::test]
async fn a_job_at_a_worker_that_answers_nothing_is_missed_in_a_busy_build_too() {
    let site = Site::new();
    let (deaf, mut seen) = fake(V3.len(), Vec::new(), true).await;
    site.worker(1, deaf, LinkState::Up);
    let mut stuck = site.client(1, V3).await;
    seen.recv().await.unwrap();
    let (quick, _seen) = fake(V3.len(), V3_DONE.to_vec(), false).await;
    site.worker(2, quick, LinkState::Up);
    let answered = tokio::spawn(async move {
        let mut answer = Vec::new();
        let read = stuck.read_to_end(&mut answer).await;
        read.map(|_| answer)
    });
    let mut others = tokio::task::JoinSet::new();
    let began = tokio::time::Instant::now();
    while !answered.is_finished() && began.elapsed() < Duration::from_secs(30) {
        let mut client = site.client(2, V3).await;
        others.spawn(async move { client.read_to_end(&mut Vec::new()).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(answered.is_finished(), "the build was never quiet");
    assert_eq!(answered.await.unwrap().unwrap(), V3_DONE);
}

#[tokio::test]
async fn a_worker_that_was_started_again_is_found_at_its_old_port() {
    let mut site = Site::new();
    let nowhere = "127.0.0.1:9".parse().unwrap();
    site.worker_named("w", 1, nowhere, LinkState::Up);
    let port = site.port(1);
    let (at, _seen) = fake(V3.len(), V3_DONE.to_vec(), false).await;
    site.worker_named("w", 2, at, LinkState::Up);
    assert_eq!(
        (site.port(2), site.desk.port(PeerId([1; 32]))),
        (port, None)
    );
    assert_eq!(read_all(site.client(2, V3).await).await, V3_DONE);
    assert_eq!(site.record().await.worker.as_deref(), Some("w"));
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

/// A whole request for this source.
fn asking_for(source: &str) -> Vec<u8> {
    let length = source.len();
    format!("DIST00000001ARGC00000002ARGV00000003gccARGV{length:08x}{source}DOTI00000001x").into()
}

#[tokio::test]
async fn a_source_that_was_told_to_be_long_goes_before_those_that_wait() {
    let mut site = Site::new();
    let done = [b"DONE00000001", &V3_DONE[12..V3_DONE.len() - 14]].concat();
    let (at, mut seen) = fake(asking_for("s0.c").len(), done.clone(), false).await;
    site.worker(1, at, LinkState::Up);
    for _ in 0..8 {
        let asked = site.client(1, &asking_for("s0.c")).await;
        assert_eq!(read_all(asked).await, done);
    }
    site.worker(1, at, LinkState::Down);
    let mut waiting = Vec::new();
    for count in 1..=6 {
        let source = format!("s{count}.c");
        if count == 6 {
            let (source, bytes) = (source.clone(), 100 << 20);
            site.desk.feedback(BuildFeedback::Sending { source, bytes });
        }
        waiting.push(site.client(1, &asking_for(&source)).await);
        site.stranded(count).await;
    }
    while seen.try_recv().is_ok() {}
    site.worker(1, at, LinkState::Up);
    for client in waiting {
        assert_eq!(read_all(client).await, done);
    }
    let mut order = Vec::new();
    while let Ok(request) = seen.try_recv() {
        order.extend((1..=6).filter(|n| request == asking_for(&format!("s{n}.c"))));
    }
    // The worker's four slots take the first four at once.
    assert_eq!(order.len(), 6);
    assert!(order[..4].contains(&6), "{order:?}");
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
