//! Stock distcc and distccd, and a compiler that takes no time.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

/// Where the files of the benchmark are that distccd's own user has to reach.
pub(crate) struct Shop {
    dir: tempfile::TempDir,
}

/// A running distccd.
pub(crate) struct Distccd {
    guard: Child,
    pub(crate) at: SocketAddr,
}

impl Shop {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), open).expect("our own directory");
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory in which there is the real gcc, and nothing else.
    pub(crate) fn real_compiler(&self) -> PathBuf {
        let dir = self.made("compilers");
        let gcc = which::which("gcc").expect("looked for before");
        std::os::unix::fs::symlink(gcc, dir.join("gcc")).expect("a fresh directory");
        dir
    }

    /// A compiler whose objects have this size, whatever it compiles.
    pub(crate) fn stand_in(&self, object: usize) -> PathBuf {
        let at = self.path(&format!("stand-in-{object}"));
        let source = self.path("stand_in.c");
        fs::write(&source, include_str!("stand_in.c")).expect("our own directory");
        // Without shared libraries it starts sooner; not every system has what that takes.
        let made = ["-static", "-O2"].into_iter().any(|how| {
            let mut gcc = Command::new("gcc");
            gcc.args(["-O2", how, &format!("-DOBJECT={object}"), "-o"]);
            let made = gcc.arg(&at).arg(&source).stderr(Stdio::null()).status();
            made.is_ok_and(|status| status.success())
        });
        assert!(made, "gcc cannot compile the stand-in for a compiler");
        at
    }

    /// A preprocessed source of this size: distcc sends it as it is.
    pub(crate) fn source(&self, size: usize) -> PathBuf {
        let at = self.path(&format!("job-{size}.i"));
        let line = "extern int function_of_no_importance(const char *name, unsigned long size);\n";
        let text: String = line.chars().cycle().take(size).collect();
        fs::write(&at, text).expect("our own directory");
        at
    }

    /// Starts distccd for these compilers; a shell ends it when this process does, however that is.
    pub(crate) fn distccd(&self, compilers: &[PathBuf]) -> Distccd {
        let list = self.path("list");
        let lines: Vec<_> = compilers
            .iter()
            .map(|path| format!("{}\n", path.display()))
            .collect();
        fs::write(&list, lines.concat()).expect("our own directory");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let at = free.local_addr().expect("its address");
        drop(free);
        let guard = Command::new("sh")
            .args(["-c", UNTIL_THE_END, "sh", &at.port().to_string()])
            .env("DISTCC_CMDLIST", &list)
            .env("DISTCC_CMDLIST_NUMWORDS", "20")
            .env("TMPDIR", "/tmp")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh");
        let distccd = Distccd { guard, at };
        for _ in 0..500 {
            if TcpStream::connect(at).is_ok() {
                return distccd;
            }
            sleep(Duration::from_millis(20));
        }
        panic!("distccd does not listen at {at}");
    }

    /// distcc with one host, and no way out: what it cannot distribute is a failure.
    pub(crate) fn distcc(&self, port: u16, compiler: &Path, source: &Path) -> Command {
        let mut command = Command::new("distcc");
        command
            .arg(compiler)
            .args([
                "-c".as_ref(),
                source.as_os_str(),
                "-o".as_ref(),
                self.object().as_os_str(),
            ])
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.dir.path())
            .env("DISTCC_DIR", self.made("state"))
            .env("DISTCC_HOSTS", format!("127.0.0.1:{port}/4"))
            .env("DISTCC_NO_REWRITE_CROSS", "1")
            .env("DISTCC_FALLBACK", "0")
            .env("DISTCC_BACKOFF_PERIOD", "0")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn object(&self) -> PathBuf {
        self.path("job.o")
    }

    fn made(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).expect("our own directory");
        dir
    }
}

impl Drop for Distccd {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        drop(self.guard.wait());
    }
}

/// Waits at its standard input, and ends distccd when that ends. distccd takes its whole process group with it.
const UNTIL_THE_END: &str = r#"
    trap : TERM
    distccd --no-detach --daemon --listen 127.0.0.1 --allow 127.0.0.1 --port "$1" --jobs 4 --log-file /dev/null </dev/null &
    read -r _
    kill "$!"
    wait
"#;
