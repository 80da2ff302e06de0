//! Under a compiler's name, or behind CMake's launcher or ccache.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::super::arguments::{
    Class, changes_the_compiler, clang_directory, classify, for_distcc, precompiled_headers,
};
use super::super::home::Permit;
use super::super::layout::State;
use super::super::permits;
use super::super::record::{Said, say};
use super::{Place, WITHIN, execute, texts, variables};
use crate::distcc::target;
use crate::event::{CompileSeen, Compiler, Route};
use crate::machine::cpu;

/// Becomes distcc, ccache or this compiler, which is a real one.
pub(super) fn compile(real: &Path, args: Vec<OsString>, in_session: Option<(&Place, State)>) -> ! {
    let (Some((place, state)), Some(words)) = (in_session, texts(&args)) else {
        execute(Command::new(real).args(args))
    };
    let mut seen = judge(real, &words, &state);
    let is_compile = seen.route != Route::NotACompile;
    if state.ccache && is_compile {
        say(&place.dir, &cached(seen.clone()));
        let remote = seen.route == Route::Distcc;
        // Only a missing ccache lets this return; then the compile goes on without it.
        let _ = ccache(real, &args, remote, place).exec();
        if remote {
            stay_if_permitted(&mut seen, &state, place);
            seen.spent_us = spent_us();
            say(&place.dir, &Said::CacheMissed(seen.clone()));
        }
    } else {
        stay_if_permitted(&mut seen, &state, place);
        seen.spent_us = spent_us();
        say(&place.dir, &Said::Compile(seen.clone()));
    }
    if seen.route == Route::Distcc {
        let _ = distcc(real, words, &state, place).exec();
    }
    execute(Command::new(real).args(args).env(WITHIN, "1"))
}

/// ccache did not have it, and calls us as its prefix.
pub(super) fn after_cache(named: &Path, args: Vec<OsString>, place: &Place) -> ! {
    let real = place.genuine(named);
    let Some(words) = texts(&args) else {
        execute(Command::new(real).args(args))
    };
    let state = State::read(&place.dir);
    let mut seen = judge(&real, &words, &state);
    stay_if_permitted(&mut seen, &state, place);
    let remote = seen.route == Route::Distcc;
    seen.spent_us = spent_us();
    // Without --ccache the build called it by itself, and nothing was said before.
    let said = match state.ccache {
        true => Said::CacheMissed(seen),
        false => Said::Compile(seen),
    };
    say(&place.dir, &said);
    if remote {
        let _ = distcc(&real, words, &state, place).exec();
    }
    execute(Command::new(real).args(args))
}

fn judge(real: &Path, words: &[String], state: &State) -> CompileSeen {
    let compiler = Compiler {
        path: real.to_string_lossy().into_owned(),
        target: target(words.iter().map(String::as_str)).map(str::to_owned),
    };
    let class = match classify(&compiler.path, words) {
        Class::Distributable(source) => match surroundings(real, words) {
            Some(reason) => Class::Local(reason),
            None => Class::Distributable(source),
        },
        other @ (Class::Local(_) | Class::NotACompile) => other,
    };
    let (route, source) = match class {
        Class::NotACompile => (Route::NotACompile, None),
        Class::Local(reason) => (Route::Local(reason), None),
        Class::Distributable(source) if state.compilers.contains(&compiler) => {
            (Route::Distcc, Some(source))
        }
        Class::Distributable(source) => {
            let reason = "no worker for this compiler yet".to_owned();
            (Route::Local(reason), Some(source))
        }
    };
    let sent = source.as_ref().filter(|_| route == Route::Distcc);
    let source_bytes = sent.and_then(|source| Some(std::fs::metadata(source).ok()?.len()));
    CompileSeen {
        compiler,
        source,
        source_bytes,
        route,
        spent_us: 0,
    }
}

/// What the compiler would find here, besides its arguments, and not at a worker.
fn surroundings(real: &Path, words: &[String]) -> Option<String> {
    let changes = |name: &OsString| {
        let name = name.to_str()?;
        changes_the_compiler(name, words).then(|| format!("{name} changes what the compiler makes"))
    };
    // A precompiled header that clang would take, and that its preprocessor takes, too, so that a worker would lack what it declares.
    let precompiled = || {
        let headers = precompiled_headers(words);
        let found = headers
            .into_iter()
            .find(|header| Path::new(header).exists());
        let found = found.filter(|_| is_clang(real))?;
        Some(format!("{found} is a precompiled header"))
    };
    variables()
        .find_map(|name| changes(&name))
        .or_else(precompiled)
}

/// What this process has cost so far; what follows is another program.
fn spent_us() -> u64 {
    cpu::own().as_micros() as u64
}

/// Where this machine has room for a compile that a worker could do.
fn stay_if_permitted(seen: &mut CompileSeen, state: &State, place: &Place) {
    if seen.route != Route::Distcc {
        return;
    }
    let Some(permit) = permits::take(&place.dir) else {
        return;
    };
    let most = state.spare_at_most.unwrap_or(u64::MAX);
    if permit == Permit::Spare && seen.source_bytes.is_some_and(|bytes| bytes > most) {
        return permits::put_back(&place.dir, permit);
    }
    let reason = match permit {
        Permit::Ordinary => "quicker here than at a worker, or to see whether it is",
        Permit::Spare => "the workers were busy and this machine was not",
    };
    seen.route = Route::Local(reason.to_owned());
    if permit == Permit::Spare {
        // It fails where priorities are somebody else's to give; then it runs like any other.
        let _ = rustix::process::nice(LOWEST);
    }
    let pid = std::process::id();
    let source_bytes = seen.source_bytes;
    let kept = Said::Kept {
        pid,
        permit,
        source_bytes,
    };
    say(&place.dir, &kept);
}

/// More than there are steps: the system takes it for the last one.
const LOWEST: i32 = 19;

/// By its name, or by the name of what it leads to: `cc` may be either.
fn is_clang(compiler: &Path) -> bool {
    let named = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().contains("clang"))
    };
    named(compiler) || std::fs::canonicalize(compiler).is_ok_and(|real| named(&real))
}

/// A compile that stays here is counted now; one that may leave, when ccache misses it.
fn cached(seen: CompileSeen) -> Said {
    match seen.route {
        Route::Distcc => Said::AskedCache {
            compiler: seen.compiler,
        },
        Route::Local(_) | Route::NotACompile => Said::Compile(seen),
    }
}

fn ccache(real: &Path, args: &[OsString], remote: bool, place: &Place) -> Command {
    let mut command = Command::new("ccache");
    command.arg(real).args(args).env("PATH", place.plain_path());
    if remote {
        command.env("CCACHE_PREFIX", place.dir.join("prefix/distcc"));
    } else {
        command.env_remove("CCACHE_PREFIX");
    }
    command
}

fn distcc(real: &Path, words: Vec<String>, state: &State, place: &Place) -> Command {
    let here = std::env::current_dir().unwrap_or_default();
    let told = match here.to_str() {
        Some(directory) if is_clang(real) => clang_directory(&words, directory),
        _ => Vec::new(),
    };
    let program = state.distcc.as_deref().unwrap_or(Path::new("distcc"));
    let mut command = Command::new(program);
    command
        .arg(real)
        .args(for_distcc(words))
        .args(told)
        .env("PATH", place.plain_path());
    command
}
