//! Workers whose compiler is another than the primary's: they get no job that they would compile differently, the report says
//! what differs and how to cure it, and the objects are right all the same.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cluster::{Built, Cluster, until},
    toolbox::{Sources, Toolbox},
};

const GCC: &str = "/usr/bin/gcc";
const FILES: u32 = 8;

/// Builds with gcc and compares every object.
#[track_caller]
fn build(cluster: &Cluster, workers: u32, flags: &str) -> Built {
    let sources = Sources::new(FILES);
    let flags_word = format!("FLAGS={flags}");
    let command = ["make", "-j4", "CC=gcc", &flags_word];
    let built = cluster.build(workers, sources.path(), &command);
    built.exits(0);
    sources.are_as_compiled_here("gcc", flags);
    built
}

/// Builds with the other worker alone, then with a good one beside it.
#[track_caller]
fn is_refused(toolbox: &Toolbox, reasons: &[&str]) {
    let mut cluster = Cluster::new();
    cluster.worker_on("other", &toolbox.path());
    let alone = build(&cluster, 1, "-O2 -g");
    assert_eq!(alone.number("/jobs/remote"), 0, "{}", alone.report);
    says_why(&alone, reasons);
    cluster.worker("good", 2);
    let beside = build(&cluster, 2, "-O0");
    assert_eq!(beside.jobs_of("other"), 0, "{}", beside.report);
    assert_eq!(
        beside.jobs_of("good"),
        u64::from(FILES),
        "{}",
        beside.report
    );
    says_why(&beside, reasons);
}

#[track_caller]
fn says_why(built: &Built, reasons: &[&str]) {
    let refused = built.refused("other", GCC);
    for reason in reasons {
        assert!(refused.contains(reason), "{reason:?} is not in: {refused}");
    }
}

fn output_of(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Some `gcc-N` that is not what `gcc` is. Which there are differs between systems.
fn another_gcc() -> (PathBuf, String) {
    let ours = output_of(GCC, &["-dumpfullversion"]);
    let versioned = fs::read_dir("/usr/bin").unwrap().flatten().filter(|entry| {
        let name = entry.file_name();
        let version = name.to_str().unwrap_or_default().strip_prefix("gcc-");
        version.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let mut others = versioned.filter_map(|entry| {
        let version = output_of(entry.path().to_str().unwrap(), &["-dumpfullversion"]);
        (version != ours).then_some((entry.path(), version))
    });
    others.next().unwrap_or_else(|| {
        panic!("a second gcc is needed beside {ours}: scripts/test installs one, or say apt-get install gcc-N")
    })
}

#[test]
fn another_version_is_refused() {
    let (other, version) = another_gcc();
    let toolbox = Toolbox::new();
    toolbox.link(&other, "gcc");
    let ours = output_of(GCC, &["-dumpfullversion"]);
    let wanted = format!("install gcc-{}", ours.split('.').next().unwrap());
    is_refused(&toolbox, &[&version, &ours, &wanted]);
}

#[test]
fn a_wrapper_that_adds_a_flag_is_refused() {
    for flag in ["-O0", "-DX=1"] {
        let toolbox = Toolbox::new();
        toolbox.script("gcc", &format!("exec {GCC} \"$@\" {flag}"));
        is_refused(&toolbox, &["other default flags", "`-### -c t.c`"]);
    }
}

#[test]
fn a_wrapper_that_is_honest_about_itself_and_cheats_with_some_flags_is_refused() {
    for flag in ["-g", "-O0"] {
        let toolbox = Toolbox::new();
        let body = format!(
            "for arg; do case \"$arg\" in -\\#\\#\\#) exec {GCC} \"$@\" ;; esac; done\n\
             for arg; do case \"$arg\" in {flag}) exec {GCC} \"$@\" -fno-inline -fshort-enums ;; esac; done\nexec {GCC} \"$@\""
        );
        toolbox.script("gcc", &body);
        is_refused(&toolbox, &["another object of the same source"]);
    }
}

#[test]
fn another_default_target_is_refused() {
    // A real gcc cannot change its target; one that says so is as good as a real one.
    let toolbox = Toolbox::new();
    let body = format!(
        "case \"$1\" in -dumpmachine) echo vax-unknown-netbsd ;; *) exec {GCC} \"$@\" ;; esac"
    );
    toolbox.script("gcc", &body);
    is_refused(
        &toolbox,
        &["compiles for vax-unknown-netbsd", "same architecture"],
    );
}

#[test]
fn a_specs_file_beside_the_compiler_is_refused() {
    let toolbox = Toolbox::new();
    let real = fs::canonicalize(GCC).unwrap();
    // gcc finds its own files from where it lies, as far as it is not a link.
    let proper = PathBuf::from(output_of(GCC, &["-print-prog-name=cc1"]));
    let libexec = proper.parent().unwrap();
    let lib = PathBuf::from(output_of(GCC, &["-print-libgcc-file-name"]));
    let prefix = toolbox.at("bin").parent().unwrap().to_owned();
    for dir in [libexec, lib.parent().unwrap()] {
        let copy = prefix.join(dir.strip_prefix("/usr").unwrap());
        fs::create_dir_all(&copy).unwrap();
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let _ = symlink(entry.path(), copy.join(entry.file_name()));
        }
    }
    let specs = prefix
        .join(lib.parent().unwrap().strip_prefix("/usr").unwrap())
        .join("specs");
    fs::write(specs, "*cc1_options:\n+ -fno-inline -fshort-enums\n\n").unwrap();
    fs::copy(real, toolbox.at("bin").join("gcc")).unwrap();
    is_refused(&toolbox, &["other default flags, specs"]);
}

#[test]
fn a_specs_file_that_a_wrapper_names_is_refused() {
    let toolbox = Toolbox::new();
    let specs = toolbox.at("specs");
    // Only without optimisation, so that no question about the compiler shows it but the canary.
    fs::write(&specs, "*cc1_options:\n+ %{O0:-fshort-enums}\n\n").unwrap();
    toolbox.script(
        "gcc",
        &format!("exec {GCC} -specs={} \"$@\"", specs.display()),
    );
    is_refused(&toolbox, &["another object of the same source"]);
}

/// An assembler that appends a byte to each object.
fn broken_assembler(real: &Path) -> String {
    let real = real.display();
    format!("{real} \"$@\" || exit 1\nwhile [ \"$1\" != -o ]; do shift; done\nprintf x >> \"$2\"")
}

#[test]
fn a_broken_assembler_is_refused_wherever_it_comes_from() {
    let real = fs::canonicalize("/usr/bin/as").unwrap();
    let on_path = Toolbox::new();
    on_path.script("as", &broken_assembler(&real));
    on_path.script("gcc", &format!("exec {GCC} \"$@\""));
    let named = Toolbox::new();
    fs::create_dir(named.at("binutils")).unwrap();
    let broken = named.script("as", &broken_assembler(&real));
    fs::rename(broken, named.at("binutils/as")).unwrap();
    let body = format!("exec {GCC} -B{}/ \"$@\"", named.at("binutils").display());
    named.script("gcc", &body);
    for toolbox in [on_path, named] {
        is_refused(&toolbox, &["another object", "assembler"]);
    }
}

#[test]
fn a_compiler_that_is_replaced_after_it_was_admitted_makes_no_object_more() {
    let toolbox = Toolbox::new();
    toolbox.script("gcc", &format!("exec {GCC} \"$@\""));
    let mut cluster = Cluster::new();
    cluster.worker_on("other", &toolbox.path());
    let up = cluster.distmesh(&["up", "--min-workers", "1"]).output();
    assert!(up.unwrap().status.success());
    let before = build(&cluster, 1, "-O2 -g");
    assert_eq!(
        before.jobs_of("other"),
        u64::from(FILES),
        "{}",
        before.report
    );
    // Replaced while nothing runs, and while something does.
    toolbox.script(
        "gcc",
        &format!("exec {GCC} \"$@\" -fno-inline -fshort-enums"),
    );
    let after = build(&cluster, 1, "-O2 -g");
    assert_eq!(after.jobs_of("other"), 0, "{}", after.report);
    until("the report names it", || {
        let built = build(&cluster, 1, "-O2");
        built.jobs_of("other") == 0
            && built.report["refused"]
                .as_array()
                .unwrap()
                .iter()
                .any(|refused| {
                    refused["compiler"] == GCC
                        && refused["reason"]
                            .as_str()
                            .unwrap()
                            .contains("other default flags")
                })
    });
    toolbox.script("gcc", &format!("exec {GCC} \"$@\""));
    until("it is admitted again", || {
        build(&cluster, 1, "-O2").jobs_of("other") == u64::from(FILES)
    });
    let down = cluster.distmesh(&["down"]).output().unwrap();
    assert!(down.status.success());
}

#[test]
fn a_compiler_that_is_replaced_in_mid_build_costs_attempts_and_no_object() {
    let toolbox = Toolbox::new();
    toolbox.script("gcc", &format!("exec {GCC} \"$@\""));
    let mut cluster = Cluster::new();
    cluster.worker_on("other", &toolbox.path());
    let sources = Sources::new(24);
    let bad = toolbox.script(
        "bad",
        &format!("sleep 0.1; exec {GCC} \"$@\" -fno-inline -fshort-enums"),
    );
    // The recipe of one source is the upgrade.
    let upgrade = format!(
        "BEFORE=@sleep 0.3; if [ $@ = f12.o ]; then mv {} {}; fi",
        bad.display(),
        toolbox.at("bin/gcc").display()
    );
    let command = ["make", "-j4", "CC=gcc", "FLAGS=-O2 -g", &upgrade];
    let built = cluster.build(1, sources.path(), &command);
    built.exits(0);
    sources.are_as_compiled_here("gcc", "-O2 -g");
    let jobs = built.jobs_of("other");
    assert!((1..24).contains(&jobs), "{}", built.report);
}

#[test]
fn a_compiler_that_comes_in_mid_build_is_admitted_in_the_same_build() {
    let toolbox = Toolbox::new();
    // The worker has another one at first.
    toolbox.script("clang", "exec /usr/bin/clang \"$@\"");
    let mut cluster = Cluster::new();
    cluster.worker_on("other", &toolbox.path());
    let wrapper = format!("exec {GCC} \"$@\"");
    let install = toolbox.script("later", &wrapper);
    let before = format!(
        "BEFORE=@sleep 0.4; if [ $@ = f12.o ]; then mv {} {}; fi",
        install.display(),
        toolbox.at("bin/gcc-99").display()
    );
    // Here the recipe makes it, in a directory of its own before all others on PATH; and behind ccache.
    let here = Toolbox::new();
    let script = format!(
        "printf '#!/bin/sh\\n%s\\n' '{wrapper}' > {bin}/gcc-99; chmod 755 {bin}/gcc-99; export CCACHE_DISABLE=1; \
         PATH={bin}:$PATH; export PATH; make -j2 \"$@\"",
        bin = here.at("bin").display()
    );
    let behind_ccache = format!("CC=ccache {}", here.at("bin/gcc-99").display());
    for compiler in ["CC=gcc-99", &behind_ccache] {
        let sources = Sources::new(40);
        let command = ["sh", "-c", &script, "sh", compiler, "FLAGS=-O2", &before];
        let built = cluster.build(1, sources.path(), &command);
        built.exits(0);
        sources.are_as_compiled_here("gcc", "-O2");
        let (remote, local) = (built.number("/jobs/remote"), built.number("/jobs/local"));
        assert!(remote > 0, "{compiler}: {local} local\n{}", built.stderr());
        assert_eq!(remote + local, 40, "{compiler}: every compile is seen");
        // For the second way it is there from the start.
        toolbox.script("later", &wrapper);
    }
}

#[test]
fn a_compiler_that_nothing_names_beforehand_is_asked_in_the_build_that_calls_it() {
    let toolbox = Toolbox::new();
    // A worker without one of the primary's usual ones would look for it among all that it has.
    for name in ["gcc", "g++"] {
        toolbox.script(name, &format!("exec /usr/bin/{name} \"$@\""));
    }
    let asked = toolbox.at("asked");
    let clang = format!("touch {}; exec /usr/bin/clang \"$@\"", asked.display());
    toolbox.script("clang", &clang);
    let mut cluster = Cluster::new();
    cluster.worker_on("other", &toolbox.path());
    let sources = Sources::new(40);
    // Neither the command nor the environment says which one it will be.
    let makefile = sources.path().join("Makefile");
    let text = fs::read_to_string(&makefile).unwrap();
    fs::write(&makefile, format!("CC = clang\n{text}")).unwrap();
    let script = format!(
        "if [ -e {} ]; then touch early; fi; exec make -j2 FLAGS=-O2 BEFORE='@sleep 0.4'",
        asked.display()
    );
    let command = ["sh", "-c", &script];
    let mut build = cluster.build_command(sources.path(), &["--require-workers", "1"], &command);
    build.env_remove("CC").env_remove("CXX");
    let built = cluster.run(build);
    built.exits(0);
    sources.are_as_compiled_here("clang", "-O2");
    assert!(
        !sources.path().join("early").exists(),
        "asked before it was called"
    );
    assert!(built.number("/jobs/local") > 0, "{}", built.stderr());
    assert!(built.jobs_of("other") > 0, "{}", built.stderr());
}
