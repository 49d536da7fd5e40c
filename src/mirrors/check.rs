//! Asks a mirror for files: those of a check, side by side, and parts of some to be compared.

use super::Shared;
use super::allowance::Allowance;
use super::client::{Failure, MirrorClient};
use super::families::Family;
use super::findings::Findings;
use super::hosts::{Clients, FRESH_ONE_IN, Hosts};
use super::judge::{self, File, Lapse, Missed};
use super::lanes::{LANES, Lanes};
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

/// So many files of a check are asked for at each address: nearly every push is smaller.
const EVERYWHERE: usize = 64;
/// So many other files have to be right where the one that was wrong is gone.
const SETTLED_BY: usize = 4;

/// Whose probes they are.
#[derive(Clone)]
pub(super) struct Place {
    /// The mirror's number.
    pub(super) mirror: usize,
    pub(super) family: Family,
    /// Requests to the host at a time, over both families.
    pub(super) lanes: Arc<Lanes>,
    /// How fast the host takes requests, over both families.
    pub(super) pace: Arc<Pace>,
    /// Its connections over this family.
    pub(super) hosts: Arc<Hosts>,
    /// What first proofs may compare, over both families.
    pub(super) allowance: Arc<Allowance>,
}

/// One repo on one mirror.
pub(super) struct Asker {
    pub(super) shared: Arc<Shared>,
    pub(super) place: Place,
    /// The mirror's URL of the tree; ends in '/'.
    pub(super) base: String,
    pub(super) repo: Arc<Repo>,
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

impl Asker {
    /// HEADs what a check still has to ask. An error: the mirror gave no answer for that file that would say anything of it.
    pub(super) async fn all(&self, check: &Mutex<Findings>) -> Result<(), Missed> {
        const { assert!(LANES == 4, "one lane each below") };
        let stopped = AtomicBool::new(false);
        let lane = || self.lane(check, &stopped);
        let ended = tokio::join!(lane(), lane(), lane(), lane());
        [ended.0, ended.1, ended.2, ended.3].into_iter().collect()
    }

    async fn lane(&self, check: &Mutex<Findings>, stopped: &AtomicBool) -> Result<(), Missed> {
        let is_push = lock(check).base().proof.is_some();
        while !stopped.load(Ordering::Relaxed) {
            let Some((number, file)) = lock(check).take() else { break };
            let is_fresh = self.place.hosts.is_turn() || (is_push && number.is_multiple_of(FRESH_ONE_IN));
            let answer = if is_fresh {
                self.head(&file, &self.fresh().await).await
            } else if number < EVERYWHERE {
                self.head(&file, &self.kept().await).await
            } else {
                self.head(&file, one_of(&self.kept().await)).await
            };
            match answer {
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

    /// HEADs a file at each of these addresses of the host, once the mirror takes requests. An address that doesn't answer is
    /// passed over by clients while another does.
    async fn head(&self, file: &File, hosts: &[MirrorClient]) -> Result<(), Failure> {
        // No client could ask for it either.
        let Some(url) = self.url(file) else { return Ok(()) };
        let mut answers = Answers::default();
        for host in hosts {
            answers.note(self.paced(|| host.head(&url, file.size)).await)?;
        }
        answers.result()
    }

    /// HEADs a file of a mirror that is back from an outage, at each address.
    pub(super) async fn sampled(&self, file: &File) -> Result<(), Failure> {
        let hosts = if self.place.hosts.is_turn() { self.fresh().await } else { self.kept().await };
        self.head(file, &hosts).await
    }

    /// One request: waits until the mirror takes requests, and for its turn. Tens of thousands wait so at a start: a request is
    /// made only once it may be sent.
    async fn paced<T, R>(&self, request: impl FnOnce() -> R) -> Result<T, Failure>
    where
        R: Future<Output = Result<T, Failure>>,
    {
        self.place.pace.ready().await;
        let answer = self.place.lanes.run(async { Box::pin(request()).await }).await;
        if answer.is_ok() {
            self.place.pace.note(None);
        }
        answer
    }

    /// HEADs a file that a client came back for, at each address, over fresh connections: this doesn't queue behind a long
    /// check, nor wait for a busy mirror.
    pub(super) async fn bounced(&self, file: &File) -> Result<(), Failure> {
        let Some(url) = self.url(file) else { return Ok(()) };
        let mut answers = Answers::default();
        for host in self.fresh().await.iter() {
            answers.note(host.head(&url, file.size).await)?;
        }
        answers.result()
    }

    /// The clients of the host's addresses that keep their connections.
    async fn kept(&self) -> Clients {
        self.place.hosts.kept(self.shared.client(self.place.family), &self.base).await
    }

    /// Those of which each request has a connection of its own.
    async fn fresh(&self) -> Clients {
        self.kept().await.iter().map(MirrorClient::fresh).collect()
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
        if !self.place.hosts.is_turn() {
            return self.compare_at(&one_of(&self.kept().await)[0], file, part).await;
        }
        let mut known = None;
        for host in self.fresh().await.iter() {
            let (compared, transfer) = self.compare_at(host, file.clone(), part).await;
            let is_right = matches!(compared, Ok(Compared::Fits | Compared::Unknown));
            let is_silent = compared.as_ref().is_err_and(|missed| missed.transient);
            if !is_right && !is_silent {
                return (compared, transfer);
            }
            if is_right || known.is_none() {
                known = Some((compared, transfer));
            }
        }
        known.unwrap_or((Ok(Compared::Unknown), Transfer::default()))
    }

    async fn compare_at(
        &self,
        host: &MirrorClient,
        file: File,
        part: ByteRange,
    ) -> (Result<Compared, Missed>, Transfer) {
        let (theirs, transfer) = self.timed_part(host, &file, part).await;
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

    /// Whether a mirror that had wrong bytes has right ones now: the very part, at each address, over fresh connections. Where it has deleted that file,
    /// which `others` no longer have among them, a few of these stand for it, if the node can compare them.
    pub(super) async fn settle(&self, doubt: &Doubt, others: Vec<File>) -> Result<(), Missed> {
        for host in self.fresh().await.iter() {
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

    /// A part, `None` where the mirror answers no ranges; and how fast it came.
    async fn timed_part(
        &self,
        host: &MirrorClient,
        file: &File,
        part: ByteRange,
    ) -> (Result<Option<Bytes>, Missed>, Transfer) {
        let Some(url) = self.url(file) else { return (Ok(None), Transfer::default()) };
        let timed = async {
            let (begun, received) = (clock::monotonic(), AtomicU64::new(0));
            let answer = Box::pin(host.part(&url, file.size, part, &received)).await;
            (answer, Transfer { bytes: received.into_inner(), took: begun.elapsed() })
        };
        let (answer, transfer) = self.place.lanes.run(timed).await;
        self.place.pace.note(answer.as_ref().err());
        (answer.map_err(|failure| missed(file, &failure)), transfer)
    }

    /// None for a path that no client could ask for either.
    fn url(&self, file: &File) -> Option<String> {
        Some(self.base.clone() + &self.repo.file(&file.path).ok()?.encoded())
    }
}

/// What the addresses of a host answered. Clients pass over one that doesn't while another does.
#[derive(Default)]
struct Answers {
    answered: bool,
    silent: Option<Failure>,
}

impl Answers {
    /// Takes an answer. An error: it says that the host lacks the file.
    fn note(&mut self, answer: Result<(), Failure>) -> Result<(), Failure> {
        match answer {
            Ok(()) => self.answered = true,
            Err(failure) if failure.is_down() => self.silent = Some(failure),
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn result(self) -> Result<(), Failure> {
        self.silent.filter(|_| !self.answered).map_or(Ok(()), Err)
    }
}

fn one_of(hosts: &[MirrorClient]) -> &[MirrorClient] {
    let number = fastrand::usize(..hosts.len());
    &hosts[number..=number]
}

/// The findings of a check; nothing panics while it holds them.
pub(super) fn lock(check: &Mutex<Findings>) -> MutexGuard<'_, Findings> {
    check.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missed(file: &File, failure: &Failure) -> Missed {
    Missed { path: file.path.clone(), why: failure.of_file(), transient: failure.is_transient() }
}
