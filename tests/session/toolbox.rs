//! Workers with compilers of their own: a PATH on which nothing compiles but what a test puts there.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Two directories: `bin` for compilers, and `tools` with links to everything in `/usr/bin` that is none.
pub struct Toolbox {
    dir: TempDir,
}

impl Toolbox {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Root's distccd drops to a user of its own, who has to reach the compilers.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let toolbox = Self { dir };
        for sub in ["bin", "tools"] {
            fs::create_dir(toolbox.at(sub)).unwrap();
        }
        for entry in fs::read_dir("/usr/bin").unwrap().flatten() {
            let name = entry.file_name();
            if !is_compiler(name.to_str().unwrap_or_default()) {
                symlink(entry.path(), toolbox.at("tools").join(name)).unwrap();
            }
        }
        toolbox
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The worker's PATH.
    pub fn path(&self) -> String {
        format!(
            "{}:{}",
            self.at("bin").display(),
            self.at("tools").display()
        )
    }

    /// A program in `bin`, put there whole.
    pub fn script(&self, name: &str, body: &str) -> PathBuf {
        let new = self.at("new");
        fs::write(&new, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        let path = self.at("bin").join(name);
        fs::rename(new, &path).unwrap();
        path
    }

    /// A compiler of this machine in `bin`, under whatever name.
    pub fn link(&self, real: &Path, name: &str) {
        symlink(real, self.at("bin").join(name)).unwrap();
    }
}

fn is_compiler(name: &str) -> bool {
    let stem = match name.rsplit_once('-') {
        Some((stem, version)) if version.starts_with(|first: char| first.is_ascii_digit()) => stem,
        _ => name,
    };
    let driver = stem.rsplit('-').next().unwrap_or_default();
    ["cc", "c++", "gcc", "g++", "clang", "clang++"].contains(&driver)
}

/// Sources whose objects tell flags and versions apart, and a Makefile.
pub struct Sources {
    dir: TempDir,
    count: u32,
}

impl Sources {
    pub fn new(count: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..count {
            let text = format!(
                "struct s{n} {{ int a; double b; }};\nextern int other(const char *, ...);\nstatic int square(int x) {{ return x * x; \
                 }}\nint f{n}(struct s{n} *s, int n) {{ int sum = {n}; while (n--) sum += square(n) / 3; s->b = sum; return \
                 other(\"%d\", sum); }}\n"
            );
            fs::write(dir.path().join(format!("f{n}.c")), text).unwrap();
        }
        let makefile = "all: $(patsubst %.c,%.o,$(wildcard f*.c))\n%.o: %.c\n\t$(BEFORE)\n\t$(CC) $(FLAGS) -c -o $@ $<\n";
        fs::write(dir.path().join("Makefile"), makefile).unwrap();
        Self { dir, count }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Fails unless every object is the local compile of the same preprocessed bytes, and removes them.
    #[track_caller]
    pub fn are_as_compiled_here(&self, compiler: &str, flags: &str) {
        for n in 0..self.count {
            let object = self.path().join(format!("f{n}.o"));
            let made = fs::read(&object).unwrap();
            fs::remove_file(&object).unwrap();
            let source = format!("f{n}.c");
            let local = Command::new(compiler)
                .arg("-no-integrated-cpp")
                .args(flags.split_whitespace())
                .args(["-c", "-o", "local", &source])
                .current_dir(self.path())
                .output()
                .unwrap();
            assert!(local.status.success(), "{local:?}");
            let local = fs::read(self.path().join("local")).unwrap();
            assert!(made == local, "{source} was compiled differently");
        }
    }
}
