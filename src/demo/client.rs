//! The built-in clients: they download everything, again and again, and trust nothing.
//!
//! Each host fetches repomd.xml, then the metadata that it names, then all packages that primary.xml names, and checks
//! size and SHA-256 of everything against what it has fetched before. Redirects are followed by hand, so that the
//! [`Ledger`] knows who served what. Any other status, any error, any byte that differs is wrong: nothing is tried twice.
//!
//! Every host has an address of its own in 127.0.0.0/8, in a network of its own, since mirrors are chosen by network; and
//! each round is by another User-Agent, since a client that comes back for the same file within two minutes would count as
//! one that a mirror has failed.

use super::lines::Lines;
use super::scene::{MIRRORS, REPO_PATH, Servers};
use crate::clock::{self, Timestamp};
use crate::http::TreePath;
use crate::repo::generation::REPOMD;
use crate::repo::{ListedFile, Sha256, compression, primary, repomd};
use bytes::Bytes;
use http::header::{LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Hosts that download at the same time.
const HOSTS: u8 = 6;
/// Redirects that are followed for one file.
const HOPS: usize = 5;
/// For one file.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two files of a host, so that the demo leaves a core to whoever watches it.
const PAUSE: Duration = Duration::from_millis(15);
/// Bytes of a document whose size nothing tells beforehand.
const MOST_UNTOLD: u64 = 1 << 20;
/// Bytes of an uncompressed primary.xml.
const MOST_PRIMARY: u64 = 16 << 20;
/// Faults that are printed; the others are only counted.
const PRINTED: u64 = 10;

/// One file that a host got.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// SHA-256 of the repomd.xml that told the host of it.
    pub generation: Sha256,
    /// When the node was asked.
    pub asked: Timestamp,
    /// When the node had answered, with the file or a redirect.
    pub answered: Timestamp,
    /// The number of the mirror that served it; `None`: the node.
    pub mirror: Option<usize>,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Sums over all downloads.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Files, all right.
    pub files: u64,
    /// Their bytes that the node served.
    pub node_bytes: u64,
    /// Their bytes that mirrors served.
    pub mirror_bytes: u64,
    /// Downloads that were wrong.
    pub wrong: u64,
}

/// What the clients got.
pub struct Ledger {
    lines: Lines,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// Since it was last taken.
    fetched: Vec<Fetched>,
    totals: Totals,
}

impl Ledger {
    /// An empty one. What is wrong is printed when it happens.
    #[must_use]
    pub fn new(lines: Lines) -> Self {
        Self { lines, book: Mutex::default() }
    }

    /// All that was fetched since it was last taken.
    #[must_use]
    pub fn take(&self) -> Vec<Fetched> {
        std::mem::take(&mut self.book().fetched)
    }

    /// The sums.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.book().totals.clone()
    }

    fn right(&self, fetched: Fetched) {
        let mut book = self.book();
        let totals = &mut book.totals;
        totals.files += 1;
        match fetched.mirror {
            Some(_) => totals.mirror_bytes += fetched.bytes,
            None => totals.node_bytes += fetched.bytes,
        }
        book.fetched.push(fetched);
    }

    fn wrong(&self, fault: &str) {
        let mut book = self.book();
        book.totals.wrong += 1;
        let nth = book.totals.wrong;
        drop(book);
        if nth <= PRINTED {
            self.lines.say("WRONG", fault);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hosts at work. They end when this is dropped.
pub struct Downloads {
    servers: Arc<Servers>,
    ledger: Arc<Ledger>,
    stop: watch::Sender<bool>,
    hosts: JoinSet<()>,
    /// For each host, when the last round began that it has completed.
    rounds: Vec<watch::Receiver<Timestamp>>,
}

impl Downloads {
    /// Of nobody yet.
    #[must_use]
    pub fn new(servers: Arc<Servers>, ledger: Arc<Ledger>) -> Self {
        Self { servers, ledger, stop: watch::Sender::new(false), hosts: JoinSet::new(), rounds: Vec::new() }
    }

    /// All hosts start; how many.
    pub fn start(&mut self) -> usize {
        for number in 1..=HOSTS {
            let (done, round) = watch::channel(Timestamp::EPOCH);
            let host = Host::new(self.servers.clone(), number);
            self.rounds.push(round);
            self.hosts.spawn(host.run(self.ledger.clone(), done, self.stop.subscribe()));
        }
        self.rounds.len()
    }

    /// Waits until every host has completed a round that began at `since` or later.
    ///
    /// # Errors
    /// A host has died.
    pub async fn rounds_since(&self, since: Timestamp) -> anyhow::Result<()> {
        for round in &self.rounds {
            round.clone().wait_for(|began| *began >= since).await?;
        }
        Ok(())
    }

    /// Has all hosts end after the file that they are at.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.hosts.join_next().await {
            if ended.is_err() {
                self.ledger.wrong("a client died");
            }
        }
    }
}

/// A host with an address of its own.
pub struct Host {
    servers: Arc<Servers>,
    client: Client<HttpConnector, Empty<Bytes>>,
    user_agent: String,
    number: u8,
}

/// What came of a request.
struct Answer {
    body: Bytes,
    answered: Timestamp,
    mirror: Option<usize>,
}

impl Host {
    /// Host `number`.
    #[must_use]
    pub fn new(servers: Arc<Servers>, number: u8) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(Some(IpAddr::V4(Ipv4Addr::new(127, 0, number, 1))));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { servers, client, user_agent: format!("freshet-demo/{number}"), number }
    }

    /// The node's answer to a path with query, as text.
    ///
    /// # Errors
    /// It isn't 200, or isn't text.
    pub async fn text(&self, target: &str) -> anyhow::Result<String> {
        let url = format!("{}{target}", self.servers.node);
        let answer = self.get(&url, MOST_UNTOLD).await.map_err(|why| anyhow::anyhow!("{url}: {why}"))?;
        Ok(String::from_utf8(answer.body.to_vec())?)
    }

    async fn run(mut self, ledger: Arc<Ledger>, done: watch::Sender<Timestamp>, stop: watch::Receiver<bool>) {
        let mut rng = fastrand::Rng::with_seed(u64::from(self.number));
        for round in 1u64.. {
            let began = clock::now();
            self.user_agent = format!("freshet-demo/{}.{round}", self.number);
            match self.round(&ledger, &mut rng, &stop).await {
                Err(fault) => ledger.wrong(&fault),
                Ok(()) if *stop.borrow() => return,
                Ok(()) => {
                    // The story may have ended.
                    let _ = done.send(began);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Downloads all of the repo. Without metadata it can't go on: that ends it.
    async fn round(
        &self,
        ledger: &Ledger,
        rng: &mut fastrand::Rng,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), String> {
        let asked = clock::now();
        let root =
            self.get(&self.url(REPOMD)?, MOST_UNTOLD).await.map_err(|why| format!("{REPOMD}: {why}"))?;
        if root.mirror.is_some() {
            return Err(format!("{REPOMD}: redirected to a mirror"));
        }
        let generation = Sha256::of(&root.body);
        let mut files = Vec::new();
        let metadata = repomd::parse(&root.body).map_err(|error| error.to_string())?;
        ledger.right(fetched(generation, asked, &root));
        for record in metadata.records {
            let (Some(size), Some(_)) = (record.size, record.sha256) else {
                return Err(format!("{}: repomd.xml gives no size or SHA-256", record.path));
            };
            let file = ListedFile { path: record.path, size, sha256: record.sha256 };
            let body = self.file(ledger, generation, &file).await?;
            if record.kind == "primary" {
                let xml =
                    compression::decompress(&body[..], MOST_PRIMARY).map_err(|error| error.to_string())?;
                let parsed =
                    primary::parse(xml, |file| files.push(file)).map_err(|error| error.to_string())?;
                if parsed.left_out > 0 || files.is_empty() {
                    return Err(format!(
                        "{}: {} packages, {} unusable",
                        file.path,
                        files.len(),
                        parsed.left_out
                    ));
                }
            }
        }
        if files.is_empty() {
            return Err("repomd.xml names no primary".to_owned());
        }
        rng.shuffle(&mut files);
        for file in &files {
            if *stop.borrow() {
                return Ok(());
            }
            if let Err(fault) = self.file(ledger, generation, file).await {
                ledger.wrong(&fault);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Downloads and checks one file.
    async fn file(&self, ledger: &Ledger, generation: Sha256, file: &ListedFile) -> Result<Bytes, String> {
        let asked = clock::now();
        let path = &file.path;
        let answer = self.get(&self.url(path)?, file.size).await.map_err(|why| format!("{path}: {why}"))?;
        let by = answer.mirror.map_or("the node".to_owned(), |mirror| format!("mirror {}", MIRRORS[mirror]));
        let size = answer.body.len() as u64;
        if size != file.size {
            return Err(format!("{path}: {by} sent {size} bytes of {}", file.size));
        }
        if file.sha256 != Some(Sha256::of(&answer.body)) {
            return Err(format!("{path}: {by} sent bytes of another SHA-256"));
        }
        ledger.right(fetched(generation, asked, &answer));
        Ok(answer.body)
    }

    /// GET, through redirects, at most `most` bytes.
    async fn get(&self, url: &str, most: u64) -> Result<Answer, String> {
        match tokio::time::timeout(TIMEOUT, self.follow(url, most)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no whole answer within {} s", TIMEOUT.as_secs())),
        }
    }

    async fn follow(&self, url: &str, most: u64) -> Result<Answer, String> {
        let mut url = url.to_owned();
        let mut answered = None;
        for _ in 0..=HOPS {
            let by = self.server(&url)?;
            let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
            let request = Request::get(uri).header(USER_AGENT, &self.user_agent).body(Empty::new());
            let response = self.client.request(request.map_err(|error| error.to_string())?).await;
            let response = response.map_err(|error| format!("{url}: {}", chain(&error)))?;
            let answered = *answered.get_or_insert_with(clock::now);
            match response.status() {
                StatusCode::OK => {
                    let most = usize::try_from(most).unwrap_or(usize::MAX);
                    let body = Limited::new(response.into_body(), most).collect().await;
                    let body = body.map_err(|error| format!("{url}: {}", chain(error.as_ref())))?.to_bytes();
                    return Ok(Answer { body, answered, mirror: by });
                }
                StatusCode::FOUND => {
                    let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
                    url = location.ok_or_else(|| format!("{url}: a redirect to nowhere"))?.to_owned();
                }
                status => return Err(format!("{url}: {status}")),
            }
        }
        Err(format!("{url}: more than {HOPS} redirects"))
    }

    /// The mirror that `url` is on; `None`: the node.
    fn server(&self, url: &str) -> Result<Option<usize>, String> {
        if url.starts_with(&self.servers.node) {
            return Ok(None);
        }
        let mirror = self.servers.mirrors.iter().position(|base| url.starts_with(base));
        mirror.map(Some).ok_or_else(|| format!("{url} is neither the node nor a mirror"))
    }

    fn url(&self, path: &str) -> Result<String, String> {
        let path =
            TreePath::new(&format!("{REPO_PATH}/{path}")).map_err(|error| format!("{path}: {error}"))?;
        Ok(format!("{}{}", self.servers.node, path.encoded()))
    }
}

fn fetched(generation: Sha256, asked: Timestamp, answer: &Answer) -> Fetched {
    let (answered, mirror, bytes) = (answer.answered, answer.mirror, answer.body.len() as u64);
    Fetched { generation, asked, answered, mirror, bytes }
}

/// An error with all its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
