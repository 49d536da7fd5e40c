//! The head of a request, whichever protocol it came by: what the node reads of it, and nothing else.

use crate::http::{Forwarded, host};
use http::header::{
    CONTENT_LENGTH, HOST, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE, TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderMap, Method, Uri, Version};
use hyper::body::Body;

/// The fields that bear on what is sent: Range and the preconditions.
pub const CONDITIONS: [HeaderName; 6] =
    [RANGE, IF_RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_MATCH, IF_UNMODIFIED_SINCE];

/// So much of a User-Agent is read, logged, and kept for as long as the connection: the longest of clients of today have some 200.
pub const AGENT_BYTES: usize = 512;

/// What is kept of a User-Agent.
#[must_use]
pub fn kept_agent(value: &[u8]) -> Box<[u8]> {
    value[..value.len().min(AGENT_BYTES)].into()
}

/// A request's head.
#[derive(Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// What is asked for.
    pub target: Target,
    /// The version of HTTP.
    pub version: Version,
    /// Whom it is for.
    pub hosts: Hosts,
    /// The message goes on after its head.
    pub has_body: bool,
    /// The User-Agent field, its first [`AGENT_BYTES`]; empty if there is none.
    pub agent: Box<[u8]>,
    /// For whom a proxy says that it asks.
    pub forwarded: Forwarded,
    /// Those of [`CONDITIONS`] that it has; for most requests none, and no memory is taken then.
    pub conditions: HeaderMap,
}

/// What the Host fields of a head say, or in HTTP/2 `:authority`, which takes their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hosts {
    /// There is none.
    #[default]
    Missing,
    /// One host.
    One,
    /// More than one field.
    Several,
    /// What stands there is no host.
    Malformed,
}

impl Hosts {
    /// With one more field, of this value.
    #[must_use]
    pub fn and(self, value: &[u8]) -> Self {
        match self {
            Self::Missing if host::is_host(value) => Self::One,
            Self::Missing | Self::Malformed => Self::Malformed,
            Self::One | Self::Several => Self::Several,
        }
    }
}

/// A request's target: path and query as they came, without scheme and authority.
#[derive(Clone, Debug, Default)]
pub struct Target {
    text: Box<str>,
    path_bytes: usize,
}

impl Target {
    /// In origin form (`/path?query`), absolute form, or whatever else stands there. A fragment is cut off; it isn't for
    /// servers. A URL without a host, or of another scheme, stays as it is: no path begins so.
    #[must_use]
    pub fn new(text: &str) -> Self {
        if !text.starts_with('/')
            && let Some(path) = after_authority(text)
        {
            return Self::new(&path);
        }
        let bytes = text.as_bytes();
        if bytes.iter().fold(0, |odd, byte| odd | u8::from(*byte == b'#') | u8::from(*byte == b'?')) == 0 {
            return Self { text: text.into(), path_bytes: text.len() };
        }
        let end = bytes.iter().position(|byte| *byte == b'#').unwrap_or(bytes.len());
        let path_bytes = bytes[..end].iter().position(|byte| *byte == b'?').unwrap_or(end);
        Self { text: text[..end].into(), path_bytes }
    }

    /// Path and query.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[..self.path_bytes]
    }

    /// The query, without its `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_bytes + 1..)
    }
}

/// Of `http://host/path` what follows the host; a path that is missing is `/` (RFC 9112, section 3.2.2). `None` for what is
/// no URL of http or https with a host in it (RFC 9110, section 4.2).
fn after_authority(text: &str) -> Option<String> {
    let (scheme, after) = text.split_once("://")?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let (authority, rest) = after.split_at(after.find(['/', '?', '#']).unwrap_or(after.len()));
    if !host::is_host(authority.as_bytes()) {
        return None;
    }
    Some(if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") })
}

impl From<&Uri> for Target {
    fn from(uri: &Uri) -> Self {
        Self::new(uri.path_and_query().map_or("", |target| target.as_str()))
    }
}

impl<B: Body> From<&http::Request<B>> for Head {
    fn from(request: &http::Request<B>) -> Self {
        let fields = request.headers();
        let mut conditions = HeaderMap::new();
        for name in &CONDITIONS {
            for value in fields.get_all(name) {
                conditions.append(name.clone(), value.clone());
            }
        }
        let mut forwarded = Forwarded::default();
        fields.get_all(X_FORWARDED_FOR).iter().for_each(|value| forwarded.note_for(value.as_bytes()));
        fields.get_all(X_FORWARDED_PROTO).iter().for_each(|value| forwarded.note_proto(value.as_bytes()));
        Self {
            forwarded,
            target: Target::from(request.uri()),
            version: request.version(),
            hosts: hosts(request.uri(), fields),
            has_body: !request.body().is_end_stream(),
            agent: fields.get(USER_AGENT).map(|value| kept_agent(value.as_bytes())).unwrap_or_default(),
            conditions,
            method: request.method().clone(),
        }
    }
}

/// RFC 9113, section 8.3.1: `:authority` takes the place of Host, which may stand beside it.
fn hosts(uri: &Uri, fields: &HeaderMap) -> Hosts {
    let named = fields.get_all(HOST).iter().fold(Hosts::Missing, |hosts, value| hosts.and(value.as_bytes()));
    match (uri.authority(), named) {
        (Some(authority), Hosts::Missing | Hosts::One) => Hosts::Missing.and(authority.as_str().as_bytes()),
        (_, named) => named,
    }
}

/// A field that the node reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// One of [`CONDITIONS`], by its place there.
    Condition(usize),
    /// Host.
    Host,
    /// User-Agent.
    UserAgent,
    /// Content-Length.
    ContentLength,
    /// Transfer-Encoding.
    TransferEncoding,
    /// Connection.
    Connection,
    /// X-Forwarded-For.
    ForwardedFor,
    /// X-Forwarded-Proto.
    ForwardedProto,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

impl Field {
    /// By name, in whatever case; `None` for what the node doesn't read.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        const OTHERS: [(HeaderName, Field); 7] = [
            (HOST, Field::Host),
            (USER_AGENT, Field::UserAgent),
            (http::header::CONNECTION, Field::Connection),
            (CONTENT_LENGTH, Field::ContentLength),
            (TRANSFER_ENCODING, Field::TransferEncoding),
            (X_FORWARDED_FOR, Field::ForwardedFor),
            (X_FORWARDED_PROTO, Field::ForwardedProto),
        ];
        let is = |known: &HeaderName| known.as_str().eq_ignore_ascii_case(name);
        let other = OTHERS.iter().find(|(known, _)| is(known)).map(|(_, field)| *field);
        other.or_else(|| CONDITIONS.iter().position(is).map(Self::Condition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_in_every_form() {
        for (text, target, path, query) in [
            ("/a/b?c=d", "/a/b?c=d", "/a/b", Some("c=d")),
            ("/a", "/a", "/a", None),
            ("/a?", "/a?", "/a", Some("")),
            ("/a#b?c", "/a", "/a", None),
            ("http://h:80/a?b", "/a?b", "/a", Some("b")),
            ("http://h?b", "/?b", "/", Some("b")),
            ("http://h", "/", "/", None),
            ("HTTPS://[::1]:443/a", "/a", "/a", None),
            ("http:///a", "http:///a", "http:///a", None),
            ("http://u@h/a", "http://u@h/a", "http://u@h/a", None),
            ("http://h h/a", "http://h h/a", "http://h h/a", None),
            ("http://:80/a", "http://:80/a", "http://:80/a", None),
            ("ftp://h/a", "ftp://h/a", "ftp://h/a", None),
            ("foo?q=http://h/b", "foo?q=http://h/b", "foo", Some("q=http://h/b")),
            ("/a?u=http://h/b", "/a?u=http://h/b", "/a", Some("u=http://h/b")),
            ("*", "*", "*", None),
        ] {
            let found = Target::new(text);
            assert_eq!((found.as_str(), found.path(), found.query()), (target, path, query), "{text}");
        }
    }

    #[test]
    fn hosts_by_protocol() {
        let head = |uri: &str, hosts: &[&'static str]| {
            let mut request = http::Request::builder().uri(uri);
            for host in hosts {
                request = request.header("host", *host);
            }
            Head::from(&request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap()).hosts
        };
        assert_eq!(head("https://h/a", &[]), Hosts::One);
        assert_eq!(head("https://h/a", &["h"]), Hosts::One);
        assert_eq!(head("https://h/a", &["h", "h"]), Hosts::Several);
        assert_eq!(head("https://h/a", &["a/b"]), Hosts::Malformed);
        assert_eq!(head("https://u@h/a", &[]), Hosts::Malformed);
        assert_eq!(head("/a", &[]), Hosts::Missing);
        assert_eq!(head("/a", &["h"]), Hosts::One);
    }

    #[test]
    fn fields_by_name() {
        assert_eq!(Field::named("hOST"), Some(Field::Host));
        assert_eq!(Field::named("If-None-Match"), Some(Field::Condition(2)));
        assert_eq!(Field::named("Accept"), None);
    }
}
