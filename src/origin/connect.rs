//! How the origin is reached: TLS, its name, and connections that are kept or not.

use super::OriginError;
use super::guard::{Connects, Guard};
use super::http::Settings;
use bytes::Bytes;
use http_body_util::Empty;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;

/// Idle connections kept: as many as fills usually run at once.
const MAX_IDLE_CONNECTIONS: usize = 64;
/// Shorter than the keep-alive of common servers, so that few requests meet a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

type HttpClient = Client<Connects<HttpsConnector<HttpConnector<Resolver>>>, Empty<Bytes>>;

/// Over which connection a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    /// One that is kept, or a new one.
    Kept,
    /// A new one, to the next of the name's addresses: to another host than before, where several stand behind the name.
    New,
}

/// The clients of one origin.
pub(super) struct Clients {
    kept: HttpClient,
    new: HttpClient,
}

impl Clients {
    /// Reads certificates (blocking), connects to nothing yet.
    pub(super) fn new(settings: &Settings, tls: bool, guard: &Arc<Guard>) -> Result<Self, OriginError> {
        let config = tls_config(settings, tls)?;
        let client = |turn: Option<Arc<AtomicUsize>>| {
            let idle = if turn.is_some() { 0 } else { MAX_IDLE_CONNECTIONS };
            let mut tcp = HttpConnector::new_with_resolver(Resolver { inner: GaiResolver::new(), turn });
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            tcp.set_connect_timeout(Some(settings.connect_timeout));
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(config.clone())
                .https_or_http()
                .enable_http1()
                .wrap_connector(tcp);
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(idle)
                .build(Connects::new(connector, Arc::clone(guard)))
        };
        // The address that comes first is the one that kept connections lead to.
        Ok(Self { kept: client(None), new: client(Some(Arc::new(AtomicUsize::new(1)))) })
    }

    pub(super) const fn over(&self, connection: Connection) -> &HttpClient {
        match connection {
            Connection::Kept => &self.kept,
            Connection::New => &self.new,
        }
    }
}

/// The system's resolver, and the addresses in its order; with a `turn` each connection begins with the next of them.
#[derive(Clone)]
pub(super) struct Resolver {
    inner: GaiResolver,
    turn: Option<Arc<AtomicUsize>>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let turn = self.turn.as_ref().map_or(0, |turn| turn.fetch_add(1, Ordering::Relaxed));
        let resolving = self.inner.call(name);
        Box::pin(async move { Ok(beginning_with(resolving.await?.collect(), turn).into_iter()) })
    }
}

/// The addresses in their order, from number `turn` on, and round.
fn beginning_with(mut addresses: Vec<SocketAddr>, turn: usize) -> Vec<SocketAddr> {
    if !addresses.is_empty() {
        let first = turn % addresses.len();
        addresses.rotate_left(first);
    }
    addresses
}

fn tls_config(settings: &Settings, tls: bool) -> Result<ClientConfig, OriginError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| OriginError::Setup(format!("TLS: {e}")))?;
    let config = match &settings.ca {
        Some(ca) => config.with_root_certificates(authorities(ca)?),
        None if tls => config
            .with_native_roots()
            .map_err(|e| OriginError::Setup(format!("the system's certificate authorities: {e}")))?,
        None => config.with_root_certificates(RootCertStore::empty()),
    };
    Ok(config.with_no_client_auth())
}

fn authorities(ca: &Path) -> Result<RootCertStore, OriginError> {
    let refuse = |why: String| OriginError::Setup(format!("{}: {why}", ca.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| refuse(e.to_string()))? {
        let certificate = certificate.map_err(|e| refuse(e.to_string()))?;
        roots.add(certificate).map_err(|e| refuse(e.to_string()))?;
    }
    if roots.is_empty() { Err(refuse("no certificate in it".to_owned())) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_connection_begins_with_the_next_address() {
        let all: Vec<SocketAddr> =
            ["192.0.2.1:80", "[2001:db8::1]:80", "192.0.2.3:80"].map(|text| text.parse().unwrap()).into();
        let firsts: Vec<_> = (0..5).map(|turn| beginning_with(all.clone(), turn)[0]).collect();
        assert_eq!(firsts, [all[0], all[1], all[2], all[0], all[1]]);
        assert_eq!(beginning_with(all.clone(), 2), [all[2], all[0], all[1]]);
        assert_eq!(beginning_with(Vec::new(), 3), []);
    }
}
