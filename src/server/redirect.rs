//! A mirror takes the client.

use super::Edge;
use super::answer::Answer;
use super::asked::Asked;
use super::consider::Question;
use crate::config::Mirror;
use crate::http::TreePath;
use crate::http::range::{self, ByteRange, Requested};
use crate::listing::link;
use crate::policy::Redirect;
use bytes::Bytes;
use http::HeaderValue;
use http::header::RANGE;

/// Bytes of a URL and of the rest of a `Link` field, in most cases.
const FIELD_BYTES: usize = 256;

/// Sends the client to the mirror, and takes note of it.
pub fn to_mirror(edge: &Edge, asked: &Asked, question: &Question<'_>, redirect: &Redirect) -> Answer {
    let Redirect { mirror, size, reason, .. } = *redirect;
    // A HEAD moves no bytes, and the GET that follows it is no bounce.
    let bytes = if asked.is_head { 0 } else { wanted_bytes(asked, size) };
    if !asked.is_head {
        edge.clients.redirected(asked.seen(&question.path), mirror, size, asked.now);
    }
    let owner = asked.client.owner;
    let expected = || edge.lines.expected(owner, bytes, asked.now);
    edge.load.charge(mirror, owner.network, bytes, expected, asked.now);
    let (redirects, redirected_bytes) = &edge.redirected[mirror];
    redirects.inc();
    redirected_bytes.inc_by(bytes);
    let (location, links) = fields(&edge.config.mirrors, redirect, asked.client.is_yum3);
    let digest = question.object().identity.map(|identity| identity.digest);
    Answer::Redirect { mirror, location, links, digest, reason }
}

/// Gives back what the mirror was charged with for a client that it failed.
pub fn give_back(edge: &Edge, asked: &Asked, question: &Question<'_>, mirror: usize) {
    if let Some(size) = question.size() {
        edge.load.give_back(mirror, asked.client.owner.network, wanted_bytes(asked, size), asked.now);
    }
}

/// The URL of the file at `path` on a mirror.
pub fn url(mirror: &Mirror, path: &TreePath) -> String {
    format!("{}{}", mirror.url, path.encoded())
}

/// How much of a file of `size` bytes the request asks for.
fn wanted_bytes(asked: &Asked, size: u64) -> u64 {
    match range::requested(asked.conditions.get(RANGE), size) {
        Requested::Ranges(ranges) => ranges.into_iter().map(ByteRange::len).sum(),
        Requested::Whole | Requested::Unsatisfiable => size,
    }
}

/// `Location` and the `Link` fields, all cut from one piece of memory. A URL that no field can hold is an empty one: the config
/// takes none such.
fn fields(mirrors: &[Mirror], redirect: &Redirect, is_yum3: bool) -> (HeaderValue, Vec<HeaderValue>) {
    let Redirect { mirror, path, others, .. } = redirect;
    let mut text = String::with_capacity((2 + others.len()) * FIELD_BYTES);
    let mut encoded = path.encoded();
    text.push_str(&mirrors[*mirror].url);
    text.push_str(&encoded);
    let mut ends = vec![text.len()];
    // yum 3 reads any header line with `location` in it as a redirect, and a file name may contain it.
    if !is_yum3 {
        let mut latest = path;
        let all = std::iter::once((mirror, path)).chain(others.iter().map(|(index, path)| (index, path)));
        for ((index, path), pri) in all.zip(1..) {
            // Mirrors have the file at one path, but for a twin's.
            if path != latest {
                (latest, encoded) = (path, path.encoded());
            }
            let mirror = &mirrors[*index];
            link::duplicate(&mut text, (&mirror.url, &encoded), pri, mirror.country);
            ends.push(text.len());
        }
    }
    let text = Bytes::from(text);
    let mut start = 0;
    let mut values = ends.into_iter().map(|end| {
        let value = text.slice(start..end);
        start = end;
        HeaderValue::from_maybe_shared(value).unwrap_or(const { HeaderValue::from_static("") })
    });
    (values.next().unwrap_or(const { HeaderValue::from_static("") }), values.collect())
}
