//! From an answer to a response: conditions, ranges, header fields, body.

use super::account::{Tally, Verdict};
use super::answer::{Answer, Served};
use super::asked::Asked;
use super::body::{ResponseBody, Supply};
use super::cache_status::Cached;
use super::reply::{Fields, NOSNIFF, REPR_DIGEST, Ready, Reply, describe};
use crate::http::conditional::{self, Outcome as Condition, Validators};
use crate::http::fields;
use crate::http::multipart::{Multipart, Piece};
use crate::http::range::{self, ByteRange, Requested};
use crate::metrics::Outcome;
use crate::origin::Passed;
use crate::policy::{Reason, client};
use crate::repo::Digest;
use crate::shares::Owner;
use crate::store::{Content, Meta, Source, Tail, Tier, repr_digest};
use bytes::Bytes;
use http::header::{
    AGE, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, LINK,
    LOCATION, RANGE, VIA, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::rc::Rc;
use std::sync::Arc;

/// What a response is built from.
struct Draft {
    status: StatusCode,
    /// With all but Age and what is said of the cache.
    ready: Option<Arc<Ready>>,
    headers: HeaderMap,
    supply: Supply,
    pieces: Vec<Piece>,
    length: Option<u64>,
    outcome: Outcome,
    reason: Reason,
    cache: Cached,
    mirror: Option<usize>,
}

impl Draft {
    fn new(status: StatusCode, outcome: Outcome, reason: Reason) -> Self {
        let (supply, pieces, headers) = (Supply::Memory, Vec::new(), HeaderMap::new());
        let (length, cache, mirror) = (Some(0), Cached::None, None);
        Self { status, ready: None, headers, supply, pieces, length, outcome, reason, cache, mirror }
    }

    fn text(mut self, content_type: &'static str, text: Bytes) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.length = Some(text.len() as u64);
        self.pieces = vec![Piece::Bytes(text)];
        self
    }
}

/// The response.
pub fn respond(tally: Rc<Tally>, answer: Answer) -> Reply {
    let (peer, asked) = (&tally.peer, &tally.asked);
    let draft = match answer {
        Answer::Content(mut served) => {
            if let Some(object) = served.object.take() {
                // The account is new: nothing is set yet.
                let _ = tally.object.set(object);
            }
            tally.goes_as(served.class);
            content(asked, served, &peer.edge.via)
        }
        Answer::Passed(answer) => passed(asked, &answer),
        Answer::Redirect { mirror, location, links, digest, reason } => {
            redirect(mirror, location, links, digest, reason)
        }
        Answer::Listing(html) => {
            let content_type = "text/html; charset=utf-8";
            let page = page(StatusCode::OK, Reason::Listing, content_type, html, None);
            Draft { supply: Supply::Lent, ..page }
        }
        Answer::Page { status, reason, content_type, body, location } => {
            page(status, reason, content_type, body, location.as_deref())
        }
    };
    let Draft { status, ready, mut headers, supply, pieces, length, outcome, reason, cache, mirror } = draft;
    let cache_status = Some(peer.edge.cache_status.value(cache, reason));
    if ready.is_none() {
        headers.append(VIA, peer.edge.via.clone());
        // What has no body of its own needs none: a 304 (RFC 9110, 15.4.5), and a redirect to a mirror.
        if status != StatusCode::NOT_MODIFIED && outcome != Outcome::Redirect {
            headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        }
        if let Some(length) = length.filter(|_| has_length(status)) {
            headers.insert(CONTENT_LENGTH, length.into());
        }
    }
    let body_bytes = if asked.is_head { Some(0) } else { length };
    tally.answered(Verdict {
        status: status.as_u16(),
        outcome,
        reason,
        cache: cache.word(),
        mirror,
        body_bytes,
    });
    let ends_connection = matches!(reason, Reason::BadRequest | Reason::Method);
    let body = ResponseBody::new(tally, supply, pieces, length);
    Reply { status, fields: Fields { ready, cache_status, more: headers }, body, ends_connection }
}

fn content(asked: &Asked, served: Served, via: &HeaderValue) -> Draft {
    let Served { content, object: _, part, reason, class: _, cache_control } = served;
    let meta = content.meta.clone();
    let (cache, held) = (cached(&content), held(&content));
    let validators = if asked.conditions.is_empty() { Validators::default() } else { validators(&meta) };
    let mut draft = match conditional::evaluate(&asked.conditions, &validators) {
        Condition::NotModified => Draft::new(StatusCode::NOT_MODIFIED, Outcome::Answer, reason),
        Condition::PreconditionFailed => {
            let draft = Draft::new(StatusCode::PRECONDITION_FAILED, Outcome::Answer, reason);
            draft.text(
                "text/plain; charset=utf-8",
                "412: the file is not the one that the request names\n".into(),
            )
        }
        Condition::Proceed => {
            let wanted = asked.conditions.get(RANGE).filter(|_| !asked.is_head);
            let wanted = wanted.filter(|_| conditional::if_range_holds(&asked.conditions, &validators));
            let requested = match (part, meta.length, &content.source) {
                (Some(part), _, _) => Requested::Ranges(vec![part]),
                // What streams by can't be cut into ranges.
                (None, None, _) | (None, _, Source::Pass(_) | Source::Apart(_)) => Requested::Whole,
                (None, Some(length), _) => range::requested(wanted, length),
            };
            let mut draft = body(&meta, content, requested, reason);
            if let (Supply::Growing(tail), false) = (&mut draft.supply, asked.is_head) {
                want(tail, &draft.pieces, meta.length, asked.client.owner);
            }
            draft
        }
    };
    draft.cache = cache;
    let headers = &mut draft.headers;
    if matches!(draft.status, StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE) {
        // What follows describes the file, not an error.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return draft;
    }
    let misread = asked.client.is_yum3 && meta.fields.has_misread();
    if draft.status == StatusCode::OK && meta.length.is_some() && draft.length == meta.length && !misread {
        draft.ready = Some(Ready::of(&meta, &cache_control, via));
    } else {
        describe(&mut draft.headers, draft.status, &meta, cache_control);
    }
    if misread {
        fields::remove_misread(&mut draft.headers);
    }
    // RFC 9111 5.1. What a catalogue lists, or lies in a local tree, has the node for its origin: it has no age, and a downstream
    // cache may count its lifetime from now.
    if meta.speaks_for_origin() {
        let age = meta.terms.age(asked.now);
        if held == Held::Cached || age > 0 {
            draft.headers.insert(AGE, age.into());
        }
    }
    draft
}

/// What the origin answered, with all its end-to-end fields. No condition or range is held against it (RFC 9110 13.2.1, 14.2).
fn passed(asked: &Asked, answer: &Passed) -> Draft {
    let status = answer.status;
    let reason = match status {
        _ if answer.is_absence() => Reason::NotFound,
        _ if status.is_redirection() => Reason::Moved,
        _ => Reason::Unlisted,
    };
    let fields = fields::Fields::of(&answer.headers, answer.exchange.date);
    let mut draft = Draft::new(status, Outcome::Answer, reason);
    draft.headers = fields.map().clone();
    if asked.client.is_yum3 {
        fields::remove_misread(&mut draft.headers);
    }
    let of_the_body = [CONTENT_TYPE, ETAG, LAST_MODIFIED].into_iter().filter(|_| answer.body.is_some());
    for name in of_the_body.chain(status.is_redirection().then_some(LOCATION)) {
        if let Some(value) = answer.headers.get(&name) {
            draft.headers.insert(name, value.clone());
        }
    }
    if let Some(body) = &answer.body {
        draft.length = Some(body.len() as u64);
        draft.pieces = vec![Piece::Bytes(body.clone())];
    } else {
        fields::remove_content(&mut draft.headers);
        draft = draft.text("text/plain; charset=utf-8", format!("{status}\n").into());
    }
    if !fields.govern_caching() {
        draft.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let age = answer.age(asked.now);
    if age > 0 {
        draft.headers.insert(AGE, age.into());
    }
    draft
}

/// RFC 9110 8.6, 15.4.5.
fn has_length(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// What conditions are held against.
pub fn validators(meta: &Meta) -> Validators<'_> {
    Validators {
        etag: meta.etag.as_ref().and_then(|etag| etag.to_str().ok()),
        last_modified: meta.last_modified,
    }
}

/// The body for what was requested (RFC 9110, section 14).
fn body(meta: &Meta, content: Content, requested: Requested, reason: Reason) -> Draft {
    let mut draft = Draft::new(StatusCode::OK, Outcome::Serve, reason);
    match requested {
        Requested::Whole => {
            draft.length = meta.length;
            draft.pieces = vec![Piece::Range(ByteRange { start: 0, end: meta.length.unwrap_or(u64::MAX) })];
        }
        Requested::Ranges(ranges) => {
            draft.status = StatusCode::PARTIAL_CONTENT;
            let length = meta.length.unwrap_or_default();
            if let [range] = ranges[..] {
                draft.headers.insert(CONTENT_RANGE, range::content_range(range, length));
                draft.length = Some(range.len());
                draft.pieces = vec![Piece::Range(range)];
            } else {
                let seed =
                    client::hash(&(meta.sha256.map(|sha256| *sha256.as_bytes()), length, ranges.len()));
                let multipart = Multipart::new(&ranges, length, &meta.content_type, seed);
                draft.headers.insert(CONTENT_TYPE, multipart.content_type());
                draft.length = Some(multipart.content_length());
                draft.pieces = multipart.pieces();
            }
        }
        Requested::Unsatisfiable => {
            let length = meta.length.unwrap_or_default();
            let mut draft = Draft::new(StatusCode::RANGE_NOT_SATISFIABLE, Outcome::Answer, reason)
                .text("text/plain; charset=utf-8", format!("416: the file has {length} bytes\n").into());
            draft.headers.insert(CONTENT_RANGE, range::unsatisfied_range(length));
            return draft;
        }
    }
    draft.supply = match content.source {
        Source::Memory(bytes) => {
            cut(&mut draft.pieces, &bytes);
            Supply::Kept
        }
        Source::File(file) => Supply::File(file),
        Source::Growing(tail) => Supply::Growing(tail),
        Source::Pass(pass) => Supply::Pass(pass),
        // Only its head is asked for.
        Source::Apart(_) => Supply::Memory,
    };
    draft
}

/// Tells a fill what of the object is going to be read.
fn want(tail: &mut Tail, pieces: &[Piece], length: Option<u64>, owner: Owner) {
    let of_range = |piece: &Piece| if let Piece::Range(range) = piece { Some(*range) } else { None };
    let wanted: Vec<ByteRange> = pieces.iter().filter_map(of_range).collect();
    match wanted[..] {
        [all] if all.start == 0 && length.is_none_or(|length| all.end == length) => tail.want_whole(),
        _ => tail.want(&wanted, owner),
    }
}

/// Replaces ranges by the bytes that they stand for.
fn cut(pieces: &mut [Piece], bytes: &Bytes) {
    for piece in pieces {
        if let Piece::Range(range) = *piece {
            let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(bytes.len());
            let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
            *piece = Piece::Bytes(bytes.slice(start..end));
        }
    }
}

fn redirect(
    mirror: usize,
    location: HeaderValue,
    links: Vec<HeaderValue>,
    digest: Option<Digest>,
    reason: Reason,
) -> Draft {
    let mut draft = Draft::new(StatusCode::FOUND, Outcome::Redirect, reason);
    draft.mirror = Some(mirror);
    let headers = &mut draft.headers;
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(LOCATION, location);
    for link in links {
        headers.append(LINK, link);
    }
    if let Some(value) = digest.as_ref().and_then(repr_digest) {
        headers.insert(REPR_DIGEST, value);
    }
    draft
}

fn page(
    status: StatusCode,
    reason: Reason,
    content_type: &'static str,
    body: Bytes,
    location: Option<&str>,
) -> Draft {
    let mut draft = Draft::new(status, Outcome::Answer, reason).text(content_type, body);
    let cache_control = if status == StatusCode::OK { "no-cache" } else { "no-store" };
    draft.headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache_control));
    if let Some(value) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
        draft.headers.insert(LOCATION, value);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        draft.headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    draft
}

/// Whether an answer was stored before it was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Cached,
    Arriving,
}

const fn held(content: &Content) -> Held {
    match content.tier {
        Tier::Memory | Tier::Disk | Tier::Tree => Held::Cached,
        Tier::Fill | Tier::Pass => Held::Arriving,
    }
}

const fn cached(content: &Content) -> Cached {
    if content.stale {
        return Cached::Stale;
    }
    match content.tier {
        Tier::Memory | Tier::Disk | Tier::Tree => Cached::Hit,
        Tier::Fill => Cached::Fill,
        Tier::Pass => Cached::Pass,
    }
}
