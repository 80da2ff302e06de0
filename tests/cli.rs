//! The binary as a person or a script meets it.

#![expect(
    clippy::unwrap_used,
    reason = "the steps around the tests are tests too"
)]

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// A machine of its own: an empty environment, a PATH and a runtime directory of the test's.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(TempDir::new().unwrap());
        std::fs::create_dir(machine.0.path().join("bin")).unwrap();
        machine
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn distmesh(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("distmesh"));
        command
            .args(args)
            .env_clear()
            .env("PATH", self.dir().join("bin"))
            .env("DISTMESH_RUNTIME_DIR", self.dir().join("run"))
            .env("HOME", self.dir())
            .current_dir(self.dir());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.distmesh(args).output().unwrap()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn subcommands() -> Vec<String> {
    let command = distmesh::cli::command();
    command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect()
}

#[test]
fn every_subcommand_teaches_by_example_and_tells_its_exit_codes() {
    let machine = Machine::new();
    for subcommand in subcommands() {
        let output = machine.run(&[&subcommand, "--help"]);
        let help = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{subcommand}");
        assert_eq!(stderr(&output), "", "{subcommand}");
        for wanted in [
            "Example",
            &format!("distmesh {subcommand}"),
            "Exit codes:",
            "Usage:",
        ] {
            assert!(
                help.contains(wanted),
                "{subcommand}: no {wanted:?} in\n{help}"
            );
        }
    }
}

#[test]
fn the_first_help_shows_the_two_commands_that_matter_and_every_subcommand() {
    let help = stdout(&Machine::new().run(&["--help"]));
    for wanted in [
        "distmesh worker",
        "distmesh build -- make -j",
        "DISTMESH_MIN_WORKERS",
    ] {
        assert!(help.contains(wanted), "no {wanted:?} in\n{help}");
    }
    for subcommand in subcommands() {
        assert!(
            help.contains(&format!("\n  {subcommand} ")),
            "{subcommand} is not listed"
        );
    }
}

#[test]
fn a_wrong_command_line_is_one_clear_message_with_a_hint_and_code_2() {
    let machine = Machine::new();
    for (args, wanted) in [
        (&["keygen", "--loud"][..], "--loud"),
        (&["keygne"], "keygen"),
        (&["doctor", "--stun", "somewhere"], "HOST:PORT"),
        (&["completions"], "SHELL"),
        (&["completions", "tcsh"], "bash"),
    ] {
        let output = machine.run(args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.starts_with("distmesh: error: "), "{args:?}: {said}");
        assert!(said.contains(wanted), "{args:?}: {said}");
        assert!(said.contains("\n  try: "), "{args:?}: {said}");
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn without_a_subcommand_the_help_is_shown_and_the_code_is_2() {
    let output = Machine::new().run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("Commands:"));
    assert_eq!(stdout(&output), "");
}

#[test]
fn keygen_prints_a_secret_alone_on_stdout_and_never_the_same() {
    let machine = Machine::new();
    let secret = || {
        let output = machine.run(&["keygen"]);
        assert_eq!(output.status.code(), Some(0));
        let hint = stderr(&output);
        assert!(
            hint.contains("--secret-file") && hint.contains("ENCRYPTION_KEY"),
            "{hint}"
        );
        stdout(&output)
    };
    let (one, two) = (secret(), secret());
    assert_ne!(one, two);
    for secret in [one, two] {
        let digits = secret.strip_suffix('\n').unwrap();
        assert_eq!(digits.len() * 4, 256, "{digits}");
        assert!(digits.bytes().all(|b| b.is_ascii_hexdigit()), "{digits}");
    }
}

#[test]
fn quiet_is_quiet_on_the_command_line_and_as_a_variable() {
    let machine = Machine::new();
    assert_eq!(stderr(&machine.run(&["keygen", "-q"])), "");
    let said = |value| {
        let output = machine
            .distmesh(&["keygen"])
            .env("DISTMESH_QUIET", value)
            .output();
        stderr(&output.unwrap())
    };
    assert_eq!(said("1"), "");
    for unset in ["", "0", "false"] {
        assert_ne!(said(unset), "", "DISTMESH_QUIET={unset:?}");
    }
}

#[test]
fn an_empty_variable_is_an_unset_one_and_a_wrong_one_is_a_usage_error() {
    let machine = Machine::new();
    let doctor = |value| {
        let mut command = machine.distmesh(&["doctor", "--json"]);
        command
            .env("DISTMESH_VERBOSE", "")
            .env("DISTMESH_STUN", value)
            .output()
            .unwrap()
    };
    assert_ne!(doctor("none").status.code(), Some(2));
    let output = doctor("nonsense");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("HOST:PORT"), "{}", stderr(&output));
}

#[test]
fn directives_of_the_debug_log_that_are_not_understood_cost_a_warning_only() {
    let machine = Machine::new();
    let mut command = machine.distmesh(&["keygen"]);
    let output = command.env("DISTMESH_LOG", "a=b=c").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stderr(&output).starts_with("distmesh: warning: DISTMESH_LOG=a=b=c"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn completions_exist_for_the_usual_shells_and_bash_accepts_its_own() {
    let machine = Machine::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&machine.run(&["completions", shell]));
        for subcommand in subcommands() {
            assert!(script.contains(&subcommand), "{shell}: no {subcommand}");
        }
        if shell == "bash" {
            let mut bash = Command::new("bash")
                .arg("-n")
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            bash.stdin
                .take()
                .unwrap()
                .write_all(script.as_bytes())
                .unwrap();
            assert!(bash.wait().unwrap().success());
        }
    }
}

#[test]
fn the_manual_has_a_section_for_every_subcommand_and_names_the_variables() {
    let page = stdout(&Machine::new().run(&["man"]));
    for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"] {
        assert!(page.contains(&format!("\n.SH {section}")), "{section}");
    }
    for subcommand in subcommands() {
        let section = format!("\n.SH \"DISTMESH {}\"", subcommand.to_uppercase());
        assert!(page.contains(&section), "{subcommand}");
    }
    assert!(page.contains("DISTMESH_QUIET"));
    assert!(page.contains("Exit codes:"));
}

#[test]
fn a_doctor_on_an_empty_machine_tells_a_script_what_is_missing_and_exits_with_1() {
    let machine = Machine::new();
    let output = machine.run(&["doctor", "--json", "--stun", "none"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = json["checks"].as_array().unwrap();
    let state = |name: &str| {
        let check = checks.iter().find(|check| check["name"] == name);
        check.unwrap_or_else(|| panic!("no {name} in {json}"))["state"].clone()
    };
    assert_eq!(state("distcc"), "missing");
    assert_eq!(state("compilers"), "missing");
    assert_eq!(state("private directory"), "ok");
    assert_eq!(json["useful"], false);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_doctor_finds_what_a_machine_has() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new();
    for (name, version) in [
        ("distcc", "distcc 3.4 here"),
        ("gcc", "gcc 12.2.0"),
        ("make", "GNU Make 3.81"),
    ] {
        let path = machine.dir().join("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{version}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = machine.distmesh(&["doctor", "--stun", "none"]);
    let output = command.env("DISTCC_HOSTS", "elsewhere").output().unwrap();
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let line = |name: &str| {
        let mut lines = said.lines().filter(|line| line.contains(name));
        lines
            .next()
            .unwrap_or_else(|| panic!("no {name} in\n{said}"))
            .to_owned()
    };
    assert!(line(" distcc  ").starts_with("ok"), "{said}");
    assert!(line(" compilers ").contains("gcc 12.2"), "{said}");
    assert!(line(" make ").starts_with("warn"), "{said}");
    assert!(line(" DISTCC_HOSTS ").contains("ignored"), "{said}");
    assert!(
        !said.contains("elsewhere"),
        "a variable's value is nobody's business:\n{said}"
    );
    assert!(line("This machine can").contains("build"), "{said}");
}

#[test]
fn a_runtime_directory_that_others_can_write_to_is_named_with_its_cure() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new();
    let run = machine.dir().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o777)).unwrap();
    let output = machine.run(&["doctor", "--stun", "none"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output);
    assert!(
        said.contains("not private") && said.contains("DISTMESH_RUNTIME_DIR"),
        "{said}"
    );
}

#[test]
fn a_runtime_directory_too_long_for_a_socket_is_named_with_its_cure() {
    let machine = Machine::new();
    let mut command = machine.distmesh(&["doctor", "--stun", "none"]);
    let long = machine.dir().join("x".repeat(90));
    let output = command.env("DISTMESH_RUNTIME_DIR", long).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output);
    assert!(
        said.contains("too long") && said.contains("DISTMESH_RUNTIME_DIR"),
        "{said}"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_crash() {
    let machine = Machine::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = machine.distmesh(&["man"]).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = machine
        .distmesh(&["keygen"])
        .stderr(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout.len(), 65);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_under_stdout_is_a_failure() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = Machine::new()
        .distmesh(&["keygen"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(96));
    assert!(stderr(&output).contains("cannot write to standard output"));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test is a shell")]
fn compilers_are_the_small_program_where_it_lies_beside_this_one() {
    let machine = Machine::new();
    let look = "readlink \"$DISTMESH_BUILD_DIR/compilers/gcc\"";
    let path = std::env::var_os("PATH").unwrap();
    let link = |program: &Path| {
        let build = Command::new(program)
            .args(["build", "--", "sh", "-c", look])
            .env_clear()
            .env("PATH", &path)
            .env("DISTMESH_RUNTIME_DIR", machine.dir().join("run"))
            .env("DISTMESH_STUN", "none")
            .env("HOME", machine.dir())
            .output()
            .unwrap();
        assert!(build.status.success(), "{}", stderr(&build));
        stdout(&build).trim().to_owned()
    };
    let small = assert_cmd::cargo::cargo_bin!("distmesh-shim");
    let whole = assert_cmd::cargo::cargo_bin!("distmesh");
    assert_eq!(Path::new(&link(whole)), small);
    let alone = machine.dir().join("distmesh");
    std::fs::copy(whole, &alone).unwrap();
    assert_eq!(Path::new(&link(&alone)), alone);
    let other = machine.dir().join("distmesh-shim");
    std::fs::write(&other, "#!/bin/sh\necho distmesh-shim 0.0.0\n").unwrap();
    std::fs::set_permissions(&other, std::fs::metadata(&alone).unwrap().permissions()).unwrap();
    assert_eq!(Path::new(&link(&alone)), alone, "another version's");
}

#[test]
fn the_small_program_says_what_it_is_for() {
    let small = assert_cmd::cargo::cargo_bin!("distmesh-shim");
    let called = Command::new(small).output().unwrap();
    assert_eq!(called.status.code(), Some(2));
    assert!(stderr(&called).contains("distmesh build -- make"));
}
