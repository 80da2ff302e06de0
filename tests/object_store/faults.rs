//! Stores that refuse, are not there, or go away.

use crate::{
    crew::project,
    server::{Kind, Server},
    stage::{Stage, text},
};

/// A worker that cannot start says what and why.
fn refused(stage: &Stage, words: &[&str]) {
    let worker = stage.machine("w", &["worker"]).output().unwrap();
    let said = text(&worker.stderr);
    assert_eq!(worker.status.code(), Some(96), "{said}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

/// A build goes on alone, with one notice that says the same.
fn builds_alone(stage: &Stage, words: &[&str]) {
    let project = project(2);
    let mut build = stage.machine("p", &["build", "--", "make"]);
    let built = build.current_dir(project.path()).output().unwrap();
    let notice = text(&built.stderr);
    assert!(built.status.success(), "{notice}");
    assert_eq!(
        notice.matches("on this machine alone").count(),
        1,
        "{notice}"
    );
    for word in words {
        assert!(notice.contains(word), "{word}: {notice}");
    }
}

#[test]
fn a_bucket_that_refuses_is_named_with_what_to_do_and_the_build_is_local() {
    let server = Server::start(Kind::S3);
    let changed = |name, value| {
        let mut stage = Stage::at(&server);
        stage.set(name, value);
        stage
    };
    for (name, value, words) in [
        (
            "AWS_SECRET_ACCESS_KEY",
            "wrong",
            ["403 (SignatureDoesNotMatch)", "check AWS_ACCESS_KEY_ID"],
        ),
        (
            "AWS_ACCESS_KEY_ID",
            "wrong",
            ["403 (InvalidAccessKeyId)", "check AWS_ACCESS_KEY_ID"],
        ),
        (
            "AWS_SECRET_ACCESS_KEY",
            "",
            ["half of its key is missing", "set both AWS_ACCESS_KEY_ID"],
        ),
        (
            "DISTMESH_RENDEZVOUS",
            "s3://nowhere/mesh",
            ["404 (NoSuchBucket)", "make the bucket"],
        ),
        (
            "AWS_ENDPOINT_URL",
            "127.0.0.1",
            ["AWS_ENDPOINT_URL is no address", "https://"],
        ),
    ] {
        refused(&changed(name, value), &words);
    }
    let tls = format!("https://127.0.0.1:{}", server.port);
    refused(
        &changed("AWS_ENDPOINT_URL", &tls),
        &["does not speak TLS", "with http://"],
    );
    builds_alone(
        &changed("DISTMESH_RENDEZVOUS", "s3://nowhere/mesh"),
        &["404 (NoSuchBucket)", "make the bucket"],
    );
}

#[test]
fn an_unknown_authority_is_not_trusted_and_http_is_not_spoken_to_tls() {
    let server = Server::start(Kind::S3OverTls);
    let stage = Stage::at(&server);
    refused(&stage, &["UnknownIssuer", "SSL_CERT_FILE"]);
    let mut stage = Stage::at(&server);
    let plain = format!("http://127.0.0.1:{}", server.port);
    stage.set("AWS_ENDPOINT_URL", &plain);
    refused(&stage, &["400", "https://"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_collection_that_refuses_is_named_with_what_to_do_and_the_build_is_local() {
    let server = Server::start(Kind::ApacheDav);
    let mut stage = Stage::at(&server);
    for login in ["", "anna:wrong@"] {
        let url = format!("http://{login}127.0.0.1:{}/bucket", server.port);
        stage.set("DISTMESH_RENDEZVOUS", &url);
        refused(&stage, &["401 (Unauthorized)", "check user and password"]);
    }
    builds_alone(&stage, &["401 (Unauthorized)", "check user and password"]);
    let tls = format!("https://127.0.0.1:{}/bucket", server.port);
    stage.set("DISTMESH_RENDEZVOUS", &tls);
    refused(&stage, &["does not speak TLS", "write http://"]);
}

#[test]
fn without_a_secret_of_its_own_nobody_meets_strangers_in_a_bucket() {
    let server = Server::start(Kind::S3);
    let mut stage = Stage::at(&server);
    stage.set("ENCRYPTION_KEY", "");
    let worker = stage.machine("w", &["worker"]).output().unwrap();
    let said = text(&worker.stderr);
    assert_eq!(worker.status.code(), Some(0), "{said}");
    assert!(
        said.contains("builds are local") && said.contains("distmesh keygen"),
        "{said}"
    );
    assert_eq!(server.objects(), Vec::<String>::new());
}

#[test]
fn a_server_that_comes_late_is_waited_for() {
    let mut server = Server::prepare(Kind::S3);
    let mut stage = Stage::at(&server);
    stage.worker("attic", &[]);
    stage.hears("attic", "it is out of reach: Connection refused");
    stage.hears(
        "attic",
        "check AWS_ENDPOINT_URL and the network; trying again",
    );
    server.go();
    let project = project(3);
    let built = stage.build(1, project.path(), &[]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    assert_eq!(stage.remote(), 4, "{}", text(&built.stderr));
    assert_eq!(stage.ended("attic"), Some(0));
    let said = stage.said("attic");
    assert!(said.contains("the rendezvous works again"), "{said}");
    assert_eq!(said.matches("out of reach").count(), 1, "said once: {said}");
    server.comes_to(&[]);
}

#[test]
fn a_server_that_goes_away_takes_nothing_with_it_and_is_used_again_when_it_is_back() {
    let mut server = Server::start(Kind::S3);
    let mut stage = Stage::at(&server);
    stage.worker("attic", &[]);
    let mut up = stage.machine("primary", &["up", "--min-workers", "1", "--wait", "90s"]);
    let up = up.output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    server.stop();
    let project = project(3);
    let built = stage.build(1, project.path(), &[]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    assert_eq!(stage.remote(), 4, "links need no rendezvous");
    stage.worker("cellar", &[]);
    stage.hears("cellar", "it is out of reach: Connection refused");
    server.go();
    let built = stage.build(2, project.path(), &[]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    let down = stage.machine("primary", &["down"]).output().unwrap();
    assert!(down.status.success(), "{}", text(&down.stderr));
    for worker in ["attic", "cellar"] {
        assert_eq!(stage.ended(worker), Some(0), "{}", stage.said(worker));
    }
    server.comes_to(&[]);
}
