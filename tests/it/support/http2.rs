//! A client that speaks HTTP/2 frame by frame, over TLS, and takes no more than it says.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The last of its stream.
    pub fn is_last(&self) -> bool {
        self.flags & 1 == 1 && self.kind <= 1
    }
}

/// TLS over a connection, whose handshake comes with the first bytes.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// TLS that trusts the certificate in a file, for this protocol.
pub fn tls(tcp: TcpStream, certificate: &Path, protocol: &str) -> Tls {
    tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    StreamOwned::new(connection(&settings(certificate, protocol)), tcp)
}

/// A connection that hasn't begun; those with the same settings share their sessions.
pub fn connection(settings: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(settings.clone(), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// A client that trusts the certificate in a file, for this protocol.
pub fn settings(certificate: &Path, protocol: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Arc::new(config)
}

/// A connection.
pub struct Http2(Tls);

impl Http2 {
    /// Connects, trusting the certificate in a file, and lets each stream send so many bytes.
    pub fn open(addr: SocketAddr, certificate: &Path, window: u32) -> Self {
        let mut http2 = Self(tls(TcpStream::connect(addr).unwrap(), certificate, "h2"));
        http2.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let window = window.to_be_bytes();
        http2.send(SETTINGS, 0, &[0, 4, window[0], window[1], window[2], window[3]]).unwrap();
        // The connection's own window is no bound.
        http2.send(WINDOW_UPDATE, 0, &0x3fff_0000_u32.to_be_bytes()).unwrap();
        http2
    }

    /// Sends a frame without flags.
    pub fn send(&mut self, kind: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.send_with(kind, 0, stream, payload)
    }

    fn send_with(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame)?;
        self.0.flush()
    }

    /// Asks for a path on stream number `stream`, an odd one.
    pub fn get(&mut self, stream: u32, path: &str) {
        self.try_get(stream, path).unwrap();
    }

    /// The same, where the node may have ended the connection.
    pub fn try_get(&mut self, stream: u32, path: &str) -> io::Result<()> {
        self.ask(stream, path, 5)
    }

    /// The same with a body, whose frames follow.
    pub fn begin(&mut self, stream: u32, path: &str) {
        self.ask(stream, path, 4).unwrap();
    }

    /// The last part of a body.
    pub fn end(&mut self, stream: u32, data: &[u8]) {
        self.send_with(DATA, 1, stream, data).unwrap();
    }

    /// Asks for ranges of it.
    pub fn get_ranges(&mut self, stream: u32, path: &str, ranges: &str) {
        // RFC 7541, 5.1 and 6.2.2: Range is number 50 of the static table, and the value is longer than 126 bytes.
        let mut field = vec![0x0f, 50 - 15, 0x7f];
        let mut more = ranges.len() - 127;
        while more >= 128 {
            field.push(0x80 | u8::try_from(more % 128).unwrap());
            more /= 128;
        }
        field.push(u8::try_from(more).unwrap());
        field.extend(ranges.as_bytes());
        self.ask_with(stream, path, 5, field).unwrap();
    }

    fn ask(&mut self, stream: u32, path: &str, flags: u8) -> io::Result<()> {
        self.ask_with(stream, path, flags, Vec::new())
    }

    fn ask_with(&mut self, stream: u32, path: &str, flags: u8, more: Vec<u8>) -> io::Result<()> {
        let literal =
            |name: u8, value: &str| [&[name, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
        // RFC 7541: GET and https by their numbers, path and authority as literals.
        let fields = [vec![0x82, 0x87], literal(4, path), literal(1, "localhost"), more].concat();
        self.send_with(HEADERS, flags, stream, &fields)
    }

    /// Lets a stream send so many bytes more.
    pub fn open_window(&mut self, stream: u32, bytes: u32) {
        self.send(WINDOW_UPDATE, stream, &bytes.to_be_bytes()).unwrap();
    }

    /// From now on reading waits no longer than this.
    pub fn patient_for(&self, time: Duration) {
        self.0.sock.set_read_timeout(Some(time)).unwrap();
    }

    /// The next frame.
    ///
    /// # Errors
    /// The connection has ended, or nothing came in time.
    pub fn frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        // Not a byte is lost where nothing comes in time.
        self.0.read_exact(&mut head[..1])?;
        self.0.read_exact(&mut head[1..])?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }
}
