//! The prober over real sockets, against mirrors that do as they are told.

mod connections;

use super::*;
use crate::clock::Timestamp;
use crate::config::{Delivery, Repo, Scope};
use crate::http::TreePath;
use crate::policy::RepoView;
use crate::repo::{Digest, Generation, History, ListedFile, Repomd, Sha256};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const HOUR: Duration = Duration::from_secs(3600);
/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const ROOT: &str = "7/updates/x86_64/";
const REPOMD: &str = "repodata/repomd.xml";

type Files = Vec<(String, Vec<u8>)>;

/// The generation of these files after `previous`.
pub(super) fn generation(files: &[(String, Vec<u8>)], previous: Option<&Generation>) -> Generation {
    let repomd = repomd(previous.map_or(1, |previous| previous.sequence + 1));
    let listed = |(path, body): &(String, Vec<u8>)| ListedFile {
        path: path.clone(),
        size: body.len() as u64,
        digest: Some(Sha256::of(body).into()),
    };
    let (files, at) = (files.iter().map(listed).collect(), Timestamp::EPOCH);
    Generation::assemble(&repomd, &Repomd::default(), files, vec![], vec![], previous, at, at)
}

fn repomd(sequence: u32) -> Bytes {
    format!("<repomd>{sequence}</repomd>").into()
}

pub(super) fn files(names: &[&str]) -> Files {
    names.iter().map(|name| (format!("Packages/{name}.rpm"), name.repeat(3).into_bytes())).collect()
}

/// What the node has of one of [`files`], if that isn't `theirs`.
#[expect(clippy::needless_pass_by_value, reason = "as the prober calls it")]
fn our_bytes(path: TreePath, digest: Digest, _: u64, part: ByteRange, theirs: Bytes) -> super::Compares {
    let name = path.name().trim_end_matches(".rpm").repeat(3).into_bytes();
    let ours =
        digest.is_of(&name).then(|| Bytes::copy_from_slice(&name[part.start as usize..part.end as usize]));
    Box::pin(async move {
        match ours {
            None => Comparison::Unknown,
            Some(ours) if ours == theirs => Comparison::Same,
            Some(ours) => Comparison::Differs(ours),
        }
    })
}

/// The settings of a mirror.
pub(super) fn mirror(number: usize, url: &str) -> Mirror {
    Mirror::new(&format!("m{number}"), url)
}

/// What a mirror does.
#[derive(Default)]
struct Script {
    files: BTreeMap<String, Bytes>,
    /// Answers to certain paths: status and Location.
    answers: BTreeMap<String, (u16, String)>,
    /// Method and path of each request.
    asked: Vec<String>,
    /// For each request the number of its connection, method and path, and whether it asked for a part.
    over: Vec<(usize, String, bool)>,
    silent: bool,
    /// The answer to everything.
    status: Option<u16>,
    /// Method and path of what is answered only once this is notified.
    gate: Option<(String, Arc<Notify>)>,
}

struct TestMirror {
    script: Arc<Mutex<Script>>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl TestMirror {
    async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), Arc::default()).await
    }

    async fn start_at(address: SocketAddr, script: Arc<Mutex<Script>>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (address, scripted) = (listener.local_addr().unwrap(), script.clone());
        let server = tokio::spawn(async move {
            // Dropped with the server: its connections die, too.
            let (mut connections, mut number) = (JoinSet::new(), 0);
            while let Ok((stream, _)) = listener.accept().await {
                let script = scripted.clone();
                number += 1;
                let answer = service_fn(move |request: Request<_>| {
                    let script = script.clone();
                    let is_part = request.headers().contains_key(header::RANGE);
                    let asked = format!("{} {}", request.method(), request.uri().path());
                    script.lock().unwrap().over.push((number, asked, is_part));
                    async move { Ok::<_, Infallible>(answer(&script, &request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                connections.spawn(connection.serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { script, address, server }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Shows the generation of this sequence.
    fn show(&self, sequence: u32) {
        self.put(REPOMD, repomd(sequence));
    }

    fn put(&self, path: &str, body: impl Into<Bytes>) {
        self.script.lock().unwrap().files.insert(format!("/{ROOT}{path}"), body.into());
    }

    fn put_all(&self, files: &Files) {
        for (path, body) in files {
            self.put(path, body.clone());
        }
    }

    fn remove(&self, path: &str) {
        self.script.lock().unwrap().files.remove(&format!("/{ROOT}{path}")).unwrap();
    }

    fn answer(&self, path: &str, status: u16, location: &str) {
        let path = format!("/{ROOT}{path}");
        self.script.lock().unwrap().answers.insert(path, (status, location.to_owned()));
    }

    /// To whatever is asked.
    fn answer_all(&self, status: u16) {
        self.script.lock().unwrap().status = Some(status);
    }

    fn asked(&self, request: &str) -> usize {
        self.script.lock().unwrap().asked.iter().filter(|asked| asked.contains(request)).count()
    }

    async fn stop(self) -> (SocketAddr, Arc<Mutex<Script>>) {
        self.server.abort();
        let _ = self.server.await;
        (self.address, self.script)
    }
}

async fn answer(script: &Mutex<Script>, request: &Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let (gate, silent, told, body) = {
        let mut script = script.lock().unwrap();
        let asked = format!("{} {path}", request.method());
        let gate = script.gate.as_ref().filter(|(gated, _)| *gated == asked).map(|(_, gate)| gate.clone());
        script.asked.push(asked);
        let all = script.status.map(|status| (status, String::new()));
        let told = all.or_else(|| script.answers.get(path).cloned());
        (gate, script.silent, told, script.files.get(path).cloned())
    };
    if let Some(gate) = gate {
        gate.notified().await;
    }
    if silent {
        std::future::pending::<()>().await;
    }
    let mut response = Response::new(Full::default());
    let headers = &mut HeaderMap::new();
    *response.status_mut() = match (told, body) {
        (Some((status, location)), _) => {
            headers.insert(header::LOCATION, location.parse().unwrap());
            StatusCode::from_u16(status).unwrap()
        }
        (None, None) => StatusCode::NOT_FOUND,
        (None, Some(body)) if request.headers().contains_key(header::RANGE) => {
            let range = request.headers()[header::RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap();
            let (first, last) = range.split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            let part = first..last + 1;
            headers.insert(header::CONTENT_RANGE, format!("bytes {range}/{}", body.len()).parse().unwrap());
            *response.body_mut() = body.slice(part).into();
            StatusCode::PARTIAL_CONTENT
        }
        (None, Some(body)) => {
            let etag = format!("\"{}\"", Sha256::of(&body));
            let same = request.headers().get(header::IF_NONE_MATCH).is_some_and(|known| *known == *etag);
            headers.insert(header::ETAG, etag.parse().unwrap());
            if request.method() == Method::HEAD {
                headers.insert(header::CONTENT_LENGTH, body.len().into());
            } else if !same {
                *response.body_mut() = body.into();
            }
            if same { StatusCode::NOT_MODIFIED } else { StatusCode::OK }
        }
    };
    response.headers_mut().extend(headers.drain().filter_map(|(name, value)| Some((name?, value))));
    response
}

/// A node with one repo, and the prober.
pub(super) struct Node {
    published: Arc<Published>,
    metrics: Arc<Metrics>,
    changes: watch::Receiver<u64>,
    flipped: Arc<Notify>,
    bounces: mpsc::Sender<BounceReport>,
    shutdown: watch::Sender<bool>,
    prober: JoinHandle<()>,
}

impl Node {
    pub(super) fn published(history: History) -> Arc<Published> {
        let repo = Repo {
            name: "updates".into(),
            release: "7".into(),
            arch: "x86_64".into(),
            id: "updates/7/x86_64".into(),
            path: TreePath::new(ROOT.trim_end_matches('/')).unwrap(),
            delivery: Delivery::Offload,
            window: HOUR,
            window_scope: Scope::Repo,
            window_max_push: 0,
            window_min_mirrors: 1,
            twin: None,
            priority: crate::config::Priority::Normal,
            checksums: None,
        };
        let published = Published::default();
        let view = RepoView::new(Arc::new(repo), history, None);
        published.repos.store(Arc::new(Repos::new(vec![Arc::new(view)])));
        Arc::new(published)
    }

    /// Probes in calm hourly: only what happens makes the prober ask.
    fn start(mirrors: &[&TestMirror], history: History, state_dir: Option<PathBuf>) -> Self {
        let timeout = Duration::from_millis(if mirrors.len() > 1 { 500 } else { 5000 });
        let settings = Probes { timeout, ..Self::settings() };
        Self::start_by(settings, mirrors, Self::published(history), state_dir)
    }

    fn settings() -> Probes {
        Probes {
            probe_every: HOUR,
            probe_lagging: Duration::from_millis(20),
            liveness_every: Duration::from_millis(20),
            contact: "https://example.org/probes".into(),
            ..Probes::default()
        }
    }

    fn start_by(
        settings: Probes,
        mirrors: &[&TestMirror],
        published: Arc<Published>,
        state_dir: Option<PathBuf>,
    ) -> Self {
        let settings_of = |(number, of): (usize, &&TestMirror)| mirror(number, &of.url());
        let mirrors: Vec<_> = mirrors.iter().enumerate().map(settings_of).collect();
        let metrics = Arc::new(Metrics::new());
        let (bounces, reports) = mpsc::channel(8);
        let (repos, counters, ours) = (published.clone(), metrics.clone(), Arc::new(our_bytes));
        let signals = Signals { bounces: reports, looks: mpsc::channel(1).1 };
        let lacking: Lacking = Arc::new(|_, _, _| Box::pin(async { false }));
        let known = Known { ours, lacking, sightings: Arc::default() };
        let mut prober = Prober::new(settings, &mirrors, repos, counters, state_dir, signals, known).unwrap();
        prober.restore();
        let (changes, flipped) = (prober.changes(), prober.flipped());
        let (shutdown, ends) = watch::channel(false);
        let prober = tokio::spawn(prober.run(ends));
        Self { published, metrics, changes, flipped, bounces, shutdown, prober }
    }

    fn history(&self) -> History {
        self.published.repos.load().views()[0].history.clone()
    }

    fn flip(&self, files: &Files) {
        let repos = self.published.repos.load();
        let view = RepoView::clone(&repos.views()[0]);
        let next = generation(files, view.history.current().map(|current| &**current));
        let history = view.history.with(next, HOUR, Timestamp::EPOCH);
        self.published.repos.store(Arc::new(repos.with(0, RepoView { history, ..view })));
        self.flipped.notify_one();
    }

    fn mirror(&self, mirror: usize) -> Arc<MirrorState> {
        self.published.mirrors.load().states()[mirror].clone()
    }

    fn pair(&self) -> Pair {
        self.mirror(0).pairs[0].clone()
    }

    /// Waits until a published table meets `wanted`; each one on the way, and that one, must meet `always`.
    async fn until(&mut self, wanted: impl Fn(&MirrorState) -> bool, always: impl Fn(&MirrorState) -> bool) {
        self.mirror_until(0, wanted, always).await;
    }

    async fn mirror_until(
        &mut self,
        mirror: usize,
        wanted: impl Fn(&MirrorState) -> bool,
        always: impl Fn(&MirrorState) -> bool,
    ) {
        let waits = async {
            loop {
                self.changes.borrow_and_update();
                let state = self.published.mirrors.load().states()[mirror].clone();
                assert!(always(&state), "{state:?}");
                if wanted(&state) {
                    return;
                }
                self.changes.changed().await.unwrap();
            }
        };
        let met = tokio::time::timeout(PATIENCE, waits).await;
        assert!(met.is_ok(), "it stays at {:?}", self.mirror(mirror));
    }

    async fn until_current(&mut self, sequence: u32) {
        self.until(|state| state.is_current(0, sequence), |_| true).await;
    }

    async fn stop(self) {
        self.shutdown.send(true).unwrap();
        self.prober.await.unwrap();
    }
}

pub(super) fn first(files: &Files) -> History {
    History::default().with(generation(files, None), HOUR, Timestamp::EPOCH)
}

fn notes(note: &str) -> impl Fn(&MirrorState) -> bool {
    move |state| state.pairs[0].note == note
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_is_fresh_once_its_last_file_is_there() {
    let (old, new) = (files(&["a", "b", "gone"]), files(&["a", "b", "c", "d"]));
    let mirror = TestMirror::start().await;
    mirror.show(1);
    mirror.put_all(&old);
    let mut node = Node::start(&[&mirror], first(&old), None);
    node.until(notes("proven: holds generation 1 (3 files checked)"), |_| true).await;
    let state = node.mirror(0);
    assert!(state.is_current(0, 1) && state.ranges && state.ipv4 && !state.ipv6);

    node.flip(&new);
    node.until(notes("stale: shows generation 1 of 2, proven for it"), |_| true).await;
    let looks = mirror.asked("GET /7/updates/x86_64/repodata/repomd.xml");
    node.until(|_| mirror.asked("repomd.xml") > looks + 2, |state| !state.is_current(0, 2)).await;
    assert_eq!(
        mirror.asked("Packages/c.rpm") + mirror.asked("Packages/d.rpm"),
        0,
        "asked before it was named"
    );

    // Metadata first, packages later, the last of them cut at first.
    let keeps_the_old = |state: &MirrorState| {
        let proof = state.pairs[0].proof;
        !state.is_current(0, 2) && state.reach.is_up() && proof.is_some_and(|proof| proof.sequence == 1)
    };
    mirror.show(2);
    let still = "; still proven for generation 1";
    let missing = |name| format!("shows generation 2, but Packages/{name}.rpm is missing (404){still}");
    node.until(notes(&missing("c")), keeps_the_old).await;
    let holds = |path: &str| node.mirror(0).holds(0, &node.history().find(path).unwrap(), path);
    assert!(holds("Packages/a.rpm") && !holds("Packages/c.rpm") && !holds("Packages/gone.rpm"));
    mirror.put_all(&files(&["c"]));
    node.until(notes(&missing("d")), keeps_the_old).await;
    mirror.put("Packages/d.rpm", "d");
    let cut = format!("shows generation 2, but Packages/d.rpm has 1 bytes instead of 3{still}");
    node.until(notes(&cut), keeps_the_old).await;
    mirror.put_all(&files(&["d"]));
    node.until_current(2).await;
    assert_eq!(
        mirror.asked("HEAD /7/updates/x86_64/Packages/a.rpm"),
        1,
        "what it holds isn't asked for again"
    );
    let probes = |outcome| node.metrics.probes.with_label_values(&["m0", outcome]).get();
    assert!(probes("ok") > 0 && probes("stale") > 0 && probes("failed") > 2 && probes("down") == 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_mirror_is_down_and_comes_back_only_with_what_it_shows_then() {
    let old = files(&["a", "b"]);
    let mirror = TestMirror::start().await;
    mirror.show(1);
    mirror.put_all(&old);
    let mut node = Node::start(&[&mirror], first(&old), None);
    node.until_current(1).await;

    let (address, script) = mirror.stop().await;
    node.until(|state| matches!(state.reach, Reach::Down { .. }), |_| true).await;
    let Reach::Down { why, .. } = &node.mirror(0).reach else { panic!("{:?}", node.mirror(0)) };
    assert_eq!(why, "connection refused");
    assert_eq!(node.pair().proof.map(|proof| proof.sequence), Some(1), "it counts again later");

    node.flip(&files(&["a", "c"]));
    script.lock().unwrap().files.insert(format!("/{ROOT}{REPOMD}"), repomd(2));
    let mirror = TestMirror::start_at(address, script).await;
    let shows_it = |state: &MirrorState| {
        !state.reach.is_up()
            || state.pairs[0].proof.is_some_and(|proof| (proof.sequence, proof.shown) == (1, 2))
    };
    node.until(|state| state.reach.is_up(), shows_it).await;
    mirror.put_all(&files(&["c"]));
    node.until_current(2).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_restores_proofs() {
    let (dir, old) = (tempfile::tempdir().unwrap(), files(&["a", "b"]));
    let mirror = TestMirror::start().await;
    mirror.show(1);
    mirror.put_all(&old);
    let state_dir = Some(dir.path().join("state"));
    let mut node = Node::start(&[&mirror], first(&old), state_dir.clone());
    node.until_current(1).await;
    node.stop().await;
    let heads = mirror.asked("HEAD /7/updates/x86_64/Packages");
    assert_eq!(heads, 2);

    // The same generation has another sequence by now.
    let other = History::default().with(generation(&files(&["x"]), None), HOUR, Timestamp::EPOCH);
    let current =
        Generation { id: Sha256::of(&repomd(1)), ..generation(&old, other.current().map(|g| &**g)) };
    let history = other.with(current, HOUR, Timestamp::EPOCH);
    // As it starts, its first look may be over already; so look at the restored table by itself.
    let document = Document::load(state_dir.as_deref().unwrap()).unwrap().unwrap();
    let published = Node::published(history.clone());
    let mut states = [node_state(&mirror)];
    assert_eq!(document.restore(&mut states, &published.repos.load()), 1);
    let [state, over_ipv6] = &states[0];
    assert_eq!(over_ipv6.pairs[0].proof, None, "that was never proven");
    assert_eq!((&state.reach, state.pairs[0].proof.map(|proof| proof.sequence)), (&Reach::Untried, Some(2)));
    assert!(!state.is_current(0, 2), "not before it was asked");

    let mut node = Node::start(&[&mirror], history, state_dir);
    node.until_current(2).await;
    assert_eq!(mirror.asked("HEAD /7/updates/x86_64/Packages"), heads, "no file is asked for again");
    node.stop().await;

    // Another URL, or a generation that isn't kept: nothing is restored.
    let elsewhere = TestMirror::start().await;
    let mut states = [node_state(&elsewhere)];
    assert_eq!(document.restore(&mut states, &published.repos.load()), 0);
    let mut states = [node_state(&mirror)];
    assert_eq!(document.restore(&mut states, &Node::published(History::default()).repos.load()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_is_back_is_sampled_before_it_takes_anything() {
    let old = files(&["a", "b"]);
    let mirror = TestMirror::start().await;
    mirror.show(1);
    mirror.put_all(&old);
    let mut node = Node::start(&[&mirror], first(&old), None);
    node.until_current(1).await;
    let (address, script) = mirror.stop().await;
    node.until(|state| matches!(state.reach, Reach::Down { .. }), |_| true).await;
    // It lost what it had, and shows what it showed.
    for (path, _) in &old {
        script.lock().unwrap().files.remove(&format!("/{ROOT}{path}")).unwrap();
    }
    let mirror = TestMirror::start_at(address, script).await;
    let takes_nothing = |state: &MirrorState| !(state.reach.is_up() && state.pairs[0].proof.is_some());
    node.until(|state| state.reach.is_up(), takes_nothing).await;
    let told = |state: &MirrorState| state.pairs[0].note.starts_with("shows generation 1, but Packages/");
    node.until(told, takes_nothing).await;
    mirror.put_all(&old);
    node.until_current(1).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doubt_about_a_file_that_a_push_replaces_at_the_same_length_ends() {
    let old = files(&["a", "b", "c", "d", "e"]);
    let mirror = TestMirror::start().await;
    mirror.show(1);
    mirror.put_all(&old);
    mirror.put("Packages/a.rpm", "xxx");
    let mut node = Node::start(&[&mirror], first(&old), None);
    let caught = |state: &MirrorState| state.pairs[0].note.contains("Packages/a.rpm has other bytes");
    node.until(caught, |state| state.pairs[0].proof.is_none()).await;
    // Signed anew, say; the other files, of which the node has the bytes at hand, are right.
    let mut new = old.clone();
    new[0].1 = b"new".to_vec();
    mirror.put("Packages/a.rpm", "new");
    mirror.show(2);
    node.flip(&new);
    node.until_current(2).await;
    node.stop().await;
}

/// As a prober that was not run has it.
fn node_state(mirror: &TestMirror) -> [Arc<MirrorState>; 2] {
    let untried = MirrorState::untried(Arc::new(super::tests::mirror(0, &mirror.url())), 1);
    [Arc::new(untried.clone()), Arc::new(untried)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bounce_that_the_mirror_confirms_costs_the_file_or_the_proof() {
    let old = files(&["a", "b", "c"]);
    let mirror = TestMirror::start().await;
    mirror.show(1);
    mirror.put_all(&old);
    let mut node = Node::start(&[&mirror], first(&old), None);
    node.until_current(1).await;
    let report = |name: &str| BounceReport {
        mirror: 0,
        path: Some(format!("{ROOT}Packages/{name}.rpm")),
        network: Some(1),
    };
    mirror.remove("Packages/b.rpm");
    node.bounces.send(report("b")).await.unwrap();
    // The others are there: it is missing alone.
    let lacks_b = |state: &MirrorState| state.pairs[0].exceptions.names(9) == ["Packages/b.rpm"];
    node.until(lacks_b, |state| state.is_current(0, 1)).await;
    mirror.put_all(&old);
    node.until(|state| state.pairs[0].exceptions.is_empty(), |state| state.is_current(0, 1)).await;

    // Another one with it: whatever else is gone has to be found.
    let heads = mirror.asked("HEAD /7/updates/x86_64/Packages/a.rpm");
    mirror.remove("Packages/b.rpm");
    mirror.remove("Packages/c.rpm");
    node.bounces.send(report("b")).await.unwrap();
    node.until(notes("shows generation 1, but Packages/b.rpm is missing (404)"), |_| true).await;
    assert_eq!(node.pair().proof, None);
    mirror.put_all(&old);
    node.until(notes("proven: holds generation 1 (3 files checked)"), |_| true).await;
    assert!(mirror.asked("HEAD /7/updates/x86_64/Packages/a.rpm") > heads, "all files are checked again");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returns_that_no_probe_explains_are_a_dispute() {
    let old = files(&["a", "b", "c"]);
    let mirror = TestMirror::start().await;
    mirror.show(1);
    mirror.put_all(&old);
    let mut node = Node::start(&[&mirror], first(&old), None);
    node.until_current(1).await;
    let report = |name: &str, network| BounceReport {
        mirror: 0,
        path: Some(format!("{ROOT}Packages/{name}.rpm")),
        network,
    };
    // One that may be another host's request, and two of one network, say nothing.
    for network in [None, Some(1), Some(1), Some(2), Some(3)] {
        node.bounces.send(report("b", network)).await.unwrap();
    }
    node.until(|state| state.disputed_until.is_some(), |state| state.is_current(0, 1)).await;
    // A probe that finds what clients found has the last word.
    mirror.remove("Packages/b.rpm");
    node.bounces.send(report("b", Some(4))).await.unwrap();
    node.until(|state| state.disputed_until.is_none(), |state| state.is_current(0, 1)).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failure_is_told_in_words() {
    let listed = files(&["a"]);
    let package = "Packages/a.rpm";
    let up = "up";
    // (what is wrong, reach, note)
    type Breaks = fn(&TestMirror, &str);
    let cases: [(Breaks, &str, &str); 11] = [
        (|_, _| {}, up, "proven: holds generation 1 (1 files checked)"),
        (|mirror, _| mirror.remove(REPOMD), up, "no repomd.xml (404)"),
        (|mirror, _| mirror.put(REPOMD, "\n<!DOCTYPE HTML><p>parked"), up, "repomd.xml answered with HTML"),
        (|mirror, _| mirror.put(REPOMD, vec![b' '; (1 << 20) + 1]), up, "repomd.xml is longer than 1 MiB"),
        (|mirror, _| mirror.answer(REPOMD, 429, ""), up, "repomd.xml answers 429"),
        (|mirror, _| mirror.answer(REPOMD, 503, ""), up, "repomd.xml answers 503"),
        (|mirror, _| mirror.answer_all(503), "answers 503", ""),
        (
            |mirror, _| mirror.answer(REPOMD, 301, "https://127.0.0.1/r"),
            up,
            "repomd.xml redirects to https://127.0.0.1/r: configure that URL",
        ),
        (|mirror, _| mirror.script.lock().unwrap().silent = true, "no answer within 500ms", ""),
        (
            |mirror, path| mirror.answer(path, 302, "http://cdn.example/a.rpm"),
            up,
            "shows generation 1, but Packages/a.rpm redirects to http://cdn.example/a.rpm: configure that URL",
        ),
        (
            |mirror, path| mirror.answer(path, 301, "/moved"),
            up,
            "shows generation 1, but Packages/a.rpm is missing (404)",
        ),
    ];
    let mut mirrors = Vec::new();
    for (breaks, ..) in &cases {
        let mirror = TestMirror::start().await;
        mirror.show(1);
        mirror.put_all(&listed);
        breaks(&mirror, package);
        mirrors.push(mirror);
    }
    let mut node = Node::start(&mirrors.iter().collect::<Vec<_>>(), first(&listed), None);
    for (index, (_, reach, note)) in cases.iter().enumerate() {
        let found = |state: &MirrorState| {
            let told = match &state.reach {
                Reach::Up { .. } => up,
                Reach::Down { why, .. } => why,
                Reach::Untried => "untried",
            };
            told == *reach && state.pairs[0].note == *note
        };
        node.mirror_until(index, found, |_| true).await;
    }
    assert_eq!(node.published.mirrors.load().fresh(0, 1), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_whose_task_broke_is_down_until_it_is_probed_again() {
    let old = files(&["a"]);
    let mirror = TestMirror::start().await;
    mirror.show(1);
    mirror.put_all(&old);
    let mut node = Node::start(&[&mirror], first(&old), None);
    node.until_current(1).await;

    // A change of the repos that never happens breaks the worker: the answer that it waits for is of none.
    let (gate, look) = (Arc::<Notify>::default(), "GET /7/updates/x86_64/repodata/repomd.xml");
    mirror.script.lock().unwrap().gate = Some((look.to_owned(), gate.clone()));
    let (looks, repos) = (mirror.asked(look), node.published.repos.load_full());
    node.flip(&files(&["a", "b"]));
    node.until(|_| mirror.asked(look) > looks, |_| true).await;
    node.published.repos.store(Arc::new(Repos::new(vec![])));
    node.flipped.notify_one();
    node.until(|state| state.pairs.is_empty(), |_| true).await;
    mirror.script.lock().unwrap().gate = None;
    gate.notify_one();
    let broke =
        |state: &MirrorState| matches!(&state.reach, Reach::Down { why, .. } if why == "probe task failed");
    node.until(broke, |_| true).await;
    node.published.repos.store(repos);
    node.flipped.notify_one();
    node.until_current(1).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_is_down_only_if_no_path_of_it_answers() {
    let old = files(&["a"]);
    let mirror = TestMirror::start().await;
    mirror.show(1);
    mirror.put_all(&old);
    let mut node = Node::start(&[&mirror], first(&old), None);
    node.until_current(1).await;
    mirror.answer(REPOMD, 503, "");
    let at_root =
        || mirror.script.lock().unwrap().asked.iter().filter(|asked| asked.as_str() == "HEAD /").count();
    let before = at_root();
    node.until(|_| at_root() > before + 3, |state| state.reach.is_up()).await;
    mirror.answer_all(503);
    let down = |state: &MirrorState| matches!(&state.reach, Reach::Down { why, .. } if why == "answers 503");
    node.until(down, |_| true).await;
    node.stop().await;
}
