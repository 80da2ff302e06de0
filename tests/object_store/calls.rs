//! Each call of the rendezvous by itself, on every kind of server.

use std::time::Duration;

use distmesh::{
    rendezvous::{Entry, EntryName, Rendezvous, store::Store},
    session::MAX_SEALED,
};

use crate::server::{Kind, Server};

fn store(server: &Server) -> Store {
    let variables = server.env().into_iter();
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let address = server.url().parse().unwrap();
    Store::new(&address, "s".parse().unwrap(), variables).unwrap()
}

fn name(node: &str, start: u64, seq: u64) -> EntryName {
    let name = format!("distmesh~s~worker~{node}~{start}~{seq}");
    name.parse().unwrap()
}

fn entry(node: &str, start: u64, seq: u64) -> Entry {
    let name = name(node, start, seq);
    Entry { name, copy: 0 }
}

/// Apache comes with its modules where Debian puts them.
const PLAIN: &[Kind] = if cfg!(target_os = "linux") {
    &[Kind::S3, Kind::RcloneDav, Kind::ApacheDav]
} else {
    &[Kind::S3, Kind::RcloneDav]
};

#[tokio::test]
async fn an_entry_lives_from_publish_to_withdraw() {
    for &kind in PLAIN {
        let server = Server::start(kind);
        let (ours, theirs) = (store(&server), store(&server));
        ours.first_look().await.unwrap();
        assert!(ours.list().await.unwrap().is_empty(), "{kind:?}");
        let one = name("w", 5, 1);
        assert!(!ours.renew(&one).await.unwrap());
        ours.publish(&one, b"one").await.unwrap();
        assert_eq!(theirs.list().await.unwrap(), [entry("w", 5, 1)], "{kind:?}");
        let fetched = theirs.fetch(&entry("w", 5, 1)).await.unwrap();
        assert_eq!(fetched.as_deref(), Some(&b"one"[..]), "{kind:?}");
        ours.publish(&name("w", 5, 2), b"two").await.unwrap();
        assert_eq!(theirs.list().await.unwrap(), [entry("w", 5, 2)], "{kind:?}");
        let gone = theirs.fetch(&entry("w", 5, 1)).await.unwrap();
        assert_eq!(gone, None, "{kind:?}");
        ours.withdraw(&name("w", 5, 2)).await.unwrap();
        ours.withdraw(&name("w", 5, 2)).await.unwrap();
        assert_eq!(server.objects(), Vec::<String>::new(), "{kind:?}");
    }
}

#[tokio::test]
async fn an_entry_that_somebody_removed_is_written_again() {
    for &kind in PLAIN {
        let server = Server::start(kind);
        let (ours, theirs) = (store(&server), store(&server));
        let one = name("w", 5, 1);
        ours.publish(&one, b"one").await.unwrap();
        ours.list().await.unwrap();
        assert!(ours.renew(&one).await.unwrap(), "nothing to do");
        theirs.withdraw(&one).await.unwrap();
        assert!(ours.list().await.unwrap().is_empty(), "{kind:?}");
        assert!(ours.renew(&one).await.unwrap());
        assert_eq!(theirs.list().await.unwrap(), [entry("w", 5, 1)], "{kind:?}");
    }
}

#[tokio::test]
async fn a_ghost_that_is_alone_is_known_by_the_servers_clock() {
    for kind in [Kind::S3, Kind::RcloneDav] {
        let mut server = Server::prepare(kind);
        let ghost = name("ghost", 5, 1).to_string();
        server.leave(&ghost, b"x", Duration::from_secs(600));
        server.go();
        assert!(store(&server).list().await.unwrap().is_empty(), "{kind:?}");
    }
}

#[tokio::test]
async fn ghosts_are_passed_over_what_is_forgotten_goes_and_junk_does_no_harm() {
    for kind in [Kind::S3, Kind::RcloneDav] {
        let server = Server::prepare(kind);
        let leave = |name: &EntryName, age| {
            server.leave(&name.to_string(), b"x", Duration::from_secs(age));
        };
        leave(&name("ghost", 5, 1), 600);
        leave(&name("forgotten", 5, 1), 7200);
        leave(&name("w", 4, 9), 10);
        server.leave("distmesh~s~worker~odd", b"x", Duration::ZERO);
        server.leave("README", b"x", Duration::ZERO);
        let huge = vec![0; 8 << 20];
        server.leave(&name("huge", 5, 1).to_string(), &huge, Duration::ZERO);
        let mut server = server;
        server.go();
        let store = store(&server);
        store.first_look().await.unwrap();
        let live = [entry("huge", 5, 1), entry("w", 4, 9)];
        assert_eq!(store.list().await.unwrap(), live, "{kind:?}");
        let fetched = store.fetch(&entry("huge", 5, 1)).await;
        assert_eq!(
            fetched.unwrap().map(|bytes| bytes.len()),
            Some(MAX_SEALED + 1),
            "{kind:?}: not read whole"
        );
        // The same node, started anew, removes its earlier self.
        store.publish(&name("w", 5, 1), b"new").await.unwrap();
        let left = server.objects();
        assert_eq!(left.len(), 5, "{kind:?}: {left:?}");
        assert!(!left.contains(&name("forgotten", 5, 1).to_string()));
        assert!(!left.contains(&name("w", 4, 9).to_string()));
    }
}

#[tokio::test]
async fn a_bucket_with_more_than_one_page_is_read_to_its_end() {
    let server = Server::prepare(Kind::S3);
    for n in 0..1100 {
        server.leave(
            &name(&format!("w{n}"), 5, 1).to_string(),
            b"x",
            Duration::ZERO,
        );
    }
    server.leave("distmesh~other~worker~w~5~1", b"x", Duration::ZERO);
    let mut server = server;
    server.go();
    assert_eq!(store(&server).list().await.unwrap().len(), 1100);
}
