//! Asks a mirror for files: those of a check, side by side, and parts of some to be compared.

use super::Shared;
use super::client::{Failure, MirrorClient};
use super::families::Family;
use super::findings::Findings;
use super::judge::{self, File, Lapse, Missed};
use super::pace::Pace;
use crate::clock;
use crate::config::Repo;
use crate::http::ByteRange;
use crate::policy::Fault;
use crate::store::Comparison;
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

/// Of so many files of a check one is asked for over a connection of its own, and at each address.
const ONE_IN: usize = 8;
/// So many are asked for at each address: nearly every push is smaller.
const EVERYWHERE: usize = 64;
/// So many other files have to be right where the one that was wrong is gone.
const SETTLED_BY: usize = 4;
/// Requests to one mirror at a time.
pub(super) const LANES: usize = 4;

/// Whose probes they are.
#[derive(Clone)]
pub(super) struct Place {
    /// The mirror's number.
    pub(super) mirror: usize,
    pub(super) family: Family,
    /// Requests to the host at a time, over both families.
    pub(super) lanes: Arc<Semaphore>,
    /// How fast the host takes requests, over both families.
    pub(super) pace: Arc<Pace>,
}

/// One repo on one mirror.
pub(super) struct Asker {
    pub(super) shared: Arc<Shared>,
    pub(super) place: Place,
    /// The mirror's URL of the tree; ends in '/'.
    pub(super) base: String,
    pub(super) repo: Arc<Repo>,
    /// One client for each of the host's addresses, once something was asked.
    hosts: OnceCell<Vec<MirrorClient>>,
}

/// How fast a part came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transfer {
    pub(super) bytes: u64,
    pub(super) took: Duration,
}

/// What became of a comparison.
#[derive(Debug)]
pub(super) enum Compared {
    /// The part is right.
    Fits,
    /// Nothing speaks against it, but the node has nothing to compare it with.
    Unknown,
    /// The mirror doesn't answer ranges.
    NoRanges,
    /// It has other bytes.
    Differs(Doubt),
}

/// What a check found of wrong bytes.
#[derive(Debug)]
pub(super) enum Settled {
    /// Nothing new.
    No,
    /// What was doubted is right by now.
    Yes,
    /// These are wrong.
    Wrong(Doubt),
}

/// A part of a file that a mirror had wrong.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    pub(super) file: File,
    pub(super) part: ByteRange,
    /// What it should be: the node itself may have lost it when the mirror is asked again.
    pub(super) ours: Bytes,
}

impl Doubt {
    pub(super) fn missed(&self) -> Missed {
        missed(&self.file, &Failure::Bytes(self.part.start))
    }
}

/// A place on the mirror, then one among all probes. Held for one request only, and always taken in this order.
pub(super) async fn permits<'a>(
    lanes: &'a Semaphore,
    all: &'a Semaphore,
) -> Option<(SemaphorePermit<'a>, SemaphorePermit<'a>)> {
    Some((lanes.acquire().await.ok()?, all.acquire().await.ok()?))
}

impl Asker {
    pub(super) fn new(shared: Arc<Shared>, place: Place, base: String, repo: Arc<Repo>) -> Self {
        Self { shared, place, base, repo, hosts: OnceCell::new() }
    }

    /// HEADs what a check still has to ask. An error: the mirror gave no answer for that file that would say anything of it.
    pub(super) async fn all(&self, check: &Mutex<Findings>) -> Result<(), Missed> {
        const { assert!(LANES == 4, "one lane each below") };
        let stopped = AtomicBool::new(false);
        let lane = || self.lane(check, &stopped);
        let ended = tokio::join!(lane(), lane(), lane(), lane());
        [ended.0, ended.1, ended.2, ended.3].into_iter().collect()
    }

    async fn lane(&self, check: &Mutex<Findings>, stopped: &AtomicBool) -> Result<(), Missed> {
        while !stopped.load(Ordering::Relaxed) {
            let Some((number, file)) = lock(check).take() else { break };
            match self.head(&file, number).await {
                Ok(()) => lock(check).seen(number),
                Err(failure) if failure.is_transient() => {
                    lock(check).put_back(number);
                    if !self.place.pace.goes_on(&failure) {
                        // The other lanes stop at their next file.
                        stopped.store(true, Ordering::Relaxed);
                        return Err(missed(&file, &failure));
                    }
                }
                Err(failure) => {
                    let asks_origin = lock(check).asks_origin(&file);
                    let fault = if asks_origin { self.fault(&file).await } else { Fault::Mirror };
                    lock(check).missed(number, missed(&file, &failure), fault);
                }
            }
        }
        Ok(())
    }

    /// HEADs a file of a check, once the mirror takes requests again.
    async fn head(&self, file: &File, number: usize) -> Result<(), Failure> {
        // No client could ask for it either.
        let Some(url) = self.url(file) else { return Ok(()) };
        let hosts = self.hosts().await;
        let one_in_a_few = number.is_multiple_of(ONE_IN);
        if hosts.len() > 1 && (number < EVERYWHERE || one_in_a_few) {
            return self.head_at_each(&url, file.size).await;
        }
        let host = &hosts[number % hosts.len()];
        let fresh = one_in_a_few.then(|| host.fresh());
        self.paced(fresh.as_ref().unwrap_or(host).head(&url, file.size)).await
    }

    /// HEADs a file at each of the host's addresses. One that doesn't answer is passed over by clients while others do.
    async fn head_at_each(&self, url: &str, size: u64) -> Result<(), Failure> {
        let (mut answered, mut silent) = (false, None);
        for host in self.hosts().await {
            match self.paced(host.head(url, size)).await {
                Ok(()) => answered = true,
                Err(failure) if failure.is_down() => silent = Some(failure),
                Err(failure) => return Err(failure),
            }
        }
        silent.filter(|_| !answered).map_or(Ok(()), Err)
    }

    /// One request: waits until the mirror takes requests, and for its turn.
    async fn paced<T>(&self, request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.place.pace.ready().await;
        let _permits = permits(&self.place.lanes, &self.shared.permits).await;
        let answer = request.await;
        if answer.is_ok() {
            self.place.pace.note(None);
        }
        answer
    }

    /// HEADs a file that a client came back for, at each address: this doesn't queue behind a long check, nor wait for a busy
    /// mirror.
    pub(super) async fn bounced(&self, file: &File) -> Result<(), Failure> {
        let Some(url) = self.url(file) else { return Ok(()) };
        let (mut answered, mut silent) = (false, None);
        for host in self.hosts().await {
            match host.head(&url, file.size).await {
                Ok(()) => answered = true,
                Err(failure) if failure.is_down() => silent = Some(failure),
                Err(failure) => return Err(failure),
            }
        }
        silent.filter(|_| !answered).map_or(Ok(()), Err)
    }

    async fn hosts(&self) -> &[MirrorClient] {
        let shared = self.shared.client(self.place.family);
        self.hosts.get_or_init(|| shared.apart(&self.base)).await
    }

    /// Whether the origin lacks a file, too, that the mirror hasn't as it is listed.
    async fn fault(&self, file: &File) -> Fault {
        let (Some(digest), Ok(path)) = (file.digest, self.repo.file(&file.path)) else {
            return Fault::Mirror;
        };
        if (self.shared.known.lacking)(path, digest, file.size).await { Fault::Origin } else { Fault::Mirror }
    }

    /// What it means that a file that was proven is missing now: whether others are as well.
    pub(super) async fn lapse(&self, missed: Missed, file: &File, witnesses: &[File]) -> Lapse {
        if missed.transient {
            return Lapse { missed, fault: Fault::Mirror, more: false };
        }
        let fault = self.fault(file).await;
        for witness in witnesses {
            let is_silent = |failure: &Failure| failure.is_down() || matches!(failure, Failure::Busy { .. });
            if self.bounced(witness).await.is_err_and(|failure| !is_silent(&failure)) {
                return Lapse { missed, fault, more: true };
            }
        }
        Lapse { missed, fault, more: false }
    }

    /// Asks for a part, and holds it against what the node itself has of the file, where it has it at hand.
    /// Also how many bytes came, and how long the mirror took.
    pub(super) async fn compare(&self, file: File, part: ByteRange) -> (Result<Compared, Missed>, Transfer) {
        let (theirs, transfer) = self.timed_part(self.any_host().await, &file, part).await;
        (self.hold_against(file, part, theirs).await, transfer)
    }

    async fn hold_against(
        &self,
        file: File,
        part: ByteRange,
        theirs: Result<Option<Bytes>, Missed>,
    ) -> Result<Compared, Missed> {
        let Some(theirs) = theirs? else { return Ok(Compared::NoRanges) };
        let ours = match (file.digest, self.repo.file(&file.path)) {
            (Some(digest), Ok(path)) => (self.shared.known.ours)(path, digest, file.size, part, theirs).await,
            _ => Comparison::Unknown,
        };
        Ok(match ours {
            Comparison::Differs(ours) => Compared::Differs(Doubt { file, part, ours }),
            Comparison::Same => Compared::Fits,
            Comparison::Unknown => Compared::Unknown,
        })
    }

    /// Whether a mirror that had wrong bytes has right ones now: the very part, at each address. Where it has deleted that file,
    /// which `others` no longer have among them, a few of these stand for it, if the node can compare them.
    pub(super) async fn settle(&self, doubt: &Doubt, others: Vec<File>) -> Result<(), Missed> {
        for host in self.hosts().await {
            match self.timed_part(host, &doubt.file, doubt.part).await.0 {
                Ok(Some(theirs)) if theirs == doubt.ours => {}
                // That name is listed with other bytes by now.
                Ok(Some(_)) if others.iter().any(|file| file.path == doubt.file.path) => {
                    return self.stand_for(doubt, others).await;
                }
                Ok(Some(_)) => return Err(doubt.missed()),
                Ok(None) => {
                    let why = "had other bytes than listed, and answers no ranges now".to_owned();
                    return Err(Missed { why, ..doubt.missed() });
                }
                Err(missed) if missed.transient || others.is_empty() => return Err(missed),
                Err(_) => return self.stand_for(doubt, others).await,
            }
        }
        Ok(())
    }

    async fn stand_for(&self, doubt: &Doubt, others: Vec<File>) -> Result<(), Missed> {
        let mut right = 0;
        for file in others {
            match self.compare_some(file).await? {
                Compared::Fits => right += 1,
                Compared::Differs(other) => return Err(other.missed()),
                Compared::Unknown | Compared::NoRanges => {}
            }
            if right == SETTLED_BY {
                return Ok(());
            }
        }
        let why =
            format!("had other bytes than listed, and only {right} other files could be compared since");
        Err(Missed { why, ..doubt.missed() })
    }

    /// Compares a part of a file, at random.
    pub(super) async fn compare_some(&self, file: File) -> Result<Compared, Missed> {
        let part = judge::sample(&file, judge::SAMPLE_BYTES, &mut fastrand::Rng::new());
        self.compare(file, part).await.0
    }

    async fn any_host(&self) -> &MirrorClient {
        let hosts = self.hosts().await;
        &hosts[fastrand::usize(..hosts.len())]
    }

    /// A part, `None` where the mirror answers no ranges; and how fast it came.
    async fn timed_part(
        &self,
        host: &MirrorClient,
        file: &File,
        part: ByteRange,
    ) -> (Result<Option<Bytes>, Missed>, Transfer) {
        let Some(url) = self.url(file) else { return (Ok(None), Transfer::default()) };
        let _permits = permits(&self.place.lanes, &self.shared.permits).await;
        let (begun, received) = (clock::monotonic(), AtomicU64::new(0));
        let answer = host.part(&url, file.size, part, &received).await;
        self.place.pace.note(answer.as_ref().err());
        let transfer = Transfer { bytes: received.into_inner(), took: begun.elapsed() };
        (answer.map_err(|failure| missed(file, &failure)), transfer)
    }

    /// None for a path that no client could ask for either.
    fn url(&self, file: &File) -> Option<String> {
        Some(self.base.clone() + &self.repo.file(&file.path).ok()?.encoded())
    }
}

/// The findings of a check; nothing panics while it holds them.
pub(super) fn lock(check: &Mutex<Findings>) -> MutexGuard<'_, Findings> {
    check.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missed(file: &File, failure: &Failure) -> Missed {
    Missed { path: file.path.clone(), why: failure.of_file(), transient: failure.is_transient() }
}
