//! The origin as an HTTP(S) server.
//!
//! One pooled client. Requests go to one authority only, follow at most [`MAX_REDIRECTS`] redirects on it, and carry
//! nothing of the client's. Every wait has a timer: connection, first byte, and each next piece of the body. Every request
//! passes the `guard`: while the origin is down only its probes are sent.

use super::connect::{Clients, Connection};
use super::guard::Guard;
use super::version::validators;
use super::{
    Health, MAX_OBJECT_BYTES, MAX_POLLED_BYTES, OriginBody, OriginError, Passed, PollValidators, Polled,
    Wait, chain, is_failure,
};
use crate::clock;
use crate::http::freshness::{self, Exchange};
use crate::http::{ByteRange, TreePath, date};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::connect::capture_connection;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Redirects followed on the origin's own authority.
pub const MAX_REDIRECTS: usize = 3;
/// A Location is remembered with so many characters.
const MAX_LOCATION_CHARS: usize = 256;

/// How to reach an HTTP origin.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The tree's base URL; a missing slash at its end is added.
    pub url: String,
    /// PEM file with the only authorities trusted; without it the system's.
    pub ca: Option<PathBuf>,
    /// This node's name, for `Via`.
    pub node: String,
    /// For the TCP connection.
    pub connect_timeout: Duration,
    /// For the head of the response, from the moment a connection is there.
    pub first_byte_timeout: Duration,
    /// Between two pieces of a body.
    pub stall_timeout: Duration,
    /// The longest time for which a Retry-After is honoured.
    pub backoff_cap: Duration,
}

impl Settings {
    /// With the default timers: 5 s, 8 s, 30 s, and a backoff of 5 s at most.
    #[must_use]
    pub fn new(url: &str, node: &str) -> Self {
        Self {
            url: url.to_owned(),
            ca: None,
            node: node.to_owned(),
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(8),
            stall_timeout: Duration::from_secs(30),
            backoff_cap: Duration::from_secs(5),
        }
    }
}

/// What is asked of an object.
#[derive(Clone, Debug)]
pub enum Ask {
    /// All of it.
    Whole,
    /// All of it, unless it still is the version that these validators name.
    Unless {
        /// For If-None-Match.
        etag: Option<HeaderValue>,
        /// For If-Modified-Since.
        last_modified: Option<HeaderValue>,
    },
    /// A part of it.
    Range {
        /// Which.
        range: ByteRange,
        /// For If-Range: a strong validator of the version that the part must belong to.
        if_range: Option<HeaderValue>,
    },
}

/// What the origin sends.
#[derive(Debug)]
pub struct Response {
    /// All its header fields.
    pub headers: HeaderMap,
    /// Bytes in `body`, if promised (or listed).
    pub length: Option<u64>,
    /// Bytes of the whole object, if known.
    pub total: Option<u64>,
    /// The body.
    pub body: OriginBody,
}

/// The answer to a GET.
#[derive(Debug)]
pub enum Answer {
    /// 200 or 206, as asked.
    Body(Box<Response>),
    /// 200 where a range was asked for: the origin gives none, or has another version.
    Whole(Box<Response>),
    /// 304, with its header fields.
    NotModified(HeaderMap),
}

type Answered = Result<hyper::Response<Incoming>, hyper_util::client::legacy::Error>;

/// An HTTP(S) origin.
pub struct HttpOrigin {
    clients: Clients,
    guard: Arc<Guard>,
    id: String,
    scheme: Scheme,
    authority: Authority,
    base_path: String,
    user_agent: HeaderValue,
    via: HeaderValue,
    settings: Settings,
}

impl HttpOrigin {
    /// Reads certificates (blocking), connects to nothing yet.
    pub fn new(settings: Settings) -> Result<Self, OriginError> {
        let refuse = |why: &str| OriginError::Setup(format!("origin url {:?}: {why}", settings.url));
        let uri: Uri = settings.url.parse().map_err(|_| refuse("not a URL"))?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.ok_or_else(|| refuse("no scheme"))?;
        let authority = parts.authority.ok_or_else(|| refuse("no host"))?;
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(refuse("neither http nor https"));
        }
        let mut base_path = parts.path_and_query.map_or_else(|| "/".to_owned(), |p| p.path().to_owned());
        if !base_path.ends_with('/') {
            base_path.push('/');
        }
        let via = HeaderValue::try_from(format!("1.1 {}", settings.node))
            .map_err(|_| OriginError::Setup("the node's name can't stand in a header".to_owned()))?;
        let guard = Guard::new(settings.backoff_cap);
        Ok(Self {
            clients: Clients::new(&settings, scheme == Scheme::HTTPS, &guard)?,
            guard,
            id: format!("{scheme}://{authority}{base_path}"),
            scheme,
            authority,
            base_path,
            user_agent: HeaderValue::from_static(concat!("freshet/", env!("CARGO_PKG_VERSION"))),
            via,
            settings,
        })
    }

    /// The base URL.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How it stands.
    #[must_use]
    pub fn health(&self) -> Health {
        self.guard.health()
    }

    /// Whether it is asked, as far as it goes; while it is down it is only probed.
    pub fn is_up(&self) -> bool {
        self.guard.is_up()
    }

    /// GETs an object, with a query or none. `listed` is its size where the catalogue knows size and checksum: then, and
    /// only then, an end without a length is accepted, since the checksum decides. Behind the origin's name may be several
    /// hosts, of which one has a push later than the others: where a listed object is denied, another connection is tried
    /// at once.
    pub async fn get(
        &self,
        path: &TreePath,
        query: Option<&str>,
        ask: Ask,
        listed: Option<u64>,
    ) -> Result<Answer, OriginError> {
        let target = self.target(path, query);
        match self.get_over(Connection::Kept, &target, &ask, listed).await {
            Err(error) if listed.is_some() && error.is_denial() => {
                self.get_over(Connection::New, &target, &ask, listed).await
            }
            other => other,
        }
    }

    async fn get_over(
        &self,
        connection: Connection,
        target: &str,
        ask: &Ask,
        listed: Option<u64>,
    ) -> Result<Answer, OriginError> {
        let mut headers = HeaderMap::new();
        let (conditional, range) = match ask {
            Ask::Whole => (false, None),
            Ask::Unless { etag, last_modified } => {
                let conditional = etag.is_some() || last_modified.is_some();
                set(&mut headers, header::IF_NONE_MATCH, etag.clone());
                set(&mut headers, header::IF_MODIFIED_SINCE, last_modified.clone());
                (conditional, None)
            }
            Ask::Range { range, if_range } => {
                let value = HeaderValue::try_from(format!("bytes={}-{}", range.start, range.end - 1));
                set(&mut headers, header::RANGE, value.ok());
                set(&mut headers, header::IF_RANGE, if_range.clone());
                (false, Some(*range))
            }
        };
        let asked = clock::now();
        let response = self.send(connection, Method::GET, target, &headers).await?;
        let exchange = Exchange { asked, received: clock::now(), date: clock::date() };
        match (response.status(), range) {
            (StatusCode::OK, None) => Ok(Answer::Body(Box::new(self.whole(response, listed)?))),
            (StatusCode::PARTIAL_CONTENT, Some(range)) => {
                Ok(Answer::Body(Box::new(self.part(response, range, listed)?)))
            }
            (StatusCode::OK, Some(_)) => Ok(Answer::Whole(Box::new(self.whole(response, listed)?))),
            (StatusCode::NOT_MODIFIED, None) if conditional => {
                Ok(Answer::NotModified(response.into_parts().0.headers))
            }
            (status, _) if answers_another_question(status, range) || is_failure(status) => {
                Err(OriginError::Status(status))
            }
            (status, _) if listed.is_some() => Err(match response.headers().get(header::LOCATION) {
                Some(to) if is_redirect(status) => redirected(&String::from_utf8_lossy(to.as_bytes())),
                _ => OriginError::Denied { status },
            }),
            _ => {
                let passed = Passed::read(response, exchange, self.settings.stall_timeout).await?;
                Err(OriginError::Answered(Arc::new(passed)))
            }
        }
    }

    /// HEADs an object: its header fields. A HEAD that isn't allowed, or answered by something in between, says nothing of the
    /// file: there a GET tells, whose body isn't read.
    pub async fn head(
        &self,
        path: &TreePath,
        query: Option<&str>,
        listed: Option<u64>,
    ) -> Result<HeaderMap, OriginError> {
        let target = self.target(path, query);
        let response = self.send(Connection::Kept, Method::HEAD, &target, &HeaderMap::new()).await?;
        let is_right =
            || listed.is_none_or(|listed| content_length(response.headers()).is_none_or(|l| l == listed));
        match response.status() {
            StatusCode::OK if is_right() => return Ok(response.into_parts().0.headers),
            // It has enough to do.
            status if is_failure(status) && status != StatusCode::INTERNAL_SERVER_ERROR => {
                return Err(OriginError::Status(status));
            }
            _ => {}
        }
        match self.get(path, query, Ask::Whole, listed).await? {
            Answer::Body(response) | Answer::Whole(response) => Ok(response.headers),
            Answer::NotModified(_) => Err(OriginError::Status(StatusCode::NOT_MODIFIED)),
        }
    }

    /// A conditional GET past all caches between here and the origin.
    pub async fn poll(&self, path: &TreePath, known: &PollValidators) -> Result<Polled, OriginError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        set(&mut headers, header::IF_NONE_MATCH, known.etag.clone());
        set(&mut headers, header::IF_MODIFIED_SINCE, known.last_modified.clone());
        let conditional = headers.len() > 1;
        let response = self.send(Connection::Kept, Method::GET, &self.target(path, None), &headers).await?;
        // What a cache answered tells of its clock, or of none.
        if freshness::stated_age(response.headers()).is_zero()
            && let Some(date) = freshness::only_date(response.headers())
        {
            self.guard.note_clock(date, clock::date());
        }
        match response.status() {
            StatusCode::NOT_MODIFIED if conditional => return Ok(Polled::Unchanged),
            StatusCode::OK => {}
            // A release that is being staged is unreadable: 403 is as absent as 404.
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN => return Ok(Polled::Absent),
            status => return Err(OriginError::Status(status)),
        }
        let validators = validators(response.headers());
        let last_modified = response.headers().get(header::LAST_MODIFIED).and_then(date::parse);
        let body = self.whole(response, None)?.body.collect(MAX_POLLED_BYTES).await?;
        Ok(Polled::Changed { body, last_modified, validators })
    }

    pub(super) fn target(&self, path: &TreePath, query: Option<&str>) -> String {
        let path = format!("{}{}", self.base_path, path.encoded());
        query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"))
    }

    /// Sends a request, and follows redirects within the origin; one that leads elsewhere is the answer.
    pub(super) async fn send(
        &self,
        connection: Connection,
        method: Method,
        target: &str,
        more: &HeaderMap,
    ) -> Result<hyper::Response<Incoming>, OriginError> {
        let mut target = target.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(connection, &method, &target, more).await?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            target = match self.hop(&target, response.headers()) {
                Ok(target) => target,
                Err(OriginError::Redirected { .. }) => return Ok(response),
                Err(other) => return Err(other),
            };
        }
        Err(redirected(&target))
    }

    async fn send_once(
        &self,
        connection: Connection,
        method: &Method,
        target: &str,
        more: &HeaderMap,
    ) -> Result<hyper::Response<Incoming>, OriginError> {
        let unusable = |_| redirected(target);
        let admitted = self.guard.admit(target)?;
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(target)
            .build()
            .map_err(unusable)?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.extend(more.clone());
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        headers.insert(header::VIA, self.via.clone());
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        match self.answer(connection, request).await {
            Err(after) => {
                let error = OriginError::Silent { wait: Wait::FirstByte, after };
                admitted.broken(&error);
                Err(error)
            }
            Ok(Err(error)) => {
                let connecting = error.is_connect();
                let error = OriginError::Down { reason: chain(&error) };
                if connecting {
                    admitted.unreachable(&error);
                } else {
                    admitted.broken(&error);
                }
                Err(error)
            }
            Ok(Ok(response)) => {
                if is_failure(response.status()) {
                    let error = OriginError::Status(response.status());
                    admitted.failed(&error, retry_after(response.headers()));
                } else {
                    admitted.answered();
                }
                Ok(response)
            }
        }
    }

    /// The head of the answer, or how long it was waited for.
    async fn answer(
        &self,
        over: Connection,
        mut request: Request<Empty<Bytes>>,
    ) -> Result<Answered, Duration> {
        let Settings { connect_timeout, first_byte_timeout, .. } = self.settings;
        let mut connection = capture_connection(&mut request);
        let mut answer = pin!(self.clients.over(over).request(request));
        // Covers the TLS handshake too, which the connector's own timer doesn't.
        let connecting = connect_timeout + first_byte_timeout;
        tokio::select! {
            answer = &mut answer => return Ok(answer),
            _ = connection.wait_for_connection_metadata() => {}
            () = tokio::time::sleep(connecting) => return Err(connecting),
        }
        tokio::time::timeout(first_byte_timeout, answer).await.map_err(|_| first_byte_timeout)
    }

    /// Where a redirect leads: a path on this very authority.
    fn hop(&self, from: &str, headers: &HeaderMap) -> Result<String, OriginError> {
        let from = from.split('?').next().unwrap_or_default();
        let location = headers.get(header::LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let refused = || redirected(location);
        let bare = location.split('#').next().unwrap_or_default();
        let absolute = if bare.is_empty() {
            return Err(refused());
        } else if bare.contains("://") {
            bare.to_owned()
        } else if bare.starts_with("//") {
            format!("{}:{bare}", self.scheme)
        } else if bare.starts_with('/') {
            format!("{}://{}{bare}", self.scheme, self.authority)
        } else {
            let parent = &from[..from.rfind('/').map_or(0, |slash| slash + 1)];
            format!("{}://{}{parent}{bare}", self.scheme, self.authority)
        };
        let uri: Uri = absolute.parse().map_err(|_| refused())?;
        // Whatever name the origin has for itself: the same path with a slash is a directory.
        if uri.path().strip_suffix('/').is_some_and(|path| decoded(path) == decoded(from)) {
            return Err(OriginError::IsDirectory);
        }
        let here = uri.scheme() == Some(&self.scheme)
            && uri.host().is_some_and(|host| host.eq_ignore_ascii_case(self.authority.host()))
            && self.port(uri.port_u16()) == self.port(self.authority.port_u16());
        match uri.path_and_query() {
            Some(target) if here => Ok(target.to_string()),
            _ => Err(refused()),
        }
    }

    fn port(&self, explicit: Option<u16>) -> u16 {
        explicit.unwrap_or(if self.scheme == Scheme::HTTPS { 443 } else { 80 })
    }

    fn whole(
        &self,
        response: hyper::Response<Incoming>,
        listed: Option<u64>,
    ) -> Result<Response, OriginError> {
        let (parts, incoming) = response.into_parts();
        let promised = check_body(&parts.headers, &incoming, listed)?;
        if let (Some(promised), Some(listed)) = (promised, listed)
            && promised != listed
        {
            return Err(OriginError::Length { promised, listed });
        }
        let length = promised.or(listed);
        let body = OriginBody::new(incoming, length, self.settings.stall_timeout);
        Ok(Response { headers: parts.headers, length, total: length, body })
    }

    fn part(
        &self,
        response: hyper::Response<Incoming>,
        range: ByteRange,
        listed: Option<u64>,
    ) -> Result<Response, OriginError> {
        let (parts, incoming) = response.into_parts();
        let length = range.end - range.start;
        let promised = check_body(&parts.headers, &incoming, Some(length))?;
        let (start, end, total) = parts
            .headers
            .get(header::CONTENT_RANGE)
            .and_then(|value| content_range(value.to_str().ok()?))
            .ok_or(OriginError::RangeIgnored)?;
        let absurd = total.is_some_and(|total| total < end || total > MAX_OBJECT_BYTES);
        if absurd
            || (start, end) != (range.start, range.end)
            || promised.is_some_and(|promised| promised != length)
        {
            return Err(OriginError::RangeIgnored);
        }
        if let (Some(promised), Some(listed)) = (total, listed)
            && promised != listed
        {
            return Err(OriginError::Length { promised, listed });
        }
        let body = OriginBody::new(incoming, Some(length), self.settings.stall_timeout);
        let total = total.or(listed);
        Ok(Response { headers: parts.headers, length: Some(length), total, body })
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

pub(super) const fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Whether the answer is to a condition, or about a range, that the client didn't ask the node for: of the file it says
/// nothing.
fn answers_another_question(status: StatusCode, range: Option<ByteRange>) -> bool {
    matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED)
        || status == StatusCode::RANGE_NOT_SATISFIABLE && range.is_some()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The length promised, if any; refuses a body whose meaning or end is uncertain.
fn check_body(headers: &HeaderMap, body: &Incoming, listed: Option<u64>) -> Result<Option<u64>, OriginError> {
    let promised = body.size_hint().exact();
    if let Some(promised) = promised.filter(|promised| *promised > MAX_OBJECT_BYTES) {
        return Err(OriginError::Absurd { promised });
    }
    if listed.is_some() {
        return Ok(promised);
    }
    if promised.is_none() && !is_chunked(headers) {
        return Err(OriginError::NoLength);
    }
    Ok(promised)
}

/// Whether chunks tell the end (RFC 9112 6.3): after any other transfer coding it is the close.
pub(super) fn is_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(header::TRANSFER_ENCODING).iter().next_back();
    let last = last.and_then(|value| value.as_bytes().rsplit(|byte| *byte == b',').next());
    last.is_some_and(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// RFC 9110 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?;
    match value.to_str().ok()?.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(date::parse(value)?.since(clock::date())),
    }
}

pub(super) fn redirected(to: &str) -> OriginError {
    OriginError::Redirected { to: to.chars().take(MAX_LOCATION_CHARS).collect() }
}

/// `bytes START-LAST/TOTAL` (RFC 9110 14.4), the range half-open.
pub(super) fn content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?, total))
}

fn decoded(path: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(path).collect()
}
