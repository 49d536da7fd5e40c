//! One client connection: its protocol, its timers, its end.

use super::Edge;
use super::handle::handle;
use super::peer::{Peer, Socket};
use super::wire::Wire;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Serves one accepted connection until it ends, is overdue, or the node drains.
pub async fn serve(
    edge: Arc<Edge>,
    tcp: TcpStream,
    addr: IpAddr,
    tls: Option<TlsAcceptor>,
    drain: watch::Receiver<bool>,
) {
    let peer = Rc::new(Peer::new(edge, addr, tls.is_some()));
    let socket = Socket::new(tcp, peer.clone());
    let connection = async {
        match tls {
            None => plain(&peer, socket, drain).await,
            Some(tls) => secure(&peer, socket, tls, drain).await,
        }
    };
    // The reason of an end is the client's affair: it hung up, spoke no HTTP, or was reset by us (and logged then).
    tokio::select! {
        ended = connection => if let Err(error) = ended { tracing::debug!(client = %addr, %error, "connection ended") },
        () = peer.overdue() => tracing::debug!(client = %addr, "connection timed out"),
    }
}

type Ended = Result<(), Box<dyn std::error::Error>>;

async fn plain(peer: &Rc<Peer>, socket: Socket, drain: watch::Receiver<bool>) -> Ended {
    let wire = Wire::new(socket, peer.regions.clone());
    let service = service_fn(|request| handle(peer.clone(), request));
    let connection = pin!(http1_builder().serve_connection(wire, service));
    until_drained(connection, drain, http1::Connection::graceful_shutdown).await
}

async fn secure(peer: &Rc<Peer>, socket: Socket, tls: TlsAcceptor, drain: watch::Receiver<bool>) -> Ended {
    let stream = tls.accept(socket).await?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let service = service_fn(|request| handle(peer.clone(), request));
    if is_h2 {
        let connection = pin!(http2_builder().serve_connection(io, service));
        until_drained(connection, drain, http2::Connection::graceful_shutdown).await
    } else {
        let connection = pin!(http1_builder().serve_connection(io, service));
        until_drained(connection, drain, http1::Connection::graceful_shutdown).await
    }
}

async fn until_drained<C>(
    mut connection: Pin<&mut C>,
    mut drain: watch::Receiver<bool>,
    shut_down: fn(Pin<&mut C>),
) -> Ended
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::select! {
        ended = &mut connection => return Ok(ended?),
        _ = drain.wait_for(|draining| *draining) => shut_down(connection.as_mut()),
    }
    Ok(connection.await?)
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // A multi-range request of librepo carries up to 16 kB of header fields. There may be a hundred of them, hyper's own
    // limit: with another one it fills two arrays for each request, which takes a twelfth of the instructions of a small one.
    builder.writev(true).max_buf_size(64 << 10).half_close(false);
    builder
}

fn http2_builder() -> http2::Builder<OnThisThread> {
    let mut builder = http2::Builder::new(OnThisThread);
    // Explicit limits: a client costs at most these, whatever frames it sends (rapid reset and its kin). A client that
    // is gone without a word is noticed by unanswered pings.
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(64)
        .max_pending_accept_reset_streams(32)
        .max_local_error_reset_streams(64)
        .max_header_list_size(32 << 10)
        .max_send_buf_size(256 << 10)
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
