//! From a repomd.xml to a generation: every metadata file fetched and checked, its lists read.

use super::{Shared, images};
use crate::clock::Timestamp;
use crate::config::{Repo, Root};
use crate::http::{PathError, TreePath};
use crate::origin::{OriginError, PollValidators, Polled};
use crate::repo::{
    Generation, ListedFile, Parsed, Pinned, Record, RepodataError, Repomd, Sha256, compression, prestodelta,
    primary, repomd, root_document,
};
use crate::store::{FetchError, Object};
use bytes::Bytes;
use std::io::BufRead;
use std::sync::Arc;
use tokio::task::{JoinSet, spawn_blocking};

/// The key that signs repomd.xml: small, unlisted, and served with the generation, as the signature is.
const KEY: &str = "repodata/repomd.xml.key";

/// Metadata files of one push that are fetched at a time.
const RECORDS: usize = 4;
/// The largest metadata file that is taken into memory: ten times Fedora's filelists.
const MAX_WHOLE: u64 = 512 << 20;
/// The largest list, decompressed: above it is a bomb.
const MAX_PLAIN: u64 = 4 << 30;

/// Why a poll or a push came to nothing. The old generation stays in force, and the next poll tries again.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The origin gave no usable answer to a poll.
    #[error("origin {origin}: {error}")]
    Poll {
        /// Which origin.
        origin: String,
        /// What it did.
        error: OriginError,
    },
    /// The origin answers, but the repo isn't there.
    #[error("origin {origin}: no {path}")]
    NoRepomd {
        /// Which origin.
        origin: String,
        /// The path of repomd.xml.
        path: TreePath,
    },
    /// A metadata document is damaged or refused: the origin's fault.
    #[error(transparent)]
    Repodata(#[from] RepodataError),
    /// repomd.xml names no list of packages.
    #[error("repomd.xml names no primary")]
    NoPrimary,
    /// A metadata file can't be had as repomd.xml lists it.
    #[error("{path}: {error}")]
    Fetch {
        /// Which.
        path: TreePath,
        /// Why.
        error: FetchError,
    },
    /// The bytes at the origin are others than listed.
    #[error("{path}: its bytes are not those that repomd.xml lists")]
    Mismatch {
        /// Which.
        path: TreePath,
    },
    /// A name in repomd.xml that is no path of the tree.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The origin seems to be in the middle of publishing; it is given some polls to finish.
    #[error("the origin doesn't seem to be done with publishing: {0}")]
    Unfinished(String),
    /// The origin went back to an earlier state, or is a copy that lags behind: not to be followed unasked.
    #[error("the origin shows an older generation ({what}); follow it with `freshet push {repo}`")]
    Older {
        /// Which, in words.
        what: String,
        /// The id of the repo.
        repo: String,
    },
    /// Something in this process broke.
    #[error("internal error: {0}")]
    Broken(String),
}

impl PushError {
    /// Whether a push failed, not just a poll.
    #[must_use]
    pub const fn is_of_push(&self) -> bool {
        !matches!(self, Self::Poll { .. } | Self::NoRepomd { .. })
    }
}

/// What to do about a push of which something is missing without which it could be offered all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gaps {
    /// Give the origin time to finish.
    Refuse,
    /// It was given time.
    Accept,
}

/// A repomd.xml as the origin shows it.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) id: Sha256,
    pub(super) body: Bytes,
    pub(super) last_modified: Option<Timestamp>,
    pub(super) validators: PollValidators,
}

/// Where the document is that names the generations of `repo`.
pub(super) fn root_path(repo: &Repo) -> Result<TreePath, PathError> {
    repo.path.join(root_document(repo))
}

/// Its signature, relative to the repo.
pub(super) fn signature(repo: &Repo) -> String {
    format!("{}.asc", root_document(repo))
}

/// Asks the origin for `path`, unless too many polls are running: then later.
pub(super) async fn poll(
    shared: &Shared,
    path: &TreePath,
    known: &PollValidators,
) -> Result<Polled, PushError> {
    let _permit = shared.polls.acquire().await;
    let polled = shared.store.poll(path, known).await;
    polled.map_err(|error| PushError::Poll { origin: shared.origin(), error })
}

/// The generation that `version` is the root of, with its metadata fetched and verified. `flipped` is preliminary.
pub(super) async fn read(
    shared: &Arc<Shared>,
    index: usize,
    version: &Version,
    published: Timestamp,
    flipped: Timestamp,
    gaps: Gaps,
) -> Result<Generation, PushError> {
    let _permit = shared.verifications.acquire().await;
    let repo = &shared.repos[index].repo;
    let previous = shared.history(index).current().cloned();
    if repo.checksums.is_some() {
        return images::read(shared, repo, version, (published, flipped), previous, gaps).await;
    }
    let root = Root::of(&shared.config, repo);
    let mut repomd = repomd::parse(&version.body, &root)?;
    let lists = fetch_all(shared, repo, &mut repomd, gaps).await?;
    let pinned = pinned(shared, repo, version, previous.as_deref(), gaps).await?;
    let body = version.body.clone();
    let assembled = spawn_blocking(move || {
        let (packages, of_packages) = list(&lists.primary, |plain, each| primary::parse(plain, &root, each))?;
        let (drpms, of_drpms) = match &lists.prestodelta {
            Some(bytes) => list(bytes, |plain, each| prestodelta::parse(plain, &root, each))?,
            None => Default::default(),
        };
        let previous = previous.as_deref();
        let mut generation =
            Generation::assemble(&body, &repomd, packages, drpms, pinned, previous, published, flipped);
        generation.left_out += of_packages.left_out + of_drpms.left_out;
        Ok(generation)
    });
    assembled.await.map_err(|stopped| PushError::Broken(stopped.to_string()))?
}

/// The metadata files that are read here.
struct Lists {
    primary: Bytes,
    prestodelta: Option<Bytes>,
}

/// Fetches and verifies every metadata file that `repomd` names; sets the sizes that it doesn't give.
///
/// Without primary there is no generation. Of the others each is missed by some clients, so the origin gets time to
/// finish; but one that stays away must not hold up an update for ever.
async fn fetch_all(
    shared: &Arc<Shared>,
    repo: &Repo,
    repomd: &mut Repomd,
    gaps: Gaps,
) -> Result<Lists, PushError> {
    let mut lists = (None, None);
    let mut running = JoinSet::new();
    let mut next = 0;
    while next < repomd.records.len() || !running.is_empty() {
        if let Some(record) = repomd.records.get(next).filter(|_| running.len() < RECORDS) {
            let (shared, path, record) = (Arc::clone(shared), repo.file(&record.path)?, record.clone());
            running.spawn(async move { (next, fetch(&shared, path, &record).await) });
            next += 1;
            continue;
        }
        let ended = running.join_next().await.expect("the loop ends before there is nothing to wait for");
        let (at, fetched) = ended.map_err(|stopped| PushError::Broken(stopped.to_string()))?;
        let record = &mut repomd.records[at];
        match fetched {
            Ok(fetched) => {
                record.size.get_or_insert(fetched.length);
                match record.kind.as_str() {
                    "primary" if lists.0.is_none() => lists.0 = fetched.body,
                    "prestodelta" if lists.1.is_none() => lists.1 = fetched.body,
                    _ => {}
                }
            }
            Err(error) if record.kind == "primary" => return Err(error),
            Err(error) if gaps == Gaps::Refuse => return Err(PushError::Unfinished(error.to_string())),
            Err(error) => tracing::warn!(repo = repo.id, "offered without {}: {error}", record.kind),
        }
    }
    let primary = lists.0.ok_or(PushError::NoPrimary)?;
    Ok(Lists { primary, prestodelta: lists.1 })
}

/// A metadata file that is in the cache now.
struct Fetched {
    length: u64,
    /// Of a list.
    body: Option<Bytes>,
}

async fn fetch(shared: &Shared, path: TreePath, record: &Record) -> Result<Fetched, PushError> {
    let is_list = matches!(record.kind.as_str(), "primary" | "prestodelta");
    let failed = |error| PushError::Fetch { path: path.clone(), error };
    if let (Some(digest), Some(size)) = (record.digest, record.size) {
        let object = Object::listed(path.clone(), digest, size);
        if is_list {
            let body = shared.store.whole(&object, MAX_WHOLE).await.map_err(failed)?;
            return Ok(Fetched { length: size, body: Some(body) });
        }
        match shared.store.complete(&object).await {
            // The origin has it, and it is right: a disk in trouble must not hold back a push.
            Ok(()) | Err(FetchError::NotStored) => {}
            Err(error) => return Err(failed(error)),
        }
        return Ok(Fetched { length: size, body: None });
    }
    // The name may be reused, and nothing tells the bytes of this push from those in the cache.
    let object = Object::unlisted(path.clone());
    shared.store.purge(&object).await;
    let body = shared.store.whole(&object, MAX_WHOLE).await.map_err(failed)?;
    let length = body.len() as u64;
    let is_right = record.size.is_none_or(|size| size == length)
        && record.digest.is_none_or(|digest| digest.is_of(&body));
    if !is_right {
        return Err(PushError::Mismatch { path });
    }
    Ok(Fetched { length, body: is_list.then_some(body) })
}

/// Reads a list of files.
fn list(
    bytes: &Bytes,
    parse: impl FnOnce(Box<dyn BufRead + '_>, &mut dyn FnMut(ListedFile)) -> Result<Parsed, RepodataError>,
) -> Result<(Vec<ListedFile>, Parsed), PushError> {
    let mut files = Vec::new();
    let plain = compression::decompress(&bytes[..], MAX_PLAIN)
        .map_err(|error| PushError::Unfinished(format!("a list of packages can't be unpacked: {error}")))?;
    let parsed = parse(plain, &mut |file| files.push(file))?;
    Ok((files, parsed))
}

/// repomd.xml, and its signature and key where they exist.
pub(super) async fn pinned(
    shared: &Shared,
    repo: &Repo,
    version: &Version,
    previous: Option<&Generation>,
    gaps: Gaps,
) -> Result<Vec<Pinned>, PushError> {
    let (root, signature) = (root_document(repo), signature(repo));
    let mut pinned = vec![Pinned::new(root.to_owned(), version.body.clone(), version.last_modified)];
    for name in [&*signature, KEY] {
        if name == KEY && repo.checksums.is_some() {
            continue;
        }
        let found = match poll(shared, &repo.path.join(name)?, &PollValidators::default()).await? {
            Polled::Changed { body, last_modified, .. } => {
                Some(Pinned::new(name.to_owned(), body, last_modified))
            }
            Polled::Absent | Polled::Unchanged => None,
        };
        let before = previous.and_then(|previous| previous.pinned(name));
        // A signature is made after what it signs: the one of the old repomd.xml tells that the new one is to come.
        let lags = name == signature
            && before.is_some_and(|before| found.as_ref().is_none_or(|found| found.sha256 == before.sha256));
        if lags && gaps == Gaps::Refuse {
            return Err(PushError::Unfinished(format!("{name} is not of the new {root}")));
        }
        pinned.extend(found);
    }
    Ok(pinned)
}
