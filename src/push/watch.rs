//! Watches one repo: polls its repomd.xml, and walks a push through its steps.

mod offer;
mod replacement;

use super::behind::{Behind, Looks};
use super::gate::Gate;
use super::handle::Order;
use super::older::older;
use super::verify::{self, Gaps, PushError, Version};
use super::{Faults, Shared, Step, flip, stopped};
use crate::clock::{self, Ahead, Timestamp};
use crate::origin::{PollValidators, Polled};
use crate::policy::confirm::persist_every;
use crate::repo::{Generation, Pinned, Sha256, signature};
use replacement::Replacement;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// So many polls does an origin get to finish what it is publishing, before gaps that can be borne are.
const PATIENCE: u32 = 3;
/// The same for a list of checksums: images take long to upload, and nobody waits for an update among them.
const PATIENCE_FOR_IMAGES: u32 = 60;
/// So many newer versions in a row are followed at once; an origin that changes faster waits for the next poll.
const MAX_RESTARTS: usize = 3;
/// After so many times as long as its lists took to read, a push is looked at again: a tenth of a core at most for each repo.
const REST: u32 = 9;
/// Lists that are read within this time, as those of real repos are, are read at each poll.
const BRIEF: Duration = Duration::from_millis(500);
/// How far the origin's clock and ours may differ.
const CLOCK_SLACK: Duration = Duration::from_secs(60);
/// The signature of a generation is looked at again after a tenth of its age, at most this.
const SIGNATURE_EVERY: Duration = Duration::from_secs(600);

/// Watches repo `index` from `pause` on until `shutdown`. What is under way then is dropped: nothing of it is published.
pub(super) async fn repo(
    shared: Arc<Shared>,
    index: usize,
    pause: Duration,
    shutdown: watch::Receiver<bool>,
) {
    let rounds = async {
        tokio::time::sleep(pause).await;
        let mut watcher = Watcher::new(&shared, index);
        loop {
            let again = match watcher.round().await {
                Ok(again) => again,
                Err(error) => {
                    shared.failed(index, &error);
                    Again::Later
                }
            };
            shared.repos[index].status().answered = watcher.order.number;
            if again == Again::Later {
                let poll = shared.config.push.poll.mul_f64(0.9 + 0.2 * fastrand::f64());
                let wait = until_next(poll, shared.repos[index].take_reading());
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = shared.repos[index].wake.notified() => {}
                }
            }
        }
    };
    tokio::select! {
        () = rounds => {}
        () = stopped(shutdown) => {}
    }
}

/// Until the next poll, where `reading` is what the lists of this one took to read.
fn until_next(poll: Duration, reading: Duration) -> Duration {
    if reading <= BRIEF { poll } else { poll.max(reading.saturating_mul(REST)) }
}

/// When to poll next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// There may be a newer one already: warming takes a while.
    Now,
    Later,
}

struct Watcher<'a> {
    shared: &'a Arc<Shared>,
    index: usize,
    /// Of the current generation's repomd.xml. A push that failed leaves them alone, so that it is seen again.
    known: PollValidators,
    /// When the origin was last asked and showed the current generation.
    unchanged: Option<Timestamp>,
    /// The push that is tried.
    attempt: Option<Attempt>,
    /// The repomd.xml that can't be used, and why. It isn't read again, unless the operator asks for it.
    refused: Option<(Sha256, String)>,
    signature: PollValidators,
    signature_checked: Timestamp,
    replacement: Replacement,
    /// What the operator wants of this round.
    order: Order,
    /// What is known of the files of the push that is tried.
    gate: Gate<'a>,
    /// The first sequence whose packages are not all fetched, while a push is tried.
    left_over: Option<u32>,
    /// What the newest flip did not wait for.
    behind: Behind,
    /// The looks at the files of a generation that was offered without any.
    looks: Looks,
    /// The confirmation that is on disk.
    persisted: Timestamp,
    /// With what the wall clock was ahead when the repo's times were last kept.
    ahead: Ahead,
}

/// A version that isn't offered yet.
#[derive(Clone, Copy)]
struct Attempt {
    id: Sha256,
    /// When it was first seen.
    detected: Timestamp,
    /// Polls that have shown it.
    polls: u32,
    /// It was shown in a round that the operator asked for, so that it may be an older generation.
    may_go_back: bool,
    /// What becomes of it if files of it are wrong.
    faults: Faults,
    /// That it is there was told.
    is_told: bool,
}

impl<'a> Watcher<'a> {
    fn new(shared: &'a Arc<Shared>, index: usize) -> Self {
        Self {
            shared,
            index,
            known: PollValidators::default(),
            unchanged: None,
            attempt: None,
            refused: None,
            signature: PollValidators::default(),
            signature_checked: Timestamp::EPOCH,
            replacement: Replacement::default(),
            order: Order::default(),
            gate: Gate::new(shared, index),
            left_over: None,
            behind: Behind::default(),
            looks: Looks::default(),
            persisted: Timestamp::EPOCH,
            ahead: Ahead::default(),
        }
    }

    /// One poll, and the push that it may find.
    async fn round(&mut self) -> Result<Again, PushError> {
        self.keep_dates().await;
        let asked = clock::now();
        self.order = self.shared.repos[self.index].take_order();
        // A server or cache in between may take another version for the known one.
        let known = if self.order.is_given { PollValidators::default() } else { self.known.clone() };
        let shown = self.poll(&known).await?;
        let answered = clock::now();
        self.shared.repos[self.index].status().last_poll = Some(answered);
        self.confirm(answered).await;
        let current = self.shared.current(self.index);
        match (shown, current) {
            (Some(version), current) if current.as_ref().is_none_or(|current| current.id != version.id) => {
                let is_first = current.is_none();
                let pushed = self.push(version, asked).await;
                match (&pushed, self.attempt) {
                    (Ok(()), _) => self.shared.repos[self.index].confirmed.note_current(),
                    // What is on offer is newer than what the origin shows.
                    (Err(PushError::Older { .. }), _) => {}
                    (Err(_), Some(attempt)) if !is_first => {
                        self.shared.repos[self.index].confirmed.note_behind(attempt.detected);
                    }
                    (Err(_), _) => {}
                }
                pushed.map(|()| Again::Now)
            }
            (same, Some(current)) => {
                if let Some(version) = same {
                    self.known = version.validators;
                }
                self.unchanged = Some(asked);
                self.attempt = None;
                self.gate.rest();
                flip::announce(self.shared, self.index, None).await;
                self.shared.repos[self.index].confirmed.note_current();
                self.shared.release(self.index, None);
                self.shared.repos[self.index].status().settle();
                self.check_signature(&current, asked).await?;
                Ok(Again::Later)
            }
            // Nothing is known, so that nothing can be unchanged: a broken origin.
            (_, None) => Ok(Again::Later),
        }
    }

    /// What the origin shows; None: what `known` names.
    async fn poll(&self, known: &PollValidators) -> Result<Option<Version>, PushError> {
        let path = verify::root_path(&self.shared.repos[self.index].repo)?;
        match verify::poll(self.shared, &path, known).await? {
            Polled::Unchanged => Ok(None),
            Polled::Absent => Err(PushError::NoRepomd { origin: self.shared.origin(), path }),
            Polled::Changed { body, last_modified, validators } => {
                Ok(Some(Version { id: Sha256::of(&body), body, last_modified, validators }))
            }
        }
    }

    /// Notes that the origin answered; on disk only now and then.
    async fn confirm(&mut self, answered: Timestamp) {
        let watched = &self.shared.repos[self.index];
        watched.confirmed.note(answered);
        if answered.since(self.persisted) >= persist_every(&self.shared.config.push) {
            self.keep_confirmed(answered).await;
        }
    }

    /// Writes to disk when the origin last answered.
    async fn keep_confirmed(&mut self, answered: Timestamp) {
        let watched = &self.shared.repos[self.index];
        let Some(dir) = watched.dir.clone() else { return };
        self.persisted = answered;
        let written = spawn_blocking(move || dir.confirm(clock::ahead().date_of(answered))).await;
        if let Err(error) = written.map_err(std::io::Error::other).flatten() {
            tracing::debug!(
                repo = watched.repo.id,
                "when the origin answered can't be written to disk: {error}"
            );
        }
    }

    /// Keeps the times of the repo anew once the wall clock was set: they are kept as dates, so that a restart finds a window as
    /// long as it was.
    async fn keep_dates(&mut self) {
        let ahead = clock::ahead();
        if !ahead.differs_from(self.ahead) {
            return;
        }
        self.ahead = ahead;
        self.shared.clock_is(ahead);
        if self.shared.current(self.index).is_some() {
            flip::keep_published(self.shared, self.index).await;
            // As if it had not been written yet.
            self.persisted = Timestamp::EPOCH;
            let confirmed = self.shared.repos[self.index].confirmed.at();
            self.keep_confirmed(confirmed).await;
        }
    }

    /// From another repomd.xml to its flip.
    async fn push(&mut self, mut version: Version, asked: Timestamp) -> Result<(), PushError> {
        let watched = &self.shared.repos[self.index];
        let mut asked = asked;
        for _ in 0..=MAX_RESTARTS {
            watched.status().step = Step::Fetching;
            self.shared.release(self.index, Some(version.id));
            let attempt = self.attempt(version.id, asked);
            let gaps = self.gaps(attempt, &version)?;
            let read = self.read(&version, attempt, gaps).await?;
            asked = clock::now();
            // What was fetched one after the other must be of one state.
            if let Some(newer) = self.newer(&version).await? {
                version = newer;
                continue;
            }
            let coming = Arc::new(read.generation.clone());
            flip::announce(self.shared, self.index, Some(coming)).await;
            match self.offer(read, attempt).await {
                Ok(()) => {
                    (self.known, self.attempt) = (version.validators, None);
                    return Ok(());
                }
                // The origin may have gone on, and removed what this version needs.
                Err(held @ PushError::Held(_)) => match self.newer(&version).await {
                    Ok(Some(newer)) => version = newer,
                    Ok(None) | Err(_) => return Err(held),
                },
                Err(error) => return Err(error),
            }
        }
        Err(PushError::Unfinished("repomd.xml changes again and again".to_owned()))
    }

    /// Reads `version`, unless it is known that it can't be used.
    async fn read(
        &mut self,
        version: &Version,
        attempt: Attempt,
        gaps: Gaps,
    ) -> Result<verify::Read, PushError> {
        if let Some((id, why)) = &self.refused
            && *id == version.id
            && !self.order.is_given
        {
            return Err(PushError::Refused(why.clone()));
        }
        self.refused = None;
        let published = self.published(version, attempt.detected);
        let read = verify::read(self.shared, self.index, version, published, attempt.detected, gaps).await;
        if let Err(error) = &read
            && error.is_final()
        {
            self.refused = Some((version.id, error.to_string()));
        }
        read
    }

    /// The version that the origin shows instead of `version` by now. An origin that is gone has shown nothing else.
    async fn newer(&self, version: &Version) -> Result<Option<Version>, PushError> {
        match self.poll(&version.validators).await {
            Ok(Some(newer)) if newer.id != version.id => Ok(Some(newer)),
            Err(error @ PushError::NoRepomd { .. }) => Err(error),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Notes that `id` was seen in a poll of `asked`.
    fn attempt(&mut self, id: Sha256, asked: Timestamp) -> Attempt {
        let first = Attempt {
            id,
            detected: asked,
            polls: 0,
            may_go_back: false,
            faults: Faults::Hold,
            is_told: false,
        };
        let attempt = self.attempt.filter(|attempt| attempt.id == id).unwrap_or(first);
        let may_go_back = attempt.may_go_back || self.order.may_go_back;
        let faults = if self.order.faults == Faults::Ignore { Faults::Ignore } else { attempt.faults };
        let polls = attempt.polls.saturating_add(1);
        *self.attempt.insert(Attempt { polls, may_go_back, faults, ..attempt })
    }

    /// Whether `attempt` has to be complete. An older generation isn't followed unasked: it may come from a copy of the
    /// origin that lags behind, and clients would go back and forth.
    fn gaps(&self, attempt: Attempt, version: &Version) -> Result<Gaps, PushError> {
        let view = self.shared.view(self.index);
        // Where there is nothing to offer, anything is better.
        if view.history.current().is_none() || attempt.faults == Faults::Ignore {
            return Ok(Gaps::AcceptAll);
        }
        if !attempt.may_go_back
            && let Some(what) = older(&view.history, version)
        {
            return Err(PushError::Older { what, repo: view.repo.id.clone() });
        }
        let patience = if view.repo.checksums.is_some() { PATIENCE_FOR_IMAGES } else { PATIENCE };
        Ok(if attempt.polls > patience { Gaps::Accept } else { Gaps::Refuse })
    }

    /// When the distribution made `version`, as nodes that watch the same origin agree on it.
    fn published(&self, version: &Version, detected: Timestamp) -> Timestamp {
        let previous = self.shared.history(self.index).current().map(|previous| previous.flipped);
        let modified = version.last_modified.map(|date| clock::ahead().time_of(date));
        published(modified, self.unchanged.or(previous), detected)
    }

    /// Takes a signature that came, or was replaced, after its repomd.xml was offered.
    async fn check_signature(&mut self, current: &Generation, now: Timestamp) -> Result<(), PushError> {
        let pause = (now.since(current.flipped) / 10).min(SIGNATURE_EVERY);
        if now.since(self.signature_checked) < pause {
            return Ok(());
        }
        let repo = &self.shared.repos[self.index].repo;
        let name = verify::signature(repo);
        let path = repo.path.join(&name)?;
        let polled = verify::poll(self.shared, &path, &self.signature).await;
        self.signature_checked = now;
        // One that vanished is still right for what it signs, and whatever an origin says that has none, it has none.
        let Ok(Polled::Changed { body, last_modified, validators }) = polled else { return Ok(()) };
        if !signature::is_openpgp(&body) {
            return Ok(());
        }
        if self.poll(&self.known).await?.is_some_and(|version| version.id != current.id) {
            // Then it may be of a newer repomd.xml, which the next round finds.
            return Ok(());
        }
        let signature = Pinned::new(name, body, last_modified);
        let view = self.shared.view(self.index);
        let is_of = |generation: &Arc<Generation>| {
            generation.id != current.id
                && generation.pinned(&signature.path).is_some_and(|known| known.sha256 == signature.sha256)
        };
        if view.history.generations().iter().any(is_of) {
            return Ok(());
        }
        let is_other = |known: &Pinned| known.sha256 != signature.sha256;
        // Where signatures are uploaded before what they sign, the next repomd.xml is on its way.
        let wait = self.shared.config.push.poll * PATIENCE;
        if current.pinned(&signature.path).is_some_and(is_other)
            && !self.replacement.has_stood(signature.sha256, now, wait)
        {
            return Ok(());
        }
        self.signature = validators;
        if current.pinned(&signature.path).is_none_or(|known| known.sha256 != signature.sha256) {
            tracing::info!(
                repo = self.shared.repos[self.index].repo.id,
                "a new signature of the same repomd.xml"
            );
            flip::repin(self.shared, self.index, signature).await;
        }
        Ok(())
    }
}

/// When a version was published, if it was `detected` then and was not there yet at `not_before`.
///
/// Last-Modified, where it can be true: then all nodes agree. It isn't where it lies before the last look at the
/// previous version, as with `rsync -a` and `createrepo --set-timestamp-to-revision`: then the time of detection, so
/// that the window is a full one. Of a first generation nobody knows better than Last-Modified.
fn published(
    last_modified: Option<Timestamp>,
    not_before: Option<Timestamp>,
    detected: Timestamp,
) -> Timestamp {
    let is_plausible = |time: &Timestamp| {
        *time <= detected && not_before.is_none_or(|not_before| time.plus(CLOCK_SLACK) >= not_before)
    };
    last_modified.filter(is_plausible).unwrap_or(detected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_to_read_is_read_the_less_often() {
        let (ms, poll) = (Duration::from_millis, Duration::from_secs(15));
        assert_eq!(until_next(poll, Duration::ZERO), poll);
        assert_eq!(until_next(ms(10), ms(500)), ms(10), "the largest repos");
        assert_eq!(until_next(poll, ms(4000)), ms(36_000));
    }

    #[test]
    fn published_is_what_the_origin_says_where_it_can_be_true() {
        let at = Timestamp::from_secs;
        // (Last-Modified, the old version was there at, expected), all detected at 10,000 s
        let cases = [
            (None, None, 10_000),
            (Some(1), None, 1),
            (Some(10_001), None, 10_000),
            (Some(9_990), Some(9_985), 9_990),
            (Some(9_930), Some(9_985), 9_930),
            (Some(9_920), Some(9_985), 10_000),
            (None, Some(9_985), 10_000),
        ];
        for (last_modified, not_before, expected) in cases {
            let found = published(last_modified.map(at), not_before.map(at), at(10_000));
            assert_eq!(found, at(expected), "{last_modified:?} {not_before:?}");
        }
    }
}
