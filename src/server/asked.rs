//! A request as it was asked: parsed, checked, and nothing looked up yet.

use super::clients::Seen;
use super::peer::Peer;
use crate::clock::{self, Timestamp};
use crate::http::TreePath;
use crate::policy::{Client, Reason};
use http::header::{HeaderName, RANGE, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use std::borrow::Cow;
use std::time::Instant;

/// The part of a logged field that is kept.
const LOGGED_BYTES: usize = 512;

/// Bytes of path and query that are logged.
const LOGGED_TARGET: usize = 2048;

/// A request.
#[derive(Debug)]
pub struct Asked {
    /// GET, HEAD, or whatever was refused.
    pub method: &'static str,
    /// Only the head is wanted.
    pub is_head: bool,
    /// The target as it came.
    uri: Uri,
    /// The header fields.
    pub headers: HeaderMap,
    /// 1.1, 2.
    pub protocol: &'static str,
    /// Who asks.
    pub client: Client,
    /// The connection's number.
    pub connection: u64,
    /// When its head was complete.
    pub started: Instant,
    /// The same by the wall clock.
    pub now: Timestamp,
}

/// A request that gets an error, whatever it asks for.
#[derive(Debug)]
pub struct Refused {
    /// The status code.
    pub status: StatusCode,
    /// The class of the fault.
    pub reason: Reason,
    /// What is wrong, for the client to read.
    pub why: String,
}

impl Refused {
    /// 400.
    pub fn bad_request(why: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, reason: Reason::BadRequest, why: why.into() }
    }
}

impl Asked {
    /// Takes a request apart. What is refused is told beside it, since even that is accounted for.
    pub fn read(peer: &Peer, request: Request<Incoming>) -> (Self, Result<TreePath, Refused>) {
        let (head, body) = request.into_parts();
        let (method, is_head) = match head.method {
            Method::GET => ("GET", false),
            Method::HEAD => ("HEAD", true),
            Method::POST => ("POST", false),
            Method::PUT => ("PUT", false),
            Method::DELETE => ("DELETE", false),
            Method::OPTIONS => ("OPTIONS", false),
            _ => ("other", false),
        };
        let protocol = match head.version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        let path = check(&head, method, body.is_end_stream());
        let agent = head.headers.get(USER_AGENT).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let range = head.headers.get(RANGE).map(http::HeaderValue::as_bytes);
        let client = Client::new(peer.addr, agent, peer.https, range);
        let asked = Self {
            method,
            is_head,
            uri: head.uri,
            headers: head.headers,
            protocol,
            client,
            connection: peer.id,
            started: clock::monotonic(),
            now: clock::now(),
        };
        (asked, path)
    }

    /// Path and query as they came.
    pub fn target(&self) -> &str {
        self.uri.path_and_query().map_or("", |target| target.as_str())
    }

    /// The path as it came.
    pub fn raw_path(&self) -> &str {
        self.uri.path()
    }

    /// The query, without `?`.
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// Path and query for the log, cut to a bound.
    pub fn logged_target(&self) -> &str {
        let target = self.target();
        let mut end = target.len().min(LOGGED_TARGET);
        while !target.is_char_boundary(end) {
            end -= 1;
        }
        &target[..end]
    }

    /// A field's value as text for the log: the first one, cut to a bound, bytes outside of UTF-8 replaced.
    pub fn text(&self, name: &HeaderName) -> Option<Cow<'_, str>> {
        let value = self.headers.get(name)?.as_bytes();
        Some(String::from_utf8_lossy(&value[..value.len().min(LOGGED_BYTES)]))
    }

    /// The request as the trail of its client knows it, for the canonical `path`.
    pub fn seen(&self, path: &TreePath) -> Seen {
        let range = self.headers.get(RANGE).map(http::HeaderValue::as_bytes);
        Seen::new(&self.client, path, range, self.connection)
    }
}

fn check(head: &http::request::Parts, method: &str, without_body: bool) -> Result<TreePath, Refused> {
    if !matches!(method, "GET" | "HEAD") {
        let why = format!("{} is not served here, only GET and HEAD", head.method);
        return Err(Refused { status: StatusCode::METHOD_NOT_ALLOWED, reason: Reason::Method, why });
    }
    if !without_body {
        return Err(Refused::bad_request("a GET or HEAD request has no body here"));
    }
    if head.version == Version::HTTP_11 {
        // RFC 9112, section 3.2: exactly one Host.
        let hosts = head.headers.get_all(http::header::HOST).iter().count();
        if hosts != 1 {
            return Err(Refused::bad_request(format!("{hosts} Host fields, expected one")));
        }
    }
    TreePath::from_uri(head.uri.path()).map_err(|error| Refused::bad_request(format!("path: {error}")))
}
