//! What nodes make of the run's artifacts when nothing goes wrong, and of what others put there.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Duration,
};

use distmesh::{
    rendezvous::{EntryName, Rendezvous},
    session::MAX_SEALED,
};

use crate::{
    fake::{Artifact, Fake},
    nodes::{Node, Nodes, descriptor, github},
};

const MINUTE: Duration = Duration::from_secs(60);

fn visible(fake: &Fake) -> Vec<String> {
    let state = fake.lock();
    let visible = state
        .store
        .artifacts
        .iter()
        .filter(|artifact| artifact.is_visible());
    visible.map(|artifact| artifact.name.clone()).collect()
}

/// What makes the other tests show that no token reaches the blob store.
#[test]
fn the_fakes_blob_store_refuses_who_brings_a_token() {
    let fake = Fake::start();
    let at = fake.blobs.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(at).unwrap();
    write!(
        stream,
        "GET /blob/1001 HTTP/1.1\r\nAuthorization: Bearer x\r\n\r\n"
    )
    .unwrap();
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status).unwrap();
    assert!(status.contains(" 400 "), "{status}");
}

#[tokio::test]
async fn nodes_find_each_other_hear_of_changes_and_leave_nothing() {
    let fake = Fake::start();
    let mut nodes = Nodes::start(&fake, 1, 3);
    assert!(nodes.form(MINUTE).await, "{}", nodes.said());
    assert!(
        visible(&fake)
            .contains(&"distmesh-1-primary-GitHub-Actions-0-4711-1764000000000.1".to_owned())
    );
    nodes.0[1].me.send(descriptor(1, 2)).unwrap();
    assert_eq!(nodes.0[0].next().await, descriptor(1, 2));
    assert_eq!(
        visible(&fake).len(),
        3,
        "the older one was deleted: {:?}",
        visible(&fake)
    );
    nodes.stop().await;
    assert_eq!(visible(&fake), [""; 0]);
    assert_eq!(fake.charged(), 0, "no REST request: {:?}", fake.counts());
}

#[tokio::test]
async fn earlier_attempts_are_passed_over_whatever_the_backend_calls_them() {
    for shared in [false, true] {
        let fake = Fake::start();
        fake.lock().store.shared_backend = shared;
        let mut first = Nodes::start(&fake, 1, 3);
        assert!(first.form(MINUTE).await);
        first.kill();
        assert_eq!(visible(&fake).len(), 3, "they deleted nothing");
        let mut second = Nodes::start(&fake, 2, 3);
        assert!(second.form(MINUTE).await, "{}", second.said());
        assert_eq!(second.said(), "");
        second.stop().await;
        let left = visible(&fake);
        assert!(left.iter().all(|name| name.starts_with("distmesh-1-")) && left.len() == 3);
    }
}

#[tokio::test]
async fn a_release_is_that_of_this_attempt() {
    for shared in [false, true] {
        let fake = Fake::start();
        fake.lock().store.shared_backend = shared;
        let release = |attempt| {
            let mut state = fake.lock();
            let run = state.store.run_backend(attempt);
            let job = format!("job-{attempt}-0");
            let (name, finalized) = ("release-linux".to_owned(), true);
            state.store.add(Artifact {
                attempt,
                run,
                job,
                name,
                finalized,
                ..Artifact::default()
            });
        };
        let (_, github) = github(&fake, 2, "1", &[]);
        let pattern = "release-*".parse().unwrap();
        release(1);
        github.list().await.unwrap();
        assert_eq!(github.released(&pattern).await, None, "shared: {shared}");
        release(2);
        github.list().await.unwrap();
        assert_eq!(
            github.released(&pattern).await.as_deref(),
            Some("release-linux")
        );
    }
}

#[tokio::test]
async fn with_github_token_alone_lists_and_contents_come_from_the_api_and_unchanged_lists_are_free()
{
    let fake = Fake::start();
    let mut nodes = Nodes::start(&fake, 1, 2);
    assert!(nodes.form(MINUTE).await);
    let (_, reader) = github(&fake, 1, "7", &["ACTIONS_RUNTIME_TOKEN"]);
    let mut entries = Vec::new();
    for _ in 0..20 {
        entries = reader.list().await.unwrap();
    }
    assert_eq!(entries.len(), 2);
    for entry in &entries {
        let sealed = reader.fetch(entry).await.unwrap().unwrap();
        assert!(sealed.starts_with(b"DMD1") && sealed.len() <= MAX_SEALED);
    }
    let counts = fake.counts();
    assert_eq!(counts["rest artifacts"], 1, "{counts:?}");
    assert_eq!(counts["rest artifacts (304)"], 19, "{counts:?}");
    assert_eq!(
        fake.charged(),
        4,
        "attempt, list, two downloads: {counts:?}"
    );
    // Nobody can publish so, and that is said.
    let name = EntryName::of(&descriptor(7, 1), &"s".parse().unwrap());
    let error = reader.publish(&name, b"x").await.unwrap_err().to_string();
    assert!(error.contains("token"), "{error}");
}

#[tokio::test]
async fn many_pages_are_read_and_a_quota_that_is_used_up_is_left_alone() {
    let fake = Fake::start();
    {
        let mut state = fake.lock();
        state.store.began(1);
        let run = state.store.run_backend(1);
        for n in 0..250 {
            let name = format!("distmesh-1-worker-w{n}-5.1");
            let (run, finalized) = (run.clone(), true);
            state.store.add(Artifact {
                attempt: 1,
                run,
                name,
                finalized,
                ..Artifact::default()
            });
        }
    }
    let (_, reader) = github(&fake, 1, "7", &["ACTIONS_RUNTIME_TOKEN"]);
    assert_eq!(reader.list().await.unwrap().len(), 250);
    assert_eq!(fake.counts()["rest artifacts"], 3);
    fake.lock().store.remaining = Some(0);
    let first = reader.list().await.unwrap_err().to_string();
    let asked = fake.counts();
    let second = reader.list().await.unwrap_err().to_string();
    for error in [&first, &second] {
        assert!(error.contains("wants fewer requests"), "{error}");
    }
    assert_eq!(fake.counts(), asked, "not asked again before its time");
    assert!(reader.poll_interval(true) >= MINUTE);
}

fn something(fake: &Fake, n: u32) {
    let (name, finalized) = (format!("something-{n}"), true);
    fake.lock().store.add(Artifact {
        attempt: 1,
        name,
        finalized,
        ..Artifact::default()
    });
}

#[tokio::test]
async fn one_runners_budget_ends_before_githubs_does() {
    let fake = Fake::start();
    let (_, reader) = github(&fake, 1, "7", &["ACTIONS_RUNTIME_TOKEN"]);
    let mut error = String::new();
    for n in 0..20 {
        // Something is new each time.
        something(&fake, n);
        error = reader
            .list()
            .await
            .err()
            .map_or(error, |error| error.to_string());
    }
    assert!(error.contains("our share of GitHub's API"), "{error}");
    assert_eq!(fake.charged(), 6);
}

#[tokio::test]
async fn twenty_runners_meet_without_one_rest_request_and_watch_for_two_each() {
    let fake = Fake::start();
    let mut nodes = Nodes::start(&fake, 1, 20);
    assert!(nodes.form(3 * MINUTE).await, "{}", nodes.said());
    println!("twenty runners meet: {:?}", fake.counts());
    assert_eq!(fake.charged(), 0);
    fake.lock().counts.clear();
    for job in 20..40 {
        let (_, reader) = github(&fake, 1, &job.to_string(), &["ACTIONS_RUNTIME_TOKEN"]);
        for _ in 0..30 {
            assert_eq!(reader.list().await.unwrap().len(), 20);
        }
    }
    println!("twenty watch by REST alone: {:?}", fake.counts());
    assert_eq!(fake.charged(), 40);
    nodes.stop().await;
}

#[tokio::test]
async fn an_enterprise_server_has_its_api_below_a_path() {
    let mut fake = Fake::start();
    let mut nodes = Nodes::start(&fake, 1, 2);
    assert!(nodes.form(MINUTE).await);
    fake.api = format!("{}/api/v3", fake.api);
    let (_, reader) = github(&fake, 1, "7", &["ACTIONS_RUNTIME_TOKEN"]);
    let entries = reader.list().await.unwrap();
    assert_eq!(entries.len(), 2);
    assert!(reader.fetch(&entries[0]).await.unwrap().is_some());
}

#[tokio::test]
async fn the_end_of_the_primarys_job_is_seen_where_a_token_allows() {
    let fake = Fake::start();
    let primary = Node::start(&fake, 1, 0);
    let (_, worker) = github(&fake, 1, "1", &[]);
    let ended = async || {
        worker.list().await.unwrap();
        worker.primaries_ended().await
    };
    assert_eq!(ended().await, None, "no primary is known");
    while visible(&fake).is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let job = |status: &str, conclusion| serde_json::json!({"status": status, "conclusion": conclusion, "head_branch": null, "runner_name": "GitHub Actions 0"});
    fake.lock().store.jobs = vec![job("in_progress", None)];
    assert_eq!(ended().await, None);
    fake.lock().store.jobs = vec![job("completed", Some("cancelled"))];
    assert_eq!(ended().await.as_deref(), Some("cancelled"));
    // A runner of one's own may have had another job before.
    let before = job("completed", Some("success"));
    fake.lock().store.jobs = vec![before.clone(), job("in_progress", None)];
    assert_eq!(ended().await, None);
    fake.lock().store.jobs = vec![before, job("completed", Some("failure"))];
    assert_eq!(ended().await.as_deref(), Some("failure"));
    primary.stop().await;
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_believed_the_third_time() {
    let fake = Fake::start();
    let (_, worker) = github(&fake, 1, "1", &["GITHUB_TOKEN"]);
    fake.lock().faults.add("401", 1);
    assert!(worker.list().await.is_err());
    assert!(worker.list().await.is_ok() && !worker.has_expired());
    fake.lock().faults.add("401", 3);
    for _ in 0..3 {
        let error = worker.list().await.unwrap_err().to_string();
        assert!(error.contains("expired"), "{error}");
    }
    assert!(worker.has_expired());
}

#[tokio::test]
async fn an_artifact_of_ours_that_somebody_deleted_is_published_again() {
    let fake = Fake::start();
    let mut nodes = Nodes::start(&fake, 1, 2);
    assert!(nodes.form(MINUTE).await);
    for artifact in &mut fake.lock().store.artifacts {
        artifact.deleted |= artifact.name.contains("worker");
    }
    let late = Node::start(&fake, 1, 2);
    nodes.0.push(late);
    let last = nodes.0.last_mut().unwrap();
    let until = tokio::time::Instant::now() + 2 * MINUTE;
    assert!(last.knows(2, until).await, "{}", nodes.said());
    nodes.stop().await;
}
