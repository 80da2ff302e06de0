//! The build dir on disk.
//!
//! ```text
//! build.lease  locked while the session lives     compilers/, tools/   links to the shim, first on PATH
//! record.sock  where shims report                 prefix/distcc        the same, for ccache
//! missed       what they could not report         distcc/              DISTCC_DIR: hosts file, locks, log
//! state        what shims must know               makes/PID/           the two token pipes of one make
//! permits      a pipe: who reads a byte compiles here, see [`home`](super::home)
//! ```

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
#[cfg(not(target_os = "linux"))]
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::event::Compiler;

/// The file that is locked while the session lives; rendezvous directories know leases too.
pub(super) const LEASE: &str = "build.lease";

const TOOLS: &[&str] = &[
    "make", "gmake", "ninja", "cmake", "cmake3", "ccmake", "ctest",
];
const COMPILERS: &[&str] = &["cc", "c++", "gcc", "g++", "clang", "clang++"];

/// Programs that stand on PATH under a compiler's name, as we do.
const MASQUERADES: &[&str] = &["ccache", "distcc", "sccache", "icecc"];
/// Ourselves: another session's links, too, must not be taken for compilers.
const OURS: &[&str] = &["distmesh", "distmesh-shim"];

/// The CMake launcher: it must work in a tree that is built later without a session.
const LAUNCHER: &str = "#!/bin/sh\nif [ -n \"$DISTMESH_BUILD_DIR\" ] && [ -S \"$DISTMESH_BUILD_DIR/record.sock\" ]; then\n  \
                        exec \"$DISTMESH_EXE\" __launch \"$@\"\nfi\nexec \"$@\"\n";

/// What shims must know of the session, without asking it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Jobs this machine may run at once.
    pub local: u32,
    /// Slots of all live workers.
    pub capacity: u32,
    /// The longest source that a spare compile may have, in bytes: a long one would be the last of the build to end. `None`: any.
    #[serde(default)]
    pub spare_at_most: Option<u64>,
    /// Compilers that some live worker is admitted for.
    pub compilers: BTreeSet<Compiler>,
    /// Ask ccache before distcc.
    pub ccache: bool,
    /// Hand the launcher to CMake trees that were configured without it.
    pub reconfigure: bool,
    /// The CMake launcher.
    pub launcher: Option<PathBuf>,
    /// distcc, where it was found on the PATH that the build began with: to look for it anew takes each compile some system calls.
    #[serde(default)]
    pub distcc: Option<PathBuf>,
}

impl State {
    /// Reads it; without a session there is none.
    #[must_use]
    pub fn read(dir: &Path) -> Self {
        let text = std::fs::read(dir.join("state")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes it.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        replace(&dir.join("state"), &serde_json::to_vec(self)?)
    }
}

/// Whether a name is one of a compiler: `gcc`, `g++-12`, `aarch64-linux-gnu-gcc`, `clang-14`.
#[must_use]
pub fn is_compiler(name: &str) -> bool {
    let stem = match name.rsplit_once('-') {
        Some((stem, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => stem,
        _ => name,
    };
    COMPILERS.contains(&stem)
        || ["-gcc", "-g++", "-clang", "-clang++"]
            .iter()
            .any(|end| stem.ends_with(end))
}

/// Whether a name is one of an adapted tool.
#[must_use]
pub fn is_tool(name: &str) -> bool {
    TOOLS.contains(&name)
}

/// Makes the directories and the links to `exe` for everything found on `path`.
pub fn prepare(dir: &Path, exe: &Path, path: &OsStr) -> io::Result<()> {
    for sub in ["compilers", "tools", "prefix", "distcc/lock", "makes"] {
        std::fs::create_dir_all(dir.join(sub))?;
    }
    link_names(dir, exe, path)?;
    link(exe, &dir.join("prefix/distcc"))
}

/// Makes the links to `exe` that are missing.
pub fn link_names(dir: &Path, exe: &Path, path: &OsStr) -> io::Result<()> {
    for name in names_on(path) {
        let sub = if is_tool(&name) { "tools" } else { "compilers" };
        link(exe, &dir.join(sub).join(name))?;
    }
    Ok(())
}

/// PATH with our links first.
#[must_use]
pub fn masked_path(path: &OsStr, dir: &Path) -> OsString {
    let plain = plain_path(path, dir);
    let shims = [dir.join("tools"), dir.join("compilers")].into_iter();
    let masked = std::env::join_paths(shims.chain(std::env::split_paths(&plain)));
    masked.unwrap_or_else(|_| path.to_owned())
}

/// Makes the link to `exe` under which a tool is adapted, if there is none; returns where it is.
pub fn link_tool(dir: &Path, exe: &Path, name: &str) -> io::Result<PathBuf> {
    let at = dir.join("tools").join(name);
    link(exe, &at)?;
    Ok(at)
}

fn link(exe: &Path, at: &Path) -> io::Result<()> {
    match symlink(exe, at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn names_on(path: &OsStr) -> BTreeSet<String> {
    std::env::split_paths(path)
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flat_map(|entries| entries.filter_map(Result::ok))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_compiler(name) || is_tool(name))
        .collect()
}

/// The first of this name on PATH that is neither `own`, this program, nor another masquerade.
#[must_use]
pub fn real_tool(name: &OsStr, path: &OsStr, own: Option<&Path>) -> Option<PathBuf> {
    first_tool(name, path, |file| is_genuine(file, own))
}

/// The first executable of this name on PATH that is a real one.
#[must_use]
pub fn first_tool(name: &OsStr, path: &OsStr, is_real: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|dir| dir.join(name))
        .filter(|file| is_executable(file))
        .find(|file| is_real(file))
}

/// Whether a file is neither `own`, this program, nor another masquerade.
#[must_use]
pub fn is_genuine(file: &Path, own: Option<&Path>) -> bool {
    std::fs::canonicalize(file).is_ok_and(|target| {
        let ours = Some(target.as_path()) == own || is_named(&target, OURS);
        !ours && !is_named(&target, MASQUERADES)
    })
}

/// One look, where most of PATH has nothing; links are followed.
#[must_use]
pub fn is_executable(file: &Path) -> bool {
    let found = std::fs::metadata(file);
    found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether a file is ccache or another program that poses as a compiler.
#[must_use]
pub fn is_masquerade(file: &Path) -> bool {
    let target = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    is_named(&target, MASQUERADES)
}

/// Whether a file is this program under whatever name.
#[must_use]
pub fn is_ours(file: &Path) -> bool {
    std::fs::canonicalize(file).is_ok_and(|target| is_named(&target, OURS))
}

fn is_named(file: &Path, names: &[&str]) -> bool {
    let name = file.file_name().unwrap_or_default();
    names.iter().any(|known| name == *known)
}

/// PATH without the build dir, so that neither distcc nor CMake meets a shim.
#[must_use]
pub fn plain_path(path: &OsStr, dir: &Path) -> OsString {
    let kept = std::env::split_paths(path).filter(|entry| !entry.starts_with(dir));
    std::env::join_paths(kept).unwrap_or_else(|_| path.to_owned())
}

/// The file of one of a make's two token pipes.
#[must_use]
pub fn pipe(make: &Path, end: PipeEnd) -> PathBuf {
    make.join(match end {
        PipeEnd::Tokens => "tokens",
        PipeEnd::Returned => "returned",
    })
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipeEnd {
    /// make takes tokens here.
    Tokens,
    /// make returns them here.
    Returned,
}

/// Makes a make's directory and its two pipes.
pub fn make_pipes(make: &Path) -> io::Result<()> {
    // The process that had this number before is gone, and so is its make.
    let _ = std::fs::remove_dir_all(make);
    std::fs::create_dir(make)?;
    make_fifo(&pipe(make, PipeEnd::Tokens))?;
    make_fifo(&pipe(make, PipeEnd::Returned))
}

/// Makes a named pipe that only its owner may use.
#[cfg(target_os = "linux")]
pub fn make_fifo(at: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(mknodat(CWD, at, FileType::Fifo, mode, 0)?)
}

/// Makes a named pipe; here no safe call does.
#[cfg(not(target_os = "linux"))]
pub fn make_fifo(at: &Path) -> io::Result<()> {
    match Command::new("mkfifo").arg(at).status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("mkfifo failed")),
    }
}

/// Opens one of the token pipes.
pub fn open_pipe(make: &Path, end: PipeEnd) -> io::Result<File> {
    open_both_ways(&pipe(make, end))
}

/// Opens a named pipe to read and write: opening then never waits for the other side, and nobody ever reads an end of file.
pub fn open_both_ways(pipe: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(pipe)
}

/// Tells how much lies in a named pipe.
#[derive(Debug)]
pub struct Gauge(File);

impl Gauge {
    /// Of this pipe, which somebody has open to write. An end that may write as well would tell, on macOS, how much lies on its own empty
    /// side (XNU's `fifo_ioctl` asks the write socket last).
    pub fn open(pipe: &Path) -> io::Result<Self> {
        File::open(pipe).map(Self)
    }

    /// Bytes that nobody has read yet.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        let waiting = rustix::io::ioctl_fionread(&self.0).unwrap_or(0);
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }
}

/// Writes a file so that readers see the old text or the new one.
pub fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    replace_with(file, text, 0o600)
}

fn replace_with(file: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let mut new = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(file.parent().unwrap_or(Path::new(".")))?;
    new.write_all(text)?;
    new.persist(file).map(drop).map_err(|error| error.error)
}

/// Installs the launcher under the user's data directory.
pub fn install_launcher(data_home: &Path) -> io::Result<PathBuf> {
    let file = data_home.join("distmesh").join("launch");
    let same = std::fs::read(&file).is_ok_and(|text| text == LAUNCHER.as_bytes());
    if same && is_executable(&file) {
        return Ok(file);
    }
    std::fs::create_dir_all(data_home.join("distmesh"))?;
    replace_with(&file, LAUNCHER.as_bytes(), 0o755)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versioned_and_prefixed_names_are_compilers_and_their_companions_are_not() {
        for name in [
            "gcc",
            "g++-12",
            "aarch64-linux-gnu-gcc-12",
            "clang-14",
            "clang++",
        ] {
            assert!(is_compiler(name), "{name}");
        }
        for name in [
            "gcc-ar",
            "clang-format",
            "ccache",
            "gcc-ranlib-12",
            "clang-tidy-14",
        ] {
            assert!(!is_compiler(name), "{name}");
        }
    }

    #[test]
    fn a_real_tool_is_neither_a_masquerade_nor_ourselves_nor_a_text_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for sub in ["cached", "own", "small", "text", "real"] {
            std::fs::create_dir(at(sub)).unwrap();
        }
        for (file, mode) in [
            ("ccache", 0o755),
            ("self", 0o755),
            ("distmesh-shim", 0o755),
            ("text/gcc", 0o644),
            ("real/gcc", 0o755),
        ] {
            std::fs::write(at(file), "").unwrap();
            std::fs::set_permissions(at(file), Permissions::from_mode(mode)).unwrap();
        }
        symlink(at("ccache"), at("cached/gcc")).unwrap();
        symlink(at("self"), at("own/gcc")).unwrap();
        symlink(at("distmesh-shim"), at("small/gcc")).unwrap();
        let path = ["cached", "own", "small", "text", "real"].map(at);
        let path = std::env::join_paths(path).unwrap();
        let own = std::fs::canonicalize(at("self")).unwrap();
        let found = real_tool(OsStr::new("gcc"), &path, Some(&own));
        assert_eq!(found, Some(at("real/gcc")));
        assert!(is_masquerade(&at("cached/gcc")));
    }
}
