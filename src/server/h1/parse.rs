//! The head of an HTTP/1 request (RFC 9112), from bytes. Pure.

use crate::http::Forwarded;
use crate::server::head::{CONDITIONS, Field, Head, Hosts, Target, kept_agent};
use http::header::HeaderValue;
use http::{HeaderMap, Method, StatusCode, Version};
use httparse::{Error, Status};
use std::mem::MaybeUninit;

/// The longest head. A multi-range request of librepo carries up to 16 kB of header fields.
pub const MOST_BYTES: usize = 64 << 10;
/// Fields of a head, at most.
const MOST_FIELDS: usize = 100;

/// What there is of a request.
#[derive(Debug)]
pub enum Parsed {
    /// The head goes on.
    Partial,
    /// A head of so many bytes.
    Whole(Box<Request>, usize),
    /// No request; the connection can't go on.
    Bad(StatusCode, &'static str),
}

/// A request, and what it says of its connection.
#[derive(Debug)]
pub struct Request {
    /// Its head.
    pub head: Head,
    /// The client wants to go on with the connection (RFC 9112, section 9.3).
    pub persists: bool,
}

/// Whether `bytes` has the end of a head; `from` is how much of them had none before.
#[must_use]
pub fn is_ended(bytes: &[u8], from: usize) -> bool {
    let mut at = from.saturating_sub(3);
    while let Some(newline) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        at += newline + 1;
        if matches!(bytes[at..], [b'\n', ..] | [b'\r', b'\n', ..]) {
            return true;
        }
    }
    false
}

/// Whether `bytes` begin with what no request begins with: TLS, say. Then its end need not be waited for.
#[must_use]
pub fn is_alien(bytes: &[u8]) -> bool {
    let first = bytes.iter().find(|byte| !matches!(byte, b'\r' | b'\n'));
    first.is_some_and(|byte| !byte.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Parses a head.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(Status::Complete(length)) => match read(&request) {
            Ok(request) => Parsed::Whole(Box::new(request), length),
            Err(why) => Parsed::Bad(StatusCode::BAD_REQUEST, why),
        },
        Ok(Status::Partial) => Parsed::Partial,
        Err(Error::TooManyHeaders) => {
            Parsed::Bad(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "more than 100 header fields")
        }
        Err(Error::Version) => match with_known_version(bytes) {
            Some(known) => parse(&known),
            None => Parsed::Bad(StatusCode::BAD_REQUEST, "not HTTP/1"),
        },
        Err(Error::Token) => Parsed::Bad(StatusCode::BAD_REQUEST, "the request line is malformed"),
        Err(_) => Parsed::Bad(StatusCode::BAD_REQUEST, "the head is malformed"),
    }
}

/// A later HTTP/1 is read as 1.1, the highest minor version that is known here (RFC 9110, section 2.5): `bytes` with that
/// in the place of `HTTP/1.2` to `HTTP/1.9`, if it stands there.
fn with_known_version(bytes: &[u8]) -> Option<Vec<u8>> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let end = start + bytes[start..].iter().position(|byte| *byte == b'\n')?;
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let (minor, before) = line.split_last()?;
    (before.ends_with(b" HTTP/1.") && matches!(minor, b'2'..=b'9')).then(|| {
        let mut known = bytes.to_vec();
        known[before.len()] = b'1';
        known
    })
}

fn read(request: &httparse::Request<'_, '_>) -> Result<Request, &'static str> {
    let method = request.method.unwrap_or_default();
    let version = if request.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let (mut keeps, mut closes) = (version == Version::HTTP_11, false);
    let mut head = Head {
        method: Method::from_bytes(method.as_bytes()).map_err(|_| "the method is malformed")?,
        target: Target::new(request.path.unwrap_or_default()),
        version,
        hosts: Hosts::Missing,
        has_body: false,
        agent: Box::default(),
        forwarded: Forwarded::default(),
        conditions: HeaderMap::new(),
    };
    for field in &*request.headers {
        let value = field.value.trim_ascii();
        match Field::named(field.name) {
            Some(Field::Host) => head.hosts = head.hosts.and(value),
            Some(Field::UserAgent) if head.agent.is_empty() => head.agent = kept_agent(value),
            None | Some(Field::UserAgent) => {}
            Some(Field::ForwardedFor) => head.forwarded.note_for(value),
            Some(Field::ForwardedProto) => head.forwarded.note_proto(value),
            // Whatever follows the head is not read; only that something does is of interest.
            Some(Field::ContentLength) => {
                head.has_body |= value.is_empty() || value.iter().any(|byte| *byte != b'0');
            }
            Some(Field::TransferEncoding) => head.has_body = true,
            Some(Field::Connection) => {
                for option in value.split(|byte| *byte == b',') {
                    closes |= option.trim_ascii().eq_ignore_ascii_case(b"close");
                    keeps |= option.trim_ascii().eq_ignore_ascii_case(b"keep-alive");
                }
            }
            Some(Field::Condition(which)) => {
                let value = HeaderValue::from_bytes(value).map_err(|_| "a field has a malformed value")?;
                head.conditions.append(CONDITIONS[which].clone(), value);
            }
        }
    }
    Ok(Request { head, persists: keeps && !closes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Whole(request, length) if length == text.len() => *request,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn what_a_head_says() {
        let text = "GET /a?b HTTP/1.1\r\nHost: h\r\nUser-Agent:  libdnf \r\nrange: bytes=0-1\r\nAccept: */*\r\nIF-RANGE: \"x\"\r\n\r\n";
        let Request { head, persists } = request(text);
        assert_eq!(
            (head.method.as_str(), head.target.as_str(), head.version),
            ("GET", "/a?b", Version::HTTP_11)
        );
        assert_eq!(
            (head.hosts, head.has_body, &*head.agent, persists),
            (Hosts::One, false, &b"libdnf"[..], true)
        );
        assert_eq!(head.conditions["range"], "bytes=0-1");
        assert_eq!(
            (head.conditions.len(), &head.conditions["if-range"]),
            (2, &HeaderValue::from_static("\"x\""))
        );
    }

    #[test]
    fn a_later_minor_version_is_read_as_the_known_one() {
        for text in [
            "GET /a HTTP/1.2\r\nHost: h\r\n\r\n",
            "GET /a HTTP/1.9\nHost: h\n\n",
            "\r\n\r\nGET /a HTTP/1.3\r\nHost: h\r\n\r\n",
        ] {
            let Request { head, persists } = request(text);
            assert_eq!(
                (head.version, head.target.as_str(), persists),
                (Version::HTTP_11, "/a", true),
                "{text:?}"
            );
        }
    }

    #[test]
    fn whether_the_connection_goes_on() {
        for (version, connection, persists) in [
            ("1.1", "", true),
            ("1.1", "connection: close\r\n", false),
            ("1.1", "Connection: TE, Close\r\n", false),
            ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: close, keep-alive\r\n", false),
            ("1.0", "Connection: closed\r\n", false),
        ] {
            let text = format!("GET / HTTP/{version}\r\n{connection}\r\n");
            assert_eq!(request(&text).persists, persists, "{text:?}");
        }
    }

    #[test]
    fn anything_that_announces_a_body_counts() {
        for (field, has_body) in [
            ("Content-Length: 0", false),
            ("Content-Length: 00", false),
            ("Content-Length: 5", true),
            ("Content-Length:", true),
            ("Content-Length: 0\r\nContent-Length: 5", true),
            ("Content-Length: 0, 5", true),
            ("Content-Length: +0", true),
            ("Transfer-Encoding: chunked", true),
            ("transfer-encoding: identity", true),
        ] {
            assert_eq!(
                request(&format!("GET / HTTP/1.1\r\n{field}\r\n\r\n")).head.has_body,
                has_body,
                "{field}"
            );
        }
    }

    #[test]
    fn what_is_no_request() {
        for (text, status) in [
            ("GET / HTTP/2.0\r\n\r\n", 400),
            ("GET /\r\n\r\n", 400),
            ("GET / HTTP/1.10\r\n\r\n", 400),
            ("GET / HTTP/1.\r\n\r\n", 400),
            ("GET / http/1.2\r\n\r\n", 400),
            ("GET / HTTP/1.2\r\nA : b\r\n\r\n", 400),
            ("G\u{1}T / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nRange: a\0b\r\n\r\n", 400),
        ] {
            let found = parse(text.as_bytes());
            assert!(matches!(found, Parsed::Bad(found, _) if found == status), "{text:?}: {found:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101));
        assert!(matches!(
            parse(many.as_bytes()),
            Parsed::Bad(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, _)
        ));
    }

    #[test]
    fn what_can_be_no_request_is_seen_by_its_first_byte() {
        for (bytes, alien) in [
            (&b"\x16\x03\x01"[..], true),
            (b"\r\nGET", false),
            (b"", false),
            (b"\r\n", false),
            (b" GET", true),
        ] {
            assert_eq!(is_alien(bytes), alien, "{bytes:?}");
        }
        assert!(matches!(parse(b"\x16\x03\x01\x02"), Parsed::Bad(StatusCode::BAD_REQUEST, _)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless_and_an_end_is_found_however_they_come(bytes in "(GET |/|HTTP/1.1|\r\n|\n|a: b|range: |[ -~]){0,20}", cut in 0..100_usize) {
            let bytes = bytes.as_bytes();
            let whole = matches!(parse(bytes), Parsed::Whole(..));
            let cut = cut.min(bytes.len());
            let ended = is_ended(&bytes[..cut], 0) || is_ended(bytes, cut);
            prop_assert_eq!(ended, is_ended(bytes, 0));
            prop_assert!(!whole || ended, "a head that is parsed has an end");
        }
    }
}
