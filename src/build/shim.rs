//! The program under the name of a compiler or tool: decide, say so, become the real one.

use std::ffi::{OsStr, OsString};
use std::os::fd::IntoRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::arguments::{Class, classify, for_distcc};
use super::jobs::{Jobs, adapt};
use super::layout::{is_compiler, is_tool};
use crate::event::{CompileSeen, Route};

/// What a shim tells the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// A compiler was called.
    Compile(CompileSeen),
    /// `-jN` was asked for.
    Ceiling(u32),
    /// Something a person should know, once.
    Notice(String),
}

/// Becomes the real tool if this program was called as a shim or launcher; returns otherwise. Call it first in `main`.
#[expect(
    clippy::disallowed_methods,
    reason = "the shim is a shell: its input is its environment"
)]
pub fn run_if_shim() {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let Some(called) = args.first().map(PathBuf::from) else {
        return;
    };
    let name = called
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let dir = std::env::var_os("DISTMESH_BUILD_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.join("record.sock").exists());
    if args.get(1).is_some_and(|arg| arg == "__launch") && args.len() > 2 {
        let compiler = PathBuf::from(&args[2]);
        become_compiler(&compiler, args.split_off(3), dir.as_deref());
    }
    if !is_compiler(&name) && !is_tool(&name) {
        return;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(real) = real_tool(&name, &path) else {
        fail(&name)
    };
    let args = args.split_off(1);
    match dir {
        Some(dir) if is_tool(&name) => become_tool(&name, &real, args, &dir),
        dir => become_compiler(&real, args, dir.as_deref()),
    }
}

/// The first of this name on PATH that is neither this program nor another masquerade.
fn real_tool(name: &str, path: &OsStr) -> Option<PathBuf> {
    let own = std::env::current_exe().and_then(std::fs::canonicalize).ok();
    std::env::split_paths(path)
        .map(|dir| dir.join(name))
        .find(|file| {
            std::fs::canonicalize(file).is_ok_and(|target| {
                let masquerade = target.file_name().is_some_and(|target| {
                    ["ccache", "distcc", "sccache", "icecc"]
                        .iter()
                        .any(|m| target == *m)
                });
                Some(&target) != own.as_ref() && !masquerade && target.is_file()
            })
        })
}

/// PATH without the build dir, so that neither distcc nor CMake meets a shim.
fn plain_path(dir: &Path) -> OsString {
    #[expect(clippy::disallowed_methods, reason = "the shim is a shell")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::env::split_paths(&path).filter(|entry| !entry.starts_with(dir)))
        .unwrap_or(path)
}

fn become_compiler(real: &Path, args: Vec<OsString>, dir: Option<&Path>) -> ! {
    let texts: Option<Vec<String>> = args
        .iter()
        .map(|arg| arg.to_str().map(str::to_owned))
        .collect();
    let (Some(dir), Some(texts)) = (dir, texts) else {
        execute(Command::new(real).args(args))
    };
    let compiler = real.to_string_lossy().into_owned();
    let admitted = std::fs::read_to_string(dir.join("state"))
        .is_ok_and(|state| state.lines().any(|line| line == compiler));
    let (route, source) = match classify(&texts) {
        Class::NotACompile => (Route::NotACompile, None),
        Class::Local(reason) => (Route::Local(reason), None),
        Class::Distributable(source) if admitted => (Route::Distcc, Some(source)),
        Class::Distributable(source) => (
            Route::Local("no worker for this compiler".to_owned()),
            Some(source),
        ),
    };
    let remote = route == Route::Distcc;
    say(
        dir,
        &Said::Compile(CompileSeen {
            compiler,
            source,
            route,
        }),
    );
    if remote {
        let path = plain_path(dir);
        // Only if distcc itself is missing does this return.
        let _ = Command::new("distcc")
            .arg(real)
            .args(for_distcc(texts))
            .env("PATH", path)
            .exec();
    }
    execute(Command::new(real).args(args))
}

fn become_tool(name: &str, real: &Path, args: Vec<OsString>, dir: &Path) -> ! {
    let texts: Option<Vec<String>> = args
        .iter()
        .map(|arg| arg.to_str().map(str::to_owned))
        .collect();
    let Some(texts) = texts else {
        execute(Command::new(real).args(args))
    };
    match name {
        "cmake" if texts.first().is_none_or(|first| first != "--build") => {
            become_cmake(real, &texts, dir)
        }
        "ninja" => become_ninja(real, texts),
        _ => become_make(real, &texts, dir),
    }
}

#[expect(clippy::disallowed_methods, reason = "the shim is a shell")]
fn become_cmake(real: &Path, texts: &[String], dir: &Path) -> ! {
    let mut command = Command::new(real);
    command.args(texts).env("PATH", plain_path(dir));
    if let Some(launcher) = std::env::var_os("DISTMESH_LAUNCHER") {
        for language in ["C", "CXX"] {
            command.env(format!("CMAKE_{language}_COMPILER_LAUNCHER"), &launcher);
            let questions = ["-E", "-P", "--install", "--open", "--version", "--help"];
            let configures = !texts.is_empty()
                && !questions
                    .iter()
                    .any(|question| texts.iter().any(|text| text == question));
            if configures && std::env::var_os("DISTMESH_RECONFIGURE").is_some() {
                let mut define = OsString::from(format!("-DCMAKE_{language}_COMPILER_LAUNCHER="));
                define.push(&launcher);
                command.arg(define);
            }
        }
    }
    execute(&mut command)
}

/// ninja before 1.13 has no jobserver client: dispatch queues what is too much.
#[expect(clippy::disallowed_methods, reason = "the shim is a shell")]
fn become_ninja(real: &Path, texts: Vec<String>) -> ! {
    let mut command = Command::new(real);
    if let (Jobs::Unsaid, Some(jobs)) = (adapt(&texts).jobs, std::env::var_os("DISTMESH_JOBS")) {
        command.arg("-j").arg(jobs);
    }
    execute(command.args(texts))
}

#[expect(clippy::disallowed_methods, reason = "the shim is a shell")]
fn become_make(real: &Path, texts: &[String], dir: &Path) -> ! {
    let flags = std::env::var("MAKEFLAGS").unwrap_or_default();
    let adapted = adapt(texts);
    let inherited: Vec<&str> = flags
        .split_whitespace()
        .filter(|flag| !flag.starts_with("-j") && !flag.starts_with("--jobserver"))
        .collect();
    match adapted.jobs {
        Jobs::AtMost(0 | 1) => execute(Command::new(real).args(texts)),
        Jobs::AtMost(jobs) => say(dir, &Said::Ceiling(jobs)),
        Jobs::Unlimited => {}
        Jobs::Unsaid => say(
            dir,
            &Said::Notice(
                "make runs in parallel although no -j was given; -j1 keeps it serial".to_owned(),
            ),
        ),
    }
    match (
        pipe_end(&dir.join("tokens")),
        pipe_end(&dir.join("returned")),
    ) {
        (Some(tokens), Some(returned)) => {
            let flags = format!(
                "{} -j --jobserver-auth={tokens},{returned}",
                inherited.join(" ")
            );
            execute(
                Command::new(real)
                    .args(adapted.args)
                    .env("MAKEFLAGS", flags),
            )
        }
        _ => execute(Command::new(real).args(texts)),
    }
}

/// Opens one of the token pipes for a child. Both ways, so that opening never waits for the other side.
fn pipe_end(file: &Path) -> Option<i32> {
    let end = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .ok()?;
    rustix::io::fcntl_setfd(&end, rustix::io::FdFlags::empty()).ok()?;
    Some(end.into_raw_fd())
}

/// One datagram, never waiting for the session.
fn say(dir: &Path, said: &Said) {
    if let (Ok(socket), Ok(text)) = (UnixDatagram::unbound(), serde_json::to_vec(said)) {
        let _ = socket.set_nonblocking(true);
        let _ = socket.send_to(&text, dir.join("record.sock"));
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the shim runs without the program's user interface"
)]
fn execute(command: &mut Command) -> ! {
    let error = command.exec();
    eprintln!(
        "distmesh: {}: {error}",
        command.get_program().to_string_lossy()
    );
    std::process::exit(127)
}

#[expect(
    clippy::print_stderr,
    reason = "the shim runs without the program's user interface"
)]
fn fail(name: &str) -> ! {
    eprintln!("distmesh: {name}: not found on PATH behind distmesh; install it");
    std::process::exit(127)
}
