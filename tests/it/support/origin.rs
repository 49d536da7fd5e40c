//! An origin or mirror that does what a test tells it: slow, stuck, short, wrong, gone.
//!
//! Blocking sockets and a thread for each connection, written out by hand: an HTTP library would refuse to send
//! what these tests need sent.

use super::{Port, now};
use percent_encoding::percent_decode_str;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use std::{fs::File, mem};

/// What is different about the answers for a path. Several may stand together.
#[derive(Clone, Debug)]
pub enum Act {
    /// So many bytes of body per second, on each connection.
    Throttle(u64),
    /// Stops after so many bytes of body until [`Origin::release`].
    Gate(usize),
    /// Closes cleanly after so many bytes of body.
    Truncate(usize),
    /// Resets the connection after so many bytes of body.
    Reset(usize),
    /// This status and no body.
    Status(u16),
    /// This header as well.
    Header(&'static str, String),
    /// Claims this Content-Length, sends the body as it is, and closes.
    Length(usize),
    /// The byte of the file at this offset is flipped.
    Corrupt(usize),
    /// Neither ETag nor Last-Modified.
    NoValidators,
    /// 200 and everything, whatever `Range` says.
    NoRanges,
    /// Reads the request and says nothing until [`Origin::release`].
    Hang,
    /// These bytes in place of head and body; then it closes.
    Raw(Vec<u8>),
    /// The head a byte at a time, so far apart.
    Dribble(Duration),
    /// This for clients alone with this in their User-Agent.
    For(&'static str, Box<Act>),
}

impl Act {
    /// What of it concerns this request.
    fn towards(&self, seen: &Seen) -> Option<&Self> {
        match self {
            Self::For(agent, act) => {
                seen.header("user-agent").is_some_and(|by| by.contains(agent)).then_some(&**act)
            }
            act => Some(act),
        }
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// GET, HEAD.
    pub method: String,
    /// Decoded, without the leading slash and the query.
    pub path: String,
    /// What follows the `?`, as it came.
    pub query: Option<String>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// When it came.
    pub at: Instant,
    sent: Arc<AtomicU64>,
}

impl Seen {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Bytes of body sent for it up to now.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// The origin. It is gone when this is dropped.
pub struct Origin {
    port: Port,
    shared: Arc<Shared>,
    running: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told of releases and kills.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    root: PathBuf,
    objects: HashMap<String, Vec<u8>>,
    acts: HashMap<String, Vec<Act>>,
    released: HashSet<String>,
    seen: Vec<Seen>,
    /// Those for what isn't there.
    absent: Vec<Seen>,
    /// More requests for other than metadata than so many within such a time are answered 429.
    limit: Option<(usize, Duration)>,
    /// When those came that it let pass.
    passed: VecDeque<Instant>,
    /// Of those that are open: a second handle, by the client's address.
    connections: HashMap<SocketAddr, TcpStream>,
}

impl State {
    /// Whether the limit leaves room for a request.
    fn passes(&mut self) -> bool {
        let (Some((most, within)), now) = (self.limit, now()) else { return true };
        self.passed.retain(|at| now.duration_since(*at) < within);
        let passes = self.passed.len() < most;
        if passes {
            self.passed.push_back(now);
        }
        passes
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no connection panics with the lock")
    }
}

impl Origin {
    /// Serves the files below `root`.
    pub fn serve(root: &Path) -> Self {
        Self::serve_at(Port::reserve(), root)
    }

    /// Two, on 127.0.0.1 and on ::1 at the same port: to whoever asks by name they are one host.
    pub fn serve_both(roots: [&Path; 2]) -> [Self; 2] {
        let [v4, v6] = Port::reserve_both();
        [Self::serve_at(v4, roots[0]), Self::serve_at(v6, roots[1])]
    }

    /// Another one on this address of loopback, at the same port: one more host behind a name.
    pub fn behind(other: &Self, ip: Ipv4Addr, root: &Path) -> Self {
        Self::serve_at(other.port.on(ip), root)
    }

    fn serve_at(port: Port, root: &Path) -> Self {
        let mut origin = Self { port, shared: Arc::default(), running: None };
        origin.switch(root);
        origin.revive();
        origin
    }

    /// The address; it stays the same over [`kill`](Self::kill) and [`revive`](Self::revive).
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// The base URL, with a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}/", self.addr())
    }

    /// Serves another directory from the next request on.
    pub fn switch(&self, root: &Path) {
        self.shared.state().root = root.to_owned();
    }

    /// Serves these bytes at `path`, in place of a file.
    pub fn put(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.shared.state().objects.insert(path.to_owned(), body.into());
    }

    /// From the next request for `path` (or, for those without acts of their own, `"*"`) on. Nothing: as usual again.
    pub fn act(&self, path: &str, acts: impl Into<Vec<Act>>) {
        let mut state = self.shared.state();
        state.released.remove(path);
        state.acts.insert(path.to_owned(), acts.into());
    }

    /// Allows so many requests for packages within such a time, and answers 429 to others.
    pub fn limit(&self, requests: usize, within: Duration) {
        self.shared.state().limit = Some((requests, within));
    }

    /// Lets the answers for `path` go on that wait at a [`Act::Gate`] or [`Act::Hang`], and all later ones.
    pub fn release(&self, path: &str) {
        self.shared.state().released.insert(path.to_owned());
        self.shared.changed.notify_all();
    }

    /// All requests so far, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// The requests for `path` so far.
    pub fn seen_for(&self, path: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path == path).collect()
    }

    /// The requests so far for what was not there.
    pub fn absent(&self) -> Vec<Seen> {
        self.shared.state().absent.clone()
    }

    /// Bytes of bodies sent so far, for requests that are not [forgotten](Self::forget).
    pub fn sent(&self) -> u64 {
        self.shared.state().seen.iter().map(Seen::sent).sum()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.state().seen.clear();
    }

    /// Closes the listener and every connection: connecting is refused from here on.
    pub fn kill(&mut self) {
        let Some((alive, running)) = self.running.take() else { return };
        {
            // Under the lock, so that no waiting connection misses the wake-up, and no new one the shutdown.
            let mut state = self.shared.state();
            alive.store(false, Ordering::Release);
            for (_, connection) in state.connections.drain() {
                // It may have ended by itself.
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        self.shared.changed.notify_all();
        // Out of accept().
        let _ = TcpStream::connect(self.addr());
        running.join().expect("the accepting thread does not panic");
    }

    /// Listens again on the same port.
    pub fn revive(&mut self) {
        assert!(self.running.is_none(), "it lives");
        let listener = TcpListener::bind(self.addr()).expect("the port is reserved");
        let alive = Arc::new(AtomicBool::new(true));
        let (shared, living) = (self.shared.clone(), alive.clone());
        let accepting = thread::spawn(move || {
            while let Ok((stream, peer)) = listener.accept() {
                let mut state = shared.state();
                if !living.load(Ordering::Acquire) {
                    break;
                }
                state.connections.extend(stream.try_clone().map(|second| (peer, second)));
                drop(state);
                let connection = Connection { shared: shared.clone(), alive: living.clone(), stream, peer };
                thread::spawn(move || connection.run());
            }
        });
        self.running = Some((alive, accepting));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Connection {
    shared: Arc<Shared>,
    alive: Arc<AtomicBool>,
    stream: TcpStream,
    peer: SocketAddr,
}

/// An object, and what is to be said of it.
struct Object {
    bytes: Vec<u8>,
    modified: SystemTime,
}

impl Connection {
    fn run(mut self) {
        let ended = self.serve();
        self.shared.state().connections.remove(&self.peer);
        match ended {
            // With no time to linger, closing the last descriptor resets; shutdown() would send a clean end first.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            // Closing with requests unread would reset.
            _ => drop(self.stream.shutdown(Shutdown::Both)),
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut reader = BufReader::new(self.stream.try_clone()?);
        while let Some(seen) = request(&mut reader)? {
            self.shared.state().seen.push(seen.clone());
            self.answer(&seen)?;
            if seen.header("connection") == Some("close") {
                break;
            }
        }
        Ok(())
    }

    /// An error ends the connection.
    fn answer(&mut self, seen: &Seen) -> io::Result<()> {
        let (acts, object) = {
            let mut state = self.shared.state();
            let acts = state.acts.get(&seen.path).or_else(|| state.acts.get("*")).into_iter().flatten();
            let mut acts: Vec<Act> = acts.filter_map(|act| act.towards(seen)).cloned().collect();
            if seen.path.contains("/Packages/") && !state.passes() {
                acts.push(Act::Status(429));
            }
            let in_memory = state.objects.get(&seen.path).cloned();
            let object = match in_memory {
                Some(bytes) => Some(Object { bytes, modified: SystemTime::UNIX_EPOCH }),
                None => Object::read(&state.root, &seen.path),
            };
            (acts, object)
        };
        if let Some(Act::Raw(bytes)) = acts.iter().find(|act| matches!(act, Act::Raw(_))) {
            self.stream.write_all(bytes)?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut status = if object.is_some() { 200 } else { 404 };
        if object.is_none() {
            self.shared.state().absent.push(seen.clone());
        }
        let mut headers = String::new();
        let mut body = Vec::new();
        let mut claimed = None;
        if let Some(mut object) = object {
            let etag = object.etag();
            let modified = httpdate::fmt_http_date(object.modified);
            headers = format!("ETag: {etag}\r\nLast-Modified: {modified}\r\nAccept-Ranges: bytes\r\n");
            let length = object.bytes.len();
            let mut part = range(seen, length, &etag, &modified);
            for act in &acts {
                match act {
                    Act::Corrupt(at) => object.bytes[*at] ^= 0xff,
                    Act::NoRanges => part = Ok(None),
                    Act::Length(length) => claimed = Some(*length),
                    Act::NoValidators => headers = "Accept-Ranges: bytes\r\n".to_owned(),
                    _ => {}
                }
            }
            let unchanged = match seen.header("if-none-match") {
                Some(tag) => tag == etag,
                None => seen.header("if-modified-since") == Some(&modified),
            };
            (status, body) = match part {
                _ if unchanged => (304, Vec::new()),
                Err(()) => (416, Vec::new()),
                Ok(None) => (200, object.bytes),
                Ok(Some(part)) => {
                    headers += &format!("Content-Range: bytes {}-{}/{length}\r\n", part.start, part.end - 1);
                    (206, object.bytes[part].to_vec())
                }
            };
        }
        for act in &acts {
            match act {
                Act::Status(other) => (status, body) = (*other, Vec::new()),
                Act::Header(name, value) => headers += &format!("{name}: {value}\r\n"),
                Act::Hang => self.wait_release(&seen.path)?,
                _ => {}
            }
        }
        let length = claimed.unwrap_or(body.len());
        if status != 304 {
            headers += &format!("Content-Length: {length}\r\n");
        }
        let head = format!("HTTP/1.1 {status} As told\r\n{headers}\r\n");
        match acts.iter().find_map(|act| if let Act::Dribble(apart) = act { Some(*apart) } else { None }) {
            None => self.stream.write_all(head.as_bytes())?,
            Some(apart) => {
                for byte in head.bytes() {
                    self.stream.write_all(&[byte])?;
                    thread::sleep(apart);
                }
            }
        }
        if seen.method == "HEAD" {
            return Ok(());
        }
        self.send(seen, &body, &acts)?;
        if length == body.len() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn send(&mut self, seen: &Seen, body: &[u8], acts: &[Act]) -> io::Result<()> {
        let mut rate = None;
        let mut sent = 0;
        // Where something happens, in the order of the offsets.
        let mut stops: Vec<(usize, &Act)> = Vec::new();
        for act in acts {
            match act {
                Act::Throttle(bytes) => {
                    rate = Some(*bytes);
                    // What is slow has no long queue before it: what was sent has gone.
                    socket2::SockRef::from(&self.stream).set_send_buffer_size(64 << 10)?;
                }
                Act::Gate(at) | Act::Truncate(at) | Act::Reset(at) if *at <= body.len() => {
                    stops.push((*at, act));
                }
                _ => {}
            }
        }
        stops.sort_by_key(|(at, _)| *at);
        for (at, act) in stops {
            self.send_part(seen, &body[mem::replace(&mut sent, at)..at], rate)?;
            match act {
                Act::Gate(_) => self.wait_release(&seen.path)?,
                Act::Reset(_) => {
                    socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        self.send_part(seen, &body[sent..], rate)
    }

    fn send_part(&mut self, seen: &Seen, bytes: &[u8], rate: Option<u64>) -> io::Result<()> {
        let piece = rate.map_or(64 << 10, |rate| (rate / 50).clamp(1, 64 << 10) as usize);
        for bytes in bytes.chunks(piece) {
            self.stream.write_all(bytes)?;
            seen.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if let Some(rate) = rate {
                thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / rate as f64));
            }
        }
        Ok(())
    }

    /// Waits until the path is released; an error when the origin is killed.
    fn wait_release(&self, path: &str) -> io::Result<()> {
        let waiting = |state: &mut State| {
            self.alive.load(Ordering::Acquire)
                && !state.released.contains(path)
                && !state.released.contains("*")
        };
        let state = self.shared.changed.wait_while(self.shared.state(), waiting);
        drop(state.expect("no connection panics with the lock"));
        if self.alive.load(Ordering::Acquire) { Ok(()) } else { Err(io::ErrorKind::ConnectionAborted.into()) }
    }
}

impl Object {
    fn read(root: &Path, path: &str) -> Option<Self> {
        // One open file for both: another may take its name in between.
        let mut file = File::open(root.join(path)).ok()?;
        let modified = file.metadata().and_then(|facts| facts.modified()).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        Some(Self { bytes, modified })
    }

    fn etag(&self) -> String {
        let modified = self.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("\"{:x}-{:x}\"", modified.as_millis(), self.bytes.len())
    }
}

/// Reads the next request's head; `None` at a clean end.
fn request(reader: &mut impl BufRead) -> io::Result<Option<Seen>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut words = first.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let path = percent_decode_str(path.trim_start_matches('/')).decode_utf8_lossy().into_owned();
    let query = query.map(str::to_owned);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Some(Seen { method, path, query, headers, at: now(), sent: Arc::default() }))
}

/// The single range that is asked for; an error where the object has none of it.
fn range(seen: &Seen, length: usize, etag: &str, modified: &str) -> Result<Option<Range<usize>>, ()> {
    let asked = seen.header("range").and_then(|value| value.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = asked.filter(|_| seen.method == "GET") else { return Ok(None) };
    if seen.header("if-range").is_some_and(|validator| validator != etag && validator != modified) {
        return Ok(None);
    }
    let part = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => first..length.min(last + 1),
        (Ok(first), Err(_)) => first..length,
        (Err(_), Ok(suffix)) => length.saturating_sub(suffix)..length,
        (Err(_), Err(_)) => return Ok(None),
    };
    if part.is_empty() { Err(()) } else { Ok(Some(part)) }
}
