//! Looks at this machine.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    checks::{BUILD_TOOLS, COMPILERS},
    findings::{Findings, Masquerade, Tool, Version},
};
use crate::{commands::variable, distcc::daemon_search, session::RuntimeDir};

/// Looks at everything but the network.
pub(super) fn look() -> Findings {
    let path = variable("PATH").unwrap_or_default();
    let masquerades = masquerades(&path);
    let real = without(&path, &masquerades);
    let names = ["distcc"].into_iter().chain(COMPILERS.iter().copied());
    let names = names.chain(BUILD_TOOLS.iter().map(|(name, ..)| *name));
    let tools = names.filter_map(|name| Some((name, tool(name, &real)?)));
    let distccd = tool("distccd", &daemon_search(&real)).map(|tool| ("distccd", tool));
    Findings {
        tools: tools.chain(distccd).collect(),
        masquerades,
        variables: variables(),
        runtime_dir: runtime_dir(),
        open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        receive_buffer: receive_buffer(),
        outside: Vec::new(),
        nat: crate::session::NatClass::Unknown,
        ci: variable("CI").is_some_and(|value| !value.is_empty()),
    }
}

fn tool(name: &'static str, path: &OsStr) -> Option<Tool> {
    let path = which::which_in_global(name, Some(path)).ok()?.next()?;
    Some(Tool {
        version: version(&path),
        path,
    })
}

/// Asks a program for its version; one that does not answer soon has none.
fn version(path: &Path) -> Option<Version> {
    let asked = duct::cmd!(path, "--version")
        .stdin_null()
        .stderr_to_stdout()
        .stdout_capture()
        .unchecked()
        .start()
        .ok()?;
    match asked.wait_timeout(PATIENCE) {
        Ok(Some(output)) => Version::find(&String::from_utf8_lossy(&output.stdout)),
        Ok(None) | Err(_) => {
            let _ = asked.kill();
            None
        }
    }
}

/// The directories on PATH whose compilers are ccache or distcc.
fn masquerades(path: &OsStr) -> Vec<Masquerade> {
    let leads_to = |dir: &Path| {
        let target = |name: &&str| fs::canonicalize(dir.join(name)).ok();
        let target = COMPILERS.iter().find_map(target)?;
        let name = target.file_name()?.to_str()?;
        ["ccache", "distcc"]
            .contains(&name)
            .then(|| name.to_owned())
    };
    let masquerade = |dir: PathBuf| leads_to(&dir).map(|leads_to| Masquerade { dir, leads_to });
    env::split_paths(path).filter_map(masquerade).collect()
}

/// Where tools really are.
fn without(path: &OsStr, masquerades: &[Masquerade]) -> OsString {
    // A relative entry would find what lies in the current directory.
    let real = |dir: &PathBuf| {
        dir.is_absolute() && !masquerades.iter().any(|masquerade| masquerade.dir == *dir)
    };
    let dirs = env::split_paths(path).filter(real);
    env::join_paths(dirs).unwrap_or_default()
}

/// The exported variables that a check may know something about. Others are nobody's business.
fn variables() -> BTreeMap<String, String> {
    let ours = |name: &str| {
        ["DISTCC_", "CCACHE_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || ["MAKEFLAGS", "CC", "CXX"].contains(&name)
            || (name.starts_with("CMAKE_") && name.ends_with("_COMPILER_LAUNCHER"))
    };
    let text = |(name, value): (OsString, OsString)| {
        let name = name.into_string().ok().filter(|name| ours(name))?;
        Some((name, value.to_string_lossy().into_owned()))
    };
    env::vars_os().filter_map(text).collect()
}

/// The runtime directory, after making a session below it.
fn runtime_dir() -> Result<PathBuf, String> {
    let path = |name: &str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let runtime = RuntimeDir::locate(path).map_err(|error| with_cause(&error))?;
    let session = "doctor".parse().map_err(|error| with_cause(&error))?;
    let session = runtime
        .session(&session)
        .map_err(|error| with_cause(&error))?;
    let dir = session.path();
    let written = tempfile::NamedTempFile::new_in(dir);
    written.map_err(|error| format!("cannot write to {}: {error}", dir.display()))?;
    // It was made for this check; in nobody's way if it stays.
    let _ = fs::remove_dir(dir);
    let runtime = runtime.rendezvous();
    Ok(runtime.parent().unwrap_or(&runtime).to_owned())
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn receive_buffer() -> Option<u64> {
    let text = fs::read_to_string("/proc/sys/net/core/rmem_max").ok()?;
    text.trim().parse().ok()
}

/// A version is printed in milliseconds; a program on a dead network drive never answers.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn script(path: &Path, text: &str) {
        fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_masquerade_is_recognised_and_the_real_compiler_behind_it_found() {
        let tmp = tempfile::tempdir().unwrap();
        let (front, real) = (tmp.path().join("front"), tmp.path().join("real"));
        for dir in [&front, &real] {
            fs::create_dir(dir).unwrap();
        }
        script(&real.join("ccache"), "echo never asked");
        script(&real.join("gcc"), "echo 'gcc (Here) 12.2.0'");
        symlink(real.join("ccache"), front.join("gcc")).unwrap();
        let path = env::join_paths([&front, &real]).unwrap();

        let masquerades = masquerades(&path);
        assert_eq!(masquerades.len(), 1);
        assert_eq!(
            (&masquerades[0].dir, masquerades[0].leads_to.as_str()),
            (&front, "ccache")
        );
        let gcc = tool("gcc", &without(&path, &masquerades)).unwrap();
        assert_eq!(gcc.path, real.join("gcc"));
        assert_eq!(gcc.version, Some(Version(12, 2)));
    }

    #[test]
    fn a_tool_that_fails_has_no_version() {
        let tmp = tempfile::tempdir().unwrap();
        script(&tmp.path().join("make"), "exit 1");
        let make = tool("make", tmp.path().as_os_str()).unwrap();
        assert_eq!(make.version, None);
    }
}
