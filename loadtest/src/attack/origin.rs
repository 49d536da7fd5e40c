//! The origin of attacks that want files which a node doesn't have: a repo that pushes, and any number of cold files, behind a
//! line of a given width. It counts what it sends.

use super::kinds::Line;
use anyhow::Context;
use freshet::clock::{self, Timestamp, monotonic};
use freshet::demo::repository::{PackageSpec, Repository};
use freshet::http::date;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Where the repo is below the root.
pub const REPO: &str = "repo/x86_64";
/// Written at once.
const PIECE: usize = 16 * 1024;
/// What a line may catch up with, where its timer was late.
const LATE: Duration = Duration::from_millis(20);
/// The kernel takes so much beforehand, so that what is counted was sent.
const SEND_BUFFER: usize = 16 * 1024;
const MOST_HEAD_BYTES: usize = 64 * 1024;
/// Cold files are older than any run.
const COLD_SINCE: Timestamp = Timestamp::from_secs(1_700_000_000);

/// Packages that honest clients ask for, each once, and their bytes.
const PACKAGE_BYTES: usize = 64 << 10;
/// New packages of a push: 8 MB, a quarter of a second of 240 Mbit/s.
const PUSHED: usize = 80;
const PUSHED_BYTES: usize = 100_000;
const SEED: u64 = 17;

/// A file of 100 MB in the tree, all zeros.
pub const LARGE: &str = "/large.iso";
const LARGE_BYTES: u64 = 100_000_000;

/// The path of the repo's repomd.xml.
pub fn repomd() -> String {
    format!("/{REPO}/repodata/repomd.xml")
}

/// The path of a file of so many MiB, which is there whatever its number.
pub fn cold(mib: u64, number: u64) -> String {
    format!("/cold/{mib}/{number}.iso")
}

/// What honest clients have it send: so many packages, and a push.
pub fn honest_bytes(packages: u64) -> u64 {
    packages * PACKAGE_BYTES as u64 + (PUSHED * PUSHED_BYTES) as u64
}

/// It ends when this is dropped.
pub struct Origin {
    shared: Arc<Shared>,
    addr: SocketAddr,
    dir: PathBuf,
    repo: Mutex<Repo>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// The repo's present state.
struct Repo {
    state: Repository,
    packages: Vec<PackageSpec>,
    number: usize,
}

impl Origin {
    /// Makes the repo below `dir`, with so many packages, and serves it.
    pub fn start(dir: &Path, packages: usize) -> anyhow::Result<Self> {
        let specs: Vec<_> = (0..packages).map(|number| spec("cold", number, PACKAGE_BYTES)).collect();
        let state = Repository::create(&dir.join("state-0"), &specs, SEED, clock::now())?;
        let repo = Repo { state, packages: specs, number: 0 };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).context("the origin")?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared { root: dir.join("root"), ..Shared::default() });
        runtime.spawn(shared.clone().accepts(listener));
        let origin =
            Self { shared, addr, dir: dir.to_owned(), repo: Mutex::new(repo), runtime: Some(runtime) };
        origin.sync(&origin.repo())?;
        std::fs::File::create_new(origin.tree().join(&LARGE[1..]))?.set_len(LARGE_BYTES)?;
        Ok(origin)
    }

    pub fn address(&self) -> SocketAddr {
        self.addr
    }

    /// The root of what it serves, but for the cold files.
    pub fn tree(&self) -> &Path {
        &self.shared.root
    }

    /// Has this line from now on.
    pub fn behind(&self, line: Line) {
        self.shared.rate.store(line.rate, Ordering::Relaxed);
        let micros = u64::try_from(line.latency.as_micros()).unwrap_or(u64::MAX);
        self.shared.latency_us.store(micros, Ordering::Relaxed);
    }

    /// Bytes of bodies that it has sent.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Paths of the packages that honest clients ask for.
    pub fn packages(&self) -> Vec<String> {
        let packages = &self.repo().packages;
        packages.iter().map(|spec| format!("/{REPO}/Packages/{}", spec.file_name())).collect()
    }

    /// Publishes new packages, in place of those of the push before.
    pub fn push(&self) -> anyhow::Result<()> {
        let mut repo = self.repo();
        repo.number += 1;
        let name = format!("push{}", repo.number);
        let pushed = (0..PUSHED).map(|number| spec(&name, number, PUSHED_BYTES));
        let specs: Vec<_> = repo.packages.iter().cloned().chain(pushed).collect();
        let dir = self.dir.join(format!("state-{}", repo.number));
        repo.state = repo.state.publish(&dir, &specs, clock::now())?;
        self.sync(&repo)
    }

    fn sync(&self, repo: &Repo) -> anyhow::Result<()> {
        let root = self.shared.root.join(REPO);
        repo.state.files().iter().try_for_each(|file| repo.state.sync_file(file, &root))
    }

    fn repo(&self) -> std::sync::MutexGuard<'_, Repo> {
        self.repo.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // A write to a client that takes nothing would be waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn spec(name: &str, number: usize, payload_bytes: usize) -> PackageSpec {
    PackageSpec {
        name: format!("{name}-{number:03}"),
        version: "1".into(),
        release: "1".into(),
        payload_bytes,
    }
}

/// What its connections have together.
#[derive(Default)]
struct Shared {
    root: PathBuf,
    rate: AtomicU64,
    latency_us: AtomicU64,
    sent: AtomicU64,
    /// When the line is free.
    free: Mutex<Option<Instant>>,
}

/// A file: its bytes, or how many zeros it has.
enum File {
    Bytes(Vec<u8>),
    Zeros(u64),
}

/// A request, as far as it is looked at.
struct Asked {
    is_head: bool,
    path: String,
    range: Option<String>,
    if_range: Option<String>,
    if_none_match: Option<String>,
}

impl Shared {
    async fn accepts(self: Arc<Self>, listener: TcpListener) {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = socket2::SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER);
            // How a connection ends says nothing.
            tokio::spawn(self.clone().serves(socket));
        }
    }

    async fn serves(self: Arc<Self>, mut socket: TcpStream) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let asked = loop {
                if let Some((length, asked)) = parse(&buffer)? {
                    buffer.drain(..length);
                    break asked;
                }
                if buffer.len() > MOST_HEAD_BYTES || socket.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            };
            tokio::time::sleep(Duration::from_micros(self.latency_us.load(Ordering::Relaxed))).await;
            let (head, file, [from, to]) = self.answer(&asked);
            socket.write_all(head.as_bytes()).await?;
            if !asked.is_head {
                self.send(&mut socket, &file, from, to).await?;
            }
        }
    }

    /// The head, and which bytes of what follow it.
    fn answer(&self, asked: &Asked) -> (String, File, [u64; 2]) {
        let Some((file, since)) = self.find(&asked.path) else {
            let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned();
            return (head, File::Zeros(0), [0, 0]);
        };
        let length = file.length();
        let tag = format!("\"{length:x}-{:x}\"", since.as_secs());
        if asked.if_none_match.as_deref() == Some(tag.as_str()) {
            return (format!("HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n\r\n"), file, [0, 0]);
        }
        let is_same = asked.if_range.as_ref().is_none_or(|wanted| *wanted == tag);
        let range = asked.range.as_deref().filter(|_| is_same).and_then(|range| one_range(range, length));
        let [from, to] = range.unwrap_or([0, length]);
        let status = match range {
            Some(_) => format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{length}", to - 1),
            None => "200 OK".to_owned(),
        };
        let modified = date::format(since);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: {tag}\r\nLast-Modified: {}\r\nAccept-Ranges: bytes\r\n\r\n",
            to - from,
            modified.to_str().unwrap_or_default()
        );
        (head, file, [from, to])
    }

    fn find(&self, path: &str) -> Option<(File, Timestamp)> {
        if let Some(rest) = path.strip_prefix("/cold/") {
            let mib: u64 = rest.split('/').next()?.parse().ok()?;
            return Some((File::Zeros(mib << 20), COLD_SINCE));
        }
        let file = self.root.join(path.strip_prefix('/')?);
        let modified = file.metadata().ok()?.modified().ok()?;
        let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some((File::Bytes(std::fs::read(file).ok()?), Timestamp::from_secs(since.as_secs())))
    }

    async fn send(&self, socket: &mut TcpStream, file: &File, mut from: u64, to: u64) -> io::Result<()> {
        static ZEROS: [u8; PIECE] = [0; PIECE];
        while from < to {
            let length = usize::try_from(to - from).unwrap_or(usize::MAX).min(PIECE);
            let at = usize::try_from(from).unwrap_or(usize::MAX);
            let piece = match file {
                File::Bytes(bytes) => &bytes[at..at + length],
                File::Zeros(_) => &ZEROS[..length],
            };
            if let Some(due) = self.turn(length) {
                tokio::time::sleep_until(due.into()).await;
            }
            socket.write_all(piece).await?;
            self.sent.fetch_add(length as u64, Ordering::Relaxed);
            from += length as u64;
        }
        Ok(())
    }

    /// When the line has so many bytes' time for this connection: first come, first served, piece by piece.
    fn turn(&self, bytes: usize) -> Option<Instant> {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return None;
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = monotonic().checked_sub(LATE)?;
        let due = free.map_or(earliest, |free| free.max(earliest));
        *free = Some(due + Duration::from_secs_f64(bytes as f64 / rate as f64));
        Some(due)
    }
}

impl File {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(length) => *length,
        }
    }
}

/// The bytes of a range, if there is one: of several, or one that can't be had, the whole file is sent.
fn one_range(value: &str, length: u64) -> Option<[u64; 2]> {
    let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let to = if to.is_empty() { length } else { to.parse::<u64>().ok()?.checked_add(1)?.min(length) };
    (from < to).then_some([from, to])
}

/// A request and its length, once its head is whole.
fn parse(bytes: &[u8]) -> io::Result<Option<(usize, Asked)>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    let status = request.parse(bytes).map_err(io::Error::other)?;
    let httparse::Status::Complete(length) = status else { return Ok(None) };
    let field = |name: &str| {
        let field = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(field.value).into_owned())
    };
    let asked = Asked {
        is_head: request.method == Some("HEAD"),
        path: request.path.unwrap_or_default().to_owned(),
        range: field("range"),
        if_range: field("if-range"),
        if_none_match: field("if-none-match"),
    };
    Ok(Some((length, asked)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn get(origin: &Origin, path: &str, range: &str) -> String {
        let mut socket = std::net::TcpStream::connect(origin.address()).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: o\r\n{range}\r\n").unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn it_has_cold_files_ranges_of_them_and_pushes() {
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin::start(dir.path(), 2).unwrap();
        let part = get(&origin, &cold(1024, 7), "Range: bytes=5-9\r\n");
        assert!(part.starts_with("HTTP/1.1 206 "), "{part}");
        assert!(part.contains("bytes 5-9/1073741824") && part.ends_with("\r\n\r\n\0\0\0\0\0"), "{part}");
        assert_eq!(origin.sent(), 5);
        let before = get(&origin, &repomd(), "");
        origin.push().unwrap();
        assert!(before.starts_with("HTTP/1.1 200 ") && get(&origin, &repomd(), "") != before);
        assert!(get(&origin, &origin.packages()[1], "").starts_with("HTTP/1.1 200 "));
        assert!(get(&origin, "/none", "").starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn the_line_has_its_width() {
        let shared = Shared { rate: AtomicU64::new(1_000_000), ..Shared::default() };
        let first = shared.turn(100_000).unwrap();
        assert_eq!(shared.turn(1).unwrap() - first, Duration::from_millis(100));
        assert_eq!(one_range("bytes=1-", 10), Some([1, 10]));
        assert_eq!(one_range("bytes=1-100", 10), Some([1, 10]));
        assert_eq!(one_range("bytes=10-", 10), None);
        assert_eq!(one_range("bytes=0-0,2-2", 10), None);
    }
}
