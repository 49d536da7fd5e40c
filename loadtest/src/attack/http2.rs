//! HTTP/2 frame by frame, over TLS, for what no honest client sends.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;

pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
/// END_STREAM and END_HEADERS (RFC 9113, 6.2).
const WHOLE: u8 = 5;

/// A connection whose streams may send a byte each.
pub struct Http2(StreamOwned<ClientConnection, TcpStream>);

impl Http2 {
    /// Speaks TLS over a connected socket.
    pub fn open(tcp: TcpStream, config: &Arc<ClientConfig>) -> anyhow::Result<Self> {
        let tls = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
        let mut http2 = Self(StreamOwned::new(tls, tcp));
        http2.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        http2.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1])?;
        http2.send(WINDOW_UPDATE, 0, 0, &0x3fff_0000_u32.to_be_bytes())?;
        Ok(http2)
    }

    /// Asks for a path.
    pub fn get(&mut self, stream: u32, path: &str) -> io::Result<()> {
        let literal = |name: u8, value: &str| {
            let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
            [&[name, length], &value.as_bytes()[..length.into()]].concat()
        };
        // RFC 7541: GET and https by their numbers, path and authority as literals.
        let fields = [vec![0x82, 0x87], literal(4, path), literal(1, "localhost")].concat();
        self.send(HEADERS, WHOLE, stream, &fields)
    }

    /// Sends a frame.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame)?;
        self.0.flush()
    }
}
