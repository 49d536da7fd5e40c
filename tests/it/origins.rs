//! Origins that are dead, ill or without manners: nothing wrong is served or kept, and they are asked seldom.

use super::support::client::{self, Connection, End, Response};
use super::support::config;
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{now, scratch, wait_until};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const CLIENTS: usize = 50;

/// How many requests to the origin ended so.
fn requests(node: &Node, outcome: &str) -> usize {
    let sample = format!("freshet_origin_requests_total{{outcome=\"{outcome}\"}}");
    node.metric(&sample).unwrap_or_default() as usize
}

fn file(client: usize) -> (String, Vec<u8>) {
    (format!("f{client}"), format!("the bytes of {client}").repeat(100).into_bytes())
}

/// Fifty clients ask for a file each while `dead`, then the origin comes back.
fn crowd(origin: &mut Origin, node: &Node, dead: impl FnOnce(&mut Origin)) {
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let done = &done;
            scope.spawn(move || {
                let (path, body) = file(number);
                let answer = client::get(node.http(), &format!("/{path}"));
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(answer.body == body, "{path}");
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        dead(origin);
        assert_eq!(done.load(Ordering::SeqCst), 0);
        origin.revive();
    });
    assert_eq!(done.load(Ordering::SeqCst), CLIENTS);
    let status = node.status();
    assert_eq!(
        (&status["origin"]["state"], &status["origin"]["reason"]),
        (&"up".into(), &None::<&str>.into())
    );
}

fn origin_of_files() -> (tempfile::TempDir, Origin) {
    let tree = scratch();
    let mut origin = Origin::serve(tree.path());
    (0..CLIENTS).map(file).for_each(|(path, body)| origin.put(&path, body));
    origin.kill();
    (tree, origin)
}

#[test]
fn a_crowd_waits_for_a_dead_origin_without_knocking() {
    let (_tree, mut origin) = origin_of_files();
    let node = Node::start(&config::cached(&origin, ""));
    crowd(&mut origin, &node, |_| {
        // Each client that is told to wait comes back once a second.
        wait_until("four rounds of the crowd", || requests(&node, "withheld") >= 4 * CLIENTS);
        let status = node.status();
        assert_eq!(status["origin"]["state"], "down");
        assert!(status["origin"]["reason"].as_str().unwrap().contains("refused"), "{status}");
        assert!(status["origin"]["since"].is_string() && status["origin"]["next_probe"].is_string());
        assert_eq!(node.metric("freshet_origin_up"), Some(0.0));
    });
    let (tried, withheld) = (requests(&node, "unreachable"), requests(&node, "withheld"));
    println!("{tried} attempts, {withheld} withheld");
    assert!(tried <= CLIENTS + 10, "the first wave and some probes, but {tried}");
    assert_eq!(node.metric("freshet_origin_up"), Some(1.0));
}

/// Accepts connections, counts them, and closes them.
struct Closer {
    accepted: Arc<AtomicUsize>,
    alive: Arc<AtomicBool>,
    addr: SocketAddr,
    running: Option<JoinHandle<()>>,
}

impl Closer {
    fn start(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let (accepted, alive) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
        let (counted, living) = (accepted.clone(), alive.clone());
        let running = thread::spawn(move || {
            while let Ok((_closed, _)) = listener.accept()
                && living.load(Ordering::SeqCst)
            {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { accepted, alive, addr, running: Some(running) }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        self.running.take().unwrap().join().unwrap();
    }
}

#[test]
fn an_origin_that_hangs_up_at_once_is_as_good_as_dead() {
    let (_tree, mut origin) = origin_of_files();
    let closer = Closer::start(origin.addr());
    let node = Node::start(&config::cached(&origin, ""));
    let mut accepted = 0;
    crowd(&mut origin, &node, |_| {
        wait_until("four rounds of the crowd", || requests(&node, "withheld") >= 4 * CLIENTS);
        assert_eq!(node.status()["origin"]["state"], "down");
        accepted = closer.accepted();
        drop(closer);
    });
    println!("{accepted} connections in four rounds of {CLIENTS}");
    // An unused connection may be opened for a request that went out on another one.
    assert!(accepted <= CLIENTS + CLIENTS / 2, "{accepted}");
}

#[test]
fn broken_paths_do_not_take_the_others_down() {
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config::cached(&origin, ""));
    let get_at_once = |path: &str| {
        let answer = client::request(node.http(), "GET", path, &[]);
        (answer.status, answer.text())
    };
    origin.act("broken", [Act::Status(500)]);
    thread::scope(|scope| {
        let broken = scope.spawn(|| get_at_once("/broken"));
        wait_until("it has failed", || !origin.seen_for("broken").is_empty());
        for number in 0..200 {
            let path = format!("good{number}");
            origin.put(&path, "good");
            assert_eq!(get_at_once(&format!("/{path}")), (200, "good".to_owned()));
        }
        wait_until("it has failed four times", || origin.seen_for("broken").len() >= 4);
        assert_eq!(requests(&node, "withheld"), 0, "one broken path, however often, withholds nothing");
        origin.act("broken", []);
        origin.put("broken", "mended");
        assert_eq!(broken.join().unwrap(), (200, "mended".to_owned()));
    });
    // Many that fail with nothing else asked for do count. The first good one ends that.
    origin.put("last", "good");
    for number in 0..5 {
        origin.act(&format!("bad{number}"), [Act::Status(503)]);
    }
    let mut waiting: Vec<Connection> = (0..5)
        .map(|number| {
            let mut connection = Connection::open(node.http()).unwrap();
            connection.send(client::head("GET", &format!("/bad{number}"), &[])).unwrap();
            connection
        })
        .collect();
    node.wait_status("the origin counts as down", |status| status["origin"]["state"] == "down");
    let begun = now();
    assert_eq!(get_at_once("/last"), (200, "good".to_owned()));
    println!("a good path after {:?}", begun.elapsed());
    for number in 0..5 {
        origin.put(&format!("bad{number}"), "mended");
        origin.act(&format!("bad{number}"), []);
    }
    for connection in &mut waiting {
        assert_eq!(connection.response("GET").unwrap().text(), "mended");
        println!("a mended path after {:?}", begun.elapsed());
    }
}

/// Of two hosts behind the origin's name one has the push later. No client may notice.
#[test]
fn a_listed_file_that_the_origin_denies_is_waited_for() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let (early, late) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let packages = [3, 4, 5].map(|number| format!("{REPO}/{}", repo::rpm(number, Push::First)));
    packages.iter().for_each(|package| late.act(package, [Act::Status(404)]));
    let name = Balancer::start([late.addr(), early.addr()]);
    let more = ["cache.absent = \"1h\"\npush.poll = \"1h\"\n", &config::updates("24h")].concat();
    let node = Node::start(&config::cached(&late, &more).replace(&late.url(), &name.url()));
    node.wait_ready();
    // The connections that the node keeps lead to the late host, new ones to the other.
    late.put("any", "x");
    assert_eq!(node.get("/any").status, 200);
    name.lead_to(1);
    let body = |package: &str| std::fs::read(tree.root().join(package)).unwrap();
    let served = node.get(&format!("/{}", packages[0]));
    assert!(served.status == 200 && served.body == body(&packages[0]), "{}", served.text());
    // While all hosts deny it, it is waited for, and asked for again and again.
    early.act(&packages[1], [Act::Status(404)]);
    let target = format!("/{}", packages[1]);
    let mut waiting = Connection::open(node.http()).unwrap();
    waiting.send(client::head("GET", &target, &[])).unwrap();
    wait_until("it is asked for again", || early.seen_for(&packages[1]).len() >= 2);
    let seen = early.seen_for(&packages[1]).len() + late.seen_for(&packages[1]).len();
    early.act(&packages[1], []);
    let served = waiting.response("GET").unwrap();
    assert!(served.status == 200 && served.body == body(&packages[1]), "{}", served.text());
    assert!(seen <= 20, "{seen} requests");
    // So is a part, and a HEAD.
    name.lead_to(0);
    late.act(&packages[2], [Act::Status(404)]);
    let target = format!("/{}", packages[2]);
    let mut waiting = Connection::open(node.http()).unwrap();
    waiting.send(client::head("GET", &target, &[("Range", "bytes=1-3")])).unwrap();
    let mut looking = Connection::open(node.http()).unwrap();
    looking.send(client::head("HEAD", &target, &[])).unwrap();
    wait_until("it is asked for", || !late.seen_for(&packages[2]).is_empty());
    late.act(&packages[2], []);
    let part = waiting.response("GET").unwrap();
    assert!(part.status == 206 && part.body == body(&packages[2])[1..4], "{}", part.text());
    assert_eq!(looking.response("HEAD").unwrap().status, 200);
    assert_eq!(node.metric("freshet_origin_up"), Some(1.0), "no such file is an answer");
}

/// Several hosts behind one name: each connection goes to the one that has its turn.
struct Balancer {
    addr: SocketAddr,
    turn: Arc<AtomicUsize>,
    alive: Arc<AtomicBool>,
    running: Option<JoinHandle<()>>,
}

impl Balancer {
    /// Leads to the first of `hosts`.
    fn start(hosts: [SocketAddr; 2]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (turn, alive) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
        let (led, living) = (Arc::clone(&turn), Arc::clone(&alive));
        let running = thread::spawn(move || {
            while let Ok((client, _)) = listener.accept()
                && living.load(Ordering::SeqCst)
            {
                let host = TcpStream::connect(hosts[led.load(Ordering::SeqCst)]).unwrap();
                for (mut from, mut to) in [
                    (client.try_clone().unwrap(), host.try_clone().unwrap()),
                    (host.try_clone().unwrap(), client.try_clone().unwrap()),
                ] {
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { addr, turn, alive, running: Some(running) }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    /// New connections go to host number `turn`.
    fn lead_to(&self, turn: usize) {
        self.turn.store(turn, Ordering::SeqCst);
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        self.running.take().unwrap().join().unwrap();
    }
}

#[test]
fn an_origin_that_takes_a_request_and_never_answers_is_asked_anew() {
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    origin.put("f", "at last");
    origin.act("f", [Act::Hang]);
    // Once there is a connection, the time for making one no longer counts.
    let keys = "origin.connect_timeout = \"1m\"\norigin.first_byte_timeout = \"500ms\"";
    let node = Node::start(&config::cached(&origin, keys));
    let mut waiting = Connection::open(node.http()).unwrap();
    waiting.send(client::head("GET", "/f", &[])).unwrap();
    wait_until("a second request", || origin.seen_for("f").len() == 2);
    origin.act("f", []);
    let response = waiting.response("GET").unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "at last"));
    assert!(requests(&node, "silent") >= 2);
}

#[test]
fn retry_after_is_honoured() {
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    origin.put("busy", "at last");
    origin.act("busy", [Act::Status(503), Act::Header("Retry-After", "2".to_owned())]);
    // The cap of all backoff is a third of the patience.
    let node = Node::start(&config::cached(&origin, "origin.patience = \"9s\""));
    let mut waiting = Connection::open(node.http()).unwrap();
    waiting.send(client::head("GET", "/busy", &[])).unwrap();
    wait_until("three tries", || origin.seen_for("busy").len() == 3);
    origin.act("busy", []);
    assert_eq!(waiting.response("GET").unwrap().text(), "at last");
    let tries: Vec<_> = origin.seen_for("busy").iter().map(|seen| seen.at).collect();
    for pair in tries.windows(2) {
        // The stub writes its time down after the node has begun to wait, never before.
        assert!(pair[1] - pair[0] > Duration::from_millis(1900), "{:?}", pair[1] - pair[0]);
    }
}

/// What a client may get of an object that the origin sends so.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// All of it.
    Whole,
    /// 503, or a body that doesn't end cleanly.
    Nothing,
}

fn ends(node: &Node, target: &str) -> Result<Response, End> {
    Connection::open(node.http()).unwrap().request("GET", target, &[])
}

fn check(what: &str, fate: Fate, ended: Result<Response, End>, body: &[u8]) {
    match ended {
        Ok(response) if response.status == 200 => {
            assert!(response.body == body, "{what}: a clean end of {} bytes", response.body.len());
            assert_eq!(fate, Fate::Whole, "{what}");
        }
        Ok(response) => {
            assert_eq!((response.status, fate), (503, Fate::Nothing), "{what}: {}", response.text());
        }
        Err(end) => {
            assert!(matches!(end, End::Reset | End::Truncated(_)), "{what}: {end:?}");
            assert_eq!(fate, Fate::Nothing, "{what}: {end:?}");
        }
    }
}

const IMPATIENT: &str = r#"
    origin.patience = "0s"
    origin.connect_timeout = "1s"
    origin.first_byte_timeout = "1s"
    origin.stall_timeout = "1s"
    "#;
const LENGTH: usize = 200_000;

/// A response written out by hand: after it the connection is closed.
fn raw(head: &str, body: &[u8]) -> Act {
    Act::Raw([format!("{}\r\n\r\n", head.replace('\n', "\r\n")).as_bytes(), body].concat())
}

fn chunked(body: &[u8], end: &str) -> Act {
    let mut all = Vec::new();
    for chunk in body.chunks(LENGTH / 3) {
        all.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        all.extend_from_slice(chunk);
        all.extend_from_slice(b"\r\n");
    }
    all.extend_from_slice(end.as_bytes());
    raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", &all)
}

#[test]
fn an_origin_without_manners() {
    let tree = scratch();
    let origin = Origin::serve(tree.path());
    let node = Node::start(&config::cached(&origin, IMPATIENT));
    let body: Vec<u8> = (0..LENGTH as u64 / 8).flat_map(u64::to_be_bytes).collect();
    let half = &body[..LENGTH / 2];
    let length = format!("Content-Length: {LENGTH}");
    let fields = |count: usize| (0..count).map(|i| format!("\nX-{i}: y")).collect::<String>();
    let header = |name, value: &str| Act::Header(name, value.to_owned());
    let rows = [
        ("HTTP/1.0", vec![raw(&format!("HTTP/1.0 200 OK\n{length}"), &body)], Fate::Whole),
        ("HTTP/1.0, cut", vec![raw(&format!("HTTP/1.0 200 OK\n{length}"), half)], Fate::Nothing),
        // A close can't be told from a cut.
        ("HTTP/1.0 to the close", vec![raw("HTTP/1.0 200 OK", &body)], Fate::Nothing),
        ("to the close", vec![raw("HTTP/1.1 200 OK\nConnection: close", &body)], Fate::Nothing),
        (
            "a transfer coding that nobody knows",
            vec![raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked, odd", &body)],
            Fate::Nothing,
        ),
        ("chunks", vec![chunked(&body, "0\r\n\r\n")], Fate::Whole),
        ("chunks with trailers", vec![chunked(&body, "0\r\nA: b\r\n\r\n")], Fate::Whole),
        ("chunks without the last", vec![chunked(half, "")], Fate::Nothing),
        ("a chunk cut", vec![chunked(half, "ffff\r\nxx")], Fate::Nothing),
        ("no chunk", vec![chunked(half, "zz\r\n")], Fate::Nothing),
        ("an endless chunk", vec![chunked(half, "ffffffffffffffff1\r\n")], Fate::Nothing),
        (
            "two lengths",
            vec![raw(&format!("HTTP/1.1 200 OK\n{length}\nContent-Length: 5"), &body)],
            Fate::Nothing,
        ),
        ("a length that is none", vec![raw("HTTP/1.1 200 OK\nContent-Length: -1", &body)], Fate::Nothing),
        (
            "2^63 bytes",
            vec![raw("HTTP/1.1 200 OK\nContent-Length: 9223372036854775808", &body)],
            Fate::Nothing,
        ),
        (
            "2^80 bytes",
            vec![raw("HTTP/1.1 200 OK\nContent-Length: 1208925819614629174706176", &body)],
            Fate::Nothing,
        ),
        ("no HTTP", vec![raw("SSH-2.0-OpenSSH_9.2", b"")], Fate::Nothing),
        (
            "1000 fields",
            vec![raw(&format!("HTTP/1.1 200 OK\n{length}{}", fields(1000)), &body)],
            Fate::Nothing,
        ),
        (
            "a field of 2 MB",
            vec![raw(&format!("HTTP/1.1 200 OK\n{length}\nX: {}", "y".repeat(2 << 20)), &body)],
            Fate::Nothing,
        ),
        ("interim answers only", vec![raw(&"HTTP/1.1 100 Continue\n\n".repeat(5000), b"")], Fate::Nothing),
        ("a slow head", vec![Act::Dribble(Duration::from_millis(50))], Fate::Nothing),
        // The rest is asked for, three times at most.
        ("a stall", vec![Act::Gate(LENGTH / 2 + 1)], Fate::Whole),
        ("a stall at every start", vec![Act::Gate(1)], Fate::Nothing),
        ("a whole for a range", vec![Act::Reset(LENGTH / 3), Act::NoRanges], Fate::Nothing),
        ("a part for a whole", vec![Act::Status(206)], Fate::Nothing),
        ("a redirect here", vec![Act::Status(302), header("Location", "/elsewhere")], Fate::Whole),
        (
            "a redirect in a ring",
            vec![Act::Status(302), header("Location", "/a%20redirect%20in%20a%20ring")],
            Fate::Nothing,
        ),
        ("a coding", vec![header("Content-Encoding", "gzip")], Fate::Whole),
    ];
    origin.put("elsewhere", &*body);
    let target = |what: &str| format!("/{}", what.replace(' ', "%20"));
    for (what, acts, fate) in &rows {
        origin.put(what, &*body);
        origin.act(what, acts.clone());
        let begun = now();
        check(what, *fate, ends(&node, &target(what)), &body);
        // Twice within the second: the node remembers, and asks no more.
        if *fate == Fate::Nothing && begun.elapsed() < Duration::from_millis(500) {
            check(what, *fate, ends(&node, &target(what)), &body);
        }
        assert!(origin.seen_for(what).len() <= 5, "{what}: {} requests", origin.seen_for(what).len());
        println!("{what}: {:?}", begun.elapsed());
        // Other paths go on, and three bad ones in a row don't add up.
        let other = format!("after {what}");
        origin.put(&other, "good");
        assert_eq!(node.get(&target(&other)).text(), "good", "{other}");
    }
    for (what, _, _) in &rows {
        origin.act(what, []);
        wait_until("it is well again", || {
            ends(&node, &target(what)).is_ok_and(|response| response.status == 200 && response.body == body)
        });
        let asked = origin.seen_for(what).len();
        assert!(node.get(&target(what)).body == body, "{what}");
        assert_eq!(origin.seen_for(what).len(), asked, "{what}: kept now");
    }
}

#[test]
fn an_object_that_changes_in_the_middle() {
    let dir = scratch();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let (old, new) = (vec![b'o'; LENGTH], vec![b'n'; LENGTH]);
    let origin = Origin::serve(&tree);
    let node = Node::start(&config::cached(&origin, IMPATIENT));
    for (what, acts) in [
        ("cut", vec![Act::Gate(LENGTH / 2), Act::Truncate(LENGTH / 2)]),
        ("reset", vec![Act::Gate(LENGTH / 2), Act::Reset(LENGTH / 2)]),
    ] {
        std::fs::write(tree.join(what), &old).unwrap();
        origin.act(what, acts);
        let mut connection = Connection::open(node.http()).unwrap();
        connection.send(client::head("GET", &format!("/{what}"), &[])).unwrap();
        connection.response_head().unwrap();
        assert!(connection.read(LENGTH / 4).unwrap() == old[..LENGTH / 4], "{what}");
        let modified = std::fs::metadata(tree.join(what)).unwrap().modified().unwrap();
        let incoming = std::fs::File::create(tree.join("incoming")).unwrap();
        (&incoming).write_all(&new).unwrap();
        // Else both may be of one tick of the clock, and of one ETag.
        incoming.set_modified(modified + Duration::from_secs(1)).unwrap();
        std::fs::rename(tree.join("incoming"), tree.join(what)).unwrap();
        origin.release(what);
        let rest = connection.read(LENGTH - LENGTH / 4);
        assert!(
            matches!(rest, Err(End::Reset | End::Truncated(_))),
            "{what}: no second half of another version"
        );
        let seen = origin.seen_for(what);
        assert_eq!(seen.len(), 2, "{what}");
        assert!(seen[1].header("range").is_some() && seen[1].header("if-range").is_some(), "{what}");
        origin.act(what, []);
        wait_until("the new version", || {
            ends(&node, &format!("/{what}")).is_ok_and(|answer| answer.body == new)
        });
    }
}

#[test]
fn of_a_listed_object_only_the_listed_bytes_count() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let origin = Origin::serve(tree.root());
    let node =
        Node::start(&config::cached(&origin, &[IMPATIENT, config::BRISK, &config::updates("24h")].concat()));
    node.wait_ready();
    for (index, what, fate) in [
        (10, "to the close", Fate::Whole),
        (11, "to the close, cut", Fate::Nothing),
        (12, "a coding that isn't one", Fate::Whole),
        (13, "a byte too much promised", Fate::Nothing),
        (14, "a byte too little promised", Fate::Nothing),
        (15, "chunks that go on", Fate::Nothing),
        (16, "another body of that length", Fate::Nothing),
        (17, "no file", Fate::Nothing),
        (18, "a file for others", Fate::Nothing),
        (19, "a file elsewhere", Fate::Nothing),
    ] {
        let path = format!("{REPO}/{}", repo::rpm(index, Push::First));
        let body = std::fs::read(tree.root().join(&path)).unwrap();
        let act = match index {
            10 => raw("HTTP/1.0 200 OK", &body),
            11 => raw("HTTP/1.0 200 OK", &body[..body.len() - 1]),
            12 => Act::Header("Content-Encoding", "gzip".to_owned()),
            13 => Act::Length(body.len() + 1),
            14 => Act::Length(body.len() - 1),
            15 => chunked(&[&body[..], b"more"].concat(), "0\r\n\r\n"),
            17 => Act::Status(404),
            18 => Act::Status(401),
            19 => raw("HTTP/1.1 301 Moved\nContent-Length: 0\nLocation: http://127.0.0.1:1/", b""),
            _ => Act::Corrupt(body.len() / 2),
        };
        origin.forget();
        origin.act(&path, [act]);
        check(what, fate, ends(&node, &format!("/{path}")), &body);
        assert!(origin.seen_for(&path).len() <= 4, "{what}: {:?}", origin.seen_for(&path));
        origin.act(&path, []);
        wait_until("it is well again", || {
            ends(&node, &format!("/{path}"))
                .is_ok_and(|response| response.status == 200 && response.body == body)
        });
    }
}
