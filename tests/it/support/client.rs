//! An HTTP/1.1 client that does nothing by itself: what a test writes is what is sent, and how a connection ends is seen.

use super::PATIENCE;
use socket2::{Domain, Socket, Type};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

/// A connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

/// A response, whole.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

/// Why there is no (whole) response.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Closed before the first byte of a response.
    Closed,
    /// Closed within a response: so many bytes of the body had come.
    Truncated(usize),
    /// Reset, at whatever point.
    Reset,
    /// Nothing came for [`PATIENCE`].
    Silent,
    /// Not HTTP.
    Malformed(String),
}

impl Response {
    /// A header's value; of several, the first.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// GET on a connection of its own; panics unless a whole response comes.
#[track_caller]
pub fn get(addr: SocketAddr, target: &str) -> Response {
    request(addr, "GET", target, &[])
}

/// One request on a connection of its own; panics unless a whole response comes.
#[track_caller]
pub fn request(addr: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let mut connection =
        Connection::open(addr).unwrap_or_else(|error| panic!("connecting to {addr}: {error}"));
    connection.request(method, target, headers).unwrap_or_else(|end| panic!("{method} {target}: {end:?}"))
}

/// A socket that is connected from an address of this host's.
pub fn connect_from(source: Ipv4Addr, addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&addr.into(), PATIENCE)?;
    Ok(socket.into())
}

impl Connection {
    /// Connects.
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&addr, PATIENCE)?)
    }

    /// From an address of this host's.
    pub fn open_from(source: Ipv4Addr, addr: SocketAddr) -> io::Result<Self> {
        Self::over(connect_from(source, addr)?)
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends these bytes, whatever they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a request with these headers and `Host`, the node's address, and reads the response.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Response, End> {
        let host = self.stream.get_ref().peer_addr().map_err(|error| End::of(&error, 0))?.to_string();
        let given = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = (!given).then_some(("Host", host.as_str()));
        let headers: Vec<_> = host.into_iter().chain(headers.iter().copied()).collect();
        self.send(head(method, target, &headers)).map_err(|error| End::of(&error, 0))?;
        self.response(method)
    }

    /// Reads the next response; `method` is what it answers, since one to HEAD has no body.
    pub fn response(&mut self, method: &str) -> Result<Response, End> {
        let mut response = self.response_head()?;
        if method != "HEAD" && response.status != 204 && response.status != 304 {
            let mut body = Vec::new();
            self.body(&response, &mut body).map_err(|error| End::of(&error, body.len()))?;
            response.body = body;
        }
        Ok(response)
    }

    /// Reads the next response's head only; the body is left to [`read`](Self::read).
    pub fn response_head(&mut self) -> Result<Response, End> {
        if self.stream.fill_buf().map_err(|error| End::of(&error, 0))?.is_empty() {
            return Err(End::Closed);
        }
        let first = self.line().map_err(|error| End::of(&error, 0))?;
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| End::Malformed(first.clone()))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().map_err(|error| End::of(&error, 0))?;
            if line.is_empty() {
                return Ok(Response { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(':').ok_or_else(|| End::Malformed(line.clone()))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads exactly so many bytes as they come, framing and all.
    pub fn read(&mut self, length: usize) -> Result<Vec<u8>, End> {
        let mut bytes = Vec::new();
        self.take(length as u64, &mut bytes).map_err(|error| End::of(&error, bytes.len()))?;
        Ok(bytes)
    }

    /// How the connection ends, when no more responses are expected: [`End::Closed`] where it is closed without
    /// another byte.
    pub fn end(&mut self) -> End {
        match self.stream.fill_buf() {
            Ok([]) => End::Closed,
            Ok(bytes) => End::Malformed(String::from_utf8_lossy(bytes).into_owned()),
            Err(error) => End::of(&error, 0),
        }
    }

    /// The body by its framing: chunked, by length, or to the end.
    fn body(&mut self, head: &Response, body: &mut Vec<u8>) -> io::Result<()> {
        if head.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.line()?;
                let size = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                    .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, line))?;
                self.take(size, body)?;
                // The end of the chunk's line, or of the trailers.
                while !self.line()?.is_empty() {}
                if size == 0 {
                    return Ok(());
                }
            }
        }
        match head.header("content-length") {
            Some(length) => {
                let length =
                    length.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, length))?;
                self.take(length, body)
            }
            None => self.stream.read_to_end(body).map(drop),
        }
    }

    fn take(&mut self, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let before = into.len() as u64;
        (&mut self.stream).take(length).read_to_end(into)?;
        if into.len() as u64 - before < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let line = line.strip_suffix(b"\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        String::from_utf8(line.to_vec()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl End {
    fn of(error: &io::Error, body_bytes: usize) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated(body_bytes),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Malformed(error.to_string()),
        }
    }
}

/// A request without a body, for [`Connection::send`]; several, one after the other, are pipelined.
pub fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    let host = ("Host", "freshet.test");
    let given = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    for (name, value) in (!given).then_some(&host).into_iter().chain(headers) {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}
