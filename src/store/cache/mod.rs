//! The store over an HTTP origin: memory tier, disk tier, fills.
//!
//! All IO happens on the background runtime and its blocking pool; callers on any runtime wait on channels.

mod apart;
mod course;
mod head;
mod kept;
mod look;
mod proof;
mod purge;
mod renew;

use super::demand::{Class, Demand};
use super::disk::{Disk, Draft, Key, Look, Seal, Suspect, Trust, overhead_bytes};
use super::evict::{Evictor, Index, Reservation};
use super::fill::{Fill, First, Outcome, Pumped, Room, STEP_BYTES};
use super::flight::{Course, Filling, Flights, Stage};
use super::gate::Gate;
use super::memory::{Body, Cached, Memory};
use super::object::{Content, FOREVER, Facts, Meta, Object, Source, Tier, etag};
use super::places::{Place, Places};
use super::refusals::Refusals;
use super::spans::Spans;
use super::surplus::{Accounts, Surplus};
use super::tail::{End, Progress};
use super::wants::Wants;
use super::{Counters, DiskTrouble, FetchError, FillError, Interest, PassBody, Settings};
use crate::clock::{self, Timestamp};
use crate::http::freshness::{self, Exchange, Storage, Terms};
use crate::http::{ByteRange, Fields, content_type, date};
use crate::origin::Version;
use crate::origin::http::{Answer, Ask, Response};
use crate::origin::{HttpOrigin, MAX_OBJECT_BYTES, OriginError};
use crate::repo::Sha256;
use head::Head;
use hyper::header::{self, HeaderMap, HeaderValue};
use look::Held;
use moka::sync::Cache as Moka;
use purge::Purges;
use rustix::io::Errno;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

/// Small notes about objects (renewals, heads, what isn't to be shared): bytes of each kind, by [`note_bytes`].
const MAX_NOTES_BYTES: u64 = 24 * 1024 * 1024;

/// HEADs that the origin is asked at once.
const MAX_HEADS: usize = 16;
/// Of these, those for pushes alone, and those for what repos list.
const HEADS_RESERVED: (usize, usize) = (4, 4);
/// Of fills, revalidations and passes: one in so many is for pushes alone, and one in so many for what repos list.
const RESERVED: (usize, usize) = (16, 4);
const MIB: u64 = 1024 * 1024;
/// While the disk refuses to store, so much is filled in memory, as a share of the memory tier's bound.
const UNSTORED: u64 = 4;
/// How long the disk gets to note the orderly end.
const CLOSING: Duration = Duration::from_secs(5);

/// A cache of an HTTP origin.
pub(super) struct Cache {
    pub(super) origin: Arc<HttpOrigin>,
    pub(super) disk: Arc<Disk>,
    pub(super) evictor: Evictor,
    memory: Memory,
    flights: Arc<Flights>,
    pub(super) refusals: Refusals,
    purges: Arc<Purges>,
    /// Revalidated since they were written to disk.
    renewed: Moka<Object, Arc<Meta>>,
    /// The origin said that they are not to be shared: the next ones don't even wait for each other.
    unshared: Moka<Object, ()>,
    heads: Moka<Object, Head>,
    heads_out: Places,
    pub(super) fills: Places,
    /// Apart, since what is stale here must not wait for what is cold; a changed object's fill keeps its place.
    revalidations: Places,
    passes: Places,
    pub(super) gate: Arc<Gate>,
    /// What parts cost the origin beyond what is read of them.
    pub(super) surplus: Accounts,
    /// MiB that may be filled in memory while the disk refuses to store.
    pub(super) unstored_mib: Arc<Semaphore>,
    closing: Arc<AtomicBool>,
    pub(super) counters: Arc<Counters>,
    pub(super) settings: Settings,
    pub(super) runtime: Handle,
}

impl Cache {
    /// Blocks: opens the disk tier. Loading its index goes on behind.
    pub(super) fn open(
        origin: Arc<HttpOrigin>,
        settings: &Settings,
        memory: Memory,
        counters: Arc<Counters>,
        runtime: &Handle,
    ) -> io::Result<Arc<Self>> {
        let disk = Arc::new(Disk::open(&settings.disk, origin.id().to_owned())?);
        let evictor = Evictor {
            index: Arc::new(Index::new(settings.disk_bytes)),
            disk: Arc::clone(&disk),
            counters: Arc::clone(&counters),
            trouble: Arc::default(),
            pool: runtime.clone(),
        };
        let cache = Arc::new(Self {
            origin,
            disk,
            evictor,
            memory,
            flights: Arc::default(),
            refusals: Refusals::new(settings.absent_for, settings.failed_for),
            purges: Purges::load(&settings.disk),
            renewed: notes(None, |meta| meta.fields.bytes()),
            unshared: notes(Some(settings.revalidate), |()| 0),
            heads: notes(Some(settings.absent_for), |head| head.meta.fields.bytes()),
            heads_out: Places::new(MAX_HEADS, HEADS_RESERVED.0, HEADS_RESERVED.1),
            fills: places(settings.max_fills),
            revalidations: places(settings.max_fills),
            passes: places(settings.max_passes),
            gate: Arc::default(),
            surplus: Arc::new(Mutex::new(Surplus::new(clock::monotonic()))),
            unstored_mib: Arc::new(Semaphore::new(unstored_mib(settings.memory_bytes))),
            closing: Arc::default(),
            counters,
            settings: settings.clone(),
            runtime: runtime.clone(),
        });
        let loading = Arc::clone(&cache);
        drop(runtime.spawn_blocking(move || loading.evictor.load(&loading.closing)));
        if cache.purges.count() > 0 {
            cache.start_sweep();
        }
        cache.verify_behind();
        Ok(cache)
    }

    pub(super) fn peek(&self, object: &Object) -> Option<Content> {
        if let Some(cached) = self.memory.find(object)
            && let Some(cached) = self.unpurged(object, cached)
        {
            return Some(cached.content(Tier::Disk));
        }
        let filling = self.flights.filling(object)?;
        let joins = !filling.is_past(clock::now()) && self.purges.verdict(object, &filling.meta).is_none();
        joins.then(|| filling.content())
    }

    /// Whether an open entry is still the one whose bytes were verified; else it isn't at hand any more.
    pub(super) fn stands(&self, object: &Object) -> bool {
        self.memory.stands(object)
    }

    pub(super) async fn find(self: &Arc<Self>, object: &Object) -> Option<Content> {
        match self.peek(object) {
            None => match self.look(object).await {
                Held::Entry(cached) => Some(cached.content(Tier::Disk)),
                Held::Suspect(_) | Held::Nothing => None,
            },
            found => found,
        }
    }

    pub(super) async fn fetch(
        self: &Arc<Self>,
        object: &Object,
        interest: Interest,
        demand: Demand,
    ) -> Result<Content, FetchError> {
        loop {
            if let Some(content) = self.peek(object)
                && content.is_fresh(clock::now())
                && self.memory.stands(object)
            {
                return Ok(interest.begin(content));
            }
            if let Some(refusal) = self.refusals.find(object) {
                // A refusal hides nothing that is here.
                return match self.find(object).await {
                    Some(content) if content.is_fresh(clock::now()) => Ok(interest.begin(content)),
                    Some(content) if !refusal.is_answer() && self.covers(&content.meta) => {
                        Ok(Content { stale: true, ..content })
                    }
                    _ => Err(refusal),
                };
            }
            if self.unshared.contains_key(object) {
                return self.apart(object, interest, demand).await;
            }
            let mut is_own = false;
            let launch = |course| {
                is_own = true;
                let departure = self.purges.departs(clock::now());
                let flight = Arc::clone(self).fly(object.clone(), interest, course);
                let flying = async move {
                    flight.await;
                    drop(departure);
                };
                self.runtime.spawn(flying).abort_handle()
            };
            let held = |owner| self.fills.held_by(owner);
            let mut stage =
                self.flights.join(object, demand, held, launch).ok_or(FetchError::ShuttingDown)?;
            let is_past = !is_own
                && matches!(&*stage.borrow(), Stage::Filling(filling) if filling.is_past(clock::now()));
            if is_past {
                // Fails once the flight is gone, or goes on otherwise: either way the origin is asked anew.
                let _ = stage.wait_for(|stage| !matches!(stage, Stage::Filling(_))).await;
                continue;
            }
            let landed = stage.wait_for(|stage| !matches!(stage, Stage::Waiting)).await.map(|s| s.clone());
            return match landed {
                Ok(Stage::Again) => continue,
                // What began before a purge goes on for those who follow it, but not for others.
                Ok(Stage::Filling(filling)) if self.purges.verdict(object, &filling.meta).is_some() => {
                    self.apart(object, interest, demand).await
                }
                Ok(Stage::Filling(filling)) => Ok(interest.begin(filling.content())),
                Ok(Stage::Ready { cached, stale }) => Ok(Content { stale, ..cached.content(Tier::Disk) }),
                Ok(Stage::Failed(error)) => Err(error),
                Ok(Stage::Unshared(slot)) => {
                    let taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                    match taken {
                        Some(content) => Ok(content),
                        None => self.apart(object, interest, demand).await,
                    }
                }
                Ok(Stage::Waiting) | Err(_) => Err(FetchError::ShuttingDown),
            };
        }
    }

    /// Removes an object and all notes about it; whether it was there.
    pub(super) async fn purge(self: &Arc<Self>, object: &Object) -> bool {
        self.refusals.forget(object);
        self.unshared.invalidate(object);
        self.discard(object).await
    }

    /// Removes an object from all tiers; whether it was there. What the origin refused stays refused.
    pub(super) async fn discard(self: &Arc<Self>, object: &Object) -> bool {
        self.memory.remove(object);
        self.renewed.invalidate(object);
        self.heads.invalidate(object);
        let (cache, object) = (Arc::clone(self), object.clone());
        let removing = move || {
            let there = matches!(
                cache.disk.look(&object, Trust::Epoch),
                Ok(Look::Found(_) | Look::Suspect(_) | Look::Damaged)
            );
            cache.drop_entry(&object);
            there
        };
        self.runtime.spawn_blocking(removing).await.unwrap_or(false)
    }

    /// An open handle gave less than it should, or none: removes the object from all tiers. The first who finds that
    /// out counts it.
    pub(super) async fn give_up(self: &Arc<Self>, object: &Object) {
        let was_open = self.memory.find(object).is_some();
        if self.discard(object).await || was_open {
            self.counters.damaged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Why new objects may not be stored, if so.
    pub(super) fn disk_trouble(&self) -> Option<DiskTrouble> {
        self.evictor.trouble.current()
    }

    pub(super) async fn shutdown(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let (flights, disk) = (Arc::clone(&self.flights), Arc::clone(&self.disk));
        let closing = self.runtime.spawn(async move {
            flights.close().await;
            // A disk that hangs doesn't hold the process up: it wasn't an orderly end then.
            tokio::time::timeout(CLOSING, tokio::task::spawn_blocking(move || disk.close())).await
        });
        if let Ok(Ok(Ok(Err(error)))) = closing.await {
            tracing::warn!("the cache's disk: {error}: entries are verified if the machine is restarted");
        }
    }

    pub(super) fn fills_running(&self) -> u64 {
        self.flights.running() as u64
    }

    /// Purges whose sweep isn't through.
    pub(super) fn bans(&self) -> u64 {
        self.purges.count() as u64
    }

    /// Objects and bytes on disk.
    pub(super) fn figures(&self) -> (u64, u64) {
        self.evictor.index.figures()
    }

    /// What an entry says of its object, or what the origin has said since.
    fn current(&self, object: &Object, meta: Meta) -> Meta {
        match self.renewed.get(object) {
            Some(renewed) if renewed.stored == meta.stored => Meta::clone(&renewed),
            _ => meta,
        }
    }

    /// Counts an entry that the disk doesn't give back, and removes it where that is the entry's fault.
    fn unreadable(&self, object: &Object, error: &io::Error) {
        self.evictor.trouble.begins(&self.counters, &error.to_string(), clock::now());
        // Bad blocks stay bad, and a directory that lost its file doesn't find it. Too many open files say nothing.
        if matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::UCLEAN)) {
            self.memory.remove(object);
            self.drop_entry(object);
        }
    }

    /// Counts and removes an entry that doesn't verify.
    fn damaged(&self, object: &Object) {
        tracing::warn!(path = %object.path, "a cached file isn't what was stored: it is dropped, and fetched anew when it is wanted");
        self.counters.damaged.fetch_add(1, Ordering::Relaxed);
        self.memory.remove(object);
        self.drop_entry(object);
    }

    fn drop_entry(&self, object: &Object) {
        let key = self.disk.key(object);
        if self.disk.remove(&key).is_err() {
            self.counters.io_errors.fetch_add(1, Ordering::Relaxed);
        }
        // In this order: who has just found it notes it before this, or sees that it is gone.
        self.evictor.index.forget(&key);
    }

    fn refuse(&self, object: &Object, error: OriginError) -> FetchError {
        let refusal = FetchError::from(error);
        self.refusals.note(object, refusal.clone());
        refusal
    }

    async fn ask(self: &Arc<Self>, object: &Object, ask: Ask) -> Result<Response, FetchError> {
        let (origin, asked) = (Arc::clone(&self.origin), object.clone());
        let asking = async move { origin.get(&asked.path, asked.query.as_deref(), ask, asked.size()).await };
        match self.runtime.spawn(asking).await.map_err(|_| FetchError::ShuttingDown)? {
            Ok(Answer::Body(response)) => Ok(*response),
            Ok(Answer::NotModified(_)) => Err(OriginError::Status(hyper::StatusCode::NOT_MODIFIED).into()),
            // That it gives no ranges says nothing about the object.
            Ok(Answer::Whole(_)) | Err(OriginError::RangeIgnored) => Err(OriginError::RangeIgnored.into()),
            Err(error) => Err(self.refuse(object, error)),
        }
    }

    /// Whether what is stale may be used although the origin gave no usable answer.
    fn covers(&self, meta: &Meta) -> bool {
        let (settings, now) = (&self.settings, clock::now());
        meta.terms.may_cover_error(settings.stale_if_error, now)
            || meta.terms.may_revalidate_behind(settings.stale_while_revalidate, now)
    }
}

fn places(units: usize) -> Places {
    Places::new(units, units / RESERVED.0, units / RESERVED.1)
}

fn unstored_mib(memory_bytes: u64) -> usize {
    usize::try_from(memory_bytes / UNSTORED / MIB).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

/// What a response's header fields and the catalogue say of an object.
fn meta(object: &Object, headers: &HeaderMap, length: Option<u64>, terms: Terms) -> Meta {
    let last_modified = headers.get(header::LAST_MODIFIED).and_then(date::parse);
    let stated = headers.get(header::CONTENT_TYPE);
    let (length, etag, fresh_until, fields) = match object.identity {
        Some(listed) => (Some(listed.size), Some(etag(&listed.digest)), FOREVER, Fields::default()),
        None => {
            let fields = Fields::of(headers, clock::date());
            (length, headers.get(header::ETAG).cloned(), terms.fresh_until(), fields)
        }
    };
    Meta::new(Facts {
        length,
        etag,
        last_modified,
        content_type: type_of(object, stated),
        sha256: object.identity.and_then(|listed| listed.digest.sha256()),
        listed: object.identity.map(|listed| listed.digest),
        stored: terms.confirmed,
        fresh_until,
        terms,
        fields,
    })
}

/// Of what is not stored: only its age is of interest, which caches before this one may have told.
fn passing_terms(headers: &HeaderMap, received: Timestamp) -> Terms {
    Terms { initial_age: freshness::stated_age(headers), ..Terms::none(received) }
}

/// Of what is listed by name, the same on all nodes; else as the origin says.
fn type_of(object: &Object, stated: Option<&HeaderValue>) -> HeaderValue {
    stated.filter(|_| object.identity.is_none()).cloned().unwrap_or_else(|| content_type::of(&object.path))
}

fn notes<V: Clone + Send + Sync + 'static>(
    lifetime: Option<Duration>,
    bytes: fn(&V) -> usize,
) -> Moka<Object, V> {
    let weigh = move |object: &Object, note: &V| note_bytes(object, bytes(note));
    let notes = Moka::builder().max_capacity(MAX_NOTES_BYTES).weigher(weigh);
    match lifetime {
        Some(lifetime) => notes.time_to_live(lifetime).build(),
        None => notes.build(),
    }
}

/// What a note takes, roughly, with its content of `bytes`: beside that, its path and query are all that clients choose.
fn note_bytes(object: &Object, bytes: usize) -> u32 {
    u32::try_from(object.name().len() + bytes).unwrap_or(u32::MAX).saturating_add(512)
}
