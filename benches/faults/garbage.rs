//! A distccd that begins to talk nonsense.

use std::{
    env, fs,
    io::{Read, Write, copy},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use crate::cluster::runner::Runner;

const ROLE: &str = "DISTMESH_BENCH_GARBAGE";

fn flag() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("garbage")
}

pub(crate) fn begin() {
    fs::write(flag(), "").expect("a flag");
}

/// Starts a process on the machine that passes on what comes, until the nonsense begins.
pub(crate) fn start(runner: &Runner, listen: &str, to: &str) -> std::process::Child {
    drop(fs::remove_file(flag()));
    let own = env::current_exe().expect("own path");
    runner
        .command(own.to_str().expect("a plain path"))
        .env(ROLE, format!("{listen} {to}"))
        .spawn()
        .expect("own program")
}

/// Is that process, if it was asked to be.
pub(crate) fn serve_if_asked() -> Option<ExitCode> {
    let role = env::var(ROLE).ok()?;
    let (listen, to) = role.split_once(' ')?;
    let listener = TcpListener::bind(listen).expect("a free port");
    for client in listener.incoming().flatten() {
        let to = to.to_owned();
        thread::spawn(move || {
            if flag().exists() {
                talk_nonsense(client);
            } else {
                pass(client, &to);
            }
        });
    }
    Some(ExitCode::SUCCESS)
}

fn talk_nonsense(mut client: TcpStream) {
    let mut head = [0; 64];
    let _ = client.read(&mut head);
    let _ = client.write_all(b"\x16\x03\x01DONE0000000zSTAT HTTP/1.1 418\r\n\r\n");
}

fn pass(client: TcpStream, to: &str) {
    let Ok(server) = TcpStream::connect(to) else {
        return;
    };
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    thread::spawn(move || {
        let _ = copy(&mut from_client, &mut to_server);
        // distccd takes the end of its input for an abort, so only a client that is gone ends it.
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
}
