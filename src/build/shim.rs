//! The program under the name of a compiler or tool: decide, say so, become the real one.

mod compiler;
mod tools;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::guard;
use super::layout::{
    State, first_tool, is_compiler, is_genuine, is_masquerade, is_tool, link_names, masked_path,
    plain_path, real_tool,
};
use crate::machine::namespaces;

/// Set for what a compiler of ours runs. One that is a script, and looks for the next of its name behind its own directory, must
/// find the PATH that it would have without us, or it meets our link and so itself for ever.
const WITHIN: &str = "DISTMESH_WITHIN";

/// The tool that the build's own command named by its path: our link was called in its place, and is by makes below it.
pub(super) const NAMED_TOOL: &str = "DISTMESH_TOOL";

/// Where the session's ports and the numbers of processes count.
pub(super) const NAMESPACES: &str = "DISTMESH_NAMESPACES";

/// The word that makes this program the CMake launcher's other half.
const LAUNCH: &str = "__launch";

/// Where tools are on every system.
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The program that has nothing else in it.
const SMALL: &str = "distmesh-shim";

/// What it says when it is asked for its version.
const VERSION: &str = concat!("distmesh-shim ", env!("CARGO_PKG_VERSION"));

/// What should stand under the names of compilers and tools: the small program if it lies beside this one and is of the same version,
/// else this one.
pub fn program() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let small = own.with_file_name(SMALL);
    let said = Command::new(&small).arg("--version").output();
    let same = said.is_ok_and(|said| said.stdout.trim_ascii() == VERSION.as_bytes());
    Ok(if same { small } else { own })
}

/// What the small program does when it is called by its own name.
pub fn answer_directly() -> ExitCode {
    let mut out = io::stdout();
    if std::env::args_os().any(|word| word == "--version") {
        // Who asked has gone.
        let _ = writeln!(out, "{VERSION}");
        return ExitCode::SUCCESS;
    }
    complain(
        "distmesh-shim stands under the names of compilers during a build; start one by `distmesh build -- make`",
    );
    ExitCode::from(2)
}

/// Becomes the real tool if this program was called as a shim, launcher or guard; returns otherwise. Call it first in
/// `main`.
pub fn run_if_shim() {
    let mut words = std::env::args_os();
    let Some(called) = words.next() else { return };
    let mut args: Vec<OsString> = words.collect();
    let name = Path::new(&called)
        .file_name()
        .unwrap_or_default()
        .to_owned();
    let text = name.to_string_lossy().into_owned();
    let place = Place::find();
    if is_tool(&text) || is_compiler(&text) {
        become_named(&name, called, args, place);
    }
    match (
        text.as_str(),
        args.first().and_then(|arg| arg.to_str()),
        place,
    ) {
        (_, Some(guard::WORD), _) if args.len() == 2 => guard::keep(Path::new(&args[1])),
        (_, Some(LAUNCH), place) if args.len() > 1 => {
            let rest = args.split_off(2);
            let named = Path::new(&args[1]);
            let real = place.as_ref().map(|place| place.genuine(named));
            let in_session = place.as_ref().map(|place| (place, State::read(&place.dir)));
            compiler::compile(real.as_deref().unwrap_or(named), rest, in_session);
        }
        ("distcc", Some(_), Some(place)) => {
            let rest = args.split_off(1);
            compiler::after_cache(Path::new(&args[0]), rest, &place);
        }
        _ => {}
    }
}

fn become_named(name: &OsStr, called: OsString, args: Vec<OsString>, place: Option<Place>) -> ! {
    let path = match &place {
        Some(place) => place.plain_path(),
        None => variable("PATH").unwrap_or_default(),
    };
    let text = name.to_string_lossy();
    // A script of that name that calls the next one on PATH must find the next one.
    let by_path = Path::new(&called).is_absolute() && is_tool(&text);
    let named = variable(NAMED_TOOL).filter(|_| by_path).map(PathBuf::from);
    let named = named.filter(|tool| tool.file_name() == Some(name));
    let state = place.as_ref().map(|place| State::read(&place.dir));
    let state = state.unwrap_or_default();
    // One that workers have is real, which takes ten system calls to find out.
    let is_known = |file: &Path| {
        let mut compilers = state.compilers.iter();
        compilers.any(|compiler| Path::new(&compiler.path) == file)
    };
    let found = |path: &OsStr| {
        first_tool(name, path, |file| {
            is_known(file) || is_genuine(file, own().as_deref())
        })
    };
    let real = named.or_else(|| found(&path));
    // A build may have kept nothing but our links on PATH, as bitbake does.
    let Some(real) = real.or_else(|| found(OsStr::new(USUAL_PATH))) else {
        fail(name)
    };
    match place {
        Some(place) if is_tool(&text) => tools::adapt(
            tools::Call {
                name: &text,
                called,
                real,
                args,
            },
            &place,
            state,
        ),
        Some(place) if variable(WITHIN).is_some() => execute(
            Command::new(name)
                .args(args)
                .env("PATH", place.plain_path()),
        ),
        place => compiler::compile(&real, args, place.as_ref().map(|place| (place, state))),
    }
}

/// The session that this shim belongs to.
struct Place {
    dir: PathBuf,
    path: OsString,
}

impl Place {
    /// `None` when the session has ended, or is out of reach: `unshare -n make` sees its files and not its ports.
    fn find() -> Option<Self> {
        let dir = PathBuf::from(variable("DISTMESH_BUILD_DIR")?);
        let its = variable(NAMESPACES);
        if its.is_some() && its != namespaces().map(OsString::from) {
            return None;
        }
        let path = variable("PATH").unwrap_or_default();
        dir.join("record.sock")
            .exists()
            .then_some(Self { dir, path })
    }

    fn plain_path(&self) -> OsString {
        plain_path(&self.path, &self.dir)
    }

    /// PATH with our links first, and a link for every compiler on it. A recipe that has put a toolchain before them is why they
    /// may not be.
    fn masked_path(&self) -> OsString {
        let masked = masked_path(&self.path, &self.dir);
        if masked != self.path
            && let Some(exe) = variable("DISTMESH_EXE")
        {
            // Where a link cannot be made, the compiler itself is found.
            let _ = link_names(&self.dir, Path::new(&exe), &self.plain_path());
        }
        masked
    }

    /// The compiler itself, where a masquerade or a link of ours was named.
    fn genuine(&self, compiler: &Path) -> PathBuf {
        let name = compiler.file_name().unwrap_or_default();
        let posed = compiler.starts_with(&self.dir) || is_masquerade(compiler);
        let real = posed
            .then(|| real_tool(name, &self.path, own().as_deref()))
            .flatten();
        real.unwrap_or_else(|| compiler.to_owned())
    }
}

fn own() -> Option<PathBuf> {
    std::env::current_exe().and_then(std::fs::canonicalize).ok()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a shim is a shell: its input is its environment"
)]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The names of all that are not empty.
fn variables() -> impl Iterator<Item = OsString> {
    let all = std::env::vars_os();
    all.filter(|(_, value)| !value.is_empty())
        .map(|(name, _)| name)
}

/// The same, when it is text.
fn text_variable(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}

/// Arguments as text; `None` if one is not UTF-8: then nothing of ours applies.
fn texts(args: &[OsString]) -> Option<Vec<String>> {
    let text = |arg: &OsString| arg.to_str().map(str::to_owned);
    args.iter().map(text).collect()
}

/// Becomes another program. As a shell says it when that fails.
fn execute(command: &mut Command) -> ! {
    let error = command.exec();
    complain(&format!(
        "{}: {error}",
        command.get_program().to_string_lossy()
    ));
    std::process::exit(if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    })
}

fn fail(name: &OsStr) -> ! {
    let name = name.to_string_lossy();
    complain(&format!(
        "{name}: not found on PATH behind distmesh; install it"
    ));
    std::process::exit(127)
}

/// A shim speaks for itself: the program's user interface is in another process.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "distmesh: {text}");
}
