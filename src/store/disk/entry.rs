//! The format of an entry, and whether a file is one.
//!
//! ```text
//! body (from offset 0) | CRC-32 of each of its blocks (4 each, LE)
//!   | trailer: postcard Record | magic and version (8) | trailer length (4, LE) | SHA-256 of these three (32)
//! ```
//!
//! In version 2 a catalogue's digest is always a SHA-256, and the last field isn't of the magic. It is read, and written no more.

use super::files::Files;
use super::sums;
use crate::clock::Timestamp;
use crate::http::freshness::Terms;
use crate::http::{ByteRange, Fields};
use crate::origin::Version;
use crate::repo::{Digest, Hasher, Sha256};
use crate::store::object::{Facts, Identity, Meta, Object};
use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};
use std::io;

const MAGIC: [u8; 8] = *b"freshet\x03";
/// The same with SHA-256 as the only kind of digest.
const SHA256_ONLY: [u8; 8] = *b"freshet\x02";
/// All that are read.
pub(crate) const MAGICS: [[u8; 8]; 2] = [MAGIC, SHA256_ONLY];
const FOOTER_BYTES: u64 = 8 + 4 + 32;
/// A trailer holds a path (4 KiB at most) and some header values.
const MAX_TRAILER_BYTES: u64 = 64 * 1024;
/// What an entry may take beyond its body, its sums apart.
const OVERHEAD_BYTES: u64 = 4096;

/// What an entry may take beyond its body of `length` bytes.
pub(in crate::store) const fn overhead_bytes(length: u64) -> u64 {
    OVERHEAD_BYTES + 4 * sums::blocks(length)
}

/// The trailer.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record<D = Digest> {
    pub(super) origin: String,
    /// With its query: see [`Object::name`].
    pub(super) path: String,
    pub(super) listed: Option<(D, u64)>,
    pub(super) length: u64,
    /// Known where it is whole.
    pub(super) sha256: Option<Sha256>,
    etag: Option<Vec<u8>>,
    last_modified: Option<Timestamp>,
    content_type: Vec<u8>,
    pub(super) stored: Timestamp,
    fresh_until: Timestamp,
    terms: Terms,
    fields: Vec<(String, Vec<u8>)>,
    /// Of the sums as they stand in the entry.
    sums: Sha256,
    parts: Option<PartsRecord>,
}

/// What is there of an object that isn't whole.
#[derive(Serialize, Deserialize)]
struct PartsRecord {
    /// Whether the version is an ETag, and its value.
    version: (bool, Vec<u8>),
    /// Start and end of each span.
    spans: Vec<(u64, u64)>,
}

impl Record {
    /// Of a complete object; `None` where length or digest aren't known.
    pub(super) fn of(origin: &str, object: &Object, meta: &Meta, sums: &[u8]) -> Option<Self> {
        meta.sha256?;
        Self::describe(origin, object, meta, sums)
    }

    /// Of parts; `None` where the length isn't known.
    pub(super) fn of_parts(
        origin: &str,
        object: &Object,
        meta: &Meta,
        version: &Version,
        spans: &[ByteRange],
    ) -> Option<Self> {
        let (is_etag, value) = version.validator();
        let version = (is_etag, value.as_bytes().to_vec());
        let spans = spans.iter().map(|span| (span.start, span.end)).collect();
        let record = Self::describe(origin, object, meta, &[])?;
        Some(Self { parts: Some(PartsRecord { version, spans }), ..record })
    }

    /// Of which version what is there, if it isn't whole.
    pub(crate) fn parts(&self) -> Option<(Version, Vec<ByteRange>)> {
        let PartsRecord { version: (is_etag, value), spans } = self.parts.as_ref()?;
        let version = Version::from_validator(*is_etag, HeaderValue::from_bytes(value).ok()?);
        let spans = spans.iter().map(|&(start, end)| ByteRange { start, end });
        let fits = |span: &ByteRange| span.start < span.end && span.end <= self.length;
        let spans: Vec<ByteRange> = spans.collect();
        spans.iter().all(fits).then_some((version, spans))
    }

    fn describe(origin: &str, object: &Object, meta: &Meta, sums: &[u8]) -> Option<Self> {
        Some(Self {
            origin: origin.to_owned(),
            path: object.name().into_owned(),
            listed: object.identity.map(|identity| (identity.digest, identity.size)),
            length: meta.length?,
            sha256: meta.sha256,
            etag: meta.etag.as_ref().map(|value| value.as_bytes().to_vec()),
            last_modified: meta.last_modified,
            content_type: meta.content_type.as_bytes().to_vec(),
            stored: meta.stored,
            fresh_until: meta.fresh_until,
            terms: meta.terms,
            fields: meta.fields.pairs(),
            sums: Sha256::of(sums),
            parts: None,
        })
    }

    /// The object that it describes.
    pub(crate) fn object(&self) -> Option<Object> {
        let identity = self.listed.map(|(digest, size)| Identity { digest, size });
        Object::from_name(&self.path, identity).ok()
    }

    /// Whether it describes this object of this origin.
    pub(super) fn is_of(&self, origin: &str, object: &Object) -> bool {
        let listed = object.identity.map(|identity| (identity.digest, identity.size));
        self.origin == origin
            && self.path == object.name()
            && self.listed == listed
            && listed.is_none_or(|(digest, size)| {
                let agree = digest.sha256().is_none_or(|sha256| self.sha256 == Some(sha256));
                agree && self.length == size
            })
    }
}

impl From<Record<Sha256>> for Record {
    fn from(old: Record<Sha256>) -> Self {
        Self {
            origin: old.origin,
            path: old.path,
            listed: old.listed.map(|(sha256, size)| (sha256.into(), size)),
            length: old.length,
            sha256: old.sha256,
            etag: old.etag,
            last_modified: old.last_modified,
            content_type: old.content_type,
            stored: old.stored,
            fresh_until: old.fresh_until,
            terms: old.terms,
            fields: old.fields,
            sums: old.sums,
            parts: old.parts,
        }
    }
}

/// Sums as they stand in an entry.
pub(super) fn encode_sums(sums: &[u32]) -> Vec<u8> {
    sums.iter().flat_map(|sum| sum.to_le_bytes()).collect()
}

/// What follows the body: sums, trailer and footer.
pub(super) fn encode(sums: Vec<u8>, record: &Record) -> io::Result<Vec<u8>> {
    let trailer = postcard::to_stdvec(record).map_err(io::Error::other)?;
    let length = u32::try_from(trailer.len()).map_err(io::Error::other)?.to_le_bytes();
    let digest = trailer_digest(MAGIC, length, &trailer);
    let mut end = sums;
    end.extend_from_slice(&trailer);
    end.extend_from_slice(&MAGIC);
    end.extend_from_slice(&length);
    end.extend_from_slice(digest.as_bytes());
    Ok(end)
}

/// Of all that tells how to read it, and of the trailer itself.
fn trailer_digest(magic: [u8; 8], length: [u8; 4], trailer: &[u8]) -> Sha256 {
    let mut hasher = Hasher::default();
    if magic != SHA256_ONLY {
        hasher.update(&magic);
    }
    hasher.update(&length);
    hasher.update(trailer);
    hasher.finish()
}

/// The trailer of an entry of `size` bytes, if it verifies.
pub(super) fn read_record<F: Files>(files: &F, file: &F::File, size: u64) -> io::Result<Option<Record>> {
    Ok(read_any(files, file, size)?.filter(|record| record.parts.is_none() && record.sha256.is_some()))
}

/// The same of an entry or of parts. In an entry's place a crash may bring back the trailer that the file had as parts.
pub(super) fn read_any<F: Files>(files: &F, file: &F::File, size: u64) -> io::Result<Option<Record>> {
    let Some(footer_at) = size.checked_sub(FOOTER_BYTES) else { return Ok(None) };
    let mut footer = [0; FOOTER_BYTES as usize];
    files.read_exact_at(file, &mut footer, footer_at)?;
    let (magic, rest) = footer.split_at(8);
    let magic: [u8; 8] = magic.try_into().expect("split at 8");
    let (length, digest) = rest.split_at(4);
    let length: [u8; 4] = length.try_into().expect("split at 4");
    let trailer_bytes = u64::from(u32::from_le_bytes(length));
    if !MAGICS.contains(&magic) || trailer_bytes > MAX_TRAILER_BYTES {
        return Ok(None);
    }
    let Some(trailer_at) = footer_at.checked_sub(trailer_bytes) else { return Ok(None) };
    let mut trailer = vec![0; usize::try_from(trailer_bytes).unwrap_or(0)];
    files.read_exact_at(file, &mut trailer, trailer_at)?;
    if trailer_digest(magic, length, &trailer).as_bytes() != digest {
        return Ok(None);
    }
    let ends_there = |record: &Record| record.length.checked_add(sums_bytes(record)) == Some(trailer_at);
    Ok(decode(magic, &trailer).filter(ends_there))
}

/// What a trailer says, in the form that `magic` names.
pub(crate) fn decode(magic: [u8; 8], trailer: &[u8]) -> Option<Record> {
    match magic {
        SHA256_ONLY => postcard::from_bytes::<Record<Sha256>>(trailer).map(Record::from).ok(),
        _ => postcard::from_bytes(trailer).ok(),
    }
}

/// The sums of an entry, if they verify.
pub(super) fn read_sums<F: Files>(
    files: &F,
    file: &F::File,
    record: &Record,
) -> io::Result<Option<Vec<u32>>> {
    let mut bytes = vec![0; usize::try_from(sums_bytes(record)).map_err(io::Error::other)?];
    files.read_exact_at(file, &mut bytes, record.length)?;
    let sums = bytes.chunks_exact(4).map(|sum| u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]));
    Ok((Sha256::of(&bytes) == record.sums).then(|| sums.collect()))
}

fn sums_bytes(record: &Record) -> u64 {
    if record.parts.is_some() { 0 } else { 4 * sums::blocks(record.length) }
}

pub(crate) fn meta(record: Record) -> Option<Meta> {
    let etag = match record.etag {
        Some(raw) => Some(HeaderValue::from_bytes(&raw).ok()?),
        None => None,
    };
    Some(Meta::new(Facts {
        length: Some(record.length),
        etag,
        last_modified: record.last_modified,
        content_type: HeaderValue::from_bytes(&record.content_type).ok()?,
        sha256: record.sha256,
        listed: record.listed.map(|(digest, _)| digest),
        stored: record.stored,
        fresh_until: record.fresh_until,
        terms: record.terms,
        fields: Fields::from_pairs(&record.fields)?,
    }))
}
