//! One client connection: its protocol, its timers, its end.

use super::account::Tally;
use super::asked::Asked;
use super::cork::{self, Cork, Guard};
use super::h2::frames::Frames;
use super::h2::outgoing;
use super::handshakes::Handshakes;
use super::head::Head;
use super::peer::Peer;
use super::proxied::{self, Proxied};
use super::seats::Seat;
use super::socket::Socket;
use super::{Edge, h1, handle, linger};
use crate::clock;
use crate::policy::client;
use crate::shares::Use;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

/// A request's body over HTTP/2 is refused, but not before its end, or so long after its head: an answer in the middle of it is a
/// reset to its client, and which of two errors it sees would be chance.
const BODY_WAITS: Duration = Duration::from_millis(50);
/// So much of it is read.
const MOST_BODY_BYTES: usize = 64 << 10;

/// What TLS needs.
#[derive(Clone)]
pub struct Secure {
    /// Certificates and keys.
    pub acceptor: TlsAcceptor,
    /// The handshakes of the worker.
    pub turns: Rc<Handshakes>,
}

/// Serves one accepted connection until it ends, is overdue, or the node drains.
pub async fn serve(
    edge: Arc<Edge>,
    mut tcp: TcpStream,
    addr: IpAddr,
    tls: Option<Secure>,
    drain: watch::Receiver<bool>,
    seat: Seat,
) {
    let proxied = match proxied(&edge, &mut tcp, addr).await {
        Ok(proxied) => proxied,
        Err(error) => return tracing::debug!(proxy = %addr, %error, "connection refused"),
    };
    if let Some(addr) = proxied.addr {
        seat.transfer(client::owner(addr));
    }
    let addr = proxied.addr.unwrap_or(addr);
    let turns = tls.as_ref().map(|tls| tls.turns.clone());
    let peer = Rc::new(Peer::new(edge, seat, addr, turns, &proxied));
    let socket = Socket::new(tcp, peer.clone());
    let connection = async {
        match tls {
            None => plain(&peer, socket, drain).await,
            // Boxed, so that a plain connection holds no room for a handshake and HTTP/2.
            Some(tls) => Box::pin(secure(&peer, socket, tls, drain)).await,
        }
    };
    // The reason of an end is the client's affair: it hung up, spoke no HTTP, or was reset by us (and logged then).
    tokio::select! {
        ended = connection => if let Err(error) = ended { tracing::debug!(client = %addr, %error, "connection ended") },
        why = ended_by_the_node(&peer) => tracing::debug!(client = %addr, why, "connection ended"),
    }
}

/// Returns, with the reason, once the connection has to end whatever it is at. By then the socket knows whether it is to be reset:
/// it is dropped before anything that follows this.
async fn ended_by_the_node(peer: &Peer) -> &'static str {
    tokio::select! {
        () = peer.overdue() => {
            peer.gives_up_responses();
            "it timed out"
        }
        () = peer.memory.ends() => {
            // What the kernel still holds for it is memory, too.
            peer.must_reset();
            "it was slow, and memory is short"
        }
    }
}

/// For whom a load balancer has connected.
async fn proxied(edge: &Edge, tcp: &mut TcpStream, addr: IpAddr) -> io::Result<Proxied> {
    let http = &edge.config.http;
    if !http.proxy_protocol || !http.trusts(addr) {
        return Ok(Proxied::default());
    }
    // Boxed, as all that most connections don't need.
    let read = tokio::time::timeout(http.head_timeout, Box::pin(proxied::read(tcp)));
    read.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

type Ended = Result<(), Box<dyn std::error::Error>>;

async fn plain(peer: &Rc<Peer>, socket: Socket, mut drain: watch::Receiver<bool>) -> Ended {
    unless_given_up(peer, async { Ok(h1::serve(peer, socket, &mut drain).await?) }).await
}

/// Goes on until it ends, or another connection needs the seat while this one asks for nothing. Not for HTTP/2, where the last of a
/// response may still have to be written then.
async fn unless_given_up(peer: &Peer, work: impl Future<Output = Ended>) -> Ended {
    tokio::select! {
        biased;
        ended = work => ended,
        () = peer.seat().given_up(peer) => Err(GIVEN_UP.into()),
    }
}

/// Why a connection ended that was between two requests, or had asked for nothing.
const GIVEN_UP: &str = "another connection needed its seat";

async fn secure(peer: &Rc<Peer>, socket: Socket, tls: Secure, mut drain: watch::Receiver<bool>) -> Ended {
    let stream = tokio::select! {
        biased;
        shaken = shaken(peer, tls.acceptor.accept(socket)) => shaken?,
        () = peer.seat().given_up(peer) => return Err(GIVEN_UP.into()),
    };
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return unless_given_up(peer, async { Ok(h1::serve(peer, stream, &mut drain).await?) }).await;
    }
    let service = service_fn(|request: Request<Incoming>| {
        let (asked, path) = Asked::read(peer, Head::from(&request));
        let tally = Tally::open(peer.clone(), asked);
        let body = Some(request.into_body()).filter(|body| !body.is_end_stream());
        async move {
            if let Some(body) = body {
                let _ = tokio::time::timeout(BODY_WAITS, thrown_away(body)).await;
            }
            Ok::<_, Infallible>(Response::from(handle::reply(tally, path).await).map(Frames::new))
        }
    });
    let floods = peer.edge.metrics.http2_floods.clone();
    let mut cork = Cork::new(stream, Guard::new(peer, floods));
    let mut connection = pin!(http2_builder().serve_connection(TokioIo::new(cork.clone()), service));
    let to_the_end = async {
        tokio::select! {
            ended = &mut connection => return Ok(ended?),
            _ = drain.wait_for(|draining| *draining) => connection.as_mut().graceful_shutdown(),
            () = peer.seat().given_up(peer) => {
                connection.as_mut().graceful_shutdown();
                // A client that is gone doesn't say that it has read so far.
                loop {
                    match tokio::time::timeout(patience(&cork, peer), &mut connection).await {
                        Ok(ended) => return Ok(ended?),
                        Err(_) if peer.seat_use(clock::monotonic()).0 != Use::Busy => {
                            peer.gives_up_responses();
                            return Err(GIVEN_UP.into());
                        }
                        Err(_) => {}
                    }
                }
            }
        }
        Ok(connection.await?)
    };
    let ended: Ended = cork::uncorked(cork.clone(), to_the_end).await;
    if cork.is_calmed() {
        // What it has sent meanwhile would have the socket reset before it has read why.
        cork.shutdown().await?;
        linger::linger(&mut cork, peer, linger::LEAST).await;
    }
    ended?;
    // What was sent last is still on its way, and the client sends frames while it takes it.
    let patience = patience(&cork, peer);
    linger::linger(&mut cork, peer, patience).await;
    Ok(())
}

/// A handshake, which waits for its turn with each flight.
async fn shaken(peer: &Peer, accept: Accept<Socket>) -> io::Result<TlsStream<Socket>> {
    let mut accept = pin!(accept);
    let stream = poll_fn(|cx| {
        let polled = accept.as_mut().poll(cx);
        peer.turn_is_over();
        polled
    })
    .await?;
    peer.is_shaken();
    Ok(stream)
}

/// How long the client of a connection is waited for that has nothing more to be sent.
fn patience(cork: &Cork<TlsStream<Socket>>, peer: &Peer) -> Duration {
    let queue = cork.with(|stream| stream.get_ref().0.queue_bytes());
    linger::patience(queue, peer.quiet_for(), peer.edge.config.http.write_timeout)
}

/// Reads a request's body to its end, or so far that it will be refused all the same.
async fn thrown_away(mut body: Incoming) {
    let mut left = MOST_BODY_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(1, |data| data.len().max(1)));
        if left == 0 {
            break;
        }
    }
}

fn http2_builder() -> http2::Builder<OnThisThread> {
    let mut builder = http2::Builder::new(OnThisThread);
    // Explicit limits: a client costs at most these, whatever frames it sends (rapid reset and its kin). No pings: a slow client
    // answers one once it has taken all that lies before it, so that unanswered ones say nothing; a client that is gone is noticed by
    // what it doesn't take ([`super::waits`]).
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_pending_accept_reset_streams(32)
        .max_local_error_reset_streams(64)
        .max_header_list_size(32 << 10)
        .max_send_buf_size(outgoing::MOST_BYTES)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(128 << 10);
    builder
}

/// HTTP/2 streams run as tasks of the connection's own thread.
#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
