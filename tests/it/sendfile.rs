//! Bodies that sendfile sent are the files, byte for byte, however they are asked for.

use super::support::client::{self, Connection};
use super::support::config;
use super::support::node::Node;
use super::support::scratch;
use std::fs;

const LENGTH: usize = 5_000_017;

/// Header fields of a request.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// Bytes that differ at every offset modulo anything small.
fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn sent_by_sendfile(node: &Node) -> f64 {
    node.metric("freshet_response_body_bytes_total{path=\"sendfile\"}").unwrap_or_default()
}

#[test]
fn full_range_and_multi_range_pipelined_and_kept_alive() {
    let tree = scratch();
    let (a, b) = (content(1, LENGTH), content(2, 70_001));
    fs::write(tree.path().join("a.bin"), &a).unwrap();
    fs::write(tree.path().join("b.bin"), &b).unwrap();
    let node = Node::start(&config::in_place(tree.path(), ""));

    let mut connection = Connection::open(node.http()).unwrap();
    let many: String =
        (0..256).map(|i| format!("{}-{}", i * 19_000, i * 19_000 + 99)).collect::<Vec<_>>().join(",");
    let many = format!("bytes={many}");
    let mut pipeline = String::new();
    let requests: [(&str, Option<&str>); 7] = [
        ("/a.bin", None),
        ("/b.bin", None),
        ("/a.bin", Some("bytes=1048570-1048590")),
        ("/a.bin", Some("bytes=4999000-")),
        ("/a.bin", Some("bytes=-17")),
        ("/a.bin", Some(&many)),
        ("/b.bin", Some("bytes=70000-70000")),
    ];
    for (target, range) in requests {
        let range: Vec<(&str, &str)> = range.map(|range| ("Range", range)).into_iter().collect();
        pipeline += &client::head("GET", target, &range);
    }
    connection.send(pipeline).unwrap();

    let mut body_bytes = 0;
    let mut next = || {
        let response = connection.response("GET").unwrap();
        body_bytes += response.body.len();
        response
    };
    assert!(next().body == a);
    assert!(next().body == b);
    assert!(next().body == a[1_048_570..=1_048_590]);
    assert!(next().body == a[4_999_000..]);
    assert!(next().body == a[LENGTH - 17..]);
    let multi = next();
    assert_eq!(multi.status, 206);
    let parts = parts(multi.header("content-type").unwrap(), &multi.body);
    assert_eq!(parts.len(), 256);
    for (i, (range, bytes)) in parts.iter().enumerate() {
        let start = i * 19_000;
        assert_eq!(range, &format!("bytes {start}-{}/{LENGTH}", start + 99));
        assert!(bytes == &a[start..start + 100], "part {i}");
    }
    assert!(next().body == b[70_000..]);

    // Multipart heads and closing lines come from memory; all else went by sendfile.
    let heads = multi.body.len() - 256 * 100;
    node.wait_access("the last one", |line| line["range"] == "bytes=70000-70000");
    assert_eq!(sent_by_sendfile(&node), (body_bytes - heads) as f64);
    assert_eq!(node.metric("freshet_responses_cut_total"), Some(0.0));
}

#[test]
fn many_clients_at_once_get_the_same_bytes() {
    let tree = scratch();
    let file = content(3, 3_000_001);
    fs::write(tree.path().join("f.bin"), &file).unwrap();
    let node = Node::start(&config::in_place(tree.path(), ""));
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                let mut connection = Connection::open(node.http()).unwrap();
                for _ in 0..4 {
                    assert!(connection.request("GET", "/f.bin", &[]).unwrap().body == file);
                }
            });
        }
    });
    node.wait_access("all", |_| node.access().len() == 128);
    assert_eq!(sent_by_sendfile(&node), 128.0 * file.len() as f64);
}

#[test]
fn conditions_and_heads() {
    let tree = scratch();
    fs::write(tree.path().join("f.bin"), content(4, 1000)).unwrap();
    let node = Node::start(&config::in_place(tree.path(), ""));
    let get =
        |method: &str, headers: &[(&str, &str)]| client::request(node.http(), method, "/f.bin", headers);
    let whole = get("GET", &[]);
    let (etag, modified) = (whole.header("etag").unwrap(), whole.header("last-modified").unwrap());
    let cases: [(&str, Fields<'_>, u16, usize); 11] = [
        ("HEAD", &[], 200, 0),
        ("HEAD", &[("Range", "bytes=0-1")], 200, 0),
        ("GET", &[("If-None-Match", etag)], 304, 0),
        ("GET", &[("If-None-Match", "*")], 304, 0),
        ("GET", &[("If-None-Match", "\"x\"")], 200, 1000),
        ("GET", &[("If-Modified-Since", modified)], 304, 0),
        ("GET", &[("If-Match", "\"x\"")], 412, usize::MAX),
        ("GET", &[("Range", "bytes=0-1"), ("If-Range", etag)], 206, 2),
        ("GET", &[("Range", "bytes=0-1"), ("If-Range", "\"x\"")], 200, 1000),
        ("GET", &[("Range", "bytes=1000-")], 416, usize::MAX),
        ("GET", &[("Range", "lines=1-2")], 200, 1000),
    ];
    for (method, headers, status, length) in cases {
        let response = get(method, headers);
        assert_eq!(response.status, status, "{method} {headers:?}");
        assert!(
            length == usize::MAX || response.body.len() == length,
            "{method} {headers:?}: {}",
            response.body.len()
        );
    }
    assert_eq!(get("HEAD", &[]).header("content-length"), Some("1000"));
    assert_eq!(get("GET", &[("Range", "bytes=1000-")]).header("content-range"), Some("bytes */1000"));
    assert!(whole.header("via").is_some_and(|via| via.contains("node")));
    assert!(whole.header("cache-status").is_some_and(|status| status.starts_with("node; hit")), "{whole:?}");
}

/// The parts of a multipart/byteranges body: Content-Range and bytes.
fn parts(content_type: &str, body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let (_, boundary) = content_type.split_once("boundary=").expect("a boundary");
    let find = |from: usize, what: &[u8]| {
        body[from..].windows(what.len()).position(|w| w == what).map(|at| from + at)
    };
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut at = find(0, delimiter.as_bytes()).expect("a first part") + delimiter.len();
    while !body[at..].starts_with(b"--") {
        let head_end = find(at, b"\r\n\r\n").expect("the end of a part's head");
        let head = String::from_utf8(body[at..head_end].to_vec()).unwrap();
        let range = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-range: ").map(str::to_owned))
            .expect("a Content-Range");
        let numbers: Vec<usize> =
            range.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
        let start = head_end + 4;
        let end = start + numbers[1] - numbers[0] + 1;
        parts.push((range, body[start..end].to_vec()));
        assert_eq!(&body[end..end + 2 + delimiter.len()], format!("\r\n{delimiter}").as_bytes());
        at = end + 2 + delimiter.len();
    }
    parts
}
