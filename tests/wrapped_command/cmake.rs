//! CMake trees: the cache names only what outlives the session, and `--build` is as parallel as make.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use distmesh::build::BuildOptions;
use distmesh::event::Load;

use crate::stage::{Stage, which};

const LISTS: &str =
    "cmake_minimum_required(VERSION 3.16)\nproject(t C)\nadd_executable(t a.c b.c)\n";
const A: &str = "int main(void) { return 0; }\n";
/// Custom commands that write how many ran when each began.
const COUNTING: &str = "cmake_minimum_required(VERSION 3.16)\nproject(t C)\n\
    foreach(n RANGE 1 8)\nadd_custom_target(t${n} ALL COMMAND sh ${CMAKE_SOURCE_DIR}/count.sh ${n})\nendforeach()\n";
const COUNT: &str = "cd $(dirname $0); n=$1; mkdir run.$n; set -- run.*; echo $# >> seen; sleep 0.3; rmdir run.$n\n";

fn tree() -> Stage {
    Stage::new(&[("CMakeLists.txt", LISTS), ("a.c", A), ("b.c", "int b;\n")])
}

fn outside(stage: &Stage, generator: &str) -> bool {
    let mut cmake = Command::new("cmake");
    cmake.args(["-G", generator, "-S", ".", "-B", "out"]);
    let configured = cmake.current_dir(stage.at.path()).output();
    configured.unwrap().status.success()
}

#[tokio::test]
async fn a_tree_configured_here_is_seen_and_builds_afterwards_without_a_session() {
    for generator in ["Unix Makefiles", "Ninja"] {
        let stage = tree();
        let script = format!("cmake -G '{generator}' -S . -B out >log && cmake --build out >>log");
        let told = stage.build(&script, 4).await;
        let tests = told.outcome.local["a configure test"];
        let seen = told.outcome.seen - tests;
        assert_eq!((told.outcome.exit, seen), (0, 2), "{generator}");
        let cache = stage.read("out/CMakeCache.txt");
        assert!(!cache.contains("sessions/build"), "{cache}");
        let mut again = Command::new("cmake");
        again.args(["--build", "out", "--clean-first"]);
        let again = again.current_dir(stage.at.path()).output().unwrap();
        assert!(again.status.success());
    }
}

#[tokio::test]
async fn a_cmake_that_is_named_by_its_path_writes_nothing_of_the_session_either() {
    let stage = tree();
    let call = "ctest --build-and-test . out --build-generator 'Unix Makefiles' >log";
    stage.build(call, 4).await;
    check_cache(&stage);
    let stage = tree();
    let out = stage.path("out");
    let words = [
        which("cmake"),
        "-S".into(),
        stage.at.path().display().to_string(),
    ];
    let more = ["-B".into(), out.display().to_string()];
    let options = BuildOptions {
        command: words.into_iter().chain(more).map(OsString::from).collect(),
        ..stage.options.clone()
    };
    let told = stage.try_build(options, Load::default()).await.unwrap();
    assert_eq!(told.outcome.exit, 0);
    check_cache(&stage);
}

#[tokio::test]
async fn a_make_that_is_named_by_its_path_is_as_parallel_as_any() {
    let stage = Stage::new(&[
        ("Makefile", "all: 1 2 3 4 5 6\n%:\n\t@sh ./count.sh $@\n"),
        ("count.sh", COUNT),
    ]);
    let at = stage.at.path().display().to_string();
    let options = BuildOptions {
        command: [&which("make"), "-C", &at].map(OsString::from).into(),
        ..stage.options.clone()
    };
    let told = stage.try_build(options, Load::default()).await.unwrap();
    assert_eq!((told.outcome.exit, stage.most("seen")), (0, 2));
}

/// The `-j` of its first start is not in the arguments that it executes itself with.
#[tokio::test]
async fn a_make_that_begins_anew_keeps_to_what_it_was_told() {
    let makefile = "-include gen.mk\nall: 1 2 3 4 5 6\ngen.mk:\n\t@echo '#' >gen.mk\n1 2 3 4 5 6:\n\t@sh ./count.sh $@\n";
    for (call, most) in [
        ("make -j2", 2),
        ("make -j1", 1),
        ("MAKEFLAGS=-j2 make", 2),
        ("MAKEFLAGS=-j1 make", 1),
        ("make", 5),
    ] {
        let mut stage = Stage::new(&[("Makefile", makefile), ("count.sh", COUNT)]);
        stage.options.local_slots = 5;
        let told = stage.build(&format!("({call}) >log"), 0).await;
        assert_eq!((told.outcome.exit, stage.most("seen")), (0, most), "{call}");
    }
}

/// A wrapper for ninja may be called ninja, and one for make may look for make by itself.
#[tokio::test]
async fn a_script_of_a_tool_s_name_finds_the_tool_behind_it() {
    for (name, tool, says) in [
        ("ninja", "ninja", "1."),
        ("make", "\"$(command -v make)\"", "GNU Make"),
    ] {
        let script =
            format!("#!/bin/sh\ncd \"$(dirname \"$0\")\" && exec {tool} --version >version\n");
        let stage = Stage::new(&[(name, script.as_str())]);
        let at = stage.path(name);
        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o755)).unwrap();
        let options = BuildOptions {
            command: vec![at.into()],
            ..stage.options.clone()
        };
        let told = stage.try_build(options, Load::default()).await.unwrap();
        assert_eq!(told.outcome.exit, 0, "{name}");
        assert!(stage.read("version").starts_with(says), "{name}");
    }
}

fn check_cache(stage: &Stage) {
    let cache = stage.read("out/CMakeCache.txt");
    assert!(!cache.contains("sessions/build"), "{cache}");
    assert!(cache.contains("distmesh/launch"), "{cache}");
}

#[tokio::test]
async fn a_launcher_of_one_s_own_is_kept_and_named() {
    for (own, named) in [("ccache", false), ("/usr/bin/env", true)] {
        let mut stage = tree();
        let variable = ("CMAKE_C_COMPILER_LAUNCHER".into(), own.into());
        stage.options.env.push(variable);
        let told = stage.build("cmake -S . -B out >log", 4).await;
        assert_eq!(told.outcome.exit, 0);
        let cache = stage.read("out/CMakeCache.txt");
        let kept = format!("CMAKE_C_COMPILER_LAUNCHER:STRING={own}\n");
        assert!(cache.contains(&kept), "{cache}");
        assert_eq!(told.noticed("unset it"), named);
    }
}

#[tokio::test]
async fn a_build_of_makefiles_keeps_the_local_limit() {
    for call in [
        "cmake --build out",
        "cmake --build out -j",
        "cmake --build out -j 8",
        "cmake --build out --parallel 8",
        "cmake --build out -- -j8",
        "CMAKE_BUILD_PARALLEL_LEVEL=8 cmake --build out",
        "make -C out",
        "cd out && make -j8",
    ] {
        let stage = Stage::new(&[("CMakeLists.txt", COUNTING), ("count.sh", COUNT)]);
        assert!(outside(&stage, "Unix Makefiles"));
        stage.build(&format!("({call}) >log 2>warnings"), 8).await;
        let seen = (stage.numbers("seen").len(), stage.most("seen"));
        assert_eq!(seen, (8, 2), "{call}: {}", stage.read("log"));
        assert_eq!(stage.read("warnings"), "", "{call}");
    }
}

#[tokio::test]
async fn a_serial_build_of_makefiles_is_honoured() {
    for call in ["cmake --build out -j1", "cmake --build out -- -j1"] {
        let stage = Stage::new(&[("CMakeLists.txt", COUNTING), ("count.sh", COUNT)]);
        assert!(outside(&stage, "Unix Makefiles"));
        stage.build(&format!("{call} >log"), 8).await;
        assert_eq!((stage.numbers("seen").len(), stage.most("seen")), (8, 1));
    }
}

#[tokio::test]
async fn ninja_gets_the_capacity_that_is_there_when_it_starts() {
    for (call, most) in [
        ("sleep 0.2; cmake --build out", 5),
        ("sleep 0.2; cmake --build out -j", 5),
        ("sleep 0.2; ninja -C out", 5),
        ("cmake --build out -j 3", 3),
        ("ninja -C out -j3", 3),
    ] {
        let stage = Stage::new(&[("CMakeLists.txt", COUNTING), ("count.sh", COUNT)]);
        assert!(outside(&stage, "Ninja"));
        stage.build(&format!("({call}) >log"), 3).await;
        assert_eq!(stage.most("seen"), most, "{call}: {}", stage.read("log"));
    }
}

#[tokio::test]
async fn a_tree_configured_outside_is_named_with_the_cure_and_the_cure_works() {
    for (generator, call) in [
        ("Unix Makefiles", "cmake --build out"),
        ("Unix Makefiles", "make -C out"),
        ("Ninja", "cmake --build out"),
        ("Ninja", "ninja -C out"),
    ] {
        let mut stage = tree();
        assert!(outside(&stage, generator));
        let told = stage.build(&format!("{call} >log"), 0).await;
        let why = told.outcome.explain().unwrap();
        assert!(
            why.contains("--reconfigure") && why.contains("out was"),
            "{why}"
        );
        assert!(told.noticed("--reconfigure"));
        stage.options.reconfigure = true;
        let told = stage
            .build(&format!("touch a.c b.c; sleep 0.02; {call} >log"), 0)
            .await;
        assert_eq!((told.outcome.exit, told.outcome.seen), (0, 2), "{call}");
    }
}

#[tokio::test]
async fn calls_that_neither_configure_nor_build_pass_untouched() {
    let stage = Stage::new(&[("p.cmake", "message(\"$ENV{PATH}\")\n")]);
    let script = "cmake --version >version && cmake -E echo '-j' >echo && cmake -P p.cmake 2>path && echo \"$PATH\" >mine";
    assert_eq!(stage.build(script, 0).await.outcome.exit, 0);
    assert!(stage.read("version").starts_with("cmake version"));
    assert_eq!(stage.read("echo"), "-j\n");
    assert_eq!(stage.read("path"), stage.read("mine"));
}
