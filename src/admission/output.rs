//! What compilers print, reduced to what decides the objects they make.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::name::{Language, file_name};

/// Which project a compiler is of; the two answer different questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gcc,
    Clang,
}

impl Kind {
    /// By the full `--version` text; `None` for compilers that distcc does not know either.
    pub(super) fn of_version_text(text: &str) -> Option<Self> {
        if text.contains("clang version") {
            Some(Self::Clang)
        } else if text.contains("Free Software Foundation") {
            Some(Self::Gcc)
        } else {
            None
        }
    }

    /// By the first line alone, which is all that an identity keeps of it.
    pub(super) fn of_version_line(line: &str) -> Self {
        if line.contains("clang version") {
            Self::Clang
        } else {
            Self::Gcc
        }
    }
}

/// What one compiler printed.
#[derive(Clone, Debug, Default)]
pub(super) struct Output {
    /// `--version`.
    pub(super) version: String,
    /// `-dumpmachine`.
    pub(super) target: String,
    /// `-v`.
    pub(super) configuration: String,
    /// `-dumpspecs`; empty for clang, which has none.
    pub(super) specs: String,
    /// `-###` of a C file: the commands that it would run.
    pub(super) commands: String,
}

impl Output {
    /// The version's first line for a person, the same whatever name the compiler was called by.
    pub(super) fn version_line(&self, kind: Kind) -> String {
        let text = self.version_text(kind);
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// The default target.
    pub(super) fn target(&self) -> &str {
        self.target.trim()
    }

    /// SHA-256 (hex) of all that decides the objects.
    pub(super) fn fingerprint(&self, kind: Kind) -> String {
        let mut hash = Sha256::new();
        for part in [
            self.version_text(kind).as_str(),
            self.target(),
            self.configured_with(),
            &self.specs,
            &canonical_commands(&self.commands),
        ] {
            // The length keeps two parts from being read as one.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The programs that work on a C file, as the driver names them: itself, if it tells, and those that it runs.
    pub(super) fn programs(&self) -> Vec<String> {
        let driver = self.configuration.lines();
        let driver = driver.filter_map(|line| line.strip_prefix("COLLECT_GCC="));
        let run = command_lines(&self.commands).filter_map(|line| words(line).into_iter().next());
        driver.map(str::to_owned).chain(run).collect()
    }

    /// The files that clang has read beside its arguments.
    pub(super) fn configuration_files(&self) -> impl Iterator<Item = PathBuf> {
        let lines = self.configuration.lines().chain(self.version.lines());
        let files = lines.filter_map(|line| line.strip_prefix("Configuration file: "));
        files.map(PathBuf::from)
    }

    /// gcc begins its version with the name it was called by (`cc (Debian 12.2.0-14) 12.2.0`): the driver's own name takes
    /// its place. clang says where it and its
    /// configuration lie; what that sets shows in the commands.
    fn version_text(&self, kind: Kind) -> String {
        match kind {
            Kind::Gcc => {
                let driver = match self.language() {
                    Language::C => "gcc",
                    Language::Cxx => "g++",
                };
                match self.version.split_once(' ') {
                    Some((_, rest)) => format!("{driver} {rest}"),
                    None => self.version.clone(),
                }
            }
            Kind::Clang => self
                .version
                .lines()
                .filter(|line| {
                    !line.starts_with("InstalledDir:") && !line.starts_with("Configuration file:")
                })
                .map(|line| format!("{line}\n"))
                .collect(),
        }
    }

    /// How gcc was built; clang shows its build's defaults in the commands.
    fn configured_with(&self) -> &str {
        self.configuration
            .lines()
            .find(|line| line.starts_with("Configured with:"))
            .unwrap_or_default()
    }

    /// What the driver took a C file for.
    fn language(&self) -> Language {
        let plus = command_lines(&self.commands).any(|line| {
            words(line)
                .first()
                .is_some_and(|word| file_name(word) == "cc1plus")
        });
        if plus { Language::Cxx } else { Language::C }
    }
}

/// The commands of `-###` without what depends on the installation: where programs lie, where headers are looked for, the
/// directory that it was asked in.
fn canonical_commands(text: &str) -> String {
    command_lines(text)
        .map(|line| canonical_command(&words(line)) + "\n")
        .collect()
}

/// Commands are indented by one blank; all else that `-###` prints starts at the margin, but for clang's `(in-process)`.
fn command_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| line.starts_with(' ') && !line.trim_start().starts_with('('))
}

fn canonical_command(words: &[String]) -> String {
    let mut kept = Vec::new();
    let mut rest = words.iter();
    let for_apple = words.iter().any(|word| word.contains("-apple-"));
    while let Some(word) = rest.next() {
        // The linker of the host that clang was built on: macOS has one, Linux does not, and no other target asks for it.
        let hosts_linker = word == "-target-linker-version" && !for_apple;
        if hosts_linker || is_place(word) {
            rest.next();
        } else if !is_joined_place(word) {
            kept.push(without_directory(word));
        }
    }
    // clang's own file is called `clang` or `clang-14` for the same program.
    if kept.get(1).is_some_and(|word| word == "-cc1") {
        kept.remove(0);
    }
    kept.join("\u{1f}")
}

/// Options whose next word is a place. Headers have been included when a job travels, so their places decide nothing.
fn is_place(word: &str) -> bool {
    const PLACES: [&str; 12] = [
        "-resource-dir",
        "-isysroot",
        "-isystem",
        "-idirafter",
        "-iquote",
        "-internal-isystem",
        "-internal-externc-isystem",
        "-internal-iframework",
        "-imultilib",
        "-iprefix",
        "-fdebug-compilation-dir",
        "-fcoverage-compilation-dir",
    ];
    PLACES.contains(&word)
}

fn is_joined_place(word: &str) -> bool {
    const PLACES: [&str; 3] = [
        "-fdebug-compilation-dir=",
        "-fcoverage-compilation-dir=",
        "-I/",
    ];
    PLACES.iter().any(|option| word.starts_with(option))
}

/// `/usr/lib/gcc/x86_64-linux-gnu/12/cc1` becomes `cc1`, `-fplugin=/a/b.so` becomes `-fplugin=b.so`.
fn without_directory(word: &str) -> String {
    let (option, value) = match word.split_once('=') {
        Some((option, value)) => (&word[..=option.len()], value),
        None => ("", word),
    };
    if value.starts_with('/') {
        format!("{option}{}", file_name(value))
    } else {
        word.to_owned()
    }
}

/// Splits a command as a shell would, as far as gcc and clang quote: double quotes and backslashes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            blank if blank.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const GCC_COMMANDS: &str = concat!(
        "Using built-in specs.\nCOLLECT_GCC=/usr/bin/cc\n",
        " /usr/lib/gcc/x86_64-linux-gnu/12/cc1 -quiet -imultiarch x86_64-linux-gnu t.c -quiet -dumpbase t.c -dumpbase-ext .c ",
        "\"-mtune=generic\" \"-march=x86-64\" -fasynchronous-unwind-tables -o - |\n as --64 -o t.o\n",
        "COMPILER_PATH=/usr/lib/gcc/x86_64-linux-gnu/12/:/usr/lib/gcc/\n",
    );

    const CLANG_COMMANDS: &str = concat!(
        "Debian clang version 14.0.6\nInstalledDir: /usr/bin\n (in-process)\n",
        " \"/usr/lib/llvm-14/bin/clang\" \"-cc1\" \"-triple\" \"x86_64-pc-linux-gnu\" \"-target-cpu\" \"x86-64\" ",
        "\"-fcoverage-compilation-dir=/tmp/a\" \"-resource-dir\" \"/usr/lib/llvm-14/lib/clang/14.0.6\" ",
        "\"-internal-isystem\" \"/usr/local/include\" \"-fdebug-compilation-dir=/tmp/a\" \"-o\" \"t.o\" \"-x\" \"c\" \"t.c\"\n",
    );

    fn gcc(name: &str) -> Output {
        Output {
            version: format!(
                "{name} (Debian 12.2.0-14) 12.2.0\nCopyright (C) 2022 Free Software Foundation, Inc.\n"
            ),
            target: "x86_64-linux-gnu\n".into(),
            configuration: format!(
                "COLLECT_GCC=/usr/bin/{name}\nConfigured with: ../configure --prefix=/usr\n"
            ),
            specs: "*asm:\n%{m16|m32:--32}\n".into(),
            commands: GCC_COMMANDS.replace("/usr/bin/cc", name),
        }
    }

    #[test]
    fn the_name_that_gcc_was_called_by_does_not_enter() {
        let (cc, prefixed) = (gcc("cc"), gcc("x86_64-linux-gnu-gcc-12"));
        assert_eq!(cc.version_line(Kind::Gcc), "gcc (Debian 12.2.0-14) 12.2.0");
        assert_eq!(cc.version_line(Kind::Gcc), prefixed.version_line(Kind::Gcc));
        assert_eq!(cc.fingerprint(Kind::Gcc), prefixed.fingerprint(Kind::Gcc));
    }

    #[test]
    fn the_drivers_language_enters() {
        let c = gcc("gcc");
        let mut cxx = gcc("g++");
        cxx.commands = GCC_COMMANDS.replace("/cc1 ", "/cc1plus ");
        assert_eq!(cxx.version_line(Kind::Gcc), "g++ (Debian 12.2.0-14) 12.2.0");
        assert_ne!(c.fingerprint(Kind::Gcc), cxx.fingerprint(Kind::Gcc));
    }

    #[test]
    fn every_part_that_decides_the_objects_enters() {
        let plain = gcc("gcc").fingerprint(Kind::Gcc);
        let changes: [fn(&mut Output); 6] = [
            |gcc| gcc.version.push_str("patched\n"),
            |gcc| gcc.target = "i686-linux-gnu".into(),
            |gcc| gcc.configuration = "Configured with: --enable-default-pie".into(),
            |gcc| gcc.specs.push_str("*cc1:\n-O2\n"),
            |gcc| gcc.commands = gcc.commands.replace("x86-64\"", "x86-64-v3\""),
            |gcc| gcc.commands = gcc.commands.replace("as --64", "as --64 --noexecstack"),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut changed = gcc("gcc");
            change(&mut changed);
            assert_ne!(changed.fingerprint(Kind::Gcc), plain, "change {index}");
        }
    }

    #[test]
    fn where_clang_lies_and_was_asked_does_not_enter() {
        let elsewhere = CLANG_COMMANDS
            .replace("/usr/lib/llvm-14/bin/clang\"", "/opt/llvm/bin/clang-14\"")
            .replace("/usr/lib/llvm-14", "/opt/llvm")
            .replace("/tmp/a", "/var/tmp/b")
            .replace("\"-internal-isystem\" \"/usr/local/include\"", "");
        assert_ne!(elsewhere, CLANG_COMMANDS);
        assert_eq!(
            canonical_commands(&elsewhere),
            canonical_commands(CLANG_COMMANDS)
        );
        assert_eq!(
            canonical_commands(CLANG_COMMANDS)
                .split('\u{1f}')
                .collect::<Vec<_>>()
                .join(" "),
            "-cc1 -triple x86_64-pc-linux-gnu -target-cpu x86-64 -o t.o -x c t.c\n"
        );
    }

    #[test]
    fn the_linker_of_clangs_host_enters_only_where_it_matters() {
        let on_macos = |commands: &str| {
            commands.replace(
                "\"-target-cpu\"",
                "\"-target-linker-version\" \"820.1\" \"-target-cpu\"",
            )
        };
        let same = |commands: &str| {
            canonical_commands(&on_macos(commands)) == canonical_commands(commands)
        };
        assert!(same(CLANG_COMMANDS));
        assert!(!same(
            &CLANG_COMMANDS.replace("x86_64-pc-linux-gnu", "x86_64-apple-macosx11.0.0")
        ));
    }

    #[test]
    fn clangs_flags_and_language_enter() {
        for (from, to) in [("\"x86-64\"", "\"skylake\""), ("\"c\"", "\"c++\"")] {
            let changed = CLANG_COMMANDS.replace(from, to);
            assert_ne!(
                canonical_commands(&changed),
                canonical_commands(CLANG_COMMANDS),
                "{to}"
            );
        }
    }

    #[test]
    fn words_are_split_as_the_compilers_quote_them() {
        assert_eq!(
            words(r#" "/a b/c" -D\"x\" "" y\ z"#),
            ["/a b/c", "-D\"x\"", "", "y z"]
        );
        assert_eq!(words(r#" "open \"#), ["open "]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_reduced(line in "[ =/\"\\\\a\u{fffd}\u{0}-]*") {
            let output = Output { version: line.clone(), commands: format!(" {line}"), ..Output::default() };
            output.fingerprint(Kind::Gcc);
            output.fingerprint(Kind::Clang);
        }
    }
}
