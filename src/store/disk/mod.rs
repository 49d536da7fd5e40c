//! The disk tier: one file per object, which describes and checks itself.
//!
//! An entry is written below `tmp/`, synced, and renamed to `objects/ab/cdef...`, whose directory is synced; it is never
//! truncated or overwritten. All directories are made, and made durable, before the first entry. Whatever doesn't verify
//! is removed and counts as a miss. All IO goes through [`Files`]; the format is [`entry`]'s. All calls block.

mod entry;
pub(super) mod files;
#[cfg(test)]
mod tests;

pub(super) use entry::OVERHEAD_BYTES;

use super::object::{Meta, Object};
use crate::clock::Timestamp;
use crate::http::ByteRange;
use crate::repo::{Hasher, Sha256};
use entry::{Record, encode, meta, read_record};
use files::{Facts, Files, System};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// The file below the root that is locked.
const LOCK: &str = "lock";
/// How often, and how far apart, the lock is tried at the start.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The name of an entry: SHA-256 of origin, path and identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(Sha256);

/// An entry found.
pub(super) struct Found<F = File> {
    pub(super) meta: Meta,
    pub(super) file: F,
    pub(super) disk_bytes: u64,
}

/// What a look at the disk gave.
pub(super) enum Look<F = File> {
    Found(Box<Found<F>>),
    Missing,
    /// It didn't verify, and was removed.
    Damaged,
}

/// What an entry says of itself.
pub(super) struct Described<F = File> {
    pub(super) object: Object,
    pub(super) stored: Timestamp,
    pub(super) sha256: Sha256,
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
    /// Keeps other processes away as long as it is open.
    lock: Mutex<Arc<F::File>>,
    /// So many more drafts fail with this.
    #[cfg(test)]
    pub(super) faults: Mutex<Vec<ErrorKind>>,
}

/// A file that becomes an entry, or is removed when dropped.
pub(super) struct Draft<F: Files = System> {
    pub(super) file: Arc<F::File>,
    files: Arc<F>,
    path: PathBuf,
    state: Stage,
    pool: Handle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// A sync failed: what the kernel has dropped since, another sync would not miss.
    Spoiled,
    Committed,
}

impl<F: Files> Drop for Draft<F> {
    fn drop(&mut self) {
        if self.state != Stage::Committed {
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
}

impl<F: Files> Disk<F> {
    pub(super) fn open_on(files: F, root: &Path, origin: String) -> io::Result<Self> {
        make_root(&files, root)?;
        let lock = first_lock(&files, root)?;
        let disk = Self {
            files: Arc::new(files),
            root: root.to_owned(),
            objects: root.join("objects"),
            tmp: root.join("tmp"),
            origin,
            drafts: AtomicU64::new(0),
            lock: Mutex::new(Arc::new(lock)),
            #[cfg(test)]
            faults: Mutex::default(),
        };
        disk.make_directories()?;
        for left in disk.files.list(&disk.tmp)? {
            disk.files.remove(&disk.tmp.join(left))?;
        }
        Ok(disk)
    }

    /// Takes whatever directory is at the root now, and makes anew what is missing in it; whether there was need to.
    pub(super) fn restore(&self) -> io::Result<bool> {
        make_root(&*self.files, &self.root)?;
        let replaced = {
            let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            let replaced = !self.files.is_at(&held, &self.root.join(LOCK));
            if replaced {
                *held = Arc::new(self.files.lock(&self.root.join(LOCK))?);
            }
            replaced
        };
        Ok(self.make_directories()? || replaced)
    }

    /// Makes what is missing of the directories, so that no entry's own directory can be lost after it; whether something
    /// was missing.
    fn make_directories(&self) -> io::Result<bool> {
        let shards = (0..=u8::MAX).map(|shard| self.objects.join(format!("{shard:02x}")));
        let mut made = false;
        for directory in [self.objects.clone(), self.tmp.clone()].into_iter().chain(shards) {
            made |= make_dir(&*self.files, &directory)?;
        }
        // Also where nothing was missing: whoever made them may have died before this.
        self.files.sync_dir(&self.objects)?;
        self.files.sync_dir(&self.root)?;
        Ok(made)
    }

    pub(super) fn key(&self, object: &Object) -> Key {
        let mut hasher = Hasher::default();
        for part in [self.origin.as_bytes(), object.path.as_str().as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        if let Some(identity) = object.identity {
            hasher.update(identity.sha256.as_bytes());
            hasher.update(&identity.size.to_le_bytes());
        }
        Key(hasher.finish())
    }

    /// A new file in `tmp/`, with blocks for `length` bytes where the file system can promise them. `NotFound` where
    /// [`restore`](Self::restore) is needed first.
    pub(super) fn draft(&self, length: Option<u64>, pool: &Handle) -> io::Result<Draft<F>> {
        #[cfg(test)]
        if let Some(kind) = self.faults.lock().unwrap().pop() {
            return Err(kind.into());
        }
        let lock = Arc::clone(&self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        if !self.files.is_at(&lock, &self.root.join(LOCK)) {
            return Err(io::Error::new(ErrorKind::NotFound, "another directory has taken the cache's place"));
        }
        let path = self.tmp.join(self.drafts.fetch_add(1, Ordering::Relaxed).to_string());
        let file = Arc::new(self.files.create_new(&path)?);
        let files = Arc::clone(&self.files);
        let draft = Draft { file, files, path, state: Stage::Open, pool: pool.clone() };
        if let Some(length) = length.filter(|length| *length > 0) {
            self.files.reserve(&draft.file, 0, length)?;
        }
        Ok(draft)
    }

    /// Promises blocks for a part of a draft, where the file system can.
    pub(super) fn reserve(&self, file: &F::File, range: ByteRange) -> io::Result<()> {
        self.files.reserve(file, range.start, range.len())
    }

    /// Makes a draft with a complete body an entry; what it takes on disk. What failed may be tried again.
    pub(super) fn commit(&self, draft: &mut Draft<F>, object: &Object, meta: &Meta) -> io::Result<u64> {
        if draft.state != Stage::Open {
            return Err(io::Error::other("it can't be synced any more"));
        }
        let Some(record) = Record::of(&self.origin, object, meta) else {
            return Err(io::Error::other("an entry needs a length and a digest"));
        };
        let end = encode(&record)?;
        self.files.write_all_at(&draft.file, &end, record.length)?;
        if let Err(error) = self.files.sync(&draft.file) {
            draft.state = Stage::Spoiled;
            return Err(io::Error::other(error));
        }
        let path = self.path(&self.key(object));
        self.files.rename(&draft.path, &path)?;
        draft.state = Stage::Committed;
        if let Err(error) = self.files.sync_dir(path.parent().expect("an entry lies in a shard")) {
            // Nobody would count it. Where that fails too, the next walk does.
            let _ = self.files.remove(&path);
            return Err(io::Error::other(error));
        }
        Ok(on_disk(record.length + end.len() as u64))
    }

    /// Opens and verifies the entry of `object`; the body's bytes are not read.
    pub(super) fn look(&self, object: &Object) -> io::Result<Look<F::File>> {
        let path = self.path(&self.key(object));
        let file = match self.files.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Look::Missing),
            other => other?,
        };
        let size = self.files.facts(&file)?.length;
        let record = read_record(&*self.files, &file, size)?;
        match record.filter(|record| record.is_of(&self.origin, object)).and_then(meta) {
            Some(meta) => Ok(Look::Found(Box::new(Found { meta, file, disk_bytes: on_disk(size) }))),
            None => {
                self.remove_file(&path)?;
                Ok(Look::Damaged)
            }
        }
    }

    /// Which object of this origin an entry is; `None` where it isn't there or doesn't verify.
    pub(super) fn described(&self, key: &Key) -> io::Result<Option<Described<F::File>>> {
        let file = match self.files.open(&self.path(key)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let size = self.files.facts(&file)?.length;
        let record = read_record(&*self.files, &file, size)?.filter(|record| record.origin == self.origin);
        Ok(record.and_then(|record| {
            let (object, stored) = (record.object()?, record.stored);
            let Record { sha256, length, .. } = record;
            Some(Described { object, stored, sha256, length, file })
        }))
    }

    pub(super) fn remove(&self, key: &Key) -> io::Result<()> {
        self.remove_file(&self.path(key))
    }

    /// All entries, in no order, until `each` says that it is enough. What has no entry's name is removed.
    pub(super) fn walk(&self, mut each: impl FnMut(Walked) -> bool) -> io::Result<()> {
        for shard in self.files.list(&self.objects)? {
            let directory = self.objects.join(&shard);
            if !self.files.facts_at(&directory)?.is_dir {
                continue;
            }
            for name in self.files.list(&directory)? {
                let path = directory.join(&name);
                let Ok(sha256) = format!("{}{}", shard.display(), name.display()).parse() else {
                    self.remove_file(&path)?;
                    continue;
                };
                // Removed by an eviction meanwhile.
                let Ok(Facts { length, modified, accessed, .. }) = self.files.facts_at(&path) else {
                    continue;
                };
                let used = u64::try_from(accessed.max(modified.seconds)).unwrap_or(0);
                let used = Timestamp::from_secs(used);
                if !each(Walked { key: Key(sha256), disk_bytes: on_disk(length), used }) {
                    return Ok(());
                }
            }
        }
        Ok(())
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

/// The lock, from a process that may just be ending.
fn first_lock<F: Files>(files: &F, root: &Path) -> io::Result<F::File> {
    for _ in 1..LOCK_TRIES {
        match files.lock(&root.join(LOCK)) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => std::thread::sleep(LOCK_PAUSE),
            other => return other,
        }
    }
    files.lock(&root.join(LOCK))
}

/// Makes the root and what is missing above it, each made durable in turn.
fn make_root<F: Files>(files: &F, root: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| matches!(files.facts_at(path), Err(e) if e.kind() == ErrorKind::NotFound);
    let missing: Vec<&Path> = root.ancestors().take_while(is_missing).collect();
    for directory in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
        make_dir(files, directory)?;
        let above = directory.parent().filter(|path| !path.as_os_str().is_empty());
        files.sync_dir(above.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// Whether it had to be made.
fn make_dir<F: Files>(files: &F, path: &Path) -> io::Result<bool> {
    match files.make_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true),
    }
}

/// Blocks of 4 KiB, as file systems count.
fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(4096)
}
