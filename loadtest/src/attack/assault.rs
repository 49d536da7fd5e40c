//! The attacks.

use super::http2::{Http2, PING};
use crate::load::{Engine, Pace, Plan, Wire, trusting};
use crate::peers::child::free_address;
use crate::peers::site::{Files, Site};
use anyhow::Context;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Connections that are held open: twice the seats.
const HELD: usize = 1000;
/// Connections that read slowly, or as fast as they can.
const READERS: usize = 400;
/// Connections of HTTP/2, with 64 streams each.
const STREAMED: usize = 50;
const STREAMS: u32 = 64;
const FLOODS: usize = 4;
/// Between two bytes of a slow head.
const DRIP: Duration = Duration::from_millis(500);

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections that say nothing.
    Silent,
    /// Heads that come byte by byte.
    SlowHeads,
    /// Large files that aren't read.
    SlowReads,
    /// 400 connections that want all of the capacity.
    Egress,
    /// What isn't there, as fast as it is answered.
    Missing,
    /// TLS hellos whose answers aren't waited for.
    Hellos,
    /// HTTP/2 streams that aren't read.
    Streams,
    /// HTTP/2 PINGs.
    Frames,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Silent,
        Self::SlowHeads,
        Self::SlowReads,
        Self::Egress,
        Self::Missing,
        Self::Hellos,
        Self::Streams,
        Self::Frames,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::SlowHeads => "slow-heads",
            Self::SlowReads => "slow-reads",
            Self::Egress => "egress",
            Self::Missing => "missing",
            Self::Hellos => "hellos",
            Self::Streams => "streams",
            Self::Frames => "frames",
        }
    }
}

/// Where attackers come from, and what they know.
#[derive(Clone)]
pub struct Scene {
    sources: Arc<[Ipv4Addr]>,
    tls: SocketAddr,
    certificate: PathBuf,
    key: PathBuf,
    client: Arc<ClientConfig>,
    large: Arc<[String]>,
}

impl Scene {
    /// So many networks, and a certificate in `dir`.
    pub fn make(dir: &Path, site: &Site, networks: u16) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let client = trusting(&certificate, b"h2")?;
        let sources =
            (0..networks).map(|number| Ipv4Addr::new(127, 100, number.to_le_bytes()[0], 1)).collect();
        Ok(Self {
            sources,
            tls: free_address()?,
            certificate,
            key,
            client,
            large: site.paths(Files::Large).into(),
        })
    }

    /// Lines of the node's config.
    pub fn listener(&self) -> String {
        let Self { tls, certificate, key, .. } = self;
        format!("https.listen = [\"{tls}\"]\nhttps.certificate = {certificate:?}\nhttps.key = {key:?}\n")
    }

    /// A connection from one of the networks, in turn. None where the node takes none.
    fn connect(&self, number: usize, to: SocketAddr) -> Option<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        let source = self.sources[number % self.sources.len()];
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into()).ok()?;
        socket.connect_timeout(&to.into(), Duration::from_secs(1)).ok()?;
        let stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        Some(stream)
    }
}

/// One that is under way.
pub struct Assault {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Assault {
    /// Begins it, and returns once it is on.
    pub fn begin(
        kind: Kind,
        scene: &Scene,
        target: SocketAddr,
        span: Duration,
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let (is_on, on) = std::sync::mpsc::sync_channel(1);
        let party = Party { scene: scene.clone(), target, ended: ended.clone(), stop: stop.clone(), is_on };
        // Beyond the span only if the measurement takes longer than it.
        let thread = std::thread::spawn(move || party.attack(kind, span * 2));
        on.recv_timeout(Duration::from_secs(60)).context("the attack doesn't begin")?;
        Ok(Self { ended, thread })
    }

    /// Ends it.
    pub fn end(self) -> anyhow::Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("it doesn't panic")
    }
}

struct Party {
    scene: Scene,
    target: SocketAddr,
    ended: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    is_on: std::sync::mpsc::SyncSender<()>,
}

impl Party {
    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || self.stop.load(Ordering::Relaxed)
    }

    fn is_on(&self) {
        let _ = self.is_on.try_send(());
    }

    fn attack(&self, kind: Kind, span: Duration) -> anyhow::Result<()> {
        match kind {
            Kind::Silent => self.holds(b"", b""),
            Kind::SlowHeads => self.holds(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ", b"a"),
            Kind::SlowReads => {
                let head = format!("GET {} HTTP/1.1\r\nHost: node\r\n\r\n", self.scene.large[0]);
                self.holds(head.as_bytes(), b"")
            }
            Kind::Egress => self.asks(self.scene.large.clone(), 200, READERS, span),
            Kind::Missing => self.asks(["/none".to_owned()].into(), 404, 64, span),
            Kind::Hellos => self.greets(),
            Kind::Streams => self.streams(),
            Kind::Frames => self.pings(),
        }
    }

    /// Holds connections, each of which has sent `first`; then each sends `more` now and then. Those that end are opened anew.
    fn holds(&self, first: &[u8], more: &[u8]) -> anyhow::Result<()> {
        let open = |number| {
            let mut stream = self.scene.connect(number, self.target)?;
            stream.write_all(first).ok()?;
            Some(stream)
        };
        let mut held: Vec<Option<TcpStream>> = (0..HELD).map(open).collect();
        self.is_on();
        while !self.is_over() {
            for (number, place) in held.iter_mut().enumerate() {
                let is_there =
                    place.as_mut().is_some_and(|stream| is_open(stream) && stream.write_all(more).is_ok());
                if !is_there {
                    *place = open(number);
                }
            }
            std::thread::sleep(DRIP);
        }
        Ok(())
    }

    /// Asks as fast as there are answers. What the node does to it is not what is measured.
    fn asks(
        &self,
        paths: Arc<[String]>,
        status: u16,
        connections: usize,
        span: Duration,
    ) -> anyhow::Result<()> {
        let mut engine = Engine::connect(Plan {
            target: self.target,
            host: self.target.to_string(),
            paths,
            connections,
            wire: Wire::Plain,
            status,
            pace: Pace::Closed,
            verify: None,
            sources: self.scene.sources.iter().copied().map(IpAddr::V4).collect(),
            // It ends with the measurement.
            stop: self.ended.clone(),
        })?;
        self.is_on();
        // Broken off is how it ends.
        let _ = engine.run(span);
        Ok(())
    }

    fn greets(&self) -> anyhow::Result<()> {
        let name = ServerName::try_from("localhost")?;
        let mut tls = rustls::ClientConnection::new(self.scene.client.clone(), name)?;
        let mut hello = Vec::new();
        tls.write_tls(&mut hello)?;
        self.is_on();
        let mut number = 0;
        while !self.is_over() {
            if let Some(mut stream) = self.scene.connect(number, self.scene.tls) {
                let _ = stream.write_all(&hello);
            }
            number += 1;
        }
        Ok(())
    }

    fn streams(&self) -> anyhow::Result<()> {
        let open = |number| {
            let tcp = self.scene.connect(number, self.scene.tls)?;
            let mut http2 = Http2::open(tcp, &self.scene.client).ok()?;
            (0..STREAMS).try_for_each(|stream| http2.get(2 * stream + 1, &self.scene.large[0])).ok()?;
            Some(http2)
        };
        let held: Vec<Option<Http2>> = (0..STREAMED).map(open).collect();
        self.is_on();
        while !self.is_over() {
            std::thread::sleep(DRIP);
        }
        drop(held);
        Ok(())
    }

    fn pings(&self) -> anyhow::Result<()> {
        let open = |number| {
            let tcp = self.scene.connect(number, self.scene.tls)?;
            Http2::open(tcp, &self.scene.client).ok()
        };
        let mut floods: Vec<Option<Http2>> = (0..FLOODS).map(open).collect();
        self.is_on();
        while !self.is_over() {
            for (number, place) in floods.iter_mut().enumerate() {
                let sent =
                    |http2: &mut Http2| (0..100).try_for_each(|_| http2.send(PING, 0, 0, &[0; 8])).is_ok();
                if !place.as_mut().is_some_and(sent) {
                    *place = open(number);
                }
            }
        }
        Ok(())
    }
}

/// The node hasn't closed it, as far as can be told without waiting.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    let is_closed = matches!(stream.peek(&mut byte), Ok(0));
    let is_dead =
        matches!(stream.peek(&mut byte), Err(error) if error.kind() != std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).is_ok() && !is_closed && !is_dead
}
