//! Pushes against an origin in this process, over HTTP or in a directory. What is waited for is an event.

mod gate;

use super::*;
use crate::origin::{DirectoryOrigin, HttpOrigin, http};
use crate::repo::{Kind, Sha256};
use crate::store::{Object, Settings};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ETAG, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Two signatures, as far as anybody looks at them here.
const SIGNATURES: [&str; 2] =
    ["-----BEGIN PGP SIGNATURE-----\n\nfirst", "-----BEGIN PGP SIGNATURE-----\n\nsecond"];
/// What nothing in these tests takes.
const LONG: Duration = Duration::from_secs(20);

/// The files of one state of a repo, by path below it.
type Files = HashMap<String, Bytes>;

/// A repo of these packages (name, content), all metadata in place.
fn repo(packages: &[(&str, &str)]) -> Files {
    let mut files = Files::new();
    let mut primary = format!("<metadata packages=\"{}\">", packages.len());
    for (name, content) in packages {
        let (sha256, size) = (Sha256::of(content.as_bytes()), content.len());
        primary += &format!(
            "<package type=\"rpm\"><name>{name}</name><checksum type=\"sha256\" pkgid=\"YES\">{sha256}</checksum>\
             <size package=\"{size}\"/><location href=\"Packages/{name}.rpm\"/></package>"
        );
        files.insert(format!("Packages/{name}.rpm"), Bytes::from((*content).to_owned()));
    }
    primary += "</metadata>";
    let filelists = format!("<filelists packages=\"{}\">{primary}</filelists>", packages.len());
    let mut repomd = "<repomd>".to_owned();
    for (kind, plain) in [("primary", &primary), ("filelists", &filelists)] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(plain.as_bytes()).unwrap();
        let bytes = Bytes::from(gzip.finish().unwrap());
        let (sha256, size) = (Sha256::of(&bytes), bytes.len());
        let path = format!("repodata/{sha256}-{kind}.xml.gz");
        repomd += &format!(
            "<data type=\"{kind}\"><checksum type=\"sha256\">{sha256}</checksum><location href=\"{path}\"/>\
             <size>{size}</size></data>"
        );
        files.insert(path, bytes);
    }
    files.insert("repodata/repomd.xml".to_owned(), Bytes::from(repomd + "</repomd>"));
    files
}

/// A mistake in a push.
type Spoil = fn(&mut Files);

fn id(files: &Files) -> Sha256 {
    Sha256::of(&files["repodata/repomd.xml"])
}

/// The path of the metadata file of this kind.
fn metadata(files: &Files, kind: &str) -> String {
    files.keys().find(|path| path.contains(kind)).unwrap().clone()
}

/// What an origin has, by path below the root, and how it behaves.
#[derive(Default)]
struct Tree {
    files: Mutex<Files>,
    asked: Mutex<Vec<(Method, String)>>,
    /// A path whose answer to a GET waits, whether it was asked for, and what lets it go.
    gate: Mutex<Option<String>>,
    reached: Notify,
    open: Notify,
    /// Answered with this status, by path, or by method and path.
    statuses: Mutex<HashMap<String, u16>>,
    /// Each HEAD takes so long.
    latency: Mutex<Duration>,
    heads: AtomicUsize,
    most_heads: AtomicUsize,
}

impl Tree {
    fn put(&self, root: &str, files: &Files) {
        let below = files.iter().map(|(path, body)| (format!("{root}/{path}"), body.clone()));
        self.files.lock().unwrap().extend(below);
    }

    /// How often a path was asked for.
    fn count(&self, method: &Method, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|(asked, of)| asked == method && of == path).count()
    }

    fn asked_for(&self, path: &str) -> bool {
        self.count(&Method::GET, path) > 0
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let reads = request.method() == Method::GET;
        self.asked.lock().unwrap().push((request.method().clone(), path.clone()));
        if reads && self.gate.lock().unwrap().as_ref() == Some(&path) {
            self.reached.notify_one();
            self.open.notified().await;
        }
        if request.method() == Method::HEAD {
            let now = self.heads.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_heads.fetch_max(now, Ordering::Relaxed);
            let latency = *self.latency.lock().unwrap();
            tokio::time::sleep(latency).await;
            self.heads.fetch_sub(1, Ordering::Relaxed);
        }
        let status = {
            let (statuses, asked) = (self.statuses.lock().unwrap(), format!("{} {path}", request.method()));
            statuses.get(&path).or_else(|| statuses.get(&asked)).copied()
        };
        if let Some(status) = status {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let elsewhere = "http://elsewhere.invalid/".parse().unwrap();
            response.headers_mut().insert(hyper::header::LOCATION, elsewhere);
            return Ok(response);
        }
        let body = self.files.lock().unwrap().get(&path).cloned();
        let etag = body.as_ref().map(|body| format!("\"{}\"", Sha256::of(body)));
        let known = request.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let mut response = Response::new(Full::default());
        match (body, etag) {
            (Some(_), Some(etag)) if known == Some(etag.as_str()) => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
            }
            (Some(body), Some(etag)) => {
                response.headers_mut().insert(ETAG, etag.parse().unwrap());
                *response.body_mut() = Full::new(body);
            }
            _ => *response.status_mut() = StatusCode::NOT_FOUND,
        }
        Ok(response)
    }
}

/// Serves a [`Tree`] until it is dropped.
struct Server {
    url: String,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(tree: &Arc<Tree>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let tree = Arc::clone(tree);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let tree = Arc::clone(&tree);
                let service = service_fn(move |request| Arc::clone(&tree).answer(request));
                let http1 = hyper::server::conn::http1::Builder::new();
                connections.spawn(http1.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The pushes of one node, under way.
struct Node {
    handle: PushHandle,
    published: Arc<Published>,
    flipped: Arc<Notify>,
    events: broadcast::Receiver<Event>,
    shutdown: channel::Sender<bool>,
    running: JoinHandle<()>,
}

impl Node {
    /// With its state below `dir`.
    async fn start(dir: &Path, origin: &str, repos: &str) -> Self {
        Self::start_with(dir, Self::config(dir, origin, repos)).await
    }

    fn config(dir: &Path, origin: &str, repos: &str) -> Config {
        let text = format!(
            "[node]\nurls = [\"http://node/\"]\n[push]\npoll = \"10ms\"\n[origin]\n{origin}\n[cache]\ndisk = \"{}\"\n{repos}",
            dir.display()
        );
        Config::parse(&text, Path::new("/etc/freshet.toml")).unwrap().0
    }

    async fn start_with(dir: &Path, config: Config) -> Self {
        Self::start_trusting(dir, config, super::gate::TRUSTED).await
    }

    /// That looks again at what it saw longer ago than `trusted`, once that is in doubt.
    async fn start_trusting(dir: &Path, config: Config, trusted: Duration) -> Self {
        let origin = match &config.origin {
            Origin::Http { url, .. } => {
                let settings = http::Settings::new(url, "node");
                crate::origin::Origin::Http(Arc::new(HttpOrigin::new(settings).unwrap()))
            }
            Origin::Directory { path, .. } => {
                let tree = DirectoryOrigin::open(path, Some(&dir.join("retained"))).unwrap();
                crate::origin::Origin::Directory(Arc::new(tree))
            }
        };
        let brief = Duration::from_millis(1);
        let settings =
            Settings { absent_for: brief, failed_for: brief, ..Settings::new(dir.join("cache"), 64 << 20) };
        let store = Store::open(origin, &settings, &Handle::current()).unwrap();
        let (published, flipped) = (Arc::<Published>::default(), Arc::<Notify>::default());
        let mut pushes = Pushes::new(
            Arc::new(config),
            Arc::clone(&published),
            store,
            Arc::default(),
            Some(&dir.join("state")),
            Arc::clone(&flipped),
        );
        Arc::get_mut(&mut pushes.shared).unwrap().trusted = trusted;
        pushes.restore().await;
        let (handle, (shutdown, stop)) = (pushes.handle(), channel::channel(false));
        let events = handle.subscribe();
        Self { handle, published, flipped, events, shutdown, running: tokio::spawn(pushes.run(stop)) }
    }

    /// The first event for which `wanted` gives something.
    async fn event<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(LONG, found).await.expect("the event never came")
    }

    /// Waits until generation `sequence` of some repo is offered.
    async fn offered(&mut self, sequence: u32) {
        let is_it = |event: &Event| match event {
            Event::Offered { sequence: offered, .. } => (*offered == sequence).then_some(()),
            _ => None,
        };
        self.event(is_it).await;
    }

    /// Why a push failed or is held.
    async fn failure(&mut self) -> String {
        let error = |event: &Event| match event {
            Event::Failed { error, .. } => Some(error.clone()),
            Event::Held { held, .. } => Some(held.to_string()),
            _ => None,
        };
        self.event(error).await
    }

    fn view(&self, index: usize) -> Arc<RepoView> {
        Arc::clone(&self.published.repos.load().views()[index])
    }

    /// SHA-256 of the repomd.xml on offer.
    fn current(&self, index: usize) -> Option<Sha256> {
        self.view(index).history.current().map(|current| current.id)
    }

    async fn stop(self) {
        self.shutdown.send(true).unwrap();
        tokio::time::timeout(LONG, self.running).await.expect("it stops").unwrap();
    }
}

/// Waits until `done`.
async fn until(mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect("it never came to that");
}

/// A repo table: `updates` at `7/updates`, with these settings.
fn updates(settings: &str) -> String {
    format!("[[repo]]\nname = \"updates\"\npath = \"7/updates\"\n{settings}\n")
}

fn url(server: &Server) -> String {
    format!("url = \"{}\"", server.url)
}

#[tokio::test]
async fn a_push_flips_after_verification_and_warming() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    let old = repo(&[("a", "one"), ("b", "two")]);
    tree.put("7/updates", &old);
    let mut node = Node::start(dir.path(), &url(&server), &updates("window = \"1h\"")).await;
    node.offered(1).await;
    assert_eq!((node.current(0), node.handle.readiness()), (Some(id(&old)), Ok(())));
    tokio::time::timeout(LONG, node.flipped.notified()).await.expect("others are told of a flip");
    assert!(!tree.asked_for("7/updates/Packages/a.rpm"), "a first generation isn't warmed");

    let new = repo(&[("a", "one"), ("b", "three"), ("c", "four is long")]);
    let gated = "7/updates/Packages/c.rpm".to_owned();
    *tree.gate.lock().unwrap() = Some(gated);
    tree.put("7/updates", &new);
    let detected = |event: &Event| match event {
        Event::Detected { generation, files, bytes, .. } => Some((*generation, *files, *bytes)),
        _ => None,
    };
    assert_eq!(node.event(detected).await, (id(&new), 2, 17));
    tokio::time::timeout(LONG, tree.reached.notified()).await.expect("c is warmed");
    assert_eq!(node.current(0), Some(id(&old)), "not before it is warmed");
    assert!(matches!(node.handle.states()[0].step, Step::Warming { total: 2, .. }));
    tree.open.notify_one();

    let warmed = |event: &Event| match event {
        Event::Warmed { files, bytes, failed, .. } => Some((*files, *bytes, *failed)),
        _ => None,
    };
    assert_eq!(node.event(warmed).await, (2, 17, 0));
    node.offered(2).await;
    let until = |event: &Event| match event {
        Event::WindowOpened { until, .. } => Some(*until),
        _ => None,
    };
    let until = node.event(until).await;
    let view = node.view(0);
    let current = view.history.current().unwrap();
    assert_eq!((current.id, view.window.unwrap().closes), (id(&new), until));
    assert_eq!(until, current.published.plus(Duration::from_secs(3600)));
    assert!(current.published <= current.flipped);
    assert!(!tree.asked_for("7/updates/Packages/a.rpm"), "what isn't new isn't warmed");
    let state = &node.handle.states()[0];
    assert!(state.detected <= state.warmed && state.warmed <= state.offered && state.last_error.is_none());
    assert!(state.detected.is_some_and(|detected| detected == current.published));
    let offered = node.handle.shared.metrics.pushes.with_label_values(&["updates", "offered"]).get();
    assert_eq!((offered, node.handle.poll_now(None), node.handle.poll_now(Some("none"))), (2, 1, 0));
    node.stop().await;
}

#[tokio::test]
async fn a_push_that_does_not_verify_leaves_the_old_generation_until_it_does() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    let mut old = repo(&[("a", "0")]);
    tree.put("7/updates", &old);
    let mut node = Node::start(dir.path(), &url(&server), &updates("")).await;
    node.offered(1).await;
    // (what is wrong, what it says)
    let cases: [(Spoil, &str); 5] = [
        (
            |files| drop(files.remove(&metadata(files, "primary"))),
            "primary.xml.gz: the origin has no such file",
        ),
        (
            |files| {
                let body = files.get_mut(&metadata(files, "primary")).unwrap();
                let mut wrong = body.to_vec();
                wrong[20] ^= 1;
                *body = wrong.into();
            },
            "SHA-256 is",
        ),
        (|files| drop(files.insert("repodata/repomd.xml".into(), "<repomd><data".into())), "repomd: byte"),
        (|files| drop(files.insert("repodata/repomd.xml".into(), "<repomd></repomd>".into())), "no primary"),
        (
            |files| {
                let (plain, path) = (Bytes::from("no XML"), "repodata/p.xml");
                let record = format!(
                    "<repomd><data type=\"primary\"><checksum type=\"sha256\">{}</checksum><location href=\"{path}\"/>\
                 <size>6</size></data></repomd>",
                    Sha256::of(&plain)
                );
                files.insert("repodata/repomd.xml".into(), record.into());
                files.insert(path.into(), plain);
            },
            "primary: byte",
        ),
    ];
    for (at, (spoil, words)) in cases.into_iter().enumerate() {
        let good = repo(&[("a", &format!("content {at}"))]);
        let mut spoilt = good.clone();
        spoil(&mut spoilt);
        tree.put("7/updates", &spoilt);
        let failure = node.failure().await;
        assert!(failure.contains(words), "{words}: {failure}");
        assert_eq!(node.current(0), Some(id(&old)), "{words}");
        assert!(node.handle.states()[0].last_error.as_ref().unwrap().contains(words));
        assert_eq!(node.handle.readiness(), Ok(()));

        tree.put("7/updates", &good);
        node.offered(u32::try_from(at).unwrap() + 2).await;
        assert_eq!(node.current(0), Some(id(&good)), "{words}");
        old = good;
    }
    let count = |outcome| node.handle.shared.metrics.pushes.with_label_values(&["updates", outcome]).get();
    assert!(count("failed") >= 3, "what can't be read");
    assert_eq!(count("held"), 2, "what isn't there as it is listed, once for each push");
    node.stop().await;
}

/// The same repo with this as its primary.
fn with_primary(files: &Files, packed: Vec<u8>) -> Files {
    let mut files = files.clone();
    let (body, path) = (Bytes::from(packed), "repodata/p");
    let (sha256, size) = (Sha256::of(&body), body.len());
    let record = format!(
        "<repomd><data type=\"primary\"><checksum type=\"sha256\">{sha256}</checksum><location href=\"{path}\"/>\
         <size>{size}</size></data></repomd>"
    );
    files.insert("repodata/repomd.xml".into(), record.into());
    files.insert(path.into(), body);
    files
}

#[tokio::test]
async fn what_was_refused_is_read_again_only_when_it_changes_or_the_operator_asks() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    let old = repo(&[("a", "0")]);
    tree.put("7/updates", &old);
    let mut node = Node::start(dir.path(), &url(&server), &updates("")).await;
    node.offered(1).await;
    let deep = format!("<metadata>{}", "<d>".repeat(1000));
    let bomb = with_primary(&old, zstd::encode_all(deep.as_bytes(), 1).unwrap());
    tree.put("7/updates", &bomb);
    // Before the list is read, it is looked at.
    let read = || tree.count(&Method::HEAD, "7/updates/repodata/p");
    let first = node.failure().await;
    assert!(first.contains("nested more than 64 deep"), "{first}");
    assert_eq!(read(), 1);
    for _ in 0..5 {
        assert_eq!(node.failure().await, first, "the reason is kept");
    }
    assert_eq!(read(), 1, "and nothing is read");
    assert_eq!(node.handle.states()[0].last_error.as_ref(), Some(&first));
    assert_eq!(node.current(0), Some(id(&old)));

    node.handle.poll_now(None);
    until(|| read() == 2).await;
    let new = repo(&[("a", "1")]);
    tree.put("7/updates", &new);
    node.offered(2).await;
    assert_eq!((node.current(0), &node.handle.states()[0].last_error), (Some(id(&new)), &None));
    node.stop().await;
}

#[tokio::test]
async fn an_older_generation_is_followed_only_where_the_operator_says_so() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    // (revision, newest timestamp)
    let dated = |mut files: Files, revision: u32, secs: u32| {
        let plain = String::from_utf8(files["repodata/repomd.xml"].to_vec()).unwrap();
        let head = format!("<repomd><revision>{revision}</revision>");
        let stamp = format!("<timestamp>{secs}</timestamp></data>");
        let plain = plain.replace("<repomd>", &head).replace("</data>", &stamp);
        files.insert("repodata/repomd.xml".to_owned(), plain.into());
        files
    };
    let (first, second) = (dated(repo(&[("a", "one")]), 100, 100), dated(repo(&[("a", "two")]), 200, 200));
    let older_still = dated(repo(&[("a", "zero")]), 50, 50);
    tree.put("7/updates", &first);
    let mut node = Node::start(dir.path(), &url(&server), &updates("")).await;
    node.offered(1).await;
    tree.put("7/updates", &second);
    node.offered(2).await;
    let kept = format!("number 1, {}", id(&first));
    let cases = [(&first, kept.as_str(), 3), (&older_still, "revision 50, made 1970-01-01T00:00:50", 4)];
    for (files, what, sequence) in cases {
        let before = node.current(0);
        tree.put("7/updates", files);
        // For more polls than an origin is given to finish a push; nor does a look at all repos go back.
        for _ in 0..8 {
            let failure = node.failure().await;
            assert!(
                failure.starts_with(&format!("the origin shows an older generation ({what}")),
                "{failure}"
            );
            assert!(failure.ends_with("; follow it with `freshet push updates`"), "{failure}");
            assert_eq!(node.handle.poll_now(None), 1);
        }
        assert_eq!(node.current(0), before);
        assert!(node.handle.states()[0].last_error.as_ref().unwrap().contains("an older generation"));
        assert_eq!(node.handle.poll_now(Some("updates")), 1);
        node.offered(sequence).await;
        assert_eq!(node.current(0), Some(id(files)));
    }
    node.stop().await;
}

#[tokio::test]
async fn warming_holds_back_neither_its_push_nor_the_next() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    tree.put("7/updates", &repo(&[("a", "one")]));
    let mut config = Node::config(dir.path(), &url(&server), &updates(""));
    config.push.warm_for = Duration::from_millis(1500);
    config.push.warm_parallel = 2;
    let mut node = Node::start_with(dir.path(), config).await;
    node.offered(1).await;
    let warmed = |event: &Event| match event {
        Event::Warmed { files, failed, rest, .. } => Some((*files, *failed, *rest)),
        _ => None,
    };
    // Answered by nobody as yet.
    *tree.gate.lock().unwrap() = Some("7/updates/Packages/c.rpm".to_owned());
    tree.put("7/updates", &repo(&[("a", "one"), ("b", "b"), ("c", "is long")]));
    assert_eq!(node.event(warmed).await, (1, 0, 1));
    node.offered(2).await;
    assert_eq!(node.handle.states()[0].warmed, None);
    // What is left of the one before comes after what is new.
    tree.put("7/updates", &repo(&[("a", "one"), ("b", "b"), ("c", "is long"), ("d", "d is longest")]));
    assert_eq!(node.event(warmed).await, (2, 0, 1), "b, which is there already, and d");
    node.offered(3).await;
    *tree.gate.lock().unwrap() = None;
    tree.open.notify_waiters();
    tree.open.notify_one();
    until(|| node.handle.states()[0].warmed.is_some()).await;
    let listed = node.view(0).history.find("Packages/c.rpm").unwrap().entry;
    let path = crate::http::TreePath::new("7/updates/Packages/c.rpm").unwrap();
    let object = Object::listed(path, listed.digest.unwrap(), listed.size);
    assert!(node.handle.shared.store.find(&object).await.is_some());
    let late = node.handle.shared.metrics.pushes.with_label_values(&["updates", "warmed_late"]).get();
    assert_eq!(late, 2);
    tree.put("7/updates", &repo(&[("e", "e")]));
    assert_eq!(node.event(warmed).await, (1, 0, 0), "nothing is left of those before");
    node.stop().await;
}

#[tokio::test]
async fn a_push_that_is_overtaken_is_not_offered() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    tree.put("7/updates", &repo(&[("a", "one")]));
    let mut node = Node::start(dir.path(), &url(&server), &updates("")).await;
    node.offered(1).await;
    let (overtaken, newest) = (repo(&[("a", "two")]), repo(&[("a", "three")]));
    *tree.gate.lock().unwrap() = Some(format!("7/updates/{}", metadata(&overtaken, "primary")));
    tree.put("7/updates", &overtaken);
    tokio::time::timeout(LONG, tree.reached.notified()).await.expect("its metadata are fetched");
    tree.put("7/updates", &newest);
    tree.open.notify_one();
    node.offered(2).await;
    assert_eq!(node.current(0), Some(id(&newest)));
    node.stop().await;
}

#[tokio::test]
async fn a_restart_with_a_dead_origin_goes_on_where_it_was() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    let origin = url(&server);
    tree.put("7/updates", &repo(&[("a", "one")]));
    let mut node = Node::start(dir.path(), &origin, &updates("window = \"1h\"")).await;
    node.offered(1).await;
    tree.put("7/updates", &repo(&[("a", "two")]));
    node.offered(2).await;
    let before = node.view(0);
    assert!(before.window.is_some());
    node.stop().await;
    drop(server);

    // Another length, and the window stays what it was.
    let node = Node::start(dir.path(), &origin, &updates("window = \"2h\"")).await;
    let after = node.view(0);
    assert_eq!(after.history.generations(), before.history.generations());
    assert_eq!((after.window, node.handle.readiness()), (before.window, Ok(())));
    assert_eq!(node.handle.states()[0].offered, Some(before.history.current().unwrap().flipped));
    node.stop().await;

    // Without its own file, the window follows from the generation.
    let state = dir.path().join("state/repos/updates");
    std::fs::write(state.join("window.json"), "{").unwrap();
    let node = Node::start(dir.path(), &origin, &updates("window = \"1h\"")).await;
    assert_eq!(node.view(0).window, before.window);
    node.stop().await;

    // Without the newest generation it is no step back either; its number is not given again.
    std::fs::write(state.join("0000000002.generation"), "damaged").unwrap();
    let server = Server::start(&tree).await;
    let pushed = repo(&[("a", "three")]);
    tree.put("7/updates", &pushed);
    *tree.gate.lock().unwrap() = Some("7/updates/repodata/repomd.xml".to_owned());
    let mut node = Node::start(dir.path(), &url(&server), &updates("")).await;
    assert_eq!(node.current(0), None);
    assert_eq!(node.handle.readiness().unwrap_err(), "updates: no generation yet: the origin is being asked");
    *tree.gate.lock().unwrap() = None;
    tree.open.notify_waiters();
    tree.open.notify_one();
    node.offered(3).await;
    assert_eq!(node.current(0), Some(id(&pushed)));
    assert_eq!(node.view(0).history.find("Packages/a.rpm").unwrap().entry.since, 3);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repos_that_flip_at_once_lose_nothing() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    let tables: String =
        (0..4).map(|n| format!("[[repo]]\nname = \"r{n}\"\npath = \"r{n}\"\ndelivery = \"own\"\n")).collect();
    let mut node = Node::start(dir.path(), &url(&server), &tables).await;
    for round in 1..=5_u32 {
        let expected: Vec<_> = (0..4).map(|n| repo(&[("a", &format!("{n} {round}"))])).collect();
        for (n, files) in expected.iter().enumerate() {
            tree.put(&format!("r{n}"), files);
        }
        for _ in &expected {
            node.offered(round).await;
        }
        for (n, files) in expected.iter().enumerate() {
            assert_eq!(node.current(n), Some(id(files)), "repo {n}, round {round}");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    let origin = url(&server);
    let tables = format!("{}[[repo]]\nname = \"rapid\"\npath = \"7/rapid\"\n", updates(""));
    tree.put("7/updates", &repo(&[]));
    let mut node = Node::start(dir.path(), &origin, &tables).await;
    node.offered(1).await;
    until(|| node.handle.states()[1].last_error.is_some()).await;
    let missing = format!("rapid: no generation yet: origin {}: no 7/rapid/repodata/repomd.xml", server.url);
    assert_eq!(node.handle.readiness(), Err(missing));
    // Given up for one of two: ready.
    let given_up = node.handle.shared.config.push.give_up;
    assert_eq!(node.handle.shared.readiness(given_up), Ok(()));
    node.stop().await;

    drop(server);
    let nothing = TempDir::new().unwrap();
    let node = Node::start(nothing.path(), &origin, &tables).await;
    until(|| node.handle.states().iter().all(|state| state.last_error.is_some())).await;
    // Given up for all: that is no reason to take traffic.
    let why = node.handle.shared.readiness(given_up).unwrap_err();
    assert!(why.starts_with("updates: no generation yet: origin http://127.0.0.1:"), "{why}");
    assert!(why.contains("refused"), "{why}");
    node.stop().await;

    let node = Node::start(nothing.path(), &origin, "").await;
    assert_eq!(node.handle.readiness(), Ok(()));
    node.stop().await;
}

#[tokio::test]
async fn windows_open_close_and_are_left_out() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    let settings = "window = \"1s\"\nwindow_max_push = \"8 B\"\nwindow_min_mirrors = 0";
    tree.put("7/updates", &repo(&[("a", "larger than the bound")]));
    let mut node = Node::start(dir.path(), &url(&server), &updates(settings)).await;
    let word = |event: &Event| match event {
        Event::Offered { sequence, .. } => Some(format!("offered {sequence}")),
        Event::WindowOpened { .. } => Some("opened".to_owned()),
        Event::WindowClosed { .. } => Some("closed".to_owned()),
        _ => None,
    };
    let mut words = Vec::new();
    for _ in 0..3 {
        words.push(node.event(word).await);
    }
    tree.put("7/updates", &repo(&[("a", "larger than the bound, too")]));
    words.push(node.event(word).await);
    assert_eq!(node.view(0).window, None);
    tree.put("7/updates", &repo(&[("a", "small")]));
    for _ in 0..3 {
        words.push(node.event(word).await);
    }
    assert_eq!(words, ["offered 1", "opened", "closed", "offered 2", "offered 3", "opened", "closed"]);
    node.stop().await;
}

#[tokio::test]
async fn a_signature_that_comes_late_is_taken() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    let files = repo(&[("a", "one")]);
    tree.put("7/updates", &files);
    let mut node = Node::start(dir.path(), &url(&server), &updates("")).await;
    node.offered(1).await;
    tree.put("7/updates", &Files::from([("repodata/repomd.xml.asc".to_owned(), SIGNATURES[0].into())]));
    let signature = |node: &Node| {
        let view = node.view(0);
        let current = view.history.current().unwrap();
        (current.sequence, current.pinned("repodata/repomd.xml.asc").map(|pinned| pinned.body.clone()))
    };
    until(|| signature(&node) == (1, Some(SIGNATURES[0].into()))).await;

    // That of the old repomd.xml doesn't sign the new one.
    let mut signed = repo(&[("a", "two")]);
    tree.put("7/updates", &signed);
    assert!(node.failure().await.contains("repomd.xml.asc is not of the new repodata/repomd.xml"));
    signed.insert("repodata/repomd.xml.asc".to_owned(), SIGNATURES[1].into());
    tree.put("7/updates", &signed);
    // With it, or, if that took the origin's patience, before it.
    until(|| signature(&node) == (2, Some(SIGNATURES[1].into()))).await;
    node.stop().await;
}

#[tokio::test]
async fn a_directory_origin_keeps_what_rsync_deletes_for_as_long_as_it_is_listed() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("tree");
    let put = |files: &Files| {
        // As rsync does: new files under new inodes, repomd.xml last, then what is old goes.
        let repo = root.join("7/updates");
        let mut paths: Vec<_> = files.keys().collect();
        paths.sort_by_key(|path| path.ends_with("repomd.xml"));
        for path in paths {
            let to = repo.join(path);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::write(repo.join("new"), &files[path]).unwrap();
            std::fs::rename(repo.join("new"), to).unwrap();
        }
        for at in ["Packages", "repodata"] {
            for entry in std::fs::read_dir(repo.join(at)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if !files.contains_key(&format!("{at}/{name}")) {
                    std::fs::remove_file(repo.join(at).join(name)).unwrap();
                }
            }
        }
    };
    let old = repo(&[("old", "gone soon")]);
    put(&old);
    let origin = format!("path = \"{}\"", root.display());
    let mut config = Node::config(dir.path(), &origin, &updates(""));
    config.push.keep = Duration::ZERO;
    let mut node = Node::start_with(dir.path(), config).await;
    node.offered(1).await;
    put(&repo(&[("new", "here now")]));
    node.offered(2).await;
    let listed = node.view(0).history.find("Packages/old.rpm").unwrap();
    assert_eq!((listed.until, listed.entry.kind), (Some(1), Kind::Package));
    let path = crate::http::TreePath::new("7/updates/Packages/old.rpm").unwrap();
    let object = Object::listed(path, listed.entry.digest.unwrap(), listed.entry.size);
    let store = &node.handle.shared.store;
    assert_eq!(store.whole(&object, 100).await.unwrap(), "gone soon");

    let hex = listed.entry.digest.unwrap().hex();
    let link = dir.path().join("retained").join(&hex[..2]).join(&hex[2..]);
    assert!(link.exists());
    put(&repo(&[("new", "newer")]));
    node.offered(3).await;
    // A flip ends with the sweep.
    drop(node.handle.shared.flips.lock().await);
    assert!(!link.exists() && node.view(0).history.find("Packages/old.rpm").is_none());
    let kept = std::fs::read_dir(dir.path().join("state/repos/updates")).unwrap();
    assert_eq!(kept.count(), 4, "generations 2 and 3, the window, and the last answer");
    node.stop().await;
}
