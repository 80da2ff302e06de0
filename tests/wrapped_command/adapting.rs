//! With a worker that is little help, or none: the build is not to suffer from it.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use distmesh::build::{BuildNews, BuildOptions};

use crate::stage::{Stage, Told, Worker, which};

/// So many compiles of one source.
fn sources(count: u32, source: &str) -> Stage {
    let objects: String = (1..=count).map(|n| format!(" o{n}.o")).collect();
    let makefile = format!("all:{objects}\no%.o: x.c\n\t@gcc -DN=$* -c x.c -o $@\n");
    Stage::new(&[("Makefile", &makefile), ("x.c", source)])
}

fn adapting(stage: &Stage) -> BuildOptions {
    BuildOptions {
        adapt: true,
        ..stage.sh("make -j")
    }
}

fn local(told: &Told, because: &str) -> u64 {
    let reasons = told.outcome.local.iter();
    reasons
        .filter(|(reason, _)| reason.contains(because))
        .map(|(_, count)| count)
        .sum()
}

fn incidents(told: &Told) -> Vec<&str> {
    let texts = told.news.iter().filter_map(|news| {
        if let BuildNews::Incident(text) = news {
            Some(text.as_str())
        } else {
            None
        }
    });
    texts.collect()
}

const TRIVIAL: &str = "int x = N;\n";

#[tokio::test(flavor = "multi_thread")]
async fn while_the_workers_are_full_an_idle_machine_compiles_too() {
    let worker = Worker::start_far_away(2, Duration::from_secs(1)).await;
    let stage = sources(80, TRIVIAL);
    let told = worker.build(adapting(&stage)).await;
    assert_eq!((told.outcome.exit, told.outcome.seen), (0, 80));
    // 42 are the worker's, running or prepared, when the first spare one begins. It does two jobs a second at the most; at that it
    // may be found to be no help at all.
    let here = local(&told, "busy") + local(&told, "quicker here");
    assert!(here > 10, "{:?}", told.outcome.local);
    assert_eq!(stage.objects(), 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_jobs_come_home_when_there_is_nothing_else_to_do() {
    // Longer than an attempt has to reach its worker, or now and then one would.
    let worker = Worker::start_far_away(2, Duration::from_secs(90)).await;
    let stage = sources(12, TRIVIAL);
    let told = worker.build(adapting(&stage)).await;
    assert_eq!((told.outcome.exit, told.outcome.remote), (0, 0));
    assert!(local(&told, "late") >= 1, "{:?}", told.outcome.local);
    assert_eq!(stage.objects(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn compiles_stay_where_sending_them_costs_more_than_compiling() {
    let mut worker = Worker::start(4).await;
    let stage = sources(60, TRIVIAL);
    // A preprocessor that takes a second, and a compiler that does not.
    let gcc = stage.path("slow/gcc");
    std::fs::create_dir(stage.path("slow")).unwrap();
    let script = format!(
        "#!/bin/sh\nfor arg; do [ $arg = -E ] && sleep 1; done\nexec {} \"$@\"\n",
        which("gcc")
    );
    std::fs::write(&gcc, script).unwrap();
    std::fs::set_permissions(&gcc, std::fs::Permissions::from_mode(0o755)).unwrap();
    worker.admit(&gcc);
    let mut options = adapting(&stage);
    let path = options
        .env
        .iter_mut()
        .find(|(name, _)| name == "PATH")
        .unwrap();
    path.1 = format!("{}:{}", stage.path("slow").display(), path.1.display()).into();

    let told = worker.build(options).await;
    assert_eq!((told.outcome.exit, told.outcome.seen), (0, 60));
    let stayed = local(&told, "quicker here");
    assert!(stayed > 30, "{:?}", told.outcome.local);
    let said = incidents(&told);
    assert!(said[0].contains("compiles stay here"), "{said:?}");
    assert_eq!(stage.objects(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_adapting_everything_goes_however_slow_the_worker_is() {
    let worker = Worker::start_far_away(2, Duration::from_millis(300)).await;
    let stage = sources(12, TRIVIAL);
    let told = worker.build(stage.sh("make -j")).await;
    assert_eq!((told.outcome.seen, told.outcome.remote), (12, 12));
}
