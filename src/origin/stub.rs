//! A scripted origin for tests: what it writes, byte by byte, and where it waits, is up to the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A server on port 0 that closes each connection after one answer.
pub(crate) struct Stub {
    /// Ends in a slash.
    pub(crate) url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    /// `answer` gets the number of the request (from 0), its head in lower case, and where to write.
    pub(crate) fn start(answer: impl Fn(usize, &str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, answer) = (Arc::clone(&heads), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || converse(stream, &seen, &*answer));
            }
        });
        Self { url, heads }
    }

    /// The same answer to everybody.
    pub(crate) fn fixed(answer: Vec<u8>) -> Self {
        Self::start(move |_, _, stream| send(stream, &answer))
    }

    /// The heads of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn converse(
    mut stream: TcpStream,
    heads: &Mutex<Vec<String>>,
    answer: &(dyn Fn(usize, &str, &mut TcpStream) + Send + Sync),
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let number = {
        let mut heads = heads.lock().unwrap();
        heads.push(head.clone());
        heads.len() - 1
    };
    answer(number, &head, &mut stream);
}

/// Writes; a peer that left is not the test's business.
pub(crate) fn send(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// A head with the given lines, and a body with its length.
pub(crate) fn response(status: &str, lines: &[&str], body: &[u8]) -> Vec<u8> {
    let mut all = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for line in lines {
        all.push_str(line);
        all.push_str("\r\n");
    }
    all.push_str("\r\n");
    let mut all = all.into_bytes();
    all.extend_from_slice(body);
    all
}
