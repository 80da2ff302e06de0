//! Under the name of make, ninja, or a program of CMake.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::IntoRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::cmake::{self, BuildCall, Generator, Tree, parallel_level, read_cache};
use super::super::jobs::{Adapted, Flags, Jobs, adapt_make, adapt_ninja};
use super::super::layout::{PipeEnd, State, make_pipes, open_pipe};
use super::super::record::{MakeBegan, Said, say};
use super::super::run::bypass;
use super::{NAMED_TOOL, Place, execute, text_variable, texts, variable};

/// Names the directory of the make above us, or says that it is serial.
const MAKE: &str = "DISTMESH_MAKE";
const SERIAL: &str = "serial";
/// The process that is a make, and what it was told of jobs.
const JOBS: &str = "DISTMESH_JOBS";

/// A tool as it was called.
pub(super) struct Call<'a> {
    pub(super) name: &'a str,
    /// The zeroth argument: make calls its sub-makes by it, and so they come to us too.
    pub(super) called: OsString,
    pub(super) real: PathBuf,
    pub(super) args: Vec<OsString>,
}

/// Becomes the tool with its `-j` adapted.
pub(super) fn adapt(call: Call<'_>, place: &Place, state: State) -> ! {
    let Some(words) = texts(&call.args) else {
        execute(&mut call.command(&call.args))
    };
    let shop = Shop { call, place, state };
    match shop.call.name {
        "cmake" | "cmake3" => shop.cmake(&words),
        "ccmake" => shop.part_of_cmake(&words),
        "ctest" if cmake::tests_a_build(&words) => shop.part_of_cmake(&words),
        "ctest" => execute(&mut shop.call.command(&words)),
        "ninja" => shop.ninja(&words),
        _ => shop.make(&words),
    }
}

impl Call<'_> {
    fn command(&self, args: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(&self.real);
        let is_make = ["make", "gmake"].contains(&self.name);
        // CMake finds its own files, and the path that it writes into a tree, by this.
        if is_make {
            command.arg0(&self.called);
        }
        // Sub-makes are called by our link. A script calls whatever is behind it on PATH, or our link there.
        if !is_make || is_script(&self.real) {
            command.env_remove(NAMED_TOOL);
        }
        command.args(args);
        command
    }
}

struct Shop<'a> {
    call: Call<'a>,
    place: &'a Place,
    state: State,
}

/// What starts a make: directly, or inside `cmake --build`.
struct Start {
    command: Command,
    /// What its own command line said.
    jobs: Jobs,
}

impl Shop<'_> {
    fn make(&self, words: &[String]) -> ! {
        self.name_absolute_compiler(words);
        let adapted = adapt_make(words);
        let in_tree = self.tree(adapted.directory.as_deref());
        let mut typed = self.call.command(words);
        let mut command = self.call.command(&adapted.args);
        for command in [&mut typed, &mut command] {
            match in_tree {
                Some(_) => self.hide_masquerade(command),
                None => drop(command.env("PATH", self.place.masked_path())),
            }
        }
        let start = Start {
            command,
            jobs: adapted.jobs,
        };
        self.start_make(start, typed)
    }

    /// `typed` is the command with every argument as it was.
    fn start_make(&self, mut start: Start, mut typed: Command) -> ! {
        let texts = ["MAKEFLAGS", "GNUMAKEFLAGS"]
            .map(|name| variable(name).unwrap_or_default().into_string());
        // What is no text is not ours to write anew.
        let [Ok(flags), Ok(gnu)] = texts else {
            execute(&mut typed)
        };
        let (flags, gnu) = (Flags::parse(&flags), Flags::parse(&gnu));
        // make before 4.4 gives `$(shell …)` no MAKELEVEL.
        let is_serial = |above: &OsString| above == SERIAL;
        let above =
            variable(MAKE).filter(|above| is_serial(above) || variable("MAKELEVEL").is_some());
        // Under a make of ours, `-j` in MAKEFLAGS is ours too. One that has rebuilt a makefile executes itself again, without the `-j`
        // that was taken from it.
        let jobs = match (said_before(), &above) {
            (Some(jobs), _) => jobs,
            (None, Some(_)) => start.jobs,
            (None, None) => start.jobs.or(flags.jobs).or(gnu.jobs),
        };
        for command in [&mut start.command, &mut typed] {
            command.env(JOBS, remembered(jobs));
        }
        let below_serial = above.as_deref() == Some(OsStr::new(SERIAL));
        if jobs.is_serial() || (below_serial && jobs == Jobs::Unsaid) {
            self.begin(std::process::id(), Some(1), above.is_some());
            typed.env("MAKEFLAGS", flags.serial()).env(MAKE, SERIAL);
            execute(&mut typed);
        }
        if above.is_none() {
            match jobs {
                Jobs::Unsaid => self.say_parallel(),
                Jobs::Unlimited | Jobs::AtMost(_) => self.say_at_most(jobs),
            }
        }
        start.command.env("GNUMAKEFLAGS", gnu.serial());
        let joined = above.filter(|_| jobs.ceiling().is_none() && !below_serial);
        let dir = joined.map_or_else(|| self.new_pipes(jobs), |dir| Ok(dir.into()));
        let auth = dir.and_then(|dir: PathBuf| Ok((jobserver(&dir)?, dir)));
        if let Ok((auth, dir)) = auth {
            let flags = flags.with_jobserver(&auth);
            execute(start.command.env("MAKEFLAGS", flags).env(MAKE, dir))
        }
        // Nobody grants tokens, and `-j` alone would start all that there is.
        if jobs == Jobs::Unlimited && !self.call.args.iter().any(|word| word == "--") {
            typed.arg(format!("-j{}", self.total()));
        }
        execute(&mut typed)
    }

    fn new_pipes(&self, jobs: Jobs) -> io::Result<PathBuf> {
        let pid = std::process::id();
        let dir = self.place.dir.join("makes").join(pid.to_string());
        make_pipes(&dir)?;
        let nested = variable("MAKELEVEL").is_some() && variable(MAKE).is_some();
        // Pipes that nobody fills would make it serial.
        match self.begin(pid, jobs.ceiling(), nested) {
            true => Ok(dir),
            false => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn begin(&self, pid: u32, ceiling: Option<u32>, nested: bool) -> bool {
        let began = MakeBegan {
            pid,
            dir: self.place.dir.join("makes").join(pid.to_string()),
            ceiling,
            nested,
        };
        say(&self.place.dir, &Said::Make(began))
    }

    fn say_parallel(&self) {
        let text = "make runs in parallel although no -j was given; -j1 keeps it serial";
        say(&self.place.dir, &Said::Notice(text.to_owned()));
    }

    /// A number that was right for one machine.
    fn say_at_most(&self, jobs: Jobs) {
        if let Some(jobs @ 2..) = jobs.ceiling() {
            let command = format!("{} -j{jobs}", self.call.name);
            say(&self.place.dir, &Said::AtMost { command, jobs });
        }
    }

    /// `make CC=/usr/bin/gcc`.
    fn name_absolute_compiler(&self, words: &[String]) {
        for word in words {
            if let Some((name @ ("CC" | "CXX"), value)) = word.split_once('=')
                && value.starts_with('/')
            {
                let text = bypass(name, OsStr::new(value));
                say(&self.place.dir, &Said::Blind(text));
            }
        }
    }

    fn ninja(&self, words: &[String]) -> ! {
        let adapted = adapt_ninja(words);
        let mut command = self.call.command(&self.with_fixed_jobs(words, &adapted));
        self.say_at_most(adapted.jobs);
        match self.tree(adapted.directory.as_deref()) {
            Some(_) => self.hide_masquerade(&mut command),
            None => drop(command.env("PATH", self.place.masked_path())),
        }
        execute(&mut command)
    }

    /// ninja has no jobserver client: it gets a number, and dispatch queues what is too much. Nothing is added that would wait there,
    /// for as many links or generators may run here at once.
    fn with_fixed_jobs(&self, words: &[String], adapted: &Adapted) -> Vec<String> {
        match adapted.jobs {
            Jobs::Unsaid => {
                let jobs = format!("-j{}", self.total());
                [vec![jobs], words.to_vec()].concat()
            }
            Jobs::Unlimited | Jobs::AtMost(_) => words.to_vec(),
        }
    }

    fn total(&self) -> u32 {
        self.state.local.saturating_add(self.state.capacity).max(1)
    }

    fn cmake(&self, words: &[String]) -> ! {
        match cmake::call(words) {
            cmake::Call::Build(build) => self.cmake_build(words, build),
            cmake::Call::Configure => {
                let mut command = self.call.command(words);
                self.hide_masquerade(&mut command);
                match self.state.reconfigure {
                    true => drop(command.args(self.launcher_definitions())),
                    false => self.name_launchers(),
                }
                execute(&mut command)
            }
            cmake::Call::Other => execute(&mut self.call.command(words)),
        }
    }

    /// It may configure a tree, too.
    fn part_of_cmake(&self, words: &[String]) -> ! {
        let mut command = self.call.command(words);
        self.hide_masquerade(&mut command);
        self.name_launchers();
        execute(&mut command)
    }

    fn cmake_build(&self, words: &[String], build: BuildCall) -> ! {
        let tree = build.dir.as_deref().and_then(|dir| self.tree(Some(dir)));
        let level = text_variable("CMAKE_BUILD_PARALLEL_LEVEL").map(|level| parallel_level(&level));
        let jobs = build.jobs.or(level.unwrap_or_default());
        let mut typed = self.call.command(words);
        self.hide_masquerade(&mut typed);
        match tree.map(|tree| tree.generator) {
            Some(Generator::Makefiles) => {
                let native = adapt_make(&build.native);
                let start = Start {
                    command: self.cmake_command(&build, &native.args),
                    jobs: native.jobs.or(jobs),
                };
                self.start_make(start, typed)
            }
            Some(Generator::Ninja) => {
                let native = adapt_ninja(&build.native);
                let unsaid = native.jobs == Jobs::Unsaid && jobs.ceiling().is_none();
                self.say_at_most(native.jobs.or(jobs));
                if unsaid {
                    let fixed = [vec![format!("-j{}", self.total())], build.native.clone()];
                    execute(&mut self.cmake_command(&build, &fixed.concat()))
                }
                execute(&mut typed)
            }
            // A preset's tree is not known here; CMake's own variable reaches whatever builds it.
            None if jobs == Jobs::Unsaid => {
                let total = self.total().to_string();
                execute(typed.env("CMAKE_BUILD_PARALLEL_LEVEL", total))
            }
            Some(Generator::Other) | None => {
                self.say_at_most(jobs);
                execute(&mut typed)
            }
        }
    }

    fn cmake_command(&self, build: &BuildCall, native: &[String]) -> Command {
        let mut command = self.call.command(&build.args);
        self.hide_masquerade(&mut command);
        command.env_remove("CMAKE_BUILD_PARALLEL_LEVEL");
        if !native.is_empty() {
            command.arg("--").args(native);
        }
        command
    }

    /// CMake writes down every compiler and tool that it finds: it must find the real ones, and the launcher.
    fn hide_masquerade(&self, command: &mut Command) {
        command.env("PATH", self.place.plain_path());
        let Some(launcher) = &self.state.launcher else {
            return;
        };
        for name in LAUNCHERS {
            if own_launcher(name, launcher).is_none() {
                command.env(name, launcher);
            }
        }
    }

    /// CMake will take a launcher of the person's own from the environment. ccache asks us, as CCACHE_PREFIX tells it.
    fn name_launchers(&self) {
        let ours = self.state.launcher.clone().unwrap_or_default();
        for name in LAUNCHERS {
            let Some(own) = own_launcher(name, &ours) else {
                continue;
            };
            let program = own.split(';').next().unwrap_or_default();
            if Path::new(program).file_name() != Some(OsStr::new("ccache")) {
                let text = format!(
                    "{name}={own} stands where distmesh would, so a tree that is configured now sends no compile; unset it"
                );
                say(&self.place.dir, &Said::Blind(text));
            }
        }
    }

    fn launcher_definitions(&self) -> Vec<OsString> {
        let define = |language: &str, launcher: &PathBuf| {
            let mut define = OsString::from(format!("-DCMAKE_{language}_COMPILER_LAUNCHER="));
            define.push(launcher);
            define
        };
        let launcher = self.state.launcher.iter();
        launcher
            .flat_map(|launcher| ["C", "CXX"].map(|language| define(language, launcher)))
            .collect()
    }

    /// The CMake tree in a directory, if there is one. A tree without the launcher gets it, or is named.
    fn tree(&self, dir: Option<&str>) -> Option<Tree> {
        let dir = Path::new(dir.unwrap_or("."));
        let cache = std::fs::read_to_string(dir.join("CMakeCache.txt")).ok()?;
        let launcher = self.state.launcher.clone().unwrap_or_default();
        let tree = read_cache(&cache, &launcher.to_string_lossy());
        let launched = tree.launched || (self.state.reconfigure && self.reconfigure(dir));
        // Below a make, its own shim has said it.
        if !launched && variable("MAKELEVEL").is_none() {
            self.name_unlaunched(dir);
        }
        Some(tree)
    }

    fn name_unlaunched(&self, dir: &Path) {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let text = format!(
            "the CMake tree {} was configured without distmesh, so its compiles are not seen; \
             say --reconfigure once, or start a fresh tree under distmesh",
            dir.display()
        );
        say(&self.place.dir, &Said::Blind(text));
    }

    /// Gives the tree the launcher. CMake's output is not asked for.
    fn reconfigure(&self, dir: &Path) -> bool {
        let mut cmake = match self.call.name {
            "cmake" | "cmake3" => Command::new(&self.call.real),
            _ => Command::new("cmake"),
        };
        self.hide_masquerade(&mut cmake);
        cmake.args(self.launcher_definitions()).arg(dir);
        cmake.output().is_ok_and(|output| output.status.success())
    }
}

const LAUNCHERS: [&str; 2] = ["CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER"];

/// What the person has put there.
fn own_launcher(name: &str, ours: &Path) -> Option<String> {
    let own = text_variable(name)?;
    (!own.is_empty() && Path::new(&own) != ours).then_some(own)
}

/// What this very process was told of jobs, when it began.
fn said_before() -> Option<Jobs> {
    let text = text_variable(JOBS)?;
    let (process, jobs) = text.split_once(':')?;
    if process.parse() != Ok(std::process::id()) {
        return None;
    }
    match jobs {
        "" => Some(Jobs::Unsaid),
        "*" => Some(Jobs::Unlimited),
        number => number.parse().ok().map(Jobs::AtMost),
    }
}

fn remembered(jobs: Jobs) -> String {
    let process = std::process::id();
    match jobs {
        Jobs::Unsaid => format!("{process}:"),
        Jobs::Unlimited => format!("{process}:*"),
        Jobs::AtMost(most) => format!("{process}:{most}"),
    }
}

/// Asked only where a tool was named by its path.
fn is_script(program: &Path) -> bool {
    if variable(NAMED_TOOL).is_none() {
        return false;
    }
    let mut start = [0; 2];
    let read = File::open(program).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"#!"
}

/// Opens the pipes for the make that we become, and names them. make before 4.2, as Apple's 3.81, knows the first option alone, later ones
/// the second; each passes over what it does not know, where it stands in `MAKEFLAGS`.
fn jobserver(dir: &Path) -> io::Result<String> {
    let tokens = inheritable(open_pipe(dir, PipeEnd::Tokens)?)?;
    let returned = inheritable(open_pipe(dir, PipeEnd::Returned)?)?;
    let pipes = format!("{tokens},{returned}");
    Ok(format!("--jobserver-fds={pipes} --jobserver-auth={pipes}"))
}

fn inheritable(pipe: File) -> io::Result<i32> {
    rustix::io::fcntl_setfd(&pipe, rustix::io::FdFlags::empty())?;
    Ok(pipe.into_raw_fd())
}
