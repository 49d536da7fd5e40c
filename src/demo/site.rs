//! A static file server over a directory: the demo's origin and its external mirrors.
//!
//! Its root can be switched in one step (a push, a mirror that has synced), it can vanish from the network and
//! return on the same address, and it can be slow. It counts what it is asked for. It answers with what the file
//! system says at that moment; nothing is cached.

use crate::clock::{self, Timestamp};
use crate::http::conditional::{self, Outcome, Validators};
use crate::http::{ByteRange, Requested, TreePath, content_type, date, range};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};

/// Connections served at once; more wait in the kernel's accept queue.
const MAX_CONNECTIONS: usize = 1024;
/// Bytes read and handed to a connection at once where nothing limits the rate.
const PIECE: u64 = 256 << 10;

/// A running server. Dropping it closes its listener and its connections.
pub struct Site {
    addr: SocketAddr,
    shared: Arc<Shared>,
    running: Option<JoinHandle<()>>,
}

/// What the connections of one site have in common.
struct Shared {
    root: ArcSwap<PathBuf>,
    /// Requests by path. Only files that were found get an entry, so the tree bounds the map.
    hits: Mutex<HashMap<String, u64>>,
    bytes: AtomicU64,
    /// Bytes per second of all connections together; 0 is no limit.
    limit: AtomicU64,
    /// When the limited line is free for the next piece.
    line_free: Mutex<Option<Instant>>,
}

impl Site {
    /// Serves the directory `root` on `addr` (port 0: any free one). Within a tokio runtime.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub fn start(root: &Path, addr: SocketAddr) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            root: ArcSwap::from_pointee(root.to_owned()),
            hits: Mutex::default(),
            bytes: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            line_free: Mutex::new(None),
        });
        let mut site = Self { addr, shared, running: None };
        site.resume()?;
        Ok(site)
    }

    /// The address, with the port that was bound.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL, with a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    /// Serves `root` from the next request on; bodies under way keep the file that they have open.
    pub fn switch(&self, root: &Path) {
        self.shared.root.store(Arc::new(root.to_owned()));
    }

    /// GET and HEAD requests so far for the file at `path` (relative to the root, not percent-encoded).
    #[must_use]
    pub fn hits(&self, path: &str) -> u64 {
        let hits = self.shared.hits.lock().unwrap_or_else(PoisonError::into_inner);
        hits.get(path).copied().unwrap_or(0)
    }

    /// GET and HEAD requests so far for any file.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.hits.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Bytes of bodies handed to connections so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Limits all connections together to so many bytes per second (at least 1), or no longer.
    pub fn limit(&self, bytes_per_second: Option<u64>) {
        self.shared.limit.store(bytes_per_second.map_or(0, |limit| limit.max(1)), Ordering::Relaxed);
        *self.shared.line_free.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Closes the listener and every connection: clients are refused from here on.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            // It has been cancelled or has panicked; either way its sockets are closed now.
            let _ = running.await;
        }
    }

    /// Listens again, on the same address, after [`stop`](Self::stop). Within a tokio runtime.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub fn resume(&mut self) -> io::Result<()> {
        if self.running.is_none() {
            let listener = std::net::TcpListener::bind(self.addr)?;
            listener.set_nonblocking(true)?;
            self.addr = listener.local_addr()?;
            self.running = Some(tokio::spawn(accept(TcpListener::from_std(listener)?, self.shared.clone())));
        }
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

/// Owns the listener and all connections: they end with this future.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let shared = shared.clone();
                    let service = service_fn(move |request| answer(shared.clone(), request));
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service);
                    // A connection's error is its client's affair.
                    connections.spawn(async move { drop(connection.await) });
                }
                // Out of file descriptors: wait for some to close.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
}

async fn answer<B>(shared: Arc<Shared>, request: Request<B>) -> Result<Response<FileBody>, Infallible> {
    let get = request.method() == Method::GET;
    let status = if get || request.method() == Method::HEAD {
        match Found::open(&shared, request.uri().path()).await {
            Ok(found) => return Ok(found.respond(shared, &request)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => {
                    StatusCode::NOT_FOUND
                }
                io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    } else {
        StatusCode::METHOD_NOT_ALLOWED
    };
    let mut response = Response::new(FileBody::empty(shared));
    *response.status_mut() = status;
    Ok(response)
}

/// A file below the root, open.
struct Found {
    path: TreePath,
    file: Arc<File>,
    length: u64,
    modified: Timestamp,
}

impl Found {
    async fn open(shared: &Shared, uri_path: &str) -> io::Result<Self> {
        let path = TreePath::from_uri(uri_path)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        let root = shared.root.load_full();
        let found = spawn_blocking(move || Self::open_below(&root, path)).await??;
        let mut hits = shared.hits.lock().unwrap_or_else(PoisonError::into_inner);
        *hits.entry(found.path.as_str().to_owned()).or_default() += 1;
        drop(hits);
        Ok(found)
    }

    /// Follows symlinks, but only to what is below the root too.
    fn open_below(root: &Path, path: TreePath) -> io::Result<Self> {
        let root = fs::canonicalize(root)?;
        let target = fs::canonicalize(root.join(path.as_str()))?;
        if !target.starts_with(&root) || !target.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = File::open(target)?;
        let facts = file.metadata()?;
        Ok(Self { path, file: Arc::new(file), length: facts.len(), modified: facts.modified()?.into() })
    }

    fn respond<B>(self, shared: Arc<Shared>, request: &Request<B>) -> Response<FileBody> {
        let etag = format!("\"{:x}-{:x}\"", self.modified.as_millis(), self.length);
        let validators = Validators { etag: Some(&etag), last_modified: Some(self.modified) };
        let (status, part) = self.select(&validators, request);
        let sent = part.map_or(0, ByteRange::len);
        let body = match part {
            Some(part) if request.method() == Method::GET => {
                FileBody { shared, at: part.start, end: part.end, file: Some(self.file), reading: None }
            }
            _ => FileBody::empty(shared),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::LAST_MODIFIED, date::format(self.modified));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            headers.insert(header::ETAG, etag);
        }
        match (status, part) {
            (StatusCode::RANGE_NOT_SATISFIABLE, _) => {
                headers.insert(header::CONTENT_RANGE, range::unsatisfied_range(self.length));
            }
            (StatusCode::PARTIAL_CONTENT, Some(part)) => {
                headers.insert(header::CONTENT_RANGE, range::content_range(part, self.length));
            }
            _ => {}
        }
        if status.is_success() {
            headers.insert(header::CONTENT_TYPE, content_type::of(&self.path));
            headers.insert(header::CONTENT_LENGTH, sent.into());
        }
        response
    }

    /// The status, and the part of the file that goes with it. More than one range gets the whole file.
    fn select<B>(
        &self,
        validators: &Validators<'_>,
        request: &Request<B>,
    ) -> (StatusCode, Option<ByteRange>) {
        let whole = (self.length > 0).then_some(ByteRange { start: 0, end: self.length });
        match conditional::evaluate(request.headers(), validators) {
            Outcome::NotModified => return (StatusCode::NOT_MODIFIED, None),
            Outcome::PreconditionFailed => return (StatusCode::PRECONDITION_FAILED, None),
            Outcome::Proceed => {}
        }
        // RFC 9110 14.2: Range means something for GET alone.
        let asked = request.headers().get(header::RANGE).filter(|_| {
            request.method() == Method::GET && conditional::if_range_holds(request.headers(), validators)
        });
        match range::requested(asked, self.length) {
            Requested::Ranges(ranges) if ranges.len() == 1 => (StatusCode::PARTIAL_CONTENT, Some(ranges[0])),
            Requested::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, None),
            Requested::Whole | Requested::Ranges(_) => (StatusCode::OK, whole),
        }
    }
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

/// Bytes `at` to `end` of a file, piece by piece, no faster than the site's limit. `file` is `None` when empty.
struct FileBody {
    shared: Arc<Shared>,
    file: Option<Arc<File>>,
    at: u64,
    end: u64,
    reading: Option<Reading>,
}

impl FileBody {
    fn empty(shared: Arc<Shared>) -> Self {
        Self { shared, file: None, at: 0, end: 0, reading: None }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(file) = self.file.clone().filter(|_| self.at < self.end) else { return Poll::Ready(None) };
        let (shared, at, end) = (self.shared.clone(), self.at, self.end);
        let reading = self.reading.get_or_insert_with(|| Box::pin(shared.read(file, at, end)));
        let Poll::Ready(piece) = reading.as_mut().poll(cx) else { return Poll::Pending };
        self.reading = None;
        if let Ok(piece) = &piece {
            self.at += piece.len() as u64;
            self.shared.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(Some(piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}

impl Shared {
    /// Waits for its turn on the limited line, then reads the next piece. A file that got shorter is an error, and
    /// so the connection's end.
    async fn read(self: Arc<Self>, file: Arc<File>, at: u64, end: u64) -> io::Result<Bytes> {
        let limit = self.limit.load(Ordering::Relaxed);
        // A twentieth of a second at a time keeps a slow line even.
        let piece = if limit == 0 { PIECE } else { (limit / 20).clamp(1, PIECE) };
        let length = piece.min(end - at);
        if limit > 0 {
            let turn = self.turn(Duration::from_secs_f64(length as f64 / limit as f64));
            tokio::time::sleep_until(turn.into()).await;
        }
        spawn_blocking(move || {
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, at)?;
            Ok(Bytes::from(bytes))
        })
        .await?
    }

    /// Reserves the line for `time`; returns when that time is over.
    fn turn(&self, time: Duration) -> Instant {
        let now = clock::monotonic();
        let mut line_free = self.line_free.lock().unwrap_or_else(PoisonError::into_inner);
        let start = line_free.map_or(now, |free| free.max(now));
        *line_free.insert(start + time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    /// One request on a connection of its own: the head and the body of the answer.
    async fn ask(site: &Site, method: &str, path: &str, headers: &str) -> (String, Vec<u8>) {
        let mut stream = tokio::net::TcpStream::connect(site.addr()).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: site\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let body = answer.split_off(head);
        (String::from_utf8(answer).unwrap(), body)
    }

    #[tokio::test]
    async fn answers_files_ranges_and_conditions_and_nothing_outside_the_root() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/file"), b"0123456789").unwrap();
        fs::write(scratch.path().join("secret"), b"secret").unwrap();
        symlink("sub", root.join("alias")).unwrap();
        symlink("../secret", root.join("leak")).unwrap();
        let site = Site::start(&root, ANY).unwrap();
        let whole = ask(&site, "GET", "/sub/file", "").await.0;
        let etag = whole.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
        let modified = whole.lines().find_map(|line| line.strip_prefix("last-modified: ")).unwrap();
        let not_for_another = format!("Range: bytes=2-3\r\nIf-Range: {}0\"\r\n", etag.trim_end_matches('"'));
        for (method, path, headers, status, body, length) in [
            ("GET", "/sub/file", "", 200, "0123456789", "content-length: 10\r\n"),
            ("GET", "/alias/file", "", 200, "0123456789", "content-length: 10\r\n"),
            ("HEAD", "/sub/file", "", 200, "", "content-length: 10\r\n"),
            ("GET", "/sub/file", "Range: bytes=2-3\r\n", 206, "23", "content-range: bytes 2-3/10\r\n"),
            ("GET", "/sub/file", "Range: bytes=20-\r\n", 416, "", "content-range: bytes */10\r\n"),
            ("GET", "/sub/file", &not_for_another, 200, "0123456789", "content-length: 10\r\n"),
            ("GET", "/sub/file", &format!("If-None-Match: {etag}\r\n"), 304, "", "etag"),
            ("GET", "/sub/file", &format!("If-Modified-Since: {modified}\r\n"), 304, "", "etag"),
            ("GET", "/sub", "", 404, "", ""),
            ("GET", "/none", "", 404, "", ""),
            ("GET", "/leak", "", 404, "", ""),
            ("GET", "/sub/../../secret", "", 404, "", ""),
            ("POST", "/sub/file", "", 405, "", ""),
        ] {
            let (head, got) = ask(&site, method, path, headers).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path} {headers}: {head}");
            assert_eq!(got, body.as_bytes(), "{method} {path} {headers}");
            assert!(head.contains(length), "{method} {path} {headers}: {head}");
        }
        assert_eq!((site.hits("sub/file"), site.hits("alias/file"), site.hits("leak")), (8, 1, 0));
        assert_eq!((site.requests(), site.bytes()), (9, 42));
    }

    #[tokio::test]
    async fn switches_its_root_stops_resumes_and_slows_down() {
        let scratch = tempfile::tempdir().unwrap();
        for root in ["1", "2"] {
            fs::create_dir(scratch.path().join(root)).unwrap();
            fs::write(scratch.path().join(root).join("file"), root.repeat(5000)).unwrap();
        }
        let mut site = Site::start(&scratch.path().join("1"), ANY).unwrap();
        assert_eq!(ask(&site, "GET", "/file", "").await.1[0], b'1');
        site.switch(&scratch.path().join("2"));
        assert_eq!(ask(&site, "GET", "/file", "").await.1[0], b'2');

        let mut idle = tokio::net::TcpStream::connect(site.addr()).await.unwrap();
        site.stop().await;
        assert!(tokio::net::TcpStream::connect(site.addr()).await.is_err());
        assert!(matches!(idle.read(&mut [0]).await, Ok(0) | Err(_)), "its connections are closed too");
        let url = site.url();
        site.resume().unwrap();
        assert_eq!(site.url(), url);

        site.limit(Some(20_000));
        let start = clock::monotonic();
        assert_eq!(ask(&site, "GET", "/file", "").await.1.len(), 5000);
        assert!(start.elapsed() >= Duration::from_millis(240), "{:?}", start.elapsed());
        site.limit(None);
        assert_eq!(ask(&site, "GET", "/file", "").await.1.len(), 5000);
    }
}
