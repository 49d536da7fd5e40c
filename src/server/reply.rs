//! A response, and the header fields of content.

use super::body::ResponseBody;
use super::h1::write::lines;
use crate::store::Meta;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderName,
    LAST_MODIFIED, VARY, VIA, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use std::sync::Arc;

/// What the cache had (RFC 9211).
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// The digest of the whole (RFC 9530).
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// Browsers take a body for what its Content-Type says: no file of the tree is run as a script because it looks like one.
pub const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// A response.
pub struct Reply {
    /// The status code.
    pub status: StatusCode,
    /// The header fields.
    pub fields: Fields,
    /// The body.
    pub body: ResponseBody,
    /// What follows on the connection may be the rest of something that wasn't understood.
    pub ends_connection: bool,
}

/// The header fields of a response, each name once: what was made ready, and what is said of this one.
#[derive(Debug, Default)]
pub struct Fields {
    /// What all responses with an object have.
    pub ready: Option<Arc<Ready>>,
    /// What the cache had, and why the node answers so.
    pub cache_status: Option<HeaderValue>,
    /// The others.
    pub more: HeaderMap,
}

/// The header fields of a 200 with all of an object.
#[derive(Debug)]
pub struct Ready {
    fields: HeaderMap,
    cache_control: HeaderValue,
    /// The origin's own Date is among them.
    has_date: bool,
    /// The same, as HTTP/1 has them.
    pub text: Vec<u8>,
}

impl Fields {
    /// The origin's own Date is among them.
    pub fn has_date(&self) -> bool {
        self.more.contains_key(DATE) || self.ready.as_ref().is_some_and(|ready| ready.has_date)
    }
}

/// For hyper, which speaks HTTP/2.
impl From<Reply> for Response<ResponseBody> {
    fn from(reply: Reply) -> Self {
        let mut response = Self::new(reply.body);
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.fields.ready.map(|ready| ready.fields.clone()).unwrap_or_default();
        response.headers_mut().extend(reply.fields.more);
        if let Some(value) = reply.fields.cache_status {
            response.headers_mut().append(CACHE_STATUS, value);
        }
        response
    }
}

impl Ready {
    /// They are made for the first who asks for the object; `Cache-Control` depends on the repo, too.
    pub fn of(meta: &Meta, cache_control: &HeaderValue, via: &HeaderValue) -> Arc<Self> {
        let make = || {
            let mut fields = HeaderMap::new();
            describe(&mut fields, StatusCode::OK, meta, cache_control.clone());
            fields.append(VIA, via.clone());
            fields.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
            fields.insert(CONTENT_LENGTH, meta.length.unwrap_or_default().into());
            let mut text = Vec::new();
            lines(&mut text, StatusCode::OK, &fields);
            let has_date = fields.contains_key(DATE);
            Ready { fields, cache_control: cache_control.clone(), has_date, text }
        };
        let ready = meta.head.get_or_make(make);
        if ready.cache_control == *cache_control { ready } else { Arc::new(make()) }
    }
}

/// The header fields of content: the origin's, where it is the origin who speaks, and the node's own.
pub fn describe(headers: &mut HeaderMap, status: StatusCode, meta: &Meta, cache_control: HeaderValue) {
    for (name, value) in meta.fields.map() {
        if is_sent_with(status, name) {
            headers.append(name.clone(), value.clone());
        }
    }
    if !meta.fields.govern_caching() {
        headers.insert(CACHE_CONTROL, cache_control);
    }
    insert(headers, ETAG, meta.etag.as_ref());
    if status == StatusCode::NOT_MODIFIED {
        // RFC 9110 15.4.5: no more than guides the update of what the client has.
        insert(headers, LAST_MODIFIED, meta.last_modified_value.as_ref().filter(|_| meta.etag.is_none()));
        return;
    }
    if !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, meta.content_type.clone());
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    insert(headers, LAST_MODIFIED, meta.last_modified_value.as_ref());
    insert(headers, REPR_DIGEST, meta.repr_digest.as_ref());
}

/// Whether a field of the origin's 200 belongs to an answer of this status.
fn is_sent_with(status: StatusCode, name: &HeaderName) -> bool {
    match status {
        StatusCode::NOT_MODIFIED => [CACHE_CONTROL, DATE, EXPIRES, VARY].contains(name),
        // These are of all bytes, in this very message; or, in a 200, of no meaning.
        StatusCode::PARTIAL_CONTENT => {
            !["content-digest", "content-md5", "content-range"].contains(&name.as_str())
        }
        _ => true,
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value.clone());
    }
}
