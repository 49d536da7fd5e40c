//! The disk tier's format: one file per object, which describes and checks itself.
//!
//! ```text
//! body (from offset 0) | trailer: postcard Record | magic and version (8) | trailer length (4, LE) | SHA-256 of length and trailer (32)
//! ```
//!
//! An entry is written below `tmp/`, synced, and renamed to `objects/ab/cdef...`; it is never truncated or overwritten.
//! Whatever doesn't verify is removed and counts as a miss. All calls block.

use super::object::{Facts, Identity, Meta, Object};
use crate::clock::Timestamp;
use crate::http::TreePath;
use crate::repo::{Hasher, Sha256};
use hyper::header::HeaderValue;
use rustix::fs::{FallocateFlags, FlockOperation};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

const MAGIC: [u8; 8] = *b"freshet\x01";
/// The file below the root that is locked.
const LOCK: &str = "lock";
/// How often, and how far apart, the lock is tried at the start.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
const FOOTER_BYTES: u64 = 8 + 4 + 32;
/// A trailer holds a path (4 KiB at most) and some header values.
const MAX_TRAILER_BYTES: u64 = 64 * 1024;
/// What an entry may take beyond its body.
pub(super) const OVERHEAD_BYTES: u64 = 4096;

/// The name of an entry: SHA-256 of origin, path and identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(Sha256);

/// The trailer.
#[derive(Serialize, Deserialize)]
struct Record {
    origin: String,
    path: String,
    listed: Option<(Sha256, u64)>,
    length: u64,
    sha256: Sha256,
    etag: Option<Vec<u8>>,
    last_modified: Option<Timestamp>,
    content_type: Vec<u8>,
    stored: Timestamp,
    fresh_until: Timestamp,
}

/// An entry found.
pub(super) struct Found {
    pub(super) meta: Meta,
    pub(super) file: File,
    pub(super) disk_bytes: u64,
}

/// What an entry says of itself.
pub(super) struct Described {
    pub(super) object: Object,
    pub(super) stored: Timestamp,
    pub(super) sha256: Sha256,
    pub(super) length: u64,
    pub(super) file: File,
}

/// What a look at the disk gave.
pub(super) enum Look {
    Found(Box<Found>),
    Missing,
    /// It didn't verify, and was removed.
    Damaged,
}

/// One entry of the walk at the start.
pub(super) struct Walked {
    pub(super) key: Key,
    pub(super) disk_bytes: u64,
    pub(super) used: Timestamp,
}

/// The disk tier's directory.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    objects: PathBuf,
    tmp: PathBuf,
    origin: String,
    drafts: AtomicU64,
    /// Keeps other processes away as long as it is open.
    lock: Mutex<File>,
    /// So many more drafts fail with this.
    #[cfg(test)]
    pub(super) faults: Mutex<Vec<ErrorKind>>,
}

/// A file that becomes an entry, or is removed when dropped.
pub(super) struct Draft {
    pub(super) file: Arc<File>,
    path: PathBuf,
    committed: bool,
    pool: Handle,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.committed {
            let path = std::mem::take(&mut self.path);
            // What this leaves behind, the next start removes.
            drop(self.pool.spawn_blocking(move || fs::remove_file(path)));
        }
    }
}

impl Disk {
    /// Takes the directory for this process alone, makes the ones in it, and removes what was half written when the last process ended.
    pub(super) fn open(root: &Path, origin: String) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let disk = Self {
            root: root.to_owned(),
            objects: root.join("objects"),
            tmp: root.join("tmp"),
            origin,
            drafts: AtomicU64::new(0),
            lock: Mutex::new(first_lock(root)?),
            #[cfg(test)]
            faults: Mutex::default(),
        };
        disk.make_directories()?;
        for left in fs::read_dir(&disk.tmp)? {
            fs::remove_file(left?.path())?;
        }
        Ok(disk)
    }

    /// Makes anew what is missing of the directories; whether something was.
    pub(super) fn restore(&self) -> io::Result<bool> {
        if self.objects.is_dir() && self.tmp.is_dir() {
            return Ok(false);
        }
        fs::create_dir_all(&self.root)?;
        {
            let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            let current = match fs::metadata(self.root.join(LOCK)) {
                Ok(metadata) => {
                    let ours = held.metadata()?;
                    (metadata.dev(), metadata.ino()) == (ours.dev(), ours.ino())
                }
                Err(_) => false,
            };
            if !current {
                *held = lock(&self.root)?;
            }
        }
        self.make_directories()?;
        Ok(true)
    }

    fn make_directories(&self) -> io::Result<()> {
        fs::create_dir_all(&self.objects)?;
        fs::create_dir_all(&self.tmp)
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

    /// A new file in `tmp/`, with blocks for `length` bytes where the file system can promise them.
    pub(super) fn draft(&self, length: Option<u64>, pool: &Handle) -> io::Result<Draft> {
        #[cfg(test)]
        if let Some(kind) = self.faults.lock().unwrap().pop() {
            return Err(kind.into());
        }
        let path = self.tmp.join(self.drafts.fetch_add(1, Ordering::Relaxed).to_string());
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let draft = Draft { file: Arc::new(file), path, committed: false, pool: pool.clone() };
        if let Some(length) = length.filter(|length| *length > 0) {
            match rustix::fs::fallocate(&draft.file, FallocateFlags::KEEP_SIZE, 0, length) {
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(draft)
    }

    /// Makes a draft with a complete body an entry; what it takes on disk. What failed may be tried again.
    pub(super) fn commit(&self, draft: &mut Draft, object: &Object, meta: &Meta) -> io::Result<u64> {
        let (Some(length), Some(sha256)) = (meta.length, meta.sha256) else {
            return Err(io::Error::other("an entry needs a length and a digest"));
        };
        let record = Record {
            origin: self.origin.clone(),
            path: object.path.as_str().to_owned(),
            listed: object.identity.map(|identity| (identity.sha256, identity.size)),
            length,
            sha256,
            etag: meta.etag.as_ref().map(|value| value.as_bytes().to_vec()),
            last_modified: meta.last_modified,
            content_type: meta.content_type.as_bytes().to_vec(),
            stored: meta.stored,
            fresh_until: meta.fresh_until,
        };
        let end = encode(&record)?;
        draft.file.write_all_at(&end, length)?;
        draft.file.sync_all()?;
        let path = self.path(&self.key(object));
        let shard = path.parent().expect("an entry lies in a shard");
        match fs::create_dir(shard) {
            Ok(()) => File::open(&self.objects)?.sync_all()?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        fs::rename(&draft.path, &path)?;
        draft.committed = true;
        File::open(shard)?.sync_all()?;
        Ok(on_disk(length + end.len() as u64))
    }

    /// Opens and verifies the entry of `object`; the body's bytes are not read.
    pub(super) fn look(&self, object: &Object) -> io::Result<Look> {
        let path = self.path(&self.key(object));
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Look::Missing),
            other => other?,
        };
        let size = file.metadata()?.len();
        let record = read_record(&file, size)?.filter(|record| {
            record.origin == self.origin
                && record.path == object.path.as_str()
                && record.listed == object.identity.map(|identity| (identity.sha256, identity.size))
                && object
                    .identity
                    .is_none_or(|listed| (listed.sha256, listed.size) == (record.sha256, record.length))
        });
        match record.and_then(meta) {
            Some(meta) => Ok(Look::Found(Box::new(Found { meta, file, disk_bytes: on_disk(size) }))),
            None => {
                remove_file(&path)?;
                Ok(Look::Damaged)
            }
        }
    }

    /// Which object of this origin an entry is; `None` where it isn't there or doesn't verify.
    pub(super) fn described(&self, key: &Key) -> io::Result<Option<Described>> {
        let file = match File::open(self.path(key)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let size = file.metadata()?.len();
        let record = read_record(&file, size)?.filter(|record| record.origin == self.origin);
        Ok(record.and_then(|record| {
            let identity = record.listed.map(|(sha256, size)| Identity { sha256, size });
            let object = Object { path: TreePath::new(&record.path).ok()?, identity };
            let Record { stored, sha256, length, .. } = record;
            Some(Described { object, stored, sha256, length, file })
        }))
    }

    pub(super) fn remove(&self, key: &Key) -> io::Result<()> {
        remove_file(&self.path(key))
    }

    /// All entries, in no order, until `each` says that it is enough. What has no entry's name is removed.
    pub(super) fn walk(&self, mut each: impl FnMut(Walked) -> bool) -> io::Result<()> {
        for shard in fs::read_dir(&self.objects)? {
            let shard = shard?;
            if !shard.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(shard.path())? {
                let entry = entry?;
                let name = format!("{}{}", shard.file_name().display(), entry.file_name().display());
                let Ok(sha256) = name.parse() else {
                    remove_file(&entry.path())?;
                    continue;
                };
                // Removed by an eviction meanwhile.
                let Ok(metadata) = entry.metadata() else { continue };
                let used = metadata.atime().max(metadata.mtime());
                let used = Timestamp::from_secs(u64::try_from(used).unwrap_or(0));
                let walked = Walked { key: Key(sha256), disk_bytes: on_disk(metadata.len()), used };
                if !each(walked) {
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
}

/// The lock, from a process that may just be ending.
fn first_lock(root: &Path) -> io::Result<File> {
    for _ in 1..LOCK_TRIES {
        match lock(root) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => std::thread::sleep(LOCK_PAUSE),
            other => return other,
        }
    }
    lock(root)
}

/// The lock that one process holds.
fn lock(root: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(root.join(LOCK))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let why = format!("another process uses {}", root.display());
            Err(io::Error::new(ErrorKind::ResourceBusy, why))
        }
        Err(error) => Err(error.into()),
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Blocks of 4 KiB, as file systems count.
fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(4096)
}

/// Trailer and footer.
fn encode(record: &Record) -> io::Result<Vec<u8>> {
    let mut end = postcard::to_stdvec(record).map_err(io::Error::other)?;
    let length = u32::try_from(end.len()).map_err(io::Error::other)?.to_le_bytes();
    let digest = trailer_digest(length, &end);
    end.extend_from_slice(&MAGIC);
    end.extend_from_slice(&length);
    end.extend_from_slice(digest.as_bytes());
    Ok(end)
}

fn trailer_digest(length: [u8; 4], trailer: &[u8]) -> Sha256 {
    let mut hasher = Hasher::default();
    hasher.update(&length);
    hasher.update(trailer);
    hasher.finish()
}

/// The trailer of a file of `size` bytes, if it verifies.
fn read_record(file: &File, size: u64) -> io::Result<Option<Record>> {
    let Some(footer_at) = size.checked_sub(FOOTER_BYTES) else { return Ok(None) };
    let mut footer = [0; FOOTER_BYTES as usize];
    file.read_exact_at(&mut footer, footer_at)?;
    let (magic, rest) = footer.split_at(8);
    let (length, digest) = rest.split_at(4);
    let length: [u8; 4] = length.try_into().expect("split at 4");
    let trailer_bytes = u64::from(u32::from_le_bytes(length));
    if magic != MAGIC || trailer_bytes > MAX_TRAILER_BYTES {
        return Ok(None);
    }
    let Some(trailer_at) = footer_at.checked_sub(trailer_bytes) else { return Ok(None) };
    let mut trailer = vec![0; usize::try_from(trailer_bytes).unwrap_or(0)];
    file.read_exact_at(&mut trailer, trailer_at)?;
    if trailer_digest(length, &trailer).as_bytes() != digest {
        return Ok(None);
    }
    Ok(postcard::from_bytes::<Record>(&trailer).ok().filter(|record| record.length == trailer_at))
}

fn meta(record: Record) -> Option<Meta> {
    let etag = match record.etag {
        Some(raw) => Some(HeaderValue::from_bytes(&raw).ok()?),
        None => None,
    };
    Some(Meta::new(Facts {
        length: Some(record.length),
        etag,
        last_modified: record.last_modified,
        content_type: HeaderValue::from_bytes(&record.content_type).ok()?,
        sha256: Some(record.sha256),
        stored: record.stored,
        fresh_until: record.fresh_until,
    }))
}
