//! One connection: a socket, what is spoken over it, and the request that is under way.

use super::http1::{self, Http1};
use super::http2::Http2;
use super::tls::Session;
use super::{Fault, Plan, Sink, Wire};
use freshet::repo::Hasher;
use rustix::net::RecvFlags;
use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Received at once of a head, and of a small body with it.
const HEAD_BYTES: usize = 16 * 1024;
/// Received at once of TLS: a dozen records.
const TLS_BYTES: usize = 256 * 1024;
/// Thrown away at once: more than a socket's buffer may hold. Nobody ever writes to these pages, so there are none.
const DISCARD_BYTES: usize = 32 * 1024 * 1024;
/// Without an answer to connecting or shaking hands.
const PATIENCE: Duration = Duration::from_secs(10);

/// Buffers that all connections use in turn.
pub struct Scratch {
    input: Vec<u8>,
    discard: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Scratch {
    pub fn new() -> Self {
        Self {
            input: vec![0; TLS_BYTES],
            discard: vec![0; DISCARD_BYTES],
            plain: Vec::new(),
            sealed: Vec::new(),
        }
    }
}

/// See the module.
pub struct Connection {
    socket: TcpStream,
    session: Option<Session>,
    http: Http,
    agent: String,
    next_path: usize,
    verify: bool,
    sink: Sink,
    /// When the request under way was sent, or was due.
    asked: Option<Instant>,
}

enum Http {
    One(Http1),
    Two(Http2),
}

/// What an event on the socket brought.
pub struct Received {
    /// Bytes of bodies.
    pub bytes: u64,
    /// The answer is complete.
    pub ended: Option<Ended>,
}

/// A complete answer.
pub struct Ended {
    pub status: u16,
    pub asked: Instant,
    /// What its bytes hashed to, where they were looked at.
    pub hasher: Option<Hasher>,
}

impl Connection {
    /// Connects, and shakes hands. `number` tells the connections of a plan apart.
    pub fn open(plan: &Plan, number: usize, scratch: &mut Scratch) -> Result<Self, Fault> {
        let socket = Socket::new(Domain::for_address(plan.target), Type::STREAM, None)?;
        if !plan.sources.is_empty() {
            let source = plan.sources[number % plan.sources.len()];
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect_timeout(&plan.target.into(), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE))?;
        let (session, http) = match &plan.wire {
            Wire::Plain => (None, Http::One(Http1::default())),
            Wire::Tls(config) | Wire::Http2(config) => {
                let Scratch { input, sealed, .. } = scratch;
                let session = Session::shake_hands(&socket, config, &plan.host, input, sealed)?;
                let two = matches!(plan.wire, Wire::Http2(_));
                (Some(session), if two { Http::Two(Http2::default()) } else { Http::One(Http1::default()) })
            }
        };
        socket.set_nonblocking(true)?;
        let mut connection = Self {
            socket,
            session,
            http,
            agent: format!("libdnf (loadtest {number})"),
            // Spread over the paths, so that not all ask for the same at the same time.
            next_path: number * plan.paths.len() / plan.connections.max(1),
            verify: plan.verify.is_some(),
            sink: Sink::default(),
            asked: None,
        };
        if matches!(plan.wire, Wire::Http2(_)) {
            scratch.plain.clear();
            Http2::preface(&mut scratch.plain);
            connection.send(scratch)?;
        }
        Ok(connection)
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub fn is_idle(&self) -> bool {
        self.asked.is_none()
    }

    /// Sends the next request. Its latency counts from `due`.
    pub fn ask(&mut self, plan: &Plan, due: Instant, scratch: &mut Scratch) -> Result<(), Fault> {
        let path = &plan.paths[self.next_path % plan.paths.len()];
        self.next_path += 1;
        scratch.plain.clear();
        match &mut self.http {
            Http::One(_) => http1::request(&mut scratch.plain, path, &plan.host, &self.agent),
            Http::Two(http) => http.request(&mut scratch.plain, path, &plan.host, &self.agent),
        }
        self.sink.hasher = self.verify.then(Hasher::default);
        self.asked = Some(due);
        self.send(scratch)
    }

    /// Sends what is in `scratch.plain`: some hundred bytes, for which a socket without anything under way always has room.
    fn send(&mut self, scratch: &mut Scratch) -> Result<(), Fault> {
        match &mut self.session {
            None => Ok((&self.socket).write_all(&scratch.plain)?),
            Some(session) => session.send(&self.socket, &scratch.plain, &mut scratch.sealed),
        }
    }

    /// Receives what is there.
    pub fn receive(&mut self, scratch: &mut Scratch) -> Result<Received, Fault> {
        let before = self.sink.bytes;
        let status = match (&mut self.session, &mut self.http) {
            (None, Http::One(http)) if http.left() > 0 && !self.verify => {
                let most = usize::try_from(http.left()).unwrap_or(usize::MAX).min(DISCARD_BYTES);
                let thrown = receive(&self.socket, &mut scratch.discard[..most], RecvFlags::TRUNC)?;
                self.sink.bytes += thrown as u64;
                http.passed(thrown)
            }
            (None, Http::One(http)) => {
                let received = receive(&self.socket, &mut scratch.input[..HEAD_BYTES], RecvFlags::empty())?;
                if received == 0 { None } else { http.take(&scratch.input[..received], &mut self.sink)? }
            }
            (None, Http::Two(_)) => None,
            (Some(session), http) => {
                let kept = session.put_back(&mut scratch.input);
                let received = receive(&self.socket, &mut scratch.input[kept..], RecvFlags::empty())?;
                let (mut status, replies, sink) = (None, &mut scratch.plain, &mut self.sink);
                replies.clear();
                let input = &mut scratch.input[..kept + received];
                session.receive(&self.socket, input, &mut scratch.sealed, |plain| {
                    let found = match http {
                        Http::One(http) => http.take(plain, sink)?,
                        Http::Two(http) => http.take(plain, replies, sink)?,
                    };
                    status = status.or(found);
                    Ok(())
                })?;
                if !replies.is_empty() {
                    session.send(&self.socket, replies, &mut scratch.sealed)?;
                }
                status
            }
        };
        let ended = status.zip(self.asked).map(|(status, asked)| {
            self.asked = None;
            Ended { status, asked, hasher: self.sink.hasher.take() }
        });
        Ok(Received { bytes: self.sink.bytes - before, ended })
    }
}

/// Bytes received; none if there are none just now.
fn receive(socket: &TcpStream, buffer: &mut [u8], flags: RecvFlags) -> Result<usize, Fault> {
    match rustix::net::recv(socket, buffer, flags) {
        Ok((_, 0)) => Err(Fault::Closed),
        Ok((_, received)) => Ok(received),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
        Err(error) => Err(std::io::Error::from(error).into()),
    }
}
