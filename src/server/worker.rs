//! Workers: a thread, a runtime, and listening sockets for each core.

use super::{Edge, connection};
use crate::clock;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio_rustls::TlsAcceptor;

/// Threads of a worker that may wait for the disk at once.
const DISK_THREADS: usize = 16;
/// Pause after an accept that failed for want of file descriptors or memory: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    /// Connections that may be open at once, over all workers.
    pub connections: Arc<Semaphore>,
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
            let mut accepting = JoinSet::new();
            for listener in listeners {
                accepting.spawn_local(accept(listener, shared.clone()));
            }
            while accepting.join_next().await.is_some() {}
        });
        // Not waited for: a read that hangs in the kernel must not hold up the exit.
        runtime.shutdown_background();
    })
}

async fn accept(listener: Listener, shared: Shared) {
    let Shared { edge, connections, mut drain } = shared;
    let socket = match tokio::net::TcpListener::from_std(listener.socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "a listening socket can't be used"),
    };
    let label = if listener.tls.is_some() { "https" } else { "http" };
    let open = edge.metrics.connections.with_label_values(&[label]);
    let mut serving = JoinSet::new();
    loop {
        // The permit comes second, so that sockets on which nobody connects hold none.
        let accepted = async {
            let accepted = socket.accept().await;
            (accepted, connections.clone().acquire_owned().await)
        };
        let (accepted, permit) = tokio::select! {
            biased;
            _ = drain.wait_for(|draining| *draining) => break,
            Some(_) = serving.join_next() => continue,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, addr)) => {
                // Each write is complete in itself; Nagle would only delay its tail.
                let _ = stream.set_nodelay(true);
                let (edge, tls, drain, open) =
                    (edge.clone(), listener.tls.clone(), drain.clone(), open.clone());
                serving.spawn_local(async move {
                    let _permit = permit;
                    open.inc();
                    connection::serve(edge, stream, addr.ip(), tls, drain).await;
                    open.dec();
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Who is in the backlog was promised an answer: take those, then accept no more.
    while let Ok(Ok((stream, addr))) = tokio::time::timeout(Duration::ZERO, socket.accept()).await {
        let (edge, tls, drain) = (edge.clone(), listener.tls.clone(), drain.clone());
        serving.spawn_local(connection::serve(edge, stream, addr.ip(), tls, drain));
    }
    drop(socket);
    let deadline = clock::monotonic() + edge.config.http.drain_timeout;
    let drained = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout_at(deadline.into(), drained).await.is_err() {
        tracing::warn!(connections = serving.len(), "drain_timeout is over: connections are cut");
    }
}
