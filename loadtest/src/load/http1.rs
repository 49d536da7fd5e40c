//! Answers in HTTP/1.1, as far as this client needs them: a head, and a body of a known length. Pure.

use super::{Fault, Sink};
use std::io::Write;

/// The longest head that is read.
const MOST_HEAD_BYTES: usize = 16 * 1024;

/// A request, as bytes.
pub fn request(out: &mut Vec<u8>, path: &str, host: &str, agent: &str) {
    write!(out, "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\n\r\n")
        .expect("writing to memory works");
}

/// Where a connection stands.
#[derive(Debug, Default)]
pub struct Http1 {
    /// The beginning of a head that came in pieces.
    head: Vec<u8>,
    /// Status, and the bytes of the body to come.
    body: Option<(u16, u64)>,
}

impl Http1 {
    /// Bytes of the body that are still to come; zero while the head is.
    pub fn left(&self) -> u64 {
        self.body.map_or(0, |(_, left)| left)
    }

    /// Takes what was received. Returns the status once the answer is complete.
    pub fn take(&mut self, mut bytes: &[u8], sink: &mut Sink) -> Result<Option<u16>, Fault> {
        if self.body.is_none() {
            let Some(rest) = self.take_head(bytes)? else { return Ok(None) };
            bytes = rest;
        }
        if bytes.len() as u64 > self.left() {
            return Err(Fault::Protocol("longer than it says"));
        }
        sink.take(bytes);
        Ok(self.passed(bytes.len()))
    }

    /// So many bytes of the body were thrown away. Returns the status once the answer is complete.
    pub fn passed(&mut self, bytes: usize) -> Option<u16> {
        let (status, left) = self.body?;
        let left = left.saturating_sub(bytes as u64);
        self.body = (left > 0).then_some((status, left));
        (left == 0).then_some(status)
    }

    /// Returns what follows the head, once that is complete.
    fn take_head<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, Fault> {
        let before = self.head.len();
        let parsed = if before == 0 {
            parse(bytes)?
        } else {
            self.head.extend_from_slice(bytes);
            parse(&self.head)?
        };
        let Some(head) = parsed else {
            if before == 0 {
                self.head.extend_from_slice(bytes);
            }
            if self.head.len() > MOST_HEAD_BYTES {
                return Err(Fault::Protocol("all head"));
            }
            return Ok(None);
        };
        self.head.clear();
        self.body = Some((head.status, head.length));
        Ok(Some(&bytes[head.bytes - before..]))
    }
}

struct Head {
    status: u16,
    length: u64,
    bytes: usize,
}

fn parse(bytes: &[u8]) -> Result<Option<Head>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; 48];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_bytes) =
        response.parse(bytes).map_err(|_| Fault::Protocol("no HTTP/1.1"))?
    else {
        return Ok(None);
    };
    let length = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok());
    Ok(Some(Head {
        status: response.code.unwrap_or_default(),
        length: length.ok_or(Fault::Protocol("of unknown length"))?,
        bytes: head_bytes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use freshet::repo::{Hasher, Sha256};

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-LENGTH:  5\r\nX: y\r\n\r\nhello";

    #[test]
    fn an_answer_is_the_same_however_it_is_cut() {
        for first in 1..ANSWER.len() {
            for second in first..ANSWER.len() {
                let mut sink = Sink { bytes: 0, hasher: Some(Hasher::default()) };
                let mut http = Http1::default();
                let mut ended = None;
                for piece in [&ANSWER[..first], &ANSWER[first..second], &ANSWER[second..]] {
                    assert_eq!(ended, None, "cut at {first} and {second}");
                    ended = http.take(piece, &mut sink).unwrap();
                }
                assert_eq!((ended, sink.bytes, http.left()), (Some(200), 5, 0));
                assert_eq!(sink.hasher.unwrap().finish(), Sha256::of(b"hello"));
            }
        }
    }

    #[test]
    fn bodies_may_be_thrown_away() {
        let mut http = Http1::default();
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n1234567890";
        let mut sink = Sink::default();
        assert_eq!(http.take(head, &mut sink).unwrap(), None);
        assert_eq!((http.left(), sink.bytes), (990, 10));
        assert_eq!(http.passed(900), None);
        assert_eq!(http.passed(90), Some(200));
    }

    #[test]
    fn what_cannot_be_counted_is_a_fault() {
        let take = |bytes: &[u8]| Http1::default().take(bytes, &mut Sink::default()).map(|_| ());
        assert!(take(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(take(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(take(b"SSH-2.0-x\r\n\r\n").is_err());
        assert!(take(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab").is_err());
        assert!(take(&[b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'a'; 20_000]].concat()).is_err());
        assert!(take(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").is_ok());
    }
}
