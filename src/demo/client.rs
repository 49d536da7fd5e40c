//! The built-in clients: they download everything, again and again, and trust nothing.
//!
//! Each host fetches repomd.xml, then the metadata that it names, then all packages that primary.xml names, and checks
//! size and SHA-256 of everything against what it has fetched before. Redirects are followed by hand, so that the
//! [`Ledger`] knows who served what. Any other status, any error, any byte that differs is wrong: nothing is tried twice.
//!
//! Every host has an address of its own in 127.0.0.0/8, in a network of its own, since mirrors are chosen by network; and
//! each round is by another User-Agent, since a client that comes back for the same file within two minutes would count as
//! one that a mirror has failed.

use super::ledger::{Fetched, Ledger};
use super::scene::{MIRRORS, REPO_PATH, Servers};
use crate::clock::{self, Timestamp};
use crate::config::Root;
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
use std::sync::Arc;
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
        Self { servers, client, user_agent: format!("libdnf (freshet-demo/{number})"), number }
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
            self.user_agent = format!("libdnf (freshet-demo/{}.{round})", self.number);
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
        let metadata = repomd::parse(&root.body, &Root::default()).map_err(|error| error.to_string())?;
        ledger.right(fetched(generation, asked, &root));
        for record in metadata.records {
            let (Some(size), Some(_)) = (record.size, record.digest) else {
                return Err(format!("{}: repomd.xml gives no size or digest", record.path));
            };
            let file = ListedFile { path: record.path, size, digest: record.digest };
            let body = self.file(ledger, generation, &file).await?;
            if record.kind == "primary" {
                let xml =
                    compression::decompress(&body[..], MOST_PRIMARY).map_err(|error| error.to_string())?;
                let parsed = primary::parse(xml, &Root::default(), |file| files.push(file))
                    .map_err(|error| error.to_string())?;
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
        if !file.digest.is_some_and(|digest| digest.is_of(&answer.body)) {
            return Err(format!("{path}: {by} sent bytes of another digest"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::ledger::Totals;
    use crate::demo::lines::Lines;
    use crate::demo::repository::{PackageSpec, Repository};
    use crate::demo::site::Site;
    use std::fs;

    /// One round of downloads from a site in the node's place: what was right, what was wrong, whether it came to its end.
    async fn round(spoil: impl FnOnce(&Repository)) -> (Totals, Result<(), String>) {
        let scratch = tempfile::tempdir().unwrap();
        let spec = |name: &str| PackageSpec {
            name: name.into(),
            version: "1".into(),
            release: "1".into(),
            payload_bytes: 1000,
        };
        let dir = scratch.path().join(REPO_PATH);
        let repository = Repository::create(&dir, &[spec("a"), spec("b")], 1, clock::now()).unwrap();
        spoil(&repository);
        let site = Site::start(scratch.path(), (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let host = Host::new(Arc::new(Servers { node: site.url(), mirrors: Vec::new() }), 1);
        let ledger = Ledger::new(Lines::start());
        let mut rng = fastrand::Rng::with_seed(1);
        let end = host.round(&ledger, &mut rng, &watch::channel(false).1).await;
        (ledger.totals(), end)
    }

    #[tokio::test]
    async fn every_kind_of_wrong_is_seen() {
        let package = |repository: &Repository| repository.dir().join("Packages/a-1-1.noarch.rpm");
        let (totals, end) = round(|_| {}).await;
        assert_eq!((totals.files, totals.wrong, end), (6, 0, Ok(())));

        let (totals, end) = round(|repository| {
            let mut bytes = fs::read(package(repository)).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(package(repository), bytes).unwrap();
        })
        .await;
        assert_eq!((totals.files, totals.wrong, end), (5, 1, Ok(())), "a flipped bit");

        for spoil in [
            |path: &std::path::Path| fs::write(path, b"short").unwrap(),
            |path: &std::path::Path| fs::remove_file(path).unwrap(),
        ] {
            let (totals, _) = round(|repository| spoil(&package(repository))).await;
            assert_eq!((totals.files, totals.wrong), (5, 1));
        }

        let (totals, end) = round(|repository| {
            let repomd = repository.dir().join(REPOMD);
            fs::write(&repomd, fs::read_to_string(&repomd).unwrap().replace("<size>", "<size>1")).unwrap();
        })
        .await;
        assert_eq!(totals.files, 1);
        assert!(end.unwrap_err().contains("bytes of 1"), "metadata that are not as repomd.xml says");
    }

    #[test]
    fn a_stranger_serves_nobody() {
        let servers =
            Servers { node: "http://127.0.0.1:1/".into(), mirrors: vec!["http://127.0.0.1:2/".into()] };
        let host = Host::new(Arc::new(servers), 1);
        assert_eq!(host.server("http://127.0.0.1:1/x"), Ok(None));
        assert_eq!(host.server("http://127.0.0.1:2/x"), Ok(Some(0)));
        assert!(host.server("http://127.0.0.1:22/x").is_err());
    }
}
