//! clang for a target that the build names: hosts may differ then, and only then.

use crate::{
    cluster::{Built, Cluster},
    toolbox::{Sources, Toolbox},
};

/// Neither is any test machine's own.
const ONE: &str = "riscv64-linux-gnu";
const OTHER: &str = "mips-linux-gnu";

/// A cluster whose session stays between builds, and a worker whose clang has another default target.
fn session_with_a_clang_of_another_host(toolbox: &Toolbox) -> Cluster {
    toolbox.script("gcc", "exec /usr/bin/gcc \"$@\"");
    for name in ["clang", "clang++"] {
        let body = format!("exec /usr/bin/{name} --target=armv7-linux-gnueabihf \"$@\"");
        toolbox.script(name, &body);
    }
    let mut cluster = Cluster::new();
    cluster.worker_on("abroad", &toolbox.path());
    let up = cluster.distmesh(&["up", "--min-workers", "1"]).output();
    assert!(up.unwrap().status.success());
    cluster
}

/// Builds until the first compile is distributed: the first build names the target, and goes on meanwhile.
fn build(cluster: &Cluster, sources: &Sources, flags: &str) -> Built {
    let flags_word = format!("FLAGS={flags}");
    let built = cluster.build(1, sources.path(), &["make", "-j4", "CC=clang", &flags_word]);
    built.exits(0);
    sources.are_as_compiled_here("clang", flags);
    built
}

fn down(cluster: &Cluster) {
    let down = cluster.distmesh(&["down"]).output().unwrap();
    assert!(down.status.success());
}

#[test]
fn a_clang_of_another_host_is_refused_by_default_and_admitted_for_every_target_that_is_named() {
    let toolbox = Toolbox::new();
    let cluster = session_with_a_clang_of_another_host(&toolbox);
    let sources = Sources::new(6);
    // The worker is counted when it has judged this machine's clang; the news of it may be on its way.
    let refused = (0..20).find_map(|_| {
        let built = build(&cluster, &sources, "-O2");
        assert_eq!(built.number("/jobs/remote"), 0);
        built.refusal("abroad", "/usr/bin/clang")
    });
    let refused = refused.expect("clang is refused once it was asked");
    assert!(
        refused.contains("compiles for armv7") && refused.contains("or build with --target="),
        "{refused}"
    );
    for flags in [
        format!("-O2 --target={ONE}"),
        format!("-O1 -target {OTHER} -fPIC"),
    ] {
        build(&cluster, &sources, &flags);
        let admitted = (0..20).any(|_| {
            let built = build(&cluster, &sources, &flags);
            built.number("/jobs/remote") == 6 && built.jobs_of("abroad") > 0
        });
        assert!(admitted, "{flags}");
    }
    let built = build(&cluster, &sources, "-O2");
    assert_eq!(built.number("/jobs/remote"), 0, "the default stays refused");
    down(&cluster);
}

#[test]
fn a_target_named_in_mid_build_is_distributed_in_the_same_build() {
    let toolbox = Toolbox::new();
    let cluster = session_with_a_clang_of_another_host(&toolbox);
    let sources = Sources::new(30);
    let flags = format!("-O2 --target={ONE}");
    let command = [
        "make",
        "-j2",
        "CC=clang",
        "BEFORE=@sleep 0.4",
        &format!("FLAGS={flags}"),
    ];
    let built = cluster.build(1, sources.path(), &command);
    built.exits(0);
    sources.are_as_compiled_here("clang", &flags);
    let (remote, local) = (built.number("/jobs/remote"), built.number("/jobs/local"));
    assert!(remote > 0 && local > 0, "{remote} remote, {local} local");
    down(&cluster);
}

#[test]
fn a_target_that_the_workers_clang_cannot_compile_for_is_refused_with_the_cure() {
    let toolbox = Toolbox::new();
    let body = format!(
        "case \"$*\" in *-o*--target=*|*--target={ONE}*-c*) echo no such target >&2; exit 1 ;; esac; exec /usr/bin/clang \"$@\""
    );
    toolbox.script("clang", &body);
    let mut cluster = Cluster::new();
    cluster.worker_on("abroad", &toolbox.path());
    let sources = Sources::new(10);
    let flags = format!("FLAGS=--target={ONE}");
    let command = ["make", "-j1", "CC=clang", "BEFORE=@sleep 0.4", &flags];
    let built = cluster.build(1, sources.path(), &command);
    built.exits(0);
    assert_eq!(built.number("/jobs/remote"), 0);
    let refused = built.refused("abroad", &format!("/usr/bin/clang --target={ONE}"));
    assert!(
        refused.contains("does not compile for riscv64") && refused.contains("install"),
        "{refused}"
    );
}
