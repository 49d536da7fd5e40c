//! The body of a response as frames of HTTP/2: of such a size that the connection's account ([`super::outgoing`]) holds.

use super::outgoing::{self, OfStream, Outgoing};
use crate::server::body::{Chunk, Cut, ResponseBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A body that hyper takes frame by frame.
pub struct Frames {
    body: ResponseBody,
    outgoing: Arc<Outgoing>,
    stream: OfStream,
    /// Of a piece in memory, what is not handed over yet.
    rest: Bytes,
    /// Bytes that may be handed over before the next permit.
    permitted: u64,
    handed: u64,
}

impl Frames {
    /// The frames of a body, on the account of its connection.
    pub fn new(body: ResponseBody) -> Self {
        let outgoing = body.tally().peer.outgoing();
        Self { body, outgoing, stream: OfStream::default(), rest: Bytes::new(), permitted: 0, handed: 0 }
    }

    /// How many bytes may be handed over now; `None` where something has to be written first. What the node keeps for
    /// all never waits: it is no copy.
    fn room(&self, cx: &Context<'_>) -> Option<usize> {
        if self.body.is_kept() {
            return Some(outgoing::MOST_BYTES);
        }
        let has_begun = self.handed > self.stream.bytes() as u64;
        self.outgoing.room(&self.stream, has_begun, cx.waker())
    }

    /// The next bytes, at most so many.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, most: u64) -> Poll<Option<Result<Bytes, Cut>>> {
        if self.rest.is_empty() {
            match ready!(self.body.poll_chunk_of(cx, most)) {
                Some(Ok(Chunk::Bytes(bytes))) => self.rest = bytes,
                Some(Ok(Chunk::File(_))) => {
                    let cut = Cut::Fill("a region of a file on an HTTP/2 stream".to_owned());
                    return Poll::Ready(Some(Err(cut)));
                }
                Some(Err(cut)) => return Poll::Ready(Some(Err(cut))),
                None => return Poll::Ready(None),
            }
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.rest.len());
        Poll::Ready(Some(Ok(self.rest.split_to(most))))
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        if this.is_end_stream() {
            return this.body.poll_chunk_of(cx, 0).map(|_| None);
        }
        let Some(room) = this.room(cx) else {
            // It is the client that has to take something.
            this.body.tally().is_ready();
            return Poll::Pending;
        };
        if this.permitted == 0 {
            let wanted = this.body.length().map_or(u64::MAX, |left| left + this.rest.len() as u64);
            this.permitted = ready!(this.body.tally().poll_permit(cx, wanted.min(room as u64).max(1)));
        }
        let most = this.permitted.min(room as u64);
        let next = ready!(this.poll_bytes(cx, most));
        Poll::Ready(next.map(|bytes| {
            let bytes = bytes?;
            this.permitted -= bytes.len() as u64;
            this.handed += bytes.len() as u64;
            let is_kept = this.body.is_kept();
            Ok(Frame::data(if is_kept { bytes } else { this.outgoing.take(&this.stream, bytes) }))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_over() && self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.body.length().map(|left| left + self.rest.len() as u64);
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
