//! The store over a directory origin: its files are served in place, and no byte is copied to disk.
//!
//! What is open stays open while it is used: rsync replaces files by new inodes, so an open file never changes. A path
//! that no catalogue lists is looked at again every [`TRUSTED`].

use super::evict::Uses;
use super::memory::{Body, Cached, Memory};
use super::object::{Content, FOREVER, Facts, Identity, Meta, Object, Tier, etag};
use super::refusals::Refusals;
use super::{Counters, FetchError, Scope, Settings};
use crate::clock;
use crate::http::freshness::Terms;
use crate::http::{Fields, TreePath, content_type};
use crate::origin::{Copied, DirEntry, DirectoryOrigin, Linked, Opened, OriginError, Wanted};
use crate::repo::Digest;
use std::collections::HashSet;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long an unlisted path is taken to name what it named, or nothing.
const TRUSTED: Duration = Duration::from_secs(1);
/// Read at once to check a file.
const CHECKED_BYTES: usize = 1024 * 1024;

/// A directory served in place.
pub(super) struct Tree {
    origin: Arc<DirectoryOrigin>,
    memory: Memory,
    refusals: Refusals,
    counters: Arc<Counters>,
    runtime: Handle,
}

impl Tree {
    pub(super) fn new(
        origin: Arc<DirectoryOrigin>,
        settings: &Settings,
        memory: Memory,
        counters: Arc<Counters>,
        runtime: &Handle,
    ) -> Arc<Self> {
        let (absent, failed) = (settings.absent_for.min(TRUSTED), settings.failed_for.min(TRUSTED));
        let refusals = Refusals::new(absent, failed);
        Arc::new(Self { origin, memory, refusals, counters, runtime: runtime.clone() })
    }

    pub(super) fn peek(&self, object: &Object) -> Option<Content> {
        Some(self.memory.find(object)?.content(Tier::Tree))
    }

    pub(super) async fn fetch(self: &Arc<Self>, object: &Object) -> Result<Content, FetchError> {
        if let Some(content) = self.peek(object)
            && content.is_fresh(clock::now())
        {
            return Ok(content);
        }
        if let Some(refusal) = self.refusals.find(object) {
            return Err(refusal);
        }
        let (tree, asked) = (Arc::clone(self), object.clone());
        self.on_pool(move || tree.load(&asked)).await
    }

    /// Checks all bytes of a listed object, as they are in place, against its SHA-256, which also brings them into the page cache.
    pub(super) async fn check(self: &Arc<Self>, object: &Object) -> Result<(), FetchError> {
        let (tree, object) = (Arc::clone(self), object.clone());
        self.on_pool(move || match object.identity {
            None => tree.origin.file(&object.path).map(drop).map_err(FetchError::from),
            Some(listed) => check(&tree.origin.file_of(&object.path, listed.size)?, &listed),
        })
        .await
    }

    pub(super) async fn listing(self: &Arc<Self>, dir: &TreePath) -> Result<Vec<DirEntry>, FetchError> {
        let (tree, dir) = (Arc::clone(self), dir.clone());
        self.on_pool(move || Ok(tree.origin.list(&dir)?)).await
    }

    pub(super) async fn retain(
        self: &Arc<Self>,
        files: Vec<(TreePath, Identity)>,
    ) -> Result<Linked, FetchError> {
        let origin = Arc::clone(&self.origin);
        self.on_pool(move || {
            let sources = files.iter().map(|(path, listed)| (path, listed.digest, listed.size));
            Ok(origin.retained().map(|retained| retained.link(&origin, sources)).unwrap_or_default())
        })
        .await
    }

    pub(super) async fn copy(
        self: &Arc<Self>,
        files: Vec<Wanted>,
        needed: HashSet<Digest>,
    ) -> Result<Copied, FetchError> {
        let origin = Arc::clone(&self.origin);
        self.on_pool(move || {
            let retained = origin.retained();
            Ok(retained.map(|retained| retained.copy(&origin, &files, &needed)).unwrap_or_default())
        })
        .await
    }

    pub(super) async fn sweep(self: &Arc<Self>, keep: HashSet<Digest>) -> Result<usize, FetchError> {
        let origin = Arc::clone(&self.origin);
        self.on_pool(move || {
            origin
                .retained()
                .map_or(Ok(0), |retained| retained.sweep(&keep))
                .map_err(|e| OriginError::Disk(e).into())
        })
        .await
    }

    pub(super) async fn can_link(self: &Arc<Self>) -> Result<(), String> {
        let origin = Arc::clone(&self.origin);
        self.runtime.spawn_blocking(move || origin.can_link()).await.map_err(|e| e.to_string())?
    }

    /// It is there: what was refused of it lately no longer holds.
    pub(super) fn admit(&self, object: &Object) {
        self.refusals.forget(object);
    }

    pub(super) fn purge(&self, object: &Object) -> bool {
        self.refusals.forget(object);
        self.discard(object)
    }

    /// Lets go of what is at hand of these paths; how many.
    pub(super) fn forget(&self, scope: &Scope) -> u64 {
        self.refusals.clear();
        self.memory.remove_where(|object, _| scope.covers(&object.path))
    }

    pub(super) fn discard(&self, object: &Object) -> bool {
        let there = self.memory.find(object).is_some();
        self.memory.remove(object);
        there
    }

    fn load(&self, object: &Object) -> Result<Content, FetchError> {
        let loaded = self.open(object);
        match &loaded {
            Ok(cached) => self.memory.insert(object, cached.clone()),
            Err(refusal) => {
                if matches!(refusal, FetchError::Origin(_)) {
                    self.counters.io_errors.fetch_add(1, Ordering::Relaxed);
                }
                self.memory.remove(object);
                self.refusals.note(object, refusal.clone());
            }
        }
        Ok(loaded?.content(Tier::Tree))
    }

    fn open(&self, object: &Object) -> Result<Cached, FetchError> {
        let now = clock::now();
        let (opened, etag, fresh_until) = match &object.identity {
            Some(listed) => (self.listed(&object.path, listed)?, etag(&listed.digest), FOREVER),
            None => {
                let opened = self.origin.file(&object.path)?;
                let etag = opened.stamp.etag();
                (opened, etag, now.plus(TRUSTED))
            }
        };
        let length = opened.stamp.length;
        let meta = Meta::new(Facts {
            length: Some(length),
            etag: Some(etag),
            last_modified: Some(opened.stamp.modified()),
            content_type: content_type::of(&object.path),
            sha256: object.identity.and_then(|listed| listed.digest.sha256()),
            listed: object.identity.map(|listed| listed.digest),
            stored: now,
            fresh_until,
            terms: Terms::none(now),
            fields: Fields::default(),
        });
        let body = match &object.identity {
            Some(listed) if self.memory.takes(length) => {
                let bytes = opened.read(length)?;
                matches(listed, Digest::of(listed.digest.algorithm(), &bytes))?;
                Body::Bytes(bytes.into())
            }
            _ => Body::File(Arc::new(opened.file)),
        };
        Ok(Cached { meta: Arc::new(meta), body, used: Arc::new(Uses::default()) })
    }

    fn listed(&self, path: &TreePath, listed: &Identity) -> Result<Opened, FetchError> {
        Ok(self.origin.listed_file(path, &listed.digest, listed.size)?)
    }

    async fn on_pool<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
    ) -> Result<T, FetchError> {
        self.runtime.spawn_blocking(work).await.map_err(|_| FetchError::ShuttingDown)?
    }
}

fn check(opened: &Opened, listed: &Identity) -> Result<(), FetchError> {
    let mut digester = listed.digester();
    let mut buffer = vec![0; CHECKED_BYTES];
    let mut at = 0;
    loop {
        match opened.file.read_at(&mut buffer, at) {
            Ok(0) => return matches(listed, digester.finish()),
            Ok(read) => {
                digester.update(&buffer[..read]);
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(OriginError::Disk(error).into()),
        }
    }
}

fn matches(listed: &Identity, received: Digest) -> Result<(), FetchError> {
    listed.check(received).map_err(|error| FetchError::Body(Arc::new(error)))
}
