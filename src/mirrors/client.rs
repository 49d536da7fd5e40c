//! The HTTP client of the probes: a mirror's answers as facts, its failures as words.
//!
//! Follows at most three redirects, all on the mirror's own scheme and host ([`hop`]): that is what clients get along with; and
//! all to the very address that answered first. So what a mirror says leads the prober to no other host, whatever its name
//! stands for by then. Each probe, redirects and body included, has one timeout.

use super::families::Family;
use super::hop::hop;
use super::judge::Seen;
use super::resolve::{Forbidden, NoAddress, Resolver, is_address};
use crate::clock;
use crate::http::{ByteRange, date};
use crate::policy::Look;
use crate::repo::Sha256;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, HttpInfo};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longest repomd.xml that is read.
const MAX_REPOMD_BYTES: usize = 1 << 20;
/// Redirects followed for one probe.
const MAX_REDIRECTS: usize = 3;
/// Idle connections kept to one mirror: as many as ask it at once.
const MAX_IDLE_PER_HOST: usize = 4;
/// Shorter than the keep-alive of common servers, so that few requests meet a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// What went wrong with a probe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing listens.
    #[error("connection refused")]
    Refused,
    /// It has no address of the family that is asked over.
    #[error("{}", .0.lacks())]
    NoAddress(Family),
    /// Its name leads to where no mirror of that name is.
    #[error("resolves to {0}, which is not a public address")]
    Forbidden(IpAddr),
    /// No complete answer in time.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// No such host, TLS failed, the connection broke.
    #[error("{0}")]
    Broken(String),
    /// A status that isn't the one expected.
    #[error("answers {0}")]
    Status(u16),
    /// It takes no more requests for now (408, 425, 429, 503).
    #[error("answers {status}")]
    Busy {
        /// The status.
        status: u16,
        /// For so long, if it says so.
        after: Option<Duration>,
    },
    /// It names another scheme, host or port, or one redirect too many.
    #[error("redirects to {0}")]
    Redirected(String),
    /// Content-Length is not what the repo lists.
    #[error("has {actual} bytes instead of {listed}")]
    Size {
        /// What the mirror says.
        actual: u64,
        /// What the repo says.
        listed: u64,
    },
    /// A page where a file should be.
    #[error("is a web page")]
    Page,
    /// A part of it isn't what the node has.
    #[error("has other bytes than listed, from byte {0} on")]
    Bytes(u64),
    /// No Content-Length: nothing is known of the file.
    #[error("has no Content-Length")]
    Sizeless,
}

impl Failure {
    /// The mirror doesn't answer at all.
    pub(super) const fn is_down(&self) -> bool {
        matches!(
            self,
            Self::Refused | Self::NoAddress(_) | Self::Forbidden(_) | Self::Timeout(_) | Self::Broken(_)
        )
    }

    /// The mirror doesn't answer, or has an error of its own: it says nothing of a single file.
    pub(super) const fn is_transient(&self) -> bool {
        self.is_down() || matches!(self, Self::Status(500..) | Self::Busy { .. })
    }

    /// In words that follow the path of a file.
    pub(super) fn of_file(&self) -> String {
        match self {
            Self::Status(status @ (404 | 410)) => format!("is missing ({status})"),
            _ if self.is_down() => format!("can't be asked for: {self}"),
            _ => self.to_string(),
        }
    }
}

/// A validator of a repomd.xml, as the header field that asks for anything newer.
pub(super) type Validator = (HeaderName, HeaderValue);

/// The answer to a GET of repomd.xml.
pub(super) enum Looked {
    /// 304.
    Same,
    /// Anything else.
    New(Seen, Option<Validator>),
}

type Http = Client<HttpsConnector<HttpConnector<Resolver>>, Empty<Bytes>>;

/// A client of probes over one address family. Its clones share its connections.
#[derive(Clone)]
pub(super) struct MirrorClient {
    client: Http,
    /// The same, but it keeps no connection.
    unpooled: Http,
    resolver: Resolver,
    user_agent: HeaderValue,
    timeout: Duration,
    tls: ClientConfig,
}

impl MirrorClient {
    /// For each family. Reads the system's certificates if a mirror needs them (`tls`). `contact` may be empty.
    pub(super) fn both(timeout: Duration, contact: &str, tls: bool) -> Result<[Self; 2], io::Error> {
        let config = Self::tls(tls)?;
        let version = concat!("freshet/", env!("CARGO_PKG_VERSION"));
        let named = if contact.is_empty() { version.to_owned() } else { format!("{version} (+{contact})") };
        let agent = HeaderValue::try_from(named).unwrap_or(HeaderValue::from_static(version));
        let seen = Arc::default();
        let of = |family| Resolver { family, only: None, seen: Arc::clone(&seen) };
        Ok(Family::ALL.map(|family| Self::over(of(family), timeout, agent.clone(), config.clone())))
    }

    /// One client for each address of the URL's host. Where there is but one, that is this client.
    pub(super) async fn at_each(&self, url: &str) -> Vec<Self> {
        let uri: Option<Uri> = url.parse().ok();
        let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
        let addresses = tokio::time::timeout(self.timeout, self.resolver.addresses(host)).await;
        match addresses.unwrap_or_default() {
            addresses if addresses.len() > 1 => addresses.into_iter().map(|only| self.to(only)).collect(),
            _ => vec![self.clone()],
        }
    }

    /// The same, but each request has a connection of its own.
    pub(super) fn fresh(&self) -> Self {
        Self { client: self.unpooled.clone(), ..self.clone() }
    }

    fn to(&self, only: IpAddr) -> Self {
        let resolver = Resolver { only: Some(only), ..self.resolver.clone() };
        Self::over(resolver, self.timeout, self.user_agent.clone(), self.tls.clone())
    }

    fn tls(tls: bool) -> Result<ClientConfig, io::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let config = if tls {
            config.with_native_roots()?
        } else {
            config.with_root_certificates(RootCertStore::empty())
        };
        Ok(config.with_no_client_auth())
    }

    fn over(resolver: Resolver, timeout: Duration, user_agent: HeaderValue, tls: ClientConfig) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver.clone());
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let unpooled =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector.clone());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .build(connector);
        Self { client, unpooled, resolver, user_agent, timeout, tls }
    }

    /// GETs a repomd.xml, unless it is still the one that `known` stands for.
    pub(super) async fn look(&self, url: &str, known: Option<Validator>) -> Result<Looked, Failure> {
        let conditional = known.is_some();
        self.timed(async {
            let response = match self.ask(&Method::GET, url, known.into_iter().collect()).await {
                Err(failure @ Failure::Redirected(_)) => {
                    return Ok(Looked::New(Seen::Gone(format!("repomd.xml {failure}")), None));
                }
                other => other?,
            };
            let (parts, body) = response.into_parts();
            let validator = validator(&parts.headers);
            match parts.status.as_u16() {
                304 if conditional => Ok(Looked::Same),
                200 => Ok(Looked::New(read(body).await?, validator)),
                408 | 425 | 429 | 500.. => Err(refused(parts.status, &parts.headers)),
                status @ (401 | 403 | 404 | 410) => {
                    Ok(Looked::New(Seen::Gone(format!("no repomd.xml ({status})")), None))
                }
                status => Ok(Looked::New(Seen::Unclear(format!("repomd.xml answers {status}")), None)),
            }
        })
        .await
    }

    /// HEADs a file of this size.
    pub(super) async fn head(&self, url: &str, size: u64) -> Result<(), Failure> {
        self.timed(async {
            let response = self.ask(&Method::HEAD, url, HeaderMap::new()).await?;
            if response.status() != StatusCode::OK {
                return Err(refused(response.status(), response.headers()));
            }
            check_size(response.headers(), header::CONTENT_LENGTH, |value| value.parse().ok(), size)
        })
        .await
    }

    /// HEADs a file: what it looks like there. `None` where it isn't, or where the mirror doesn't say.
    pub(super) async fn sight(&self, url: &str) -> Result<Option<Look>, Failure> {
        self.timed(async {
            let response = match self.ask(&Method::HEAD, url, HeaderMap::new()).await {
                Err(Failure::Redirected(_)) => return Ok(None),
                other => other?,
            };
            let text = |name| response.headers().get(name)?.to_str().ok();
            let size = || text(header::CONTENT_LENGTH)?.trim().parse().ok();
            let look =
                || Some(Look::new(size()?, date::parse(response.headers().get(header::LAST_MODIFIED)?)?));
            match response.status() {
                StatusCode::OK => Ok(look()),
                status => match refused(status, response.headers()) {
                    failure if failure.is_transient() => Err(failure),
                    _ => Ok(None),
                },
            }
        })
        .await
    }

    /// GETs a part of a file of this size; `None` where the mirror answers no ranges. `received` counts its bytes as they come.
    pub(super) async fn part(
        &self,
        url: &str,
        size: u64,
        part: ByteRange,
        received: &AtomicU64,
    ) -> Result<Option<Bytes>, Failure> {
        self.timed(async {
            let asked = format!("bytes={}-{}", part.start, part.end - 1);
            let range = HeaderValue::try_from(asked).map_err(|error| Failure::Broken(error.to_string()))?;
            let headers = [(header::RANGE, range)].into_iter().collect();
            let response = self.ask(&Method::GET, url, headers).await?;
            match response.status() {
                StatusCode::PARTIAL_CONTENT => {
                    let given = format!("bytes {}-{}/", part.start, part.end - 1);
                    let total = |value: &str| value.strip_prefix(&given)?.parse().ok();
                    // Without the total it is no range of this file that anybody could go on with.
                    match check_size(response.headers(), header::CONTENT_RANGE, total, size) {
                        Err(Failure::Sizeless) => return Ok(None),
                        checked => checked?,
                    }
                    let most = usize::try_from(part.len()).unwrap_or(usize::MAX);
                    let (mut body, mut bytes) = (Limited::new(response.into_body(), most), BytesMut::new());
                    while let Some(frame) = body.frame().await {
                        let frame = frame.map_err(|error| failure(&*error))?;
                        let data = frame.into_data().unwrap_or_default();
                        received.fetch_add(data.len() as u64, Ordering::Relaxed);
                        bytes.extend_from_slice(&data);
                    }
                    Ok(Some(bytes.freeze()))
                }
                StatusCode::OK => {
                    check_size(response.headers(), header::CONTENT_LENGTH, |value| value.parse().ok(), size)?;
                    Ok(None)
                }
                StatusCode::RANGE_NOT_SATISFIABLE => Ok(None),
                status => Err(refused(status, response.headers())),
            }
        })
        .await
    }

    /// HEADs anything: whether the mirror answers.
    pub(super) async fn alive(&self, url: &str) -> Result<(), Failure> {
        self.timed(async {
            match self.ask(&Method::HEAD, url, HeaderMap::new()).await {
                Err(Failure::Redirected(_)) => Ok(()),
                Ok(response) if response.status().is_server_error() => {
                    Err(Failure::Status(response.status().as_u16()))
                }
                other => other.map(|_| ()),
            }
        })
        .await
    }

    async fn timed<T>(&self, probe: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::time::timeout(self.timeout, probe).await.unwrap_or(Err(Failure::Timeout(self.timeout)))
    }

    async fn ask(
        &self,
        method: &Method,
        url: &str,
        headers: HeaderMap,
    ) -> Result<http::Response<Incoming>, Failure> {
        let mut uri: Uri = url.parse().map_err(|_| Failure::Broken(format!("{url:?} is no URL")))?;
        if self.resolver.excludes(uri.host().unwrap_or_default()) {
            return Err(Failure::NoAddress(self.resolver.family));
        }
        let mirror = uri.clone();
        // From the first redirect on: the client of the address that answered.
        let mut pinned = None;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(Empty::new());
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.clone();
            request.headers_mut().clone_from(&headers);
            request.headers_mut().insert(header::USER_AGENT, self.user_agent.clone());
            request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            let of = pinned.as_ref().unwrap_or(self);
            let response = of.client.request(request).await.map_err(|error| failure(&error))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            uri = hop(&mirror, &uri, response.headers())?;
            if pinned.is_none() && self.resolver.only.is_none() && !is_address(uri.host().unwrap_or_default())
            {
                pinned = Some(self.to(answerer(&response)?));
            }
        }
        Err(Failure::Redirected(format!("{uri} after {MAX_REDIRECTS} other redirects")))
    }
}

/// The address that an answer came from.
fn answerer(response: &http::Response<Incoming>) -> Result<IpAddr, Failure> {
    let info = response.extensions().get::<HttpInfo>();
    let unknown = || Failure::Broken("a redirect from an unknown address".to_owned());
    info.map(|info| info.remote_addr().ip()).ok_or_else(unknown)
}

/// What an unexpected status says. Retry-After is in seconds, or a date (RFC 9110, 10.2.3).
fn refused(status: StatusCode, headers: &HeaderMap) -> Failure {
    match status.as_u16() {
        status @ (408 | 425 | 429 | 503) => {
            let value = headers.get(header::RETRY_AFTER);
            let seconds = value.and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let until = || Some(date::parse(value?)?.since(clock::date()));
            Failure::Busy { status, after: seconds.map(Duration::from_secs).or_else(until) }
        }
        status => Failure::Status(status),
    }
}

async fn read(body: Incoming) -> Result<Seen, Failure> {
    let body = match Limited::new(body, MAX_REPOMD_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Ok(Seen::Gone("repomd.xml is longer than 1 MiB".to_owned()));
        }
        Err(error) => return Err(failure(&*error)),
    };
    let start = body.trim_ascii_start();
    let is_page = |tag: &[u8]| start.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
    if is_page(b"<!doctype html") || is_page(b"<html") {
        return Ok(Seen::Gone("repomd.xml answered with HTML".to_owned()));
    }
    Ok(Seen::Shows(Sha256::of(&body)))
}

/// A size that isn't the listed one. A web page without any is what some servers answer for what is absent.
fn check_size(
    headers: &HeaderMap,
    name: HeaderName,
    parse: impl Fn(&str) -> Option<u64>,
    listed: u64,
) -> Result<(), Failure> {
    let is_page =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    match headers.get(name).and_then(|value| parse(value.to_str().ok()?.trim())) {
        Some(actual) if actual != listed => Err(Failure::Size { actual, listed }),
        Some(_) => Ok(()),
        None if is_page => Err(Failure::Page),
        None => Err(Failure::Sizeless),
    }
}

fn validator(headers: &HeaderMap) -> Option<Validator> {
    let etag = headers.get(header::ETAG).map(|etag| (header::IF_NONE_MATCH, etag.clone()));
    etag.or_else(|| headers.get(header::LAST_MODIFIED).map(|date| (header::IF_MODIFIED_SINCE, date.clone())))
}

/// In words that stay the same as time goes by: each change is news.
fn tls_failure(error: &rustls::Error) -> String {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error {
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "TLS: the certificate has expired".to_owned()
        }
        rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            "TLS: the certificate is not valid yet".to_owned()
        }
        _ => format!("TLS: {error}"),
    }
}

fn failure(error: &(dyn Error + 'static)) -> Failure {
    let mut innermost = error;
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => return Failure::Refused,
            Some(io::ErrorKind::ConnectionReset) => return Failure::Broken("connection reset".to_owned()),
            _ => {}
        }
        if let Some(NoAddress(family)) = error.downcast_ref() {
            return Failure::NoAddress(*family);
        }
        if let Some(Forbidden(addr)) = error.downcast_ref() {
            return Failure::Forbidden(*addr);
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Failure::Broken(tls_failure(error));
        }
        // An io::Error shows its inner error's source, not itself.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        innermost = error;
        cause = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    Failure::Broken(innermost.to_string())
}
