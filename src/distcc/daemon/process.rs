//! One run of distccd: its arguments, its environment, its session, its log.

use std::{
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    DaemonConfig, DaemonError, DaemonEvent,
    home::{Home, User, words},
    log::{self, MAX_LINE, Tail},
    vitals::with_session,
};

/// The slowest translation units take minutes; an attempt on the primary waits for half an hour, and this is to end first.
const JOB_LIFETIME: Duration = Duration::from_secs(1200);
/// distccd itself accepts no more.
const MOST_JOBS: u32 = 200;
/// Where the tools are that compilers call by name (`as`, `collect2`'s `ld`), after all others.
const TOOLS: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
/// A killed process is gone within a scheduler's tick or is stuck in the kernel.
const DEATH_POLL: Duration = Duration::from_millis(10);
const DEATH_POLLS: u32 = 500;
/// Of 1,000 (proc(5)); children inherit it.
const OOM_SCORE_ADJ: &str = "500";
/// What is in the pipe is read at once.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a run of distccd has said so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    tail: Arc<Mutex<Tail>>,
    lines: Arc<AtomicU64>,
}

impl Journal {
    pub(super) fn quote(&self) -> String {
        self.tail
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .quote()
    }

    /// Grows with every line: a distccd that logs makes progress.
    pub(super) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    pub(super) fn count_line(&self) {
        self.lines.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads the log to its end, however fast it comes, and tells what a person should know.
    async fn follow(self, log: impl AsyncRead + Unpin, events: mpsc::Sender<DaemonEvent>) {
        let mut lines = Lines::new(log);
        while let Some(line) = lines.next().await {
            self.count_line();
            self.tail
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(&line);
            let Some(event) = log::event(&line) else {
                continue;
            };
            if events.try_send(event).is_err() {
                tracing::debug!(line, "nobody takes distccd's log");
            }
        }
    }
}

/// Lines of bounded length from a pipe; the rest of a longer one is skipped.
struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
    skipping: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(from: R) -> Self {
        Self {
            from,
            buffer: Vec::new(),
            skipping: false,
        }
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.take() {
                return Some(line);
            }
            let mut chunk = [0; 1024];
            let count = self.from.read(&mut chunk).await.ok()?;
            if count == 0 {
                return None;
            }
            self.buffer.extend(&chunk[..count]);
        }
    }

    fn take(&mut self) -> Option<String> {
        loop {
            let end = self.buffer.iter().position(|byte| *byte == b'\n');
            let full = end.is_none() && self.buffer.len() > MAX_LINE;
            let line: Vec<u8> = match end {
                Some(end) => self.buffer.drain(..=end).collect(),
                None if full => std::mem::take(&mut self.buffer),
                None => return None,
            };
            let skip = std::mem::replace(&mut self.skipping, full);
            if !skip {
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    }
}

/// A distccd that runs: the leader of its session.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Where it waits for the word to begin.
    go: Option<ChildStdin>,
    session: u32,
    pub(super) journal: Journal,
    reader: JoinHandle<()>,
}

impl Process {
    pub(super) fn spawn(
        config: &DaemonConfig,
        home: &Home,
        user: Option<&User>,
        port: u16,
        events: mpsc::Sender<DaemonEvent>,
    ) -> Result<Self, DaemonError> {
        let spawn_error = |source: io::Error| DaemonError::Spawn {
            path: config.distccd.clone(),
            source,
        };
        rustix::fs::access(&config.distccd, rustix::fs::Access::EXEC_OK)
            .map_err(|errno| spawn_error(errno.into()))?;
        let mut command = command(config, home, user, port);
        // SAFETY: between fork and exec only the async-signal-safe setsid is called, and nothing is allocated.
        unsafe {
            command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?));
        }
        let mut child = command.spawn().map_err(spawn_error)?;
        let missing = || spawn_error(io::Error::other("it has no process or no log"));
        let session = child.id().ok_or_else(missing)?;
        prefer_as_victim(session);
        let log = child.stderr.take().ok_or_else(missing)?;
        let go = child.stdin.take();
        let journal = Journal::default();
        let reader = tokio::spawn(journal.clone().follow(log, events));
        Ok(Self {
            child,
            go,
            session,
            journal,
            reader,
        })
    }

    /// Lets distccd begin, now that somebody will end it.
    pub(super) async fn begin(&mut self) -> io::Result<()> {
        match self.go.take() {
            Some(mut go) => go.write_all(b"\n").await,
            None => Ok(()),
        }
    }

    /// The session that holds distccd, its children and their compilers.
    pub(super) fn session(&self) -> u32 {
        self.session
    }

    /// Waits until the master ends by itself. Cancel-safe.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// The end of the log of a distccd that has ended.
    pub(super) async fn last_words(&mut self) -> String {
        // Children that outlive their master keep the pipe open.
        let _ = timeout(LAST_WORDS, &mut self.reader).await;
        self.journal.quote()
    }

    /// Ends the whole session and waits until nothing of it is left.
    pub(super) async fn kill(mut self) {
        for _ in 0..DEATH_POLLS {
            let left = kill_session(self.session);
            if let Ok(Some(_)) = self.child.try_wait()
                && left == 0
            {
                return;
            }
            sleep(DEATH_POLL).await;
        }
        tracing::warn!(session = self.session, "distccd does not die");
    }
}

/// If we are killed before the guard knows its session, there is no word, and it ends by itself.
const ON_THE_WORD: &str = "read -r _ && exec \"$@\" </dev/null";

fn command(config: &DaemonConfig, home: &Home, user: Option<&User>, port: u16) -> Command {
    let mut command = Command::new("/bin/sh");
    let jobs = config.slots.saturating_add(1).min(MOST_JOBS);
    command
        .args(["-c", ON_THE_WORD, "sh"])
        .arg(&config.distccd)
        .args(["--no-detach", "--daemon", "--log-stderr"])
        .args(["--log-level", "notice"])
        .args(["--listen", "127.0.0.1", "--allow", "127.0.0.1"])
        .args(["--port", &port.to_string()])
        .args(["--jobs", &jobs.to_string()])
        .args(["--job-lifetime", &JOB_LIFETIME.as_secs().to_string()]);
    if config.nice > 0 {
        command.args(["--nice", &config.nice.to_string()]);
    }
    if let Some(user) = user {
        command.args(["--user", user.name]);
    }
    command
        .env_clear()
        .env("PATH", search_path(config))
        .env("HOME", home.tmp())
        .env("TMPDIR", home.tmp())
        .env("DISTCC_DIR", home.tmp())
        .env("DISTCC_CMDLIST", home.list())
        .env(
            "DISTCC_CMDLIST_NUMWORDS",
            words(&config.compilers).to_string(),
        )
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Compilers must find the assembler that they found when they were identified: the same directories in the same order, and what
/// else a driver may need behind them.
fn search_path(config: &DaemonConfig) -> OsString {
    let own = config.compilers.iter().filter_map(|path| path.parent());
    let more = own.chain(TOOLS.map(Path::new)).map(Path::to_owned);
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in std::env::split_paths(&config.search).chain(more) {
        if dir.is_absolute() && !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    // A directory whose name holds a colon cannot stand on a PATH at all.
    dirs.retain(|dir| !dir.as_os_str().as_encoded_bytes().contains(&b':'));
    std::env::join_paths(dirs).unwrap_or_default()
}

/// Kills every process of the session; returns how many there were.
fn kill_session(session: u32) -> usize {
    let mut killed = 0;
    with_session(session, |process| {
        let pid = Pid::from_raw(process.pid().as_u32() as i32);
        let dead = pid.is_some_and(|pid| rustix::process::kill_process(pid, Signal::KILL).is_ok());
        killed += usize::from(dead);
    });
    killed
}

/// When memory runs out, a compiler is to die rather than the worker: its job is attempted elsewhere. Linux only; elsewhere,
/// and where it is forbidden, the kernel's own choice stands.
fn prefer_as_victim(pid: u32) {
    if cfg!(target_os = "linux")
        && let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE_ADJ)
    {
        tracing::debug!(%error, "distccd keeps its OOM score");
    }
}

/// A port that is free now. Whether it still is when distccd binds it, only distccd can tell.
pub(super) fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endless_line_costs_bounded_memory() {
        let long = [vec![b'x'; 5 * MAX_LINE], b"\nshort\n".to_vec()].concat();
        let mut lines = Lines::new(long.as_slice());
        let first = lines.next().await.unwrap();
        assert!(first.len() <= MAX_LINE + 1024);
        assert_eq!(lines.next().await.as_deref(), Some("short"));
        assert_eq!(lines.next().await, None);
    }

    #[tokio::test]
    async fn a_reader_that_does_not_keep_up_never_stops_the_log() {
        let (tx, mut rx) = mpsc::channel(1);
        let line = "distccd[1] (x) ERROR: no\n".repeat(5000);
        let journal = Journal::default();
        journal.clone().follow(line.as_bytes(), tx).await;
        assert_eq!(journal.lines(), 5000);
        assert!(rx.recv().await.is_some());
        assert!(rx.recv().await.is_none());
    }
}
