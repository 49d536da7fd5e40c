//! Which version of an object an answer of the origin carries.

use super::PollValidators;
use crate::http::date;
use hyper::header::{self, HeaderMap, HeaderValue};

/// A Last-Modified this close to the response's Date may still stand for two versions (RFC 9110 8.8.2.2).
const WEAK_SECONDS: u64 = 2;

/// What the next poll may send.
pub(super) fn validators(headers: &HeaderMap) -> PollValidators {
    let etag = headers.get(header::ETAG).cloned();
    PollValidators { last_modified: settled(headers).cloned(), etag, stamp: None }
}

/// Last-Modified, unless it may stand for two versions.
fn settled(headers: &HeaderMap) -> Option<&HeaderValue> {
    let modified = headers.get(header::LAST_MODIFIED)?;
    let (at, sent) = (date::parse(modified)?, date::parse(headers.get(header::DATE)?)?);
    (sent.as_secs() >= at.as_secs().saturating_add(WEAK_SECONDS)).then_some(modified)
}

/// A strong validator (RFC 9110 8.8): whatever carries it has the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// A strong ETag.
    ETag(HeaderValue),
    /// Where there is no ETag: a Last-Modified that is older than the response.
    LastModified(HeaderValue),
}

impl Version {
    /// Of the representation that a 200 with these header fields carries.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        match headers.get(header::ETAG) {
            Some(etag) => etag.as_bytes().starts_with(b"\"").then(|| Self::ETag(etag.clone())),
            None => settled(headers).cloned().map(Self::LastModified),
        }
    }

    /// Its validator, and whether that is an ETag: to be written down.
    #[must_use]
    pub const fn validator(&self) -> (bool, &HeaderValue) {
        match self {
            Self::ETag(value) => (true, value),
            Self::LastModified(value) => (false, value),
        }
    }

    /// As it was written down.
    #[must_use]
    pub const fn from_validator(is_etag: bool, value: HeaderValue) -> Self {
        if is_etag { Self::ETag(value) } else { Self::LastModified(value) }
    }

    /// For If-Range.
    #[must_use]
    pub fn if_range(&self) -> HeaderValue {
        let (Self::ETag(value) | Self::LastModified(value)) = self;
        value.clone()
    }

    /// Whether a 206 with these header fields carries a part of this version (RFC 9110 15.3.7.3): an origin that
    /// doesn't know If-Range sends a part of whichever it has.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let etag = headers.get(header::ETAG);
        match self {
            Self::ETag(value) => etag == Some(value),
            Self::LastModified(value) => etag.is_none() && headers.get(header::LAST_MODIFIED) == Some(value),
        }
    }
}
