//! The disk tier: one file per object, which describes and checks itself.
//!
//! An entry is written below `tmp/`, synced, and renamed to `objects/ab/cdef...`, whose directory is synced; it is never
//! truncated or overwritten. All directories are made, and made durable, before the first entry. Whatever doesn't verify
//! is removed and counts as a miss. After the machine went down with the cache in use ([`boot`]), the bytes of what was
//! stored until then are verified before anybody gets them ([`verify`]). All IO goes through [`Files`]; the format is
//! [`entry`]'s. All calls block.

mod boot;
mod directory;
pub(crate) mod entry;
pub(super) mod files;
mod parts;
mod sums;
#[cfg(test)]
mod tests;
mod verify;

pub(super) use entry::overhead_bytes;
pub(super) use files::Seal;
pub(super) use parts::Parts;
pub(super) use sums::Written;
pub(super) use verify::{Examined, Finding, Suspect, Verified};

use super::object::{Meta, Object};
use crate::clock::Timestamp;
use crate::http::ByteRange;
use crate::repo::{Hasher, Sha256};
use directory::Held;
use entry::{Record, encode, encode_sums, meta, read_any, read_record};
use files::{Facts, Files, System};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use sums::BlockSums;
use tokio::runtime::Handle;

/// A suspect of up to so many bytes is verified by the look that finds it. A larger one is verified in steps, so that no look
/// holds a thread for longer than one of these takes.
const LOOK_BYTES: u64 = 8 * 1024 * 1024;
/// The directory of what isn't whole.
const PARTS: &str = "parts";
/// Read at once where a body's sums are missing.
const PIECE_BYTES: usize = 1024 * 1024;

/// The name of an entry: SHA-256 of origin, path and identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(Sha256);

/// An entry found.
pub(super) struct Found<F: Files = System> {
    pub(super) key: Key,
    pub(super) meta: Meta,
    pub(super) file: Arc<F::File>,
    pub(super) disk_bytes: u64,
    /// Its bytes were read and compared just now, for the first time since the machine went down.
    pub(super) verified: bool,
    /// Taken before its bytes were read.
    pub(super) seal: Seal,
}

/// Whose bytes a look takes for good without reading them.
#[derive(Clone, Copy)]
pub(super) enum Trust {
    /// Those of all entries of this epoch. For who compares them or throws them away.
    Epoch,
    /// Of these, those that have the seal that they had when they were verified in this process, and those of up to so many
    /// bytes, which are verified as they come into memory. For who gives them to clients.
    Sealed(Option<Seal>, u64),
}

/// What a look at the disk gave.
pub(super) enum Look<F: Files = System> {
    Found(Box<Found<F>>),
    /// Its bytes are to be verified first, and it is too large for that to be done at once.
    Suspect(Box<Suspect<F>>),
    Missing,
    /// It didn't verify, and was removed.
    Damaged,
}

/// What an entry says of itself.
pub(super) struct Described<F = std::fs::File> {
    pub(super) object: Object,
    pub(super) stored: Timestamp,
    /// Of parts nobody knows it.
    pub(super) sha256: Option<Sha256>,
    pub(super) length: u64,
    pub(super) file: F,
}

/// One entry of the walk at the start.
pub(super) struct Walked {
    pub(super) key: Key,
    pub(super) disk_bytes: u64,
    pub(super) used: Timestamp,
}

/// The disk tier's directory.
#[derive(Debug)]
pub(super) struct Disk<F: Files = System> {
    files: Arc<F>,
    root: PathBuf,
    objects: PathBuf,
    tmp: PathBuf,
    origin: String,
    drafts: AtomicU64,
    held: Mutex<Held<F>>,
    /// Nothing is committed after the orderly end was noted.
    closed: RwLock<bool>,
    /// Held where a suspect is marked or removed, so that one of those who verify it is the first.
    concluding: Mutex<()>,
    /// So many more drafts fail with this.
    #[cfg(test)]
    pub(super) faults: Mutex<Vec<ErrorKind>>,
}

/// A file that becomes an entry, or is removed when dropped.
pub(super) struct Draft<F: Files = System> {
    pub(super) file: Arc<F::File>,
    pub(super) written: Arc<Written>,
    files: Arc<F>,
    path: PathBuf,
    stage: Stage,
    pool: Handle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// A sync failed: what the kernel has dropped since, another sync would not miss.
    Spoiled,
    /// In memory, without a name: it can't become an entry.
    Unnamed,
    Committed,
}

impl<F: Files> Drop for Draft<F> {
    fn drop(&mut self) {
        if matches!(self.stage, Stage::Open | Stage::Spoiled) {
            let (files, path) = (Arc::clone(&self.files), std::mem::take(&mut self.path));
            // What this leaves behind, the next start removes.
            drop(self.pool.spawn_blocking(move || files.remove(&path)));
        }
    }
}

impl Disk {
    /// Takes the directory for this process alone, makes the ones in it, and removes what was half written when the last process ended.
    pub(super) fn open(root: &Path, origin: String) -> io::Result<Self> {
        Self::open_on(System, root, origin)
    }

    /// A draft in memory, for what the disk doesn't take: readers share it, and it is gone with the last of them.
    pub(super) fn draft_in_memory(&self, pool: &Handle) -> io::Result<Draft> {
        let file = rustix::fs::memfd_create("freshet", rustix::fs::MemfdFlags::CLOEXEC)?;
        Ok(Draft {
            file: Arc::new(file.into()),
            written: Arc::default(),
            files: Arc::clone(&self.files),
            path: PathBuf::new(),
            stage: Stage::Unnamed,
            pool: pool.clone(),
        })
    }
}

impl<F: Files> Disk<F> {
    pub(super) fn key(&self, object: &Object) -> Key {
        key_of(&self.origin, object)
    }

    /// A new file in `tmp/`, with blocks for `length` bytes where the file system can promise them. `NotFound` where
    /// [`restore`](Self::restore) is needed first.
    pub(super) fn draft(&self, length: Option<u64>, pool: &Handle) -> io::Result<Draft<F>> {
        #[cfg(test)]
        if let Some(kind) = self.faults.lock().unwrap().pop() {
            return Err(kind.into());
        }
        self.is_in_place()?;
        let path = self.next_draft();
        let file = Arc::new(self.files.create_new(&path)?);
        let files = Arc::clone(&self.files);
        let (written, pool) = (Arc::default(), pool.clone());
        let draft = Draft { file, written, files, path, stage: Stage::Open, pool };
        if let Some(length) = length.filter(|length| *length > 0) {
            self.files.reserve(&draft.file, 0, length)?;
        }
        Ok(draft)
    }

    fn next_draft(&self) -> PathBuf {
        self.tmp.join(self.drafts.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Promises blocks for a part of a draft, where the file system can.
    pub(super) fn reserve(&self, file: &F::File, range: ByteRange) -> io::Result<()> {
        self.files.reserve(file, range.start, range.len())
    }

    /// Makes a draft with a complete body an entry; what it takes on disk. What failed may be tried again.
    pub(super) fn commit(&self, draft: &mut Draft<F>, object: &Object, meta: &Meta) -> io::Result<u64> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed || draft.stage != Stage::Open {
            return Err(io::Error::other("nothing is committed after the end, nor after a sync that failed"));
        }
        let sums = match draft.written.of(meta.length.unwrap_or(0)) {
            Some(sums) => sums,
            None => self.read_sums(draft, meta.length.unwrap_or(0))?,
        };
        let sums = encode_sums(&sums);
        let Some(record) = Record::of(&self.origin, object, meta, &sums) else {
            return Err(io::Error::other("an entry needs a length and a digest"));
        };
        let end = encode(sums, &record)?;
        self.files.write_all_at(&draft.file, &end, record.length)?;
        let stored = i64::try_from(meta.stored.as_secs()).unwrap_or(0);
        self.files.set_modified(&draft.file, self.epoch().mark(stored))?;
        if let Err(error) = self.files.sync(&draft.file) {
            draft.stage = Stage::Spoiled;
            return Err(io::Error::other(error));
        }
        let path = self.path(&self.key(object));
        self.files.rename(&draft.path, &path)?;
        draft.stage = Stage::Committed;
        // Parts from before are of no more use, and not counted any more.
        let _ = self.files.remove(&self.parts_path(&self.key(object)));
        if let Err(error) = self.files.sync_dir(path.parent().expect("an entry lies in a shard")) {
            // Nobody would count it. Where that fails too, the next walk does.
            let _ = self.files.remove(&path);
            return Err(io::Error::other(error));
        }
        Ok(on_disk(record.length + end.len() as u64))
    }

    /// The sums of a body that didn't come in order, or not through [`Written`].
    fn read_sums(&self, draft: &Draft<F>, length: u64) -> io::Result<Vec<u32>> {
        let mut sums = BlockSums::default();
        let mut bytes = vec![0; PIECE_BYTES];
        while sums.length() < length {
            let piece = usize::try_from(length - sums.length()).unwrap_or(usize::MAX).min(PIECE_BYTES);
            self.files.read_exact_at(&draft.file, &mut bytes[..piece], sums.length())?;
            sums.update(&bytes[..piece]);
        }
        Ok(sums.sums())
    }

    /// Opens and verifies the entry of `object`; the body's bytes are read only where it isn't to be trusted.
    pub(super) fn look(&self, object: &Object, trust: Trust) -> io::Result<Look<F>> {
        let key = self.key(object);
        let path = self.path(&key);
        let file = match self.files.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Look::Missing),
            other => Arc::new(other?),
        };
        let facts = self.files.facts(&file)?;
        let record = read_record(&*self.files, &file, facts.length)?;
        let Some(record) = record.filter(|record| record.is_of(&self.origin, object)) else {
            return self.remove_file(&path).map(|()| Look::Damaged);
        };
        let disk_bytes = on_disk(facts.length);
        let is_trusted = match trust {
            Trust::Epoch => true,
            Trust::Sealed(seal, small) => seal == Some(facts.seal) || record.length <= small,
        };
        if is_trusted && self.epoch().is_on(facts.modified) {
            let seal = facts.seal;
            return match meta(record) {
                Some(meta) => {
                    Ok(Look::Found(Box::new(Found { key, meta, file, disk_bytes, verified: false, seal })))
                }
                None => self.remove_file(&path).map(|()| Look::Damaged),
            };
        }
        match self.suspect(key, file, record, facts, disk_bytes)? {
            None => self.remove_file(&path).map(|()| Look::Damaged),
            Some(mut suspect) if suspect.length <= LOOK_BYTES => {
                Ok(match self.verify(&mut suspect, 0, LOOK_BYTES)? {
                    Verified::Whole(finding) => {
                        let verified = finding == Finding::New;
                        Look::Found(Box::new(Found { verified, ..suspect.found }))
                    }
                    Verified::Damaged(Finding::New) => Look::Damaged,
                    Verified::Damaged(Finding::Known) => Look::Missing,
                    Verified::Some => Look::Suspect(Box::new(suspect)),
                })
            }
            Some(suspect) => Ok(Look::Suspect(Box::new(suspect))),
        }
    }

    /// Which object of this origin an entry is, or parts are; `None` where there are none or they don't verify.
    pub(super) fn described(&self, key: &Key) -> io::Result<Option<Described<F::File>>> {
        let is_missing = |error: &io::Error| error.kind() == ErrorKind::NotFound;
        let opened = match self.files.open(&self.path(key)) {
            Err(error) if is_missing(&error) => self.files.open(&self.parts_path(key)),
            other => other,
        };
        let file = match opened {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other?,
        };
        let size = self.files.facts(&file)?.length;
        let record = read_any(&*self.files, &file, size)?.filter(|record| record.origin == self.origin);
        Ok(record.and_then(|record| {
            let (object, stored) = (record.object()?, record.stored);
            let sha256 = record.sha256.filter(|_| record.parts().is_none());
            let length = record.length;
            Some(Described { object, stored, sha256, length, file })
        }))
    }

    pub(super) fn remove(&self, key: &Key) -> io::Result<()> {
        self.remove_file(&self.path(key))?;
        self.remove_file(&self.parts_path(key))
    }

    /// Whether there is a file of this name, as far as can be told.
    pub(super) fn holds(&self, key: &Key) -> bool {
        let is_missing =
            |path: &Path| matches!(self.files.facts_at(path), Err(e) if e.kind() == ErrorKind::NotFound);
        !is_missing(&self.path(key)) || !is_missing(&self.parts_path(key))
    }

    /// All entries and parts, in no order, until `each` says that it is enough. What has no such name is removed.
    pub(super) fn walk(&self, mut each: impl FnMut(Walked) -> bool) -> io::Result<()> {
        if !self.walk_directory(&self.root.join(PARTS), "", &mut each)? {
            return Ok(());
        }
        for shard in self.files.list(&self.objects)? {
            let directory = self.objects.join(&shard);
            if !self.files.facts_at(&directory)?.is_dir {
                continue;
            }
            if !self.walk_directory(&directory, &shard.display().to_string(), &mut each)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether it goes on. Names of entries are `prefix` and the file's.
    fn walk_directory(
        &self,
        directory: &Path,
        prefix: &str,
        each: &mut impl FnMut(Walked) -> bool,
    ) -> io::Result<bool> {
        for name in self.files.list(directory)? {
            let path = directory.join(&name);
            let Ok(sha256) = format!("{prefix}{}", name.display()).parse() else {
                self.remove_file(&path)?;
                continue;
            };
            // Removed by an eviction meanwhile.
            let Ok(Facts { length, allocated, modified, accessed, .. }) = self.files.facts_at(&path) else {
                continue;
            };
            let used = Timestamp::from_secs(u64::try_from(accessed.max(modified.seconds)).unwrap_or(0));
            // Parts have holes.
            let disk_bytes = if prefix.is_empty() { allocated } else { on_disk(length) };
            if !each(Walked { key: Key(sha256), disk_bytes, used }) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    #[cfg(test)]
    pub(super) fn entry_path(&self, object: &Object) -> PathBuf {
        self.path(&self.key(object))
    }

    fn path(&self, key: &Key) -> PathBuf {
        let hex = key.0.hex();
        self.objects.join(&hex[..2]).join(&hex[2..])
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        match self.files.remove(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

fn key_of(origin: &str, object: &Object) -> Key {
    let mut hasher = Hasher::default();
    for part in [origin.as_bytes(), object.name().as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    if let Some(identity) = object.identity {
        // Its length says of which algorithm it is.
        hasher.update(identity.digest.as_bytes());
        hasher.update(&identity.size.to_le_bytes());
    }
    Key(hasher.finish())
}

/// Blocks of 4 KiB, as file systems count.
fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(4096)
}
