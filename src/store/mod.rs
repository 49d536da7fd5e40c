//! The store: every byte that a client gets comes from here.
//!
//! Over an HTTP origin it is a cache (memory tier, disk tier, fills); over a directory origin it serves that in place.
//! A [`Store`] is shared by all workers. Whatever blocks or belongs to a connection runs on the background runtime that
//! it is given; callers may live on any runtime.
//!
//! Invariants: one fill per object at a time. Nothing is committed that isn't complete, and nothing listed that doesn't
//! match its SHA-256; no reader of either ends cleanly. An entry that doesn't verify is a miss. Listed objects never go
//! stale; others follow RFC 9111, and are served stale (and marked so) while the origin is down, for a bounded time.

mod ahead;
mod cache;
mod compare;
mod demand;
pub(crate) mod disk;
mod error;
mod evict;
mod fill;
mod flight;
mod gate;
#[doc(hidden)]
pub mod measure;
mod memory;
mod object;
mod pass;
mod places;
pub(crate) mod purge;
mod refusals;
mod settings;
mod spans;
mod stats;
mod sums;
mod surplus;
mod tail;
mod tree;
mod trouble;
mod wants;

#[cfg(test)]
mod tests;

pub use compare::Comparison;
pub use demand::{Class, Demand};
pub use error::{FetchError, FillError, PurgeError};
pub use object::{Content, FOREVER, Identity, Meta, Object, Source, Tier, etag, repr_digest};
pub use pass::PassBody;
pub use purge::{Mode, Scope};
pub use settings::Settings;
pub use stats::StoreStats;
pub use tail::{HELD_BACK_BYTES, Tail};
pub use trouble::DiskTrouble;

use crate::clock;
use crate::http::{ByteRange, TreePath};
use crate::origin::{
    Copied, DirEntry, Health, Linked, Origin, OriginError, PollValidators, Polled, Sight, Wanted,
};
use crate::repo::Digest;
use bytes::Bytes;
use cache::Cache;
use memory::Memory;
use stats::Counters;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::runtime::Handle;
use tree::Tree;

/// What a client is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interest {
    Whole,
    Parts,
}

impl Interest {
    /// Tells a fill that it is to fetch all, where that is so.
    fn begin(self, mut content: Content) -> Content {
        if let (Self::Whole, Source::Growing(tail)) = (self, &mut content.source) {
            tail.want_whole();
        }
        content
    }
}

/// What a purge did. Counts of the disk are those of the sweep up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Let go of in memory at once.
    pub memory: u64,
    /// Removed from disk, damaged ones included.
    pub removed: u64,
    /// Marked on disk to be revalidated.
    pub marked: u64,
    /// Listed ones that were read again and found whole.
    pub verified: u64,
    /// The sweep is through. If not, the purge is in force all the same.
    pub complete: bool,
    /// It would outlive a restart before the sweep is through.
    pub persisted: bool,
    /// The tree is a local directory: nothing is cached but open files, and these were let go of.
    pub served_in_place: bool,
}

enum Backing {
    Cache(Arc<Cache>),
    Tree(Arc<Tree>),
}

/// The store of one origin.
pub struct Store {
    backing: Backing,
    origin: Origin,
    memory: Memory,
    counters: Arc<Counters>,
    runtime: Handle,
}

impl Store {
    /// Opens the disk tier (blocking, briefly: its index loads behind), or fails where another process has it. `runtime` is where fills run and whose
    /// blocking pool does all file IO; it must outlive the store's use.
    pub fn open(origin: Origin, settings: &Settings, runtime: &Handle) -> io::Result<Arc<Self>> {
        let counters = Arc::new(Counters::default());
        let memory = Memory::new(
            settings.memory_bytes,
            settings.memory_object_bytes,
            settings.open_files,
            settings.open_file_idle,
        );
        let (tier, counted) = (memory.clone(), Arc::clone(&counters));
        let backing = match &origin {
            Origin::Http(http) => {
                Backing::Cache(Cache::open(Arc::clone(http), settings, tier, counted, runtime)?)
            }
            Origin::Directory(directory) => {
                Backing::Tree(Tree::new(Arc::clone(directory), settings, tier, counted, runtime))
            }
        };
        Ok(Arc::new(Self { backing, origin, memory, counters, runtime: runtime.clone() }))
    }

    /// What is at hand, without any IO: memory tier, open files, a running fill. It may be stale: see
    /// [`Content::is_fresh`].
    #[must_use]
    pub fn peek(&self, object: &Object) -> Option<Content> {
        let found = match &self.backing {
            Backing::Cache(cache) => cache.peek(object),
            Backing::Tree(tree) => tree.peek(object),
        };
        self.counted(found)
    }

    /// The same, and what is on disk or in the tree. The origin is not asked.
    pub async fn find(&self, object: &Object) -> Option<Content> {
        let found = match &self.backing {
            Backing::Cache(cache) => cache.find(object).await,
            Backing::Tree(tree) => tree.fetch(object).await.ok(),
        };
        self.counted(found)
    }

    /// The object: from where it is at hand, else by joining or starting the one fill. Returns once the head is known.
    /// Revalidates what is stale, and gives it stale (marked) when the origin has no usable answer.
    ///
    /// Over a directory origin a directory's path is `Absent`: see [`Store::listing`].
    pub async fn fetch(&self, object: &Object, demand: Demand) -> Result<Content, FetchError> {
        self.begin(object, Interest::Whole, demand).await
    }

    /// The same for a client that is after parts: a fill fetches no more than its readers [want](Tail::want). What
    /// can't be stored comes as `Source::Apart`, without a body.
    pub async fn fetch_parts(&self, object: &Object, demand: Demand) -> Result<Content, FetchError> {
        self.begin(object, Interest::Parts, demand).await
    }

    /// A part of an object that isn't to be stored (`Source::Apart`): `Source::Pass` with the range's bytes alone, of the
    /// version that its head named.
    pub async fn pass_range(
        &self,
        object: &Object,
        head: Content,
        range: ByteRange,
        demand: Demand,
    ) -> Result<Content, FetchError> {
        match &self.backing {
            Backing::Cache(cache) => cache.pass_range(object, head, range, demand).await,
            Backing::Tree(tree) => tree.fetch(object).await,
        }
    }

    /// What a HEAD says, as content without its bytes. The origin is asked for the head only, and no fill begins.
    pub async fn head(&self, object: &Object, demand: Demand) -> Result<Content, FetchError> {
        match &self.backing {
            Backing::Cache(cache) => cache.head(object, demand).await,
            Backing::Tree(tree) => Ok(tree.fetch(object).await?.head_only()),
        }
    }

    /// All bytes of an object, of at most `max` bytes. A listed one is checked against its SHA-256 once more; where
    /// what is cached doesn't match, it is purged and fetched anew, once. For pushes: see [`Demand::PUSH`].
    pub async fn whole(&self, object: &Object, max: u64) -> Result<Bytes, FetchError> {
        match self.read(object, max).await {
            Err(FetchError::Body(error))
                if matches!(&*error, FillError::Mismatch { .. } | FillError::Disk(_)) =>
            {
                let was_cached = match &self.backing {
                    Backing::Cache(cache) => cache.discard(object).await,
                    Backing::Tree(tree) => tree.discard(object),
                };
                if !was_cached {
                    return Err(FetchError::Body(error));
                }
                self.counters.damaged.fetch_add(1, Ordering::Relaxed);
                self.read(object, max).await
            }
            other => other,
        }
    }

    /// Fetches an object and waits until it is in the disk tier; `NotStored` where all of it came and was right, but can't be
    /// kept. Over a directory origin all bytes of a listed one are read in place and checked. For pushes: see [`Demand::PUSH`].
    pub async fn complete(&self, object: &Object) -> Result<(), FetchError> {
        let cache = match &self.backing {
            Backing::Tree(tree) => return tree.check(object).await,
            Backing::Cache(cache) => cache,
        };
        let _pushing = cache.gate.push();
        match cache.fetch(object, Interest::Whole, Demand::PUSH).await?.source {
            Source::Memory(_) | Source::File(_) => Ok(()),
            Source::Growing(mut tail) => {
                // It has no reader that would set its pace.
                tail.want_all();
                tail.committed().await.map_err(|error| match &*error {
                    FillError::NoRoom if tail.is_right() => FetchError::NotStored,
                    _ => FetchError::Body(error),
                })
            }
            Source::Pass(mut body) => {
                while let Some(piece) = body.next().await {
                    piece.map_err(FetchError::Body)?;
                }
                Err(FetchError::NotStored)
            }
            Source::Apart(_) => Err(FetchError::NotStored),
        }
    }

    /// Looks at the origin's own file of `object`, which is to have `size` bytes, whatever is cached of it or was lately refused.
    /// What is there is no longer refused.
    ///
    /// # Errors
    /// The origin doesn't have it so, or is in trouble.
    pub async fn see(&self, object: &Object, size: u64) -> Result<Sight, FetchError> {
        let (origin, path) = (self.origin.clone(), object.path.clone());
        let seeing = self.runtime.spawn(async move { origin.see(&path, size).await });
        let sight = seeing.await.map_err(|_| FetchError::ShuttingDown)??;
        match &self.backing {
            Backing::Cache(cache) => cache.refusals.forget(object),
            Backing::Tree(tree) => tree.admit(object),
        }
        Ok(sight)
    }

    /// Whether `path` is still the version that `known` names.
    pub async fn poll(&self, path: &TreePath, known: &PollValidators) -> Result<Polled, OriginError> {
        let (origin, path, known) = (self.origin.clone(), path.clone(), known.clone());
        let polling = self.runtime.spawn(async move { origin.poll(&path, &known).await });
        polling
            .await
            .unwrap_or_else(|_| Err(OriginError::Down { reason: "the node is going down".to_owned() }))
    }

    /// The origin's name, and how it stands; `None` for a local directory.
    #[must_use]
    pub fn origin(&self) -> (String, Option<Health>) {
        (self.origin.id(), self.origin.health())
    }

    /// The entries of a directory; `None` over an HTTP origin: there the path (with its slash) is an object.
    pub async fn listing(&self, dir: &TreePath) -> Result<Option<Vec<DirEntry>>, FetchError> {
        match &self.backing {
            Backing::Cache(_) => Ok(None),
            Backing::Tree(tree) => tree.listing(dir).await.map(Some),
        }
    }

    /// Keeps a generation's files reachable after rsync replaced or deleted them. Does nothing over an HTTP origin.
    pub async fn retain(&self, files: Vec<(TreePath, Identity)>) -> Result<Linked, FetchError> {
        match &self.backing {
            Backing::Cache(_) => Ok(Linked::default()),
            Backing::Tree(tree) => tree.retain(files).await,
        }
    }

    /// Copies files that [`Store::retain`] could not link, in this order, as far as `origin.retain_size` has room. Copies in
    /// `needed` are never given up for it.
    pub async fn copy(&self, files: Vec<Wanted>, needed: HashSet<Digest>) -> Result<Copied, FetchError> {
        match &self.backing {
            Backing::Cache(_) => Ok(Copied::default()),
            Backing::Tree(tree) => tree.copy(files, needed).await,
        }
    }

    /// Lets go of retained files that are not in `keep`; how many.
    pub async fn sweep(&self, keep: HashSet<Digest>) -> Result<usize, FetchError> {
        match &self.backing {
            Backing::Cache(_) => Ok(0),
            Backing::Tree(tree) => tree.sweep(keep).await,
        }
    }

    /// Whether [`Store::retain`] can work, for `check`; else why not.
    pub async fn can_link(&self) -> Result<(), String> {
        match &self.backing {
            Backing::Cache(_) => Ok(()),
            Backing::Tree(tree) => tree.can_link().await,
        }
    }

    /// Removes an object from all tiers; whether it was there. A running fill goes on.
    pub async fn purge(&self, object: &Object) -> bool {
        match &self.backing {
            Backing::Cache(cache) => cache.purge(object).await,
            Backing::Tree(tree) => tree.purge(object),
        }
    }

    /// Purges canonical paths, in force for every answer from now on. Nothing that was asked of the origin before counts as
    /// newer. What clients are being sent goes on.
    pub async fn purge_all(&self, scope: Scope, mode: Mode) -> Result<Purged, PurgeError> {
        match &self.backing {
            Backing::Cache(cache) => cache.ban(scope, mode).await,
            Backing::Tree(tree) => Ok(Purged {
                memory: tree.forget(&scope),
                complete: true,
                persisted: true,
                served_in_place: true,
                ..Purged::default()
            }),
        }
    }

    /// To be called when an open file of this object ended early or couldn't be read: nobody gets it again. Over a
    /// directory origin only the open file is let go of.
    pub async fn damaged(&self, object: &Object) {
        match &self.backing {
            Backing::Cache(cache) => cache.give_up(object).await,
            Backing::Tree(tree) => {
                if tree.discard(object) {
                    self.counters.damaged.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Whether what [`Store::peek`] gave may be sent: an open file that has changed since it was verified is let go of, to be
    /// verified anew by [`Store::fetch`].
    #[must_use]
    pub fn stands(&self, object: &Object, content: &Content) -> bool {
        match (&self.backing, &content.source) {
            (Backing::Cache(cache), Source::File(_)) => cache.stands(object),
            _ => true,
        }
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let (flights, (objects, disk_bytes)) = match &self.backing {
            Backing::Cache(cache) => (cache.fills_running(), cache.figures()),
            Backing::Tree(_) => (0, (0, 0)),
        };
        let (bans, reserved_bytes) = match &self.backing {
            Backing::Cache(cache) => (cache.bans(), cache.evictor.index.reserved_bytes()),
            Backing::Tree(_) => (0, 0),
        };
        StoreStats {
            disk_trouble: self.disk_trouble().is_some(),
            bans,
            objects,
            disk_bytes,
            reserved_bytes,
            memory_bytes: self.memory.bytes(),
            open_files: self.memory.open_files(),
            flights,
            ..self.counters.totals()
        }
    }

    /// The disk tier's trouble, while it lasts.
    #[must_use]
    pub fn disk_trouble(&self) -> Option<DiskTrouble> {
        match &self.backing {
            Backing::Cache(cache) => cache.disk_trouble(),
            Backing::Tree(_) => None,
        }
    }

    /// For benchmarks: what the disk tier's index takes in memory, in bytes, by counting.
    #[doc(hidden)]
    #[must_use]
    pub fn index_bytes(&self) -> u64 {
        match &self.backing {
            Backing::Cache(cache) => cache.evictor.index.memory_bytes(),
            Backing::Tree(_) => 0,
        }
    }

    /// Abandons running fills (their readers get `Abandoned`) and starts no more.
    pub async fn shutdown(&self) {
        if let Backing::Cache(cache) = &self.backing {
            cache.shutdown().await;
        }
    }

    async fn begin(
        &self,
        object: &Object,
        interest: Interest,
        demand: Demand,
    ) -> Result<Content, FetchError> {
        let content = match &self.backing {
            Backing::Cache(cache) => cache.fetch(object, interest, demand).await?,
            Backing::Tree(tree) => tree.fetch(object).await?,
        };
        if content.stale {
            self.counters.served_stale.fetch_add(1, Ordering::Relaxed);
        }
        self.counted(Some(content)).ok_or(FetchError::NotStored)
    }

    fn counted(&self, found: Option<Content>) -> Option<Content> {
        let content = found?;
        if content.is_fresh(clock::now()) {
            let counter = match content.tier {
                Tier::Memory => &self.counters.hits_memory,
                Tier::Disk => &self.counters.hits_disk,
                Tier::Tree => &self.counters.hits_tree,
                Tier::Fill => &self.counters.hits_fill,
                // Counted where it begins.
                Tier::Pass => return Some(content),
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Some(content)
    }

    async fn read(&self, object: &Object, max: u64) -> Result<Bytes, FetchError> {
        let _pushing = match &self.backing {
            Backing::Cache(cache) => Some(cache.gate.push()),
            Backing::Tree(_) => None,
        };
        let content = self.fetch(object, Demand::PUSH).await?;
        let too_large = |length| FetchError::TooLarge { length, max };
        if let Some(length) = content.meta.length.filter(|length| *length > max) {
            return Err(too_large(length));
        }
        let bytes = match content.source {
            Source::Memory(bytes) => return Ok(bytes),
            Source::File(file) => self.read_file(file, content.meta.length.unwrap_or(0)).await?,
            Source::Growing(mut tail) => {
                tail.want_all();
                let mut length = 0;
                loop {
                    let watermark = tail.past(length).await.map_err(FetchError::Body)?;
                    if watermark > max {
                        return Err(too_large(watermark));
                    }
                    if watermark == length {
                        break;
                    }
                    length = watermark;
                }
                self.read_file(Arc::clone(tail.file()), length).await?
            }
            Source::Pass(mut body) => {
                let mut bytes = Vec::new();
                while let Some(piece) = body.next().await {
                    bytes.extend_from_slice(&piece.map_err(FetchError::Body)?);
                    if bytes.len() as u64 > max {
                        return Err(too_large(bytes.len() as u64));
                    }
                }
                bytes.into()
            }
            Source::Apart(_) => return Err(FetchError::NotStored),
        };
        match object.identity {
            Some(listed) => listed.check(Digest::of(listed.digest.algorithm(), &bytes)),
            None => Ok(()),
        }
        .map(|()| bytes)
        .map_err(|error| FetchError::Body(Arc::new(error)))
    }

    async fn read_file(&self, file: Arc<File>, length: u64) -> Result<Bytes, FetchError> {
        let reading = move || {
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(Bytes::from(bytes))
        };
        let read = self.runtime.spawn_blocking(reading).await.map_err(|_| FetchError::ShuttingDown)?;
        read.map_err(|error| FetchError::Body(Arc::new(FillError::Disk(error))))
    }
}
