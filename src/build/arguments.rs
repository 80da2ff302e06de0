//! Which compiler calls distcc may have, and in which words.

use std::path::Path;

use crate::distcc::TAKES_VALUE;

/// What a compiler call is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Linking, preprocessing, a question about the compiler.
    NotACompile,
    /// A compile that has to run here, and why.
    Local(String),
    /// A compile of this source that any machine can do.
    Distributable(String),
}

/// Their side files, or the processor or the files they ask about, are those of the machine that compiles: distcc 3.4 sends some
/// of them away regardless, and loses the file or compiles without it. `-fverbose-asm` writes temporary names into the assembly.
const LOCAL_EXACT: &[&str] = &[
    "-coverage",
    "--coverage",
    "-ftest-coverage",
    "-frepo",
    "-fstack-usage",
    "-fverbose-asm",
    "-fdiagnostics-format=json-file",
    "-fdiagnostics-format=sarif-file",
    "-aux-info",
    "-include-pch",
    "-wrapper",
    // clang names its output by them, and distcc does not.
    "-emit-llvm",
    "-emit-ast",
    // Whatever it has for the assembler, as `-Wa,`.
    "-Xassembler",
    // Admission has not seen the assembler that clang would call, nor the file.
    "-fno-integrated-as",
    "-no-integrated-as",
    "--config",
];
const LOCAL_PREFIX: &[&str] = &[
    // Also as `native+dotprod`.
    "-march=native",
    "-mtune=native",
    "-mcpu=native",
    "-flto",
    // The preprocessor converts, and would again at the worker.
    "-finput-charset",
    "-gsplit-dwarf",
    "-save-temps",
    "--save-temps",
    "-save-stats",
    "--save-stats",
    "-fdump-",
    "-ftime-trace",
    "-fmodules",
    "-fmodule-",
    "-fprebuilt-",
    "-fprofile-",
    "-specs=",
    "--specs=",
    "-Wa,-a",
    "-Wa,--MD",
    "-fcallgraph-info",
    "-fsave-optimization-record",
    "-foptimization-record-file",
    "-fopt-info",
    "-fproc-stat-report",
    "-fdiagnostics-add-output",
    "-fdiagnostics-set-output",
    "-fplugin",
    "-fpass-plugin",
    "-fsanitize-blacklist",
    "-fsanitize-ignorelist",
    "-fauto-profile",
    "-time=",
    "--config=",
    "-B",
    "@",
];
/// What clang's compiler proper reads or writes beside the source when `-Xclang` passes it on.
const LOCAL_INSIDE_CLANG: &[&str] = &[
    "-include-pch",
    "-emit-pch",
    "-emit-llvm-bc",
    "-load",
    "-plugin",
];
/// Variables by which a compiler or the wrapper around it makes something else, and which no worker has: gcc's manual, "Environment
/// Variables"; clang's driver; musl-gcc; nixpkgs' wrapper, whose variables end in the machine's name; those of AFL's compilers.
const CHANGING: &[&str] = &[
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "CCC_OVERRIDE_OPTIONS",
    "QA_OVERRIDE_GCC3_OPTIONS",
    "REALGCC",
];
const CHANGING_PREFIX: &[&str] = &["NIX_CFLAGS_COMPILE", "NIX_HARDENING_ENABLE", "AFL_"];

/// Apple's compilers take it where no argument says it, as CMake does.
const DEPLOYMENT_TARGET: &str = "MACOSX_DEPLOYMENT_TARGET";
const SAY_DEPLOYMENT_TARGET: &[&str] = &[
    "-mmacosx-version-min=",
    "-mmacos-version-min=",
    "-mtargetos=",
];

/// Whether a variable of this name changes what a compiler makes that is called so, apart from what its preprocessor does.
#[must_use]
pub fn changes_the_compiler(variable: &str, args: &[String]) -> bool {
    let says_target = || {
        args.iter().any(|arg| {
            SAY_DEPLOYMENT_TARGET
                .iter()
                .any(|option| arg.starts_with(option))
        })
    };
    CHANGING.contains(&variable)
        || variable == DEPLOYMENT_TARGET && !says_target()
        || CHANGING_PREFIX
            .iter()
            .any(|prefix| variable.starts_with(prefix))
}

/// Why a configure test is not distributed.
pub const CONFIGURE_TEST: &str = "a configure test";
const SOURCES: &[&str] = &[
    "c", "cc", "cpp", "cxx", "c++", "C", "cp", "CPP", "i", "ii", "m", "mm",
];

/// Classifies a compiler's call: its path or name, and the arguments.
#[must_use]
pub fn classify(compiler: &str, args: &[String]) -> Class {
    let (mut compile, mut sources, mut language) = (false, Vec::new(), None);
    let (mut local, mut is_implied) = (None, true);
    let is_cxx = is_cxx(compiler);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-E" | "-M" | "-MM" | "-fsyntax-only" => return Class::NotACompile,
            "-c" | "-S" => compile = true,
            "-" => local = Some("the source is standard input".to_owned()),
            "-o" => {
                let output = rest.next().map_or("", String::as_str);
                if output == "-" {
                    local = Some("the output is standard output".to_owned());
                }
                // CMake's try_compile names its targets so; as with conftest.c, one small file after the other.
                if output.contains("/cmTC_") {
                    local = Some(CONFIGURE_TEST.to_owned());
                }
            }
            "-x" => language = rest.next().map(String::as_str),
            joined if is_joined_language(joined) => language = joined.get(2..),
            option if must_be_local(option) => {
                local = Some(option.to_owned());
                if TAKES_VALUE.contains(&option) {
                    skip(&mut rest);
                }
            }
            option if TAKES_VALUE.contains(&option) => {
                let value = rest.next().map_or("", String::as_str);
                if option == "-Xclang"
                    && (LOCAL_INSIDE_CLANG.contains(&value) || must_be_local(value))
                {
                    local = Some(format!("-Xclang {value}"));
                }
            }
            option if option.starts_with('-') => {}
            input => {
                is_implied &= language.is_none_or(|language| implies(input, language, is_cxx));
                sources.push(input.to_owned());
            }
        }
    }
    if !compile {
        return Class::NotACompile;
    }
    if local.is_none() && !is_implied {
        local = Some("-x names another language than the source's extension".to_owned());
    }
    local.map_or_else(|| by_source(sources), Class::Local)
}

/// Whether a driver takes C sources for C++ (gcc's manual, "Invoking G++"): `g++`, `clang++-14`.
fn is_cxx(compiler: &str) -> bool {
    let is_version = |c: char| c == '-' || c == '.' || c.is_ascii_digit();
    compiler.trim_end_matches(is_version).ends_with("++")
}

/// Whether the `-x` before a source can be left out: a worker, whose source is preprocessed already, would obey it and preprocess
/// again.
fn implies(source: &str, language: &str, is_cxx: bool) -> bool {
    let extensions: &[&str] = match language {
        "c" if is_cxx => return false,
        "c" => &["c"],
        "c++" => &["cc", "cp", "cxx", "cpp", "CPP", "c++", "C"],
        "objective-c" => &["m"],
        "objective-c++" => &["mm", "M"],
        "none" => return true,
        _ => return false,
    };
    let extension = Path::new(source).extension();
    extension.is_some_and(|extension| extensions.iter().any(|known| extension == *known))
}

/// Where clang looks for a precompiled form of what `-include` names (its manual, "Using Precompiled Headers").
pub fn precompiled_headers(args: &[String]) -> Vec<String> {
    let mut headers = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "-include" {
            let header = rest.next().map_or("", String::as_str);
            headers.extend(["pch", "gch"].map(|end| format!("{header}.{end}")));
        } else if TAKES_VALUE.contains(&arg.as_str()) {
            skip(&mut rest);
        }
    }
    headers
}

fn skip(rest: &mut std::slice::Iter<'_, String>) {
    rest.next();
}

fn must_be_local(option: &str) -> bool {
    LOCAL_EXACT.contains(&option) || LOCAL_PREFIX.iter().any(|prefix| option.starts_with(prefix))
}

fn by_source(mut sources: Vec<String>) -> Class {
    let Some(source) = sources.pop() else {
        return Class::NotACompile;
    };
    if !sources.is_empty() {
        return Class::Local("several inputs".to_owned());
    }
    let name = source.rsplit('/').next().unwrap_or(&source);
    if name.starts_with("conftest.") {
        return Class::Local(CONFIGURE_TEST.to_owned());
    }
    match name.rsplit_once('.') {
        Some((_, extension)) if SOURCES.contains(&extension) => Class::Distributable(source),
        _ => Class::Local("not a C or C++ source".to_owned()),
    }
}

/// The arguments of a distributable compile as distcc must see them: it knows only the word `-target`, and would append its own
/// after `--target=`; it takes `-o` away from the preprocessor, which then names dependencies after the source; and it sends an
/// `-x` along that is true of the source, but not of what the preprocessor made of it.
#[must_use]
pub fn for_distcc(args: Vec<String>) -> Vec<String> {
    let dependencies = dependencies(&args);
    let (mut words, mut rest) = (Vec::new(), args.into_iter());
    while let Some(arg) = rest.next() {
        if let Some(target) = arg.strip_prefix("--target=") {
            words.extend(["-target".to_owned(), target.to_owned()]);
        } else if arg == "-x" {
            rest.next();
        } else if TAKES_VALUE.contains(&arg.as_str()) {
            words.push(arg);
            words.extend(rest.next());
        } else if !is_joined_language(&arg) {
            words.push(arg);
        }
    }
    words.extend(dependencies);
    words
}

/// What clang has to be told beside: it writes where it runs into the debug information, and at a worker that is somewhere else. gcc's
/// preprocessor puts the directory into the source.
#[must_use]
pub fn clang_directory(args: &[String], directory: &str) -> Vec<String> {
    let named = ["-fdebug-compilation-dir", "-ffile-compilation-dir"];
    let says = |arg: &String| named.iter().any(|option| arg.starts_with(option));
    match args.iter().any(says) {
        true => Vec::new(),
        false => vec![named[0].to_owned(), directory.to_owned()],
    }
}

/// `-xc++` in one word.
fn is_joined_language(arg: &str) -> bool {
    arg.starts_with("-x") && arg != "-x"
}

/// What `-MD -o OUTPUT` means without saying it (gcc's manual, "Preprocessor Options"): `-MF OUTPUT.d -MQ OUTPUT`.
fn dependencies(args: &[String]) -> Vec<String> {
    let says = |options: &[&str]| {
        args.iter()
            .any(|arg| options.iter().any(|option| arg.starts_with(option)))
    };
    let wanted = args.iter().any(|arg| arg == "-MD" || arg == "-MMD");
    let Some(output) = output(args).filter(|_| wanted) else {
        return Vec::new();
    };
    let mut words = Vec::new();
    if !says(&["-MF"]) {
        let file = Path::new(&output).with_extension("d");
        words.extend(["-MF".to_owned(), file.to_string_lossy().into_owned()]);
    }
    if !says(&["-MT", "-MQ"]) {
        words.extend(["-MQ".to_owned(), output]);
    }
    words
}

/// The value of the last `-o`.
fn output(args: &[String]) -> Option<String> {
    let mut output = None;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.strip_prefix("-o") {
            Some("") => output = rest.next().cloned(),
            Some(joined) => output = Some(joined.to_owned()),
            None if TAKES_VALUE.contains(&arg.as_str()) => skip(&mut rest),
            None => {}
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(line: &str) -> Class {
        class_of("/usr/bin/gcc", line)
    }

    fn class_of(compiler: &str, line: &str) -> Class {
        classify(compiler, &words(line))
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_plain_compile_is_distributable() {
        assert_eq!(
            class("-O2 -I inc -MD -MF a.d -c sub/a.c -o a.o"),
            Class::Distributable("sub/a.c".into())
        );
    }

    #[test]
    fn linking_and_preprocessing_are_no_compiles() {
        for line in ["a.o -o a", "-E a.c", "-M a.c -c", "-v", "a.c -o a"] {
            assert_eq!(class(line), Class::NotACompile, "{line}");
        }
    }

    #[test]
    fn compiles_with_side_files_or_native_tuning_stay_here() {
        for option in [
            "-flto=auto",
            "-flto",
            "-mcpu=native",
            "-mcpu=native+dotprod",
            "-march=native",
            "-coverage",
            "-finput-charset=latin1",
            "-emit-llvm",
            "-Xassembler -a=a.lst",
            "-Xclang -include-pch -Xclang a.pch",
            "-fmodule-output=a.pcm",
            "-gsplit-dwarf",
            "-save-temps=obj",
            "-fdump-tree-all",
            "-ftime-trace",
            "-fmodules-ts",
            "--coverage",
            "-fstack-usage",
            "-o CMakeFiles/cmTC_1f2e3.dir/a.c.o",
            "b.c",
            "-",
            "@rsp",
        ] {
            assert!(
                matches!(class(&format!("-c a.c {option}")), Class::Local(_)),
                "{option}"
            );
        }
        for source in ["a.s", "a.S", "conftest.c", "a.h"] {
            assert!(
                matches!(class(&format!("-c {source}")), Class::Local(_)),
                "{source}"
            );
        }
    }

    #[test]
    fn a_language_counts_that_holds_where_the_source_stands() {
        let here = |compiler, line| matches!(class_of(compiler, line), Class::Local(_));
        for (compiler, line) in [
            ("/usr/bin/g++", "-x c -c a.c"),
            ("clang++-14", "-xc -c a.c"),
            ("gcc", "-x c++ -c a.c -x none"),
            ("gcc", "-x c++ -c a.c"),
            ("gcc", "-c -x c a.cpp"),
            ("gcc", "-x assembler -c a.c"),
        ] {
            assert!(here(compiler, line), "{compiler} {line}");
        }
        for (compiler, line) in [
            ("gcc-12", "-x c -c a.c"),
            ("g++-12", "-c a.c"),
            ("g++", "-x c++ -c a.cpp -x none"),
            ("g++", "-x c -x none -c a.cpp"),
            ("gcc", "-c a.c -x c++"),
        ] {
            assert!(!here(compiler, line), "{compiler} {line}");
        }
    }

    #[test]
    fn variables_that_reach_the_compiler_proper_are_told_from_those_of_the_preprocessor() {
        for name in [
            "COMPILER_PATH",
            "NIX_HARDENING_ENABLE_x86_64_unknown_linux_gnu",
        ] {
            assert!(changes_the_compiler(name, &[]), "{name}");
        }
        for name in ["CPATH", "PATH", "SOURCE_DATE_EPOCH", "LIBRARY_PATH"] {
            assert!(!changes_the_compiler(name, &[]), "{name}");
        }
        let says = words("-mmacosx-version-min=11.0 -c a.c");
        assert!(changes_the_compiler(DEPLOYMENT_TARGET, &words("-c a.c")));
        assert!(!changes_the_compiler(DEPLOYMENT_TARGET, &says));
    }

    #[test]
    fn a_header_that_is_included_first_may_be_precompiled() {
        let headers = |line| precompiled_headers(&words(line));
        assert_eq!(headers("-include a.h -c a.c"), ["a.h.pch", "a.h.gch"]);
        assert_eq!(headers("-MF -include -c a.c"), [""; 0]);
    }

    #[test]
    fn clang_is_told_where_it_would_run_unless_it_was_told() {
        let told = |line| clang_directory(&words(line), "/src");
        assert_eq!(told("-g -c"), ["-fdebug-compilation-dir", "/src"]);
        assert_eq!(told("-ffile-compilation-dir=. -c"), [""; 0]);
    }

    #[test]
    fn a_joined_target_becomes_the_word_distcc_knows() {
        assert_eq!(
            for_distcc(vec!["--target=x".into(), "-c".into()]),
            ["-target", "x", "-c"]
        );
    }
}
