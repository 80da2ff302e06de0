//! What must not be written anywhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    crew::project,
    server::{Kind, PASSWORD, SECRET_KEY, Server},
    stage::{SECRET, Stage, text},
};

/// Every file below a directory.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Runs a session that says all it can, with a server that is gone for a while and one that refuses.
fn talk(kind: Kind, directives: &str) {
    let mut server = Server::prepare(kind);
    let mut stage = Stage::at(&server);
    stage.set("AWS_SESSION_TOKEN", "session-token-4cc1");
    stage.set("DISTMESH_LOG", directives);
    stage.worker("attic", &["-vvv"]);
    stage.hears("attic", "out of reach");
    server.go();
    let project = project(2);
    let built = stage.build(1, project.path(), &["-vvv"]);
    let said = text(&built.stderr);
    assert!(built.status.success(), "{said}");
    assert_eq!(stage.ended("attic"), Some(0));
    assert!(
        stage.said("attic").contains("DEBUG"),
        "it says what it does"
    );
    let log = |name: &str, said: &[u8]| fs::write(stage.dir.path().join(name), said).unwrap();
    log("primary.log", &built.stderr);
    for (name, wrong) in [
        ("AWS_ACCESS_KEY_ID", "unknown"),
        (
            "DISTMESH_RENDEZVOUS",
            "https://anna:dav-p%40ss%2Fword-77e0@h/p?x",
        ),
    ] {
        let mut refused = stage.machine("refused", &["worker", "-vvv"]);
        let refused = refused.env(name, wrong);
        // Where the key is not used, nothing is refused.
        refused.args(["--wait-primary", "1s"]);
        log(&format!("{name}.log"), &refused.output().unwrap().stderr);
    }
    forbid(stage.dir.path());
}

fn forbid(dir: &Path) {
    let mut written = Vec::new();
    files(dir, &mut written);
    assert!(written.len() >= 4, "{written:?}");
    for file in written {
        let text = text(&fs::read(&file).unwrap_or_default());
        for word in [
            SECRET,
            SECRET_KEY,
            PASSWORD,
            "dav-p%40ss%2Fword-77e0",
            // The pair of user and password as a header has it.
            "YW5uYTpkYXYtcEBzcy93b3JkLTc3ZTA",
            "session-token-4cc1",
            "AWS4-HMAC-SHA256",
            "Signature=",
        ] {
            let line = text.lines().find(|line| line.contains(word));
            assert!(line.is_none(), "{word} in {}: {line:?}", file.display());
        }
    }
}

#[test]
fn nothing_that_is_written_at_the_highest_level_has_a_key_a_signature_or_a_secret() {
    talk(Kind::S3, "");
    talk(Kind::S3, "trace");
}

#[test]
fn nothing_that_is_written_at_the_highest_level_has_the_password_of_a_collection() {
    talk(Kind::RcloneDav, "trace");
}
