//! The load against a server of a few lines, which does what a test tells it to.

use super::*;
use freshet::clock::monotonic;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::thread;

/// What a server makes of a request's path: the bytes that it answers, and whether it ends the connection then.
type Answer = fn(&str) -> (Vec<u8>, bool);

/// Serves on loopback until the process ends, a thread for each connection.
fn serve(answer: Answer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || converse(socket.try_clone().unwrap(), socket, answer));
        }
    });
    addr
}

/// Answers the requests on a connection.
fn converse(from: impl Read, mut to: impl Write, answer: Answer) {
    let mut lines = BufReader::new(from).lines().map_while(Result::ok);
    while let Some(first) = lines.next() {
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
        let (bytes, ends) = answer(&path);
        if to.write_all(&bytes).is_err() || ends {
            return;
        }
    }
}

fn good(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn plan(target: SocketAddr) -> Plan {
    Plan {
        target,
        host: "localhost".to_owned(),
        paths: ["/".to_owned()].into(),
        connections: 4,
        wire: Wire::Plain,
        status: 200,
        pace: Pace::Closed,
        verify: None,
        sources: Vec::new(),
        stop: Arc::default(),
    }
}

const SPAN: Duration = Duration::from_millis(200);

#[test]
fn a_closed_loop_counts_answers_and_their_bytes() {
    let target = serve(|_| (good(&[7; 100_000]), false));
    let mut engine = Engine::connect(plan(target)).unwrap();
    for _ in 0..2 {
        let outcome = engine.run(SPAN).unwrap();
        assert_eq!((outcome.failures, outcome.first_failure), (0, None));
        assert!(outcome.requests > 0 && outcome.latency_us.len() == outcome.requests);
        // Four answers may have begun in the run before, or not have ended in this one.
        assert!(outcome.body_bytes.abs_diff(outcome.requests * 100_000) <= 400_000, "{}", outcome.body_bytes);
        assert!(outcome.took >= SPAN);
    }
    let once = Engine::connect(plan(target)).unwrap().once().unwrap();
    assert_eq!((once.requests, once.body_bytes), (4, 400_000));
}

#[test]
fn every_connection_asks_for_all_paths_and_comes_from_its_address() {
    let target = serve(|path| (good(path.as_bytes()), false));
    let paths: Vec<String> = (0..4).map(|number| format!("/{}", "x".repeat(number))).collect();
    let sources = (1..=4).map(|last| IpAddr::from([127, 9, 9, last])).collect();
    let outcome =
        Engine::connect(Plan { paths: paths.into(), sources, ..plan(target) }).unwrap().once().unwrap();
    assert_eq!((outcome.requests, outcome.body_bytes, outcome.failures), (4, 1 + 2 + 3 + 4, 0));
}

#[test]
fn wrong_answers_are_failures() {
    let cases: [(&str, Answer); 4] = [
        ("status 404", |_| (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(), false)),
        ("closed", |_| (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort".to_vec(), true)),
        ("closed", |_| (Vec::new(), true)),
        ("unknown length", |_| (b"HTTP/1.1 200 OK\r\n\r\nhow long?".to_vec(), false)),
    ];
    for (what, answer) in cases {
        let outcome = Engine::connect(plan(serve(answer))).unwrap().once().unwrap();
        assert_eq!((outcome.requests, outcome.failures), (0, 4), "{what}");
        assert!(outcome.first_failure.as_ref().is_some_and(|first| first.contains(what)), "{outcome:?}");
    }
}

#[test]
fn bodies_are_verified_where_that_is_asked_for() {
    let target = serve(|path| (good(path.as_bytes()), false));
    let with = |expected: &[u8]| Plan { verify: Some(Sha256::of(expected)), ..plan(target) };
    assert_eq!(Engine::connect(with(b"/")).unwrap().once().unwrap().failures, 0);
    let outcome = Engine::connect(with(b"?")).unwrap().once().unwrap();
    assert_eq!((outcome.requests, outcome.failures), (0, 4));
}

#[test]
fn a_stall_counts_for_all_requests_that_were_due_meanwhile() {
    // One request in the middle takes a fifth of a second. There is one connection, so the twenty that are due meanwhile wait.
    static ASKED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let target = serve(|_| {
        if ASKED.fetch_add(1, Ordering::Relaxed) == 20 {
            thread::sleep(Duration::from_millis(200));
        }
        (good(b"x"), false)
    });
    let plan = Plan { connections: 1, pace: Pace::Open { rate: 100.0 }, ..plan(target) };
    let outcome = Engine::connect(plan).unwrap().run(Duration::from_millis(600)).unwrap();
    assert_eq!((outcome.requests, outcome.failures), (60, 0), "all that were due");
    let waited = outcome.latency_us.iter_recorded().filter(|value| value.value_iterated_to() > 50_000);
    let waited: u64 = waited.map(|value| value.count_at_value()).sum();
    assert!(
        (10..=40).contains(&waited),
        "{waited} of 60 waited: a client that waits with it would count one"
    );
}

#[test]
fn a_run_can_be_broken_off() {
    let target = serve(|_| (good(b"x"), false));
    let plan = plan(target);
    let stop = plan.stop.clone();
    let mut engine = Engine::connect(plan).unwrap();
    let begun = monotonic();
    thread::scope(|scope| {
        let run = scope.spawn(move || engine.run(Duration::from_secs(60)).map(drop));
        stop.store(true, Ordering::Relaxed);
        assert!(run.join().unwrap().unwrap_err().to_string().contains("interrupted"));
    });
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn tls_is_spoken_and_certificates_are_looked_at() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let certificate = dir.path().join("cert.pem");
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let target = serve_tls(Arc::new(config));
    let wire = Wire::Tls(trusting(&certificate, b"http/1.1").unwrap());
    let body = [5; 300_000];
    let plan = Plan { wire, verify: Some(Sha256::of(&body)), ..plan(target) };
    let mut engine = Engine::connect(plan.clone()).unwrap();
    let outcome = engine.run(SPAN).unwrap();
    assert!(outcome.requests > 0 && outcome.failures == 0, "{outcome:?}");
    assert!(Engine::connect(Plan { host: "elsewhere".to_owned(), ..plan }).is_err(), "another name");
}

fn serve_tls(config: Arc<rustls::ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let session = rustls::ServerConnection::new(config.clone()).unwrap();
            thread::spawn(move || {
                let mut stream = rustls::StreamOwned::new(session, socket);
                let mut request = [0; 4096];
                // A request of this client arrives in one piece.
                while stream.read(&mut request).is_ok_and(|read| read > 0) {
                    if stream.write_all(&good(&[5; 300_000])).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}
