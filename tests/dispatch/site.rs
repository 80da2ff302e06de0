//! A dispatch with one build, workers that say what a test wants, and clients made by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use distmesh::{
    dispatch::{BuildDesk, Dispatch, JobIo, Transport, WorkerUpdate},
    event::{BuildUpdate, JobRecord, LinkState},
    session::PeerId,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

pub(crate) const V3: &[u8] = b"DIST00000003CDIR00000001/ARGC00000002ARGV00000003gccARGV00000003a.cNFIL00000001NAME00000004/a.cFILE00000001x";
pub(crate) const V3_DONE: &[u8] =
    b"DONE00000003STAT00000000SERR00000000SOUT00000000DOTO00000003objDOTD00000002d\n";

#[derive(Default)]
pub(crate) struct Tcp(Mutex<BTreeMap<PeerId, SocketAddr>>);

impl Transport for Tcp {
    fn open(&self, worker: PeerId) -> Pin<Box<dyn Future<Output = io::Result<JobIo>> + Send + '_>> {
        let to = self.0.lock().unwrap()[&worker];
        Box::pin(async move {
            let (read, write) = TcpStream::connect(to).await?.into_split();
            Ok(JobIo {
                read: Box::new(read),
                write: Box::new(write),
            })
        })
    }
}

pub(crate) struct Site {
    pub(crate) tcp: Arc<Tcp>,
    pub(crate) dispatch: Dispatch,
    pub(crate) desk: BuildDesk,
    pub(crate) updates: mpsc::Receiver<BuildUpdate>,
    pub(crate) spill: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let spill = tempfile::tempdir().unwrap();
        let tcp = Arc::new(Tcp::default());
        let dispatch = Dispatch::new(tcp.clone(), spill.path().to_owned());
        let (tx, updates) = mpsc::channel(100);
        let desk = dispatch.open_build(tx).unwrap();
        Self {
            tcp,
            dispatch,
            desk,
            updates,
            spill,
        }
    }

    pub(crate) fn worker(&self, n: u8, at: SocketAddr, state: LinkState) {
        self.worker_named(&format!("w{n}"), n, at, state);
    }

    pub(crate) fn worker_named(&self, name: &str, n: u8, at: SocketAddr, state: LinkState) {
        let peer = PeerId([n; 32]);
        self.tcp.0.lock().unwrap().insert(peer, at);
        let update = WorkerUpdate {
            peer,
            name: name.parse().unwrap(),
            slots: 4,
            state,
            admitted: [("gcc".into(), "gcc".to_owned())].into(),
            refused: BTreeMap::new(),
            undecided: BTreeSet::new(),
        };
        self.dispatch.update_worker(update).unwrap();
    }

    pub(crate) fn port(&self, n: u8) -> u16 {
        self.desk.port(PeerId([n; 32])).unwrap()
    }

    pub(crate) async fn client(&self, n: u8, request: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(("127.0.0.1", self.port(n)))
            .await
            .unwrap();
        client.write_all(request).await.unwrap();
        client
    }

    pub(crate) async fn find<T>(&mut self, pick: impl Fn(BuildUpdate) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = pick(self.updates.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(10), found).await.unwrap()
    }

    pub(crate) async fn record(&mut self) -> JobRecord {
        self.find(|update| {
            if let BuildUpdate::Job(job) = update {
                Some(job)
            } else {
                None
            }
        })
        .await
    }

    pub(crate) async fn stranded(&mut self, count: u32) {
        self.find(|update| {
            matches!(update, BuildUpdate::Load { load, .. } if load.stranded == count).then_some(())
        })
        .await;
    }
}

/// A worker that reads `needs` bytes and answers with `answer`; `hang` keeps the stream open afterwards.
pub(crate) async fn fake(
    needs: usize,
    answer: Vec<u8>,
    hang: bool,
) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (tx, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; needs];
            if stream.read_exact(&mut request).await.is_err() {
                continue;
            }
            let _ = tx.send(request);
            let _ = stream.write_all(&answer).await;
            while hang && matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {}
            let _ = tx.send(b"end".to_vec());
        }
    });
    (at, seen)
}

pub(crate) async fn read_all(mut client: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = client.read_to_end(&mut answer);
    timeout(Duration::from_secs(10), read)
        .await
        .unwrap()
        .unwrap();
    answer
}
