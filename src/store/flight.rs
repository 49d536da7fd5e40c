//! One flight per object: the lookup, revalidation or fill that all who ask at the same time share.

use super::FetchError;
use super::memory::Cached;
use super::object::{Content, Meta, Object, Source, Tier};
use super::tail::{Progress, Tail};
use crate::origin::Version;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What those who wait for a flight are told.
#[derive(Clone)]
pub(super) enum Stage {
    /// The head isn't known yet.
    Waiting,
    /// The body is arriving.
    Filling(Filling),
    /// It is here: found on disk, renewed, or stale while the origin is down.
    Ready { cached: Cached, stale: bool },
    /// Not to be shared: one takes the content, the others ask for themselves.
    Unshared(Arc<Mutex<Option<Content>>>),
    /// No bytes.
    Failed(FetchError),
}

/// A fill under way.
#[derive(Clone)]
pub(super) struct Filling {
    pub(super) meta: Arc<Meta>,
    pub(super) file: Arc<File>,
    pub(super) progress: watch::Receiver<Progress>,
    /// The origin's own name for these bytes.
    pub(super) version: Option<Version>,
}

impl Filling {
    pub(super) fn content(&self) -> Content {
        let tail = Tail::new(Arc::clone(&self.file), self.progress.clone());
        Content {
            meta: Arc::clone(&self.meta),
            source: Source::Growing(tail),
            tier: Tier::Fill,
            stale: false,
        }
    }
}

struct Flight {
    stage: watch::Receiver<Stage>,
    /// Once its task is spawned.
    abort: Option<AbortHandle>,
}

/// All flights. The lock is held for a look into the map only.
#[derive(Default)]
pub(super) struct Flights {
    by_object: Mutex<HashMap<Object, Flight>>,
    /// Spares requests the lock while nothing is under way.
    running: AtomicUsize,
    closed: AtomicBool,
    landed: watch::Sender<()>,
}

/// The task's end of a flight. However the task ends, the flight leaves the map.
pub(super) struct Course {
    stage: watch::Sender<Stage>,
    leave: Leave,
}

impl Course {
    /// The body arrives: whoever asks now follows it.
    pub(super) fn fill(&self, filling: Filling) {
        self.stage.send_replace(Stage::Filling(filling));
    }

    /// Something for whoever asks until the flight gets further.
    pub(super) fn offer(&self, outcome: Stage) {
        self.stage.send_replace(outcome);
    }

    /// Whether anybody follows the fill, or is about to.
    pub(super) fn is_followed(&self, progress: &watch::Sender<Progress>) -> bool {
        // One of each is the map's own. In this order: who waits for the stage becomes who follows the progress.
        self.stage.receiver_count() > 1 || progress.receiver_count() > 1
    }

    /// Leaves, unless somebody follows; nobody joins in between.
    pub(super) fn leave_unless_followed(&self, progress: &watch::Sender<Progress>) -> bool {
        let mut flights = self.leave.flights.lock();
        let leaves = !self.is_followed(progress);
        if leaves {
            self.leave.leave(&mut flights);
        }
        leaves
    }

    /// Leaves, then tells those who wait: an outcome is not for whoever asks after it.
    pub(super) fn land(self, outcome: Stage) {
        drop(self.leave);
        self.stage.send_replace(outcome);
    }
}

struct Leave {
    flights: Arc<Flights>,
    object: Object,
    /// The map may hold the next flight of the object by now.
    left: AtomicBool,
}

impl Leave {
    fn leave(&self, by_object: &mut HashMap<Object, Flight>) {
        if !self.left.swap(true, Ordering::Relaxed) && by_object.remove(&self.object).is_some() {
            self.flights.running.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.leave(&mut self.flights.lock());
        self.flights.landed.send_replace(());
    }
}

impl Flights {
    /// The flight of `object`, or the one that `launch` starts; `None` once closed.
    pub(super) fn join(
        self: &Arc<Self>,
        object: &Object,
        launch: impl FnOnce(Course) -> AbortHandle,
    ) -> Option<watch::Receiver<Stage>> {
        let sender = {
            let mut flights = self.lock();
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            match flights.entry(object.clone()) {
                Entry::Occupied(flight) => return Some(flight.get().stage.clone()),
                Entry::Vacant(vacant) => {
                    let (sender, stage) = watch::channel(Stage::Waiting);
                    vacant.insert(Flight { stage, abort: None });
                    self.running.fetch_add(1, Ordering::Release);
                    sender
                }
            }
        };
        let stage = sender.subscribe();
        // Not under the lock: a runtime that is going down drops the task, and thus `Leave`, at once.
        let leave = Leave { flights: Arc::clone(self), object: object.clone(), left: AtomicBool::new(false) };
        let abort = launch(Course { stage: sender, leave });
        let mut flights = self.lock();
        if self.closed.load(Ordering::Acquire) {
            abort.abort();
        } else if let Some(flight) =
            flights.get_mut(object).filter(|flight| flight.stage.same_channel(&stage))
        {
            flight.abort = Some(abort);
        }
        Some(stage)
    }

    /// The fill of `object`, if its head is known.
    pub(super) fn filling(&self, object: &Object) -> Option<Filling> {
        if self.running() == 0 {
            return None;
        }
        match &*self.lock().get(object)?.stage.borrow() {
            Stage::Filling(filling) => Some(filling.clone()),
            _ => None,
        }
    }

    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// Ends all flights and starts no more; returns once they have left.
    pub(super) async fn close(&self) {
        let mut landed = self.landed.subscribe();
        {
            let flights = self.lock();
            self.closed.store(true, Ordering::Release);
            flights.values().filter_map(|flight| flight.abort.as_ref()).for_each(AbortHandle::abort);
        }
        while self.running() > 0 && landed.changed().await.is_ok() {}
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Object, Flight>> {
        self.by_object.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
