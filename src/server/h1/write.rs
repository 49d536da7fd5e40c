//! The head of an HTTP/1 response, into bytes.

use crate::clock::Timestamp;
use crate::server::reply::Fields;
use http::header::{CONTENT_LENGTH, HeaderName};
use http::{HeaderMap, StatusCode};
use std::cell::RefCell;
use std::io::Write;

/// How the end of a body is told (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By Content-Length, or there is none.
    Length,
    /// In chunks.
    Chunked,
    /// By the end of the connection: for a client of HTTP/1.0, where the length isn't known beforehand.
    Close,
}

/// What a response says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on, as it does unless something else is said.
    GoesOn,
    /// It goes on, which a client of HTTP/1.0 has to be told.
    IsKept,
    /// It ends.
    Closes,
}

/// Appends a head.
pub fn head(
    out: &mut Vec<u8>,
    status: StatusCode,
    fields: &Fields,
    framing: Framing,
    fate: Fate,
    now: Timestamp,
) {
    match status {
        StatusCode::OK => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        other => {
            let reason = other.canonical_reason().unwrap_or_default();
            let _ = write!(out, "HTTP/1.1 {} {reason}\r\n", other.as_u16());
        }
    }
    if let Some(ready) = &fields.ready {
        out.extend_from_slice(&ready.text);
    }
    lines(out, status, &fields.more);
    // Last: of caches in a row, the one before the client comes last (RFC 9211 2).
    if let Some(value) = &fields.cache_status {
        out.extend_from_slice(b"cache-status: ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(match framing {
        Framing::Chunked => b"Transfer-Encoding: chunked\r\n",
        Framing::Length | Framing::Close => b"",
    });
    out.extend_from_slice(match fate {
        Fate::GoesOn => b"",
        Fate::IsKept => b"connection: keep-alive\r\n",
        Fate::Closes => b"connection: close\r\n",
    });
    // The origin's, where it is the origin who speaks.
    if !fields.has_date() {
        date(out, now);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends fields of a response with this status, a line for each.
pub fn lines(out: &mut Vec<u8>, status: StatusCode, fields: &HeaderMap) {
    for (name, value) in fields {
        out.extend_from_slice(spelling(status, name));
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// A field's name as clients want it that tell upper case from lower. GRUB (`grub-core/net/http.c`) knows a body's length and
/// chunks by title case alone. librepo up to 1.14 (`lr_headercb`) holds a title-case `Content-Length` against the length of the
/// whole file, and so gives up a 206, where GRUB needs none.
fn spelling(status: StatusCode, name: &HeaderName) -> &[u8] {
    match *name {
        CONTENT_LENGTH if status == StatusCode::OK => b"Content-Length",
        _ => name.as_str().as_bytes(),
    }
}

/// Appends the Date field; its text is made once a second.
fn date(out: &mut Vec<u8>, now: Timestamp) {
    thread_local! {
        static LATEST: RefCell<(u64, Vec<u8>)> = const { RefCell::new((u64::MAX, Vec::new())) };
    }
    LATEST.with_borrow_mut(|(second, line)| {
        if *second != now.as_secs() {
            *second = now.as_secs();
            line.clear();
            line.extend_from_slice(b"date: ");
            line.extend_from_slice(crate::http::date::format(now).as_bytes());
            line.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(line);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_head_in_letters() {
        let more = HeaderMap::from_iter([(http::header::VIA, HeaderValue::from_static("1.1 n"))]);
        let fields = Fields { ready: None, cache_status: None, more };
        for (status, framing, fate, expected) in [
            (200, Framing::Length, Fate::GoesOn, "HTTP/1.1 200 OK\r\nvia: 1.1 n\r\n"),
            (
                206,
                Framing::Chunked,
                Fate::GoesOn,
                "HTTP/1.1 206 Partial Content\r\nvia: 1.1 n\r\nTransfer-Encoding: chunked\r\n",
            ),
            (200, Framing::Close, Fate::Closes, "HTTP/1.1 200 OK\r\nvia: 1.1 n\r\nconnection: close\r\n"),
            (
                404,
                Framing::Length,
                Fate::IsKept,
                "HTTP/1.1 404 Not Found\r\nvia: 1.1 n\r\nconnection: keep-alive\r\n",
            ),
        ] {
            for second in [0, 1, 1] {
                let mut out = b"before".to_vec();
                let status = StatusCode::from_u16(status).unwrap();
                head(&mut out, status, &fields, framing, fate, Timestamp::from_secs(784_111_777 + second));
                let date = format!("date: Sun, 06 Nov 1994 08:49:3{} GMT\r\n\r\n", 7 + second);
                assert_eq!(String::from_utf8(out).unwrap(), format!("before{expected}{date}"));
            }
        }
        let fields = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("9"))]);
        for (status, line) in
            [(200, "Content-Length: 9"), (206, "content-length: 9"), (404, "content-length: 9")]
        {
            let mut out = Vec::new();
            lines(&mut out, StatusCode::from_u16(status).unwrap(), &fields);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{line}\r\n"), "{status}");
        }
    }
}
