//! The admin listener: status, metrics, health, explanations, and the orders to look for a push now or to purge.
//!
//! It runs on the background runtime, apart from the data plane: a node whose workers are busy still tells how it is.
//! It reads snapshots and counters, and changes nothing but the gauges that it exports, unless it is told to. It owns its connections, which
//! are few and bounded in number, head and life.

mod cross_site;
mod gauges;
mod page;
mod places;
pub mod pushes;
pub mod query;
mod routes;
pub mod status;
#[cfg(test)]
mod tests;

use crate::clock::{self, Timestamp};
use crate::push::PushHandle;
use crate::server::Edge;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use places::{Place, Places};
use std::net::TcpListener;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

/// Connections that may be open at once; more wait, and silent ones make room for them ([`places`]).
const CONNECTIONS: usize = 64;
/// For a request's head to be complete, and for the next one to begin.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// After so long a connection takes no more requests: a scraper just opens another one.
const LIFETIME: Duration = Duration::from_secs(600);
/// For the last response of a connection to be read.
const GRACE: Duration = Duration::from_secs(3);
/// Pause after an accept that failed for want of file descriptors or memory: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A head may be so long; queries of `explain` are the longest.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// What the admin listener shows.
pub struct Admin {
    edge: Arc<Edge>,
    pushes: PushHandle,
    draining: watch::Receiver<bool>,
    token: Option<String>,
    started: Timestamp,
    /// Held while snapshots are copied into the metrics, so that two scrapes at once count no event twice.
    scrape: Mutex<()>,
}

impl Admin {
    /// Of the node that starts now; the token is that of its config.
    #[must_use]
    pub fn new(edge: Arc<Edge>, pushes: PushHandle, draining: watch::Receiver<bool>) -> Self {
        let token = edge.config.admin.token.clone();
        Self { edge, pushes, draining, token, started: clock::now(), scrape: Mutex::default() }
    }

    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Whether the node takes traffic; if not, why, in words.
    fn readiness(&self) -> Result<(), String> {
        if self.is_draining() { Err("draining".to_owned()) } else { self.pushes.readiness() }
    }
}

/// Serves until `shutdown` turns true or its sender is gone, and then until its connections have ended.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, shutdown: watch::Receiver<bool>) {
    let listening = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    let listener = match listening {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin socket can't be used"),
    };
    let (places, mut down) = (Places::new(CONNECTIONS), shutdown.clone());
    let mut serving = JoinSet::new();
    // A connection that has no place yet.
    let mut came = None;
    loop {
        tokio::select! {
            biased;
            _ = down.wait_for(|down| *down) => break,
            Some(_) = serving.join_next() => {}
            (place, ends) = places.take(), if came.is_some() => {
                if let Some(stream) = came.take() {
                    let held = (Arc::new(place), ends);
                    serving.spawn(connection(stream, held, admin.clone(), shutdown.clone()));
                }
            }
            stream = accepted(&listener), if came.is_none() => came = Some(stream),
        }
    }
    drop(listener);
    while serving.join_next().await.is_some() {}
}

async fn accepted(listener: &tokio::net::TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::debug!(%error, "an admin connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    (place, ends): (Arc<Place>, oneshot::Receiver<()>),
    admin: Arc<Admin>,
    mut shutdown: watch::Receiver<bool>,
) {
    let asking = Arc::clone(&place);
    let service = service_fn(move |request| {
        asking.has_asked();
        routes::answer(admin.clone(), request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // How a connection ends is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        // One that has asked drops the other end.
        Ok(()) = ends => return,
        _ = shutdown.wait_for(|down| *down) => {}
        () = tokio::time::sleep(LIFETIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(GRACE, connection).await;
}
