//! A response on its way to the client.

use super::write::{self, Fate, Framing};
use super::{Connection, Ended};
use crate::clock;
use crate::metrics::Path;
use crate::server::account::Tally;
use crate::server::body::{Chunk, Region, ResponseBody};
use crate::server::buffers;
use crate::server::memory::{Account, Part};
use crate::server::reply::Reply;
use crate::server::socket::Transport;
use bytes::Bytes;
use rustix::io::Errno;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, Write};
use std::pin::{Pin, pin};
use std::task::Poll;
use tokio::io::AsyncWriteExt;

/// Sent in one go before the worker's other connections have their turn.
const TURN_BYTES: u64 = 1 << 20;
/// Pieces of a body after which they have theirs: each of many small ranges costs as much as a small request, however few its bytes.
const TURN_PIECES: u32 = 8;
/// A client that hasn't proven fast gets so much at a time over TLS: it lies in memory until it is taken.
const SLOW_BYTES: usize = 32 << 10;

impl<S: Transport> Connection<S> {
    /// Sends a response; the connection's fate afterwards.
    pub(super) async fn send(&mut self, reply: Reply, is_old: bool, fate: Fate) -> Result<Fate, Ended> {
        let Reply { status, fields, mut body, .. } = reply;
        let tally = body.tally().clone();
        let (framing, fate) = match (body.length().is_none(), is_old) {
            (false, _) => (Framing::Length, fate),
            (true, false) => (Framing::Chunked, fate),
            (true, true) => (Framing::Close, Fate::Closes),
        };
        self.output.clear();
        write::head(&mut self.output, status, &fields, framing, fate, clock::date());
        drop(fields);
        let mut pieces = 0_u32;
        while !body.is_over() {
            let Some(chunk) = self.next(&mut body).await? else { break };
            pieces += 1;
            if pieces.is_multiple_of(TURN_PIECES) {
                tally.peer.returns_permit();
                tokio::task::yield_now().await;
            }
            if chunk.len() == 0 {
                // As a chunk it would be the last one: a clean end in the middle.
                continue;
            }
            if framing == Framing::Chunked {
                let _ = write!(self.output, "{:x}\r\n", chunk.len());
            }
            match chunk {
                Chunk::Bytes(bytes) => {
                    let uncounted = body.uncounted(&bytes);
                    counted(&tally.peer.memory, uncounted, self.bytes(&tally, bytes)).await?;
                }
                Chunk::File(region) => match self.io.sendfile_socket().is_some() {
                    true => self.sendfile(region).await?,
                    false => self.copy(region).await?,
                },
            }
            if framing == Framing::Chunked {
                self.output.extend_from_slice(b"\r\n");
            }
        }
        if framing == Framing::Chunked {
            self.output.extend_from_slice(b"0\r\n\r\n");
        }
        self.write_with(&[]).await?;
        self.io.flush().await?;
        // Its account is closed with the body.
        tally.peer.returns_permit();
        drop((body, tally));
        // What few responses need isn't kept for an idle connection.
        self.output.shrink_to(1024);
        Ok(fate)
    }

    /// The next piece of the body. Where it isn't there yet, what precedes it goes out first.
    async fn next(&mut self, body: &mut ResponseBody) -> Result<Option<Chunk>, Ended> {
        if let Poll::Ready(next) = poll_fn(|cx| Poll::Ready(body.poll_chunk(cx))).await {
            return Ok(next.transpose()?);
        }
        self.write_with(&[]).await?;
        self.io.flush().await?;
        tokio::select! {
            biased;
            next = poll_fn(|cx| body.poll_chunk(cx)) => Ok(next.transpose()?),
            ended = self.hung_up() => Err(ended),
        }
    }

    /// Writes what is in `output`, and `bytes` after it.
    async fn write_with(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut first, mut second) = (&self.output[..], bytes);
        while !first.is_empty() || !second.is_empty() {
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            let used = if first.is_empty() { &slices[1..] } else { &slices[..] };
            let io = &mut self.io;
            let sent = poll_fn(|cx| Pin::new(&mut *io).poll_write_vectored(cx, used)).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let of_first = sent.min(first.len());
            (first, second) = (&first[of_first..], &second[sent - of_first..]);
        }
        self.output.clear();
        Ok(())
    }

    /// How many of the `wanted` bytes may be sent, once some may.
    async fn permit(&mut self, tally: &Tally, wanted: u64) -> Result<u64, Ended> {
        if let Poll::Ready(bytes) = poll_fn(|cx| Poll::Ready(tally.poll_permit(cx, wanted))).await {
            return Ok(bytes);
        }
        tokio::select! {
            biased;
            bytes = poll_fn(|cx| tally.poll_permit(cx, wanted)) => Ok(bytes),
            ended = self.hung_up() => Err(ended),
        }
    }

    /// From memory.
    async fn bytes(&mut self, tally: &Tally, mut bytes: Bytes) -> Result<(), Ended> {
        while !bytes.is_empty() {
            let permitted = self.permit(tally, bytes.len() as u64).await?;
            let piece = bytes.split_to(usize::try_from(permitted).unwrap_or(usize::MAX).min(bytes.len()));
            self.write_with(&piece).await?;
        }
        Ok(())
    }

    /// From page cache to socket. The body has seen to it that the region's pages are there.
    async fn sendfile(&mut self, mut region: Region) -> Result<(), Ended> {
        let mut turn = 0;
        while region.offset < region.end {
            let Some(socket) = self.io.sendfile_socket() else { return Ok(()) };
            // A permit that waits for the client keeps others from sending.
            socket.writable().await?;
            let permitted = self.permit(&region.tally, region.end - region.offset).await?;
            let Some(socket) = self.io.sendfile_socket() else { return Ok(()) };
            if !self.output.is_empty() {
                // What precedes the file must share its first segment.
                socket.send_before_more(&self.output).await?;
                self.output.clear();
            }
            let end = region.offset + permitted;
            let sent = socket.sendfile(&region.file, &mut region.offset, end);
            region.tally.peer.returns_permit();
            if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                continue;
            }
            let sent = sent.inspect_err(|error| note_fault(&region, error))?;
            if sent == 0 {
                region.tally.is_damaged();
                return Err(ended_early().into());
            }
            region.tally.sent(sent, Path::Sendfile);
            turn += sent as u64;
        }
        if turn >= TURN_BYTES {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Through a buffer: TLS has to see each byte.
    async fn copy(&mut self, mut region: Region) -> Result<(), Ended> {
        self.write_with(&[]).await?;
        while region.offset < region.end {
            // Nothing is read before TLS has sent all that it holds: a client that takes nothing has one piece in memory, not two.
            self.io.flush().await?;
            let most = if self.io.is_fast() { buffers::BYTES } else { SLOW_BYTES };
            let wanted = (region.end - region.offset).min(most as u64);
            let most = region.offset + self.permit(&region.tally, wanted).await?;
            let mut buffer = buffers::take();
            let piece = buffer.read(&region.file, region.offset, most);
            let piece = piece.inspect_err(|_| region.tally.is_damaged())?;
            if piece.is_empty() {
                region.tally.is_damaged();
                return Err(ended_early().into());
            }
            let length = piece.len();
            self.io.write_all(piece).await?;
            region.offset += length as u64;
            region.tally.sent(length, Path::Copy);
        }
        Ok(())
    }
}

/// Sends a piece of so many bytes, which count from when it first waits until it is sent.
async fn counted(
    memory: &Account,
    bytes: u64,
    sending: impl Future<Output = Result<(), Ended>>,
) -> Result<(), Ended> {
    let mut sending = pin!(sending);
    let sent = poll_fn(|cx| {
        let polled = sending.as_mut().poll(cx);
        if polled.is_pending() {
            memory.set(Part::Bodies, bytes);
        }
        polled
    })
    .await;
    memory.set(Part::Bodies, 0);
    sent
}

/// Of what sendfile says, this is the file's fault and not the connection's.
fn note_fault(region: &Region, error: &io::Error) {
    if Errno::from_io_error(error) == Some(Errno::IO) {
        region.tally.is_damaged();
    }
}

fn ended_early() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank while it was sent")
}
