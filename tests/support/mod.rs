//! What several test programs share.

use std::{net::SocketAddr, os::unix::process::CommandExt, path::Path, process::Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::TcpStream;

/// A real distccd on a free port; dropping it ends all of its processes.
pub(crate) struct Distccd {
    master: std::process::Child,
    pub(crate) at: SocketAddr,
}

impl Distccd {
    pub(crate) async fn start(dir: &Path, slots: u32) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = free.local_addr().unwrap();
        drop(free);
        let master = std::process::Command::new("distccd")
            .args(["--daemon", "--no-detach", "--jobs", &slots.to_string()])
            .args(["--listen", "127.0.0.1", "--allow", "127.0.0.1"])
            .args(["--port", &at.port().to_string(), "--log-file", "/dev/null"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let daemon = Self { master, at };
        for _ in 0..500 {
            if TcpStream::connect(at).await.is_ok() {
                return daemon;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("distccd does not listen at {at}");
    }
}

impl Drop for Distccd {
    fn drop(&mut self) {
        // It serves from forked children, which the death of their parent alone does not end.
        let group = Pid::from_child(&self.master);
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.master.wait();
    }
}
