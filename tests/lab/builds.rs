//! Whole builds over the lab's internet, and what becomes of them when it fails.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    lab::{Host, Lab, story, until},
    nat::{ADDRESS_AND_PORT, Behaviour, INDEPENDENT},
};

const STRICT: Behaviour = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
const HARD: Behaviour = Behaviour::new(ADDRESS_AND_PORT, ADDRESS_AND_PORT);
/// What is built.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) files: usize,
    pub(crate) functions: usize,
}

const FILES: usize = 40;
/// Sources that take a compiler a while, so that a build lasts long enough for something to go wrong.
const LONG: Size = Size {
    files: FILES,
    functions: 60,
};
/// Enough to use every slot more than once.
const SHORT: Size = Size {
    files: 10,
    functions: 1,
};

pub(crate) fn project(dir: &Path, size: Size) {
    fs::create_dir(dir).unwrap();
    for n in 0..size.files {
        let body: String = (0..size.functions)
            .map(|f| format!("int f{n}_{f}(int a) {{ int s = {f}; while (a--) s += a * {n} ^ s >> 3; return s; }}\n"))
            .collect();
        fs::write(
            dir.join(format!("f{n}.c")),
            format!("#include <stdio.h>\n{body}"),
        )
        .unwrap();
    }
    let rules = "OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))\nall: $(OBJECTS)\n%.o: %.c\n\tgcc -O2 -c $< -o $@\n";
    fs::write(dir.join("Makefile"), rules).unwrap();
}

struct Built {
    size: Size,
    output: Output,
    report: Value,
}

/// Builds on the primary's host once the workers are up, while `meanwhile` disturbs it.
fn build(lab: &Lab, primary: &Host, workers: u32, meanwhile: impl FnOnce(&Path)) -> Built {
    build_some(lab, primary, (workers, LONG), meanwhile)
}

fn build_some(
    lab: &Lab,
    primary: &Host,
    (workers, size): (u32, Size),
    meanwhile: impl FnOnce(&Path),
) -> Built {
    let (dir, report) = (lab.path("project"), lab.path("report"));
    project(&dir, size);
    let workers = workers.to_string();
    let running = lab
        .distmesh(
            primary,
            &[
                "build",
                "--require-workers",
                &workers,
                "--wait",
                "40s",
                "--report",
            ],
        )
        .arg(&report)
        .args(["--", "make", "-j"])
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    meanwhile(&dir);
    let output = running.wait_with_output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stderr));
    let report = fs::read(report.join("report.json")).unwrap_or_default();
    Built {
        size,
        output,
        report: serde_json::from_slice(&report).unwrap_or_default(),
    }
}

/// Waits until so many objects are there.
fn until_objects(dir: &Path, count: usize) {
    until("a part is built", Duration::from_secs(60), || {
        objects(dir).len() >= count
    });
}

fn objects(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(".o"))
        .collect()
}

/// Exit 0, nothing compiled here, and the very objects that this machine's compiler makes.
fn assert_right(built: &Built, dir: &Path) {
    assert!(built.output.status.success(), "{:?}", built.output.status);
    assert_eq!(built.report["jobs"]["local"], 0, "{}", built.report);
    assert_eq!(
        built.report["jobs"]["remote"], built.size.files,
        "{}",
        built.report
    );
    let here = dir.join("here");
    project(&here, built.size);
    let made = Command::new("make")
        .args(["-s", "-j2"])
        .current_dir(&here)
        .status();
    assert!(made.unwrap().success());
    for name in objects(dir) {
        let same = fs::read(here.join(&name)).unwrap() == fs::read(dir.join(&name)).unwrap();
        assert!(same, "{name} differs");
    }
}

/// A session that is up before the build, a worker, and ten files: all of them go over a direct link.
fn builds_directly(test: &str, primary: Option<Behaviour>, worker: Behaviour) {
    story(test, |lab| {
        let far = lab.site(worker);
        let near = match primary {
            Some(nat) => lab.site(nat),
            None => lab.open_site(),
        };
        let [primary, worker] = [lab.host(near), lab.host(far)];
        let _up = lab.up(&primary);
        let _worker = lab.worker(&worker, "far", 2);
        until("the link is up", Duration::from_secs(40), || {
            lab.seen(&primary, "far")
                .is_some_and(|far| far["state"] == "up" && far["path"] == "direct")
        });
        let after = &lab.seen(&primary, "far").unwrap()["up_after_ms"];
        println!("up {after} ms after the session's start");
        let built = build_some(lab, &primary, (1, SHORT), |_| {});
        assert_right(&built, &lab.path("project"));
        assert_eq!(built.report["workers"][0]["path"], "direct");
    });
}

#[test]
fn a_build_from_an_open_network_reaches_a_strict_one() {
    builds_directly(
        "builds::a_build_from_an_open_network_reaches_a_strict_one",
        None,
        STRICT,
    );
}

#[test]
fn a_build_between_two_strict_networks_goes_over_a_direct_link() {
    builds_directly(
        "builds::a_build_between_two_strict_networks_goes_over_a_direct_link",
        Some(STRICT),
        STRICT,
    );
}

#[test]
fn a_build_from_a_lenient_network_reaches_a_hard_one() {
    builds_directly(
        "builds::a_build_from_a_lenient_network_reaches_a_hard_one",
        Some(Behaviour::new(INDEPENDENT, INDEPENDENT)),
        HARD,
    );
}

#[test]
fn a_build_outlives_the_loss_of_every_mapping_of_one_side() {
    story(
        "builds::a_build_outlives_the_loss_of_every_mapping_of_one_side",
        |lab| {
            let sites = [lab.site(STRICT), lab.site(STRICT), lab.site(STRICT)];
            let [primary, one, two] = sites.map(|site| lab.host(site));
            let _workers = [lab.worker(&one, "w1", 2), lab.worker(&two, "w2", 2)];
            let built = build(lab, &primary, 2, |dir| {
                until_objects(dir, FILES / 6);
                lab.with_nat(sites[1], |nat| nat.wipe());
                until_objects(dir, FILES / 3);
                lab.with_nat(sites[0], |nat| nat.wipe());
            });
            assert_right(&built, &lab.path("project"));
        },
    );
}

#[test]
fn a_build_is_distributed_through_a_relay() {
    story("builds::a_build_is_distributed_through_a_relay", |lab| {
        let sites = [lab.site(HARD), lab.site(HARD), lab.open_site()];
        let [primary, one, two] = sites.map(|site| lab.host(site));
        let _workers = [lab.worker(&one, "hard", 2), lab.worker(&two, "open", 1)];
        let built = build(lab, &primary, 2, |_| {});
        assert_right(&built, &lab.path("project"));
        let workers = built.report["workers"].as_array().unwrap();
        let hard = workers
            .iter()
            .find(|worker| worker["name"] == "hard")
            .unwrap();
        assert_eq!(
            (hard["path"].as_str(), hard["relay"].as_str()),
            (Some("relayed"), Some("open"))
        );
        assert!(hard["jobs"].as_u64().unwrap() > 0, "{hard}");
        assert_eq!(hard["nat"], "address-and-port-dependent");
    });
}

#[test]
fn the_links_of_a_machine_that_compiles_on_every_core_are_not_suspected() {
    story(
        "builds::the_links_of_a_machine_that_compiles_on_every_core_are_not_suspected",
        |lab| {
            starve(lab, Duration::from_secs(12));
        },
    );
}

#[test]
#[ignore = "the whole minute: nightly"]
fn the_links_of_a_machine_that_compiles_for_a_minute_are_not_suspected() {
    story(
        "builds::the_links_of_a_machine_that_compiles_for_a_minute_are_not_suspected",
        |lab| {
            starve(lab, Duration::from_secs(60));
        },
    );
}

/// Keeps every core busy with four compilers, at the same priority as the nodes.
fn starve(lab: &mut Lab, span: Duration) {
    let sites = [lab.site(STRICT), lab.site(STRICT)];
    let [a, b] = sites.map(|site| lab.host(site));
    let primary = lab.node(&a, "primary", "p");
    let worker = lab.node(&b, "worker", "w");
    until("both are up", Duration::from_secs(40), || {
        primary.is_up("w", None) && worker.is_up("p", None)
    });
    let cores = std::thread::available_parallelism().unwrap().get();
    let source = lab.path("busy.c");
    let body: String = (0..3_000)
        .map(|n| {
            format!(
                "int f{n}(int a) {{ int s = {n}; while (a--) s += a * s ^ s >> 3; return s; }}\n"
            )
        })
        .collect();
    fs::write(&source, body).unwrap();
    let mut busy: Vec<_> = (0..cores * 4)
        .map(|_| {
            let script = format!(
                "while :; do gcc -O2 -c {} -o /dev/null; done",
                source.display()
            );
            Command::new("sh").args(["-c", &script]).spawn().unwrap()
        })
        .collect();
    std::thread::sleep(span);
    let bad: Vec<_> = [&primary, &worker]
        .iter()
        .flat_map(|node| node.told())
        .filter(|line| line["state"] == "suspect" || line["state"] == "down")
        .collect();
    for process in &mut busy {
        // The loop is killed; its last compiler ends with the namespace.
        let _ =
            rustix::process::kill_process(rustix::process::Pid::from_child(process), Signal::KILL);
        let _ = process.wait();
    }
    assert!(bad.is_empty(), "{bad:?}");
}
