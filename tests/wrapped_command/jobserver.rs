//! Tokens: never more jobs than granted, never silently serial.

use distmesh::build::BuildNews;

use crate::stage::Stage;

/// Recipes that write how many ran when each began.
const RECIPES: &str =
    "t%:\n\t@mkdir run.$*; set -- run.*; echo $$# >> $${SEEN:-seen}; sleep 0.15; rmdir run.$*\n";

fn makefile(goals: u32) -> String {
    let names: Vec<String> = (1..=goals).map(|n| format!("t{n}")).collect();
    format!("all: {}\n{RECIPES}", names.join(" "))
}

#[tokio::test]
async fn make_runs_as_many_local_recipes_as_the_limit_however_it_is_called() {
    for call in [
        "make",
        "make -j",
        "make -j8",
        "make -sj",
        "make -kj4",
        "make --jobs=4",
        "make --jobs 4",
        "make -l 99 -j",
        "MAKEFLAGS=-j make",
        "MAKEFLAGS=j8 make",
        "GNUMAKEFLAGS=-j4 make",
        "./build.sh",
        "python3 -c 'import subprocess; subprocess.run([\"make\"])'",
        "make recursive",
        "make scripted",
    ] {
        let rules = format!(
            "{}recursive:\n\t$(MAKE) all\nscripted:\n\tpython3 -c 'import subprocess; subprocess.run([\"make\", \"all\"])'\n",
            makefile(9)
        );
        let stage = Stage::new(&[
            ("Makefile", &rules),
            ("build.sh", "#!/bin/sh\nmake -j4 2>warnings\n"),
        ]);
        let told = stage
            .build(&format!("chmod +x build.sh && {call} 2>>warnings"), 8)
            .await;
        let seen = (stage.numbers("seen").len(), stage.most("seen"));
        assert_eq!((told.outcome.exit, seen), (0, (9, 2)), "{call}");
        assert_eq!(stage.read("warnings"), "", "{call}");
    }
}

#[tokio::test]
async fn a_serial_make_stays_serial_with_all_that_it_calls() {
    let rules = format!("{}recursive:\n\t$(MAKE) all\n", makefile(4));
    for call in [
        "make -j1",
        "make --jobs=1",
        "MAKEFLAGS=-j1 make",
        "make -j1 recursive",
    ] {
        let stage = Stage::new(&[("Makefile", &rules)]);
        let told = stage.build(call, 8).await;
        assert_eq!(
            (stage.numbers("seen").len(), stage.most("seen")),
            (4, 1),
            "{call}"
        );
        assert!(!told.noticed("parallel"));
    }
}

#[tokio::test]
async fn a_plain_make_says_that_it_became_parallel() {
    let stage = Stage::new(&[("Makefile", &makefile(1))]);
    assert!(stage.build("make", 0).await.noticed("-j1 keeps it serial"));
    assert!(
        !stage
            .build("make -j", 0)
            .await
            .noticed("-j1 keeps it serial")
    );
}

#[tokio::test]
async fn a_number_that_leaves_workers_idle_is_told_once() {
    let build = "rule t\n  command = true\nbuild all: t\n";
    let stage = Stage::new(&[("Makefile", &makefile(2)), ("build.ninja", build)]);
    for (call, capacity, told_of) in [
        ("make -j3 && make -j3", 8, 1),
        ("MAKEFLAGS=-j3 make", 8, 1),
        ("ninja -j3", 8, 1),
        ("make -j3", 3, 0),
        ("make -j", 8, 0),
        ("make -j1", 8, 0),
        ("ninja", 8, 0),
    ] {
        let told = stage.build(call, capacity).await;
        let is = |news: &&BuildNews| matches!(news, BuildNews::Incident(text) if text.contains("-j3 keeps to 3 jobs"));
        assert_eq!(told.outcome.exit, 0, "{call}");
        assert_eq!(told.news.iter().filter(is).count(), told_of, "{call}");
    }
}

#[tokio::test]
async fn a_ceiling_ends_with_the_make_that_asked() {
    let mut stage = Stage::new(&[("Makefile", &makefile(8))]);
    stage.options.local_slots = 4;
    stage
        .build("SEEN=first make -j2 && SEEN=second make -j", 0)
        .await;
    assert_eq!((stage.most("first"), stage.most("second")), (2, 4));
}

#[tokio::test]
async fn a_sub_make_s_own_ceiling_binds_it_within_its_parent_s_limit() {
    let rules = format!("{}recursive:\n\t$(MAKE) -j2 all 2>>warnings\n", makefile(8));
    let mut stage = Stage::new(&[("Makefile", &rules)]);
    stage.options.local_slots = 4;
    stage.build("make -j recursive", 0).await;
    assert_eq!(
        (stage.most("seen"), stage.read("warnings")),
        (2, String::new())
    );
}

#[tokio::test]
async fn makes_side_by_side_share_one_limit() {
    let mut stage = Stage::new(&[("Makefile", &makefile(12))]);
    stage.options.local_slots = 4;
    let targets = ["t1 t2 t3 t4 t5 t6", "t7 t8 t9 t10 t11 t12"];
    let script = format!("(make -j {} & make -j {}; wait)", targets[0], targets[1]);
    stage.build(&script, 0).await;
    assert_eq!(stage.numbers("seen").len(), 12);
    // The job that every make runs without a token cannot be held back: if the second make comes when the first has its
    // tokens, there is one more until one comes back.
    let most = stage.most("seen");
    assert!((4..=5).contains(&most), "{most} at once");
}

#[tokio::test]
async fn tokens_of_a_killed_sub_make_are_granted_again() {
    let rules = format!(
        "{}{RECIPES}",
        "all: t1 t2 t3 t4 t5 t6 t7 t8\nt1 t2 t3 t4 t5 t6 t7 t8: killer\n\
         killer:\n\t-@$(MAKE) -s -f sub.mk & sub=$$!; sleep 1; kill -9 $$sub; sleep 11\n"
    );
    let sub = "all: a b c d\na b c d:\n\t@echo $@ >> subs; sleep 2\n";
    let mut stage = Stage::new(&[("Makefile", &rules), ("sub.mk", sub)]);
    stage.options.local_slots = 4;
    let told = stage.build("make -j", 0).await;
    assert_eq!(told.outcome.exit, 0);
    assert_eq!(
        stage.read("subs").lines().count(),
        4,
        "the sub-make held three tokens when it was killed"
    );
    assert_eq!(stage.most("seen"), 4);
}
