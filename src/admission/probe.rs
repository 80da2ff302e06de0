//! One call of a program that may hang, flood or leave children behind.

use std::{
    ffi::{OsStr, OsString},
    io::{self, PipeReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use duct::Handle;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};

/// How long a call may take. A cold compiler on a busy machine takes a second to print its version; one that takes ten
/// would not be worth sending work to.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// What a call may print. gcc's specs are 8 KB, the longest `-###` 5 KB.
const LONGEST_OUTPUT: usize = 1 << 20;

/// clang prints its answers in 1,600 pieces, and for each of them somebody would be woken.
const GATHER: Duration = Duration::from_micros(500);

/// How a call ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// Standard output and error, as they came.
    pub(super) text: String,
}

/// A call that did not end by itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("it cannot be run: {0}")]
    Start(io::Error),
    #[error("it did not end within {} s", .0.as_secs_f32())]
    Hung(Duration),
    #[error("it printed more than {} KiB", LONGEST_OUTPUT / 1024)]
    Flood,
    #[error("it could not be watched: {0}")]
    Watch(io::Error),
}

/// What is called, and where.
pub(super) struct Call<'a> {
    pub(super) program: &'a Path,
    pub(super) directory: &'a Path,
    pub(super) env: &'a [(OsString, OsString)],
    pub(super) deadline: Duration,
}

impl Call<'_> {
    /// Runs the program with these arguments and without input, and leaves nothing of its process group behind.
    pub(super) fn run(&self, args: &[&str]) -> Result<Ended, ProbeError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a real process has a real deadline"
        )]
        let ends = Instant::now() + self.deadline;
        let (output, handle) = self.start(args).map_err(ProbeError::Start)?;
        let group = Group::of(&handle);
        let read = read_until_end(output, ends).and_then(|text| {
            group.await_exit(ends)?;
            Ok(text)
        });
        // Before the process is reaped: its number may be somebody else's afterwards.
        group.kill();
        if read.is_err() {
            // A leader that has moved to another group is not hit there.
            handle.kill().map_err(ProbeError::Watch)?;
        }
        let status = handle.wait().map_err(ProbeError::Watch)?.status;
        match read {
            Ok(text) => Ok(Ended { status, text }),
            Err(Stop::Deadline) => Err(ProbeError::Hung(self.deadline)),
            Err(Stop::Flood) => Err(ProbeError::Flood),
            Err(Stop::Io(error)) => Err(ProbeError::Watch(error)),
        }
    }

    fn start(&self, args: &[&str]) -> io::Result<(PipeReader, Handle)> {
        let (reader, writer) = io::pipe()?;
        let args = args.iter().map(OsStr::new);
        let handle = duct::cmd(self.program, args)
            .stderr_to_stdout()
            .stdout_file(writer)
            .stdin_null()
            .dir(self.directory)
            .full_env(self.env.iter().cloned())
            .unchecked()
            .before_spawn(|command| {
                command.process_group(0);
                Ok(())
            })
            .start()?;
        Ok((reader, handle))
    }
}

/// Why reading stopped before the end.
enum Stop {
    Deadline,
    Flood,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads until every process that holds the other end has closed it.
fn read_until_end(mut output: PipeReader, ends: Instant) -> Result<String, Stop> {
    let mut text = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        await_readable(&output, ends)?;
        thread::sleep(GATHER);
        match output.read(&mut chunk)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            length => text.extend_from_slice(&chunk[..length]),
        }
        if text.len() > LONGEST_OUTPUT {
            return Err(Stop::Flood);
        }
    }
}

fn await_readable(output: &PipeReader, ends: Instant) -> Result<(), Stop> {
    loop {
        let left = left_until(ends).ok_or(Stop::Deadline)?;
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}

fn left_until(ends: Instant) -> Option<Duration> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a real process has a real deadline"
    )]
    let now = Instant::now();
    ends.checked_duration_since(now)
        .filter(|left| !left.is_zero())
}

/// The process group that a call leads.
struct Group(Option<Pid>);

impl Group {
    fn of(handle: &Handle) -> Self {
        let pid = handle.pids().first().copied();
        Self(pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)))
    }

    /// Waits for the leader's end without reaping it. Almost always it has ended when its output has.
    fn await_exit(&self, ends: Instant) -> Result<(), Stop> {
        let Some(leader) = self.0 else { return Ok(()) };
        let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let mut pause = Duration::from_micros(200);
        while waitid(WaitId::Pid(leader), peek)
            .map_err(io::Error::from)?
            .is_none()
        {
            let left = left_until(ends).ok_or(Stop::Deadline)?;
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }

    fn kill(&self) {
        if let Some(leader) = self.0 {
            // Refused only when nobody is left to kill.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
