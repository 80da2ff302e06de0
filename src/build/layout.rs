//! The build dir on disk.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const TOOLS: &[&str] = &["make", "gmake", "ninja", "cmake"];
const COMPILERS: &[&str] = &["cc", "c++", "gcc", "g++", "clang", "clang++"];

/// The CMake launcher: it must work in a tree that is built later without a session.
const LAUNCHER: &str = "#!/bin/sh\nif [ -n \"$DISTMESH_BUILD_DIR\" ] && [ -S \"$DISTMESH_BUILD_DIR/record.sock\" ]; then\n  \
                        exec \"$DISTMESH_EXE\" __launch \"$@\"\nfi\nexec \"$@\"\n";

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

/// Makes the directories, the links to `exe` for everything found on `path`, and the token pipes.
pub fn prepare(dir: &Path, exe: &Path, path: &OsStr) -> io::Result<()> {
    for sub in ["compilers", "tools", "distcc/lock"] {
        std::fs::create_dir_all(dir.join(sub))?;
    }
    for name in names_on(path) {
        let sub = if is_tool(&name) { "tools" } else { "compilers" };
        symlink(exe, dir.join(sub).join(name))?;
    }
    let made = Command::new("mkfifo")
        .arg(dir.join("tokens"))
        .arg(dir.join("returned"))
        .status()?;
    if !made.success() {
        return Err(io::Error::other("mkfifo failed"));
    }
    replace(&dir.join("state"), b"")
}

fn names_on(path: &OsStr) -> BTreeSet<String> {
    std::env::split_paths(path)
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flat_map(|entries| entries.filter_map(Result::ok))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_compiler(name) || is_tool(name))
        .collect()
}

/// Writes a file so that readers see the old text or the new one.
pub fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    let mut new = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new(".")))?;
    new.write_all(text)?;
    new.persist(file).map(drop).map_err(|error| error.error)
}

/// Installs the launcher under the user's data directory.
pub fn install_launcher(data_home: &Path) -> io::Result<PathBuf> {
    let file = data_home.join("distmesh").join("launch");
    std::fs::create_dir_all(data_home.join("distmesh"))?;
    replace(&file, LAUNCHER.as_bytes())?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
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
}
