//! Sessions that meet in a store: they form, build, end, and leave nothing there.

use std::time::Duration;

use crate::{
    crew::project,
    server::{Kind, Server},
    stage::{Stage, text},
};

/// One primary and two workers, with what else lies there.
fn meet(kind: Kind) {
    let server = Server::start(kind);
    let litter = "distmesh~long-ago~worker~w~5~1";
    if kind != Kind::ApacheDav {
        server.leave(litter, b"sealed", Duration::from_secs(7200));
        server.leave("README", b"this bucket is shared", Duration::ZERO);
    }
    let mut stage = Stage::at(&server);
    if kind == Kind::S3OverTls {
        let authority = server.dir.path().join("ca.pem");
        stage.set("SSL_CERT_FILE", authority.to_str().unwrap());
    }
    stage.worker("attic", &[]);
    stage.worker("cellar", &[]);
    let project = project(12);
    let built = stage.build(2, project.path(), &[]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    assert_eq!(stage.remote(), 13, "{}", text(&built.stderr));
    for worker in ["attic", "cellar"] {
        assert_eq!(stage.ended(worker), Some(0), "{}", stage.said(worker));
        let said = stage.said(worker);
        assert!(said.contains("stopped: the primary is done"), "{said}");
    }
    let left = if kind == Kind::ApacheDav {
        &[][..]
    } else {
        &["README"]
    };
    server.comes_to(left);
}

#[test]
fn machines_that_meet_in_a_bucket_build_together_and_leave_nothing_there() {
    meet(Kind::S3);
}

#[test]
fn a_bucket_behind_tls_is_as_good_where_its_authority_is_trusted() {
    meet(Kind::S3OverTls);
}

#[cfg(target_os = "linux")]
#[test]
fn machines_that_meet_in_a_webdav_collection_build_together_and_leave_nothing_there() {
    meet(Kind::ApacheDav);
}

#[test]
fn the_same_goes_for_another_webdav_server() {
    meet(Kind::RcloneDav);
}

#[test]
fn a_restarted_worker_beats_its_ghost() {
    let server = Server::start(Kind::S3);
    let mut stage = Stage::at(&server);
    stage.worker("attic", &[]);
    stage.hears("attic", "worker attic: 1 slots");
    server.holds(1);
    stage.kill("attic");
    let ghost = server.objects();
    assert_eq!(ghost.len(), 1, "a killed worker withdraws nothing");
    stage.worker("attic", &["-vv"]);
    let project = project(3);
    let built = stage.build(1, project.path(), &["-vv"]);
    let said = text(&built.stderr);
    assert!(built.status.success(), "{said}");
    assert_eq!(stage.remote(), 4, "{said}");
    assert_eq!(stage.ended("attic"), Some(0));
    server.comes_to(&[]);
}

#[test]
fn who_has_another_secret_is_told_so_and_not_let_in() {
    let server = Server::start(Kind::S3);
    let mut stage = Stage::at(&server);
    stage.worker("ours", &[]);
    stage.set("ENCRYPTION_KEY", "a secret of somebody else's");
    stage.worker("theirs", &[]);
    server.holds(2);
    stage.set("ENCRYPTION_KEY", crate::stage::SECRET);
    let project = project(3);
    let built = stage.build(1, project.path(), &[]);
    let said = text(&built.stderr);
    assert!(built.status.success(), "{said}");
    assert!(
        said.contains("worker theirs published a descriptor that this secret does not open"),
        "{said}"
    );
    assert_eq!(stage.ended("ours"), Some(0));
}
