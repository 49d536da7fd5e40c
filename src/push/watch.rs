//! Watches one repo: polls its repomd.xml, and walks a push through its steps.

use super::verify::{self, Gaps, PushError, Version};
use super::warm::{Behind, Warming};
use super::{Event, Shared, Step, flip, stopped};
use crate::clock::{self, Timestamp};
use crate::config::Root;
use crate::origin::{PollValidators, Polled};
use crate::policy::confirm::persist_every;
use crate::repo::{Generation, History, Pinned, Repomd, Sha256, repomd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// So many polls does an origin get to finish what it is publishing, before gaps that can be borne are.
const PATIENCE: u32 = 3;
/// The same for a list of checksums: images take long to upload, and nobody waits for an update among them.
const PATIENCE_FOR_IMAGES: u32 = 60;
/// So many newer versions in a row are followed at once; an origin that changes faster waits for the next poll.
const MAX_RESTARTS: usize = 3;
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
            if again == Again::Later {
                let wait = shared.config.push.poll.mul_f64(0.9 + 0.2 * fastrand::f64());
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
    signature: PollValidators,
    signature_checked: Timestamp,
    /// The operator asked for this round.
    may_go_back: bool,
    /// What the newest flip did not wait for.
    behind: Behind,
    /// The confirmation that is on disk.
    persisted: Timestamp,
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
}

impl<'a> Watcher<'a> {
    fn new(shared: &'a Arc<Shared>, index: usize) -> Self {
        Self {
            shared,
            index,
            known: PollValidators::default(),
            unchanged: None,
            attempt: None,
            signature: PollValidators::default(),
            signature_checked: Timestamp::EPOCH,
            may_go_back: false,
            behind: Behind::default(),
            persisted: Timestamp::EPOCH,
        }
    }

    /// One poll, and the push that it may find.
    async fn round(&mut self) -> Result<Again, PushError> {
        let asked = clock::now();
        self.may_go_back = self.shared.repos[self.index].may_go_back.swap(false, Ordering::Relaxed);
        let known = self.known.clone();
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
                self.shared.repos[self.index].confirmed.note_current();
                self.shared.repos[self.index].status().last_error = None;
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
        let due = answered.since(self.persisted) >= persist_every(&self.shared.config.push);
        let Some(dir) = watched.dir.clone().filter(|_| due) else { return };
        self.persisted = answered;
        let written = spawn_blocking(move || dir.confirm(answered)).await;
        if let Err(error) = written.map_err(std::io::Error::other).flatten() {
            tracing::debug!(
                repo = watched.repo.id,
                "when the origin answered can't be written to disk: {error}"
            );
        }
    }

    /// From another repomd.xml to its flip.
    async fn push(&mut self, mut version: Version, asked: Timestamp) -> Result<(), PushError> {
        let watched = &self.shared.repos[self.index];
        let mut asked = asked;
        for _ in 0..=MAX_RESTARTS {
            watched.status().step = Step::Fetching;
            let attempt = self.attempt(version.id, asked);
            let gaps = self.gaps(attempt, &version)?;
            let published = self.published(&version, attempt.detected);
            let read = verify::read(self.shared, self.index, &version, published, attempt.detected, gaps);
            let generation = read.await?;
            asked = clock::now();
            // What was fetched one after the other must be of one state.
            match self.poll(&version.validators).await {
                Ok(Some(newer)) if newer.id != version.id => version = newer,
                Err(error @ PushError::NoRepomd { .. }) => return Err(error),
                // An origin that is gone by now has shown nothing else.
                Ok(_) | Err(_) => {
                    self.offer(generation, attempt.detected).await;
                    (self.known, self.attempt) = (version.validators, None);
                    return Ok(());
                }
            }
        }
        Err(PushError::Unfinished("repomd.xml changes again and again".to_owned()))
    }

    /// Warms and flips what is verified.
    async fn offer(&mut self, generation: Generation, detected: Timestamp) {
        let (shared, watched) = (self.shared, &self.shared.repos[self.index]);
        let (id, repo) = (generation.id, &watched.repo);
        let (files, bytes) = (generation.new_files, generation.new_bytes);
        {
            let mut status = watched.status();
            (status.detected, status.warmed, status.offered) = (Some(detected), None, None);
        }
        flip::mark(shared, &repo.id, "published", generation.published);
        flip::mark(shared, &repo.id, "detected", detected);
        shared.tell(Event::Detected { repo: Arc::clone(repo), generation: id, files, bytes, at: detected });

        let start = clock::monotonic();
        let since = self.behind.stop().unwrap_or(generation.sequence);
        let mut warming = Warming::new(shared, self.index, &generation, since);
        let fetching = warming.finish(|done, total| watched.status().step = Step::Warming { done, total });
        // Those that are under way go on.
        let _ = tokio::time::timeout(shared.config.push.warm_for, fetching).await;
        let took = clock::monotonic().saturating_duration_since(start);
        let (found, rest) = (warming.warmed, warming.rest());
        if rest == 0 {
            warming.tell();
        } else {
            shared.metrics.pushes.with_label_values(&[repo.id.as_str(), "warmed_late"]).inc();
            self.behind.start(warming, since);
        }
        if generation.sequence > 1 {
            let (repo, (files, bytes, failed)) = (Arc::clone(repo), (found.files, found.bytes, found.failed));
            shared.tell(Event::Warmed { repo, generation: id, files, bytes, failed, rest, took });
        }
        flip::flip(shared, self.index, generation).await;
    }

    /// Notes that `id` was seen in a poll of `asked`.
    fn attempt(&mut self, id: Sha256, asked: Timestamp) -> Attempt {
        let first = Attempt { id, detected: asked, polls: 0, may_go_back: false };
        let attempt = self.attempt.filter(|attempt| attempt.id == id).unwrap_or(first);
        let may_go_back = attempt.may_go_back || self.may_go_back;
        *self.attempt.insert(Attempt { polls: attempt.polls.saturating_add(1), may_go_back, ..attempt })
    }

    /// Whether `attempt` has to be complete. An older generation isn't followed unasked: it may come from a copy of the
    /// origin that lags behind, and clients would go back and forth.
    fn gaps(&self, attempt: Attempt, version: &Version) -> Result<Gaps, PushError> {
        let view = self.shared.view(self.index);
        // Where there is nothing to offer, anything is better.
        if view.history.current().is_none() {
            return Ok(Gaps::Accept);
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
        published(version.last_modified, self.unchanged.or(previous), detected)
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
        let polled = verify::poll(self.shared, &path, &self.signature).await?;
        self.signature_checked = now;
        // One that vanished is still right for what it signs.
        let Polled::Changed { body, last_modified, validators } = polled else { return Ok(()) };
        if self.poll(&self.known).await?.is_some_and(|version| version.id != current.id) {
            // Then it may be of a newer repomd.xml, which the next round finds.
            return Ok(());
        }
        self.signature = validators;
        let signature = Pinned::new(name, body, last_modified);
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

/// In words what tells that `version` is older than the current generation: it is a kept one, or says so itself.
fn older(history: &History, version: &Version) -> Option<String> {
    if let Some(kept) = history.by_id(&version.id) {
        return Some(format!("number {}, {}", kept.sequence, kept.id));
    }
    let offered = repomd::parse(&history.current()?.root()?.body, &Root::default()).ok()?;
    let shown = repomd::parse(&version.body, &Root::default()).ok()?;
    is_older(&shown, &offered).then(|| {
        let revision = shown.revision.as_deref().map(|revision| format!("revision {revision}"));
        let made = shown.timestamp.map(|made| format!("made {made}"));
        revision.into_iter().chain(made).collect::<Vec<_>>().join(", ")
    })
}

/// Whether all that can be compared of revision and newest timestamp, at least one of them, is less in `shown`. A
/// revision need be no number, and either may stay the same from push to push.
fn is_older(shown: &Repomd, offered: &Repomd) -> bool {
    let revision = |repomd: &Repomd| repomd.revision.as_deref()?.parse::<u64>().ok();
    let by_revision = revision(shown).zip(revision(offered)).map(|(shown, offered)| shown < offered);
    let by_time = shown.timestamp.zip(offered.timestamp).map(|(shown, offered)| shown < offered);
    (by_revision.is_some() || by_time.is_some()) && by_revision.unwrap_or(true) && by_time.unwrap_or(true)
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
    fn older_is_what_says_so_in_all_that_can_be_compared() {
        let repomd = |revision: &str, secs: Option<u64>| Repomd {
            revision: Some(revision.to_owned()),
            timestamp: secs.map(Timestamp::from_secs),
            ..Repomd::default()
        };
        let offered = repomd("100", Some(100));
        let cases = [
            (repomd("99", Some(99)), true),
            (repomd("9", Some(99)), true),
            (repomd("99", Some(100)), false),
            (repomd("99", Some(101)), false),
            (repomd("100", Some(99)), false),
            (repomd("101", Some(99)), false),
            (repomd("9.9", Some(99)), true),
            (repomd("99", None), true),
            (repomd("9.9", None), false),
        ];
        for (shown, expected) in cases {
            assert_eq!(is_older(&shown, &offered), expected, "{shown:?}");
        }
        assert!(!is_older(&Repomd::default(), &Repomd::default()));
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
