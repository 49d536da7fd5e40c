//! A request as it was asked: parsed, checked, and nothing looked up yet.

use super::clients::Seen;
use super::head::{Head, Hosts, Target};
use super::peer::Peer;
use crate::clock::{self, Timestamp};
use crate::http::TreePath;
use crate::policy::bounce::Link;
use crate::policy::client::Recovery;
use crate::policy::{Client, Reason};
use http::header::{HeaderMap, HeaderValue, RANGE};
use http::{Method, StatusCode, Version};
use std::borrow::Cow;
use std::time::Instant;

/// The part of a logged field that is kept.
const LOGGED_BYTES: usize = 512;

/// What a request takes besides its fields, and with a stream of HTTP/2, in bytes.
const REQUEST_BYTES: u64 = 1 << 10;
const STREAM_BYTES: u64 = 4 << 10;

/// Bytes of path and query that are logged.
const LOGGED_TARGET: usize = 2048;

/// A request.
#[derive(Debug)]
pub struct Asked {
    /// GET, HEAD, or whatever was refused; `-` for what was no request.
    pub method: &'static str,
    /// Only the head is wanted.
    pub is_head: bool,
    /// Path and query as they came.
    pub target: Target,
    /// Range and the preconditions.
    pub conditions: HeaderMap,
    agent: Box<[u8]>,
    /// 1.1, 2.
    pub protocol: &'static str,
    /// Who asks.
    pub client: Client,
    /// The connection.
    pub link: Link,
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
    pub fn read(peer: &Peer, head: Head) -> (Self, Result<TreePath, Refused>) {
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
        let path = check(&head, method);
        let range = head.conditions.get(RANGE).map(HeaderValue::as_bytes);
        let addr = peer.speaks_for(&head.forwarded);
        let mut client = Client::new(peer.agent(addr, &head.agent), peer.is_https(&head.forwarded), range);
        // As U-Boot asks, which says no more of itself.
        if head.version == Version::HTTP_10 && head.agent.is_empty() {
            client.recovery = Recovery::Boots;
        }
        let asked = Self {
            method,
            is_head,
            protocol,
            client,
            link: if addr == peer.addr { peer.link() } else { Link::UNKNOWN },
            started: clock::monotonic(),
            now: clock::now(),
            target: head.target,
            conditions: head.conditions,
            agent: head.agent,
        };
        (asked, path)
    }

    /// What came in the place of a request, for the account.
    pub fn garbled(peer: &Peer) -> Self {
        Self {
            method: "-",
            is_head: false,
            protocol: "1.1",
            client: Client::new(peer.agent(peer.addr, b""), peer.https, None),
            link: peer.link(),
            started: clock::monotonic(),
            now: clock::now(),
            target: Target::default(),
            conditions: HeaderMap::new(),
            agent: Box::default(),
        }
    }

    /// What is kept of the request while it is answered, in bytes: over HTTP/2 with what h2 and the node keep for a stream.
    pub fn memory_bytes(&self) -> u64 {
        let fields: usize = self.conditions.values().map(HeaderValue::len).sum();
        let known = if self.protocol == "2" { STREAM_BYTES } else { REQUEST_BYTES };
        known + (self.target.as_str().len() + self.agent.len() + fields) as u64
    }

    /// Path and query for the log, cut to a bound.
    pub fn logged_target(&self) -> &str {
        let target = self.target.as_str();
        let mut end = target.len().min(LOGGED_TARGET);
        while !target.is_char_boundary(end) {
            end -= 1;
        }
        &target[..end]
    }

    /// The User-Agent field for the log.
    pub fn agent(&self) -> Cow<'_, str> {
        text(&self.agent)
    }

    /// The Range field for the log.
    pub fn range(&self) -> Option<Cow<'_, str>> {
        Some(text(self.conditions.get(RANGE)?.as_bytes()))
    }

    /// The request as the trail of its client knows it, for the canonical `path`.
    pub fn seen(&self, path: &TreePath) -> Seen {
        let range = self.conditions.get(RANGE).map(HeaderValue::as_bytes);
        Seen::new(&self.client, path, range, self.link)
    }
}

/// A field's value as text, cut to a bound, bytes outside of UTF-8 replaced.
fn text(value: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&value[..value.len().min(LOGGED_BYTES)])
}

fn check(head: &Head, method: &str) -> Result<TreePath, Refused> {
    if !matches!(method, "GET" | "HEAD") {
        let why = format!("{} is not served here, only GET and HEAD", head.method);
        return Err(Refused { status: StatusCode::METHOD_NOT_ALLOWED, reason: Reason::Method, why });
    }
    if head.has_body {
        return Err(Refused::bad_request("a GET or HEAD request has no body here"));
    }
    // RFC 9112, section 3.2: one Host at most, in HTTP/1.1 exactly one, and a host stands in it.
    match head.hosts {
        Hosts::Missing if head.version == Version::HTTP_11 => {
            return Err(Refused::bad_request("the Host field is missing"));
        }
        Hosts::Several => return Err(Refused::bad_request("more than one Host field")),
        Hosts::Malformed => return Err(Refused::bad_request("the Host field names no host")),
        Hosts::Missing | Hosts::One => {}
    }
    TreePath::from_uri(head.target.path()).map_err(|error| Refused::bad_request(format!("path: {error}")))
}
