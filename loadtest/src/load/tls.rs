//! TLS of the client: rustls without buffers of its own, so that records are decrypted where they were received.

use super::Fault;
use anyhow::Context;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, RootCertStore};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

/// A client that trusts the certificates in a PEM file, and nothing else. TLS 1.3 alone; no early data.
pub fn trusting(certificates: &Path, alpn: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let context = || format!("certificates in {}", certificates.display());
    for certificate in CertificateDer::pem_file_iter(certificates).with_context(context)? {
        roots.add(certificate.with_context(context)?).with_context(context)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    // A full handshake each time: resumption would make one run depend on the one before.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// An established session.
pub struct Session {
    tls: UnbufferedClientConnection,
    /// The beginning of a record that isn't whole yet.
    tail: Vec<u8>,
}

/// What there is to do before more can be received.
enum Turn {
    Again,
    Blocked,
}

impl Session {
    /// Shakes hands over a blocking socket. `buffer` is for anybody's use, and has room for a record.
    pub fn shake_hands(
        mut socket: &TcpStream,
        config: &Arc<ClientConfig>,
        host: &str,
        buffer: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Self, Fault> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Fault::Protocol("from no host name"))?;
        let mut session =
            Self { tls: UnbufferedClientConnection::new(config.clone(), name)?, tail: Vec::new() };
        let mut filled = 0;
        loop {
            let UnbufferedStatus { discard, state } = session.tls.process_tls_records(&mut buffer[..filled]);
            let mut starved = false;
            match state? {
                ConnectionState::WriteTraffic(_) => {
                    session.tail.extend_from_slice(&buffer[discard..filled]);
                    return Ok(session);
                }
                ConnectionState::BlockedHandshake => starved = true,
                other => {
                    answer(other, socket, out)?;
                }
            }
            buffer.copy_within(discard..filled, 0);
            filled -= discard;
            if starved {
                let received = socket.read(&mut buffer[filled..])?;
                if received == 0 {
                    return Err(Fault::Closed);
                }
                filled += received;
            }
        }
    }

    /// Encrypts and sends.
    pub fn send(&mut self, mut socket: &TcpStream, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        loop {
            match self.tls.process_tls_records(&mut []).state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let sealed = match traffic.encrypt(plain, out) {
                        Err(EncryptError::InsufficientSize(needed)) => {
                            out.resize(needed.required_size, 0);
                            traffic.encrypt(plain, out)
                        }
                        other => other,
                    };
                    let sealed = sealed.map_err(|_| Fault::Protocol("no longer to be encrypted for"))?;
                    return Ok(socket.write_all(&out[..sealed])?);
                }
                other => {
                    answer(other, socket, out)?;
                }
            }
        }
    }

    /// Puts what is left from before at the front of `buffer`; the place of what is received next is behind it.
    pub fn put_back(&mut self, buffer: &mut [u8]) -> usize {
        let kept = self.tail.len();
        buffer[..kept].copy_from_slice(&self.tail);
        self.tail.clear();
        kept
    }

    /// Decrypts what was received, in place.
    pub fn receive(
        &mut self,
        socket: &TcpStream,
        mut received: &mut [u8],
        out: &mut Vec<u8>,
        mut plain: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(received);
            let turn = match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain(record.payload)?;
                    }
                    Turn::Again
                }
                other => answer(other, socket, out)?,
            };
            received = &mut received[discard..];
            if matches!(turn, Turn::Blocked) {
                self.tail.extend_from_slice(received);
                return Ok(());
            }
        }
    }
}

/// Does what the protocol itself wants.
fn answer<D>(
    state: ConnectionState<'_, '_, D>,
    mut socket: &TcpStream,
    out: &mut Vec<u8>,
) -> Result<Turn, Fault> {
    match state {
        ConnectionState::EncodeTlsData(mut data) => {
            let encoded = match data.encode(out) {
                Err(EncodeError::InsufficientSize(needed)) => {
                    out.resize(needed.required_size, 0);
                    data.encode(out)
                }
                other => other,
            };
            let encoded = encoded.map_err(|_| Fault::Protocol("not to be encoded for"))?;
            socket.write_all(&out[..encoded])?;
            Ok(Turn::Again)
        }
        ConnectionState::TransmitTlsData(data) => {
            // It was sent when it was encoded.
            data.done();
            Ok(Turn::Again)
        }
        ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake => Ok(Turn::Blocked),
        _ => Err(Fault::Closed),
    }
}
