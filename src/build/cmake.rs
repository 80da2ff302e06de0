//! What a call of cmake does, and what its cache tells of a tree.

use super::jobs::Jobs;

/// What a call of cmake does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `cmake --build`.
    Build(BuildCall),
    /// It may search compilers: hide the masquerade, offer the launcher.
    Configure,
    /// `-E`, `-P`, `--install`, `--version`, …: nothing of ours.
    Other,
}

/// `cmake --build`, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildCall {
    /// The tree; `None` with a preset.
    pub dir: Option<String>,
    /// The arguments without `-j` and what follows `--`.
    pub args: Vec<String>,
    /// What `-j` or `--parallel` asked for.
    pub jobs: Jobs,
    /// The arguments of the native tool.
    pub native: Vec<String>,
}

/// Calls that neither configure nor build, wherever they stand.
const OTHER: &[&str] = &[
    "-P",
    "--install",
    "--open",
    "--version",
    "-version",
    "/V",
    "-h",
    "-help",
    "--help",
    "--find-package",
    "--system-information",
    "--list-presets",
];

/// Tells the calls apart.
#[must_use]
pub fn call(args: &[String]) -> Call {
    match args.first().map(String::as_str) {
        Some("--build") => Call::Build(build_call(args)),
        None | Some("-E") => Call::Other,
        Some(_) if args.iter().any(|arg| is_other(arg)) => Call::Other,
        Some(_) => Call::Configure,
    }
}

fn is_other(arg: &str) -> bool {
    OTHER.contains(&arg) || arg.starts_with("--help-") || arg.starts_with("--list-presets=")
}

fn build_call(args: &[String]) -> BuildCall {
    let split = args
        .iter()
        .position(|arg| arg == "--")
        .unwrap_or(args.len());
    let mut call = BuildCall {
        native: args.get(split + 1..).unwrap_or_default().to_vec(),
        ..BuildCall::default()
    };
    let mut rest = args[..split].iter().map(String::as_str).peekable();
    while let Some(arg) = rest.next() {
        let joined = arg
            .strip_prefix("--parallel=")
            .or_else(|| arg.strip_prefix("-j"))
            .filter(|number| !number.is_empty());
        if let Some(jobs) = joined.and_then(|number| number.parse().ok()) {
            call.jobs = Jobs::AtMost(jobs);
        } else if arg == "-j" || arg == "--parallel" {
            let number = rest.next_if(|next| next.parse::<u32>().is_ok());
            let number = number.and_then(|number| number.parse().ok());
            call.jobs = number.map_or(Jobs::Unlimited, Jobs::AtMost);
        } else {
            call.args.push(arg.to_owned());
        }
    }
    let dir = call.args.get(1).filter(|dir| !dir.starts_with("--"));
    call.dir = dir.cloned();
    call
}

/// Whether ctest configures and builds, and does not only run what was built.
#[must_use]
pub fn tests_a_build(args: &[String]) -> bool {
    let builds = [
        "--build-and-test",
        "-S",
        "--script",
        "-D",
        "--dashboard",
        "-T",
        "--test-action",
        "-M",
        "--test-model",
    ];
    args.iter()
        .any(|arg| builds.iter().any(|option| arg.starts_with(option)))
}

/// `CMAKE_BUILD_PARALLEL_LEVEL`: empty is the native tool's default of `-j`.
#[must_use]
pub fn parallel_level(value: &str) -> Jobs {
    value.parse().map_or(Jobs::Unlimited, Jobs::AtMost)
}

/// Which tool builds a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// make, with its jobserver.
    Makefiles,
    /// ninja, with a fixed number.
    Ninja,
    /// Something that is left alone.
    Other,
}

/// What `CMakeCache.txt` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Which tool builds it.
    pub generator: Generator,
    /// Every C and C++ compile of it goes through our launcher, or through ccache, which has our prefix.
    pub launched: bool,
}

/// Reads the text of `CMakeCache.txt`; `launcher` is the path of ours.
#[must_use]
pub fn read_cache(text: &str, launcher: &str) -> Tree {
    let value = |name: &str| {
        let after = |line: &'_ str| line.strip_prefix(name).map(str::to_owned);
        let entry = text
            .lines()
            .filter_map(after)
            .find(|rest| rest.starts_with(':'))?;
        entry.split_once('=').map(|(_, value)| value.to_owned())
    };
    let generator = match value("CMAKE_GENERATOR").unwrap_or_default() {
        name if name.ends_with("Unix Makefiles") => Generator::Makefiles,
        name if name.ends_with("Ninja") || name == "Ninja Multi-Config" => Generator::Ninja,
        _ => Generator::Other,
    };
    let launched = |language: &&str| {
        let launched_by = value(&format!("CMAKE_{language}_COMPILER_LAUNCHER")).unwrap_or_default();
        let first = launched_by.split(';').next().unwrap_or_default();
        !first.is_empty() && first == launcher || first.rsplit('/').next() == Some("ccache")
    };
    let languages = ["C", "CXX"];
    let mut compiled = languages
        .iter()
        .filter(|language| value(&format!("CMAKE_{language}_COMPILER")).is_some());
    Tree {
        generator,
        launched: compiled.all(launched),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn only_builds_and_configures_are_ours() {
        for line in [
            "-E env make",
            "-P x.cmake",
            "-DA=1 -P x.cmake",
            "--install o",
            "--version",
            "",
            "--help-module X",
        ] {
            assert_eq!(call(&split(line)), Call::Other, "{line}");
        }
        for line in [".", "-S . -B o", "--preset x", "-DX=1 .."] {
            assert_eq!(call(&split(line)), Call::Configure, "{line}");
        }
    }

    #[test]
    fn a_ctest_that_builds_is_told_from_one_that_only_tests() {
        for (line, builds) in [
            ("", false),
            ("-j4 --output-on-failure", false),
            ("--test-dir o --timeout 9", false),
            ("-S nightly.cmake", true),
            ("-D Experimental", true),
            ("-T Build", true),
            ("-M Nightly -T Start", true),
            ("--test-action Build", true),
            ("--build-and-test . o", true),
        ] {
            assert_eq!(tests_a_build(&split(line)), builds, "{line}");
        }
    }

    #[test]
    fn a_build_is_taken_apart() {
        for (line, args, jobs, native) in [
            ("--build o", "--build o", Jobs::Unsaid, ""),
            ("--build o -j", "--build o", Jobs::Unlimited, ""),
            (
                "--build o -j 4 --target x",
                "--build o --target x",
                Jobs::AtMost(4),
                "",
            ),
            (
                "--build o --parallel 4 -- -k",
                "--build o",
                Jobs::AtMost(4),
                "-k",
            ),
            ("--build o --parallel=1", "--build o", Jobs::AtMost(1), ""),
            ("--build o -- -j3", "--build o", Jobs::Unsaid, "-j3"),
        ] {
            let expected = BuildCall {
                dir: Some("o".into()),
                args: split(args),
                jobs,
                native: split(native),
            };
            assert_eq!(call(&split(line)), Call::Build(expected), "{line}");
        }
        let Call::Build(preset) = call(&split("--build --preset x")) else {
            panic!()
        };
        assert_eq!(preset.dir, None);
    }

    #[test]
    fn a_tree_is_launched_when_each_of_its_languages_is() {
        let both = "CMAKE_GENERATOR:INTERNAL=Ninja\nCMAKE_C_COMPILER:FILEPATH=/usr/bin/cc\nCMAKE_C_COMPILER_LAUNCHER:STRING=/l\n";
        let ninja = Tree {
            generator: Generator::Ninja,
            launched: true,
        };
        assert_eq!(read_cache(both, "/l"), ninja);
        assert!(!read_cache(both, "/other").launched);
        let half = format!("{both}CMAKE_CXX_COMPILER:STRING=c++\n");
        assert!(!read_cache(&half, "/l").launched);
        let multi = both.replace("=Ninja", "=Ninja Multi-Config");
        assert_eq!(read_cache(&multi, "/l"), ninja);
        let bare = both.replace("=/l", "=");
        assert!(!read_cache(&bare, "").launched, "there is no launcher");
    }
}
