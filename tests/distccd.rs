//! The worker's distccd, with the real one; as root, and as an ordinary user.
#![expect(clippy::unwrap_used, reason = "a test may fail that way")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    time::Duration,
};

use distmesh::distcc::{
    CompileOutcome, Daemon, DaemonConfig, DaemonError, DaemonEvent, Health, Pace, RelayError,
    ResponseParser, relay,
};
use rustix::process::{Pid, Signal, getsid, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Nothing here takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65534;

struct Site {
    dir: TempDir,
    compilers: Vec<PathBuf>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // What a compiler under test needs has to be in reach of distccd's user; the worker's own directory is not.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("private")).unwrap();
        fs::set_permissions(
            dir.path().join("private"),
            fs::Permissions::from_mode(0o700),
        )
        .unwrap();
        Self {
            dir,
            compilers: vec![gcc()],
        }
    }

    fn private(&self) -> PathBuf {
        self.dir.path().join("private")
    }

    fn config(&self) -> DaemonConfig {
        DaemonConfig {
            distccd: which::which("distccd").unwrap(),
            dir: self.private(),
            slots: 2,
            compilers: self.compilers.clone(),
            search: "/usr/bin:/bin".into(),
            nice: 0,
        }
    }

    /// An executable script that jobs may name after this.
    fn script(&mut self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.compilers.push(path.clone());
        path
    }

    /// A compiler that never ends, and the command that it becomes.
    fn slow_compiler(&mut self) -> (PathBuf, String) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let sleeper = format!("sleep 7531.{}00{count}", std::process::id());
        let path = self.script("slow-cc", &format!("exec {sleeper}"));
        (path, sleeper + " ")
    }

    async fn start(&self) -> Daemon {
        Daemon::start_at_pace(self.config(), pace()).await.unwrap()
    }

    async fn failure(&self, config: DaemonConfig) -> DaemonError {
        let error = Daemon::start(config).await.unwrap_err();
        assert_eq!(entries(&self.private()), 0, "left something behind");
        error
    }
}

fn gcc() -> PathBuf {
    PathBuf::from("/usr/bin/gcc")
}

fn pace() -> Pace {
    Pace {
        first_pause: Duration::from_millis(50),
        longest_pause: Duration::from_millis(400),
        ..Pace::default()
    }
}

/// Finds a stopped distccd soon, and on a busy machine perhaps one that is only slow.
fn watchful() -> Pace {
    Pace {
        every: Duration::from_millis(200),
        deadline: Duration::from_secs(3),
        ..pace()
    }
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// The live processes whose command line holds all the words.
fn processes(words: &[&str]) -> BTreeSet<i32> {
    let output = Command::new("ps")
        .args(["-A", "-ww", "-o", "pid=,stat=,args="])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| {
        let args = line
            .split_whitespace()
            .skip(2)
            .collect::<Vec<_>>()
            .join(" ")
            + " ";
        words.iter().all(|word| args.contains(word))
    });
    let live = lines.filter(|line| !line.split_whitespace().nth(1).unwrap().starts_with('Z'));
    live.map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect()
}

/// distccd's processes at this port.
fn distccds(addr: SocketAddr) -> BTreeSet<i32> {
    processes(&["distccd", &format!("--port {} ", addr.port())])
}

fn signal(pids: &BTreeSet<i32>, signal: Signal) {
    for pid in pids {
        let _ = kill_process(Pid::from_raw(*pid).unwrap(), signal);
    }
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waiting = async {
        while !is() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}

async fn health(daemon: &Daemon, is: impl Fn(&Health) -> bool) {
    let mut health = daemon.health();
    let reached = timeout(PATIENCE, health.wait_for(|now| is(now))).await;
    assert!(reached.is_ok(), "it stays {:?}", daemon.health().borrow());
}

fn request(compiler: &str, text: &str) -> Vec<u8> {
    let args = [compiler, "-c", "some.c", "-o", "some.o"];
    let mut request = format!("DIST00000001ARGC{:08x}", args.len());
    for arg in args {
        request += &format!("ARGV{:08x}{arg}", arg.len());
    }
    request += &format!("DOTI{:08x}{text}", text.len());
    request.into_bytes()
}

/// What distccd answers on a connection of its own.
async fn ask(addr: SocketAddr, compiler: &str, text: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = request(compiler, text);
    stream.write_all(&request).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    answer
}

/// The object inside an answer of protocol 1.
fn object(answer: &[u8]) -> &[u8] {
    let mut parser = ResponseParser::default();
    parser.feed(answer).unwrap();
    assert!(parser.is_complete() && parser.status() == 0);
    let at = answer.windows(4).position(|four| four == b"DOTO").unwrap();
    &answer[at + 12..]
}

async fn compiled(daemon: &mut Daemon) -> distmesh::distcc::CompileLine {
    let line = async {
        loop {
            if let DaemonEvent::Compiled(line) = daemon.next_event().await.unwrap() {
                return line;
            }
        }
    };
    timeout(PATIENCE, line).await.unwrap()
}

#[tokio::test]
async fn it_compiles_tells_of_it_and_leaves_nothing() {
    let site = Site::new();
    let mut daemon = site.start().await;
    let addr = daemon.addr();
    assert_eq!(*daemon.health().borrow(), Health::Healthy);
    assert!(!object(&ask(addr, "/usr/bin/gcc", "int x;\n").await).is_empty());
    let line = compiled(&mut daemon).await;
    assert_eq!(
        (line.file.as_str(), line.compiler.as_str()),
        ("some.c", "/usr/bin/gcc")
    );
    assert_eq!(line.outcome, CompileOutcome::Exited { code: 0 });
    assert!(!distccds(addr).is_empty());
    daemon.stop().await;
    assert_eq!(distccds(addr), BTreeSet::new());
    assert_eq!(entries(&site.private()), 0);
}

#[tokio::test]
async fn only_the_exact_paths_are_run() {
    let mut site = Site::new();
    let marker = site.dir.path().join("ran");
    site.script("gcc", &format!("touch {}", marker.display()));
    let evil = site.compilers.pop().unwrap();
    let mut daemon = site.start().await;
    for name in [
        evil.to_str().unwrap(),
        "gcc",
        "/opt/bin/gcc",
        "/usr/bin/g++",
        "/usr/bin/../bin/gcc",
        "//usr/bin/gcc",
        "usr/bin/gcc",
        "/x/usr/bin/gcc",
        "/a/b/c/d/e/f/g/usr/bin/gcc",
        "",
    ] {
        assert_eq!(
            ask(daemon.addr(), name, "int x;\n").await,
            b"",
            "{name} was run"
        );
    }
    assert!(!marker.exists());
    let Some(DaemonEvent::Trouble(text)) = timeout(PATIENCE, daemon.next_event()).await.unwrap()
    else {
        panic!("a compile is told");
    };
    assert!(text.contains("does not offer it"), "{text}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_killed_distccd_comes_back_on_its_port() {
    let site = Site::new();
    let daemon = site.start().await;
    let addr = daemon.addr();
    let before = distccds(addr);
    signal(&before, Signal::KILL);
    health(&daemon, |now| matches!(now, Health::Unhealthy(_))).await;
    health(&daemon, |now| *now == Health::Healthy).await;
    assert_eq!(daemon.addr(), addr);
    object(&ask(addr, "/usr/bin/gcc", "int x;\n").await);
    assert!(distccds(addr).is_disjoint(&before));
    daemon.stop().await;
    assert_eq!(distccds(addr), BTreeSet::new());
}

#[tokio::test]
async fn children_that_outlive_their_master_are_not_left_serving() {
    let site = Site::new();
    let daemon = site.start().await;
    let addr = daemon.addr();
    let before = distccds(addr);
    let leads = |pid: &&i32| {
        getsid(Pid::from_raw(**pid)).is_ok_and(|id| id.as_raw_nonzero().get() == **pid)
    };
    let master: BTreeSet<i32> = before.iter().filter(leads).copied().collect();
    assert_eq!(master.len(), 1);
    signal(&master, Signal::KILL);
    until("all of the old ones are gone", || {
        distccds(addr).is_disjoint(&before)
    })
    .await;
    health(&daemon, |now| *now == Health::Healthy).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_stranger_at_the_port_is_not_taken_for_distccd() {
    let site = Site::new();
    let slowly = Pace {
        // Time to take the port before distccd does.
        first_pause: Duration::from_secs(4),
        ..pace()
    };
    let daemon = Daemon::start_at_pace(site.config(), slowly).await.unwrap();
    let addr = daemon.addr();
    signal(&distccds(addr), Signal::KILL);
    until("the port is free", || distccds(addr).is_empty()).await;
    let stranger = TcpListener::bind(addr).await.unwrap();
    health(
        &daemon,
        |now| matches!(now, Health::Unhealthy(reason) if reason.contains("already in use")),
    )
    .await;
    drop(stranger);
    health(&daemon, |now| *now == Health::Healthy).await;
    daemon.stop().await;
}

#[tokio::test]
async fn one_that_is_killed_while_it_starts_is_started_again() {
    let mut site = Site::new();
    let once = site.dir.path().join("once");
    let real = which::which("distccd").unwrap();
    let (once, real) = (once.display(), real.display());
    let frail = site.script(
        "frail-distccd",
        &format!("mkdir {once} 2>/dev/null && kill -9 $$\nexec {real} \"$@\""),
    );
    let doomed = site.script("doomed-distccd", "kill -9 $$");
    let config = |distccd| DaemonConfig {
        distccd,
        compilers: vec![gcc()],
        ..site.config()
    };
    let daemon = Daemon::start_at_pace(config(frail), pace()).await.unwrap();
    daemon.stop().await;
    let error = site.failure(config(doomed)).await.to_string();
    assert!(error.contains("ended at once (signal: 9"), "{error}");
}

#[tokio::test]
async fn a_daemon_that_is_dropped_ends_its_distccd() {
    let site = Site::new();
    let daemon = site.start().await;
    let addr = daemon.addr();
    drop(daemon);
    until("distccd is gone", || distccds(addr).is_empty()).await;
    until("its files are gone", || entries(&site.private()) == 0).await;
}

const UNMOVED: &str = "nothing of it has moved";

#[tokio::test]
async fn a_stopped_distccd_is_found_and_started_again() {
    let site = Site::new();
    let daemon = Daemon::start_at_pace(site.config(), watchful())
        .await
        .unwrap();
    let addr = daemon.addr();
    let before = distccds(addr);
    signal(&before, Signal::STOP);
    TcpStream::connect(addr).await.unwrap();
    health(
        &daemon,
        |now| matches!(now, Health::Unhealthy(reason) if reason.contains(UNMOVED)),
    )
    .await;
    health(&daemon, |now| *now == Health::Healthy).await;
    assert!(distccds(addr).is_disjoint(&before));
    daemon.stop().await;
}

#[tokio::test]
async fn a_distccd_stopped_under_its_jobs_is_found_without_waiting_for_the_next_canary() {
    let site = Site::new();
    let never = Pace {
        every: Duration::from_secs(3600),
        ..pace()
    };
    let daemon = Daemon::start_at_pace(site.config(), never).await.unwrap();
    let before = distccds(daemon.addr());
    signal(&before, Signal::STOP);
    daemon.jobs().send_replace(1);
    health(
        &daemon,
        |now| matches!(now, Health::Unhealthy(reason) if reason.contains(UNMOVED)),
    )
    .await;
    health(&daemon, |now| *now == Health::Healthy).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_distccd_wedged_by_clients_that_say_nothing_is_started_again() {
    let site = Site::new();
    let daemon = Daemon::start_at_pace(site.config(), watchful())
        .await
        .unwrap();
    let addr = daemon.addr();
    let mut clients = Vec::new();
    while *daemon.health().borrow() == Health::Healthy {
        assert!(clients.len() < 500, "no number of dead clients is noticed");
        clients.push(TcpStream::connect(addr).await.unwrap());
        sleep(Duration::from_millis(100)).await;
    }
    health(&daemon, |now| *now == Health::Healthy).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_long_compile_is_no_stall() {
    let site = Site::new();
    let daemon = Daemon::start_at_pace(site.config(), pace()).await.unwrap();
    let addr = daemon.addr();
    let before = distccds(addr);
    let jobs = daemon.jobs();
    jobs.send_replace(1);
    let long: String = (0..6000)
        .map(|n| format!("int f{n}(int a) {{ return a * {n} / 3 + f{n}(a - 1); }}\n"))
        .collect();
    let answer = ask(addr, gcc().to_str().unwrap(), &long).await;
    jobs.send_replace(0);
    assert!(answer.starts_with(b"DONE"));
    assert_eq!(*daemon.health().borrow(), Health::Healthy);
    assert_eq!(distccds(addr), before);
    daemon.stop().await;
}

#[tokio::test]
async fn stopping_ends_a_compiler_that_runs() {
    let mut site = Site::new();
    let (slow, sleeper) = site.slow_compiler();
    let daemon = site.start().await;
    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    let request = request(slow.to_str().unwrap(), "int x;\n");
    stream.write_all(&request).await.unwrap();
    until("the compiler runs", || !processes(&[&sleeper]).is_empty()).await;
    daemon.stop().await;
    assert_eq!(processes(&[&sleeper]), BTreeSet::new());
}

#[tokio::test]
async fn a_relayed_job_gives_the_local_object() {
    const TEXT: &str = "# 1 \"some.c\"\nint twice(int x) { return 2 * x; }\n";
    let site = Site::new();
    let daemon = site.start().await;
    let (primary, worker) = duplex(512);
    let (recv, send) = tokio::io::split(worker);
    let job = tokio::spawn(relay(recv, send, daemon.addr(), |_| Some(())));
    let (mut answers, mut requests) = tokio::io::split(primary);
    requests
        .write_all(&request("/usr/bin/gcc", TEXT))
        .await
        .unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, answers.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    job.await.unwrap().unwrap();
    let local = local_object(site.dir.path(), TEXT);
    assert!(object(&answer) == local, "the objects differ");
    daemon.stop().await;
}

#[tokio::test]
async fn a_compiler_that_nobody_vouches_for_or_that_is_replaced_while_it_works_answers_for_nobody()
{
    let mut site = Site::new();
    let (slow, sleeper) = site.slow_compiler();
    let quick = site.script("quick", "exec /usr/bin/gcc \"$@\"");
    let daemon = site.start().await;
    // One that is asked anew at once is good, but not the same.
    let [same, renewed] = [false, true];
    for (compiler, good_for, renews) in [
        (&quick, 0, same),
        (&quick, 1, same),
        (&quick, 2, renewed),
        (&quick, 2, same),
        (&slow, 0, same),
    ] {
        let (mut primary, worker) = duplex(1 << 16);
        let (recv, send) = tokio::io::split(worker);
        let path = compiler.to_str().unwrap().to_owned();
        let (named, looks) = (path.clone(), AtomicUsize::new(0));
        let vouches = move |path: &str| {
            let look = looks.fetch_add(1, Ordering::Relaxed);
            let what = if renews { look } else { 0 };
            (path == named && look < good_for).then_some(what)
        };
        let succeeds = good_for == 2 && !renews;
        let job = tokio::spawn(relay(recv, send, daemon.addr(), vouches));
        let request = request(&path, "int x;\n");
        // In pieces: the name comes late.
        for piece in request.chunks(7) {
            if primary.write_all(piece).await.is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        timeout(PATIENCE, primary.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let ended = job.await.unwrap();
        assert_eq!(ended.is_ok(), succeeds, "{ended:?}");
        assert_eq!(answer.is_empty(), !succeeds, "{good_for}");
        if !succeeds {
            assert!(
                matches!(ended, Err(RelayError::Changed { ref compiler }) if *compiler == path),
                "{ended:?}"
            );
        }
    }
    assert!(processes(&[&sleeper]).is_empty(), "it was never asked");
    daemon.stop().await;
}

#[tokio::test]
async fn a_compiler_that_is_installed_later_is_allowed_from_then_on() {
    let mut site = Site::new();
    let daemon = site.start().await;
    let late = site.script("late", "exec /usr/bin/gcc \"$@\"");
    let path = late.to_str().unwrap();
    assert!(ask(daemon.addr(), path, "int x;\n").await.is_empty());
    daemon.allowed().send_replace(site.compilers.clone());
    health(&daemon, |now| *now != Health::Healthy).await;
    health(&daemon, |now| *now == Health::Healthy).await;
    let answer = ask(daemon.addr(), path, "int x;\n").await;
    assert!(!object(&answer).is_empty());
    daemon.stop().await;
}

#[tokio::test]
async fn real_clients_get_their_objects_through_relays() {
    const JOBS: usize = 6;
    let site = Site::new();
    let daemon = site.start().await;
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hosts = format!(
        "127.0.0.1:{}/{JOBS},lzo",
        front.local_addr().unwrap().port()
    );
    let distccd = daemon.addr();
    let relays = tokio::spawn(async move {
        let mut jobs = JoinSet::new();
        for _ in 0..JOBS {
            let (recv, send) = front.accept().await.unwrap().0.into_split();
            jobs.spawn(relay(recv, send, distccd, |_| Some(())));
        }
        jobs.join_all().await
    });
    fs::create_dir(site.dir.path().join("client")).unwrap();
    let mut clients = JoinSet::new();
    for n in 0..JOBS {
        clients.spawn(client(site.dir.path().to_owned(), n, hosts.clone()));
    }
    timeout(PATIENCE, clients.join_all()).await.unwrap();
    let relayed = timeout(PATIENCE, relays).await.unwrap().unwrap();
    assert!(relayed.iter().all(Result::is_ok), "{relayed:?}");
    daemon.stop().await;
}

/// Compiles a file of its own with distcc and without, and compares.
async fn client(dir: PathBuf, n: usize, hosts: String) {
    let text = format!("#include <stdio.h>\nint job{n}(void) {{ return puts(\"{n}\"); }}\n");
    fs::write(dir.join(format!("{n}.c")), text).unwrap();
    let (remote, local) = (format!("{n}.remote.o"), format!("{n}.local.o"));
    for (words, object) in [
        (&["distcc", "/usr/bin/gcc"][..], &remote),
        (&["gcc"], &local),
    ] {
        let status = tokio::process::Command::new(words[0])
            .args(&words[1..])
            .args(["-O2", "-c", &format!("{n}.c"), "-o", object])
            .current_dir(&dir)
            .env("DISTCC_HOSTS", &hosts)
            .env("DISTCC_DIR", dir.join("client"))
            .env("DISTCC_FALLBACK", "0")
            .status()
            .await;
        assert!(status.unwrap().success());
    }
    assert!(fs::read(dir.join(remote)).unwrap() == fs::read(dir.join(local)).unwrap());
}

fn local_object(dir: &Path, text: &str) -> Vec<u8> {
    fs::write(dir.join("some.i"), text).unwrap();
    let status = Command::new(gcc())
        .args(["-c", "some.i", "-o", "some.o"])
        .current_dir(dir)
        .status();
    assert!(status.unwrap().success());
    fs::read(dir.join("some.o")).unwrap()
}

#[tokio::test]
async fn a_cancelled_stream_ends_the_compiler() {
    let mut site = Site::new();
    let (slow, sleeper) = site.slow_compiler();
    let daemon = site.start().await;
    let (mut primary, worker) = duplex(1 << 16);
    let (recv, send) = tokio::io::split(worker);
    let job = tokio::spawn(relay(recv, send, daemon.addr(), |_| Some(())));
    let request = request(slow.to_str().unwrap(), "int x;\n");
    primary.write_all(&request).await.unwrap();
    until("the compiler runs", || !processes(&[&sleeper]).is_empty()).await;
    drop(primary);
    assert!(matches!(job.await.unwrap(), Err(RelayError::Cancelled)));
    until("the compiler is gone", || processes(&[&sleeper]).is_empty()).await;
    daemon.stop().await;
}

#[tokio::test]
async fn cancelling_closes_the_connection_and_nothing_is_half_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut primary, worker) = duplex(64);
    let (recv, send) = tokio::io::split(worker);
    let job = tokio::spawn(relay(recv, send, listener.local_addr().unwrap(), |_| {
        Some(())
    }));
    let (mut distccd, _) = listener.accept().await.unwrap();
    primary.write_all(b"DIST").await.unwrap();
    let mut bytes = [0; 4];
    distccd.read_exact(&mut bytes).await.unwrap();
    primary.shutdown().await.unwrap();
    assert_eq!(distccd.read(&mut bytes).await.unwrap(), 0);
    assert!(matches!(job.await.unwrap(), Err(RelayError::Cancelled)));
    // Half-closed, it would still take bytes: closed, it answers them with a reset.
    let written = async { while distccd.write_all(b"DONE").await.is_ok() {} };
    timeout(PATIENCE, written).await.unwrap();
}

#[tokio::test]
async fn a_cut_or_foreign_answer_is_an_error_and_never_a_clean_end() {
    for (answer, incomplete) in [
        (&b""[..], true),
        (
            b"DONE00000001STAT00000000SERR00000000SOUT00000000DOTO00000009cut",
            true,
        ),
        (b"HTTP/1.1 400 no", false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (_primary, worker) = duplex(1 << 16);
        let (recv, send) = tokio::io::split(worker);
        let job = tokio::spawn(relay(recv, send, addr, |_| Some(())));
        let (mut distccd, _) = listener.accept().await.unwrap();
        distccd.write_all(answer).await.unwrap();
        distccd.shutdown().await.unwrap();
        let error = job.await.unwrap().unwrap_err();
        assert_eq!(
            matches!(error, RelayError::Incomplete),
            incomplete,
            "{error}"
        );
        assert_eq!(
            matches!(error, RelayError::Garbage(_)),
            !incomplete,
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_distccd_that_takes_no_connection_is_an_error() {
    // tcpmux: nobody serves it, and no system gives it to a listener by chance.
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let (_primary, worker) = duplex(64);
    let (recv, send) = tokio::io::split(worker);
    let refused = relay(recv, send, nobody, |_| Some(())).await;
    assert!(matches!(refused, Err(RelayError::Connect { .. })));
    let told = Daemon::external(nobody).await.unwrap_err().to_string();
    assert!(told.contains("refused"), "{told}");
}

#[tokio::test]
async fn a_distccd_that_cannot_run_is_told_with_the_cure() {
    let mut site = Site::new();
    let missing = DaemonConfig {
        distccd: "/nowhere/distccd".into(),
        ..site.config()
    };
    let told = site.failure(missing).await.to_string();
    assert!(
        told.contains("/nowhere/distccd") && told.contains("apt install distcc"),
        "{told}"
    );

    let plain = site.script("plain", "");
    site.compilers.pop();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let not_executable = DaemonConfig {
        distccd: plain,
        ..site.config()
    };
    let told = site.failure(not_executable).await.to_string();
    assert!(told.contains("ermission denied"), "{told}");

    let dying = site.script("dying", "echo 'no licence found' >&2; exit 9");
    site.compilers.pop();
    let exiting = DaemonConfig {
        distccd: dying,
        ..site.config()
    };
    let told = site.failure(exiting).await.to_string();
    assert!(
        told.contains("no licence found") && told.contains('9'),
        "{told}"
    );
}

#[tokio::test]
async fn a_compiler_that_fails_is_told_with_its_words() {
    let mut site = Site::new();
    site.compilers.clear();
    let none = site.failure(site.config()).await;
    assert!(matches!(none, DaemonError::NoCompiler), "{none}");
    site.script("broken-cc", "echo 'cc1 is missing' >&2; exit 4");
    let told = site.failure(site.config()).await.to_string();
    assert!(
        told.contains("cc1 is missing") && told.contains("exit code 4"),
        "{told}"
    );
}

#[tokio::test]
async fn no_compiler_runs_as_root() {
    let mut site = Site::new();
    site.compilers.clear();
    site.script("telling-cc", "id >&2; exit 4");
    let told = site.failure(site.config()).await.to_string();
    assert!(told.contains("uid=") && !told.contains("uid=0("), "{told}");
}

#[tokio::test]
async fn a_distccd_of_somebody_else_s_is_watched_and_left_alone() {
    let site = Site::new();
    let owner = Daemon::start_at_pace(site.config(), watchful())
        .await
        .unwrap();
    let watcher = Daemon::external_at_pace(owner.addr(), watchful())
        .await
        .unwrap();
    let addr = watcher.addr();
    let running = distccds(addr);
    signal(&running, Signal::STOP);
    health(&watcher, |now| matches!(now, Health::Unhealthy(_))).await;
    health(&watcher, |now| *now == Health::Healthy).await;
    let before = distccds(addr);
    watcher.stop().await;
    assert_eq!(distccds(addr), before);
    owner.stop().await;
}

/// The live guards that this process started.
fn guards(parent: u32) -> BTreeSet<i32> {
    let all = processes(&["distmesh-guard"]);
    let output = Command::new("ps")
        .args(["-A", "-o", "ppid=,pid="])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.lines().map(|line| {
        let numbers: Vec<i32> = line
            .split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect();
        (numbers[0] as u32, numbers[1])
    });
    let own = pairs.filter(|(ppid, pid)| *ppid == parent && all.contains(pid));
    own.map(|(_, pid)| pid).collect()
}

/// Not a test: the process that is killed below.
#[tokio::test]
#[ignore = "run by a_worker_that_is_killed_leaves_no_process"]
async fn holder() {
    let mut site = Site::new();
    let (slow, sleeper) = site.slow_compiler();
    let daemon = site.start().await;
    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    let request = request(slow.to_str().unwrap(), "int x;\n");
    stream.write_all(&request).await.unwrap();
    until("the compiler runs", || !processes(&[&sleeper]).is_empty()).await;
    #[expect(
        clippy::print_stderr,
        reason = "read by the test that started this process"
    )]
    {
        let dir = site.dir.path().display();
        eprintln!("READY/{}/{sleeper}{dir}", daemon.addr());
    }
    sleep(PATIENCE).await;
}

#[tokio::test]
async fn a_worker_that_is_killed_leaves_no_process() {
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "holder", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stderr.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    let ready = lines.find(|line| line.starts_with("READY")).unwrap();
    let mut words = ready.splitn(4, '/').skip(1);
    let addr: SocketAddr = words.next().unwrap().parse().unwrap();
    let sleeper = words.next().unwrap().to_owned();
    let dir = format!("/{}", words.next().unwrap());
    assert!(!processes(&[&sleeper]).is_empty());
    assert!(!distccds(addr).is_empty());
    let first = guards(holder.id());
    assert_eq!(first.len(), 1);
    signal(&first, Signal::KILL);
    until("another guard took over", || {
        guards(holder.id()).difference(&first).count() == 1
    })
    .await;
    holder.kill().unwrap();
    holder.wait().unwrap();
    until("distccd is gone", || distccds(addr).is_empty()).await;
    until("its compiler is gone", || processes(&[&sleeper]).is_empty()).await;
    until("its files are gone", || {
        entries(&Path::new(&dir).join("private")) == 0
    })
    .await;
    fs::remove_dir_all(dir).unwrap();
}

/// Root's tests again as somebody else. An ordinary user has run them as himself already.
#[test]
fn an_ordinary_user_gets_the_same() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let output = Command::new(copy)
        .args(["--skip", "an_ordinary_user", "--test-threads=2"])
        .current_dir("/")
        .env("TMPDIR", "/tmp")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(!told.contains(" 0 passed"), "{told}");
}
