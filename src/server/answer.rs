//! What a request gets, before it is a response.

use super::asked::Refused;
use crate::http::range::ByteRange;
use crate::origin::Passed;
use crate::policy::Reason;
use crate::policy::fair::Class;
use crate::repo::Digest;
use crate::store::{Content, Object};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use std::sync::Arc;

/// What a request gets.
pub enum Answer {
    /// Bytes of the tree.
    Content(Served),
    /// A mirror's URL.
    Redirect {
        /// The mirror's number.
        mirror: usize,
        /// The absolute URL.
        location: HeaderValue,
        /// `Link` values of other mirrors with the same bytes.
        links: Vec<HeaderValue>,
        /// Of the file.
        digest: Option<Digest>,
        /// Why.
        reason: Reason,
    },
    /// What the origin answered, which is no file.
    Passed(Arc<Passed>),
    /// A page that shows a directory, and that others may have, too.
    Listing(Bytes),
    /// A page of the node's own.
    Page {
        /// The status code.
        status: StatusCode,
        /// Why.
        reason: Reason,
        /// Its type.
        content_type: &'static str,
        /// Its text.
        body: Bytes,
        /// For a 301.
        location: Option<String>,
    },
}

/// Content that is to be sent.
pub struct Served {
    /// The bytes.
    pub content: Content,
    /// What the store knows it as; none for what lies with its generation.
    pub object: Option<Object>,
    /// The content is only this part of the representation, which was asked for.
    pub part: Option<ByteRange>,
    /// Why the node serves it.
    pub reason: Reason,
    /// What it goes before, or after, while the capacity is used up.
    pub class: Class,
    /// What caches downstream may do with it, where the origin's own fields don't say.
    pub cache_control: HeaderValue,
}

impl Answer {
    /// A page.
    pub fn page(
        status: StatusCode,
        reason: Reason,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        Self::Page { status, reason, content_type, body: body.into(), location: None }
    }

    /// An error, with a line of text.
    pub fn error(status: StatusCode, reason: Reason, why: &str) -> Self {
        Self::page(status, reason, "text/plain; charset=utf-8", format!("{status}: {why}\n"))
    }

    /// What is not for clients: before any look at the origin, so that the answer doesn't tell what is there.
    pub fn hidden() -> Self {
        Self::error(StatusCode::NOT_FOUND, Reason::Hidden, "not found")
    }

    /// 301.
    pub fn moved(location: String) -> Self {
        let body = format!("moved to {location}\n").into();
        let (status, content_type) = (StatusCode::MOVED_PERMANENTLY, "text/plain; charset=utf-8");
        Self::Page { status, reason: Reason::Moved, content_type, body, location: Some(location) }
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        Self::error(refused.status, refused.reason, &refused.why)
    }
}
