//! What the store is asked for, and what it gives back.

use super::{FillError, PassBody, Tail};
use crate::clock::Timestamp;
use crate::http::freshness::{Grace, Terms};
use crate::http::{Fields, PathError, TreePath, date};
use crate::origin::Version;
use crate::repo::{Algorithm, Derived, Digest, Digester, Sha256};
use bytes::Bytes;
use hyper::header::HeaderValue;
use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// Stands for "always": an object whose digest is listed can't go stale.
pub const FOREVER: Timestamp = Timestamp::from_millis(u64::MAX);

/// Bytes known by their digest, from a catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Of all bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

impl Identity {
    /// For a body that is to be checked.
    pub(super) fn digester(&self) -> Digester {
        Digester::new(self.digest.algorithm())
    }

    /// Whether a body of the digest `received` is it.
    pub(super) fn check(&self, received: Digest) -> Result<(), FillError> {
        if received == self.digest {
            return Ok(());
        }
        Err(FillError::Mismatch { expected: Box::new(self.digest), received: Box::new(received) })
    }
}

/// The name of what is asked for. Two identities of one path are two objects.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Object {
    /// The canonical path: aliases applied.
    pub path: TreePath,
    /// What the catalogue lists there; `None` for what no catalogue lists.
    pub identity: Option<Identity>,
    /// The query that makes another object of what no catalogue lists: without its `?`, as the client wrote it.
    pub query: Option<Arc<str>>,
}

impl Object {
    /// An object that a catalogue lists.
    #[must_use]
    pub fn listed(path: TreePath, digest: impl Into<Digest>, size: u64) -> Self {
        Self { path, identity: Some(Identity { digest: digest.into(), size }), query: None }
    }

    /// An object that no catalogue lists.
    #[must_use]
    pub const fn unlisted(path: TreePath) -> Self {
        Self { path, identity: None, query: None }
    }

    /// The same with this query; a listed one is the same whatever is asked of it.
    #[must_use]
    pub fn with_query(self, query: Option<&str>) -> Self {
        let query = query.filter(|_| self.identity.is_none()).map(Arc::from);
        Self { query, ..self }
    }

    /// Path and query in one text, that no other path has: none has a NUL in it.
    pub(super) fn name(&self) -> Cow<'_, str> {
        match &self.query {
            None => self.path.as_str().into(),
            Some(query) => format!("{}\0{query}", self.path.as_str()).into(),
        }
    }

    /// From such a text.
    pub(super) fn from_name(name: &str, identity: Option<Identity>) -> Result<Self, PathError> {
        let (path, query) = match name.split_once('\0') {
            Some((path, query)) => (path, Some(Arc::from(query))),
            None => (name, None),
        };
        Ok(Self { path: TreePath::new(path)?, identity, query })
    }

    /// The listed size.
    pub(super) fn size(&self) -> Option<u64> {
        self.identity.map(|identity| identity.size)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        self.query.as_ref().map_or(Ok(()), |query| write!(f, "?{query}"))?;
        self.identity.map_or(Ok(()), |identity| write!(f, "@{:?}", identity.digest))
    }
}

/// What is known of an object's bytes, with header values ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Bytes of the whole object; `None` while an origin that promised no length still sends.
    pub length: Option<u64>,
    /// With quotes. Of a listed object the first 128 bits of its digest, so that all nodes agree; else the origin's.
    pub etag: Option<HeaderValue>,
    /// When the origin says it was last modified.
    pub last_modified: Option<Timestamp>,
    /// The same, as `Last-Modified`.
    pub last_modified_value: Option<HeaderValue>,
    /// By name; of a directory as the origin says.
    pub content_type: HeaderValue,
    /// SHA-256 of all bytes, where it is known.
    pub sha256: Option<Sha256>,
    /// As a catalogue lists them.
    pub listed: Option<Digest>,
    /// One of the two, as `Repr-Digest` (RFC 9530).
    pub repr_digest: Option<HeaderValue>,
    /// When the bytes came from the origin.
    pub stored: Timestamp,
    /// Until when they may be used without asking the origin; [`FOREVER`] for listed objects.
    pub fresh_until: Timestamp,
    /// What else the origin's answer says of its use. Of no meaning where nothing goes stale.
    pub terms: Terms,
    /// The origin's other header fields, to be sent with what no catalogue lists; none of what one does, or of a file in a
    /// local tree: there the node speaks for itself.
    pub fields: Fields,
    /// The head of an answer with it, once one was made.
    pub head: Head,
}

/// The head of an answer with the whole of an object, as its first one had it. It follows from the rest of [`Meta`]: all
/// heads are equal, and a copy, which may be changed, begins without one.
#[derive(Debug, Default)]
pub struct Head(Derived);

impl Head {
    /// The head; `make` makes it for the first who asks.
    pub fn get_or_make<T: Any + Send + Sync>(&self, make: impl Fn() -> T) -> Arc<T> {
        self.0.get_or_make(make)
    }
}

impl Clone for Head {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Head {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Head {}

/// The independent ones of [`Meta`]'s fields.
pub(super) struct Facts {
    pub(super) length: Option<u64>,
    pub(super) etag: Option<HeaderValue>,
    pub(super) last_modified: Option<Timestamp>,
    pub(super) content_type: HeaderValue,
    pub(super) sha256: Option<Sha256>,
    pub(super) listed: Option<Digest>,
    pub(super) stored: Timestamp,
    pub(super) fresh_until: Timestamp,
    pub(super) terms: Terms,
    pub(super) fields: Fields,
}

impl Meta {
    pub(super) fn new(facts: Facts) -> Self {
        Self {
            length: facts.length,
            etag: facts.etag,
            last_modified: facts.last_modified,
            last_modified_value: facts.last_modified.map(date::format),
            content_type: facts.content_type,
            sha256: facts.sha256,
            listed: facts.listed,
            repr_digest: facts
                .listed
                .as_ref()
                .and_then(repr_digest)
                .or_else(|| repr_digest(&facts.sha256?.into())),
            stored: facts.stored,
            fresh_until: facts.fresh_until,
            terms: facts.terms,
            fields: facts.fields,
            head: Head::default(),
        }
    }

    /// Of a listed object.
    #[must_use]
    pub fn listed(
        listed: Identity,
        last_modified: Option<Timestamp>,
        content_type: HeaderValue,
        stored: Timestamp,
    ) -> Self {
        Self::new(Facts {
            length: Some(listed.size),
            etag: Some(etag(&listed.digest)),
            last_modified,
            content_type,
            sha256: listed.digest.sha256(),
            listed: Some(listed.digest),
            stored,
            fresh_until: FOREVER,
            terms: Terms::none(stored),
            fields: Fields::default(),
        })
    }

    /// Whether the origin's fields are sent with it, and its age told: no catalogue lists it, and it isn't of a local tree. Such
    /// an answer always has a Date.
    #[must_use]
    pub fn speaks_for_origin(&self) -> bool {
        !self.fields.map().is_empty()
    }

    /// The same bytes, found to be current again.
    pub(super) fn renewed(&self, terms: Terms, fields: Fields) -> Self {
        Self { fresh_until: terms.fresh_until(), terms, fields, ..self.clone() }
    }

    /// The same bytes, which may not be used before the origin has confirmed them.
    pub(super) fn purged(&self) -> Self {
        let (lifetime, while_revalidating) = (Duration::ZERO, Grace::Forbidden);
        let terms = Terms { lifetime, while_revalidating, ..self.terms };
        Self { fresh_until: Timestamp::EPOCH, terms, ..self.clone() }
    }

    /// The same object once all of its bytes are there.
    pub(super) fn completed(&self, length: u64, sha256: Sha256) -> Self {
        Self::new(Facts {
            length: Some(length),
            etag: self.etag.clone(),
            last_modified: self.last_modified,
            content_type: self.content_type.clone(),
            sha256: Some(sha256),
            listed: self.listed,
            stored: self.stored,
            fresh_until: self.fresh_until,
            terms: self.terms,
            fields: self.fields.clone(),
        })
    }
}

/// The ETag of a listed object, the same on all nodes: 128 bits of its digest.
#[must_use]
pub fn etag(digest: &Digest) -> HeaderValue {
    HeaderValue::try_from(format!("\"{}\"", &digest.hex()[..32]))
        .expect("hex digits in quotes are a header value")
}

/// `Repr-Digest` (RFC 9530), for which there are names of two algorithms that anybody should rely on.
#[must_use]
pub fn repr_digest(digest: &Digest) -> Option<HeaderValue> {
    let name = match digest.algorithm() {
        Algorithm::Sha256 => "sha-256",
        Algorithm::Sha512 => "sha-512",
        Algorithm::Md5 | Algorithm::Sha1 | Algorithm::Sha224 | Algorithm::Sha384 => return None,
    };
    HeaderValue::try_from(format!("{name}=:{}:", digest.base64())).ok()
}

/// Where an answer's bytes come from: hit in which tier, or no hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The memory tier.
    Memory,
    /// The disk tier.
    Disk,
    /// A running fill: this request's own, or one it joined.
    Fill,
    /// The origin, past the cache.
    Pass,
    /// The directory origin's tree, or a file retained from it.
    Tree,
}

/// An object's bytes.
#[derive(Debug)]
pub enum Source {
    /// All of them.
    Memory(Bytes),
    /// A file that begins with them. It is longer than [`Meta::length`] in the disk tier: a trailer follows.
    File(Arc<File>),
    /// A file that is still being written.
    Growing(Tail),
    /// A stream for this request only. From `pass_range` it holds the range alone.
    Pass(PassBody),
    /// With the origin, in this version, and not to be stored: a part has to be asked for by `pass_range`, the whole by
    /// `fetch`.
    Apart(Option<Version>),
}

/// An answer of the store.
#[derive(Debug)]
pub struct Content {
    /// What is known of the bytes.
    pub meta: Arc<Meta>,
    /// The bytes.
    pub source: Source,
    /// Where they come from.
    pub tier: Tier,
    /// Served although stale, since the origin gave no usable answer or is being asked meanwhile (RFC 5861).
    pub stale: bool,
}

impl Content {
    /// For the answer to a HEAD: nobody reads its body.
    #[must_use]
    pub(super) fn head_only(self) -> Self {
        Self { source: Source::Memory(Bytes::new()), ..self }
    }

    /// Whether it may be served without asking the origin. What is just arriving is.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        match self.source {
            Source::Growing(_) | Source::Pass(_) | Source::Apart(_) => true,
            Source::Memory(_) | Source::File(_) => now < self.meta.fresh_until,
        }
    }
}
