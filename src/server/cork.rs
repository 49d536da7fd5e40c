//! What HTTP/2 writes, held back until its connection has nothing more to write for now.
//!
//! h2 flushes after each frame, so that each 16 KiB of a body would be a system call of their own, and, since a frame's head makes
//! it longer than a TLS record, two records. (Held back, 1.5 times as much for a CPU-second.) Who polls the connection pulls
//! the cork behind it: [`uncorked`].

use super::buffers::{self, Buffer};
use super::h2::meter::{self, Heads, Meter};
use super::h2::outgoing::Outgoing;
use super::memory::Part;
use super::peer::Peer;
use crate::clock;
use prometheus::IntCounter;
use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Of what is written, so much is held at most: what rustls takes at once.
const MOST_BYTES: usize = 64 << 10;

/// An IO stream that is flushed from outside. Clones are of one stream.
pub struct Cork<S>(Rc<RefCell<Corked<S>>>);

struct Corked<S> {
    io: S,
    held: Option<Buffer>,
    /// Of what is held.
    written: usize,
    out: Heads,
    /// The same of what has left.
    left: Heads,
    guard: Guard,
}

/// Ends a connection whose client sends too many frames that ask for nothing.
pub struct Guard {
    meter: Meter,
    outgoing: Arc<Outgoing>,
    /// Whose memory is held; none in tests.
    peer: Option<Rc<Peer>>,
    floods: IntCounter,
    is_calmed: bool,
}

impl Guard {
    /// For a connection; what it ends is counted.
    pub fn new(peer: &Rc<Peer>, floods: IntCounter) -> Self {
        Self { peer: Some(peer.clone()), ..Self::of(peer.outgoing(), floods) }
    }

    /// With this account of bodies.
    fn of(outgoing: Arc<Outgoing>, floods: IntCounter) -> Self {
        Self { meter: Meter::new(clock::monotonic()), outgoing, peer: None, floods, is_calmed: false }
    }

    /// Takes note of what the connection holds while it waits.
    fn note_memory(&self, has_frames: bool) {
        let Some(Peer { memory, .. }) = self.peer.as_deref() else { return };
        let held = if has_frames { MOST_BYTES as u64 } else { 0 };
        memory.set(Part::Frames, held + self.outgoing.held() as u64);
        memory.set(Part::Input, self.meter.kept_bytes());
    }
}

impl<S> Clone for Cork<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Runs `connection`, which writes to `cork`, and lets out what it has written whenever it waits.
///
/// # Errors
/// The connection's, or writing failed.
pub async fn uncorked<S, F, E>(cork: Cork<S>, connection: F) -> Result<(), E>
where
    S: AsyncWrite + Unpin,
    F: Future<Output = Result<(), E>>,
    E: From<io::Error>,
{
    let mut connection = pin!(connection);
    std::future::poll_fn(|cx| match connection.as_mut().poll(cx) {
        // Its last act was to shut the stream down.
        Poll::Ready(ended) => {
            if ended.is_err() {
                // Why it ended, as far as that can be said at once.
                let _ = cork.0.borrow_mut().poll_out(cx);
            }
            Poll::Ready(ended)
        }
        Poll::Pending => {
            let mut corked = cork.0.borrow_mut();
            if let Poll::Ready(Err(error)) = corked.poll_out(cx) {
                return Poll::Ready(Err(error.into()));
            }
            corked.guard.note_memory(corked.held.is_some());
            Poll::Pending
        }
    })
    .await
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    /// What is known of the stream itself.
    pub fn with<T>(&self, ask: impl FnOnce(&S) -> T) -> T {
        ask(&self.0.borrow().io)
    }

    /// The client sent too much that asks for nothing: the connection has ended for that.
    pub fn is_calmed(&self) -> bool {
        self.0.borrow().guard.is_calmed
    }

    /// Over `io`.
    pub fn new(io: S, guard: Guard) -> Self {
        Self(Rc::new(RefCell::new(Corked {
            io,
            held: None,
            written: 0,
            out: Heads::default(),
            left: Heads::default(),
            guard,
        })))
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    /// Writes all that is held, and flushes.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(held) = &self.held {
            while let rest @ [_, ..] = &held.as_ref()[self.written..] {
                let written = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.guard.outgoing.left(self.left.follow(&rest[..written], |_, _| {}));
                self.written += written;
            }
            (self.held, self.written) = (None, 0);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cork<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let corked = &mut *self.0.borrow_mut();
        if corked.held.as_ref().is_some_and(|held| held.as_ref().len() >= MOST_BYTES) {
            ready!(corked.poll_out(cx))?;
        }
        let held = corked.held.get_or_insert_with(buffers::take);
        let mut taken = 0;
        for piece in pieces {
            let room = MOST_BYTES.saturating_sub(held.as_ref().len()).min(piece.len());
            held.extend(&piece[..room]);
            corked.out.follow(&piece[..room], |_, _| {});
            taken += room;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut corked = self.0.borrow_mut();
        ready!(corked.poll_out(cx))?;
        Pin::new(&mut corked.io).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cork<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let corked = &mut *self.0.borrow_mut();
        let before = into.filled().len();
        ready!(Pin::new(&mut corked.io).poll_read(cx, into))?;
        let Guard { meter, outgoing, floods, is_calmed, .. } = &mut corked.guard;
        if *is_calmed || meter.allows(&into.filled()[before..], outgoing.written(), clock::monotonic()) {
            return Poll::Ready(Ok(()));
        }
        floods.inc();
        *is_calmed = true;
        let held = corked.held.get_or_insert_with(buffers::take);
        if corked.out.is_between_frames() && held.has_room(meter::CALM.len()) {
            held.extend(&meter::CALM);
        }
        Poll::Ready(Err(io::Error::other("too many frames that ask for nothing")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A peer that takes `room` bytes ahead of its reading.
    fn wire(room: usize) -> (Cork<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(room);
        (Cork::new(near, Guard::of(Arc::default(), IntCounter::new("floods", "of frames").unwrap())), far)
    }

    #[tokio::test]
    async fn what_is_written_goes_out_in_order_once_the_writer_waits() {
        let (cork, mut far) = wire(1000);
        let mut io = cork.clone();
        let written: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let writer = async {
            for piece in written.chunks(16_393) {
                io.write_all(piece).await?;
                io.flush().await?;
            }
            // As a connection that waits for the next request.
            std::future::pending::<io::Result<()>>().await
        };
        let mut read = vec![0; written.len()];
        tokio::select! {
            ended = uncorked(cork, writer) => panic!("{ended:?}"),
            read = far.read_exact(&mut read) => { read.unwrap(); }
        }
        assert!(read == written);
    }

    #[tokio::test]
    async fn nothing_goes_out_before_the_writer_waits_and_a_shutdown_leaves_nothing_behind() {
        let (cork, mut far) = wire(1 << 20);
        let mut io = cork.clone();
        let writer = async {
            io.write_all(b"a request's answer").await?;
            io.flush().await?;
            assert_eq!(cork.0.borrow().held.as_ref().map(|held| held.as_ref().len()), Some(18));
            io.shutdown().await
        };
        uncorked(cork.clone(), writer).await.unwrap();
        let mut read = String::new();
        far.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "a request's answer");
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_ends_the_connection() {
        let (cork, far) = wire(10);
        let mut io = cork.clone();
        drop(far);
        let writer = async {
            io.write_all(b"answer").await?;
            std::future::pending::<io::Result<()>>().await
        };
        assert_eq!(uncorked(cork, writer).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
