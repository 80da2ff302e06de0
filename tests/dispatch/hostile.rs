//! Workers and clients that want harm: a worker can cost a job one attempt, a client its own job, nobody the build.

use std::{net::SocketAddr, path::Path, time::Duration};

use distmesh::event::{JobOutcome, LinkState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::site::{Site, V3, V3_DONE, fake, read_all};

const MIB: usize = 1 << 20;

/// What a hostile worker does when a job comes.
#[derive(Clone)]
enum Trick {
    /// It says this, goes on with so many bytes more, and closes.
    Flood(Vec<u8>, usize),
    /// It says this, and waits for ever.
    Hang(Vec<u8>),
    /// It says this, a byte a second.
    Drip(Vec<u8>),
    /// It says this before it has read anything, and reads nothing.
    Early(Vec<u8>),
}

async fn hostile(trick: Trick) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(play(trick.clone(), stream));
        }
    });
    at
}

/// Whatever it still has to say when nobody listens any more is lost.
async fn play(trick: Trick, mut stream: TcpStream) -> std::io::Result<()> {
    if !matches!(trick, Trick::Early(_)) {
        stream.read_exact(&mut vec![0; V3.len()]).await?;
    }
    match trick {
        Trick::Flood(words, more) => {
            stream.write_all(&words).await?;
            for _ in 0..more / MIB {
                stream.write_all(&[b'x'; MIB]).await?;
            }
        }
        Trick::Hang(words) | Trick::Early(words) => {
            stream.write_all(&words).await?;
            std::future::pending::<()>().await;
        }
        Trick::Drip(words) => {
            for byte in words {
                stream.write_all(&[byte]).await?;
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
    Ok(())
}

/// The first worker plays the trick, the second is honest: the client's answer is right, at the cost of one attempt.
async fn costs_one_attempt(trick: Trick, what: &str) {
    // Anew each time: a worker that has failed is not asked first.
    let mut site = Site::new();
    let (good, _seen) = fake(V3.len(), V3_DONE.to_vec(), false).await;
    site.worker(1, hostile(trick).await, LinkState::Up);
    site.worker(2, good, LinkState::Up);
    let mut client = site.client(1, V3).await;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, V3_DONE, "{what}");
    let record = site.record().await;
    assert_eq!(record.outcome, JobOutcome::Compiled, "{what}");
    assert_eq!(record.worker.as_deref(), Some("w2"), "{what}");
    assert_eq!(record.attempts, 2, "{what}");
    assert_eq!(files(site.spill.path()), 0, "{what}");
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

fn text(answer: &str) -> Vec<u8> {
    answer.as_bytes().to_vec()
}

#[tokio::test]
async fn an_answer_that_breaks_off_anywhere_costs_one_attempt() {
    for cut in 0..V3_DONE.len() {
        let answer = V3_DONE[..cut].to_vec();
        costs_one_attempt(Trick::Flood(answer, 0), &format!("{cut} bytes")).await;
    }
}

#[tokio::test]
async fn an_answer_whose_lengths_are_wrong_costs_one_attempt() {
    let honest = String::from_utf8(V3_DONE.to_vec()).unwrap();
    for (token, length) in [("SERR", 0), ("SOUT", 0), ("DOTO", 3), ("DOTD", 2_u32)] {
        let wrong = [length.wrapping_sub(1), length + 1, 0x3fff_ffff, u32::MAX];
        let hex = wrong.map(|wrong| format!("{wrong:08x}"));
        for wrong in hex
            .iter()
            .map(String::as_str)
            .chain(["-0000001", "0x000001"])
        {
            let lie = honest.replace(&format!("{token}{length:08x}"), &format!("{token}{wrong}"));
            costs_one_attempt(Trick::Flood(text(&lie), 0), &lie).await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_lies_costs_one_attempt() {
    for lie in [
        "HTTP/1.1 400 no",
        // Another protocol than the request's, or none.
        "DONE00000001STAT00000000SERR00000000SOUT00000000DOTO00000003obj",
        "DONE00000002STAT00000000SERR00000000SOUT00000000DOTO00000003obj",
        "DONEffffffffSTAT00000000SERR00000000SOUT00000000DOTO00000003obj",
        // distcc would take these for a success, without an object or with an empty one.
        "DONE00000003STAT00000000SERR00000000SOUT00000000DOTO00000000DOTD00000000",
        "DONE00000003STAT00000080SERR00000000SOUT00000000DOTO00000000",
        "DONE00000003STAT00010000SERR00000000SOUT00000000DOTO00000000",
        "DONE00000003STATffff0000SERR00000000SOUT00000000DOTO00000000",
        // No process ends like that.
        "DONE00000003STATffffffffSERR00000000SOUT00000000DOTO00000000",
        "DONE00000003STAT0000007fSERR00000000SOUT00000000DOTO00000000",
        "DONE00000003STAT00000100SERR00000000SOUT00000000DOTO00000003obj",
        // More than an answer.
        "DONE00000003STAT00000000SERR00000000SOUT00000000DOTO00000003objDOTD00000002d\nDONE",
    ] {
        costs_one_attempt(Trick::Flood(text(lie), 0), lie).await;
    }
    let shouted = V3_DONE.to_ascii_lowercase();
    costs_one_attempt(Trick::Flood(shouted, 0), "lower case").await;
}

#[tokio::test]
async fn an_answer_without_an_end_costs_one_attempt() {
    let start = "DONE00000003STAT00000000SERR00000000SOUT00000000";
    for (endless, what) in [
        (
            "DONE00000003STAT00000000SERRffffffff".to_owned(),
            "messages",
        ),
        (format!("{start}DOTOffffffff"), "an object of 4 GB"),
        (
            format!("{start}DOTO40000001"),
            "an object of 1 GiB and a byte",
        ),
        (
            format!("{start}DOTO00000003objDOTDfffffff0"),
            "dependencies",
        ),
        (
            format!("{start}DOTO00000003objDOTD00000002d\n"),
            "an answer and more",
        ),
    ] {
        costs_one_attempt(Trick::Flood(text(&endless), 64 * MIB), what).await;
    }
}

/// The most memory that this process ever had, in KiB.
#[cfg(target_os = "linux")]
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let digits = peak.unwrap().trim().trim_end_matches(" kB");
    digits.parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn floods_from_either_side_stay_out_of_memory() {
    let before = peak_memory();
    // As long as an object may be at most, and broken off at a quarter.
    let claim = text("DONE00000003STAT00000000SERR00000000SOUT00000000DOTO3fffffff");
    costs_one_attempt(Trick::Flood(claim, 256 * MIB), "a flood").await;
    let site = Site::new();
    site.worker(1, hostile(Trick::Hang(Vec::new())).await, LinkState::Up);
    let claim = b"DIST00000001ARGC00000001ARGV00000003gccDOTI3ffffff0";
    let mut client = site.client(1, claim).await;
    for _ in 0..256 {
        client.write_all(&[b'x'; MIB]).await.unwrap();
    }
    let grown = peak_memory() - before;
    assert!(grown < 64 << 10, "{grown} KiB");
    assert_eq!(files(site.spill.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_drips_costs_one_attempt() {
    costs_one_attempt(Trick::Drip(V3_DONE.to_vec()), "a byte a second").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_stops_anywhere_costs_one_attempt() {
    for cut in 0..V3_DONE.len() {
        let answer = V3_DONE[..cut].to_vec();
        costs_one_attempt(Trick::Hang(answer), &format!("{cut} bytes")).await;
    }
}

#[tokio::test]
async fn an_answer_to_half_a_request_costs_one_attempt() {
    // More than the sockets between the two can hold.
    let body = vec![b'x'; 32 * MIB];
    let head = format!(
        "DIST00000001ARGC00000001ARGV00000003gccDOTI{:08x}",
        body.len()
    );
    let request = [head.as_bytes(), &body].concat();
    let done = text("DONE00000001STAT00000000SERR00000000SOUT00000000DOTO00000003");
    let [early, honest] = [b"bad", b"obj"].map(|object| [&done[..], object].concat());
    let mut site = Site::new();
    let (good, _seen) = fake(request.len(), honest.clone(), false).await;
    site.worker(1, hostile(Trick::Early(early)).await, LinkState::Up);
    site.worker(2, good, LinkState::Up);
    assert_eq!(read_all(site.client(1, &request).await).await, honest);
    assert_eq!(site.record().await.attempts, 2);
}

#[tokio::test]
async fn clients_that_send_nonsense_or_nothing_hurt_nobody_else() {
    let mut site = Site::new();
    let (good, _seen) = fake(V3.len(), V3_DONE.to_vec(), false).await;
    site.worker(1, good, LinkState::Up);
    let mut open = Vec::new();
    for nonsense in [
        "",
        "GET / HTTP/1.1\r\n\r\n",
        "DIST00000004",
        "DIST00000003CDIRffffffff",
        "DIST00000001ARGCffffffffARGV00000000ARGV00000000",
        "DIST00000001ARGC00000001ARGVffffffff",
        "DIST00000001ARGC00000001ARGV00000003gccDOTIffffffff",
        "DIST00000003CDIR00000000ARGC00000001ARGV00000003gccNFILffffffff",
    ] {
        for _ in 0..5 {
            open.push(site.client(1, nonsense.as_bytes()).await);
        }
    }
    assert_eq!(read_all(site.client(1, V3).await).await, V3_DONE);
    assert_eq!(site.record().await.outcome, JobOutcome::Compiled);
    // A job of no compiler that anybody was admitted for waits to be handed back, and is forgotten with its client.
    let odd = site
        .client(1, b"DIST00000001ARGC00000000DOTI00000001x")
        .await;
    site.stranded(1).await;
    drop(odd);
    assert_eq!(site.record().await.outcome, JobOutcome::Cancelled);
}
