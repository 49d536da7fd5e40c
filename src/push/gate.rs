//! The gate: what a push brings is looked at before clients get it.
//!
//! First every new file is *seen* at the origin: it is there, with the listed length. Then the new packages are *read*
//! (`warm`), as far as they fit into `push.warm`, and held against their digests. A file that is wrong holds the push; what
//! clients can do without is left out of it. An origin in trouble is another matter: the attempt fails, and the next one goes
//! on where this one stopped.
//!
//! What was found out is remembered by file, for as long as the file is new: between polls, and for the next push as well.

use super::fault::{Blame, Held, blame, is_spare_package};
use super::verify::PushError;
use super::warm::{Fetched, Warming};
use super::{SIGHTS, Shared, Step};
use crate::clock;
use crate::origin::Stamp;
use crate::repo::{Entry, Generation, Sha256};
use crate::store::{FetchError, Object};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Once so many files are wrong, no more are looked at: there is enough to tell.
const MAX_FAULTS: usize = 100;
/// Once what was seen is in doubt, what was seen longer ago than this is looked at again: it may have gone meanwhile.
pub(super) const TRUSTED: Duration = Duration::from_secs(60);

/// What is known of the new files of a push.
pub(super) struct Gate<'a> {
    shared: &'a Arc<Shared>,
    index: usize,
    files: HashMap<Object, Found>,
    /// The file that is named as the reason of a hold, for as long as it is one.
    named: Option<Object>,
    /// The push that was last looked at.
    of: Option<Sha256>,
    /// What was seen a while ago may have gone since: there was a hold, or the origin showed something else.
    is_doubted: bool,
    /// Since when the origin, which answers, doesn't let any file of the push be read.
    troubled: Option<Instant>,
}

/// What is known of one file.
#[derive(Clone, Debug, Default)]
struct Found {
    /// Relative to the repo.
    path: String,
    size: u64,
    /// When it was last seen as it is listed.
    seen: Option<Instant>,
    stamp: Option<Stamp>,
    /// All its bytes were right.
    is_read: bool,
    /// Only reading it tells whether it is right: the origin tells no length, or it was wrong when it was last read.
    is_to_be_read: bool,
    fault: Option<String>,
}

impl Found {
    fn holds(&self) -> bool {
        self.fault.is_some() && !is_spare_package(&self.path)
    }
}

impl<'a> Gate<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, index: usize) -> Self {
        Self {
            shared,
            index,
            files: HashMap::new(),
            named: None,
            of: None,
            is_doubted: false,
            troubled: None,
        }
    }

    /// The origin shows what is on offer.
    pub(super) fn rest(&mut self) {
        (self.is_doubted, self.troubled) = (true, None);
    }

    /// Looks at what `generation` brings. `told` hears of the first fault at once.
    ///
    /// # Errors
    /// [`PushError::Held`], or why it could not be found out.
    pub(super) async fn see(
        &mut self,
        generation: &Generation,
        told: impl FnMut(Held),
    ) -> Result<(), PushError> {
        let id = generation.id;
        let mut told = once(id, told);
        if self.of.replace(id).is_some_and(|of| of != id) {
            (self.is_doubted, self.troubled) = (true, None);
        }
        self.is_doubted |= self.files.values().any(|found| found.fault.is_some());
        self.turn_to(generation);
        let faulty = self.objects(|found| found.fault.is_some());
        if !faulty.is_empty() {
            self.look_at(faulty, &mut told).await?;
            self.check(id)?;
            let wrong = self.objects(|found| found.is_to_be_read);
            self.fetch(&mut Warming::new(self.shared, self.index, wrong), None, &mut told).await?;
            self.check(id)?;
        }
        if std::mem::take(&mut self.is_doubted) {
            let (now, trusted) = (clock::monotonic(), self.shared.trusted);
            let is_trusted = |seen: &Instant| now.saturating_duration_since(*seen) < trusted;
            self.files.values_mut().for_each(|found| found.seen = found.seen.filter(is_trusted));
        }
        // Looks into a directory cost next to nothing.
        let is_local = self.shared.store.origin().1.is_none();
        let unseen = self.objects(|found| is_local || found.seen.is_none());
        self.look_at(unseen, &mut told).await?;
        self.check(id)
    }

    /// Reads packages; what isn't read within `push.warm_for` is left to others, once all that have to be read are. Those that
    /// clients can do without, and that are wrong, with what is wrong with them; by path relative to the repo.
    ///
    /// # Errors
    /// As [`see`](Self::see).
    pub(super) async fn read(
        &mut self,
        warming: &mut Warming,
        id: Sha256,
        told: impl FnMut(Held),
    ) -> Result<BTreeMap<String, String>, PushError> {
        let until = clock::monotonic() + self.shared.config.push.warm_for;
        self.fetch(warming, Some(until), &mut once(id, told)).await?;
        self.check(id)?;
        let spare = self.files.values().filter_map(|found| Some((found.path.clone(), found.fault.clone()?)));
        Ok(spare.collect())
    }

    /// Forgets what isn't new in `generation`, and takes note of what is.
    fn turn_to(&mut self, generation: &Generation) {
        let repo = &self.shared.repos[self.index].repo;
        let is_new = |entry: &Entry| entry.kind.is_package() && entry.since == generation.sequence;
        let mut known = std::mem::take(&mut self.files);
        for (path, entry) in generation.catalogue.iter().filter(|(_, entry)| is_new(entry)) {
            let Ok(full) = repo.file(path) else { continue };
            let object = match entry.digest {
                Some(digest) => Object::listed(full, digest, entry.size),
                None => Object::unlisted(full),
            };
            let found = known
                .remove(&object)
                .filter(|found| found.size == entry.size)
                .unwrap_or_else(|| Found { path: path.to_owned(), size: entry.size, ..Found::default() });
            self.files.insert(object, found);
        }
        self.named = self.named.take().filter(|named| self.files.contains_key(named));
        if self.named.is_none() {
            self.named = self.objects(Found::holds).into_iter().next();
        }
    }

    /// What holds the push `id`.
    fn held(&self, id: Sha256) -> Option<Held> {
        let object = self.named.as_ref()?;
        let found = self.files.get(object)?;
        let files = self.files.values().filter(|found| found.holds()).count();
        Some(Held {
            generation: id,
            file: object.path.to_string(),
            fault: found.fault.clone()?,
            files: u32::try_from(files).unwrap_or(u32::MAX),
        })
    }

    fn check(&self, id: Sha256) -> Result<(), PushError> {
        self.held(id).map_or(Ok(()), |held| Err(PushError::Held(held)))
    }

    /// Those for which `wanted` holds, by path.
    fn objects(&self, wanted: impl Fn(&Found) -> bool) -> Vec<Object> {
        let mut objects: Vec<_> =
            self.files.iter().filter(|(_, found)| wanted(found)).map(|(object, _)| object.clone()).collect();
        objects.sort_unstable_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        objects
    }

    /// Looks at these files, some at a time, until enough faults are found.
    async fn look_at(&mut self, objects: Vec<Object>, told: &mut impl FnMut(&Self)) -> Result<(), PushError> {
        let status = &self.shared.repos[self.index];
        let total = u32::try_from(objects.len()).unwrap_or(u32::MAX);
        let (mut done, mut faults) = (0, 0);
        let mut waiting = objects.into_iter();
        let mut looks = JoinSet::new();
        loop {
            status.status().step = Step::Checking { done, total };
            while looks.len() < SIGHTS && faults < MAX_FAULTS {
                let Some(object) = waiting.next() else { break };
                let (shared, size) = (Arc::clone(self.shared), self.files[&object].size);
                looks.spawn(async move {
                    let _permit = shared.sights.acquire().await;
                    let sight = shared.store.see(&object, size).await;
                    (object, sight)
                });
            }
            let Some(ended) = looks.join_next().await else { return Ok(()) };
            let (object, sight) = ended.map_err(|stopped| PushError::Broken(stopped.to_string()))?;
            done += 1;
            let Some(found) = self.files.get_mut(&object) else { continue };
            match sight {
                Ok(sight) => {
                    found.is_read &= found.stamp == sight.stamp;
                    found.is_to_be_read |= !sight.is_measured && !found.is_read;
                    (found.seen, found.stamp, found.fault) = (Some(clock::monotonic()), sight.stamp, None);
                    self.clear(&object);
                }
                Err(error) => {
                    faults += usize::from(!is_spare_package(&found.path));
                    self.fault(object, error)?;
                    told(self);
                }
            }
        }
    }

    /// The packages to be read: first those that have to be, then those of `warm` that weren't read before.
    pub(super) fn warming(&self, warm: Vec<Object>) -> Warming {
        let found = |object: &Object| self.files.get(object);
        let needed = self.objects(|found| found.is_to_be_read);
        let is_read = |object: &Object| found(object).is_some_and(|found| found.is_read);
        let is_left_out = |object: &Object| found(object).is_some_and(|found| found.fault.is_some());
        let (read, unread): (Vec<_>, Vec<_>) =
            warm.into_iter().filter(|object| !is_left_out(object)).partition(is_read);
        let is_needed = |object: &Object| found(object).is_some_and(|found| found.is_to_be_read);
        let objects = needed.into_iter().chain(unread.into_iter().filter(|object| !is_needed(object)));
        Warming::new(self.shared, self.index, objects.collect()).after(&read)
    }

    /// Reads these files; from `until` on those that need not be read may be left.
    async fn fetch(
        &mut self,
        warming: &mut Warming,
        until: Option<Instant>,
        told: &mut impl FnMut(&Self),
    ) -> Result<(), PushError> {
        loop {
            let (done, total) = warming.progress();
            self.shared.repos[self.index].status().step = Step::Warming { done, total };
            let is_open = |found: &Found| found.is_to_be_read && found.fault.is_none();
            let is_needed = until.is_none() || self.files.values().any(is_open);
            let next = match until.filter(|_| !is_needed) {
                None => warming.next().await,
                // Those that are under way go on.
                Some(until) => match tokio::time::timeout_at(until.into(), warming.next()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(()),
                },
            };
            match next {
                None => return Ok(()),
                Some(Fetched::Right(object)) => {
                    if let Some(found) = self.files.get_mut(&object) {
                        (found.is_read, found.is_to_be_read, found.fault) = (true, false, None);
                    }
                    self.troubled = None;
                    self.clear(&object);
                }
                Some(Fetched::Failed(object, error)) => {
                    let Some(found) = self.files.get_mut(&object) else { continue };
                    match blame(&error) {
                        Blame::File => {
                            (found.is_read, found.is_to_be_read) = (false, true);
                            self.fault(object, error)?;
                            told(self);
                            if until.is_none() && self.named.is_some() {
                                // It is held already: the rest is read once this one is right.
                                return Ok(());
                            }
                        }
                        Blame::Node if !found.is_to_be_read => {}
                        Blame::Origin if is_spare_package(&found.path) || self.is_troubled_for_long() => {
                            self.note(object, &error);
                            told(self);
                        }
                        Blame::Origin | Blame::Node => {
                            return Err(PushError::Fetch { path: object.path, error });
                        }
                    }
                }
            }
        }
    }

    /// Notes that a file is wrong, if it is the file's fault.
    fn fault(&mut self, object: Object, error: FetchError) -> Result<(), PushError> {
        if blame(&error) != Blame::File {
            return Err(PushError::Fetch { path: object.path, error });
        }
        self.note(object, &error);
        Ok(())
    }

    /// Notes what is wrong with a file.
    fn note(&mut self, object: Object, error: &FetchError) {
        let Some(found) = self.files.get_mut(&object) else { return };
        found.fault = Some(error.to_string());
        found.seen = None;
        if found.holds() && self.named.is_none() {
            self.named = Some(object);
        }
    }

    /// Whether the origin, which has shown the files, hasn't let them be read for `push.warm_for`: then the push is held, and
    /// that is reported, since clients couldn't read them either.
    fn is_troubled_for_long(&mut self) -> bool {
        let now = clock::monotonic();
        let since = *self.troubled.get_or_insert(now);
        now.saturating_duration_since(since) >= self.shared.config.push.warm_for
    }

    /// A file has no fault any more: another is named, if it was.
    fn clear(&mut self, object: &Object) {
        if self.named.as_ref() == Some(object) {
            self.named = self.objects(Found::holds).into_iter().next();
        }
    }
}

/// Hands on the first hold of the push `id`.
fn once<'a>(id: Sha256, mut told: impl FnMut(Held)) -> impl FnMut(&Gate<'a>) {
    let mut is_told = false;
    move |gate| {
        if let Some(held) = gate.held(id).filter(|_| !is_told) {
            is_told = true;
            told(held);
        }
    }
}
