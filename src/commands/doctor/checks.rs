//! Judges what was found.

use serde::Serialize;

use super::findings::{Answer, Findings, Tool, Version};
use crate::session::NatClass;

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    /// `distmesh build` can distribute from here.
    pub(super) can_build: bool,
    /// `distmesh worker` can run here.
    pub(super) can_work: bool,
    /// The single checks.
    pub(super) checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) state: State,
    pub(super) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    Warn,
    Missing,
}

impl Verdict {
    /// distmesh can do something here.
    pub(super) fn useful(&self) -> bool {
        self.can_build || self.can_work
    }
}

impl Check {
    pub(super) fn ok(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(State::Ok, name, what)
    }

    pub(super) fn warn(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(State::Warn, name, what)
    }

    pub(super) fn missing(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(State::Missing, name, what)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn new(state: State, name: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state,
            what: what.into(),
            hint: None,
        }
    }
}

/// Judges everything.
pub(super) fn judge(found: &Findings) -> Verdict {
    let compiler = COMPILERS.iter().any(|name| found.tools.contains_key(name));
    let base = compiler && found.runtime_dir.is_ok();
    let mut checks = vec![
        distcc(found, "distcc", "build"),
        distcc(found, "distccd", "worker"),
        compilers(found),
        runtime_dir(found),
    ];
    checks.extend(build_tools(found));
    checks.extend(found.masquerades.iter().map(masquerade));
    checks.extend(
        found
            .variables
            .iter()
            .filter_map(|(name, value)| variable(name, value)),
    );
    checks.extend(found.open_files.map(open_files));
    checks.extend(found.receive_buffer.map(receive_buffer));
    checks.push(outside(&found.outside, found.ci));
    checks.push(nat(found.nat));
    Verdict {
        can_build: base && found.tools.contains_key("distcc"),
        can_work: base && found.tools.contains_key("distccd"),
        checks,
    }
}

fn distcc(found: &Findings, name: &'static str, command: &str) -> Check {
    let Some(tool) = found.tools.get(name) else {
        let what = format!("not found; `distmesh {command}` needs it");
        return Check::missing(name, what).hint(INSTALL_DISTCC);
    };
    match tool.version {
        Some(version) if version < DISTCC => Check::warn(name, shown(tool)).hint(format!(
            "distmesh is tested with {DISTCC}: {INSTALL_DISTCC}"
        )),
        Some(_) => Check::ok(name, shown(tool)),
        None => Check::warn(name, shown(tool))
            .hint(format!("{name} --version: it told none, is it {name}?")),
    }
}

fn compilers(found: &Findings) -> Check {
    let listed = COMPILERS.iter().filter_map(|name| {
        let tool = found.tools.get(name)?;
        let version = tool.version.map(|version| format!(" {version}"));
        Some(format!("{name}{}", version.unwrap_or_default()))
    });
    let listed: Vec<_> = listed.collect();
    if listed.is_empty() {
        return Check::missing("compilers", "no C or C++ compiler on PATH")
            .hint("apt-get install gcc g++, or xcode-select --install");
    }
    Check::ok("compilers", listed.join(", "))
}

fn runtime_dir(found: &Findings) -> Check {
    let name = "private directory";
    match &found.runtime_dir {
        Err(why) => Check::missing(name, why)
            .hint("set DISTMESH_RUNTIME_DIR to a short path that only you may write to"),
        Ok(path) => Check::ok(name, path.display().to_string()),
    }
}

fn build_tools(found: &Findings) -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, wanted, otherwise) in BUILD_TOOLS {
        let check = match found.tools.get(name) {
            // Nobody needs them all.
            None => Check::ok(*name, "not found, and not needed unless a build uses it"),
            Some(tool) if tool.version.is_some_and(|version| version >= *wanted) => {
                Check::ok(*name, shown(tool))
            }
            Some(tool) => Check::warn(*name, shown(tool)).hint(*otherwise),
        };
        checks.push(check);
    }
    checks
}

fn masquerade(masquerade: &super::findings::Masquerade) -> Check {
    let dir = masquerade.dir.display();
    let leads_to = &masquerade.leads_to;
    let check = Check::warn(
        "PATH",
        format!("{dir} puts {leads_to} in front of the compilers"),
    );
    match leads_to.as_str() {
        "ccache" => {
            check.hint("use `distmesh build --ccache` and leave that directory out of PATH")
        }
        _ => check.hint("leave that directory out of PATH: distmesh puts its own there"),
    }
}

/// Exported variables that change what a build under distmesh does; `None` for one that does not.
fn variable(name: &str, value: &str) -> Option<Check> {
    let warn = |what: &str| Some(Check::warn(name, format!("is exported: {what}")));
    let hinted = |what: &str, hint: &str| warn(what).map(|check| check.hint(hint));
    if value.is_empty() {
        return None;
    }
    if name.starts_with("DISTCC_") {
        return warn("ignored, distmesh sets distcc up itself");
    }
    match name {
        "CCACHE_PREFIX" => hinted(
            "ccache would call it for every compile",
            "unset it; `distmesh build --ccache` sets it",
        ),
        "MAKEFLAGS" if value.contains("--jobserver") => hinted(
            "an outer make hands out jobs",
            "run distmesh around the outer make, not inside it",
        ),
        "MAKEFLAGS" => warn("a -jN in it is the most jobs that make starts"),
        "CC" | "CXX" if value.starts_with('/') => hinted(
            &format!("{value} goes past distmesh"),
            "use the name without its directory",
        ),
        "CMAKE_C_COMPILER_LAUNCHER" | "CMAKE_CXX_COMPILER_LAUNCHER" => {
            hinted("CMake would use it instead of distmesh's", "unset it")
        }
        _ => None,
    }
}

fn open_files(limit: u64) -> Check {
    let what = format!("{limit} a process");
    if limit < OPEN_FILES {
        return Check::warn("open files", what).hint(format!("ulimit -n {OPEN_FILES}"));
    }
    Check::ok("open files", what)
}

fn receive_buffer(bytes: u64) -> Check {
    let check = Check::ok("UDP receive buffer", format!("up to {} KiB", bytes / 1024));
    if bytes < RECEIVE_BUFFER {
        return check.hint(format!(
            "sysctl -w net.core.rmem_max={RECEIVE_BUFFER}, for links faster than 100 Mbit/s"
        ));
    }
    check
}

fn outside(answers: &[Answer], ci: bool) -> Check {
    let name = "outside address";
    if answers.is_empty() {
        return Check::ok(name, "no STUN server was asked");
    }
    let said = |answer: &Answer| match &answer.address {
        // A CI's logs are often public, the address of a self-hosted runner is not.
        Ok(_) if ci => format!("known (not shown in CI) by {}", answer.server),
        Ok(address) => format!("{address} by {}", answer.server),
        Err(why) => format!("{}: {why}", answer.server),
    };
    let (good, bad): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.address.is_ok());
    let list = |answers: &[&Answer]| {
        answers
            .iter()
            .map(|a| said(a))
            .collect::<Vec<_>>()
            .join("; ")
    };
    if good.is_empty() {
        return Check::warn(
            name,
            format!("unknown, no STUN server answered ({})", list(&bad)),
        )
        .hint("let UDP go out; without it only machines of the same network are reached");
    }
    if bad.is_empty() {
        return Check::ok(name, list(&good));
    }
    Check::warn(
        name,
        format!("{}; no answer from {}", list(&good), list(&bad)),
    )
    .hint("--stun HOST:PORT names others; one is enough, two show what kind of NAT is in between")
}

fn nat(class: NatClass) -> Check {
    let name = "NAT";
    let what = |means: &str| format!("{class}: {means}");
    match class {
        NatClass::None => Check::ok(name, what("this machine has its outside address itself")),
        NatClass::EndpointIndependent => Check::ok(name, what("direct links with most machines")),
        NatClass::AddressDependent | NatClass::AddressAndPortDependent => Check::warn(
            name,
            what("every destination sees another port; links with others of that kind are relayed"),
        )
        .hint("have at least one worker behind a milder NAT or none: it can relay"),
        NatClass::Unknown => Check::warn(name, "unknown: two STUN servers have to answer")
            .hint("--stun HOST:PORT names others"),
    }
}

fn shown(tool: &Tool) -> String {
    let version = tool.version.map(|version| format!("{version}, "));
    format!("{}{}", version.unwrap_or_default(), tool.path.display())
}

/// The compilers that are looked for by their plain names.
pub(super) const COMPILERS: &[&str] = &["cc", "c++", "gcc", "g++", "clang", "clang++"];

/// Build tools, the version that distmesh can do most with, and what is different below it.
pub(super) const BUILD_TOOLS: &[(&str, Version, &str)] = &[
    // --jobserver-auth came with 4.2; before, make tells nobody where its tokens are.
    (
        "make",
        Version(4, 2),
        "4.2 or later, whose jobs can follow the workers; on macOS: brew install make, and call gmake",
    ),
    (
        "cmake",
        Version(3, 4),
        "3.4 or later, which knows compiler launchers",
    ),
    (
        "ninja",
        Version(1, 13),
        "1.13 or later, whose jobs can follow the workers; this one gets a fixed -j",
    ),
    (
        "ccache",
        Version(3, 0),
        "3.0 or later, which knows CCACHE_PREFIX",
    ),
];

/// What all distributions ship today; older ones were never tried.
const DISTCC: Version = Version(3, 4);
const INSTALL_DISTCC: &str =
    "apt-get install distcc, dnf install distcc distcc-server, or brew install distcc";

/// A job in flight holds three: its client, its stream's spool, its log.
const OPEN_FILES: u64 = 1024;

/// What the links ask for, measured as enough for full speed.
const RECEIVE_BUFFER: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::findings::Masquerade;

    fn tool(major: u32, minor: u32) -> Tool {
        Tool {
            path: "/usr/bin/tool".into(),
            version: Some(Version(major, minor)),
        }
    }

    fn nothing() -> Findings {
        Findings {
            tools: [].into(),
            masquerades: Vec::new(),
            variables: [].into(),
            runtime_dir: Ok("/run/user/1/distmesh".into()),
            open_files: None,
            receive_buffer: None,
            outside: Vec::new(),
            nat: NatClass::Unknown,
            ci: false,
        }
    }

    fn complete() -> Findings {
        let tools = ["distcc", "distccd"]
            .map(|name| (name, tool(3, 4)))
            .into_iter();
        let tools = tools.chain(
            BUILD_TOOLS
                .iter()
                .map(|(name, version, _)| (*name, tool(version.0, version.1))),
        );
        Findings {
            tools: tools.chain([("gcc", tool(12, 2))]).collect(),
            nat: NatClass::EndpointIndependent,
            ..nothing()
        }
    }

    fn find<'a>(verdict: &'a Verdict, name: &str) -> &'a Check {
        let found = verdict.checks.iter().find(|check| check.name == name);
        found.unwrap_or_else(|| panic!("no check {name} in {verdict:?}"))
    }

    #[test]
    fn a_complete_machine_has_nothing_to_warn_of() {
        let verdict = judge(&complete());
        assert!(verdict.can_build && verdict.can_work);
        let bad: Vec<_> = verdict
            .checks
            .iter()
            .filter(|c| c.state != State::Ok)
            .collect();
        assert!(bad.is_empty(), "{bad:?}");
    }

    #[test]
    fn a_machine_without_distcc_or_compiler_is_of_no_use_and_every_lack_has_a_hint() {
        let verdict = judge(&nothing());
        assert!(!verdict.useful());
        for name in ["distcc", "distccd", "compilers"] {
            let check = find(&verdict, name);
            assert_eq!(check.state, State::Missing, "{name}");
            assert!(check.hint.is_some(), "{name} has no hint");
        }
    }

    #[test]
    fn one_half_of_distcc_is_enough_for_one_role() {
        let mut found = complete();
        found.tools.remove("distccd");
        let verdict = judge(&found);
        assert!(verdict.can_build && !verdict.can_work && verdict.useful());
        found.runtime_dir = Err("not private".into());
        assert!(!judge(&found).useful());
    }

    #[test]
    fn old_tools_are_named_with_what_they_cannot_do() {
        let mut found = complete();
        found.tools.insert("make", tool(3, 81));
        found.tools.insert("ninja", tool(1, 11));
        found.tools.insert("distccd", tool(3, 3));
        let verdict = judge(&found);
        for (name, word) in [("make", "4.2"), ("ninja", "1.13"), ("distccd", "3.4")] {
            let check = find(&verdict, name);
            assert_eq!(check.state, State::Warn);
            assert!(check.hint.as_ref().unwrap().contains(word), "{check:?}");
        }
    }

    #[test]
    fn what_stands_between_a_build_and_its_compilers_is_named() {
        let mut found = complete();
        found.masquerades.push(Masquerade {
            dir: "/usr/lib/ccache".into(),
            leads_to: "ccache".into(),
        });
        let variables = [
            ("DISTCC_HOSTS", "secret-host"),
            ("CC", "/usr/bin/gcc"),
            ("CXX", "g++"),
            ("CCACHE_DIR", "/c"),
            ("CCACHE_PREFIX", "distcc"),
            ("MAKEFLAGS", " -j --jobserver-auth=3,4"),
        ];
        found.variables = variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let verdict = judge(&found);
        assert!(
            find(&verdict, "PATH")
                .hint
                .as_ref()
                .unwrap()
                .contains("--ccache")
        );
        assert!(find(&verdict, "DISTCC_HOSTS").what.contains("ignored"));
        assert!(find(&verdict, "CC").what.contains("/usr/bin/gcc"));
        assert!(find(&verdict, "MAKEFLAGS").what.contains("outer make"));
        assert!(find(&verdict, "CCACHE_PREFIX").hint.is_some());
        let names: Vec<_> = verdict
            .checks
            .iter()
            .map(|check| check.name.as_str())
            .collect();
        assert!(
            !names.contains(&"CXX") && !names.contains(&"CCACHE_DIR"),
            "{names:?}"
        );
    }

    #[test]
    fn a_nat_that_needs_a_relay_is_said_with_the_cure() {
        let mut found = complete();
        found.nat = NatClass::AddressAndPortDependent;
        let check = find(&judge(&found), "NAT").clone();
        assert_eq!(check.state, State::Warn);
        assert!(check.what.contains("relayed") && check.hint.is_some());
        found.nat = NatClass::EndpointIndependent;
        assert_eq!(find(&judge(&found), "NAT").state, State::Ok);
    }

    #[test]
    fn no_answer_from_outside_is_said_plainly_and_is_no_obstacle() {
        let mut found = complete();
        let answer = |host: &str, address| Answer {
            server: format!("{host}:3478").parse().unwrap(),
            address,
            at: None,
        };
        found.outside = vec![answer("a", Err("no answer in 3 s".into()))];
        let verdict = judge(&found);
        let check = find(&verdict, "outside address");
        assert_eq!(check.state, State::Warn);
        assert!(check.what.contains("no STUN server answered"), "{check:?}");
        assert!(verdict.useful());

        found
            .outside
            .push(answer("b", Ok("192.0.2.1:4".parse().unwrap())));
        let check = find(&judge(&found), "outside address").clone();
        assert!(
            check
                .what
                .starts_with("192.0.2.1:4 by b:3478; no answer from a:3478"),
            "{check:?}"
        );
        found.ci = true;
        let check = find(&judge(&found), "outside address").clone();
        assert!(!check.what.contains("192.0.2.1"), "{check:?}");
    }

    #[test]
    fn small_limits_come_with_the_command_that_raises_them() {
        let mut found = complete();
        (found.open_files, found.receive_buffer) = (Some(256), Some(212_992));
        let verdict = judge(&found);
        assert_eq!(
            find(&verdict, "open files").hint.as_ref().unwrap(),
            "ulimit -n 1024"
        );
        let buffer = find(&verdict, "UDP receive buffer");
        assert_eq!(buffer.what, "up to 208 KiB");
        assert!(buffer.hint.as_ref().unwrap().contains("rmem_max=4194304"));
    }
}
