//! Whether one of a worker's compilers may stand in for one of ours, and if none may, why and what would help.

use super::{
    CompilerIdentity,
    name::{CompilerName, Language, file_name},
};

/// Whether a worker gets jobs for a compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Admitted {
        /// The compiler on the worker that is the same.
        worker_path: String,
    },
    /// It does not.
    Refused {
        /// What differs and how to cure it, for a person.
        reason: String,
    },
}

/// Looks for our compiler among those that a worker offers: by preference at the same path, then by the same file name,
/// then anywhere. A C driver is never served by a C++ driver, nor the other way round.
pub fn admit(ours: &CompilerIdentity, offered: &[CompilerIdentity]) -> Verdict {
    let same = offered
        .iter()
        .filter(|theirs| is_same(ours, theirs))
        // The first of equals, so that the choice does not wander between offers.
        .min_by_key(|theirs| {
            let by_name = file_name(&theirs.path) != file_name(&ours.path);
            (theirs.path != ours.path, by_name)
        });
    match same {
        Some(theirs) => Verdict::Admitted {
            worker_path: theirs.path.clone(),
        },
        None => Verdict::Refused {
            reason: refusal(ours, offered),
        },
    }
}

fn is_same(ours: &CompilerIdentity, theirs: &CompilerIdentity) -> bool {
    !languages_conflict(ours, theirs)
        && ours.version == theirs.version
        && ours.target == theirs.target
        && ours.fingerprint == theirs.fingerprint
}

/// The fingerprint tells the languages apart already; the names are the second lock on that door.
fn languages_conflict(ours: &CompilerIdentity, theirs: &CompilerIdentity) -> bool {
    matches!((language(ours), language(theirs)), (Some(ours), Some(theirs)) if ours != theirs)
}

fn language(compiler: &CompilerIdentity) -> Option<Language> {
    Some(CompilerName::of_path(&compiler.path)?.driver.language())
}

fn refusal(ours: &CompilerIdentity, offered: &[CompilerIdentity]) -> String {
    let kind = Kind::of(ours);
    let nearest = offered
        .iter()
        .filter(|theirs| Kind::of(theirs) == kind && !languages_conflict(ours, theirs))
        .min_by_key(|theirs| {
            (
                theirs.target != ours.target,
                theirs.version != ours.version,
                release(theirs) != release(ours),
                theirs.path != ours.path,
                file_name(&theirs.path) != file_name(&ours.path),
            )
        });
    match nearest {
        None => missing(ours),
        Some(theirs) if theirs.target != ours.target => other_target(ours, theirs),
        Some(theirs) if release(theirs) != release(ours) => other_release(ours, theirs),
        Some(theirs) if theirs.version != ours.version => other_build(ours, theirs),
        Some(theirs) => other_defaults(ours, theirs),
    }
}

fn missing(ours: &CompilerIdentity) -> String {
    let wanted = versioned_name(ours);
    format!("no {wanted} on the worker: install it there")
}

fn other_target(ours: &CompilerIdentity, theirs: &CompilerIdentity) -> String {
    format!(
        "worker's {} at {} compiles for {}, this machine's for {}: use workers of the same architecture and system, or \
         install a {} for {} there",
        printable(generic_name(theirs)),
        printable(&theirs.path),
        printable(&theirs.target),
        printable(&ours.target),
        versioned_name(ours),
        printable(&ours.target),
    )
}

fn other_release(ours: &CompilerIdentity, theirs: &CompilerIdentity) -> String {
    format!(
        "worker has {} {} at {}, this machine {}: install {} there, or build with {}={}",
        generic_name(ours),
        printable(release(theirs)),
        printable(&theirs.path),
        printable(release(ours)),
        versioned_name(ours),
        variable(ours),
        versioned(ours, theirs),
    )
}

fn other_build(ours: &CompilerIdentity, theirs: &CompilerIdentity) -> String {
    format!(
        "worker has \"{}\" at {}, this machine \"{}\": the same release built or patched by somebody else; use the same \
         system release or image on both",
        printable(&theirs.version),
        printable(&theirs.path),
        printable(&ours.version),
    )
}

fn other_defaults(ours: &CompilerIdentity, theirs: &CompilerIdentity) -> String {
    let show = match Kind::of(ours) {
        Kind::Gcc => "-v, -dumpspecs and",
        Kind::Clang => "-v and",
    };
    format!(
        "worker's {} {} at {} has other default flags, specs or build options than this machine's {}: compare {show} \
         `-### -c t.c` of both, and use the same system release or image",
        generic_name(ours),
        printable(release(theirs)),
        printable(&theirs.path),
        printable(&ours.path),
    )
}

/// Which project a compiler is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gcc,
    Clang,
}

impl Kind {
    fn of(compiler: &CompilerIdentity) -> Self {
        if compiler.version.contains("clang") {
            Self::Clang
        } else {
            Self::Gcc
        }
    }
}

/// `12.2.0` of `gcc (Debian 12.2.0-14) 12.2.0`, `14.0.6` of `Debian clang version 14.0.6`: the first number outside
/// parentheses. The whole text when there is none.
fn release(compiler: &CompilerIdentity) -> &str {
    let mut depth = 0_usize;
    for word in compiler.version.split_whitespace() {
        if depth == 0 && word.starts_with(|first: char| first.is_ascii_digit()) {
            // Ubuntu's clang says `14.0.0-1ubuntu1.1`; the release is what stands before the dash.
            return word.split('-').next().unwrap_or(word);
        }
        let opened = depth + word.matches('(').count();
        depth = opened.saturating_sub(word.matches(')').count());
    }
    &compiler.version
}

/// `gcc`, `g++`, `clang` or `clang++`, whatever the file is called.
fn generic_name(compiler: &CompilerIdentity) -> &'static str {
    let cxx = language(compiler) == Some(Language::Cxx) || compiler.version.starts_with("g++");
    match (Kind::of(compiler), cxx) {
        (Kind::Gcc, false) => "gcc",
        (Kind::Gcc, true) => "g++",
        (Kind::Clang, false) => "clang",
        (Kind::Clang, true) => "clang++",
    }
}

/// The variable by which a build is told its compiler.
fn variable(compiler: &CompilerIdentity) -> &'static str {
    if generic_name(compiler).ends_with("++") {
        "CXX"
    } else {
        "CC"
    }
}

fn versioned_name(compiler: &CompilerIdentity) -> String {
    versioned(compiler, compiler)
}

/// The name under which distributions install `wanted`'s major version of `named`: `aarch64-linux-gnu-gcc-12`.
fn versioned(named: &CompilerIdentity, wanted: &CompilerIdentity) -> String {
    let prefix = CompilerName::of_path(&named.path).and_then(|name| name.prefix);
    let release = printable(release(wanted));
    let major = release.split('.').next().unwrap_or(&release);
    let name = generic_name(named);
    match prefix {
        Some(prefix) => format!("{}-{name}-{major}", printable(prefix)),
        None => format!("{name}-{major}"),
    }
}

/// A worker's text as it may be shown: one line, no control characters, no flood.
fn printable(text: &str) -> String {
    const LONGEST: usize = 120;
    text.chars()
        .take(LONGEST)
        .map(|char| if char.is_control() { '?' } else { char })
        .collect()
}
