//! Ends distccd when this process is killed.
//!
//! `PR_SET_PDEATHSIG` cannot do it: the kernel clears it when distccd changes its user, it reaches the master only (whose
//! children go on serving) and macOS has none. Instead a shell waits at a pipe whose other end only we hold. It reads the
//! session that is to be ended, or an empty line when there is none; at the pipe's end it ends the session and removes the
//! directory.

use std::{io, path::Path, process::Stdio};

use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
};

/// Linux tells the session in the sixth field of `/proc/PID/stat`, the fourth after the command's name, which may hold
/// anything. Elsewhere the daemon's process group has to do: a compiler that is running then ends by itself.
const SCRIPT: &str = r#"
dir=$1 session=
while read -r line; do session=$line; done
if [ -n "$session" ] && [ -d /proc/self ]; then
    round=0 found=1
    while [ "$found" = 1 ] && [ "$round" -lt 50 ]; do
        found= round=$((round + 1))
        for stat in /proc/[0-9]*/stat; do
            { read -r line <"$stat"; } 2>/dev/null || continue
            set -- ${line##*) }
            [ "$4" = "$session" ] && [ "$1" != Z ] || continue
            kill -KILL "${line%% *}" 2>/dev/null
            found=1
        done
    done
elif [ -n "$session" ]; then
    kill -KILL "-$session"
fi
rm -rf -- "$dir"
"#;

/// The shell at the other end of the pipe.
#[derive(Debug)]
pub(super) struct Guard {
    shell: Child,
    pipe: ChildStdin,
}

impl Guard {
    /// `dir` is removed when we are gone.
    pub(super) fn start(dir: &Path) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "distmesh-guard"])
            .arg(dir)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            // A ^C at the terminal ends us, not the one who cleans up after us.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = shell.stdin.take();
        let pipe = pipe.ok_or_else(|| io::Error::other("the guard has no pipe"))?;
        Ok(Self { shell, pipe })
    }

    /// From now on this session is to be ended. Somebody may have killed the shell: then another one takes over.
    pub(super) async fn watch_anew(&mut self, session: u32, dir: &Path) -> io::Result<()> {
        let line = format!("{session}\n");
        if self.tell(&line).await.is_ok() {
            return Ok(());
        }
        *self = Self::start(dir)?;
        self.tell(&line).await
    }

    /// Returns when somebody has killed the shell. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        let _ = self.shell.wait().await;
    }

    /// From now on there is nothing to end.
    pub(super) async fn watch_none(&mut self) -> io::Result<()> {
        self.tell("\n").await
    }

    async fn tell(&mut self, line: &str) -> io::Result<()> {
        self.pipe.write_all(line.as_bytes()).await?;
        self.pipe.flush().await
    }

    /// Lets the guard do its work and waits for it.
    pub(super) async fn release(mut self) {
        drop(self.pipe);
        if let Err(error) = self.shell.wait().await {
            tracing::warn!(%error, "the guard of distccd failed");
        }
    }
}
