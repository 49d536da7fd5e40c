//! One flight per object: the lookup, revalidation or fill that all who ask at the same time share.

use super::FetchError;
use super::demand::Demand;
use super::memory::Cached;
use super::object::{Content, Meta, Object, Source, Tier};
use super::surplus::Accounts;
use super::tail::{Progress, Tail};
use super::wants::Wants;
use crate::clock::Timestamp;
use crate::shares::Owner;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// For fills to put away what they have when the node goes down.
const PUT_AWAY: Duration = Duration::from_secs(2);

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
    /// What was here has been put away: ask anew.
    Again,
}

/// A fill under way.
#[derive(Clone)]
pub(super) struct Filling {
    pub(super) meta: Arc<Meta>,
    pub(super) file: Arc<File>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) wants: Arc<Wants>,
    /// Where the bytes come from.
    pub(super) tier: Tier,
    /// Whom parts are charged to; `None` where the origin isn't asked.
    pub(super) surplus: Option<Accounts>,
}

impl Filling {
    /// Whether it is an answer that is whole and that was stale when it came: whoever asks from now on is due another one (RFC
    /// 9111 4). What is still arriving is shared by all who ask meanwhile.
    pub(super) fn is_past(&self, now: Timestamp) -> bool {
        now >= self.meta.fresh_until && self.progress.borrow().is_whole(self.meta.length)
    }

    pub(super) fn content(&self) -> Content {
        let (file, progress, wants) =
            (Arc::clone(&self.file), self.progress.clone(), Arc::clone(&self.wants));
        let tail = Tail::new(file, progress, wants, self.surplus.clone());
        Content { meta: Arc::clone(&self.meta), source: Source::Growing(tail), tier: self.tier, stale: false }
    }
}

struct Flight {
    /// No receiver is the map's own: those there are wait.
    stage: watch::Sender<Stage>,
    /// The first that was told, or an earlier class that came later.
    demand: watch::Sender<Demand>,
    /// Once its task is spawned.
    abort: Option<AbortHandle>,
}

/// All flights. The lock is held for a look into the map only.
#[derive(Default)]
pub(super) struct Flights {
    by_object: Mutex<HashMap<Object, Flight>>,
    /// Spares requests the lock while nothing is under way.
    running: AtomicUsize,
    closed: watch::Sender<bool>,
    landed: watch::Sender<()>,
}

/// The task's end of a flight. However the task ends, the flight leaves the map.
pub(super) struct Course {
    // Dropped in this order: who learns that the stage changes no more finds the flight gone.
    leave: Leave,
    stage: watch::Sender<Stage>,
    demand: watch::Receiver<Demand>,
    behind: bool,
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

    /// Whether anybody waits to be told of a stage.
    pub(super) fn is_awaited(&self) -> bool {
        self.stage.receiver_count() > 0
    }

    /// It goes on behind the answer that it has offered.
    pub(super) fn goes_on_behind(&mut self) {
        self.behind = true;
    }

    /// Returns once no request waits for a stage; never where it goes on behind.
    pub(super) async fn deserted(&self) {
        if self.behind {
            return std::future::pending().await;
        }
        self.stage.closed().await;
    }

    /// For whom it is, by the most important of those who have asked.
    pub(super) fn demand(&self) -> watch::Receiver<Demand> {
        self.demand.clone()
    }

    /// Lets nobody join any more, unless somebody waits or `is_read`: whoever asks from now on waits for the end.
    pub(super) fn withdraws_unless(&self, is_read: impl FnOnce() -> bool) -> bool {
        let _flights = self.leave.flights.lock();
        let withdraws = !self.is_awaited() && !is_read();
        if withdraws {
            self.stage.send_replace(Stage::Waiting);
        }
        withdraws
    }

    /// Returns once the node is going down.
    pub(super) async fn closing(&self) {
        let mut closed = self.leave.flights.closed.subscribe();
        // Fails only without the sender, which is in the flights.
        let _ = closed.wait_for(|closed| *closed).await;
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
    /// The flight of `object`, or the one that `launch` starts; `None` once closed. A flight waits for its place as the request that
    /// has the best claim to one: of an earlier class, or of a network that holds fewer places by `held`.
    pub(super) fn join(
        self: &Arc<Self>,
        object: &Object,
        demand: Demand,
        held: impl Fn(Owner) -> u64,
        launch: impl FnOnce(Course) -> AbortHandle,
    ) -> Option<watch::Receiver<Stage>> {
        let (sender, stage, demand) = {
            let mut flights = self.lock();
            if *self.closed.borrow() {
                return None;
            }
            match flights.entry(object.clone()) {
                Entry::Occupied(flight) => {
                    let flight = flight.get();
                    flight.demand.send_if_modified(|first| {
                        let is_poorer = || held(demand.owner) < held(first.owner);
                        let goes_first =
                            demand.class < first.class || (demand.class == first.class && is_poorer());
                        if goes_first {
                            *first = demand;
                        }
                        goes_first
                    });
                    return Some(flight.stage.subscribe());
                }
                Entry::Vacant(vacant) => {
                    let (sender, stage) = watch::channel(Stage::Waiting);
                    let (demand, demanded) = watch::channel(demand);
                    vacant.insert(Flight { stage: sender.clone(), demand, abort: None });
                    self.running.fetch_add(1, Ordering::Release);
                    (sender, stage, demanded)
                }
            }
        };
        // Not under the lock: a runtime that is going down drops the task, and thus `Leave`, at once.
        let leave = Leave { flights: Arc::clone(self), object: object.clone(), left: AtomicBool::new(false) };
        let abort = launch(Course { leave, stage: sender.clone(), demand, behind: false });
        let mut flights = self.lock();
        if *self.closed.borrow() {
            abort.abort();
        } else if let Some(flight) =
            flights.get_mut(object).filter(|flight| flight.stage.same_channel(&sender))
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

    /// Ends all flights and starts no more; returns once they have left. Fills get a moment to put away what they have.
    pub(super) async fn close(&self) {
        let mut landed = self.landed.subscribe();
        {
            let flights = self.lock();
            self.closed.send_replace(true);
            for flight in flights.values() {
                let is_filling = matches!(*flight.stage.borrow(), Stage::Filling(_));
                flight.abort.as_ref().filter(|_| !is_filling).inspect(|abort| abort.abort());
            }
        }
        let all_left = async { while self.running() > 0 && landed.changed().await.is_ok() {} };
        if tokio::time::timeout(PUT_AWAY, all_left).await.is_err() {
            self.lock().values().filter_map(|flight| flight.abort.as_ref()).for_each(AbortHandle::abort);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Object, Flight>> {
        self.by_object.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
