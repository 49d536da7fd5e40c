//! Workers: a thread, a runtime, and listening sockets for each core.

use super::Edge;
use super::connection::{self, Secure};
use super::handshakes::Handshakes;
use super::seats::{Place, Seat};
use crate::clock;
use crate::policy::client;
use crate::shares::Owner;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio_rustls::TlsAcceptor;

/// Threads of a worker that may wait for the disk at once.
const DISK_THREADS: usize = 16;
/// Pause after an accept that failed for want of file descriptors or memory: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are accepted before requests have their turn.
const TOGETHER: u32 = 16;

/// A socket to accept on, and what is spoken there.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// TLS, or plaintext.
    pub tls: Option<TlsAcceptor>,
}

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    /// The node.
    pub edge: Arc<Edge>,
    /// Turns true when no more connections are to be accepted.
    pub drain: watch::Receiver<bool>,
}

/// Starts a worker. It ends when it has drained: after `drain` turns true and its last connection ended, or at
/// `drain_timeout`, when what is left is cut.
///
/// # Errors
/// The thread or its runtime can't be made.
pub fn start(number: usize, listeners: Vec<Listener>, shared: Shared) -> io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(DISK_THREADS).build()?;
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        LocalSet::new().block_on(&runtime, async {
            let turns = handshakes(&shared.edge);
            let mut accepting = JoinSet::new();
            for listener in listeners {
                accepting.spawn_local(accept(listener, shared.clone(), turns.clone()));
            }
            while accepting.join_next().await.is_some() {}
        });
        // Not waited for: a read that hangs in the kernel must not hold up the exit.
        runtime.shutdown_background();
    })
}

/// The worker's TLS handshakes.
fn handshakes(edge: &Edge) -> Rc<Handshakes> {
    let per_network = edge.config.https.as_ref().map_or(1, |https| https.handshakes_per_network);
    let (waiting, delayed) =
        (edge.metrics.handshakes_waiting.clone(), edge.metrics.handshakes_delayed.clone());
    Handshakes::start(per_network.try_into().unwrap_or(u32::MAX), waiting, delayed)
}

async fn accept(listener: Listener, shared: Shared, turns: Rc<Handshakes>) {
    let Shared { edge, mut drain } = shared;
    let socket = match tokio::net::TcpListener::from_std(listener.socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "a listening socket can't be used"),
    };
    let tls = listener.tls.map(|acceptor| Secure { acceptor, turns });
    let label = if tls.is_some() { "https" } else { "http" };
    let open = edge.metrics.connections.with_label_values(&[label]);
    let (mut serving, mut together) = (JoinSet::new(), 0_u32);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = drain.wait_for(|draining| *draining) => break,
            Some(_) = serving.join_next() => continue,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, addr)) => {
                let Ok(place) = edge.seats.place(owner(&edge, addr.ip())) else {
                    edge.metrics.connections_refused.inc();
                    continue;
                };
                // Each write is complete in itself; Nagle would only delay its tail.
                let _ = stream.set_nodelay(true);
                let (edge, tls, drain, open) = (edge.clone(), tls.clone(), drain.clone(), open.clone());
                serving.spawn_local(async move {
                    let Some(seat) = seated(&edge, place).await else { return };
                    open.inc();
                    connection::serve(edge, stream, addr.ip(), tls, drain, seat).await;
                    open.dec();
                });
                // However many come at once, requests have their turn.
                together += 1;
                if together % TOGETHER == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Who is in the backlog was promised an answer: take those, then accept no more.
    while let Ok(Ok((stream, addr))) = tokio::time::timeout(Duration::ZERO, socket.accept()).await {
        let (edge, tls, drain) = (edge.clone(), tls.clone(), drain.clone());
        serving.spawn_local(async move {
            let Ok(place) = edge.seats.place(owner(&edge, addr.ip())) else { return };
            if let Some(seat) = seated(&edge, place).await {
                connection::serve(edge, stream, addr.ip(), tls, drain, seat).await;
            }
        });
    }
    drop(socket);
    let deadline = clock::monotonic() + edge.config.http.drain_timeout;
    let drained = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout_at(deadline.into(), drained).await.is_err() {
        tracing::warn!(connections = serving.len(), "drain_timeout is over: connections are cut");
    }
}

/// Whose seat a connection takes: its client's; or a proxy's, behind which there are many.
fn owner(edge: &Edge, addr: IpAddr) -> Owner {
    let owner = client::owner(addr);
    if edge.config.http.trusts(addr) { owner.many() } else { owner }
}

/// A seat, once there is one.
async fn seated(edge: &Edge, place: Place) -> Option<Seat> {
    let place = match place.now() {
        Ok(seat) => return Some(seat),
        Err(place) => place,
    };
    edge.metrics.connections_waiting.inc();
    let seat = place.seat().await;
    edge.metrics.connections_waiting.dec();
    if seat.is_err() {
        edge.metrics.connections_refused.inc();
    }
    seat.ok()
}
