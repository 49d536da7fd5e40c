//! Attackers: they hold connections, or flood them, from a number of networks.

use super::kinds::Kind;
use super::link::{Appetite, Link};
use super::origin::{LARGE, repomd};
use crate::load::trusting;
use anyhow::Context;
use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two bytes of a slow head, and between two looks at connections that are held.
pub const DRIP: Duration = Duration::from_millis(500);
/// While handshakes are under way they are looked at so often.
const LOOK: Duration = Duration::from_millis(50);
/// A flood in which nothing moves rests.
const REST: Duration = Duration::from_micros(500);
/// Attackers leave the core that they share with honest clients to these (setpriority(2)).
const NICENESS: i32 = 5;

/// Where attackers come from, and what they know.
#[derive(Clone)]
pub struct Scene {
    pub sources: Arc<[Ipv4Addr]>,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Clients of TLS that offer HTTP/1.1, and HTTP/2.
    pub http1: Arc<ClientConfig>,
    pub http2: Arc<ClientConfig>,
    /// A file of 100 MB, and a repomd.xml.
    pub large: Arc<[String]>,
    pub small: String,
}

impl Scene {
    /// So many networks, and a certificate in `dir`.
    pub fn make(dir: &Path, networks: u16) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let (http1, http2) = (trusting(&certificate, b"http/1.1")?, trusting(&certificate, b"h2")?);
        let sources =
            (0..networks).map(|number| Ipv4Addr::new(127, 100, number.to_le_bytes()[0], 1)).collect();
        Ok(Self {
            sources,
            certificate,
            key,
            http1,
            http2,
            large: [LARGE.to_owned()].into(),
            small: repomd(),
        })
    }
}

/// One that is under way.
pub struct Assault {
    ended: Arc<AtomicBool>,
    acts: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Assault {
    /// Begins it, and returns once it is on. `plain` and `tls` are the server's; it ends by itself after `longest`.
    pub fn begin(
        kind: &Kind,
        scene: &Scene,
        [plain, tls]: [SocketAddr; 2],
        longest: Duration,
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let (ended, acts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_on, on) = sync_channel(1);
        let party = Party {
            scene: scene.clone(),
            plain,
            tls,
            longest,
            ended: ended.clone(),
            acts: acts.clone(),
            stop: stop.clone(),
            is_on,
        };
        let run = kind.run;
        let thread = std::thread::spawn(move || {
            yields();
            run(&party)
        });
        on.recv_timeout(Duration::from_secs(60)).context("the attack doesn't begin")?;
        Ok(Self { ended, acts, thread })
    }

    /// Connections, requests or frames so far: each kind counts what it is made of.
    pub fn acts(&self) -> u64 {
        self.acts.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub fn end(self) -> anyhow::Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("it doesn't panic")
    }
}

/// This thread leaves the core to others. Without it honest clients wait a little longer.
pub fn yields() {
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// What an attack is made with.
pub struct Party {
    pub scene: Scene,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    pub longest: Duration,
    pub ended: Arc<AtomicBool>,
    acts: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    is_on: SyncSender<()>,
}

/// What a connection is opened for.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// TLS with this, or none.
    pub tls: Option<&'a Arc<ClientConfig>>,
    /// Speaks to the port of TLS, whatever is spoken.
    pub to_tls: bool,
    /// Bytes of the kernel's buffer for what is received, if not its own choice.
    pub buffer: Option<usize>,
    /// Sent first.
    pub first: &'a [u8],
}

impl<'a> Opening<'a> {
    /// In the clear.
    pub fn plain(first: &'a [u8]) -> Self {
        Self { tls: None, to_tls: false, buffer: None, first }
    }

    /// Over TLS.
    pub fn tls(config: &'a Arc<ClientConfig>, first: &'a [u8]) -> Self {
        Self { tls: Some(config), to_tls: true, buffer: None, first }
    }
}

/// Connections that send as much as is taken.
pub struct Flood<'a> {
    pub opening: Opening<'a>,
    pub connections: usize,
    pub appetite: Appetite,
    /// After it a connection is left, and another one opened.
    pub lifetime: Option<Duration>,
}

impl Party {
    pub fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || self.stop.load(Ordering::Relaxed)
    }

    /// Says that it has begun.
    pub fn is_on(&self) {
        let _ = self.is_on.try_send(());
    }

    pub fn acted(&self, times: u64) {
        self.acts.fetch_add(times, Ordering::Relaxed);
    }

    /// Opens a connection from one of the networks, in turn. None where the kernel has none.
    pub fn open(&self, number: usize, opening: &Opening<'_>) -> Option<Link> {
        let target = if opening.to_tls { self.tls } else { self.plain };
        let socket = self.socket(number, target, opening.buffer).ok()?;
        let mut link = Link::new(socket, opening.tls).ok()?;
        link.room()?.extend_from_slice(opening.first);
        Some(link)
    }

    /// A socket that is connecting, and never blocks.
    pub fn socket(
        &self,
        number: usize,
        target: SocketAddr,
        buffer: Option<usize>,
    ) -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(bytes) = buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let source = self.scene.sources[number % self.scene.sources.len()];
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
        socket.set_nonblocking(true)?;
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        Ok(socket.into())
    }

    /// Holds so many connections; each sends `more` now and then. Those that end are opened anew.
    pub fn holds(
        &self,
        count: usize,
        opening: &Opening<'_>,
        more: &[u8],
        appetite: Appetite,
    ) -> anyhow::Result<()> {
        let mut scratch = vec![0; 64 * 1024];
        let mut held: Vec<Option<Link>> = (0..count).map(|number| self.open(number, opening)).collect();
        self.acted(count as u64);
        let looks = DRIP.as_millis() / LOOK.as_millis();
        for look in 0.. {
            let drips = look % looks == 0;
            for (number, place) in held.iter_mut().enumerate() {
                if drips && let Some(room) = place.as_mut().and_then(Link::room) {
                    room.extend_from_slice(more);
                }
                // A reader that takes a little does so now and then.
                let hungry = drips || appetite == Appetite::All;
                let appetite = if hungry { appetite } else { Appetite::Nothing };
                let is_there = place.as_mut().is_some_and(|link| link.turn(appetite, &mut scratch).is_ok());
                if !is_there {
                    self.acted(1);
                    *place = self.open(number, opening);
                }
            }
            if look > looks / 2 {
                self.is_on();
            }
            if self.is_over() {
                break;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Floods. `batch` writes what is sent next on a connection, and returns how many acts that is.
    pub fn floods(
        &self,
        flood: &Flood<'_>,
        mut batch: impl FnMut(&mut u32, &mut Vec<u8>) -> u64,
    ) -> anyhow::Result<()> {
        let Flood { opening, connections, appetite, lifetime } = flood;
        let mut scratch = vec![0; 64 * 1024];
        let begin = |number| (self.open(number, opening), freshet::clock::monotonic());
        let mut links: Vec<_> = (0..*connections).map(begin).collect();
        self.is_on();
        while !self.is_over() {
            let mut moved = 0;
            for (number, (place, begun)) in links.iter_mut().enumerate() {
                let sent = place.as_mut().map(|link| {
                    let mut stream = link.stream;
                    if let Some(room) = link.room() {
                        self.acted(batch(&mut stream, room));
                    }
                    link.stream = stream;
                    link.turn(*appetite, &mut scratch)
                });
                let is_old = lifetime.is_some_and(|lifetime| begun.elapsed() > lifetime);
                match sent {
                    Some(Ok(bytes)) if !is_old => moved += bytes,
                    _ => (*place, *begun) = begin(number),
                }
            }
            if moved == 0 {
                std::thread::sleep(REST);
            }
        }
        Ok(())
    }
}
