//! A generation as bytes, for the state directory.
//!
//! One version byte, the generation in postcard, and the SHA-256 of both. Decoding refuses damage; a refused file costs
//! the node an old generation, never a wrong one. The files of an older generation may be stored as what makes them
//! different from those of the one after it.

use super::catalogue::{Catalogue, Entry, Kind, Parts};
use super::checksum::Sha256;
use super::digest::Digest;
use super::generation::{Generation, Pinned};
use crate::clock::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Changes with the layout of [`Wire`].
const VERSION: u8 = 3;
/// The same with SHA-256 as the only kind of digest.
const SHA256_ONLY: u8 = 2;

const DIGEST_BYTES: usize = 32;

/// Why bytes are not a generation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Cut or changed since they were written.
    #[error("the checksum doesn't match: the file is damaged or not a generation")]
    Damaged,
    /// Whole, but of another version of freshet.
    #[error("format version {0}, this is version {VERSION}")]
    Version(u8),
    /// Whole and of this version, but not what [`encode`] writes.
    #[error("not a generation: {0}")]
    Content(&'static str),
    /// A difference from a generation that is lost.
    #[error("it is kept as what differs from generation {0}, which is lost")]
    Orphan(u32),
}

/// A generation as bytes, with all its files.
#[must_use]
pub fn encode(generation: &Generation) -> Vec<u8> {
    write(generation, &generation.catalogue.sorted(), None)
}

/// A generation as bytes, without the files that `next`, the generation after it, lists as well.
#[must_use]
pub fn encode_difference(generation: &Generation, next: &Generation) -> Vec<u8> {
    let catalogue = generation.catalogue.before(&next.catalogue);
    let Parts { gone, come } = catalogue.difference().expect("it has just been made one");
    write(generation, &gone, Some((next.sequence, come)))
}

fn write(generation: &Generation, files: &[(&str, Entry)], step: Option<(u32, Vec<&str>)>) -> Vec<u8> {
    let Generation {
        id,
        sequence,
        published,
        flipped,
        revision,
        new_files,
        new_bytes,
        left_out,
        verified,
        ..
    } = generation;
    let pinned = generation.pinned.iter().map(|file| WirePinned {
        path: &file.path,
        body: &file.body,
        last_modified: file.last_modified,
    });
    let rows = files.iter().map(|(path, entry)| WireRow {
        length: u16::try_from(path.len()).expect("a catalogue has no path of more than 1024 bytes"),
        size: entry.size,
        digest: entry.digest,
        kind: entry.kind,
        since: entry.since,
    });
    let wire = Wire {
        id: *id,
        sequence: *sequence,
        published: *published,
        flipped: *flipped,
        revision: revision.as_deref(),
        pinned: pinned.collect(),
        new_files: *new_files,
        new_bytes: *new_bytes,
        left_out: *left_out,
        verified: *verified,
        paths: &files.iter().map(|(path, _)| *path).collect::<String>(),
        rows: rows.collect(),
        step: step.map(|(next, come)| WireStep { next, come }),
    };
    let mut bytes = postcard::to_extend(&wire, vec![VERSION]).expect("writing to memory can't fail");
    let digest = Sha256::of(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

/// What [`encode`] or [`encode_difference`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Of a difference: with the catalogue of what the next one lists otherwise.
    generation: Generation,
    step: Option<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    next: u32,
    come: Vec<String>,
}

impl Stored {
    /// The generation's.
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        self.generation.sequence
    }

    /// The generation. `later` finds another, by sequence: a difference needs the one after it.
    ///
    /// # Errors
    /// It is a difference from a generation that isn't there, or from other files than are there.
    pub fn complete<'a>(
        self,
        later: impl FnOnce(u32) -> Option<&'a Generation>,
    ) -> Result<Generation, DecodeError> {
        let Some(Step { next, come }) = self.step else { return Ok(self.generation) };
        let next = later(next).ok_or(DecodeError::Orphan(next))?;
        let come: Vec<_> = come.iter().map(String::as_str).collect();
        let catalogue = Catalogue::from_difference(&next.catalogue, &self.generation.catalogue, &come)
            .ok_or(DecodeError::Content("its difference"))?;
        Ok(Generation { catalogue, ..self.generation })
    }
}

/// What was stored.
///
/// # Errors
/// The bytes are not exactly what was written, or what another version wrote.
pub fn decode(bytes: &[u8]) -> Result<Stored, DecodeError> {
    let (signed, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or(DecodeError::Damaged)?;
    if Sha256::of(signed).as_bytes() != digest {
        return Err(DecodeError::Damaged);
    }
    let (&version, body) = signed.split_first().ok_or(DecodeError::Damaged)?;
    match version {
        VERSION => read::<Digest>(body),
        SHA256_ONLY => read::<Sha256>(body),
        other => Err(DecodeError::Version(other)),
    }
}

/// The generation of which `body` is all, with digests that were written as `D`.
fn read<'a, D: Deserialize<'a> + Into<Digest> + Copy>(body: &'a [u8]) -> Result<Stored, DecodeError> {
    let (wire, rest): (Wire<'_, D>, _) =
        postcard::take_from_bytes(body).map_err(|_| DecodeError::Content("its fields"))?;
    if !rest.is_empty() {
        return Err(DecodeError::Content("more than its fields"));
    }
    let rows = wire.rows.iter().map(|row| {
        let digest = row.digest.map(Into::into);
        (row.length, Entry { size: row.size, digest, kind: row.kind, since: row.since })
    });
    let catalogue = Catalogue::from_sorted(wire.paths, rows).ok_or(DecodeError::Content("its catalogue"))?;
    let pinned = wire
        .pinned
        .iter()
        .map(|file| Pinned::new(file.path.to_owned(), Bytes::copy_from_slice(file.body), file.last_modified));
    let step = wire
        .step
        .map(|step| Step { next: step.next, come: step.come.into_iter().map(str::to_owned).collect() });
    let generation = Generation {
        id: wire.id,
        sequence: wire.sequence,
        published: wire.published,
        flipped: wire.flipped,
        revision: wire.revision.map(str::to_owned),
        catalogue,
        pinned: pinned.collect(),
        new_files: wire.new_files,
        new_bytes: wire.new_bytes,
        left_out: wire.left_out,
        verified: wire.verified,
    };
    Ok(Stored { generation, step })
}

#[derive(Serialize, Deserialize)]
struct Wire<'a, D> {
    id: Sha256,
    sequence: u32,
    published: Timestamp,
    flipped: Timestamp,
    revision: Option<&'a str>,
    #[serde(borrow)]
    pinned: Vec<WirePinned<'a>>,
    new_files: u32,
    new_bytes: u64,
    left_out: u32,
    verified: bool,
    paths: &'a str,
    rows: Vec<WireRow<D>>,
    #[serde(borrow)]
    step: Option<WireStep<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireStep<'a> {
    next: u32,
    #[serde(borrow)]
    come: Vec<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct WirePinned<'a> {
    path: &'a str,
    body: &'a [u8],
    last_modified: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct WireRow<D> {
    /// Bytes of `paths` that are this file's.
    length: u16,
    size: u64,
    digest: Option<D>,
    kind: Kind,
    since: u32,
}

#[cfg(test)]
mod tests {
    use super::super::digest::Algorithm;
    use super::super::generation::tests::{generation, package};
    use super::super::{FileFacts, History, REPOMD};
    use super::*;
    use proptest::prelude::*;

    fn kind() -> impl Strategy<Value = Kind> {
        prop::sample::select(vec![Kind::Package, Kind::Metadata, Kind::Reused, Kind::Replaced])
    }

    prop_compose! {
        fn any_generation()(
            files in prop::collection::vec(("[a-zäß/]{1,9}", any::<u64>(), any::<Option<(usize, u64)>>(), kind()), 0..20),
            times in any::<(u64, u64, Option<u64>)>(), sequence: u32, revision: Option<String>, new_files: u32,
            new_bytes: u64, left_out: u32, verified: bool, body: Vec<u8>,
        ) -> Generation {
            let files = files.into_iter()
                .map(|(path, size, content, kind)| {
                    let digest = content.map(|(at, content)| Digest::of(Algorithm::ALL[at % 6], &content.to_le_bytes()));
                    (path, FileFacts { size, digest, kind })
                })
                .collect();
            let time = Timestamp::from_millis;
            let body = Bytes::from(body);
            Generation {
                id: Sha256::of(&body), sequence, published: time(times.0), flipped: time(times.1), revision,
                catalogue: Catalogue::build(files, None, sequence).0,
                pinned: vec![Pinned::new(REPOMD.into(), body, times.2.map(time))],
                new_files, new_bytes, left_out, verified,
            }
        }
    }

    proptest! {
        #[test]
        fn round_trip(generation in any_generation()) {
            prop_assert_eq!(decode(&encode(&generation)).unwrap().complete(|_| None), Ok(generation));
        }

        #[test]
        fn round_trip_as_a_difference(
            models in prop::collection::vec(prop::collection::btree_map(0..5_u8, 0..3_u64, 0..5), 2..5),
        ) {
            let mut history = History::default();
            for model in &models {
                let packages = model.iter().map(|(path, &content)| package(&path.to_string(), content)).collect();
                let next = generation(packages, history.current().map(|current| &**current), 1);
                history = history.with(next, std::time::Duration::MAX, Timestamp::EPOCH);
            }
            let all = history.generations();
            let mut read: Vec<Generation> = vec![decode(&encode(&all[0])).unwrap().complete(|_| None).unwrap()];
            for pair in all.windows(2) {
                let stored = decode(&encode_difference(&pair[1], &pair[0])).unwrap();
                prop_assert_eq!(stored.clone().complete(|_| None), Err(DecodeError::Orphan(pair[0].sequence)));
                let later = |sequence| read.iter().find(|generation| generation.sequence == sequence);
                read.push(stored.complete(later).unwrap());
            }
            for (read, all) in read.iter().zip(all) {
                prop_assert_eq!(read, &**all);
                prop_assert_eq!(read.catalogue.len(), all.catalogue.len());
            }
        }

        #[test]
        fn never_panics(bytes: Vec<u8>, version in 0..5_u8) {
            let _ = decode(&bytes);
            let mut signed = [&[version], bytes.as_slice()].concat();
            let digest = Sha256::of(&signed);
            signed.extend_from_slice(digest.as_bytes());
            let decoded = decode(&signed);
            prop_assert!([VERSION, SHA256_ONLY].contains(&version) || decoded == Err(DecodeError::Version(version)));
        }
    }

    #[test]
    fn what_a_node_without_other_digests_wrote_is_read() {
        let written: [&[u8]; 2] =
            [include_bytes!("testdata/first.generation.v2"), include_bytes!("testdata/second.generation.v2")];
        let [first, second] =
            written.map(|bytes| decode(bytes).and_then(|stored| stored.complete(|_| None)).unwrap());
        let listed = |generation: &Generation, path: &str| {
            let entry = generation.catalogue.find(path).unwrap();
            (entry.size, entry.digest, entry.kind, entry.since)
        };
        let of =
            |body: &[u8], since| (body.len() as u64, Some(Sha256::of(body).into()), Kind::Package, since);
        assert_eq!(listed(&first, "Packages/a.rpm"), of(b"first", 1));
        assert_eq!(listed(&first, "Packages/b.rpm"), of(b"second", 1));
        assert_eq!(listed(&second, "Packages/a.rpm"), of(b"first", 1));
        assert_eq!(listed(&second, "Packages/c.rpm"), of(b"third", 2));
        assert_eq!((second.sequence, second.verified, second.catalogue.len()), (2, true, 3));
        assert!(second.root().is_some());
    }

    #[test]
    fn damage_is_refused() {
        let first = generation(vec![package("a", 1), package("b", 2)], None, 1);
        let bytes = encode(&generation(vec![package("a", 1), package("c", 3)], Some(&first), 2));
        assert!(decode(&bytes).is_ok());
        for at in 0..bytes.len() {
            assert_eq!(decode(&bytes[..at]), Err(DecodeError::Damaged), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(decode(&flipped), Err(DecodeError::Damaged), "bit {bit} of byte {at}");
            }
        }
    }
}
