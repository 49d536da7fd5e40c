//! TLS towards clients: certificates and protocol versions.

use crate::config::Https;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Why TLS can't be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or holds no PEM of that kind.
    #[error("{}: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// Certificate and key don't fit, or are of a kind that isn't supported.
    #[error("certificate and key: {0}")]
    Pair(#[from] rustls::Error),
    /// There are no random numbers for the keys of tickets.
    #[error("keys of session tickets: {0}")]
    Tickets(rustls::Error),
}

/// A client that comes back resumes its session by a ticket, which is its own to keep: the node keeps none, so that no flood of
/// handshakes takes memory or others' sessions. Keys of tickets are of this process alone; each lasts for 6 h, and a ticket for 12.
///
/// HTTP/2, HTTP/1.1 and HTTP/1.0 over TLS 1.3 and 1.2. A client that offers none of these by ALPN gets no connection (RFC 7301,
/// section 3.2), so that all that the node speaks is named.
///
/// # Errors
/// The certificate or key can't be used.
pub fn acceptor(https: &Https) -> Result<TlsAcceptor, TlsError> {
    let certificates = CertificateDer::pem_file_iter(&https.certificate)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::Pem { path: https.certificate.clone(), source })?;
    let key = PrivateKeyDer::from_pem_file(&https.key)
        .map_err(|source| TlsError::Pem { path: https.key.clone(), source })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Tickets)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(config)))
}
