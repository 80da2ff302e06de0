//! Whether one of a worker's compilers may stand in for one of ours, and if none may, why and what would help.

use super::{
    CompilerIdentity,
    name::{CompilerName, Language, file_name},
    output::Kind,
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

/// The same for a target that the build names: `able` are the worker's compilers as they are for it, `all` as they are by
/// default.
pub fn admit_for_target(
    ours: &CompilerIdentity,
    able: &[CompilerIdentity],
    all: &[CompilerIdentity],
) -> Verdict {
    let verdict = admit(ours, able);
    let unable = all.iter().find(|theirs| {
        theirs.version == ours.version
            && !languages_conflict(ours, theirs)
            && able.iter().all(|able| able.path != theirs.path)
    });
    match (verdict, unable) {
        (Verdict::Refused { .. }, Some(theirs)) => Verdict::Refused {
            reason: unable_to(ours, theirs),
        },
        (verdict, _) => verdict,
    }
}

fn is_same(ours: &CompilerIdentity, theirs: &CompilerIdentity) -> bool {
    !languages_conflict(ours, theirs)
        && ours.version == theirs.version
        && ours.target == theirs.target
        && ours.fingerprint == theirs.fingerprint
        && ours.canary == theirs.canary
}

/// The fingerprint tells the languages apart already; the names are the second lock on that door.
fn languages_conflict(ours: &CompilerIdentity, theirs: &CompilerIdentity) -> bool {
    matches!((language(ours), language(theirs)), (Some(ours), Some(theirs)) if ours != theirs)
}

fn language(compiler: &CompilerIdentity) -> Option<Language> {
    Some(CompilerName::of_path(&compiler.path)?.driver.language())
}

fn refusal(ours: &CompilerIdentity, offered: &[CompilerIdentity]) -> String {
    let wanted = kind(ours);
    let nearest = offered
        .iter()
        .filter(|theirs| kind(theirs) == wanted && !languages_conflict(ours, theirs))
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
        Some(theirs) if theirs.target != ours.target && prefix(ours).is_some() => missing(ours),
        Some(theirs) if theirs.target != ours.target => other_target(ours, theirs),
        Some(theirs) if release(theirs) != release(ours) => other_release(ours, theirs),
        Some(theirs) if theirs.version != ours.version => other_build(ours, theirs),
        Some(theirs) if theirs.fingerprint == ours.fingerprint => other_object(ours, theirs),
        Some(theirs) => other_defaults(ours, theirs),
    }
}

fn missing(ours: &CompilerIdentity) -> String {
    let wanted = versioned_name(ours);
    format!("no {wanted} on the worker: install it there")
}

fn other_target(ours: &CompilerIdentity, theirs: &CompilerIdentity) -> String {
    let or_name_it = match kind(ours) {
        Kind::Gcc => String::new(),
        Kind::Clang => format!(", or build with --target={}", printable(&ours.target)),
    };
    format!(
        "worker's {} at {} compiles for {}, this machine's for {}: use workers of the same architecture and system{or_name_it}",
        generic_name(theirs),
        printable(&theirs.path),
        printable(&theirs.target),
        printable(&ours.target),
    )
}

fn unable_to(ours: &CompilerIdentity, theirs: &CompilerIdentity) -> String {
    format!(
        "worker's {} {} at {} does not compile for {}: install one there that was built with this target",
        generic_name(theirs),
        printable(release(theirs)),
        printable(&theirs.path),
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
    let show = match kind(ours) {
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

fn other_object(ours: &CompilerIdentity, theirs: &CompilerIdentity) -> String {
    format!(
        "worker's {} {} at {} makes another object of the same source than this machine's {}: another assembler, or a \
         damaged installation; use the same system release or image, with all its updates",
        generic_name(ours),
        printable(release(theirs)),
        printable(&theirs.path),
        printable(&ours.path),
    )
}

fn kind(compiler: &CompilerIdentity) -> Kind {
    Kind::of_version_line(&compiler.version)
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
    match (kind(compiler), cxx) {
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
    let release = printable(release(wanted));
    let major = release.split('.').next().unwrap_or(&release);
    let name = generic_name(named);
    match prefix(named) {
        Some(prefix) => format!("{}-{name}-{major}", printable(prefix)),
        None => format!("{name}-{major}"),
    }
}

/// The target's triple, when the file's name starts with one.
fn prefix(compiler: &CompilerIdentity) -> Option<&str> {
    CompilerName::of_path(&compiler.path)?.prefix
}

/// A worker's text as it may be shown: one line, no control characters, no flood.
fn printable(text: &str) -> String {
    const LONGEST: usize = 120;
    text.chars()
        .take(LONGEST)
        .map(|char| if char.is_control() { '?' } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GCC_12: &str = "gcc (Debian 12.2.0-14) 12.2.0";

    fn compiler(path: &str, version: &str) -> CompilerIdentity {
        CompilerIdentity {
            path: path.into(),
            version: version.into(),
            target: "x86_64-linux-gnu".into(),
            fingerprint: format!("fingerprint of {version}"),
            canary: format!("object of {version}"),
        }
    }

    fn admitted(ours: &CompilerIdentity, offered: &[CompilerIdentity]) -> Option<String> {
        match admit(ours, offered) {
            Verdict::Admitted { worker_path } => Some(worker_path),
            Verdict::Refused { .. } => None,
        }
    }

    fn refused(ours: &CompilerIdentity, offered: &[CompilerIdentity]) -> String {
        match admit(ours, offered) {
            Verdict::Admitted { worker_path } => panic!("{worker_path} was admitted"),
            Verdict::Refused { reason } => reason,
        }
    }

    #[test]
    fn the_same_path_is_preferred_then_the_same_name_then_any() {
        let ours = compiler("/usr/bin/gcc", GCC_12);
        let any = compiler("/usr/bin/cc", GCC_12);
        let name = compiler("/opt/bin/gcc", GCC_12);
        let path = compiler("/usr/bin/gcc", GCC_12);
        assert_eq!(
            admitted(&ours, &[any.clone(), name.clone(), path]).as_deref(),
            Some("/usr/bin/gcc")
        );
        assert_eq!(
            admitted(&ours, &[any.clone(), name]).as_deref(),
            Some("/opt/bin/gcc")
        );
        assert_eq!(admitted(&ours, &[any]).as_deref(), Some("/usr/bin/cc"));
    }

    #[test]
    fn the_same_path_does_not_excuse_a_difference() {
        let ours = compiler("/usr/bin/gcc", GCC_12);
        let other = compiler("/usr/bin/gcc", "gcc (GCC) 13.2.0");
        let same = compiler("/usr/bin/gcc-12", GCC_12);
        assert_eq!(
            admitted(&ours, &[other, same]).as_deref(),
            Some("/usr/bin/gcc-12")
        );
    }

    #[test]
    fn a_c_driver_is_never_served_by_a_cxx_driver() {
        let gcc = compiler("/usr/bin/gcc", GCC_12);
        let gxx = compiler("/usr/bin/g++", GCC_12);
        assert_eq!(admitted(&gcc, std::slice::from_ref(&gxx)), None);
        assert_eq!(admitted(&gxx, std::slice::from_ref(&gcc)), None);
        assert_eq!(
            refused(&gxx, &[gcc]),
            "no g++-12 on the worker: install it there"
        );
    }

    #[test]
    fn another_version_is_refused_with_both_versions_and_two_cures() {
        let ours = compiler("/usr/bin/gcc", GCC_12);
        let theirs = compiler("/usr/bin/gcc", "gcc (Ubuntu 13.2.0-23ubuntu4) 13.2.0");
        assert_eq!(
            refused(&ours, &[theirs]),
            "worker has gcc 13.2.0 at /usr/bin/gcc, this machine 12.2.0: install gcc-12 there, or build with CC=gcc-13"
        );
        let ours = compiler("/usr/bin/clang++", "Debian clang version 14.0.6");
        let theirs = compiler(
            "/usr/bin/clang++-16",
            "Ubuntu clang version 16.0.6 (23ubuntu4)",
        );
        assert_eq!(
            refused(&ours, &[theirs]),
            "worker has clang++ 16.0.6 at /usr/bin/clang++-16, this machine 14.0.6: install clang++-14 there, or build with \
             CXX=clang++-16"
        );
    }

    #[test]
    fn a_missing_compiler_is_named_by_what_to_install() {
        let gcc = compiler("/usr/bin/gcc", GCC_12);
        let clang = compiler("/usr/bin/clang-14", "Debian clang version 14.0.6");
        assert_eq!(
            refused(&clang, &[]),
            "no clang-14 on the worker: install it there"
        );
        assert_eq!(
            refused(&clang, std::slice::from_ref(&gcc)),
            "no clang-14 on the worker: install it there"
        );
        let mut cross = compiler("/usr/bin/aarch64-linux-gnu-gcc", GCC_12);
        cross.target = "aarch64-linux-gnu".into();
        assert_eq!(
            refused(&cross, &[gcc]),
            "no aarch64-linux-gnu-gcc-12 on the worker: install it there"
        );
    }

    #[test]
    fn another_target_is_refused_although_all_else_is_equal() {
        let ours = compiler("/usr/bin/cc", GCC_12);
        let mut theirs = compiler("/usr/bin/cc", GCC_12);
        theirs.target = "aarch64-linux-gnu".into();
        assert_eq!(
            refused(&ours, &[theirs]),
            "worker's gcc at /usr/bin/cc compiles for aarch64-linux-gnu, this machine's for x86_64-linux-gnu: use workers \
             of the same architecture and system"
        );
    }

    #[test]
    fn a_clang_of_another_host_is_refused_until_the_build_names_the_target() {
        let mut ours = compiler("/usr/bin/clang", "clang version 19.1.0");
        ours.target = "arm64-apple-darwin24".into();
        let theirs = compiler("/usr/bin/clang", "clang version 19.1.0");
        assert!(refused(&ours, std::slice::from_ref(&theirs)).ends_with(
            "same architecture and system, or build with --target=arm64-apple-darwin24"
        ));
        let [ours, able] = [ours, theirs.clone()].map(|mut one| {
            one.target = "aarch64-unknown-linux-gnu".into();
            one
        });
        let all = [theirs];
        assert!(matches!(
            admit_for_target(&ours, &[able], &all),
            Verdict::Admitted { .. }
        ));
        let Verdict::Refused { reason } = admit_for_target(&ours, &[], &all) else {
            panic!("it cannot compile for the target");
        };
        assert_eq!(
            reason,
            "worker's clang 19.1.0 at /usr/bin/clang does not compile for aarch64-unknown-linux-gnu: install one there that was \
             built with this target"
        );
    }

    #[test]
    fn another_build_of_the_same_release_is_refused() {
        let ours = compiler("/usr/bin/gcc", GCC_12);
        let theirs = compiler("/usr/bin/gcc", "gcc (GCC) 12.2.0");
        let reason = refused(&ours, &[theirs]);
        assert!(
            reason.contains("\"gcc (GCC) 12.2.0\" at /usr/bin/gcc"),
            "{reason}"
        );
        assert!(reason.contains("same system release"), "{reason}");
    }

    #[test]
    fn other_default_flags_are_refused() {
        let ours = compiler("/usr/bin/gcc", GCC_12);
        let mut theirs = compiler("/usr/local/bin/gcc", GCC_12);
        theirs.fingerprint = "other".into();
        let reason = refused(&ours, &[theirs]);
        assert!(
            reason.starts_with("worker's gcc 12.2.0 at /usr/local/bin/gcc has other default flags"),
            "{reason}"
        );
    }

    #[test]
    fn the_nearest_candidate_is_the_one_that_is_named() {
        let ours = compiler("/usr/bin/gcc", GCC_12);
        let far = compiler("/usr/bin/gcc", "gcc (GCC) 13.2.0");
        let mut near = compiler("/opt/bin/gcc-12", GCC_12);
        near.fingerprint = "other".into();
        assert!(refused(&ours, &[far, near]).contains("/opt/bin/gcc-12"));
    }

    #[test]
    fn a_workers_text_cannot_flood_or_steer_the_terminal() {
        let ours = compiler("/usr/bin/gcc", GCC_12);
        let mut theirs = compiler(
            "/usr/bin/gcc",
            &format!("gcc (x) 9\u{1b}[2J{}", "9".repeat(100_000)),
        );
        theirs.path = format!("/{}\n", "a\u{7}".repeat(100_000));
        let reason = refused(&ours, &[theirs]);
        assert!(
            reason.len() < 1000 && !reason.contains(char::is_control),
            "{reason}"
        );
    }

    #[test]
    fn the_release_is_read_from_what_compilers_really_say() {
        for (version, expected) in [
            ("gcc (Debian 12.2.0-14+deb12u1) 12.2.0", "12.2.0"),
            ("gcc (GCC) 13.2.1 20231011 (Red Hat 13.2.1-4)", "13.2.1"),
            ("gcc (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0", "11.4.0"),
            ("gcc (SUSE Linux (x) 1) 7.5.0", "7.5.0"),
            ("Ubuntu clang version 14.0.0-1ubuntu1.1", "14.0.0"),
            (
                "clang version 17.0.6 (https://github.com/llvm/llvm-project.git 6009708)",
                "17.0.6",
            ),
            ("Apple clang version 15.0.0 (clang-1500.3.9.4)", "15.0.0"),
            ("of no number", "of no number"),
        ] {
            assert_eq!(release(&compiler("/usr/bin/cc", version)), expected);
        }
    }

    #[test]
    fn the_same_compiler_with_another_object_is_refused_with_the_cure() {
        let ours = compiler("/usr/bin/gcc", GCC_12);
        let mut theirs = ours.clone();
        theirs.canary = "another".into();
        let reason = refused(&ours, &[theirs]);
        assert!(
            reason.contains("another object") && reason.contains("updates"),
            "{reason}"
        );
    }
}
