//! From a repomd.xml to a generation: every metadata file fetched and checked, its lists read.

use super::fault::{Blame, Held, blame, denies, is_spare_record};
use super::{Shared, images};
use crate::clock::{self, Timestamp};
use crate::config::{Repo, Root};
use crate::http::{PathError, TreePath};
use crate::origin::{OriginError, PollValidators, Polled};
use crate::repo::{
    Digest, Generation, ListedFile, Parsed, Pinned, Record, RepodataError, Repomd, Sha256, compression,
    prestodelta, primary, repomd, root_document, signature::is_openpgp,
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
/// The largest list, as it is at the origin. The largest repo's, 100,000 packages, is so large if it isn't compressed at all.
const MAX_LIST: u64 = 256 << 20;
/// The largest list, decompressed: four times the largest repo's.
const MAX_PLAIN: u64 = 1 << 30;

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
    /// A metadata document is damaged or refused: the origin's fault. The bytes are those that repomd.xml names.
    #[error(transparent)]
    Repodata(#[from] RepodataError),
    /// The same of a list that repomd.xml gives no checksum of: at the next look it may be another.
    #[error("{0}")]
    Unsummed(RepodataError),
    /// The origin still shows what was refused before, for this reason. It isn't read again.
    #[error("{0}")]
    Refused(String),
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
    /// Files aren't at the origin as they are listed: clients are not to ask for them.
    #[error("held: {0}")]
    Held(Held),
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

    /// Whether the same repomd.xml can't but fail again.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Repodata(_) | Self::NoPrimary | Self::Path(_))
    }
}

/// What to do about a push of which something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gaps {
    /// Give the origin time to finish.
    Refuse,
    /// It was given time: offer the push without what clients can do without.
    Accept,
    /// Offer whatever there is.
    AcceptAll,
}

/// A push whose metadata are complete and verified.
pub(super) struct Read {
    pub(super) generation: Generation,
    /// What it is offered without although its documents name it, in words.
    pub(super) without: Vec<String>,
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
) -> Result<Read, PushError> {
    let _permit = shared.verifications.acquire().await;
    let repo = &shared.repos[index].repo;
    let previous = shared.history(index).current().cloned();
    if repo.checksums.is_some() {
        return images::read(shared, repo, version, (published, flipped), previous, gaps).await;
    }
    let root = Root::of(&shared.config, repo);
    let mut repomd = repomd::parse(&version.body, &root)?;
    let is_summed = repomd.record("primary").ok_or(PushError::NoPrimary)?.digest.is_some();
    let _memory = shared.lists.acquire_many(lists_mib(&repomd)).await;
    let mut without = Vec::new();
    let asked = Asked { shared, repo, version, previous: previous.as_deref(), gaps };
    let lists = asked.fetch_all(&mut repomd, &mut without).await?;
    let pinned = asked.pinned(&mut without).await?;
    let (body, shared, begun) = (version.body.clone(), Arc::clone(shared), clock::monotonic());
    let assembled = spawn_blocking(move || {
        let packages = list("primary", &lists.primary, |plain, each| primary::parse(plain, &root, each));
        shared.repos[index].note_reading(begun.elapsed());
        let (packages, of_packages) =
            packages.map_err(|error| if is_summed { error.into() } else { PushError::Unsummed(error) })?;
        let drpms = lists.prestodelta.as_ref().map_or(Ok(Default::default()), |bytes| {
            list("prestodelta", bytes, |plain, each| prestodelta::parse(plain, &root, each))
        });
        // Clients can do without: they fetch whole packages.
        let (drpms, of_drpms) = drpms.unwrap_or_else(|error| {
            without.push(format!("drpms: {error}"));
            Default::default()
        });
        let previous = previous.as_deref();
        let mut generation =
            Generation::assemble(&body, &repomd, packages, drpms, pinned, previous, published, flipped);
        generation.left_out += of_packages.left_out + of_drpms.left_out;
        shared.repos[index].note_reading(begun.elapsed());
        Ok(Read { generation, without })
    });
    assembled.await.map_err(|stopped| PushError::Broken(stopped.to_string()))?
}

/// Memory, in MiB, that the lists which `repomd` names take while they are read; [`super::LISTS_MIB`] at most. A list whose size
/// isn't given is taken for small.
fn lists_mib(repomd: &Repomd) -> u32 {
    let sizes = ["primary", "prestodelta"].map(|kind| repomd.record(kind).and_then(|record| record.size));
    let bytes = sizes.into_iter().flatten().fold(0_u64, u64::saturating_add);
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX).saturating_add(1).min(super::LISTS_MIB)
}

/// The metadata files that are read here.
struct Lists {
    primary: Bytes,
    prestodelta: Option<Bytes>,
}

/// What is fetched for a push, and what is known of it.
pub(super) struct Asked<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) repo: &'a Repo,
    pub(super) version: &'a Version,
    /// The generation that the push is to follow.
    pub(super) previous: Option<&'a Generation>,
    pub(super) gaps: Gaps,
}

impl Asked<'_> {
    /// Fetches and verifies every metadata file that `repomd` names; sets the sizes and digests that it doesn't give.
    ///
    /// Without primary there is no generation, and what clients need holds the push. Of the others each is missed by some
    /// clients, so that the origin gets time to finish; but one that stays away must not hold up an update for ever.
    async fn fetch_all(&self, repomd: &mut Repomd, without: &mut Vec<String>) -> Result<Lists, PushError> {
        let mut lists = (None, None);
        let mut running = JoinSet::new();
        let mut next = 0;
        while next < repomd.records.len() || !running.is_empty() {
            if let Some(record) = repomd.records.get(next).filter(|_| running.len() < RECORDS) {
                let (path, record) = (self.repo.file(&record.path)?, record.clone());
                let shared = Arc::clone(self.shared);
                running.spawn(async move { (next, fetch(&shared, path, &record).await) });
                next += 1;
                continue;
            }
            let ended = running.join_next().await.expect("the loop ends before there is nothing to wait for");
            let (at, fetched) = ended.map_err(|stopped| PushError::Broken(stopped.to_string()))?;
            let record = &mut repomd.records[at];
            match fetched {
                Ok(fetched) => {
                    (record.size, record.digest) = (Some(fetched.length), Some(fetched.digest));
                    match record.kind.as_str() {
                        "primary" if lists.0.is_none() => lists.0 = fetched.body,
                        "prestodelta" if lists.1.is_none() => lists.1 = fetched.body,
                        _ => {}
                    }
                }
                Err(error) => without.push(self.bear(record, error)?),
            }
        }
        let primary = lists.0.ok_or(PushError::NoPrimary)?;
        Ok(Lists { primary, prestodelta: lists.1 })
    }

    /// Bears that `record` can't be had, if that can be borne; in words.
    fn bear(&self, record: &Record, error: PushError) -> Result<String, PushError> {
        let is_of_file = match &error {
            PushError::Fetch { error, .. } => blame(error) == Blame::File,
            PushError::Mismatch { .. } => true,
            _ => false,
        };
        let known = self.previous.and_then(|previous| previous.catalogue.find(&record.path));
        let is_new = known.is_none_or(|known| known.digest.is_none() || known.digest != record.digest);
        let is_needed = is_new && !is_spare_record(&record.kind) && self.gaps != Gaps::AcceptAll;
        if record.kind == "primary" || is_needed {
            return Err(if is_of_file { self.held(error) } else { error });
        }
        if self.gaps == Gaps::Refuse {
            return Err(PushError::Unfinished(error.to_string()));
        }
        Ok(format!("{}: {error}", record.kind))
    }

    fn held(&self, error: PushError) -> PushError {
        let (file, fault) = match error {
            PushError::Fetch { path, error } => (path.to_string(), error.to_string()),
            PushError::Mismatch { path } => {
                (path.to_string(), "its bytes are not those that are listed".to_owned())
            }
            other => return other,
        };
        PushError::Held(Held { generation: self.version.id, file, fault, files: 1 })
    }

    /// repomd.xml, and its signature and key where they exist.
    pub(super) async fn pinned(&self, without: &mut Vec<String>) -> Result<Vec<Pinned>, PushError> {
        let (root, signature) = (root_document(self.repo), signature(self.repo));
        let mut pinned =
            vec![Pinned::new(root.to_owned(), self.version.body.clone(), self.version.last_modified)];
        for name in [&*signature, KEY] {
            if name == KEY && self.repo.checksums.is_some() {
                continue;
            }
            let found = self.signing(name, without).await?;
            let before = self.previous.and_then(|previous| previous.pinned(name));
            // A signature is made after what it signs: the one of the old repomd.xml tells that the new one is to come.
            let lags = name == signature
                && before
                    .is_some_and(|before| found.as_ref().is_none_or(|found| found.sha256 == before.sha256));
            if lags && self.gaps == Gaps::Refuse {
                return Err(PushError::Unfinished(format!("{name} is not of the new {root}")));
            }
            if lags && found.is_some() {
                // Clients that check signatures fail with it, and may do without one.
                without.push(format!("{name}: it is of the {root} before"));
                continue;
            }
            pinned.extend(found);
        }
        Ok(pinned)
    }

    /// A signature or a key, if the origin has it. There are many ways to say that there is none, and none of them may hold back
    /// an update for ever.
    async fn signing(&self, name: &str, without: &mut Vec<String>) -> Result<Option<Pinned>, PushError> {
        let path = self.repo.path.join(name)?;
        let why = match poll(self.shared, &path, &PollValidators::default()).await {
            Ok(Polled::Changed { body, last_modified, .. }) if is_openpgp(&body) => {
                return Ok(Some(Pinned::new(name.to_owned(), body, last_modified)));
            }
            Ok(Polled::Absent | Polled::Unchanged) => return Ok(None),
            Ok(Polled::Changed { .. }) => "what the origin has there is no OpenPGP data".to_owned(),
            Err(PushError::Poll { error, .. }) if self.gaps != Gaps::Refuse || denies(&error) => {
                error.to_string()
            }
            Err(PushError::Poll { error, .. }) => {
                return Err(PushError::Unfinished(format!("{path}: {error}")));
            }
            Err(other) => return Err(other),
        };
        without.push(format!("{name}: {why}"));
        Ok(None)
    }
}

/// A metadata file that is in the cache now.
struct Fetched {
    length: u64,
    digest: Digest,
    /// Of a list.
    body: Option<Bytes>,
}

async fn fetch(shared: &Shared, path: TreePath, record: &Record) -> Result<Fetched, PushError> {
    let is_list = matches!(record.kind.as_str(), "primary" | "prestodelta");
    let failed = |error| PushError::Fetch { path: path.clone(), error };
    let (digest, length) = match (record.digest, record.size) {
        (Some(digest), Some(size)) => (digest, size),
        (digest, size) => {
            // Nothing tells the bytes of this push from those in the cache. Once they are read, something does.
            let object = Object::unlisted(path.clone());
            shared.store.purge(&object).await;
            let _permit = shared.wholes.acquire().await;
            let body = shared.store.whole(&object, MAX_WHOLE).await.map_err(failed)?;
            let length = body.len() as u64;
            if size.is_some_and(|size| size != length) || digest.is_some_and(|digest| !digest.is_of(&body)) {
                return Err(PushError::Mismatch { path });
            }
            (digest.unwrap_or_else(|| Sha256::of(&body).into()), length)
        }
    };
    // By its digest: where the next push uses the name again, clients keep getting this file until it is offered.
    let object = Object::listed(path.clone(), digest, length);
    // What isn't there is known at once; a fetch would wait for it.
    shared.store.see(&object, length).await.map_err(failed)?;
    if is_list {
        let body = shared.store.whole(&object, MAX_LIST).await.map_err(failed)?;
        return Ok(Fetched { length, digest, body: Some(body) });
    }
    match shared.store.complete(&object).await {
        // The origin has it, and it is right: a disk in trouble must not hold back a push.
        Ok(()) | Err(FetchError::NotStored) => Ok(Fetched { length, digest, body: None }),
        Err(error) => Err(failed(error)),
    }
}

/// Reads a list of files.
fn list(
    document: &'static str,
    bytes: &Bytes,
    parse: impl FnOnce(Box<dyn BufRead + '_>, &mut dyn FnMut(ListedFile)) -> Result<Parsed, RepodataError>,
) -> Result<(Vec<ListedFile>, Parsed), RepodataError> {
    let mut files = Vec::new();
    let plain = compression::decompress(&bytes[..], MAX_PLAIN).map_err(|error| RepodataError {
        document,
        at: 0,
        fault: error.into(),
    })?;
    let parsed = parse(plain, &mut |file| files.push(file))?;
    Ok((files, parsed))
}
