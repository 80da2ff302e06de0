//! Which compilers a machine has.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs::{self, File},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{
    name::{CompilerName, Driver, file_name},
    prober::one_compiler_each,
};

/// The compilers on a PATH, by name: `cc`, `g++`, `clang-14`, `aarch64-linux-gnu-gcc-12`, … For each name the first one
/// that is a compiler and not a masquerade; symbolic links keep the name they are called by.
pub fn compilers_on_path(path: &OsStr) -> Vec<PathBuf> {
    let mut found = BTreeMap::new();
    let ourselves = env::current_exe().ok().and_then(|exe| file_id(&exe));
    // A relative directory means another one in every working directory.
    for directory in env::split_paths(path).filter(|directory| directory.is_absolute()) {
        for name in compiler_names(&directory) {
            let candidate = directory.join(&name);
            if !found.contains_key(&name)
                && is_executable(&candidate)
                && !is_masquerade(&candidate)
                && (ourselves.is_none() || file_id(&candidate) != ourselves)
            {
                found.insert(name, candidate);
            }
        }
    }
    found.into_values().collect()
}

/// Those of the compilers that a build most likely uses: what make and configure call when nobody names another, and what
/// `mentioned` names, each with all its names.
pub fn likely_compilers(compilers: &[PathBuf], mentioned: &[String]) -> Vec<PathBuf> {
    let is_mentioned = |path: &Path| {
        let name = path.file_name().and_then(OsStr::to_str);
        mentioned
            .iter()
            .any(|mentioned| name == Some(file_name(mentioned)))
    };
    let groups = one_compiler_each(compilers).into_iter();
    groups
        .filter(|names| {
            names
                .iter()
                .any(|name| is_usual(name) || is_mentioned(name))
        })
        .flatten()
        .collect()
}

/// `cc`, `c++`, `gcc` or `g++`.
pub(super) fn is_usual(path: &Path) -> bool {
    let name = path.to_str().and_then(CompilerName::of_path);
    name.is_some_and(|name| {
        let of_a_release = name.prefix.is_some() || name.version.is_some();
        !of_a_release && !matches!(name.driver, Driver::Clang | Driver::Clangxx)
    })
}

/// Names in a directory that are compilers'. A directory that cannot be read has none.
fn compiler_names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| CompilerName::parse(name).is_some())
        .collect()
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Programs that stand in for compilers and call them.
const MASQUERADES: [&str; 6] = [
    "distcc",
    "ccache",
    "sccache",
    "icecc",
    "distmesh",
    "distmesh-shim",
];

/// A link or a script that ends in one of them. A worker that offered it would send its jobs on, perhaps back to us.
fn is_masquerade(path: &Path) -> bool {
    links(path).iter().any(|step| is_named_masquerade(step)) || is_masquerade_script(path)
}

fn is_named_masquerade(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    MASQUERADES.contains(&name)
}

/// The path and all that it links to, one after another. Each step counts: ccache may itself be a link to `ccache-4.8`.
fn links(path: &Path) -> Vec<PathBuf> {
    // The kernel follows 40 links in a row.
    const MOST: usize = 40;
    let mut steps = vec![path.to_owned()];
    while let Some(last) = steps.last().filter(|_| steps.len() <= MOST) {
        let Ok(target) = fs::read_link(last) else {
            break;
        };
        let next = last.parent().unwrap_or(Path::new("/")).join(target);
        steps.push(next);
    }
    steps
}

/// A short script that mentions one of them as a word.
fn is_masquerade_script(path: &Path) -> bool {
    // Such scripts are one line; a longer program decides for itself.
    const SHORT: u64 = 4096;
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SHORT).read_to_end(&mut text));
    read.is_ok()
        && text.starts_with(b"#!")
        && String::from_utf8_lossy(&text)
            .split(|char: char| !char.is_alphanumeric() && char != '_' && char != '-')
            .any(|word| MASQUERADES.contains(&word))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::admission::fake::script;

    /// Directories `a` and `b` on a PATH.
    struct Machine {
        root: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            for directory in ["a", "b", "bin"] {
                fs::create_dir(root.path().join(directory)).unwrap();
            }
            Self { root }
        }

        fn program(&self, path: &str, body: &str) -> PathBuf {
            script(self.root.path(), path, body)
        }

        fn link(&self, target: &str, path: &str) {
            symlink(target, self.root.path().join(path)).unwrap();
        }

        fn found(&self) -> Vec<String> {
            let path =
                env::join_paths(["a", "b"].map(|directory| self.root.path().join(directory)))
                    .unwrap();
            compilers_on_path(&path)
                .iter()
                .map(|path| {
                    path.strip_prefix(self.root.path())
                        .unwrap()
                        .display()
                        .to_string()
                })
                .collect()
        }
    }

    #[test]
    fn the_first_of_a_name_wins_and_links_keep_their_names() {
        let machine = Machine::new();
        for path in [
            "b/gcc",
            "a/gcc",
            "b/gcc-12",
            "b/x86_64-linux-gnu-g++-12",
            "b/clang++-14",
            "b/gcc-ar",
            "b/make",
        ] {
            machine.program(path, "exit 0");
        }
        machine.link("gcc", "a/cc");
        assert_eq!(
            machine.found(),
            [
                "a/cc",
                "b/clang++-14",
                "a/gcc",
                "b/gcc-12",
                "b/x86_64-linux-gnu-g++-12"
            ]
        );
    }

    #[test]
    fn links_that_end_in_a_masquerade_are_passed_over() {
        let machine = Machine::new();
        for name in ["distcc", "ccache", "icecc", "distmesh"] {
            machine.program(&format!("bin/{name}"), "exit 0");
        }
        machine.link("../bin/distcc", "a/gcc");
        machine.link("../bin/ccache", "a/g++");
        machine.link("../bin/icecc", "a/clang");
        machine.link("clang", "a/clang-14");
        machine.link("../bin/distmesh", "a/cc");
        machine.program("b/gcc", "exit 0");
        assert_eq!(machine.found(), ["b/gcc"]);
    }

    #[test]
    fn a_masquerade_that_is_itself_a_link_is_recognised() {
        let machine = Machine::new();
        machine.program("bin/ccache-4.8", "exit 0");
        machine.link("ccache-4.8", "bin/ccache");
        machine.link("../bin/ccache", "a/gcc");
        assert_eq!(machine.found(), Vec::<String>::new());
    }

    #[test]
    fn scripts_that_call_a_masquerade_are_passed_over() {
        let machine = Machine::new();
        machine.program("a/gcc", "exec ccache /usr/bin/gcc \"$@\"");
        machine.program("a/g++", "exec /opt/bin/distcc g++ \"$@\"");
        machine.program("a/clang", "exec /opt/distccache/clang \"$@\"");
        assert_eq!(machine.found(), ["a/clang"]);
    }

    #[test]
    fn our_own_program_is_passed_over_under_any_name() {
        let machine = Machine::new();
        machine.link(env::current_exe().unwrap().to_str().unwrap(), "a/gcc");
        assert_eq!(machine.found(), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_run_is_no_compiler() {
        let machine = Machine::new();
        fs::write(machine.root.path().join("a/gcc"), "").unwrap();
        fs::create_dir(machine.root.path().join("a/g++")).unwrap();
        machine.link("nowhere", "a/clang");
        machine.link("clang++", "a/clang++");
        assert_eq!(machine.found(), Vec::<String>::new());
    }

    #[test]
    fn directories_that_are_relative_or_gone_are_passed_over() {
        assert_eq!(
            compilers_on_path(OsStr::new("::.:bin:/nonexistent")),
            Vec::<PathBuf>::new()
        );
    }

    #[test]
    fn likely_are_the_usual_ones_by_all_their_names_and_those_that_are_mentioned() {
        let machine = Machine::new();
        for path in ["a/gcc-12", "a/gcc-11", "a/clang-14", "a/clang-16"] {
            machine.program(path, "exit 0");
        }
        machine.link("gcc-12", "a/gcc");
        machine.link("clang-14", "a/clang");
        let all = compilers_on_path(machine.root.path().join("a").as_os_str());
        let likely = |mentioned: &[&str]| {
            let mentioned: Vec<_> = mentioned.iter().map(|&word| word.to_owned()).collect();
            let likely = likely_compilers(&all, &mentioned);
            let mut names: Vec<_> = likely
                .iter()
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(likely(&["make", "-j4"]), ["gcc", "gcc-12"]);
        assert_eq!(
            likely(&["/usr/bin/clang", "-m32"]),
            ["clang", "clang-14", "gcc", "gcc-12"]
        );
        assert_eq!(likely(&["gcc-11"]), ["gcc", "gcc-11", "gcc-12"]);
    }
}
