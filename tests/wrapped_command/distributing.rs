//! With a real worker: what leaves the machine, and how it is counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use distmesh::build::BuildNews;
use distmesh::event::{JobOutcome, LinkState, Route};

use crate::stage::{Stage, Told, Worker, which};

/// Compiles and slow local recipes; each says how many jobs, and how many local ones, ran when it began.
fn mixed(compiles: u32, locals: u32) -> Stage {
    let list =
        |prefix: &str, count| -> String { (1..=count).map(|n| format!(" {prefix}{n}")).collect() };
    let makefile = format!(
        "all:{}{}\n\
         c%: x.c\n\t@mkdir job.$@; set -- job.*; echo $$# >> jobs; gcc -DN=$* -c x.c -o $@.o; r=$$?; rmdir job.$@; exit $$r\n\
         l%:\n\t@mkdir job.$@ local.$@; set -- job.*; echo $$# >> jobs; set -- local.*; echo $$# >> locals; sleep 0.2; \
         rmdir job.$@ local.$@\n",
        list("c", compiles),
        list("l", locals)
    );
    Stage::new(&[("Makefile", &makefile), ("x.c", "int x = N;\n")])
}

/// Two here, four at the worker, and 40 ready to go there.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_follow_the_worker_and_the_local_limit_holds() {
    let worker = Worker::start(4).await;
    let stage = mixed(96, 24);
    let told = worker.build(stage.sh("make -j")).await;
    assert_eq!(told.outcome.exit, 0);
    assert_eq!(
        (stage.numbers("jobs").len(), stage.numbers("locals").len()),
        (120, 24)
    );
    assert!(stage.most("locals") <= 2, "{}", stage.most("locals"));
    assert!(stage.most("jobs") <= 46, "{}", stage.most("jobs"));
    assert!(stage.most("jobs") > 2, "the worker's slots are used");
    assert_eq!(
        (told.outcome.seen, told.outcome.remote),
        (96, 96),
        "{:?}",
        told.outcome.local
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_call_make_distributes_within_its_limits() {
    let worker = Worker::start(4).await;
    for (call, most) in [
        ("make", 46),
        ("make -j8", 8),
        ("make -j3", 3),
        ("make -j1", 1),
        ("MAKEFLAGS=-j make", 46),
        ("printf 'make -j4\\n' > build.sh; sh ./build.sh", 4),
        (
            "python3 -c 'import subprocess; subprocess.run([\"make\"])'",
            46,
        ),
        (
            "printf 'all:\\n\\t$(MAKE) -f Makefile\\n' > outer.mk; make -f outer.mk",
            46,
        ),
    ] {
        let stage = mixed(60, 4);
        let told = worker.build(stage.sh(call)).await;
        assert_eq!((told.outcome.exit, told.outcome.remote), (0, 60), "{call}");
        assert!(
            stage.most("locals") <= 2,
            "{call}: {}",
            stage.most("locals")
        );
        assert!(stage.most("jobs") <= most, "{call}: {}", stage.most("jobs"));
        assert!(stage.most("jobs") >= most.min(2), "{call}: silently serial");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_room_for_one_job_still_feeds_its_worker() {
    let worker = Worker::start(4).await;
    let mut stage = mixed(60, 0);
    stage.options.local_slots = 1;
    let told = worker.build(stage.sh("make -j")).await;
    assert_eq!((told.outcome.exit, told.outcome.remote), (0, 60));
    assert!(
        (2..=45).contains(&stage.most("jobs")),
        "{}",
        stage.most("jobs")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_make_that_keeps_going_builds_the_rest_at_the_worker() {
    let worker = Worker::start(4).await;
    let stage = mixed(30, 0);
    let bad = stage
        .read("Makefile")
        .replace("gcc -DN=$*", "gcc -DN=$(if $(filter 1%,$*),bad,$*)");
    std::fs::write(stage.path("Makefile"), bad).unwrap();
    let told = worker.build(stage.sh("make -k -j")).await;
    // c1 and c10 to c19 do not compile, here or there.
    assert_eq!((told.outcome.exit, told.outcome.remote), (2, 19));
    assert_eq!((told.outcome.seen, stage.objects()), (30, 19));
    assert!(stage.most("jobs") > 2, "an error benches nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_make_that_executes_itself_again_after_rebuilding_a_makefile_still_feeds_its_worker() {
    let worker = Worker::start(4).await;
    let mut stage = mixed(60, 0);
    stage.options.local_slots = 1;
    let script = "printf 'include Makefile\\ninclude made\\nmade:\\n\\ttouch made\\n' > again.mk; make -j -f again.mk";
    let told = worker.build(stage.sh(script)).await;
    assert_eq!((told.outcome.exit, told.outcome.remote), (0, 60));
    assert!(
        (2..=45).contains(&stage.most("jobs")),
        "{}",
        stage.most("jobs")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_file_names_the_port_with_its_shield_and_the_whole_ceiling() {
    let worker = Worker::start(4).await;
    let stage = Stage::new(&[]);
    let script = "sleep 0.3; cp $DISTCC_DIR/hosts hosts; ls -p $DISTCC_DIR/lock > locks";
    worker.build(stage.sh(script)).await;
    let hosts = stage.read("hosts");
    assert!(
        hosts.starts_with("--localslots=46\n--localslots_cpp=46\n127.0.0.1:"),
        "{hosts}"
    );
    assert!(stage.read("locks").starts_with("backoff_tcp_127.0.0.1_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_to_each_compile_is_told() {
    let worker = Worker::start(4).await;
    let stage = Stage::new(&[("a.c", "int a;\n"), ("bad.c", "int bad = x;\n")]);
    let script = "sleep 0.2; gcc -c a.c && gcc -c -flto a.c -o lto.o && gcc -c bad.c 2> error; gcc -c bad.c -o bad.o; exit 0";
    let told = worker.build(stage.sh(script)).await;
    let outcome = &told.outcome;
    assert_eq!(
        (outcome.seen, outcome.remote),
        (4, 1),
        "{:?}",
        outcome.local
    );
    assert_eq!(outcome.local["-flto"], 1);
    assert_eq!(
        stage.read("error").matches("error:").count(),
        1,
        "{}",
        stage.read("error")
    );
    let seen =
        |news: &&BuildNews| matches!(news, BuildNews::Seen(seen) if seen.route == Route::Distcc);
    let compiled = |news: &&BuildNews| matches!(news, BuildNews::Job(job) if job.outcome == JobOutcome::Compiled);
    assert_eq!(told.news.iter().filter(seen).count(), 3);
    let jobs: Vec<_> = told.news.iter().filter(compiled).collect();
    let [BuildNews::Job(job)] = jobs[..] else {
        panic!("{jobs:?}");
    };
    assert_eq!(job.source.as_deref(), Some("a.c"));
    assert_eq!(job.source_bytes, Some(7), "what the scheduler goes by");
    assert!(
        told.news
            .iter()
            .any(|news| matches!(news, BuildNews::Worker(_)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_only_worker_goes_its_jobs_come_home_no_faster_than_there_is_room() {
    let slow: String = (0..800)
        .map(|n| format!("int f{n}(int a) {{ return a * {n} / 3; }}\n"))
        .collect();
    let goals: String = (1..=8).map(|n| format!(" c{n}")).collect();
    let makefile = format!("all:{goals}\nc%: x.c\n\t@gcc -O2 -DN=$* -c x.c -o $@.o\n");
    let edges: String = (1..=8).map(|n| format!("build c{n}.o: c x.c\n")).collect();
    let ninja = format!("rule c\n  command = gcc -O2 -c x.c -o $out\n{edges}");
    for call in ["make -j", "sleep 0.2; ninja"] {
        let stage = Stage::new(&[
            ("Makefile", &makefile),
            ("build.ninja", &ninja),
            ("x.c", &slow),
        ]);
        let (told, most) = build_and_lose_the_worker(&stage, call).await;
        assert_eq!(told.outcome.exit, 0);
        assert!(
            (1..=2).contains(&most),
            "{call}: {most} compilers at once here"
        );
        assert_eq!(told.outcome.seen, 8, "{call}: {:?}", told.outcome.local);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_silence_of_the_only_worker_brings_no_job_home() {
    let slow: String = (0..800)
        .map(|n| format!("int f{n}(int a) {{ return a * {n} / 3; }}\n"))
        .collect();
    let goals: String = (1..=8).map(|n| format!(" c{n}")).collect();
    let makefile = format!("all:{goals}\nc%: x.c\n\t@gcc -O2 -DN=$* -c x.c -o $@.o\n");
    let stage = Stage::new(&[("Makefile", &makefile), ("x.c", &slow)]);
    let worker = Worker::start(3).await;
    let building = worker.build(stage.sh("make -j"));
    let disturb = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        worker.set_state(LinkState::Suspect);
        // Less than a build waits for a worker that has just fallen silent.
        tokio::time::sleep(Duration::from_millis(800)).await;
        worker.set_state(LinkState::Up);
        std::future::pending::<()>().await;
    };
    let told = tokio::select! {
        told = building => told,
        () = disturb => unreachable!(),
    };
    assert_eq!(
        (told.outcome.exit, told.outcome.remote),
        (0, 8),
        "{:?}",
        told.outcome.local
    );
}

/// Also returns how many compilers ran here at once after that.
async fn build_and_lose_the_worker(stage: &Stage, call: &str) -> (Told, usize) {
    let worker = Worker::start(6).await;
    let building = worker.build(stage.sh(&format!("({call}) >log")));
    let most = AtomicUsize::new(0);
    let disturb = async {
        tokio::time::sleep(Duration::from_millis(1000)).await;
        worker.set_state(LinkState::Down);
        tokio::time::sleep(Duration::from_millis(700)).await;
        // One that has just ended may still be listed beside its successor: what two looks in a row see is there.
        let mut last = 0;
        loop {
            let now = compilers_of(stage.at.path());
            most.fetch_max(now.min(last), Ordering::Relaxed);
            last = now;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let told = tokio::select! {
        told = building => told,
        () = disturb => unreachable!(),
    };
    (told, most.into_inner())
}

/// How many compilers proper work in a directory.
fn compilers_of(dir: &std::path::Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let ours = processes.filter(|process| {
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        let cwd = std::fs::read_link(process.path().join("cwd")).unwrap_or_default();
        name.trim() == "cc1" && cwd == dir
    });
    ours.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn ccache_is_asked_before_distcc_and_its_answers_are_counted() {
    let worker = Worker::start(4).await;
    let mut stage = Stage::new(&[("a.c", "int a;\n"), ("b.c", "int b;\n")]);
    stage.options.ccache = true;
    let script = "sleep 0.2; gcc -c a.c && gcc -c b.c";
    let first = worker.build(stage.sh(script)).await.outcome;
    let second = worker.build(stage.sh(script)).await.outcome;
    assert_eq!((first.seen, first.remote), (2, 2), "{:?}", first.local);
    assert_eq!((second.seen, second.remote), (2, 0));
    assert_eq!(second.local["ccache had it"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_calls_ccache_itself_is_distributed_and_caches_by_the_real_compiler() {
    let worker = Worker::start(4).await;
    let stage = Stage::new(&[("a.c", "int a;\n")]);
    let script = "sleep 0.2; CCACHE_LOGFILE=$PWD/log ccache gcc -c a.c";
    let outcome = worker.build(stage.sh(script)).await.outcome;
    assert_eq!(
        (outcome.exit, outcome.remote),
        (0, 1),
        "{:?}",
        outcome.local
    );
    assert!(!stage.read("log").contains("sessions/build/compilers"));
}

#[tokio::test]
async fn a_compile_without_a_worker_is_made_here_and_the_summary_says_so() {
    let stage = Stage::new(&[("a.c", "int main(void) { return 0; }\n")]);
    let told = stage
        .build("gcc -c a.c -o a.o && gcc a.o -o a && ./a", 0)
        .await;
    let outcome = told.outcome;
    assert_eq!((outcome.exit, outcome.seen, outcome.remote), (0, 1, 0));
    assert!(outcome.explain().unwrap().contains("no worker"));
}

#[tokio::test]
async fn what_bypasses_the_masquerade_is_named_with_its_cure() {
    let rules = "CC = cc\nall:\n\t$(CC) -c a.c\n";
    let mut stage = Stage::new(&[("Makefile", rules), ("a.c", "int a;\n")]);
    let told = stage.build(&format!("make CC={}", which("gcc")), 0).await;
    assert_eq!(told.outcome.seen, 0);
    assert!(told.outcome.explain().unwrap().contains("say CC=gcc"));
    stage.options.env.push(("CC".into(), which("gcc").into()));
    let told = stage.build("make -e", 0).await;
    assert!(told.outcome.explain().unwrap().contains("say CC=gcc"));
}

#[tokio::test]
async fn a_ccache_masquerade_on_path_is_skipped_and_said() {
    let mut stage = Stage::new(&[("a.c", "int a;\n")]);
    let wrappers = stage.path("wrappers");
    std::fs::create_dir(&wrappers).unwrap();
    std::os::unix::fs::symlink(which("ccache"), wrappers.join("gcc")).unwrap();
    let path = format!("{}:{}", wrappers.display(), std::env::var("PATH").unwrap());
    stage.options.env.push(("PATH".into(), path.into()));
    let told = stage.build("gcc -c a.c", 0).await;
    assert!(told.noticed("say --ccache"));
    let real = which("gcc");
    let is = |news: &BuildNews| matches!(news, BuildNews::Seen(seen) if seen.compiler.path == real);
    assert!(told.news.iter().any(is));
}

#[tokio::test]
async fn a_script_that_a_recipe_puts_before_path_and_that_calls_the_next_of_its_name_is_seen_and_ends()
 {
    let stage = Stage::new(&[("a.c", "int main(void) { return 0; }\n")]);
    // It takes its own directory off PATH, as such scripts do, and would meet our link instead.
    let script = "mkdir bin && printf '#!/bin/sh\\nPATH=${PATH#%s:} exec gcc -DX \"$@\"\\n' $PWD/bin > bin/gcc && chmod 755 bin/gcc && \
                  printf 'a: a.c\\n\\tgcc -c a.c -o a.o\\n\\tgcc a.o -o a\\n' > Makefile && PATH=$PWD/bin:$PATH make && ./a";
    let told = stage.build(script, 0).await;
    assert_eq!((told.outcome.exit, told.outcome.seen), (0, 1));
    let script = stage.path("bin/gcc");
    let is = |news: &BuildNews| matches!(news, BuildNews::Seen(seen) if script == std::path::Path::new(&seen.compiler.path));
    assert!(told.news.iter().any(is), "{:?}", told.news);
}

/// Our ports are not there; distcc would try them for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_without_the_network_or_among_other_processes_compiles_here() {
    let worker = Worker::start(4).await;
    let stage = Stage::new(&[
        ("a.c", "int a;\n"),
        (
            "Makefile",
            ".PHONY: all\nall: b.o c.o\nb.o c.o: a.c\n\tgcc -c $< -o $@\n",
        ),
    ]);
    let script = "unshare -rn gcc -c a.c && unshare -rpf --mount-proc make -j && gcc -c a.c -o d.o";
    let told = worker.build(stage.sh(script)).await;
    assert_eq!((told.outcome.exit, told.outcome.remote), (0, 1), "{told:?}");
    assert_eq!(stage.objects(), 4);
}

/// As bitbake does, which links what it finds and then cleans the environment.
#[tokio::test]
async fn a_link_to_our_link_leads_to_the_real_tool_when_nothing_else_is_on_path() {
    let stage = Stage::new(&[("a.c", "int a;\n")]);
    let script = "mkdir tools && ln -s \"$(command -v gcc)\" tools/gcc && env -i PATH=$PWD/tools tools/gcc -E a.c -o first && \
                  env -i PATH=$PWD/tools /bin/sh -c 'gcc -E a.c -o second'";
    let told = stage.build(script, 0).await;
    assert_eq!(told.outcome.exit, 0, "{told:?}");
    assert!(stage.path("first").exists() && stage.path("second").exists());
}
