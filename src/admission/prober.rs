//! Asks compilers who they are.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{
    CompilerIdentity, Stamp,
    name::{CompilerName, Language},
    output::{Kind, Output},
    probe::{Call, DEADLINE, ProbeError},
};

/// A compiler that would not say who it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentifyError {
    /// The path is relative, or not UTF-8, which neither distcc's protocol nor an offer can carry.
    #[error("{path} cannot name a compiler: give an absolute path in UTF-8")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// There was no directory to ask in.
    #[error(
        "compilers cannot be asked in {dir}: {source}; is there room, and may you write there?"
    )]
    Scratch {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be run, or did not end by itself.
    #[error("{path} {args}: {what}")]
    Unusable {
        /// The compiler.
        path: PathBuf,
        /// What it was asked.
        args: String,
        /// What happened.
        what: String,
    },
    /// It refused a question that every gcc or clang answers.
    #[error("{path} {args} failed ({status}): {said}")]
    Failed {
        /// The compiler.
        path: PathBuf,
        /// What it was asked.
        args: String,
        /// How it ended.
        status: ExitStatus,
        /// The first line of what it said.
        said: String,
    },
    /// Neither gcc nor clang.
    #[error(
        "{path} is neither gcc nor clang (it says \"{said}\"): its compiles stay on this machine"
    )]
    Unknown {
        /// The compiler.
        path: PathBuf,
        /// The first line of what it said.
        said: String,
    },
}

/// A compiler that said who it is, and its files as they were then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified {
    /// What it said.
    pub compiler: CompilerIdentity,
    /// Driver, compiler proper, assembler, and what lies beside them.
    pub stamp: Stamp,
}

/// Asks several compilers of a worker, as many at once as this machine has slots; names of one compiler are asked once. Those that cannot
/// be identified are left out and explained in a warning each; the order is kept.
pub(super) fn identify_all(
    paths: &[PathBuf],
    target: Option<&str>,
    scratch: &Path,
) -> (Vec<Identified>, Vec<String>) {
    let prober = Prober::new(DEADLINE, scratch).for_target(target).homeless();
    let groups = one_compiler_each(paths);
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(BTreeMap::new());
    let threads = usize::try_from(crate::machine::slots().count).unwrap_or(1);
    thread::scope(|scope| {
        for _ in 0..threads.min(groups.len()) {
            scope.spawn(|| {
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let identified = prober.identify_group(group);
                    answers
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend(group.iter().cloned().zip(identified));
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut known = Vec::new();
    let mut warnings = Vec::new();
    for path in paths {
        match answers.remove(path) {
            Some(Ok(compiler)) => known.push(compiler),
            Some(Err(warning)) => warnings.push(warning),
            None => {}
        }
    }
    (known, warnings)
}

/// Asks the one compiler that has all these names, for a target or for its default, in `scratch`, a private directory; an answer
/// for each, or why there is none. Blocks, for 10 s a question at the most.
pub fn identify_group(
    names: &[PathBuf],
    target: Option<&str>,
    scratch: &Path,
) -> Vec<Result<Identified, String>> {
    let prober = Prober::new(DEADLINE, scratch).for_target(target);
    prober.identify_group(names)
}

/// Puts together the names that lead to one file and make it behave the same: `cc`, `gcc` and `x86_64-linux-gnu-gcc-12`, but not
/// `clang` and `clang++`, which are one file and two languages, nor a name with a target's prefix, which is clang's default target.
pub fn one_compiler_each(paths: &[PathBuf]) -> Vec<Vec<PathBuf>> {
    let mut groups: BTreeMap<_, Vec<PathBuf>> = BTreeMap::new();
    for path in paths {
        let file = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let name = path.to_str().and_then(CompilerName::of_path);
        let behaves = name.map(|name| {
            let is_cxx = name.driver.language() == Language::Cxx;
            let obeys = file.to_string_lossy().contains("clang");
            let prefix = name.prefix.filter(|_| obeys);
            (is_cxx, prefix.map(str::to_owned))
        });
        groups
            .entry((file, behaves))
            .or_default()
            .push(path.clone());
    }
    groups.into_values().collect()
}

/// How compilers are asked.
struct Prober<'a> {
    scratch: &'a Path,
    /// PATH.
    search: OsString,
    env: Vec<(OsString, OsString)>,
    deadline: Duration,
    /// Comes before everything that a compiler is asked.
    target: Option<String>,
}

impl<'a> Prober<'a> {
    fn new(deadline: Duration, scratch: &'a Path) -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the shell of the room")]
        let var = |name: &str| env::var_os(name);
        let mut env = clean_env(var);
        // What a compiler leaves behind goes with the directory.
        env.push(("TMPDIR".into(), scratch.into()));
        Self {
            scratch,
            search: var("PATH").unwrap_or_default(),
            env,
            deadline,
            target: None,
        }
    }

    fn for_target(self, target: Option<&str>) -> Self {
        let target = target.map(|target| format!("--target={target}"));
        Self { target, ..self }
    }

    /// As distccd's compilers are, which find no configuration of the user's.
    fn homeless(mut self) -> Self {
        self.env.retain(|(name, _)| name != "HOME");
        self.env.push(("HOME".into(), self.scratch.into()));
        self
    }

    fn identify_group(&self, names: &[PathBuf]) -> Vec<Result<Identified, String>> {
        let Some(first) = names.first() else {
            return Vec::new();
        };
        let identified = self.identify(first).map_err(|error| error.to_string());
        let named = |name: &PathBuf| {
            let mut one = identified.clone()?;
            one.compiler.path = name.to_string_lossy().into_owned();
            // A name may be made a link to something else.
            one.stamp = one.stamp.and(name);
            Ok(one)
        };
        names.iter().map(named).collect()
    }

    fn identify(&self, path: &Path) -> Result<Identified, IdentifyError> {
        let name = path.to_str().filter(|_| path.is_absolute());
        let Some(name) = name else {
            return Err(IdentifyError::Path {
                path: path.to_owned(),
            });
        };
        // A C file, so that the answer shows whether the driver takes it for C++, and a preprocessed one to compile.
        for (file, text) in [(SOURCE, ""), (CANARY, CANARY_TEXT)] {
            self.put(file, text)
                .map_err(|error| self.no_scratch(error))?;
        }
        let interview = Interview {
            call: Call {
                program: path,
                directory: self.scratch,
                env: &self.env,
                deadline: self.deadline,
            },
            target: self.target.as_deref(),
        };
        let (kind, output) = interview.hold()?;
        let stamp = Stamp::of(files(path, &output, &self.search));
        let canary = self.canary(&interview)?;
        let compiler = CompilerIdentity {
            path: name.to_owned(),
            version: output.version_line(kind),
            target: output.target().to_owned(),
            fingerprint: output.fingerprint(kind),
            canary,
        };
        Ok(Identified { compiler, stamp })
    }

    /// Several compilers are asked in one directory: a file appears whole, whoever puts it there, and stays.
    fn put(&self, file: &str, text: &str) -> io::Result<()> {
        let mut whole = tempfile::NamedTempFile::new_in(self.scratch)?;
        whole.write_all(text.as_bytes())?;
        whole.persist(self.scratch.join(file))?;
        Ok(())
    }

    /// Has the canary compiled with each set of flags, and returns the objects' digest.
    fn canary(&self, interview: &Interview<'_>) -> Result<String, IdentifyError> {
        let mut hash = Sha256::new();
        hash.update(self.canary_object(interview, CANARY_FLAGS[0])?);
        for flags in &CANARY_FLAGS[1..] {
            let object = match self.canary_object(interview, flags) {
                // A target may not know a flag: then it is the same on both sides.
                Err(IdentifyError::Failed { .. }) => Vec::new(),
                object => object?,
            };
            hash.update((object.len() as u64).to_be_bytes());
            hash.update(object);
        }
        let digest = hash.finalize();
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn canary_object(
        &self,
        interview: &Interview<'_>,
        flags: &[&str],
    ) -> Result<Vec<u8>, IdentifyError> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let object = format!("canary-{}.o", COUNT.fetch_add(1, Ordering::Relaxed));
        // Debug information names the directory, as the compiler sees it: another one on each machine.
        let here = self.scratch.canonicalize();
        let here = here.map_err(|error| self.no_scratch(error))?;
        let map = format!("-fdebug-prefix-map={}=.", here.display());
        let call = ["-pipe", &map, "-c", CANARY, "-o", &object];
        interview.ask(&[flags, &call].concat())?;
        let path = self.scratch.join(object);
        let bytes = std::fs::read(&path).map_err(|error| self.no_scratch(error))?;
        // It goes with the directory if it does not go now.
        drop(std::fs::remove_file(&path));
        Ok(bytes)
    }

    fn no_scratch(&self, source: io::Error) -> IdentifyError {
        IdentifyError::Scratch {
            dir: self.scratch.to_owned(),
            source,
        }
    }
}

/// The files that make a compiler what it is: itself, the programs that it runs, and the directories of these, where specs would
/// lie. Not those of PATH, in which everybody's programs come and go.
fn files(path: &Path, output: &Output, search: &OsStr) -> Vec<PathBuf> {
    let searched: Vec<_> = env::split_paths(search).collect();
    let mut files = vec![path.to_owned()];
    // A bare name is looked for on PATH, as the driver does.
    let programs = output.programs().into_iter();
    for program in programs.filter_map(|program| which::which_in(program, Some(search), "/").ok()) {
        let parent = program.parent().map(Path::to_owned);
        files.extend(parent.filter(|parent| !searched.contains(parent)));
        files.push(program);
    }
    files.extend(output.configuration_files());
    files
}

/// Only what a compiler needs to start. Where a build sets what would change the compiler (`GCC_EXEC_PREFIX`), its compiles stay at home;
/// what is for the preprocessor (`CPATH`) has been done there.
fn clean_env(var: impl Fn(&str) -> Option<OsString>) -> Vec<(OsString, OsString)> {
    // DEVELOPER_DIR chooses between several Xcodes on macOS.
    let mut kept: Vec<_> = ["PATH", "HOME", "DEVELOPER_DIR"]
        .into_iter()
        .filter_map(|name| Some((OsString::from(name), var(name)?)))
        .collect();
    // Answers in one language, whatever the user's is.
    kept.push(("LC_ALL".into(), "C".into()));
    kept
}

/// What `-###` is asked about; its name is the same everywhere.
const SOURCE: &str = "t.c";
/// Preprocessed C that is C++ too: integers, floating point, a table, a jump table, strings. What a job would be.
const CANARY: &str = "canary.i";
const CANARY_TEXT: &str = include_str!("canary.i");
/// A wrapper or a specs file may add something only where it finds this or that: what builds commonly say is tried. Each set costs
/// 20 ms (gcc) to 50 ms (clang) of CPU for each compiler of a machine, measured on a slow one.
const CANARY_FLAGS: [&[&str]; 3] = [&["-O2"], &["-O0", "-g"], &["-Os", "-g", "-fPIC"]];

/// The questions to one compiler.
struct Interview<'a> {
    call: Call<'a>,
    target: Option<&'a str>,
}

impl Interview<'_> {
    fn hold(&self) -> Result<(Kind, Output), IdentifyError> {
        let version = self.ask(&["--version"])?;
        let kind = Kind::of_version_text(&version).ok_or_else(|| IdentifyError::Unknown {
            path: self.call.program.to_owned(),
            said: first_line(&version),
        })?;
        let output = Output {
            version,
            target: self.ask(&["-dumpmachine"])?,
            configuration: self.ask(&["-v"])?,
            specs: match kind {
                Kind::Gcc => self.ask(&["-dumpspecs"])?,
                Kind::Clang => String::new(),
            },
            // With a pipe between compiler and assembler no temporary file's random name is in the answer.
            commands: self.commands(&[])? + &self.commands(&["-O2", "-g"])?,
        };
        Ok((kind, output))
    }

    fn commands(&self, flags: &[&str]) -> Result<String, IdentifyError> {
        let call = ["-pipe", "-###", "-c", SOURCE, "-o", "t.o"];
        self.ask(&[flags, &call].concat())
    }

    fn ask(&self, args: &[&str]) -> Result<String, IdentifyError> {
        let args: Vec<_> = self
            .target
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        let args = args.as_slice();
        let ended = self
            .call
            .run(args)
            .map_err(|error| self.unusable(args, &error))?;
        if ended.status.success() {
            return Ok(ended.text);
        }
        Err(IdentifyError::Failed {
            path: self.call.program.to_owned(),
            args: args.join(" "),
            status: ended.status,
            said: first_line(&ended.text),
        })
    }

    fn unusable(&self, args: &[&str], error: &ProbeError) -> IdentifyError {
        IdentifyError::Unusable {
            path: self.call.program.to_owned(),
            args: args.join(" "),
            what: error.to_string(),
        }
    }
}

/// The first line of a stranger's output, fit to be shown.
fn first_line(text: &str) -> String {
    const LONGEST: usize = 120;
    let line = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("nothing");
    line.chars()
        .filter(|char| !char.is_control())
        .take(LONGEST)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, thread, time::Instant};

    use super::*;
    use crate::admission::{Verdict, admit, fake::script};

    /// The real compiler of this name, if this machine has it.
    fn installed(name: &str) -> Option<PathBuf> {
        let path = Path::new("/usr/bin").join(name);
        path.exists().then_some(path)
    }

    fn admits(ours: &CompilerIdentity, theirs: &CompilerIdentity) -> bool {
        matches!(
            admit(ours, std::slice::from_ref(theirs)),
            Verdict::Admitted { .. }
        )
    }

    fn identify(path: &Path) -> Result<CompilerIdentity, IdentifyError> {
        asked_in_time(Duration::from_secs(10), path)
    }

    fn identify_all(paths: &[PathBuf]) -> (Vec<CompilerIdentity>, Vec<String>) {
        let scratch = tempfile::tempdir().unwrap();
        let (identified, warnings) = super::identify_all(paths, None, scratch.path());
        let compilers = identified.into_iter().map(|one| one.compiler);
        (compilers.collect(), warnings)
    }

    fn impatiently(path: &Path) -> Result<CompilerIdentity, IdentifyError> {
        asked_in_time(Duration::from_millis(300), path)
    }

    fn asked_in_time(deadline: Duration, path: &Path) -> Result<CompilerIdentity, IdentifyError> {
        let scratch = tempfile::tempdir().unwrap();
        let identified = Prober::new(deadline, scratch.path()).identify(path)?;
        Ok(identified.compiler)
    }

    #[test]
    fn the_same_compiler_is_recognised_under_all_its_names() {
        for names in [
            ["gcc", "cc", "gcc-12"],
            ["g++", "c++", "g++-12"],
            ["clang", "clang-14", "clang"],
        ] {
            let paths: Vec<_> = names.into_iter().filter_map(installed).collect();
            let (compilers, warnings) = identify_all(&paths);
            assert_eq!(warnings, Vec::<String>::new());
            for theirs in &compilers {
                assert!(admits(&compilers[0], theirs), "{compilers:#?}");
            }
        }
    }

    #[test]
    fn real_drivers_of_two_languages_or_projects_are_never_taken_for_each_other() {
        let paths: Vec<_> = ["gcc", "g++", "clang", "clang++"]
            .into_iter()
            .filter_map(installed)
            .collect();
        let (compilers, _) = identify_all(&paths);
        assert_eq!(compilers.len(), paths.len());
        for (mine, ours) in compilers.iter().enumerate() {
            for (other, theirs) in compilers.iter().enumerate() {
                // Renamed, so that nothing but the fingerprint can tell.
                let mut theirs = theirs.clone();
                theirs.path = "/opt/compiler".into();
                assert_eq!(
                    ours.fingerprint == theirs.fingerprint,
                    mine == other,
                    "{ours:?} {theirs:?}"
                );
            }
        }
    }

    #[test]
    fn a_wrapper_is_the_compiler_unless_it_adds_a_flag() {
        let directory = tempfile::tempdir().unwrap();
        for real in ["gcc", "clang"].into_iter().filter_map(installed) {
            let ours = identify(&real).unwrap();
            let real = real.display();
            let plain = script(directory.path(), "plain", &format!("exec {real} \"$@\""));
            assert_eq!(identify(&plain).unwrap().fingerprint, ours.fingerprint);
            let flagged = script(
                directory.path(),
                "flagged",
                &format!("exec {real} -O2 \"$@\""),
            );
            assert_ne!(identify(&flagged).unwrap().fingerprint, ours.fingerprint);
        }
    }

    #[test]
    fn a_compiler_with_patched_specs_is_another_one() {
        let Some(real) = installed("gcc") else { return };
        let directory = tempfile::tempdir().unwrap();
        let specs = directory.path().join("specs");
        fs::write(&specs, "*cc1:\n+ -funsigned-char\n\n").unwrap();
        let body = format!("exec {} -specs={} \"$@\"", real.display(), specs.display());
        let patched = identify(&script(directory.path(), "gcc", &body)).unwrap();
        assert_ne!(patched.fingerprint, identify(&real).unwrap().fingerprint);
    }

    #[test]
    fn an_identity_is_the_same_wherever_and_whenever_it_is_made() {
        let Some(real) = installed("cc") else { return };
        assert_eq!(identify(&real).unwrap(), identify(&real).unwrap());
    }

    #[test]
    fn a_compiler_that_hangs_is_given_up_and_leaves_no_process() {
        let directory = tempfile::tempdir().unwrap();
        let body = "(sleep 1; touch \"${0%/*}/survived\") & sleep 1000";
        let path = script(directory.path(), "gcc", body);
        let started = now();
        let error = impatiently(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("--version: it did not end within 0.3 s"),
            "{error}"
        );
        assert!(started.elapsed() < Duration::from_secs(5));
        thread::sleep(Duration::from_millis(1500));
        assert!(!directory.path().join("survived").exists());
    }

    #[test]
    fn a_compiler_that_leaves_its_process_group_is_given_up_too() {
        if installed("python3").is_none() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let body = "exec /usr/bin/python3 -c 'import os, time; os.setpgid(0, os.getpgid(os.getppid())); time.sleep(30)'";
        let started = now();
        let error = asked_in_time(
            Duration::from_secs(2),
            &script(directory.path(), "gcc", body),
        )
        .unwrap_err();
        assert!(matches!(error, IdentifyError::Unusable { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_child_in_the_background_does_not_outlive_the_question() {
        let directory = tempfile::tempdir().unwrap();
        let body = "(sleep 1; touch \"${0%/*}/survived\") >/dev/null 2>&1 & echo hello";
        let error = identify(&script(directory.path(), "gcc", body)).unwrap_err();
        assert!(matches!(error, IdentifyError::Unknown { .. }), "{error}");
        thread::sleep(Duration::from_millis(1500));
        assert!(!directory.path().join("survived").exists());
    }

    #[test]
    fn a_compiler_that_closes_its_output_and_hangs_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = script(directory.path(), "gcc", "exec >&- 2>&- sleep 1000");
        let error = impatiently(&path).unwrap_err();
        assert!(matches!(error, IdentifyError::Unusable { .. }), "{error}");
    }

    #[test]
    fn a_compiler_that_floods_is_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let error = identify(&script(directory.path(), "gcc", "exec yes gcc"))
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("it printed more than 1024 KiB"), "{error}");
    }

    #[test]
    fn a_compiler_that_waits_for_input_gets_none() {
        let directory = tempfile::tempdir().unwrap();
        let error = identify(&script(directory.path(), "gcc", "cat; echo done")).unwrap_err();
        assert!(
            matches!(error, IdentifyError::Unknown { ref said, .. } if said == "done"),
            "{error}"
        );
    }

    #[test]
    fn a_compiler_that_fails_is_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let path = script(directory.path(), "gcc", "echo 'no licence' >&2; exit 3");
        let error = identify(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("--version failed (exit status: 3): no licence"),
            "{error}"
        );
    }

    #[test]
    fn a_compiler_that_vanished_or_may_not_run_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain");
        fs::write(&plain, "text").unwrap();
        for path in [
            directory.path().join("gone"),
            plain,
            directory.path().to_owned(),
        ] {
            let error = identify(&path).unwrap_err().to_string();
            assert!(
                error.contains("it cannot be run") && error.contains(&*path.to_string_lossy()),
                "{error}"
            );
        }
    }

    #[test]
    fn a_relative_path_is_refused() {
        let error = identify(Path::new("gcc")).unwrap_err();
        assert!(matches!(error, IdentifyError::Path { .. }), "{error}");
    }

    #[test]
    fn compilers_that_cannot_be_identified_are_left_out_and_explained() {
        let directory = tempfile::tempdir().unwrap();
        let mut paths = vec![script(directory.path(), "gcc", "echo tcc")];
        paths.extend(installed("cc"));
        let (compilers, warnings) = identify_all(&paths);
        assert_eq!(compilers.len(), paths.len() - 1);
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].contains("neither gcc nor clang (it says \"tcc\")"),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_compiler_gets_only_the_environment_it_needs() {
        let env = clean_env(|name| (name != "DEVELOPER_DIR").then(|| "x".into()));
        let names: Vec<_> = env.iter().filter_map(|(name, _)| name.to_str()).collect();
        assert_eq!(names, ["PATH", "HOME", "LC_ALL"]);
    }

    fn now() -> Instant {
        #[expect(
            clippy::disallowed_methods,
            reason = "the test measures a real process"
        )]
        Instant::now()
    }

    #[test]
    fn a_compiler_with_another_assembler_is_told_by_its_object() {
        let Some(real) = installed("gcc") else { return };
        let directory = tempfile::tempdir().unwrap();
        // All that it says of itself is the real one's; what its assembler makes is not. The object's name comes last.
        let body = format!(
            "for last; do :; done; case \"$*\" in *-c*canary.i*) {real} \"$@\" && printf x >> \"$last\" ;; *) exec {real} \"$@\" ;; esac",
            real = real.display()
        );
        let theirs = identify(&script(directory.path(), "gcc", &body)).unwrap();
        let ours = identify(&real).unwrap();
        assert_eq!(theirs.fingerprint, ours.fingerprint);
        assert!(!admits(&ours, &theirs));
    }

    #[test]
    fn a_wrapper_that_is_honest_when_asked_and_cheats_with_some_flags_is_told_by_its_objects() {
        for (compiler, cheats) in [
            ("gcc", ["*-g*", "*-O0*", "*-fPIC*"]),
            ("clang", ["*-g*", "*-O2*", "*-Os*"]),
        ] {
            let Some(real) = installed(compiler) else {
                continue;
            };
            let ours = identify(&real).unwrap();
            for cheat in cheats {
                let directory = tempfile::tempdir().unwrap();
                let real = real.display();
                let body = format!(
                    "case \"$*\" in *-###*) ;; {cheat}) exec {real} \"$@\" -fno-inline -fwrapv -fshort-enums ;; esac; \
                     exec {real} \"$@\""
                );
                let theirs = identify(&script(directory.path(), compiler, &body)).unwrap();
                assert_eq!(theirs.fingerprint, ours.fingerprint, "{cheat}");
                assert!(!admits(&ours, &theirs), "{compiler} {cheat}");
            }
        }
    }

    #[test]
    fn the_directory_that_a_compiler_is_asked_in_does_not_enter() {
        for real in ["gcc", "clang"].into_iter().filter_map(installed) {
            let [one, other] = [(), ()].map(|()| identify(&real).unwrap());
            assert_eq!(one, other);
        }
    }

    #[test]
    fn a_compiler_that_compiles_nothing_is_offered_to_nobody() {
        let Some(real) = installed("gcc") else { return };
        let directory = tempfile::tempdir().unwrap();
        let body = format!(
            "case \"$*\" in *-c*canary.i*) echo no assembler >&2; exit 1 ;; *) exec {} \"$@\" ;; esac",
            real.display()
        );
        let error = identify(&script(directory.path(), "gcc", &body)).unwrap_err();
        assert!(error.to_string().contains("no assembler"), "{error}");
    }

    #[test]
    fn compilers_that_are_asked_side_by_side_do_not_disturb_each_other() {
        let Some(real) = installed("gcc") else { return };
        let scratch = tempfile::tempdir().unwrap();
        let ask = || {
            Prober::new(DEADLINE, scratch.path())
                .identify(&real)
                .unwrap()
        };
        let first = ask();
        thread::scope(|scope| {
            let all: Vec<_> = (0..12).map(|_| scope.spawn(ask)).collect();
            for one in all {
                assert_eq!(one.join().unwrap(), first);
            }
        });
    }

    #[test]
    fn the_names_of_one_compiler_are_asked_once_and_two_languages_apart() {
        let directory = tempfile::tempdir().unwrap();
        let real = script(directory.path(), "clang-14", "exit 1");
        let link = |name: &str| {
            let path = directory.path().join(name);
            std::os::unix::fs::symlink(&real, &path).unwrap();
            path
        };
        let (clang, cxx) = (link("clang"), link("clang++"));
        let cross = link("aarch64-linux-gnu-clang");
        let groups = one_compiler_each(&[clang.clone(), cxx.clone(), real.clone(), cross.clone()]);
        assert_eq!(groups.len(), 3, "{groups:?}");
        assert!(groups.contains(&vec![clang, real]) && groups.contains(&vec![cxx]));
        assert!(groups.contains(&vec![cross]));
        let real = script(directory.path(), "x86_64-linux-gnu-gcc-12", "exit 1");
        let gcc = directory.path().join("gcc");
        std::os::unix::fs::symlink(&real, &gcc).unwrap();
        assert_eq!(one_compiler_each(&[gcc, real]).len(), 1);
    }
}
