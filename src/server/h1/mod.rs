//! HTTP/1 towards clients: one connection, from its first request to its end.
//!
//! Only what a file server needs: heads of GET and HEAD come in, responses go out, in order. A request that announces a body
//! ends the connection, since what follows its head is never read. The file's bytes go from page cache to socket by sendfile
//! where the connection is plaintext. Hyper speaks HTTP/2 ([`super::connection`]); why not this, too, and what it costs, is in
//! docs/decisions.

mod inputs;
pub(crate) mod parse;
mod send;
pub mod write;

use super::account::Tally;
use super::answer::Answer;
use super::asked::{Asked, Refused};
use super::handle;
use super::linger;
use super::memory::Part;
use super::peer::Peer;
use super::respond::respond;
use super::socket::Transport;
use crate::clock;
use crate::policy::Reason;
use bytes::{Buf, BytesMut};
use http::{StatusCode, Version};
use parse::{Parsed, Request};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use write::Fate;

/// Read at once. What a client sends before it has its answer waits in the kernel beyond that.
const READ_BYTES: usize = 8 << 10;
/// For a request that is on its way when the node begins to drain.
const LAST_CALL: Duration = Duration::from_millis(250);

/// Why a connection ends in the middle of something.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client closed its end while it had an answer coming.
    #[error("the client hung up")]
    HungUp,
    /// A response can't be whole.
    #[error("{0}")]
    Cut(#[from] super::body::Cut),
}

/// Serves a connection until either side ends it, or the node drains.
///
/// # Errors
/// It ended in the middle of a request or response. Where a response was cut, `peer` resets the socket.
pub async fn serve<S: Transport>(
    peer: &Rc<Peer>,
    io: S,
    drain: &mut watch::Receiver<bool>,
) -> Result<(), Ended> {
    let mut connection = Connection { io, input: BytesMut::new(), searched: 0, output: Vec::new() };
    let mut is_first = true;
    loop {
        if !connection.input.is_empty() {
            // The next head has begun while the last response was on its way.
            peer.note(|waits| waits.received(clock::monotonic()));
        }
        let (request, waited) = waiting(async {
            tokio::select! {
                biased;
                request = connection.request(peer) => request,
                () = drained(drain) => Ok(None),
            }
        })
        .await;
        let request = request?;
        // It was here before the last one was answered: after each request of a pipeline other connections have their turn.
        if !waited && !is_first {
            tokio::task::yield_now().await;
        }
        is_first = false;
        let Some(request) = request else {
            if connection.input.is_empty() {
                return Ok(connection.io.shutdown().await?);
            }
            break;
        };
        let is_last = *drain.borrow();
        if connection.answer(peer, request, is_last).await? == Fate::Closes {
            break;
        }
    }
    connection.io.shutdown().await?;
    inputs::put_back(std::mem::take(&mut connection.input));
    // Boxed, as all that most connections don't need.
    Box::pin(linger::linger(&mut connection.io, peer, linger::LEAST)).await;
    Ok(())
}

/// Awaits it; and whether it had to be waited for.
async fn waiting<T>(future: impl Future<Output = T>) -> (T, bool) {
    let (mut future, mut waited) = (pin!(future), false);
    let done = poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        waited |= polled.is_pending();
        polled
    })
    .await;
    (done, waited)
}

/// Returns once the node drains, and a little later: who has just connected is about to ask.
async fn drained(drain: &mut watch::Receiver<bool>) {
    // Its sender is gone with the node.
    let _ = drain.wait_for(|draining| *draining).await;
    tokio::time::sleep(LAST_CALL).await;
}

/// A connection and what is in the air on it.
struct Connection<S> {
    io: S,
    /// What came and is not parsed yet.
    input: BytesMut,
    /// So much of it holds no end of a head.
    searched: usize,
    /// What is about to be written: heads, and the frames around chunks.
    output: Vec<u8>,
}

/// What came instead of silence: a request, or what can't be one.
type Asking = Result<Box<Request>, Refused>;

impl<S: Transport> Connection<S> {
    /// The next request; `None` at the end of the connection, between two requests.
    async fn request(&mut self, peer: &Peer) -> Result<Option<Asking>, Ended> {
        loop {
            if parse::is_ended(&self.input, self.searched) || parse::is_alien(&self.input) {
                match parse::parse(&self.input) {
                    Parsed::Whole(request, length) => {
                        self.input.advance(length);
                        self.searched = 0;
                        self.is_read(peer);
                        return Ok(Some(Ok(request)));
                    }
                    Parsed::Bad(status, why) => return Ok(Some(Err(refused(status, why)))),
                    // An empty line before the request.
                    Parsed::Partial => {}
                }
            }
            self.searched = self.input.len();
            if self.searched > 0 {
                peer.memory.set(Part::Input, self.input.capacity() as u64);
            }
            if self.searched >= parse::MOST_BYTES {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                return Ok(Some(Err(refused(status, "a head has at most 64 KiB"))));
            }
            if self.fill().await? == 0 {
                return if self.input.is_empty() { Ok(None) } else { Err(Ended::HungUp) };
            }
        }
    }

    /// A head is read. One that was long leaves no large buffer behind while it is answered.
    fn is_read(&mut self, peer: &Peer) {
        if self.input.capacity() > 2 * READ_BYTES {
            self.input = BytesMut::from(&self.input[..]);
        }
        peer.memory.set(Part::Input, 0);
    }

    /// Reads what is there, or waits for it; 0 at the end. An idle connection holds no memory for it.
    async fn fill(&mut self) -> io::Result<usize> {
        if self.input.is_empty() {
            inputs::put_back(std::mem::take(&mut self.input));
            self.io.readable().await?;
            self.input = inputs::take();
        }
        self.input.reserve(READ_BYTES);
        self.io.read_buf(&mut self.input).await
    }

    /// Returns once the client has closed its end. What it sends meanwhile is kept, up to a bound.
    async fn hung_up(&mut self) -> Ended {
        while self.input.len() < READ_BYTES {
            match self.fill().await {
                Ok(0) => return Ended::HungUp,
                Ok(_) => {}
                Err(error) => return error.into(),
            }
        }
        std::future::pending().await
    }

    async fn answer(&mut self, peer: &Rc<Peer>, asking: Asking, is_last: bool) -> Result<Fate, Ended> {
        let (is_old, persists) = match &asking {
            Ok(request) => (request.head.version == Version::HTTP_10, request.persists && !is_last),
            Err(_) => (false, false),
        };
        let reply = match asking {
            Ok(request) => {
                let (asked, path) = Asked::read(peer, request.head);
                let tally = Tally::open(peer.clone(), asked);
                tokio::select! {
                    biased;
                    reply = handle::reply(tally, path) => reply,
                    ended = self.hung_up() => return Err(ended),
                }
            }
            Err(refused) => respond(Tally::open(peer.clone(), Asked::garbled(peer)), Answer::from(refused)),
        };
        let fate = match (persists && !reply.ends_connection, is_old) {
            (false, _) => Fate::Closes,
            (true, true) => Fate::IsKept,
            (true, false) => Fate::GoesOn,
        };
        let unfinished = Unfinished(peer);
        let fate = self.send(reply, is_old, fate).await?;
        std::mem::forget(unfinished);
        Ok(fate)
    }
}

/// While it lives, a response is on its way: given up, for whatever reason, it must not look like one that has ended.
struct Unfinished<'a>(&'a Peer);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.must_reset();
    }
}

fn refused(status: StatusCode, why: &str) -> Refused {
    Refused { status, reason: Reason::BadRequest, why: why.to_owned() }
}
