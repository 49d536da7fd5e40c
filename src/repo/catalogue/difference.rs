//! The files of a generation, as what makes it different from the one after it.

use super::whole::Whole;
use super::{Catalogue, Entry, Kept};
use std::collections::HashMap;
use std::sync::Arc;

/// One step back from `next`.
#[derive(Clone)]
pub(super) struct Difference {
    next: Catalogue,
    change: Arc<Change>,
    len: usize,
}

/// What a generation lists otherwise than the next.
struct Change {
    /// What the next generation doesn't list, or lists with other facts.
    gone: Whole,
    /// What only the next one lists.
    come: Whole,
}

/// The parts of a difference, each by path.
pub(in crate::repo) struct Parts<'a> {
    /// What the next generation doesn't list, or lists otherwise.
    pub(in crate::repo) gone: Vec<(&'a str, Entry)>,
    /// The paths of what only the next one lists.
    pub(in crate::repo) come: Vec<&'a str>,
}

impl Difference {
    pub(super) fn between(older: &Whole, next: &Catalogue) -> Self {
        let gone: Vec<_> = older.iter().filter(|(path, entry)| next.find(path) != Some(*entry)).collect();
        let next_files = next.sorted();
        let come: Vec<_> =
            next_files.iter().copied().filter(|(path, _)| older.find(path).is_none()).collect();
        let change = Change { gone: Whole::of(gone.into_iter()), come: Whole::of(come.into_iter()) };
        Self { next: next.clone(), change: Arc::new(change), len: older.len() }
    }

    /// The step back from `next` that [`Difference::parts`] took apart. None if it isn't one from there.
    pub(super) fn of_parts(next: &Catalogue, gone: Whole, come: &[&str]) -> Option<Self> {
        let come = come.iter().map(|path| Some((*path, next.find(path)?))).collect::<Option<Vec<_>>>()?;
        if come.iter().any(|(path, _)| gone.find(path).is_some()) || !come.is_sorted_by(|a, b| a.0 < b.0) {
            return None;
        }
        let only_here = gone.iter().filter(|(path, _)| next.find(path).is_none()).count();
        let len = next.len().checked_sub(come.len())? + only_here;
        let change = Change { gone, come: Whole::of(come.into_iter()) };
        Some(Self { next: next.clone(), change: Arc::new(change), len })
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        let Change { gone, come } = &*self.change;
        Parts { gone: gone.iter().collect(), come: come.iter().map(|(path, _)| path).collect() }
    }

    /// The same step back from the same files, kept in another way.
    pub(super) fn rebased(&self, next: &Catalogue) -> Self {
        Self { next: next.clone(), ..self.clone() }
    }

    /// As [`Whole::outside`], of what the next generation doesn't list so.
    pub(super) fn outside_gone(&self) -> impl Iterator<Item = &str> {
        self.change.gone.outside()
    }

    pub(super) const fn next(&self) -> &Catalogue {
        &self.next
    }

    /// What it says of `path` itself; `None`: what the next one says.
    pub(super) fn find(&self, path: &str) -> Option<Option<Entry>> {
        match self.change.gone.find(path) {
            Some(entry) => Some(Some(entry)),
            None => self.change.come.find(path).map(|_| None),
        }
    }

    /// All files: first those that some later generation changed, then those of the whole one that none did. A look for each,
    /// however many steps there are.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Entry)> {
        let mut changed: HashMap<&str, Option<Entry>> = HashMap::new();
        let mut step = self;
        let whole = loop {
            for (path, _) in step.change.come.iter() {
                changed.entry(path).or_insert(None);
            }
            for (path, entry) in step.change.gone.iter() {
                changed.entry(path).or_insert(Some(entry));
            }
            match &step.next.kept {
                Kept::Whole(whole) => break whole,
                Kept::Difference(next) => step = next,
            }
        };
        let listed: Vec<_> = changed.iter().filter_map(|(path, entry)| Some((*path, (*entry)?))).collect();
        listed.into_iter().chain(whole.iter().filter(move |(path, _)| !changed.contains_key(path)))
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + size_of::<Change>()
            + self.change.gone.memory_bytes()
            + self.change.come.memory_bytes()
    }
}
