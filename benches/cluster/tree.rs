//! Real source trees, from Debian's archive.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sha2::{Digest, Sha256};

/// A package and how to build it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    /// Debian's name of the source package, or ours of a tree that is written here.
    pub(crate) package: &'static str,
    source: Source,
    /// Arguments of make, `-j` aside.
    pub(crate) make: &'static [&'static str],
    /// The variables that name its compilers, and those.
    compilers: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Debian,
    Written(fn(&Path) -> io::Result<()>),
}

/// Two dozen units of C that need no network.
pub(crate) const SMALL: Recipe = Recipe {
    package: "small",
    source: Source::Written(write_small),
    make: &[],
    compilers: &[("CC", "gcc")],
};

/// A hundred-odd units of C, three seconds the longest.
pub(crate) const REDIS: Recipe = Recipe {
    package: "redis",
    source: Source::Debian,
    make: &["-C", "src", "MALLOC=libc"],
    compilers: &[("CC", "gcc")],
};

/// Five hundred units of C, of which a sixth of the work is preprocessing.
pub(crate) const GIT: Recipe = Recipe {
    package: "git",
    source: Source::Debian,
    make: &[
        "NO_CURL=1",
        "NO_OPENSSL=1",
        "NO_EXPAT=1",
        "NO_GETTEXT=1",
        "NO_TCLTK=1",
        "NO_PERL=1",
        "NO_PYTHON=1",
    ],
    compilers: &[("CC", "gcc")],
};

/// Seventy units of C++, 19 s the longest, with little preprocessing.
pub(crate) const CPPCHECK: Recipe = Recipe {
    package: "cppcheck",
    source: Source::Debian,
    make: &[],
    compilers: &[("CXX", "g++")],
};

/// Where the objects are and what is in them.
pub(crate) type Objects = BTreeMap<PathBuf, [u8; 32]>;

/// An unpacked tree that is never built in, and a place where fresh copies of it are: always the same, for objects name it.
pub(crate) struct Tree {
    recipe: Recipe,
    pristine: PathBuf,
    pub(crate) at: PathBuf,
}

impl Tree {
    /// Fetches the source if it is not there yet. Needs the network.
    pub(crate) fn fetch(recipe: Recipe) -> Result<(), String> {
        let dir = sources().join(recipe.package);
        if let Source::Written(write) = recipe.source {
            return write(&dir.join("tree"))
                .map_err(|error| format!("cannot write {}: {error}", dir.display()));
        }
        if dir.join("done").exists() {
            return Ok(());
        }
        println!(
            "fetching the source of {} from Debian's archive",
            recipe.package
        );
        let script = r#"
            set -e
            rm -rf "$1" && mkdir -p "$1/lists" "$1/cache/archives/partial" "$1/tree" && cd "$1"
            for f in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list.d/ubuntu.sources; do
                if [ -f $f ]; then sed 's/^Types:.*/Types: deb-src/' $f >own.sources; fi
            done
            if [ ! -f own.sources ]; then sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >own.list; fi
            set -- "$2" -o APT::Sandbox::User=root -o Dir::Etc::sourcelist="$PWD/$(ls own.*)" -o Dir::Etc::sourceparts=- \
                -o Dir::State::Lists="$PWD/lists" -o Dir::Cache="$PWD/cache"
            package=$1; shift
            apt-get -qq "$@" update
            apt-get -qq "$@" source --download-only "$package"
            tar -x -f "$package"_*.orig.tar.* -C tree --strip-components 1
            touch done"#;
        let fetched = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&dir)
            .arg(recipe.package)
            .stdout(Stdio::null())
            .status();
        match fetched {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!(
                "cannot fetch the source package {} with apt-get: {other:?}",
                recipe.package
            )),
        }
    }

    pub(crate) fn new(recipe: Recipe, at: PathBuf) -> Self {
        Self {
            recipe,
            pristine: sources().join(recipe.package).join("tree"),
            at,
        }
    }

    /// Replaces what was built by a fresh copy.
    pub(crate) fn renew(&self) {
        drop(fs::remove_dir_all(&self.at));
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&self.pristine)
            .arg(&self.at)
            .status();
        assert!(
            copied.as_ref().is_ok_and(std::process::ExitStatus::success),
            "cp: {copied:?}"
        );
    }

    /// A shell command that leaves a stamp when it begins, so that waiting for workers is not counted.
    pub(crate) fn build(&self, jobs: &str) -> [String; 3] {
        let stamp = self.stamp().display().to_string();
        let make = self.recipe.make.join(" ");
        // Redis writes the date of its build into a source, and the state of the git tree around it.
        let env = format!(
            "SOURCE_DATE_EPOCH=1 GIT_CEILING_DIRECTORIES={}",
            self.at.display()
        );
        let script = format!("touch {stamp} && {env} exec make {jobs} {make}");
        ["sh".to_owned(), "-c".to_owned(), script]
    }

    /// Arguments of make that put a word before its compilers.
    pub(crate) fn compilers(&self, before: &str) -> String {
        let compilers = self.recipe.compilers.iter();
        let named: Vec<_> = compilers
            .map(|(variable, compiler)| format!("{variable}='{before}{compiler}'"))
            .collect();
        named.join(" ")
    }

    pub(crate) fn stamp(&self) -> PathBuf {
        self.at.with_extension("begun")
    }

    pub(crate) fn objects(&self) -> Objects {
        let mut objects = Objects::new();
        for path in self.paths() {
            let Ok(bytes) = fs::read(&path) else { continue };
            let name = path.strip_prefix(&self.at).unwrap_or(&path).to_owned();
            objects.insert(name, Sha256::digest(bytes).into());
        }
        objects
    }

    /// How long after the build's begin each object was written, in seconds, in order.
    pub(crate) fn ages(&self) -> Vec<f64> {
        let written = |path: &Path| fs::metadata(path)?.modified();
        let Ok(begun) = written(&self.stamp()) else {
            return Vec::new();
        };
        let age = |path: PathBuf| written(&path).ok()?.duration_since(begun).ok();
        let mut ages: Vec<_> = self
            .paths()
            .into_iter()
            .filter_map(age)
            .map(|age| age.as_secs_f64())
            .collect();
        ages.sort_by(f64::total_cmp);
        ages
    }

    pub(crate) fn count(&self) -> usize {
        self.paths().len()
    }

    fn paths(&self) -> Vec<PathBuf> {
        let mut objects = Vec::new();
        drop(find_objects(&self.at, &mut objects));
        objects
    }
}

fn write_small(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut objects = String::new();
    for n in 0..24 {
        let body =
            "for (i = 0; i < 64; i++) s += snprintf(line, sizeof line, \"%d\", i * s);\n".repeat(8);
        let source = format!(
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
             int f{n}(int s) {{ char line[64]; int i;\n{body}return s; }}\n"
        );
        fs::write(dir.join(format!("f{n}.c")), source)?;
        objects.push_str(&format!(" f{n}.o"));
    }
    fs::write(
        dir.join("main.c"),
        "int f0(int); int main(void) { return f0(1) & 0; }\n",
    )?;
    let makefile = format!("CFLAGS = -O2\nsmall: main.o{objects}\n\t$(CC) -o $@ $^\n");
    fs::write(dir.join("Makefile"), makefile)
}

fn find_objects(dir: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find_objects(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "o") {
            into.push(path);
        }
    }
    Ok(())
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("sources")
}
