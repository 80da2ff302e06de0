//! Real servers on loopback, each with a directory of its own that the tests can look into.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use tempfile::TempDir;

use crate::crew::{LOOK, PATIENCE};

/// What opens the stores. No text has them by chance.
pub const KEY_ID: &str = "AKIDTESTONLY7Q2W";
pub const SECRET_KEY: &str = "s3-secret-8f1c+/not-for-logs";
pub const USER: &str = "anna";
pub const PASSWORD: &str = "dav-p@ss/word-77e0";

/// The address's path: a bucket, or a collection, and a prefix.
const PLACE: &str = "bucket/ci/mesh";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    S3,
    S3OverTls,
    RcloneDav,
    ApacheDav,
}

/// A server that can be stopped and started again.
pub struct Server {
    pub dir: TempDir,
    pub port: u16,
    kind: Kind,
    process: Option<Child>,
}

impl Server {
    /// One that runs.
    pub fn start(kind: Kind) -> Self {
        let mut server = Self::prepare(kind);
        server.go();
        server
    }

    /// One that does not run yet.
    pub fn prepare(kind: Kind) -> Self {
        let dir = tempfile::Builder::new().prefix("dmst").tempdir().unwrap();
        fs::create_dir_all(dir.path().join("data/bucket")).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        if kind == Kind::S3OverTls {
            certificates(dir.path());
        }
        Self {
            dir,
            port,
            kind,
            process: None,
        }
    }

    pub fn go(&mut self) {
        let log = fs::File::create(self.dir.path().join("server.log")).unwrap();
        let mut command = match self.kind {
            Kind::ApacheDav => self.apache(),
            Kind::S3 | Kind::S3OverTls | Kind::RcloneDav => self.rclone(),
        };
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut process = command.spawn().unwrap();
        let patience = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = process.try_wait().unwrap();
            let log = fs::read_to_string(self.dir.path().join("server.log")).unwrap();
            assert!(
                ended.is_none() && Instant::now() < patience,
                "{:?}: {log}",
                self.kind
            );
            sleep(Duration::from_millis(20));
        }
        self.process = Some(process);
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Apache ends its children when it is asked to end, not when it is killed.
            let pid = rustix::process::Pid::from_child(&process);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let patience = Instant::now() + Duration::from_secs(5);
            while process.try_wait().unwrap().is_none() && Instant::now() < patience {
                sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// The value of `--rendezvous`.
    pub fn url(&self) -> String {
        let port = self.port;
        match self.kind {
            Kind::S3 | Kind::S3OverTls => format!("s3://{PLACE}"),
            Kind::RcloneDav | Kind::ApacheDav => {
                format!("http://{USER}:dav-p%40ss%2Fword-77e0@127.0.0.1:{port}/{PLACE}")
            }
        }
    }

    /// What opens it.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let scheme = match self.kind {
            Kind::S3 => "http",
            Kind::S3OverTls => "https",
            Kind::RcloneDav | Kind::ApacheDav => return Vec::new(),
        };
        vec![
            ("AWS_ACCESS_KEY_ID", KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            (
                "AWS_ENDPOINT_URL",
                format!("{scheme}://127.0.0.1:{}", self.port),
            ),
        ]
    }

    /// Where its objects are.
    pub fn place(&self) -> PathBuf {
        self.dir.path().join("data").join(PLACE)
    }

    /// The names of its objects.
    pub fn objects(&self) -> Vec<String> {
        let Ok(dir) = fs::read_dir(self.place()) else {
            return Vec::new();
        };
        let names = dir.map(|file| file.unwrap().file_name().into_string().unwrap());
        // Apache keeps what it knows of a file's properties beside it.
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    /// Waits until it has these objects and no others. A node that ends waits five seconds for its entry's removal; rclone takes longer over
    /// some that come beside lists on a busy machine (8 s were seen), but does them.
    pub fn comes_to(&self, expected: &[&str]) {
        let patience = Instant::now() + PATIENCE;
        while self.objects() != expected {
            assert!(Instant::now() < patience, "{:?}", self.objects());
            sleep(LOOK);
        }
    }

    /// Waits until it has so many objects.
    pub fn holds(&self, count: usize) {
        let patience = Instant::now() + PATIENCE;
        while self.objects().len() < count {
            assert!(Instant::now() < patience, "only {:?}", self.objects());
            sleep(LOOK);
        }
    }

    /// Puts an object there that no distmesh wrote, or not now.
    pub fn leave(&self, name: &str, bytes: &[u8], age: Duration) {
        fs::create_dir_all(self.place()).unwrap();
        let path = self.place().join(name);
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    fn rclone(&self) -> Command {
        let mut command = Command::new(rclone());
        match self.kind {
            Kind::S3 | Kind::S3OverTls => {
                command.args(["serve", "s3", "--auth-key"]);
                command.arg(format!("{KEY_ID},{SECRET_KEY}"));
            }
            Kind::RcloneDav | Kind::ApacheDav => {
                command.args(["serve", "webdav", "--user", USER, "--pass", PASSWORD]);
            }
        }
        if self.kind == Kind::S3OverTls {
            let dir = self.dir.path();
            command.arg("--cert").arg(dir.join("cert.pem"));
            command.arg("--key").arg(dir.join("key.pem"));
        }
        command
            .arg(self.dir.path().join("data"))
            .args(["--addr", &format!("127.0.0.1:{}", self.port)])
            // What the tests put into the directory is seen at once.
            .args(["--config", "/dev/null", "--dir-cache-time", "0s"]);
        command
    }

    fn apache(&self) -> Command {
        let dir = self.dir.path();
        let hash = openssl(dir, &["passwd", "-apr1", PASSWORD]);
        fs::write(dir.join("users"), format!("{USER}:{hash}")).unwrap();
        fs::write(dir.join("conf"), self.apache_conf()).unwrap();
        if rustix::process::geteuid().is_root() {
            // Apache refuses to serve as root.
            for path in ["", "users", "data", "data/bucket"] {
                chown(dir.join(path), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let mut command = Command::new("/usr/sbin/apache2");
        command
            .args(["-D", "FOREGROUND", "-f"])
            .arg(dir.join("conf"));
        command
    }

    fn apache_conf(&self) -> String {
        let (dir, port) = (self.dir.path().display(), self.port);
        let modules: String = [
            "mpm_event",
            "authn_core",
            "authn_file",
            "authz_core",
            "authz_user",
            "auth_basic",
            "dav",
            "dav_fs",
            "dir",
            "mime",
        ]
        .iter()
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .collect();
        format!(
            "{modules}ServerRoot {dir}\nServerName 127.0.0.1\nListen 127.0.0.1:{port}\nPidFile {dir}/pid\nErrorLog {dir}/error.log\n\
             User #{NOBODY}\nGroup #{NOBODY}\nTypesConfig /dev/null\nDavLockDB {dir}/data/.lock\nDocumentRoot {dir}/data\n\
             <Directory {dir}/data>\nDav On\nAuthType Basic\nAuthName mesh\nAuthUserFile {dir}/users\nRequire valid-user\n</Directory>\n"
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("server.log"));
            eprintln!("--- {:?}\n{}", self.kind, log.unwrap_or_default());
        }
    }
}

/// The one that `scripts/test` has put there.
fn rclone() -> PathBuf {
    let named = std::env::var_os("DISTMESH_TEST_RCLONE").map(PathBuf::from);
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/rclone/bin/rclone");
    let found = named.unwrap_or(installed);
    assert!(
        found.is_file(),
        "{} is missing: scripts/test installs it",
        found.display()
    );
    found
}

fn openssl(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// An authority that lives for two days, and what it says of the server.
fn certificates(dir: &Path) {
    let curve = "ec_paramgen_curve:P-256";
    let key = [
        "req", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-days", "2",
    ];
    let with = |more: &[&'static str]| [&key[..], more].concat();
    let authority = [
        "-x509",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=authority",
    ];
    openssl(dir, &with(&authority));
    let server = [
        "-keyout",
        "key.pem",
        "-out",
        "server.csr",
        "-subj",
        "/CN=server",
    ];
    openssl(dir, &with(&server));
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let sign = [
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-days",
        "2",
        "-extfile",
        "names",
        "-out",
        "cert.pem",
        "-CAcreateserial",
    ];
    openssl(dir, &sign);
}

/// The user who owns nothing, by number: its name differs between systems.
const NOBODY: u32 = 65534;
