//! Flags that distcc loses a file by, or takes for something else: a tree compiled through a worker is what it is without one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::stage::{Stage, Worker, which};

const SOURCE: &str = "#include \"h.h\"\n#include <stddef.h>\nint later(int);\nint twice(int a) { int s = 0; for (int i = 0; i < \
    NUMBER; i++) s += a; return later(s); }\n";
const HEADER: &str = "#define NUMBER 2\n";

/// Where a call is to be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On a worker, or the worker would be of no use.
    Away,
    /// Here, because of what it leaves behind or asks for.
    Here,
}
use Place::{Away, Here};

/// Every file below a directory.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap();
                files.insert(name.display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn project(dir: &Path) {
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    std::fs::create_dir_all(dir.join("inc")).unwrap();
    std::fs::write(dir.join("hello.c"), SOURCE).unwrap();
    std::fs::write(dir.join("inc/h.h"), HEADER).unwrap();
}

/// Both trees have to be at one place, one after the other: paths are in what compilers write.
async fn check(worker: &Worker, compiler: &str, calls: &[(&str, Place)]) {
    let mut wrong = Vec::new();
    for (flags, place) in calls {
        let call = format!("{compiler} -Iinc {flags}");
        let stage = Stage::new(&[]);
        let dir = stage.path("project");
        project(&dir);
        let plain = Command::new("sh")
            .args(["-c", &call])
            .current_dir(&dir)
            .output()
            .unwrap();
        assert!(plain.status.success(), "{call}: {plain:?}");
        let expected = tree(&dir);
        std::fs::remove_dir_all(&dir).unwrap();
        project(&dir);
        let told = worker
            .build(stage.sh(&format!("cd project && {call}")))
            .await;
        let made = tree(&dir);
        // What is made here may hold the time or a random seed.
        let same = |name: &String| match place {
            Away => expected.get(name) == made.get(name),
            Here => expected.contains_key(name) && made.contains_key(name),
        };
        let names: BTreeSet<_> = expected.keys().chain(made.keys()).collect();
        let differ: Vec<_> = names.into_iter().filter(|name| !same(name)).collect();
        let went = if told.outcome.remote == 1 { Away } else { Here };
        if !differ.is_empty() || went != *place || told.outcome.exit != 0 {
            wrong.push(format!(
                "{call}: {went:?}, differs in {differ:?}, {:?}",
                told.outcome.local
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn dependencies_are_written_as_here() {
    let worker = Worker::start(4).await;
    let calls = [
        ("-MMD -c hello.c -o sub/h.o", Away),
        ("-MD -c hello.c -osub/h.o", Away),
        ("-MMD -c hello.c", Away),
        ("-MMD -MF x.d -c hello.c -o sub/h.o", Away),
        ("-MMD -MFx.d -c hello.c -o sub/h.o", Away),
        ("-MMD -MT other -c hello.c -o sub/h.o", Away),
        ("-MMD -MQ other -MP -c hello.c -o sub/h.o", Away),
        ("-MMD -c hello.c -o sub/h", Away),
        ("-Wp,-MMD,sub/y.d -c hello.c -o sub/h.o", Away),
        ("-Wp,-MD,sub/y.d -c hello.c -o sub/h.o", Away),
        ("-MMD -S hello.c -o sub/h.s", Away),
    ];
    check(&worker, "gcc", &calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_another_file_behind_stays_here() {
    let worker = Worker::start(4).await;
    let calls = [
        "-fstack-usage",
        "-save-temps",
        "-save-temps=obj",
        "-gsplit-dwarf",
        "-fdump-tree-optimized",
        "-fdump-rtl-expand",
        "-fcallgraph-info",
        "-aux-info sub/prototypes",
        "-fsave-optimization-record",
        "-O2 -fopt-info-all=sub/opt",
        "-flto=auto",
        "-flto=2",
        "-fprofile-arcs",
        "-ftest-coverage",
        "--coverage",
        "-coverage",
        "-Wa,-a=sub/list",
        "-Xassembler -a=sub/list",
        "-Wa,-adhln=sub/list",
        "-Wa,--MD,sub/asm.d",
        "-Wa,--MD=sub/asm.d",
        "-time=sub/times",
        "-Bsub/",
        "-march=native",
        "-mtune=native",
        "-mcpu=native",
        "-fverbose-asm -S",
    ];
    let calls: Vec<_> = calls
        .iter()
        .map(|flag| format!("-O1 {flag} -c hello.c -o sub/h.o"))
        .collect();
    let calls: Vec<_> = calls.iter().map(|call| (call.as_str(), Here)).collect();
    check(&worker, "gcc", &calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_compiles_give_the_object_of_here() {
    let worker = Worker::start(4).await;
    let calls = [
        ("-c hello.c", Away),
        ("-O2 -c hello.c -o sub/h.o", Away),
        ("-O2 -c -o sub/h.o hello.c", Away),
        ("-O2 -pipe -c hello.c", Away),
        ("-S hello.c -o sub/h.s", Away),
        ("-S hello.c", Away),
        ("-x c -c hello.c", Away),
        ("-xc -c hello.c -x none", Away),
        ("-x c++ -fpermissive -c hello.c", Here),
        ("-frecord-gcc-switches -c hello.c", Away),
        ("-std=c99 -Wall -Wextra -DA='\"b c\"' -c hello.c", Away),
        ("-include stdlib.h -c hello.c", Away),
        ("-frandom-seed=7 -c hello.c", Away),
        ("-ffile-prefix-map=$PWD=. -c $PWD/hello.c", Away),
        ("-g -no-integrated-cpp -c hello.c", Away),
        (
            "-ggdb3 -no-integrated-cpp -fdebug-prefix-map=$PWD=/src -c hello.c",
            Away,
        ),
        ("-m32 -c hello.c", Away),
        ("-c ./hello.c -o ./sub/../sub/h.o", Away),
    ];
    check(&worker, "gcc", &calls).await;
}

/// g++ takes a C source for C++, unless it is told that it is not.
#[tokio::test(flavor = "multi_thread")]
async fn the_language_is_the_one_of_here() {
    let worker = Worker::start(4).await;
    let calls = [
        ("-c hello.c", Away),
        ("-O1 -fpermissive -c hello.c -o sub/h.o", Away),
        ("-x c -fPIC -O1 -c -o sub/h.o hello.c", Here),
        ("-xc -c hello.c", Here),
    ];
    check(&worker, "g++", &calls).await;
}

/// Its preprocessor leaves out what the precompiled header declares.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_a_precompiled_header_stays_here() {
    let worker = Worker::start(4).await;
    let calls = [
        "-include inc/h.h -c hello.c",
        "-Xclang -include-pch -Xclang inc/h.h.pch -c hello.c",
    ];
    let calls = calls
        .map(|call| format!("-x c-header inc/h.h -o inc/h.h.pch && clang -Iinc {call} -o sub/h.o"));
    let calls: Vec<_> = calls.iter().map(|call| (call.as_str(), Here)).collect();
    check(&worker, "clang", &calls).await;
    check(&worker, "clang", &[("-include inc/h.h -c hello.c", Away)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clang_is_asked_for_the_target_that_was_named() {
    let worker = Worker::start(4).await;
    assert!(which("clang").contains('/'));
    let calls = [
        ("-c hello.c", Away),
        ("-ffreestanding --target=aarch64-linux-gnu -c hello.c", Away),
        ("-ffreestanding -target aarch64-linux-gnu -c hello.c", Away),
        ("-MMD -c hello.c -o sub/h.o", Away),
        ("-fsave-optimization-record -c hello.c -o sub/h.o", Here),
        ("-flto=thin -c hello.c", Here),
        ("-emit-llvm -c hello.c", Here),
        ("-MJ sub/json -c hello.c", Here),
        ("--serialize-diagnostics sub/dia -c hello.c", Here),
    ];
    check(&worker, "clang", &calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clang_s_debug_information_names_the_directory_of_here() {
    let worker = Worker::start(4).await;
    for debug in ["-g", "-gdwarf-4 -O2", "-gline-tables-only"] {
        let stage = Stage::new(&[]);
        let dir = stage.path("project");
        project(&dir);
        // The source itself has other columns, and a checksum that what was preprocessed has not.
        let reference =
            format!("clang -Iinc -E hello.c -o hello.i && clang {debug} -c hello.i -o here.o");
        let plain = Command::new("sh")
            .args(["-c", &reference])
            .current_dir(&dir)
            .status()
            .unwrap();
        assert!(plain.success());
        let call = format!("cd project && clang -Iinc {debug} -c hello.c -o away.o");
        let told = worker.build(stage.sh(&call)).await;
        assert_eq!((told.outcome.exit, told.outcome.remote), (0, 1), "{debug}");
        let [here, away] = ["here.o", "away.o"].map(|name| std::fs::read(dir.join(name)).unwrap());
        assert!(here == away, "{debug}");
    }
}
