//! Purges at work: bans are kept beside the cache, and the disk is swept behind them.
//!
//! A ban is dropped once the disk was walked while no flight from before it was under way: until then what such a flight
//! commits is banned too, by the time at which its head came. Bans outlive a restart.

use super::super::compare::digest;
use super::super::disk::{Described, Key};
use super::super::purge::{Ban, Bans};
use super::super::{Mode, PurgeError, Purged, Scope};
use super::*;
use crate::repo::Algorithm;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// The bans' file in the cache's directory.
const FILE: &str = "purges";
/// How long a purge waits for its sweep before it answers that it is still under way.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether flights from before a ban have landed.
const PAUSE: Duration = Duration::from_millis(250);
/// After a walk that failed.
const RETRY: Duration = Duration::from_secs(30);

/// What sweeps did since the start.
#[derive(Debug, Default)]
struct Swept {
    removed: AtomicU64,
    marked: AtomicU64,
    verified: AtomicU64,
}

/// The bans in force.
pub(super) struct Purges {
    bans: ArcSwap<Bans>,
    /// Spares lookups the rest while there are none.
    count: AtomicUsize,
    /// Rises with each change of the bans.
    version: AtomicU64,
    file: PathBuf,
    /// Held while the file is written: changes come one after the other.
    changing: Mutex<()>,
    sweeping: AtomicBool,
    swept: Swept,
    done: watch::Sender<()>,
    /// When flights that are under way began, and how many at that moment.
    departed: Mutex<BTreeMap<Timestamp, usize>>,
}

/// A flight under way.
pub(super) struct Departure {
    purges: Arc<Purges>,
    at: Timestamp,
}

impl Drop for Departure {
    fn drop(&mut self) {
        let mut departed = self.purges.departed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flights) = departed.get_mut(&self.at) {
            *flights -= 1;
            if *flights == 0 {
                departed.remove(&self.at);
            }
        }
    }
}

impl Purges {
    /// With the bans that the last process left (blocking).
    pub(super) fn load(root: &Path) -> Arc<Self> {
        let file = root.join(FILE);
        let bans = read(&file);
        Arc::new(Self {
            count: AtomicUsize::new(bans.count()),
            bans: ArcSwap::from_pointee(bans),
            version: AtomicU64::new(0),
            file,
            changing: Mutex::default(),
            sweeping: AtomicBool::new(false),
            swept: Swept::default(),
            done: watch::Sender::default(),
            departed: Mutex::default(),
        })
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// To be held by a flight from before it asks the origin.
    pub(super) fn departs(self: &Arc<Self>, at: Timestamp) -> Departure {
        let mut departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        *departed.entry(at).or_default() += 1;
        drop(departed);
        Departure { purges: Arc::clone(self), at }
    }

    /// What bans say of an object in the cache. Listed ones don't go stale.
    pub(super) fn verdict(&self, object: &Object, meta: &Meta) -> Option<Mode> {
        if self.count() == 0 {
            return None;
        }
        let verdict = self.bans.load().verdict(&object.path, meta.stored, clock::now());
        verdict.filter(|mode| *mode == Mode::Hard || object.identity.is_none())
    }

    /// Puts `change` of the bans into force, then into the file (blocking); whether the latter worked.
    fn change<E>(&self, change: impl FnOnce(&Bans) -> Result<Bans, E>) -> Result<bool, E> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let bans = change(&self.bans.load())?;
        let written = write(&self.file, &bans);
        self.count.store(bans.count(), Ordering::Release);
        self.bans.store(Arc::new(bans));
        self.version.fetch_add(1, Ordering::AcqRel);
        self.done.send_replace(());
        if let Err(error) = &written {
            tracing::warn!(%error, file = %self.file.display(), "purges won't outlive a restart");
        }
        Ok(written.is_ok())
    }

    fn landed_before(&self, moment: Timestamp) -> bool {
        let departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        departed.keys().next().is_none_or(|oldest| *oldest > moment)
    }
}

/// Bans that can't be read any more might have meant anything: then nothing is used unchecked.
fn read(file: &Path) -> Bans {
    let text = match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Bans::default(),
        other => other,
    };
    let read = text.and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other));
    read.unwrap_or_else(|error| {
        tracing::warn!(%error, file = %file.display(), "the purges can't be read: all is revalidated");
        let scope = Scope::Prefix(String::new());
        let ban = Ban { scope, mode: Mode::Soft, since: clock::now() };
        Bans::default().with(ban).unwrap_or_default()
    })
}

fn write(file: &Path, bans: &Bans) -> io::Result<()> {
    if bans.is_empty() {
        return match fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let new = file.with_extension("new");
    let mut draft = File::create(&new)?;
    draft.write_all(&serde_json::to_vec(bans).map_err(io::Error::other)?)?;
    draft.sync_all()?;
    fs::rename(&new, file)?;
    file.parent().map_or(Ok(()), |root| File::open(root)?.sync_all())
}

impl Cache {
    /// What is at hand of an object, as bans leave it.
    pub(super) fn unpurged(&self, object: &Object, cached: Cached) -> Option<Cached> {
        match self.purges.verdict(object, &cached.meta) {
            None => Some(cached),
            Some(Mode::Hard) => {
                self.memory.remove(object);
                None
            }
            Some(Mode::Soft) if self.is_renewed(object, &cached.meta) => Some(cached),
            Some(Mode::Soft) => Some(Cached { meta: Arc::new(cached.meta.purged()), ..cached }),
        }
    }

    /// What is on disk, the same; `None` once it is removed.
    pub(super) fn unpurged_entry(&self, object: &Object, meta: Meta, file: &File) -> Option<Meta> {
        let verdict = self.purges.verdict(object, &meta);
        if verdict == Some(Mode::Hard) {
            self.drop_entry(object);
            return None;
        }
        let suspect = verdict.is_some() || (object.identity.is_none() && is_marked(file));
        Some(if suspect && !self.is_renewed(object, &meta) { meta.purged() } else { meta })
    }

    /// Whether the origin has confirmed it since it was last purged: a purge forgets these notes.
    fn is_renewed(&self, object: &Object, meta: &Meta) -> bool {
        self.renewed.get(object).is_some_and(|renewed| renewed.stored == meta.stored)
    }

    /// Purges, and waits a little for the sweep behind it.
    pub(in crate::store) async fn ban(
        self: &Arc<Self>,
        scope: Scope,
        mode: Mode,
    ) -> Result<Purged, PurgeError> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let swept = &self.purges.swept;
        let before = (count(&swept.removed), count(&swept.marked), count(&swept.verified));
        let mut done = self.purges.done.subscribe();
        let ban = Ban { scope, mode, since: clock::now() };
        let (cache, added) = (Arc::clone(self), ban.clone());
        let adding = self.runtime.spawn_blocking(move || {
            let persisted =
                cache.purges.change(|bans| bans.with(added.clone()).ok_or(PurgeError::TooMany))?;
            Ok((persisted, cache.forget(&added)))
        });
        let (persisted, memory) = adding.await.map_err(|_| PurgeError::ShuttingDown)??;
        self.start_sweep();
        let purges = Arc::clone(&self.purges);
        let waiting = async move { while purges.bans.load().count() > 0 && done.changed().await.is_ok() {} };
        // On the background runtime, which has timers.
        let waited = self.runtime.spawn(tokio::time::timeout(PATIENCE, waiting));
        let complete = waited.await.is_ok_and(|waited| waited.is_ok());
        Ok(Purged {
            memory,
            removed: count(&swept.removed) - before.0,
            marked: count(&swept.marked) - before.1,
            verified: count(&swept.verified) - before.2,
            complete,
            persisted,
            served_in_place: false,
        })
    }

    /// Forgets notes, and what a hard ban finds in memory; how many of the latter.
    fn forget(&self, ban: &Ban) -> u64 {
        let covered = |object: &Object| ban.scope.covers(&object.path);
        forget_notes(&self.renewed, covered);
        forget_notes(&self.heads, covered);
        forget_notes(&self.unshared, covered);
        // They are known by digests of path and query.
        self.refusals.clear();
        let hard = ban.mode == Mode::Hard;
        self.memory.remove_where(|object, meta| hard && covered(object) && meta.stored <= ban.since)
    }

    /// Sweeps behind the bans, unless that is under way.
    pub(super) fn start_sweep(self: &Arc<Self>) {
        if !self.purges.sweeping.swap(true, Ordering::AcqRel) {
            drop(self.runtime.spawn(Arc::clone(self).sweep()));
        }
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            while self.purges.count() > 0 && !self.closing.load(Ordering::Relaxed) {
                let bans = self.purges.bans.load_full();
                let landed = self.purges.landed_before(bans.newest());
                let (cache, walked) = (Arc::clone(&self), Arc::clone(&bans));
                let walking = self.runtime.spawn_blocking(move || cache.walk(&walked, landed));
                match walking.await.map_err(io::Error::other).flatten() {
                    Err(_) => tokio::time::sleep(RETRY).await,
                    // Flights from before are still under way: what they commit is swept once they have landed.
                    Ok(()) if !landed => {
                        while !self.purges.landed_before(bans.newest())
                            && !self.closing.load(Ordering::Relaxed)
                        {
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                    Ok(()) => {}
                }
            }
            self.purges.sweeping.store(false, Ordering::Release);
            // One may have come just now, and found this sweep under way.
            let more = self.purges.count() > 0 && !self.closing.load(Ordering::Relaxed);
            if !more || self.purges.sweeping.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }

    /// Carries the bans out on disk and in memory, and drops them where nothing can come after (blocking).
    fn walk(&self, bans: &Bans, landed: bool) -> io::Result<()> {
        let now = clock::now();
        let walked = self.disk.walk(|found| {
            if self.sweep_entry(bans, &found.key, now).is_err() {
                self.counters.io_errors.fetch_add(1, Ordering::Relaxed);
            }
            !self.closing.load(Ordering::Relaxed)
        });
        walked.inspect_err(|_| {
            self.counters.io_errors.fetch_add(1, Ordering::Relaxed);
        })?;
        if landed && !self.closing.load(Ordering::Relaxed) {
            self.memory.remove_where(|object, meta| bans.verdict(&object.path, meta.stored, now).is_some());
            let dropped: Result<bool, std::convert::Infallible> =
                self.purges.change(|all| Ok(all.without(bans)));
            let _ = dropped;
        }
        Ok(())
    }

    fn sweep_entry(&self, bans: &Bans, key: &Key, now: Timestamp) -> io::Result<()> {
        let Some(entry) = self.disk.described(key)? else { return Ok(()) };
        let Described { object, stored, sha256, length, file } = entry;
        let swept = &self.purges.swept;
        // Parts aren't worth more than to be removed.
        let verdict = bans.verdict(&object.path, stored, now);
        let verdict = if sha256.is_none() { verdict.and(Some(Mode::Hard)) } else { verdict };
        let counter = match (verdict, &object.identity) {
            (None, _) => return Ok(()),
            (Some(Mode::Hard), _) => {
                self.memory.remove(&object);
                self.drop_entry(&object);
                self.counters.purged.fetch_add(1, Ordering::Relaxed);
                &swept.removed
            }
            (Some(Mode::Soft), None) => {
                mark(&file)?;
                &swept.marked
            }
            (Some(Mode::Soft), Some(_)) if digest(Algorithm::Sha256, &file, length)?.sha256() == sha256 => {
                &swept.verified
            }
            (Some(Mode::Soft), Some(_)) => {
                self.damaged(&object);
                &swept.removed
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn forget_notes<V: Clone + Send + Sync + 'static>(
    notes: &Moka<Object, V>,
    covered: impl Fn(&Object) -> bool,
) {
    for (object, _) in notes.iter().filter(|(object, _)| covered(object)) {
        notes.invalidate(&*object);
    }
}

/// An entry is never changed, but its date of modification says nothing otherwise: at this one it was purged softly.
const MARK: std::time::SystemTime = std::time::SystemTime::UNIX_EPOCH;

fn mark(file: &File) -> io::Result<()> {
    file.set_times(fs::FileTimes::new().set_modified(MARK))
}

fn is_marked(file: &File) -> bool {
    // A verification writes into the nanoseconds.
    file.metadata().is_ok_and(|metadata| metadata.mtime() == 0)
}
