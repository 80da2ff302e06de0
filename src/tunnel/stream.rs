//! One stream as the rest of the program sees it: an `AsyncRead` and an `AsyncWrite`.
//!
//! The two halves and the driver share a small buffer each way. A half that changed something puts its stream on the driver's
//! list, once; the driver wakes the half when bytes, room or an end have come. The lock is held for a copy, never across an
//! `.await`.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};

use super::StreamId;
use crate::session::PeerId;

/// A stream to a peer. Dropping a half that is not at its end tells the peer at once.
pub struct Stream {
    /// Shutting it down says that all was written; dropping it before says that the rest will not come.
    pub send: SendStream,
    /// Gives an error of kind `ConnectionReset` when the peer gave up or the link went down.
    pub recv: RecvStream,
}

/// The writing half.
pub struct SendStream(Handle);

/// The reading half.
pub struct RecvStream(Handle);

/// Names a stream among all of a node's. The generation tells streams of an earlier connection apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamKey {
    pub(super) peer: PeerId,
    pub(super) generation: u64,
    pub(super) id: StreamId,
}

/// What the driver does with a stream's buffers.
#[derive(Clone)]
pub(super) struct DriverEnd(Arc<Mutex<Buffers>>);

#[derive(Clone)]
struct Handle {
    key: StreamKey,
    buffers: Arc<Mutex<Buffers>>,
    changed: mpsc::UnboundedSender<StreamKey>,
}

#[derive(Default)]
struct Buffers {
    listed: bool,
    outgoing: VecDeque<Bytes>,
    outgoing_bytes: usize,
    write_end: Option<WriteEnd>,
    write_refused: bool,
    writer: Option<Waker>,
    incoming: VecDeque<Bytes>,
    incoming_bytes: usize,
    /// The driver has more, and stopped for lack of room.
    full: bool,
    read_end: Option<ReadEnd>,
    reader_gone: bool,
    reader: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteEnd {
    Finished,
    Abandoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadEnd {
    Finished,
    Reset,
}

/// What the application wants beyond moving bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// All was written and taken: say so to the peer.
    pub(super) finish: bool,
    /// The writer was dropped in mid-stream.
    pub(super) reset: bool,
    /// The reader was dropped.
    pub(super) stop: bool,
}

/// Makes a stream, and the driver's end of it.
pub(super) fn stream(
    key: StreamKey,
    changed: mpsc::UnboundedSender<StreamKey>,
) -> (Stream, DriverEnd) {
    let buffers = Arc::new(Mutex::new(Buffers::default()));
    let handle = Handle {
        key,
        buffers: Arc::clone(&buffers),
        changed,
    };
    (
        Stream {
            send: SendStream(handle.clone()),
            recv: RecvStream(handle),
        },
        DriverEnd(buffers),
    )
}

/// Wakes a half once the buffers are unlocked: it looks at them at once, on another core.
fn wake(mut buffers: MutexGuard<'_, Buffers>, half: impl Fn(&mut Buffers) -> &mut Option<Waker>) {
    let waker = half(&mut buffers).take();
    drop(buffers);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn reader(buffers: &mut Buffers) -> &mut Option<Waker> {
    &mut buffers.reader
}

fn writer(buffers: &mut Buffers) -> &mut Option<Waker> {
    &mut buffers.writer
}

fn lock(buffers: &Mutex<Buffers>) -> MutexGuard<'_, Buffers> {
    // A panic elsewhere leaves the buffers as whole as any other moment does.
    buffers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    /// Puts the stream on the driver's list, unless it is there already.
    fn list(&self, buffers: &mut Buffers) {
        if !std::mem::replace(&mut buffers.listed, true) {
            // The driver is gone only when the tunnel was stopped; its ends were told.
            let _ = self.changed.send(self.key);
        }
    }
}

impl DriverEnd {
    /// Takes the stream off the list. Comes before anything else is looked at: what changes from then on lists it anew.
    pub(super) fn unlist(&self) {
        lock(&self.0).listed = false;
    }

    /// What the application wants.
    pub(super) fn wishes(&self) -> Wishes {
        let buffers = lock(&self.0);
        Wishes {
            finish: buffers.write_end == Some(WriteEnd::Finished) && buffers.outgoing.is_empty(),
            reset: buffers.write_end == Some(WriteEnd::Abandoned),
            stop: buffers.reader_gone,
        }
    }

    /// Offers what waits to be sent to `write` until it refuses. A piece taken in part is offered again: QUIC promises to
    /// tell of room only to a writer that it refused.
    pub(super) fn send_with(&self, mut write: impl FnMut(&mut Bytes) -> Option<usize>) {
        let mut buffers = lock(&self.0);
        while let Some(piece) = buffers.outgoing.front_mut() {
            let Some(taken) = write(piece) else { break };
            let emptied = piece.is_empty();
            buffers.outgoing_bytes -= taken;
            if emptied {
                buffers.outgoing.pop_front();
            }
        }
        // Half empty is soon enough: QUIC holds megabytes, and every wake-up costs.
        if buffers.outgoing_bytes <= BUFFER / 2 {
            wake(buffers, writer);
        }
    }

    /// How many bytes the reader has room for. When there is none, the stream is listed once there is.
    pub(super) fn room(&self) -> usize {
        let mut buffers = lock(&self.0);
        if buffers.reader_gone {
            return 0;
        }
        let room = BUFFER.saturating_sub(buffers.incoming_bytes);
        buffers.full = room == 0;
        room
    }

    /// Hands bytes to the reader.
    pub(super) fn deliver(&self, pieces: Vec<Bytes>) {
        if pieces.is_empty() {
            return;
        }
        let mut buffers = lock(&self.0);
        buffers.incoming_bytes += pieces.iter().map(Bytes::len).sum::<usize>();
        let kept = |piece: Bytes| match piece.len() {
            ..SMALL => Bytes::copy_from_slice(&piece),
            _ => piece,
        };
        buffers.incoming.extend(pieces.into_iter().map(kept));
        wake(buffers, reader);
    }

    /// Tells the reader that no more will come.
    pub(super) fn end_of_input(&self, complete: bool) {
        let mut buffers = lock(&self.0);
        buffers.read_end.get_or_insert(if complete {
            ReadEnd::Finished
        } else {
            ReadEnd::Reset
        });
        wake(buffers, reader);
    }

    /// Tells the writer that nothing more is wanted.
    pub(super) fn refuse_output(&self) {
        let mut buffers = lock(&self.0);
        buffers.write_refused = true;
        buffers.outgoing.clear();
        buffers.outgoing_bytes = 0;
        wake(buffers, writer);
    }

    /// Ends both directions: the connection is gone.
    pub(super) fn break_off(&self) {
        self.end_of_input(false);
        self.refuse_output();
    }
}

fn reset() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the peer gave the stream up, or the link went down",
    )
}

impl AsyncRead for RecvStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffers = lock(&self.0.buffers);
        let before = buf.filled().len();
        while buf.remaining() > 0
            && let Some(mut piece) = buffers.incoming.pop_front()
        {
            let taken = piece.len().min(buf.remaining());
            buf.put_slice(&piece[..taken]);
            buffers.incoming_bytes -= taken;
            piece.advance(taken);
            if !piece.is_empty() {
                buffers.incoming.push_front(piece);
            }
        }
        if buf.filled().len() > before || buf.remaining() == 0 {
            // The driver stops reading at a full buffer; half empty is soon enough to begin again.
            if buffers.full && buffers.incoming_bytes <= BUFFER / 2 {
                buffers.full = false;
                self.0.list(&mut buffers);
            }
            return Poll::Ready(Ok(()));
        }
        match buffers.read_end {
            Some(ReadEnd::Finished) => Poll::Ready(Ok(())),
            Some(ReadEnd::Reset) => Poll::Ready(Err(reset())),
            None => {
                buffers.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffers = lock(&self.0.buffers);
        if buffers.write_refused {
            return Poll::Ready(Err(reset()));
        }
        if buffers.outgoing_bytes >= BUFFER {
            buffers.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = bytes.len().min(BUFFER - buffers.outgoing_bytes);
        buffers
            .outgoing
            .push_back(Bytes::copy_from_slice(&bytes[..taken]));
        buffers.outgoing_bytes += taken;
        self.0.list(&mut buffers);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was taken is on its way: the driver is on the list.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffers = lock(&self.0.buffers);
        if buffers.write_refused {
            return Poll::Ready(Err(reset()));
        }
        buffers.write_end.get_or_insert(WriteEnd::Finished);
        self.0.list(&mut buffers);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let mut buffers = lock(&self.0.buffers);
        buffers.write_end.get_or_insert(WriteEnd::Abandoned);
        self.0.list(&mut buffers);
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        let mut buffers = lock(&self.0.buffers);
        buffers.reader_gone = true;
        buffers.incoming.clear();
        buffers.incoming_bytes = 0;
        self.0.list(&mut buffers);
    }
}

/// Enough to keep QUIC's window filled between two wake-ups of a writer, and little for a thousand streams.
const BUFFER: usize = 256 << 10;
/// A smaller piece is copied: it would keep the whole buffer that it arrived in.
const SMALL: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn opened() -> (Stream, DriverEnd, mpsc::UnboundedReceiver<StreamKey>) {
        let (changed, list) = mpsc::unbounded_channel();
        let key = StreamKey {
            peer: PeerId([1; 32]),
            generation: 1,
            id: StreamId::new(quinn_proto::Side::Client, quinn_proto::Dir::Bi, 0),
        };
        let (stream, end) = stream(key, changed);
        (stream, end, list)
    }

    #[tokio::test]
    async fn a_read_takes_all_the_pieces_that_fit() {
        let (mut stream, end, _list) = opened();
        end.deliver(vec![
            Bytes::from_static(b"one"),
            Bytes::from_static(b"two"),
            Bytes::from_static(b"three"),
        ]);
        let mut buffer = [0; 8];
        assert_eq!(stream.recv.read(&mut buffer).await.unwrap(), 8);
        assert_eq!(&buffer, b"onetwoth");
        assert_eq!(stream.recv.read(&mut buffer).await.unwrap(), 3);
        assert_eq!(&buffer[..3], b"ree");
    }

    #[tokio::test]
    async fn a_reader_asks_for_more_only_when_the_driver_had_stopped() {
        let (mut stream, end, mut list) = opened();
        let mut buffer = vec![0; BUFFER];
        end.deliver(vec![Bytes::from(vec![1; BUFFER])]);
        stream.recv.read_exact(&mut buffer).await.unwrap();
        assert!(list.try_recv().is_err(), "nothing was held back");

        end.deliver(vec![Bytes::from(vec![1; BUFFER])]);
        assert_eq!(end.room(), 0);
        stream
            .recv
            .read_exact(&mut buffer[..BUFFER / 4])
            .await
            .unwrap();
        assert!(list.try_recv().is_err(), "not yet half empty");
        stream
            .recv
            .read_exact(&mut buffer[..BUFFER / 4])
            .await
            .unwrap();
        assert!(list.try_recv().is_ok());
    }
}
