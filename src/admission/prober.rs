//! Asks compilers who they are.

use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    CompilerIdentity,
    output::{Kind, Output},
    probe::{Call, DEADLINE, ProbeError},
};

/// A compiler that would not say who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentifyError {
    /// The path is relative, or not UTF-8, which neither distcc's protocol nor an offer can carry.
    #[error("{path} cannot name a compiler: give an absolute path in UTF-8")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// There was no directory to ask in.
    #[error(
        "no temporary directory to ask {path} in: {source}; set TMPDIR to one that is writable"
    )]
    Scratch {
        /// The compiler.
        path: PathBuf,
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

/// Asks the compiler at an absolute path who it is. Blocks, for 10 s a question at the most.
pub fn identify(path: &Path) -> Result<CompilerIdentity, IdentifyError> {
    Prober::new(DEADLINE).identify(path)
}

/// Asks several compilers, as many at once as this machine has slots. Those that cannot be identified are left out and
/// explained in a warning each; the order is kept.
pub fn identify_all(paths: &[PathBuf]) -> (Vec<CompilerIdentity>, Vec<String>) {
    let prober = Prober::new(DEADLINE);
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let threads = usize::try_from(crate::machine::slots().count).unwrap_or(1);
    thread::scope(|scope| {
        for _ in 0..threads.min(paths.len()) {
            scope.spawn(|| {
                while let Some((index, path)) = take(paths, &next) {
                    let answer = (index, prober.identify(path));
                    answers
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(answer);
                }
            });
        }
    });
    in_order(answers.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn take<'a>(paths: &'a [PathBuf], next: &AtomicUsize) -> Option<(usize, &'a PathBuf)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, paths.get(index)?))
}

type Answer = Result<CompilerIdentity, IdentifyError>;

fn in_order(mut answers: Vec<(usize, Answer)>) -> (Vec<CompilerIdentity>, Vec<String>) {
    answers.sort_by_key(|(index, _)| *index);
    let mut known = Vec::new();
    let mut warnings = Vec::new();
    for (_, answer) in answers {
        match answer {
            Ok(compiler) => known.push(compiler),
            Err(error) => warnings.push(error.to_string()),
        }
    }
    (known, warnings)
}

/// How compilers are asked.
struct Prober {
    env: Vec<(OsString, OsString)>,
    deadline: Duration,
}

impl Prober {
    fn new(deadline: Duration) -> Self {
        Self {
            env: clean_env(|name| {
                #[expect(clippy::disallowed_methods, reason = "this is the shell of the room")]
                env::var_os(name)
            }),
            deadline,
        }
    }

    fn identify(&self, path: &Path) -> Result<CompilerIdentity, IdentifyError> {
        let name = path.to_str().filter(|_| path.is_absolute());
        let Some(name) = name else {
            return Err(IdentifyError::Path {
                path: path.to_owned(),
            });
        };
        let scratch = scratch().map_err(|source| IdentifyError::Scratch {
            path: path.to_owned(),
            source,
        })?;
        let interview = Interview {
            call: Call {
                program: path,
                directory: scratch.path(),
                env: &self.env,
                deadline: self.deadline,
            },
        };
        let (kind, output) = interview.hold()?;
        Ok(CompilerIdentity {
            path: name.to_owned(),
            version: output.version_line(kind),
            target: output.target().to_owned(),
            fingerprint: output.fingerprint(kind),
        })
    }
}

/// Only what a compiler needs to start. What else a build sets (`GCC_EXEC_PREFIX`, `CPATH`, …) does not reach a worker's
/// compiler either.
fn clean_env(var: impl Fn(&str) -> Option<OsString>) -> Vec<(OsString, OsString)> {
    // DEVELOPER_DIR chooses between several Xcodes on macOS.
    let mut kept: Vec<_> = ["PATH", "HOME", "TMPDIR", "DEVELOPER_DIR"]
        .into_iter()
        .filter_map(|name| Some((OsString::from(name), var(name)?)))
        .collect();
    // Answers in one language, whatever the user's is.
    kept.push(("LC_ALL".into(), "C".into()));
    kept
}

/// A directory with the source that `-###` is asked about. Its name is the same everywhere; nothing is compiled.
fn scratch() -> io::Result<tempfile::TempDir> {
    let directory = tempfile::Builder::new()
        .prefix("distmesh-probe-")
        .tempdir()?;
    std::fs::write(directory.path().join(SOURCE), "")?;
    Ok(directory)
}

/// A C file, so that the answer shows whether the driver takes it for C++.
const SOURCE: &str = "t.c";

/// The questions to one compiler.
struct Interview<'a> {
    call: Call<'a>,
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
            commands: self.ask(&["-pipe", "-###", "-c", SOURCE, "-o", "t.o"])?,
        };
        Ok((kind, output))
    }

    fn ask(&self, args: &[&str]) -> Result<String, IdentifyError> {
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
