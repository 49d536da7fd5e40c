//! Clients that ask for everything in every way, and hold each byte and header field against the tree.

use super::super::support::client::{self, Connection, End, Response};
use super::tree::{Entry, Kind, Tree};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Read at a time.
const PIECE: usize = 256 << 10;
/// Of what large files are asked for whole now and then.
const LARGE: u64 = 16 << 20;

/// What all threads share.
pub struct Ground<'a> {
    pub tree: &'a Tree,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    pub over: AtomicBool,
    pub tally: Tally,
    failures: Mutex<Vec<String>>,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Right, and to the end.
    pub right: AtomicU64,
    pub not_modified: AtomicU64,
    /// 503.
    pub unavailable: AtomicU64,
    /// Not to the end, and not cleanly.
    pub cut: AtomicU64,
    /// No connection, or one without an answer.
    pub refused: AtomicU64,
    /// By the client itself.
    pub left: AtomicU64,
    pub bytes: AtomicU64,
    pub purges: AtomicU64,
    pub published: AtomicU64,
}

/// How a request ended, where nothing was wrong with it.
enum Ended {
    Right,
    NotModified,
    Unavailable,
    Cut,
    Refused,
    Left,
}

/// What a client asks for.
enum Asked {
    Whole,
    Ranges(Vec<Span>),
    Head,
    /// With If-None-Match and this ETag.
    IfNoneMatch(String),
    /// The end of it, if it is still this version.
    Rest {
        from: u64,
        version: u16,
    },
}

/// How a client takes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    Reads,
    /// Leaves once it has so many bytes.
    Leaves(u64),
    /// Stops for a while at every megabyte.
    Stalls,
}

/// A body to come.
#[derive(Clone, Copy)]
struct Body<'a> {
    file: &'a Entry,
    version: u16,
    start: u64,
    end: u64,
    status: u16,
}

#[derive(Clone, Copy)]
enum Span {
    Inner(u64, u64),
    From(u64),
    Last(u64),
}

impl<'a> Ground<'a> {
    pub fn new(tree: &'a Tree, http: SocketAddr, admin: SocketAddr) -> Self {
        let (over, tally, failures) = (AtomicBool::new(false), Tally::default(), Mutex::default());
        Self { tree, http, admin, over, tally, failures }
    }

    /// What was wrong, if anything was.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("no one panics with it").clone()
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Something was wrong: it is over.
    pub fn fail(&self, what: String) {
        self.failures.lock().expect("no one panics with it").push(what);
        self.over.store(true, Ordering::SeqCst);
    }

    /// One client, until it is over.
    pub fn client(&self, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut connection = None;
        while !self.is_over() {
            let file = self.choose(&mut rng);
            let (asked, manners) = (ask(&mut rng, file), behave(&mut rng, file));
            let ended = self.request(&mut connection, file, &asked, manners);
            let tally = &self.tally;
            let counter = match ended {
                Ok(Ended::Right) => &tally.right,
                Ok(Ended::NotModified) => &tally.not_modified,
                Ok(Ended::Unavailable) => &tally.unavailable,
                Ok(Ended::Cut) => &tally.cut,
                Ok(Ended::Refused) => &tally.refused,
                Ok(Ended::Left) => &tally.left,
                Err(what) => {
                    self.fail(format!("{} for {}: {what}", asked.name(), file.path));
                    return;
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
            if matches!(ended, Ok(Ended::Cut | Ended::Refused | Ended::Left)) {
                connection = None;
            }
            if matches!(ended, Ok(Ended::Refused | Ended::Unavailable)) {
                thread::sleep(Duration::from_millis(20));
            }
            if rng.u8(..) < 30 {
                connection = None;
            }
        }
    }

    /// One in four is large or changes.
    fn choose(&self, rng: &mut fastrand::Rng) -> &'a Entry {
        let files = &self.tree.files;
        let special = |file: &&Entry| file.kind == Kind::Changing || file.bytes >= LARGE;
        if rng.u8(..) < 64 {
            let special: Vec<&Entry> = files.iter().filter(special).collect();
            return special[rng.usize(..special.len())];
        }
        &files[rng.usize(..files.len())]
    }

    fn request(
        &self,
        connection: &mut Option<Connection>,
        file: &Entry,
        asked: &Asked,
        manners: Manners,
    ) -> Result<Ended, String> {
        let fresh = connection.is_none();
        if fresh {
            let Ok(opened) = Connection::open(self.http) else { return Ok(Ended::Refused) };
            *connection = Some(opened);
        }
        let open = connection.as_mut().expect("just opened");
        let floor = file.floor();
        let method = if matches!(asked, Asked::Head) { "HEAD" } else { "GET" };
        let fields = asked.fields(file);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if open.send(client::head(method, &format!("/{}", file.path), &fields)).is_err() {
            return Ok(Ended::Refused);
        }
        let head = match open.response_head() {
            Ok(head) => head,
            // An idle connection may be closed at any time, and a node may be killed.
            Err(End::Closed | End::Reset | End::Truncated(_)) => return Ok(Ended::Refused),
            Err(end) => return Err(format!("{end:?} instead of a head")),
        };
        self.answer(open, &head, file, asked, manners, floor)
    }

    fn answer(
        &self,
        connection: &mut Connection,
        head: &Response,
        file: &Entry,
        asked: &Asked,
        manners: Manners,
        floor: u16,
    ) -> Result<Ended, String> {
        let length = head.header("content-length").and_then(|length| length.parse::<u64>().ok());
        if head.status == 503 {
            let length =
                if matches!(asked, Asked::Head) { 0 } else { length.ok_or("a 503 without a length")? };
            let body = connection.read(length as usize);
            return Ok(if body.is_ok() { Ended::Unavailable } else { Ended::Cut });
        }
        let version = file.version(head.header("etag"), floor)?;
        let whole = file.length(version);
        let wrong = || format!("{head:?}, for version {version} of {whole} bytes");
        if let (Asked::IfNoneMatch(etag), 304) = (asked, head.status) {
            return if *etag == file.etag(version) { Ok(Ended::NotModified) } else { Err(wrong()) };
        }
        let length = length.ok_or_else(wrong)?;
        match (head.status, asked) {
            (200, Asked::Head) => return if length == whole { Ok(Ended::Right) } else { Err(wrong()) },
            (200, Asked::IfNoneMatch(etag)) if *etag == file.etag(version) => return Err(wrong()),
            (200, Asked::Rest { version: before, .. }) if *before == version => return Err(wrong()),
            // Also for ranges: what passes by can't be cut into several.
            (200, _) if length == whole => {}
            (206, Asked::Rest { version: before, from }) if *before == version && length == whole - from => {}
            (206, Asked::Ranges(spans)) if spans.len() > 1 => {
                return self.multipart(connection, head, file, version, spans, length);
            }
            (206, Asked::Ranges(_)) => {}
            _ => return Err(wrong()),
        }
        let start = match asked {
            _ if head.status == 200 => 0,
            Asked::Rest { from, .. } => *from,
            Asked::Ranges(spans) => {
                let (start, end) = spans[0].of(whole);
                if length != end - start {
                    return Err(wrong());
                }
                start
            }
            _ => return Err(wrong()),
        };
        let range = format!("bytes {start}-{}/{whole}", start + length - 1);
        if head.status == 206 && head.header("content-range") != Some(&*range) {
            return Err(wrong());
        }
        let body = Body { file, version, start, end: start + length, status: head.status };
        self.body(connection, &body, manners)
    }

    /// Every byte that comes has to be right, also of what is cut. What the origin lied about only the SHA-256 of the whole
    /// tells: of that there may be no clean end.
    fn body(&self, connection: &mut Connection, body: &Body<'_>, manners: Manners) -> Result<Ended, String> {
        let Body { file, version, start, end, status } = *body;
        let (mut at, mut lie) = (start, None);
        while at < end {
            if let Manners::Leaves(after) = manners
                && at - start >= after
            {
                return Ok(Ended::Left);
            }
            let bytes = match connection.read(PIECE.min((end - at) as usize)) {
                Ok(bytes) => bytes,
                Err(End::Closed | End::Reset | End::Truncated(_)) => return Ok(Ended::Cut),
                Err(error) => return Err(format!("{error:?} at {at} of {start} to {end}")),
            };
            if let Err(what) = file.check(version, at, &bytes) {
                lie = Some(what);
                if !file.may_be_lied(version, at, &bytes) {
                    break;
                }
            }
            self.tally.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            let before = at;
            at += bytes.len() as u64;
            if manners == Manners::Stalls && before >> 20 != at >> 20 && !self.is_over() {
                thread::sleep(Duration::from_millis(150));
            }
        }
        match lie {
            Some(what) if at < end || status == 200 => Err(what),
            _ => Ok(Ended::Right),
        }
    }

    fn multipart(
        &self,
        connection: &mut Connection,
        head: &Response,
        file: &Entry,
        version: u16,
        spans: &[Span],
        length: u64,
    ) -> Result<Ended, String> {
        let boundary = head.header("content-type").and_then(|value| value.split_once("boundary="));
        let (_, boundary) = boundary.ok_or_else(|| format!("no boundary: {head:?}"))?;
        let body = match connection.read(length as usize) {
            Ok(body) => body,
            Err(End::Closed | End::Reset | End::Truncated(_)) => return Ok(Ended::Cut),
            Err(error) => return Err(format!("{error:?} within several ranges")),
        };
        let whole = file.length(version);
        let mut rest = &body[..];
        for span in spans {
            let (start, end) = span.of(whole);
            let frame = b"\r\n\r\n";
            let framed = rest.windows(4).position(|bytes| bytes == frame && !rest.starts_with(frame));
            let framed = framed.ok_or("a part without a head")?;
            let text = String::from_utf8_lossy(&rest[..framed]).into_owned();
            let range = format!("\r\nContent-Range: bytes {start}-{}/{whole}", end - 1);
            if !text.starts_with(&format!("\r\n--{boundary}\r\n")) || !text.ends_with(&range) {
                return Err(format!("{text:?} where {range:?} was to be"));
            }
            rest = &rest[framed + 4..];
            let part = rest.get(..(end - start) as usize).ok_or("a part that is cut")?;
            file.check(version, start, part)
                .or_else(|what| if file.may_be_lied(version, start, part) { Ok(()) } else { Err(what) })?;
            rest = &rest[part.len()..];
        }
        if rest != format!("\r\n--{boundary}--\r\n").as_bytes() {
            return Err(format!("{:?} at the end of several ranges", String::from_utf8_lossy(rest)));
        }
        self.tally.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(Ended::Right)
    }

    /// Asks for the whole of a file: whether that gave all of it, else not even a part (503).
    pub fn is_whole(&self, file: &Entry) -> Result<bool, String> {
        match self.request(&mut None, file, &Asked::Whole, Manners::Reads)? {
            Ended::Right => Ok(true),
            // A fill that goes on with parts learns late that the origin is dead.
            Ended::Unavailable | Ended::Cut => Ok(false),
            _ => Err("no answer".to_owned()),
        }
    }
}

impl Asked {
    fn name(&self) -> String {
        match self {
            Self::Whole => "GET".to_owned(),
            Self::Ranges(spans) => format!("GET of {}", range_field(spans)),
            Self::Head => "HEAD".to_owned(),
            Self::IfNoneMatch(etag) => format!("GET unless {etag}"),
            Self::Rest { from, version } => format!("GET from {from} on of version {version}"),
        }
    }

    fn fields(&self, file: &Entry) -> Vec<(&'static str, String)> {
        match self {
            Self::Whole | Self::Head => Vec::new(),
            Self::Ranges(spans) => vec![("Range", range_field(spans))],
            Self::IfNoneMatch(etag) => vec![("If-None-Match", etag.clone())],
            Self::Rest { from, version } => {
                vec![("Range", format!("bytes={from}-")), ("If-Range", file.etag(*version))]
            }
        }
    }
}

impl Span {
    /// The bytes of a file of this length that it stands for.
    fn of(self, whole: u64) -> (u64, u64) {
        match self {
            Self::Inner(start, end) => (start, end),
            Self::From(start) => (start, whole),
            Self::Last(bytes) => (whole - bytes, whole),
        }
    }
}

fn range_field(spans: &[Span]) -> String {
    let spans: Vec<String> = spans
        .iter()
        .map(|span| match span {
            Span::Inner(start, end) => format!("{start}-{}", end - 1),
            Span::From(start) => format!("{start}-"),
            Span::Last(bytes) => format!("-{bytes}"),
        })
        .collect();
    format!("bytes={}", spans.join(","))
}

fn ask(rng: &mut fastrand::Rng, file: &Entry) -> Asked {
    let published = file.published();
    let some_version = rng.u16(published.saturating_sub(1)..=published);
    match rng.u8(..100) {
        // Whole giants would leave nothing else to the two of them.
        0..40 if file.bytes < LARGE || rng.u8(..) < 64 => Asked::Whole,
        0..62 => Asked::Ranges(vec![span(rng, file.bytes, 3 << 20)]),
        62..72 => Asked::Ranges((0..rng.usize(2..9)).map(|_| inner(rng, file.bytes, 100_000)).collect()),
        72..80 => Asked::Head,
        80..90 => Asked::IfNoneMatch(file.etag(some_version)),
        _ => Asked::Rest { from: rng.u64(1..file.bytes), version: some_version },
    }
}

fn behave(rng: &mut fastrand::Rng, file: &Entry) -> Manners {
    match rng.u8(..100) {
        0..8 => Manners::Leaves(rng.u64(..file.bytes)),
        8..11 => Manners::Stalls,
        _ => Manners::Reads,
    }
}

fn span(rng: &mut fastrand::Rng, bytes: u64, most: u64) -> Span {
    match rng.u8(..4) {
        0 => Span::From(bytes - rng.u64(1..=bytes.min(most))),
        1 => Span::Last(rng.u64(1..=bytes.min(most))),
        _ => inner(rng, bytes, most),
    }
}

fn inner(rng: &mut fastrand::Rng, bytes: u64, most: u64) -> Span {
    let start = rng.u64(..bytes);
    Span::Inner(start, start + rng.u64(1..=(bytes - start).min(most)))
}
