//! A client as dnf is one: a mirrorlist, repomd.xml, the other metadata, then packages, three transfers at a time over kept-alive
//! connections, no faster than its link; redirects are followed, a failed transfer is tried again at the URL that it was asked
//! at, and the fourth failure ends the transaction (librepo's budget for one URL entry).

use super::tree::Body;
use freshet::clock::monotonic;
use freshet::config::Root;
use freshet::repo::{Hasher, repomd};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, LOCATION, RANGE, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;

/// librepo's transfers at a time.
pub const SLOTS: usize = 3;
/// Failures that librepo forgives for one URL entry.
const FORGIVEN: u32 = 3;
/// Redirects that are followed for one file.
const HOPS: usize = 5;
/// For a connection, and between two pieces of a body.
const PATIENCE: Duration = Duration::from_secs(30);
/// A slow client's kernel takes no more than this ahead.
const RECEIVE_BUFFER: u32 = 64 << 10;

/// Who delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Node,
    Redirect,
    /// A mirror that the list named.
    Mirror,
}

/// One delivery.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// When it was asked for.
    pub asked: Instant,
    pub by: By,
    pub bytes: u64,
}

/// What clients have seen, of all of them.
#[derive(Debug, Default)]
pub struct Books {
    pub deliveries: Vec<Delivery>,
    pub failures: u64,
    pub first_failure: Option<String>,
    pub wrong: u64,
    pub checked: u64,
    pub resumed: u64,
    pub longest_first_byte: Duration,
}

/// A client's settings.
#[derive(Clone)]
pub struct Client {
    pub source: Ipv4Addr,
    pub agent: String,
    pub node: SocketAddr,
    /// Of the mirrorlist, below the node's URL.
    pub list: String,
    /// Bytes per second of one of its three transfers.
    pub slot_rate: f64,
    pub books: Arc<Mutex<Books>>,
}

/// A file that it wants.
#[derive(Clone)]
pub struct Wanted {
    /// Below the repo, without a leading slash.
    pub below: String,
    pub body: Option<Body>,
    /// Broken off half way, and taken up again.
    pub resumes: bool,
}

/// Why a transfer, or a whole transaction, failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{0}: {1}")]
    Status(String, StatusCode),
    #[error("{0}: {1}")]
    Http(String, hyper::Error),
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    #[error("{0}: nothing for 30 s")]
    Silence(String),
    #[error("{0}: {1}")]
    Nonsense(String, &'static str),
}

/// Where the list leads.
pub struct Base {
    /// Ends in '/'.
    pub url: String,
    pub is_node: bool,
    /// The generation that its repomd.xml names.
    pub revision: u32,
    /// Below it.
    pub metadata: Vec<String>,
}

/// One transfer's connections.
struct Slot<'a> {
    client: &'a Client,
    kept: HashMap<SocketAddr, SendRequest<Empty<Bytes>>>,
}

impl Client {
    /// Asks for a list, and what its first entry offers.
    pub async fn asks(&self) -> Result<Base, Fault> {
        let mut slot = Slot { client: self, kept: HashMap::new() };
        let list = slot.small(&format!("http://{}{}", self.node, self.list)).await?;
        let list = String::from_utf8_lossy(&list).into_owned();
        let url = list.lines().next().ok_or(Fault::Nonsense(list.clone(), "an empty list"))?.to_owned();
        let is_node = url.starts_with(&format!("http://{}/", self.node));
        let bytes = slot.small(&format!("{url}repodata/repomd.xml")).await?;
        let parsed = repomd::parse(&bytes, &Root::default())
            .map_err(|_| Fault::Nonsense(url.clone(), "no repomd.xml"))?;
        let revision = parsed.revision.and_then(|revision| revision.parse().ok()).unwrap_or(0);
        if is_node {
            self.delivered(By::Node, bytes.len() as u64, monotonic());
        }
        let metadata = parsed.records.into_iter().map(|record| record.path).collect();
        Ok(Base { url, is_node, revision, metadata })
    }

    /// Fetches all of it, three at a time.
    pub async fn fetch(&self, base: &Base, files: Vec<Wanted>) -> Result<(), Fault> {
        let queue = Mutex::new(VecDeque::from(files));
        let failures = Mutex::new(0);
        let slots = std::array::from_fn::<_, SLOTS, _>(|_| self.slot(base, &queue, &failures));
        let [a, b, c] = slots;
        let (a, b, c) = tokio::join!(a, b, c);
        a.and(b).and(c)
    }

    async fn slot(
        &self,
        base: &Base,
        queue: &Mutex<VecDeque<Wanted>>,
        failures: &Mutex<u32>,
    ) -> Result<(), Fault> {
        let mut slot = Slot { client: self, kept: HashMap::new() };
        loop {
            let next = lock(queue).pop_front();
            let Some(wanted) = next else { return Ok(()) };
            while let Err(fault) = slot.whole(base, &wanted).await {
                self.failed(&fault);
                let failed = {
                    let mut failures = lock(failures);
                    *failures += 1;
                    *failures
                };
                if failed > FORGIVEN {
                    lock(queue).clear();
                    return Err(fault);
                }
            }
        }
    }

    fn failed(&self, fault: &Fault) {
        let mut books = lock(&self.books);
        books.failures += 1;
        books.first_failure.get_or_insert_with(|| fault.to_string());
    }

    fn delivered(&self, by: By, bytes: u64, asked: Instant) {
        lock(&self.books).deliveries.push(Delivery { asked, by, bytes });
    }
}

impl Slot<'_> {
    /// A file, as its client uses it.
    async fn whole(&mut self, base: &Base, wanted: &Wanted) -> Result<(), Fault> {
        let url = format!("{}{}", base.url, wanted.below);
        let asked = monotonic();
        let mut hasher = wanted.body.as_ref().map(|_| Hasher::default());
        let half = wanted.body.as_ref().filter(|_| wanted.resumes).map(|body| body.bytes.len() as u64 / 2);
        let (mut by, mut bytes) = self.transfer(base, &url, (0, half), &mut hasher).await?;
        if half.is_some() {
            lock(&self.client.books).resumed += 1;
            let rest;
            (by, rest) = self.transfer(base, &url, (bytes, None), &mut hasher).await?;
            bytes += rest;
        }
        if let (Some(body), Some(hasher)) = (&wanted.body, hasher) {
            let mut books = lock(&self.client.books);
            books.checked += 1;
            books.wrong += u64::from(hasher.finish() != body.sha256);
        }
        self.client.delivered(by, bytes, asked);
        Ok(())
    }

    /// Bytes from `from` on, at most up to `to`, then the connection is dropped.
    async fn transfer(
        &mut self,
        base: &Base,
        url: &str,
        (from, to): (u64, Option<u64>),
        hasher: &mut Option<Hasher>,
    ) -> Result<(By, u64), Fault> {
        let (mut at, mut by) = (url.to_owned(), if base.is_node { By::Node } else { By::Mirror });
        for _ in 0..=HOPS {
            let (addr, mut response, asked) = self.asked(&at, from).await?;
            if response.status() == StatusCode::FOUND {
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                let location =
                    location.ok_or(Fault::Nonsense(at.clone(), "302 without Location"))?.to_owned();
                while response.body_mut().frame().await.is_some() {}
                (at, by) = (location, By::Redirect);
                continue;
            }
            let expected = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
            if response.status() != expected {
                return Err(Fault::Status(at, response.status()));
            }
            let bytes = self.body(&at, response, (asked, to), hasher).await;
            if bytes.is_err() || to.is_some() {
                self.kept.remove(&addr);
            }
            return Ok((by, bytes?));
        }
        Err(Fault::Nonsense(at, "too many redirects"))
    }

    async fn body(
        &self,
        at: &str,
        mut response: hyper::Response<hyper::body::Incoming>,
        (asked, to): (Instant, Option<u64>),
        hasher: &mut Option<Hasher>,
    ) -> Result<u64, Fault> {
        let (mut bytes, begun) = (0, monotonic());
        loop {
            let frame = tokio::time::timeout(PATIENCE, response.body_mut().frame()).await;
            let Some(frame) = frame.map_err(|_| Fault::Silence(at.to_owned()))? else { return Ok(bytes) };
            let frame = frame.map_err(|error| Fault::Http(at.to_owned(), error))?;
            let Ok(mut data) = frame.into_data() else { continue };
            if bytes == 0 {
                let mut books = lock(&self.client.books);
                books.longest_first_byte = books.longest_first_byte.max(asked.elapsed());
            }
            if let Some(to) = to {
                data.truncate(usize::try_from(to - bytes).unwrap_or(usize::MAX));
            }
            bytes += data.len() as u64;
            if let Some(hasher) = hasher {
                hasher.update(&data);
            }
            // No faster than the link.
            let due = begun + Duration::from_secs_f64(bytes as f64 / self.client.slot_rate);
            tokio::time::sleep_until(due.into()).await;
            if Some(bytes) == to {
                return Ok(bytes);
            }
        }
    }

    async fn small(&mut self, url: &str) -> Result<Bytes, Fault> {
        let (_, response, _) = self.asked(url, 0).await?;
        if response.status() != StatusCode::OK {
            return Err(Fault::Status(url.to_owned(), response.status()));
        }
        let body =
            response.into_body().collect().await.map_err(|error| Fault::Http(url.to_owned(), error))?;
        Ok(body.to_bytes())
    }

    async fn asked(
        &mut self,
        url: &str,
        from: u64,
    ) -> Result<(SocketAddr, hyper::Response<hyper::body::Incoming>, Instant), Fault> {
        let uri: Uri = url.parse().map_err(|_| Fault::Nonsense(url.to_owned(), "no URL"))?;
        let authority = uri.authority().ok_or(Fault::Nonsense(url.to_owned(), "no host"))?;
        let addr: SocketAddr =
            authority.as_str().parse().map_err(|_| Fault::Nonsense(url.to_owned(), "no address"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request =
            Request::get(path).header(HOST, authority.as_str()).header(USER_AGENT, &*self.client.agent);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let request =
            request.body(Empty::new()).map_err(|_| Fault::Nonsense(url.to_owned(), "no request"))?;
        let kept = match self.kept.remove(&addr) {
            Some(mut sender) => sender.ready().await.ok().map(|()| sender),
            None => None,
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => tokio::time::timeout(PATIENCE, self.connect(addr, url))
                .await
                .map_err(|_| Fault::Silence(url.to_owned()))??,
        };
        let asked = monotonic();
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
        let response = response.map_err(|_| Fault::Silence(url.to_owned()))?;
        let response = response.map_err(|error| Fault::Http(url.to_owned(), error))?;
        self.kept.insert(addr, sender);
        Ok((addr, response, asked))
    }

    async fn connect(&self, addr: SocketAddr, url: &str) -> Result<SendRequest<Empty<Bytes>>, Fault> {
        let io = |error| Fault::Io(url.to_owned(), error);
        let socket = TcpSocket::new_v4().map_err(io)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER).map_err(io)?;
        socket.bind((self.client.source, 0).into()).map_err(io)?;
        let stream = socket.connect(addr).await.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| Fault::Http(url.to_owned(), error))?;
        tokio::spawn(async move {
            // Its requests tell how it ended.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
