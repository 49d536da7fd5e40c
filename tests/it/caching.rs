//! What no catalogue lists is cached as RFC 9111 says, whatever the origin says; and repomd.xml while the origin is silent.
//!
//! No test waits for a lifetime to end: what is to be stale is so by its Age, its Expires or a lifetime of 0.

use super::support::client::{self, Response};
use super::support::config;
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{scratch, wait_for, wait_until};
use tempfile::TempDir;

const PAST: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const FUTURE: &str = "Fri, 31 Dec 9999 23:59:59 GMT";

struct Stage {
    _tree: TempDir,
    origin: Origin,
    node: Node,
}

impl Stage {
    fn new(more: &str) -> Self {
        Self::with_patience("0s", more)
    }

    fn with_patience(patience: &str, more: &str) -> Self {
        let tree = scratch();
        let origin = Origin::serve(tree.path());
        let keys = format!("origin.patience = \"{patience}\"\norigin.connect_timeout = \"2s\"\n{more}");
        let node = Node::start(&config::cached(&origin, &keys));
        Self { _tree: tree, origin, node }
    }

    /// Puts `body` at `path`, with these header fields.
    fn put(&self, path: &str, body: &str, fields: &[(&'static str, &str)]) {
        self.origin.put(path, body);
        self.say(path, fields);
    }

    fn say(&self, path: &str, fields: &[(&'static str, &str)]) {
        self.origin.act(path, headers(fields));
    }

    /// GET, once nothing is under way: what was fetched before is stored by then, or isn't to be.
    #[track_caller]
    fn get(&self, path: &str) -> Response {
        self.ask("GET", path, &[])
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
        wait_until("nothing to be under way", || self.node.status()["cache"]["flights"] == 0);
        client::request(self.node.http(), method, &format!("/{path}"), fields)
    }

    fn asked(&self, path: &str) -> usize {
        self.origin.seen_for(path).len()
    }
}

fn headers(fields: &[(&'static str, &str)]) -> Vec<Act> {
    fields.iter().map(|(name, value)| Act::Header(name, (*value).to_owned())).collect()
}

fn all<'a>(response: &'a Response, name: &str) -> Vec<&'a str> {
    response.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
}

fn age(response: &Response) -> Option<u64> {
    response.header("age").map(|age| age.parse().expect("Age is a number"))
}

fn is_stale(response: &Response) -> bool {
    response.header("cache-status").is_some_and(|status| status.contains("; fwd=stale; detail="))
}

#[test]
fn answers_from_the_cache_tell_their_age() {
    let stage = Stage::new("");
    stage.put("old", "x", &[("Cache-Control", "max-age=1000000"), ("Age", "100, 7")]);
    stage.put("new", "x", &[("Cache-Control", "max-age=1000000")]);
    stage.put("huge", "x", &[("Age", "99999999999999999999")]);
    for path in ["old", "new", "huge"] {
        stage.get(path);
    }
    let ages = |path| (age(&stage.get(path)), age(&stage.ask("HEAD", path, &[])));
    let (Some(old), Some(again)) = ages("old") else { panic!("no Age") };
    assert!((100..1000).contains(&old) && again >= old, "{old} {again}");
    let (Some(new), Some(_)) = ages("new") else { panic!("no Age") };
    assert!(new < 100, "{new}");
    assert_eq!(age(&stage.get("huge")), Some(1 << 31));
    assert_eq!(["old", "new", "huge"].map(|path| stage.asked(path)), [1, 1, 1]);
}

#[test]
fn age_date_and_expires_decide_what_is_fresh() {
    let stage = Stage::new("");
    let (fresh, stale) = (1, 2);
    for (number, (fields, asked)) in [
        (&[("Cache-Control", "max-age=1000")][..], fresh),
        (&[("Cache-Control", "max-age=1000"), ("Age", "1000")], stale),
        (&[("Cache-Control", "max-age=1000"), ("Age", "99999999999999999999")], stale),
        (&[("Cache-Control", "max-age=1000"), ("Age", "0"), ("Age", "1000")], fresh),
        (&[("Cache-Control", "max-age=1000"), ("Age", "1000, 0")], stale),
        (&[("Cache-Control", "max-age=1000"), ("Age", "-5")], fresh),
        (&[("Cache-Control", "max-age=1000"), ("Date", PAST)], stale),
        (&[("Cache-Control", "max-age=1000"), ("Date", "yesterday")], fresh),
        (&[("Cache-Control", "max-age=0, max-age=1000")], stale),
        (&[("Cache-Control", "max-age=1000, s-maxage=0")], stale),
        (&[("Cache-Control", "max-age=x")], stale),
        (&[("Expires", FUTURE)], fresh),
        (&[("Expires", FUTURE), ("Pragma", "no-cache")], fresh),
        (&[("Expires", FUTURE), ("Expires", FUTURE)], stale),
        (&[("Expires", "0")], stale),
        (&[("Expires", "never"), ("Cache-Control", "max-age=1000")], fresh),
        (&[("Expires", PAST)], stale),
        (&[("Cache-Control", "no-cache, max-age=1000")], stale),
        (&[("Cache-Control", "no-cache=\"X-A\", max-age=1000")], stale),
        (&[("Cache-Control", "max-age=1000, no-store, must-understand")], fresh),
        (&[], fresh),
    ]
    .into_iter()
    .enumerate()
    {
        let path = number.to_string();
        stage.put(&path, "x", fields);
        assert_eq!((stage.get(&path).text(), stage.get(&path).text()), ("x".into(), "x".into()));
        assert_eq!(stage.asked(&path), asked, "{fields:?}");
        let conditional =
            stage.origin.seen_for(&path)[1..].iter().all(|seen| seen.header("if-none-match").is_some());
        assert!(conditional, "{fields:?}");
    }
}

#[test]
fn all_end_to_end_fields_are_kept_over_a_restart() {
    let mut stage = Stage::new("");
    let sent = [
        ("X-Two", "1"),
        ("X-One", "naïve"),
        ("X-Two", "2, 3"),
        ("Date", "Sun, 06 Nov 2044 08:49:37 GMT"),
        ("Expires", FUTURE),
        ("Vary", "accept-encoding"),
        ("Content-Language", "de"),
        ("Content-Type", "text/x-odd"),
        ("Server", "apache"),
    ];
    // yum 3 would take them for a redirect, or for a length.
    let misread = [
        ("Link", "</x>; rel=next"),
        ("Content-Location", "/y"),
        ("X-Geolocation", "DE"),
        ("X-Said", "content-length: 3"),
    ];
    let dropped = [
        ("Connection", "X-Hop, keep-alive"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Alt-Svc", "h3=\":443\""),
        ("Strict-Transport-Security", "max-age=5"),
    ];
    let chain = [("Via", "1.1 before"), ("Cache-Status", "before; hit")];
    stage.put("f", "body", &[&sent[..], &misread[..], &dropped[..], &chain[..]].concat());
    let check = |response: &Response| {
        assert_eq!((response.status, response.text()), (200, "body".to_owned()));
        for (name, _) in &sent {
            let expected: Vec<_> =
                sent.iter().filter(|(known, _)| known == name).map(|(_, value)| *value).collect();
            assert_eq!(all(response, &name.to_lowercase()), expected, "{name}");
        }
        for (name, _) in &dropped {
            assert_eq!(response.header(&name.to_lowercase()), None, "{name}");
        }
        for (name, before) in chain {
            let (found, name) = (all(response, &name.to_lowercase()), name.to_lowercase());
            assert_eq!((found.len(), found[0]), (2, before), "{name}: {found:?}");
        }
        for name in ["etag", "last-modified", "content-length", "accept-ranges", "date"] {
            assert_eq!(all(response, name).len(), 1, "{name}");
        }
    };
    let check = |stage: &Stage| {
        let dnf = stage.get("f");
        check(&dnf);
        for (name, value) in misread {
            assert_eq!(dnf.header(&name.to_lowercase()), Some(value), "{name}");
        }
        let yum = stage.ask("GET", "f", &[("User-Agent", "urlgrabber/3.10 yum/3.4.3")]);
        check(&yum);
        let misreads = |line: &str| {
            line.contains("location") || line.starts_with("link") || line.contains(" content-length:")
        };
        let lines = yum.headers.iter().map(|(name, value)| format!("{name}: {value}").to_lowercase());
        assert_eq!(lines.filter(|line| misreads(line)).collect::<Vec<_>>(), Vec::<String>::new());
    };
    for _ in 0..2 {
        check(&stage);
    }
    let before = stage.ask("GET", "f", &[("Range", "bytes=1-2")]);
    assert_eq!(
        (before.status, before.text(), all(&before, "x-two")),
        (206, "od".to_owned(), vec!["1", "2, 3"])
    );
    assert!(stage.node.sigterm().success());
    stage.node.launch();
    check(&stage);
    assert!(stage.get("f").header("repr-digest").is_some());
    assert_eq!(stage.asked("f"), 1);
}

#[test]
fn a_content_coding_of_the_origin_is_kept_as_it_is() {
    let stage = Stage::new("");
    stage.put("f", "coded", &[("Content-Encoding", "gzip"), ("Cache-Control", "max-age=1000")]);
    for _ in 0..2 {
        let response = stage.get("f");
        assert_eq!((response.text(), all(&response, "content-encoding")), ("coded".to_owned(), vec!["gzip"]));
        let part = stage.ask("GET", "f", &[("Range", "bytes=1-2")]);
        assert_eq!(
            (part.status, part.text(), part.header("content-encoding")),
            (206, "od".to_owned(), Some("gzip"))
        );
    }
    assert_eq!(stage.asked("f"), 1);
}

#[test]
fn too_many_fields_pass_by_uncached() {
    let stage = Stage::new("");
    let long = "x".repeat(9_000);
    stage.put("f", "body", &[("X-A", &long), ("X-B", &long), ("Cache-Control", "max-age=1000")]);
    for _ in 0..3 {
        let response = stage.get("f");
        assert_eq!((response.text(), response.header("x-b")), ("body".to_owned(), Some(long.as_str())));
    }
    assert_eq!(stage.asked("f"), 3);
}

#[test]
fn a_304_updates_the_stored_fields_for_good() {
    let mut stage = Stage::new("");
    stage.put(
        "f",
        "body",
        &[("Cache-Control", "no-cache"), ("X-A", "1"), ("X-A", "2"), ("X-B", "3"), ("Content-Type", "a/b")],
    );
    assert_eq!(all(&stage.get("f"), "x-a"), ["1", "2"]);
    stage.say(
        "f",
        &[
            ("Cache-Control", "max-age=1000"),
            ("X-A", "4"),
            ("Content-Type", "c/d"),
            ("Content-Encoding", "gzip"),
        ],
    );
    let check = |response: Response| {
        assert_eq!((response.status, response.text()), (200, "body".to_owned()));
        assert_eq!((all(&response, "x-a"), all(&response, "x-b")), (vec!["4"], vec!["3"]));
        assert_eq!(all(&response, "cache-control"), ["max-age=1000"]);
        assert_eq!(
            (response.header("content-type"), response.header("content-encoding")),
            (Some("a/b"), None)
        );
    };
    check(stage.get("f"));
    check(stage.get("f"));
    assert_eq!(stage.asked("f"), 2, "fresh again");
    assert!(stage.node.sigterm().success());
    stage.node.launch();
    check(stage.get("f"));
    assert_eq!(stage.asked("f"), 2);
}

#[test]
fn a_large_body_that_a_304_renewed_is_revalidated_after_a_restart() {
    let mut stage = Stage::new("cache.memory_object = \"1 KiB\"");
    stage.put("f", &"x".repeat(2000), &[("Cache-Control", "max-age=0"), ("X-A", "1")]);
    stage.get("f");
    stage.say("f", &[("Cache-Control", "max-age=1000"), ("X-A", "2")]);
    for _ in 0..2 {
        assert_eq!((stage.get("f").header("x-a"), stage.asked("f")), (Some("2"), 2));
    }
    assert!(stage.node.sigterm().success());
    stage.node.launch();
    assert_eq!((stage.get("f").header("x-a"), stage.asked("f")), (Some("2"), 3), "right, if not as cheap");
    assert!(stage.origin.seen_for("f")[2].header("if-none-match").is_some());
}

#[test]
fn a_304_of_another_version_is_not_believed() {
    let stage = Stage::new("");
    stage.put("f", "one", &[("Cache-Control", "no-cache")]);
    assert_eq!(stage.get("f").text(), "one");
    let mut acts = headers(&[("ETag", "\"another\"")]);
    acts.extend([Act::NoValidators, Act::Status(304)]);
    stage.origin.act("f", acts);
    // It insists even without a condition: that is a fault, and the answer that is here may cover it no more.
    assert_eq!(stage.get("f").status, 503);
    let last = stage.origin.seen_for("f").pop().unwrap();
    assert_eq!((stage.asked("f"), last.header("if-none-match")), (3, None));
}

#[test]
fn what_varies_is_not_shared() {
    let stage = Stage::new("");
    for (number, vary) in
        ["*", "Accept-Encoding, *", "User-Agent", "Accept-Encoding, Origin"].into_iter().enumerate()
    {
        let path = number.to_string();
        stage.put(&path, "x", &[("Cache-Control", "max-age=1000"), ("Vary", vary)]);
        for _ in 0..3 {
            assert_eq!((stage.get(&path).text(), stage.asked(&path) > 0), ("x".to_owned(), true));
        }
        assert_eq!(stage.asked(&path), 3, "{vary}");
    }
    stage.put("e", "x", &[("Cache-Control", "max-age=1000"), ("Vary", "Accept-Encoding")]);
    for coding in ["gzip", "br", "identity"] {
        let response = stage.ask("GET", "e", &[("Accept-Encoding", coding)]);
        assert_eq!((response.text(), response.header("vary")), ("x".to_owned(), Some("Accept-Encoding")));
    }
    assert_eq!(
        (stage.asked("e"), stage.origin.seen_for("e")[0].header("accept-encoding")),
        (1, Some("identity"))
    );
}

#[test]
fn what_may_not_be_stored_is_not() {
    let mut stage = Stage::new("");
    for (number, field) in [
        ("Cache-Control", "no-store, max-age=1000"),
        ("Cache-Control", "max-age=1000, private"),
        ("Cache-Control", "private=\"X-A\", max-age=1000"),
        ("Set-Cookie", "a=b"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = number.to_string();
        stage.put(&path, "x", &[field]);
        for _ in 0..3 {
            let response = stage.get(&path);
            assert_eq!((response.text(), response.header("set-cookie")), ("x".to_owned(), None));
            if field.0 == "Cache-Control" {
                assert_eq!(response.header("cache-control"), Some(field.1));
            }
        }
        assert_eq!(stage.asked(&path), 3, "{field:?}");
    }
    // What was stored before it was forbidden is gone, too.
    stage.put("f", "x", &[("Cache-Control", "max-age=0")]);
    stage.get("f");
    stage.say("f", &[("Cache-Control", "private")]);
    assert_eq!(stage.get("f").text(), "x", "by a 304");
    stage.origin.kill();
    assert_eq!(stage.get("f").status, 503);
}

#[test]
fn what_is_no_file_and_no_failure_is_passed_on_at_once() {
    // Who waited for any of these would wait for long.
    let stage = Stage::with_patience("60s", "");
    let elsewhere = ("Location", "https://elsewhere.example.org/x?y");
    for (status, field) in [
        (201, ("X-A", "1")),
        (202, ("X-A", "1")),
        (203, ("X-A", "1")),
        (204, ("X-A", "1")),
        (205, ("X-A", "1")),
        (299, ("X-A", "1")),
        (300, ("X-A", "1")),
        (301, elsewhere),
        (302, elsewhere),
        (303, elsewhere),
        (307, elsewhere),
        (308, elsewhere),
        (302, ("Location", "//elsewhere.example.org/")),
        (302, ("X-A", "no Location")),
        (400, ("X-A", "1")),
        (401, ("WWW-Authenticate", "Basic realm=\"x\"")),
        (402, ("X-A", "1")),
        (403, ("X-A", "1")),
        (404, ("X-A", "1")),
        (405, ("Allow", "POST")),
        (410, ("X-A", "1")),
        (418, ("X-A", "1")),
        (451, ("Link", "<https://example.org/law>; rel=\"blocked-by\"")),
        (501, ("X-A", "1")),
    ] {
        let has_body = status != 204 && status != 205;
        let path = format!("{status}{}", field.1.len());
        let text = if has_body { "as the origin says" } else { "" };
        stage
            .origin
            .act(&path, [passed(status, &[field, ("Content-Type", "text/x-odd"), ("ETag", "\"e\"")], text)]);
        let conditions =
            [("If-None-Match", "\"e\""), ("Range", "bytes=0-1"), ("User-Agent", "urlgrabber/3.10")];
        for (method, fields) in
            [("GET", &[][..]), ("GET", &conditions[..2]), ("GET", &conditions[2..]), ("HEAD", &[])]
        {
            let answer = stage.ask(method, &path, fields);
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
            let expected = if method == "HEAD" { "" } else { text };
            assert_eq!(answer.text(), expected, "{path}");
            // A redirect is one for yum 3, too.
            if fields.first() != Some(&conditions[2]) || field.0 == "Location" {
                assert_eq!(answer.header(&field.0.to_lowercase()), Some(field.1), "{path}");
            }
            assert_eq!(
                (answer.header("content-type"), answer.header("etag")),
                (Some("text/x-odd"), Some("\"e\""))
            );
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
            let length = (status != 204).then(|| text.len().to_string());
            assert_eq!(answer.header("content-length"), length.as_deref(), "{path}");
        }
    }
    let line = |status: u16| {
        stage.node.wait_access("it is logged", |line| line["status"] == status)["reason"].clone()
    };
    assert_eq!([451, 308, 404].map(line), ["unlisted", "moved", "not-found"]);
    // To yum 3, 201 with a Location would be a redirect.
    stage.origin.act("created", [passed(201, &[("Location", "/x")], "")]);
    assert_eq!(stage.get("created").header("location"), Some("/x"));
    assert_eq!(stage.ask("GET", "created", &[("User-Agent", "urlgrabber/3.10")]).header("location"), None);
    // A page that is too long, or whose end is uncertain, is told in the node's own words.
    for (path, head) in [("long", "Content-Length: 70000"), ("open", "X-Y: z")] {
        let head = format!(
            "HTTP/1.1 418 No\r\n{head}\r\nX-A: 1\r\nContent-Language: de\r\n\r\n{}",
            "x".repeat(70_000)
        );
        stage.origin.act(path, [Act::Raw(head.into_bytes())]);
        let answer = stage.get(path);
        assert_eq!(
            (answer.status, answer.header("x-a"), answer.header("content-language")),
            (418, Some("1"), None)
        );
        assert_eq!(answer.text(), "418 I'm a teapot\n");
    }
}

/// An answer written out by hand.
fn passed(status: u16, fields: &[(&str, &str)], body: &str) -> Act {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    Act::Raw(format!("HTTP/1.1 {status} As told\r\n{fields}{length}\r\n{body}").into_bytes())
}

#[test]
fn what_is_passed_on_answers_others_as_long_as_it_says() {
    let mut stage = Stage::new("cache.absent = \"1h\"");
    for (path, status, cache_control, asked) in [
        ("gone", 410, "", 1),
        ("none", 404, "max-age=1000", 1),
        ("private", 404, "private", 3),
        ("moved", 301, "max-age=1000", 1),
        ("found", 302, "", 3),
        ("denied", 401, "", 3),
        ("odd", 203, "", 3),
    ] {
        let mut acts = vec![Act::Status(status)];
        acts.extend(
            (!cache_control.is_empty()).then(|| Act::Header("Cache-Control", cache_control.to_owned())),
        );
        stage.put(path, "x", &[]);
        stage.origin.act(path, acts);
        for _ in 0..3 {
            assert_eq!(stage.get(path).status, status, "{path}");
        }
        assert_eq!(stage.asked(path), asked, "{path}");
    }
    // What it was before isn't served stale in its place.
    stage.put("f", "x", &[("Cache-Control", "max-age=0")]);
    assert_eq!(stage.get("f").status, 200);
    stage.origin.act("f", [Act::Status(451)]);
    assert_eq!(stage.get("f").status, 451);
    stage.origin.kill();
    assert_eq!(stage.get("f").status, 503);
}

#[test]
fn only_a_200_is_stored_and_absence_briefly() {
    let stage = Stage::new("cache.absent = \"1h\"");
    for (status, expected) in [(203, 203), (204, 204), (206, 503), (300, 300), (418, 418), (500, 503)] {
        let path = status.to_string();
        stage.put(&path, "x", &[]);
        stage.origin.act(&path, [Act::Status(status)]);
        assert_eq!(stage.get(&path).status, expected, "{status}");
        stage.say(&path, &[]);
        // A failure is remembered for a second.
        wait_until("the origin to be asked again", || stage.get(&path).text() == "x");
    }
    for status in [404, 410] {
        let path = status.to_string();
        stage.put(&path, "x", &[]);
        stage.origin.act(&path, [Act::Status(status)]);
        let absent = stage.get(&path);
        assert_eq!((absent.status, absent.header("cache-control")), (status, Some("no-store")));
        stage.say(&path, &[]);
        assert_eq!((stage.get(&path).status, stage.asked(&path)), (status, 1));
    }
    let hasty = Stage::new("cache.absent = \"0s\"");
    assert_eq!(hasty.get("f").status, 404);
    hasty.put("f", "x", &[]);
    assert_eq!(hasty.get("f").text(), "x");
}

#[test]
fn what_is_whole_and_not_fresh_is_not_joined() {
    const TIMES: usize = 40;
    let stage = Stage::new("");
    for (path, body, fields) in [
        ("small", "x".repeat(10), ("Cache-Control", "no-cache")),
        ("empty", String::new(), ("Cache-Control", "max-age=0")),
        ("large", "x".repeat(300_000), ("Expires", "0")),
    ] {
        stage.put(path, &body, &[fields]);
        let mut connection = client::Connection::open(stage.node.http()).unwrap();
        for number in 1..=TIMES {
            let response = connection.request("GET", &format!("/{path}"), &[]).unwrap();
            assert_eq!((response.status, response.body.len()), (200, body.len()), "{path}");
            assert_eq!(stage.asked(path), number, "{path}: asked for again each time");
        }
    }
}

#[test]
fn queries_of_what_no_repo_lists_count() {
    let mut stage = Stage::new("");
    stage.put("f", "x", &[("Cache-Control", "max-age=1000")]);
    let targets = ["f", "f?a=b", "f?a=c", "f?a=b&c=%2F", "f?a=b/"];
    let asked = |stage: &Stage| -> Vec<Option<String>> {
        stage.origin.seen_for("f").into_iter().map(|seen| seen.query).collect()
    };
    for _ in 0..2 {
        for target in targets {
            assert_eq!(stage.get(target).text(), "x", "{target}");
        }
    }
    let each = [None, Some("a=b"), Some("a=c"), Some("a=b&c=%2F"), Some("a=b/")];
    assert_eq!(asked(&stage), each.map(|query| query.map(str::to_owned)));
    // What can be no part of a name is left out: an empty one, one that is too long, or has a quote.
    for odd in ["f?", &format!("f?{}", "x".repeat(1025)), "f?a\"b"] {
        assert_eq!(stage.get(odd).status, 200, "{odd}");
    }
    assert_eq!(asked(&stage).len(), each.len());
    assert!(stage.node.sigterm().success());
    stage.node.launch();
    for target in targets {
        assert_eq!(stage.get(target).text(), "x", "{target}");
    }
    assert_eq!(asked(&stage).len(), each.len(), "they are kept over a restart");
    // A purge of the path is one of all its queries.
    stage.origin.act("none", [Act::Status(404)]);
    assert_eq!(stage.get("none?a").status, 404);
    for path in ["f", "none"] {
        let target = format!("/api/v1/purge?path=/{path}");
        assert_eq!(client::request(stage.node.admin(), "POST", &target, &[]).status, 200);
    }
    stage.origin.act("none", []);
    stage.origin.put("none", "there");
    assert_eq!((stage.get("none?a").text(), stage.get("f?a=b").text()), ("there".to_owned(), "x".to_owned()));
    assert_eq!(asked(&stage).len(), each.len() + 1);
    // A redirect of a directory is one, whatever is asked of it.
    stage.origin.act("dir", [Act::Status(301), Act::Header("Location", "http://other/dir/?a=b".to_owned())]);
    assert_eq!(stage.get("dir?a=b").header("location"), Some("/dir/"));

    let stage = Stage::new("cache.query = \"ignore\"");
    stage.put("f", "x", &[("Cache-Control", "max-age=1000")]);
    for target in targets {
        assert_eq!(stage.get(target).text(), "x", "{target}");
    }
    assert_eq!(asked(&stage), [None]);
}

#[test]
fn credentials_change_nothing() {
    let stage = Stage::new("");
    let secret =
        [("Authorization", "Basic c2VjcmV0"), ("Cookie", "a=b"), ("Proxy-Authorization", "Basic eA==")];
    for cache_control in ["max-age=1000", "public, max-age=1000", "private, max-age=1000"] {
        let path = cache_control.replace([' ', ',', '='], "-");
        stage.put(&path, "for all", &[("Cache-Control", cache_control)]);
        assert_eq!(stage.ask("GET", &path, &secret).text(), "for all");
        assert_eq!(stage.get(&path).text(), "for all");
        assert_eq!(stage.ask("GET", &path, &secret).text(), "for all");
        let private = cache_control.contains("private");
        assert_eq!(stage.asked(&path), if private { 3 } else { 1 }, "{cache_control}");
    }
    for seen in stage.origin.seen() {
        for (name, _) in secret {
            assert_eq!(seen.header(&name.to_lowercase()), None, "the origin answers the node alone");
        }
    }
}

#[test]
fn stale_while_revalidate_answers_at_once_and_asks_once() {
    for (config, cache_control) in [
        ("", "max-age=0, stale-while-revalidate=1000"),
        ("cache.stale_while_revalidate = \"1h\"", "max-age=0"),
    ] {
        let stage = Stage::new(config);
        stage.put("f", "old", &[("Cache-Control", cache_control)]);
        assert_eq!(stage.get("f").text(), "old");
        wait_until("it to be stored", || stage.node.status()["cache"]["flights"] == 0);
        stage.origin.put("f", "newer");
        stage.origin.act("f", [Act::Hang]);
        for _ in 0..5 {
            let response = client::get(stage.node.http(), "/f");
            assert_eq!((response.text(), is_stale(&response)), ("old".to_owned(), true));
        }
        let line = stage.node.wait_access("it is logged", |line| line["cache"] == "stale");
        assert_eq!(line["path"], "/f");
        wait_until("the origin to be asked", || stage.asked("f") == 2);
        stage.origin.release("f");
        wait_until("the new one", || stage.get("f").text() == "newer");
        assert_eq!(stage.asked("f"), 2);
    }
}

#[test]
fn stale_if_error_is_bounded_and_can_be_forbidden() {
    let stage = Stage::new("cache.stale_if_error = \"1h\"");
    // All are stale when they come, by 100 s.
    for (number, (cache_control, more, covered)) in [
        ("max-age=0", "", true),
        ("max-age=0", ", stale-if-error=1000", true),
        ("max-age=0", ", stale-if-error=50", false),
        ("max-age=0", ", stale-if-error=0", false),
        ("max-age=0", ", stale-if-error=1000, must-revalidate", false),
        ("max-age=0", ", stale-if-error=1000, proxy-revalidate", false),
        ("max-age=0", ", stale-while-revalidate=1000, stale-if-error=50", true),
        ("s-maxage=0", ", stale-if-error=1000", false),
        ("no-cache", ", stale-if-error=1000", false),
    ]
    .into_iter()
    .enumerate()
    {
        let (path, cache_control) = (number.to_string(), format!("{cache_control}{more}"));
        stage.put(&path, "kept", &[("Cache-Control", &cache_control), ("Age", "100")]);
        assert_eq!(stage.get(&path).text(), "kept");
        for status in [500, 502, 503, 504] {
            stage.origin.act(&path, [Act::Status(status)]);
            let response = stage.get(&path);
            let expected = if covered { (200, true, true) } else { (503, false, false) };
            let found = (response.status, is_stale(&response), age(&response).is_some_and(|age| age >= 100));
            assert_eq!(found, expected, "{cache_control}, {status}");
            assert_eq!(stage.ask("HEAD", &path, &[]).status, expected.0, "{cache_control}, {status}");
        }
    }
    assert!(stage.node.metric("freshet_store_events_total{event=\"served_stale\"}") > Some(8.0));
    let none = Stage::new("cache.stale_if_error = \"0s\"");
    none.put("f", "kept", &[("Cache-Control", "max-age=0")]);
    none.get("f");
    none.origin.act("f", [Act::Status(500)]);
    assert_eq!(none.get("f").status, 503);
}

#[test]
fn a_dead_origin_is_covered_over_a_restart() {
    let mut stage = Stage::new("");
    stage.put("f", "kept", &[("Cache-Control", "max-age=0"), ("X-A", "1")]);
    stage.get("f");
    stage.origin.kill();
    for _ in 0..2 {
        let response = stage.get("f");
        assert_eq!(
            (response.text(), response.header("x-a"), is_stale(&response)),
            ("kept".to_owned(), Some("1"), true)
        );
        assert!(stage.node.sigterm().success());
        stage.node.launch();
    }
}

#[test]
fn caches_downstream_are_told_what_the_origin_says() {
    let stage = Stage::new("");
    stage.put("silent", "x", &[]);
    stage.put("pragma", "x", &[("Pragma", "no-cache")]);
    stage.put(
        "stated",
        "x",
        &[("Cache-Control", "max-age=1000"), ("Cache-Control", "x=y"), ("Date", PAST), ("Age", "5")],
    );
    stage.put("expires", "x", &[("Expires", FUTURE)]);
    for _ in 0..2 {
        assert_eq!(all(&stage.get("silent"), "cache-control"), ["no-cache"]);
        assert_eq!(all(&stage.get("pragma"), "cache-control"), ["no-cache"]);
        let stated = stage.get("stated");
        assert_eq!(all(&stated, "cache-control"), ["max-age=1000", "x=y"]);
        assert_eq!(stated.header("date"), Some(PAST));
        let expires = stage.get("expires");
        assert_eq!((all(&expires, "cache-control").len(), expires.header("expires")), (0, Some(FUTURE)));
    }
}

#[test]
fn a_304_of_ours_guides_the_update_of_what_the_client_has() {
    let stage = Stage::new("");
    let fields = [
        ("Cache-Control", "max-age=1000"),
        ("Expires", FUTURE),
        ("Vary", "Accept-Encoding"),
        ("Content-Location", "/y"),
        ("X-A", "1"),
        ("Content-Language", "de"),
    ];
    stage.put("f", "body", &fields);
    let whole = stage.get("f");
    let etag = whole.header("etag").unwrap();
    let several = format!("\"x\", W/\"y\" , {etag}");
    let modified = whole.header("last-modified").unwrap();
    for condition in
        [("If-None-Match", several.as_str()), ("If-None-Match", "*"), ("If-Modified-Since", modified)]
    {
        let response = stage.ask("GET", "f", &[condition]);
        assert_eq!((response.status, response.text()), (304, String::new()), "{condition:?}");
        for name in ["etag", "date", "cache-control", "expires", "vary"] {
            assert_eq!(response.header(name), whole.header(name), "{name}");
        }
        assert!(age(&response).is_some());
        for name in
            ["content-location", "x-a", "content-language", "content-type", "content-length", "accept-ranges"]
        {
            assert_eq!(response.header(name), None, "{name}");
        }
    }
    assert_eq!(stage.ask("GET", "f", &[("If-None-Match", "\"x\", \"y\"")]).status, 200);
    let range = ("Range", "bytes=1-2");
    for (validator, status) in [(etag, 206), (modified, 206), ("\"x\"", 200), (PAST, 200)] {
        assert_eq!(stage.ask("GET", "f", &[range, ("If-Range", validator)]).status, status, "{validator}");
    }
    stage.origin.act("g", [Act::NoValidators]);
    stage.origin.put("g", "x");
    assert_eq!((stage.get("g").text(), stage.asked("f")), ("x".to_owned(), 1));
}

#[test]
fn directives_of_requests_do_not_reach_the_origin() {
    let stage = Stage::new("");
    stage.put("f", "x", &[("Cache-Control", "max-age=1000")]);
    stage.get("f");
    for directive in ["no-cache", "no-store", "max-age=0", "min-fresh=5000", "only-if-cached"] {
        let response = stage.ask("GET", "f", &[("Cache-Control", directive), ("Pragma", "no-cache")]);
        assert_eq!((response.status, response.text()), (200, "x".to_owned()), "{directive}");
    }
    for method in ["PUT", "POST", "DELETE", "PATCH"] {
        assert_eq!(stage.ask(method, "f", &[]).status, 405, "nor does a method invalidate anything");
    }
    assert_eq!((stage.get("f").text(), stage.asked("f")), ("x".to_owned(), 1));
}

#[test]
fn repomd_is_served_while_the_origin_is_silent_for_a_bounded_time() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let mut origin = Origin::serve(tree.root());
    let keys = |stale: &str| {
        let keys = format!(
            "origin.connect_timeout = \"2s\"\norigin.patience = \"0s\"\npush.poll = \"100ms\"\npush.warm_for = \"1s\"\npush.stale = \"{stale}\"\n"
        );
        keys + &config::updates("24h")
    };
    let mut node = Node::start(&config::cached(&origin, &keys("7days")));
    node.wait_ready();
    let (repomd, package) =
        (format!("/{REPO}/repodata/repomd.xml"), format!("/{REPO}/{}", repo::rpm(3, Push::First)));
    // A busy host may have missed some polls.
    let confirmed = wait_for("it to be confirmed", || Some(node.get(&repomd)).filter(|it| !is_stale(it)));
    assert_eq!(confirmed.status, 200);
    assert_eq!(confirmed.header("cache-control"), Some("no-cache"));
    assert_eq!(node.get(&package).status, 200);
    let hashed = repo::files(&tree.repo()).into_iter().find(|file| file.contains("-primary.xml")).unwrap();
    let hashed = node.get(&format!("/{REPO}/{hashed}"));
    assert_eq!(
        (hashed.header("cache-control"), hashed.header("age")),
        (Some("public, max-age=31536000, immutable"), None)
    );
    node.wait_status("it is confirmed", |status| status["repos"][0]["currency"] == "confirmed");

    origin.kill();
    let stale = wait_for("it to be called stale", || Some(node.get(&repomd)).filter(is_stale));
    assert!(stale.status == 200 && stale.body == confirmed.body);
    let status = node.status();
    assert_eq!(status["repos"][0]["currency"], "unconfirmed");
    assert!(
        node.metric("freshet_repo_confirmed_timestamp_seconds{repo=\"updates/7.9.2009/x86_64\"}") > Some(1e9)
    );
    node.wait_access("it is logged", |line| line["path"] == repomd.as_str() && line["cache"] == "stale");

    assert!(node.sigterm().success());
    node.configure(&config::cached(&origin, &keys("1s")));
    node.launch();
    wait_until("it to expire", || node.get(&repomd).status == 503);
    assert_eq!(node.status()["repos"][0]["currency"], "expired");
    assert_eq!(node.get(&package).status, 200, "a transaction that has begun can end");
    assert_eq!(node.get("/mirrorlist?repo=updates&release=7.9.2009&arch=x86_64").status, 200);

    origin.revive();
    let again =
        wait_for("it to be served again", || Some(node.get(&repomd)).filter(|again| again.status == 200));
    assert!(again.body == confirmed.body);
    wait_until("it to be confirmed", || !is_stale(&node.get(&repomd)));
}
