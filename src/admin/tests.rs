//! The admin API over a real socket: a node of one repo and three mirrors, whose origin is never asked.

use super::*;
use crate::ask::{self, Faults, Wait};
use crate::config::Config;
use crate::geo::Geo;
use crate::http::TreePath;
use crate::origin::{HttpOrigin, Origin, http};
use crate::policy::{MirrorState, MirrorTable, Proof, Published, Reach, RepoView, Repos};
use crate::push::Pushes;
use crate::repo::{Generation, History, ListedFile, Repomd, Sha256};
use crate::server::access_log::AccessLog;
use crate::server::egress::Egress;
use crate::server::{Parts, Seen};
use crate::store::{Settings, Store};
use bytes::Bytes;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream as Client};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

const CONFIG: &str = r#"
[node]
name = "n1"
urls = ["http://node/"]
[origin]
url = "http://127.0.0.1:1/"
[[repo]]
name = "updates"
path = "7/updates"
delivery = "offload"
[[alias]]
from = "latest"
to = "7"
[[mirror]]
name = "good"
url = "http://good/tree/"
[[mirror]]
name = "gone"
url = "http://gone/"
[[mirror]]
name = "new"
url = "https://new/"
"#;

struct Node {
    runtime: Runtime,
    serving: JoinHandle<()>,
    addr: SocketAddr,
    edge: Arc<Edge>,
    drain: watch::Sender<bool>,
    shutdown: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Node {
    fn start(token: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let text = format!("{CONFIG}[cache]\ndisk = \"{}\"\n", dir.path().display());
        let mut config = Config::parse(&text, std::path::Path::new("/etc/freshet.toml")).unwrap().0;
        (config.admin.listen, config.admin.token) = (addr, token.map(str::to_owned));
        let config = Arc::new(config);
        let runtime = Runtime::new().unwrap();
        let origin = HttpOrigin::new(http::Settings::new("http://127.0.0.1:1/", "node")).unwrap();
        let settings = Settings::new(dir.path().join("cache"), 1 << 20);
        let _guard = runtime.enter();
        let store = Store::open(Origin::Http(Arc::new(origin)), &settings, runtime.handle()).unwrap();
        let (metrics, published) = (Arc::default(), Arc::<Published>::default());
        let pushes = Pushes::new(
            config.clone(),
            published.clone(),
            store.clone(),
            Arc::clone(&metrics),
            None,
            Arc::default(),
        )
        .handle();
        let log = AccessLog::open(&crate::config::AccessLog::Off, metrics.clone()).unwrap().0;
        let (bounces, _) = tokio::sync::mpsc::channel(1);
        let egress = Arc::new(Egress::new(config.egress.clone(), Arc::clone(&metrics)));
        let edge = Arc::new(Edge::new(
            config,
            Parts {
                published,
                store,
                metrics,
                log,
                egress,
                geo: Geo::default(),
                bounces,
                sightings: Arc::default(),
                looks: tokio::sync::mpsc::channel(1).0,
            },
        ));
        let ((drain, draining), (shutdown, down)) = (watch::channel(false), watch::channel(false));
        let admin = Arc::new(Admin::new(edge.clone(), pushes, draining));
        let serving = runtime.spawn(serve(listener, admin, down));
        Self { runtime, serving, addr, edge, drain, shutdown, _dir: dir }
    }

    /// Offers a generation of one package, which one mirror is proven to hold.
    fn publish(self) -> Self {
        let now = clock::now();
        let package = ListedFile {
            path: "libstdc++ 1.rpm".into(),
            size: 5 << 20,
            digest: Some(Sha256::of(b"x").into()),
        };
        let repomd = Bytes::from_static(b"<repomd/>");
        let generation =
            Generation::assemble(&repomd, &Repomd::default(), vec![package], vec![], vec![], None, now, now);
        let repo = Arc::new(self.edge.config.repos[0].clone());
        let view = RepoView::new(repo, History::new([Arc::new(generation)]), None);
        view.confirmed.note(clock::now());
        self.edge.published.repos.store(Arc::new(Repos::new(vec![Arc::new(view)])));
        let mut mirrors =
            self.edge.config.mirrors.iter().map(|mirror| MirrorState::untried(Arc::new(mirror.clone()), 1));
        let [mut good, mut gone, new] = std::array::from_fn(|_| mirrors.next().unwrap());
        (good.reach, good.ipv4) = (Reach::Up { seen: now }, true);
        good.pairs[0].proof = Some(Proof { sequence: 1, shown: 1, verified: now });
        good.pairs[0].seen = Some(Sha256::of(&repomd));
        gone.reach = Reach::Down { since: now, why: "refused <b>".into() };
        let mirrors = [good, gone, new].map(Arc::new).to_vec();
        self.edge.published.mirrors.store(Arc::new(MirrorTable::new(mirrors)));
        self
    }

    fn ask(&self, method: &str, target: &str, fields: &str) -> Reply {
        let mut stream = Client::connect(self.addr).unwrap();
        let host = if fields.contains("Host: ") { String::new() } else { format!("Host: {}\r\n", self.addr) };
        let request = format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Reply { status: head[9..12].parse().unwrap(), head: head.to_lowercase(), body: body.to_owned() }
    }

    fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, "")
    }

    fn json(&self, target: &str) -> Value {
        let reply = self.get(target);
        assert_eq!(reply.status, 200, "{target}: {}", reply.body);
        assert!(reply.head.contains("content-type: application/json"), "{}", reply.head);
        serde_json::from_str(&reply.body).unwrap()
    }
}

#[test]
fn routes() {
    let node = Node::start(None).publish();
    let explain = "/api/v1/explain?client=192.0.2.1";
    // (method, target, status, in the answer)
    for (method, target, status, has) in [
        ("GET", "/healthz", 200, "alive"),
        ("GET", "/readyz", 200, "ready"),
        ("HEAD", "/readyz", 200, "content-length: 6"),
        ("GET", "/?x", 200, "<!doctype html>"),
        ("GET", "/metrics", 200, "text/plain; version=0.0.4"),
        ("GET", "/api/v1/status", 200, "cache-control: no-store"),
        ("POST", "/api/v1/status", 405, "allow: get, head\r\n"),
        ("DELETE", "/", 405, "allow: get, head\r\n"),
        ("PUT", "/api/v1/push", 405, "allow: get, head, post\r\n"),
        ("GET", "/api/v1/push", 200, "\"held\": null"),
        ("GET", "/api/v1/push?repo=other", 404, "no repo other"),
        ("POST", "/api/v1/push?anyway=1", 400, "expected a repo as well"),
        ("POST", "/api/v1/push", 202, "\"polled\": 1"),
        ("POST", "/api/v1/push?repo=updates", 202, "\"updates\": 2"),
        ("POST", "/api/v1/push?repo=other", 404, "no repo other"),
        ("POST", "/api/v1/push?id=updates", 400, "unknown parameter"),
        ("GET", "/api/v1/purge?path=/a", 405, "allow: post\r\n"),
        ("POST", "/api/v1/purge", 400, "either path or prefix"),
        ("POST", "/api/v1/purge?path=/a/../../b", 400, "\"error\": \"path: "),
        ("POST", "/api/v1/purge?path=/a/../b", 200, "\"path\": \"/b\""),
        ("POST", "/api/v1/purge?path=/latest/x&mode=soft", 200, "\"path\": \"/7/x\""),
        ("POST", "/api/v1/purge?prefix=/", 200, "\"complete\": true"),
        ("GET", explain, 400, "path: missing"),
        ("GET", &format!("{explain}&path=/a/../../b"), 400, "\"error\": \"path: "),
        ("GET", &format!("{explain}&path=/a/../b"), 200, "\"path\": \"b\""),
        ("GET", &format!("{explain}&path=/a"), 200, "\"reason\": \"unlisted\""),
        ("GET", "/api/v1/", 404, "\"error\""),
        ("GET", "/metrics/", 404, "text/plain"),
    ] {
        let reply = node.ask(method, target, "");
        assert_eq!(reply.status, status, "{method} {target}: {}", reply.body);
        let all = format!("{}\r\n\r\n{}", reply.head, reply.body.to_lowercase());
        assert!(all.contains(has), "{method} {target}: no {has:?} in {all}");
    }
}

#[test]
fn other_sites_change_nothing() {
    let node = Node::start(None).publish();
    let here = node.addr;
    let own = format!("Origin: http://{here}\r\nSec-Fetch-Site: same-origin\r\n");
    for (fields, status) in [
        ("", 202),
        (own.as_str(), 202),
        ("Host: localhost:9999\r\nOrigin: http://localhost:9999\r\n", 202),
        ("Origin: https://other.example\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Host: other.example\r\n", 403),
        ("Host: other.example\r\nOrigin: http://other.example\r\nSec-Fetch-Site: same-origin\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
    ] {
        for target in ["/api/v1/push", "/api/v1/purge?prefix=/"] {
            let reply = node.ask("POST", target, fields);
            let expected = if target.ends_with('/') && status == 202 { 200 } else { status };
            assert_eq!(reply.status, expected, "{target} {fields:?}: {}", reply.body);
            assert_eq!(reply.body.contains("admin.hosts"), status == 403, "{}", reply.body);
        }
        let is_foreign = fields.contains("Host: other");
        let expected = if is_foreign { 403 } else { 200 };
        assert_eq!(node.ask("GET", "/metrics", fields).status, expected, "reading is no change");
    }
    // Who has the token is no other site.
    let node = Node::start(Some("s3cret"));
    let fields = "Host: other.example\r\nOrigin: https://admin.example\r\nAuthorization: Bearer s3cret\r\n";
    assert_eq!(node.ask("POST", "/api/v1/push", fields).status, 202);
}

#[test]
fn a_foreign_host_reads_nothing() {
    let node = Node::start(None).publish();
    let targets = ["/", "/metrics", "/readyz", "/api/v1/status", "/api/v1/push", "/nothing"];
    for target in targets {
        let reply = node.ask("GET", target, "Host: rebound.example:9180\r\n");
        assert_eq!(reply.status, 403, "{target}: {}", reply.body);
        assert!(reply.body.contains("admin.hosts") && !reply.body.contains("updates"), "{}", reply.body);
        for own in ["Host: localhost:9180\r\n", "Host: 192.0.2.1\r\n", "Host: [::1]:9180\r\n"] {
            assert_ne!(node.ask("GET", target, own).status, 403, "{target} {own}");
        }
    }
    // That the node lives is no secret, and its load balancer may know it by any name.
    assert_eq!(node.ask("GET", "/healthz", "Host: rebound.example\r\n").status, 200);
    // With a token it alone decides.
    let node = Node::start(Some("s3cret"));
    let fields = "Host: other.example\r\nAuthorization: Bearer s3cret\r\n";
    assert_eq!(node.ask("GET", "/metrics", fields).status, 200);
}

#[test]
fn what_comes_from_outside_is_escaped() {
    let node = Node::start(None).publish();
    let mut table = MirrorTable::clone(&node.edge.published.mirrors.load());
    let mut gone = MirrorState::clone(&table.states()[1]);
    let why = "redirects to \u{1b}[2J\u{9b}2J\u{7f}\nforged \u{202e}";
    gone.reach = Reach::Down { since: clock::now(), why: why.to_owned() };
    table.replace(1, Arc::new(gone));
    node.edge.published.mirrors.store(Arc::new(table));
    let status = node.json("/api/v1/status");
    assert!(status["mirrors"][1].to_string().contains("forged"), "{status}");
    for target in ["/api/v1/status", "/"] {
        let body = node.get(target).body;
        assert!(body.contains("forged"), "{target}: {body}");
        let is_odd = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!body.contains(is_odd), "{target}: {body:?}");
    }
}

#[test]
fn half_open_connections_do_not_shut_out_healthz() {
    let node = Node::start(None);
    let open = || {
        let client = Client::connect(node.addr).unwrap();
        // Far less than it takes until a connection without a whole head is closed.
        client.set_read_timeout(Some(HEAD_TIMEOUT / 2)).unwrap();
        client
    };
    let ask = |client: &mut Client, target: &str| {
        client.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\nalive\n") {
            client.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
    };
    let mut asked: Vec<Client> = (0..8).map(|_| open()).collect();
    asked.iter_mut().for_each(|client| ask(client, "/healthz"));
    // More than there are places for: silent ones, and ones that have sent half a head.
    let half_open: Vec<Client> = (0..2 * CONNECTIONS)
        .map(|number| {
            let mut client = open();
            if number % 2 == 0 {
                client.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
            }
            client
        })
        .collect();
    for _ in 0..3 {
        ask(&mut open(), "/healthz");
    }
    let reply = node.get("/metrics");
    assert_eq!(reply.status, 200);
    asked.iter_mut().for_each(|client| ask(client, "/healthz"));
    drop(half_open);
}

#[test]
fn without_the_token_only_health_is_told() {
    let node = Node::start(Some("s3cret"));
    for (target, fields, status) in [
        ("/healthz", "", 200),
        ("/metrics", "", 401),
        ("/nothing", "", 401),
        ("/metrics", "Authorization: Bearer s3cre\r\n", 401),
        ("/metrics", "Authorization: Bearer s3creT\r\n", 401),
        ("/metrics", "Authorization: Bearer s3crett\r\n", 401),
        ("/metrics", "Authorization: Bearer\r\n", 401),
        ("/metrics", "Authorization: Basic s3cret\r\n", 401),
        ("/metrics", "Authorization: Bearer s3cret\r\nAuthorization: Bearer s3cret\r\n", 401),
        ("/metrics", "Authorization: Bearer s3cret\r\n", 200),
        ("/nothing", "Authorization: bearer s3cret\r\n", 404),
    ] {
        let reply = node.ask("GET", target, fields);
        assert_eq!(reply.status, status, "{target} {fields:?}");
        assert_eq!(reply.head.contains("www-authenticate: bearer"), status == 401, "{}", reply.head);
    }
}

#[test]
fn readiness_and_status_follow_the_snapshots() {
    let node = Node::start(None);
    let reply = node.get("/readyz");
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("updates"), "it names what is waited for: {}", reply.body);
    let status = node.json("/api/v1/status");
    assert_eq!((&status["ready"], &status["not_ready"]), (&false.into(), &reply.body.trim().into()));
    assert!(status["repos"][0]["generation"].is_null());
    assert!(node.get("/metrics").body.contains("freshet_ready 0\n"));

    let node = node.publish();
    let status = node.json("/api/v1/status");
    assert_eq!((&status["ready"], &status["draining"]), (&true.into(), &false.into()));
    assert!(status.get("not_ready").is_none());
    assert_eq!(
        (&status["origin"]["url"], &status["origin"]["state"]),
        (&"http://127.0.0.1:1/".into(), &"up".into())
    );
    let repo = &status["repos"][0];
    assert_eq!((&repo["id"], &repo["fresh_mirrors"]), (&"updates".into(), &1.into()));
    assert_eq!((&repo["generation"]["sequence"], &repo["generation"]["files"]), (&1.into(), &2.into()));
    assert_eq!((&repo["window"]["phase"], &repo["push"]["step"]), (&"closed".into(), &"idle".into()));
    let states: Vec<_> =
        status["mirrors"].as_array().unwrap().iter().map(|mirror| &mirror["state"]).collect();
    assert_eq!(states, ["up", "down", "untried"]);
    let holding = &status["mirrors"][0]["repos"][0];
    assert_eq!(
        (&holding["fresh"], &holding["proven_sequence"], &holding["shows"]),
        (&true.into(), &1.into(), &1.into())
    );
    assert!(status["cache"]["objects"].is_u64() && status["cache"]["events"]["io_errors"].is_u64());

    let metrics = node.get("/metrics").body;
    for sample in [
        "freshet_ready 1",
        "freshet_origin_up 1",
        r#"freshet_origin_requests_total{outcome="withheld"} 0"#,
        r#"freshet_generation_sequence{repo="updates"} 1"#,
        r#"freshet_window_phase{repo="updates"} 0"#,
        r#"freshet_mirror_up{mirror="good"} 1"#,
        r#"freshet_mirror_up{mirror="gone"} 0"#,
        r#"freshet_mirror_fresh{mirror="good",repo="updates"} 1"#,
        r#"freshet_mirror_fresh{mirror="new",repo="updates"} 0"#,
        r#"freshet_store{what="objects"} 0"#,
        r#"freshet_store_events_total{event="fills_started"} 0"#,
        "# TYPE freshet_store_events_total counter",
    ] {
        assert!(metrics.lines().any(|line| line == sample), "{sample} in\n{metrics}");
    }
    let page = node.get("/").body;
    for text in
        ["<h1>n1</h1>", "refused &lt;b&gt;", "<th scope=\"row\">updates</th>", "1 of 3", "not asked yet"]
    {
        assert!(page.contains(text), "{text} in\n{page}");
    }

    node.drain.send_replace(true);
    let reply = node.get("/readyz");
    assert_eq!((reply.status, reply.body.as_str()), (503, "draining\n"));
    assert_eq!(node.get("/healthz").status, 200);
}

#[test]
fn an_explanation_is_the_decision_and_leaves_no_trace() {
    let node = Node::start(None).publish();
    let get = |more: &str| {
        node.json(&format!("/api/v1/explain?client=192.0.2.1&path=/latest/updates/libstdc++%25201.rpm{more}"))
    };
    let told = get("");
    assert_eq!(told["canonical"], "7/updates/libstdc++ 1.rpm");
    assert_eq!((&told["decision"], &told["reason"]), (&"redirect".into(), &"offload".into()));
    assert_eq!(told["location"], "http://good/tree/7/updates/libstdc%2B%2B%201.rpm");
    assert_eq!((&told["listed"]["kind"], &told["listed"]["since"]), (&"package".into(), &1.into()));
    assert_eq!(told["client"]["network"], "192.0.2.0/24");
    let good = told["mirrors"].as_array().unwrap().iter().find(|mirror| mirror["name"] == "good").unwrap();
    assert_eq!((&good["chosen"], &good["why"]), (&true.into(), &"fits".into()));
    // Asked again, the first redirect would be a bounce if it had been remembered.
    assert_eq!(get(""), told);
    // What the client is like counts: the one fresh mirror has no https, and wasn't seen answering a range.
    for (more, why) in [("&https=1", "only http"), ("&range=bytes=0-9", "a range")] {
        let told = get(more);
        assert_eq!(
            (&told["decision"], &told["reason"]),
            (&"serve".into(), &"no-fresh-mirror".into()),
            "{more}"
        );
        assert!(told["mirrors"].to_string().contains(why), "{told}");
    }
    let repomd = node.json("/api/v1/explain?client=::1&path=7/updates/repodata/repomd.xml");
    assert_eq!((&repomd["reason"], &repomd["cached"]), (&"metadata".into(), &true.into()));
    let list = node.json("/api/v1/explain?client=::1&path=/mirrorlist%3Frepo=updates");
    assert_eq!((&list["decision"], &list["reason"]), (&"answer".into(), &"mirrorlist".into()));

    // A client with a redirect in the air is told of it.
    let client = crate::policy::Client::somewhere("192.0.2.1", "libdnf");
    let other = TreePath::new("7/updates/Packages/other.rpm").unwrap();
    node.edge.clients.redirected(Seen::new(&client, &other, None, 1), 0, 1000, clock::now());
    let told = get("&user_agent=libdnf");
    assert_eq!((&told["client"]["standing"], &told["reason"]), (&"slow-start".into(), &"slow-start".into()));
}

#[test]
fn the_command_line_asks_the_node() {
    let node = Node::start(Some("s3cret")).publish();
    let mut config = Config::clone(&node.edge.config);
    let question = ask::Question {
        client: "192.0.2.1".parse().unwrap(),
        path: "7/updates/libstdc++%201.rpm".into(),
        user_agent: "libdnf".into(),
        range: None,
        https: false,
    };
    let text = ask::explain(&config, &question, false).unwrap();
    assert!(
        text.contains("\ndecision   redirect (offload)\n") && text.contains(". good  chosen\n"),
        "{text}"
    );
    let json: Value = serde_json::from_str(&ask::explain(&config, &question, true).unwrap()).unwrap();
    assert_eq!(json["decision"], "redirect");
    assert_eq!(
        ask::push(&config, Some("updates"), Faults::Hold, Wait::No).unwrap(),
        "updates: the node looks for a push now\n"
    );
    assert_eq!(
        ask::push(&config, None, Faults::Hold, Wait::No).unwrap(),
        "the node looks for pushes now, repos: 1\n"
    );
    let said = |error: anyhow::Error| format!("{error:#}");
    let purged = ask::purge(&config, &ask::Typed::Prefix("/latest/".into()), ask::Mode::Hard).unwrap();
    assert_eq!(purged, "/7/*: purged; removed 0, to be revalidated 0, verified 0\n");
    assert!(
        said(ask::push(&config, Some("other"), Faults::Hold, Wait::No).unwrap_err())
            .ends_with("says 404: no repo other")
    );
    config.admin.token = None;
    assert!(
        said(ask::push(&config, None, Faults::Hold, Wait::No).unwrap_err())
            .contains("says 401: a bearer token is needed")
    );

    node.shutdown.send_replace(true);
    node.runtime.block_on(node.serving).unwrap();
    let refused = said(ask::push(&config, None, Faults::Hold, Wait::No).unwrap_err());
    assert!(refused.contains(&node.addr.to_string()) && refused.contains("is it running?"), "{refused}");
}

#[test]
fn connections_end_with_the_node() {
    let node = Node::start(None);
    let mut idle = Client::connect(node.addr).unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n").unwrap();
    let mut first = [0; 15];
    idle.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    node.shutdown.send_replace(true);
    node.runtime.block_on(node.serving).unwrap();
    let mut rest = String::new();
    idle.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("alive\n"));
    assert!(Client::connect(node.addr).is_err());
}
