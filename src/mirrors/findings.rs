//! What a check of a generation's files on a mirror has found so far, and what it still has to ask. Pure: no IO, no clock.
//!
//! A check may be broken off (a mirror that is busy, an outage) and goes on where it was as long as it is still the same:
//! what was seen isn't asked for again. What a mirror lacks becomes exceptions of its proof, within a bound: beyond it the
//! check ends early and proves nothing.

use super::judge::{File, Missed, unproven};
use crate::policy::{Exceptions, Fault, Group, Pair, Proof};
use crate::repo::History;
use std::collections::VecDeque;

/// Files that a mirror may lack in the smallest repo.
const FEW: usize = 3;
/// Files that it may lack in the largest.
const MANY: usize = 1000;
/// Of so many listed files it may lack one.
const LISTED_FOR_ONE: usize = 100;
/// Files of a group that are asked for before the group counts as left out.
const GROUP_SAMPLE: usize = 8;
/// Missing files that the origin is asked for as well, in one check: a mirror that lacks more is the one at fault.
const ASKED_OF_ORIGIN: usize = 16;

/// How many files of a repo of `listed` files a mirror may lack by its own fault and still be proven.
#[must_use]
pub fn bound(listed: usize) -> usize {
    (listed / LISTED_FOR_ONE).clamp(FEW, MANY)
}

/// What a check builds on: proof and exceptions as they were when it began.
#[derive(Clone, Debug, Default)]
pub struct Base {
    /// What was proven.
    pub proof: Option<Proof>,
    /// But for these.
    pub exceptions: Exceptions,
}

impl Base {
    /// Of this pair.
    #[must_use]
    pub fn of(pair: &Pair) -> Self {
        Self { proof: pair.proof, exceptions: pair.exceptions.clone() }
    }

    /// Whether the pair still stands so: else what was found by it says nothing.
    #[must_use]
    pub fn is_of(&self, pair: &Pair) -> bool {
        let bounds = |proof: Option<Proof>| proof.map(|proof| (proof.sequence, proof.shown));
        bounds(self.proof) == bounds(pair.proof) && self.exceptions == pair.exceptions
    }
}

/// That a mirror holds all files of a generation, but for some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Files that were seen.
    pub files: usize,
    /// The exceptions.
    pub exceptions: Exceptions,
}

#[derive(Debug)]
enum Mark {
    Open,
    Seen,
    Missed(Missed, Fault),
}

#[derive(Debug)]
struct Asked {
    file: File,
    /// The base doesn't cover it; else it is one of the base's exceptions.
    is_new: bool,
    mark: Mark,
}

/// The files of one group.
#[derive(Clone, Copy, Debug, Default)]
struct OfGroup {
    /// The base has the whole group as an exception.
    was_excepted: bool,
    missed: usize,
}

impl OfGroup {
    /// The group is left out there: no more of it is asked for.
    const fn is_left_out(self) -> bool {
        self.missed >= GROUP_SAMPLE || (self.was_excepted && self.missed > 0)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Findings {
    target: u32,
    base: Base,
    /// Files that may be missing.
    bound: usize,
    asked: Vec<Asked>,
    todo: VecDeque<usize>,
    groups: [OfGroup; Group::ALL.len()],
    /// Of those that are of no group: new ones, missing ones, and those that are both. What the origin lacks isn't counted.
    new: usize,
    missing: usize,
    new_missing: usize,
    asked_of_origin: usize,
}

impl Findings {
    /// A check of generation `target`: see [`unproven`].
    #[must_use]
    pub fn begin(history: &History, base: Base, target: u32, most: usize, rng: &mut fastrand::Rng) -> Self {
        let listed = history.by_sequence(target).map_or(0, |generation| generation.catalogue.len());
        let files = unproven(history, &base, target, most, rng);
        let asked = |file: File| {
            let is_new = !base.exceptions.contains(&file.path);
            Asked { file, is_new, mark: Mark::Open }
        };
        let asked: Vec<_> = files.into_iter().map(asked).collect();
        let mut groups = [OfGroup::default(); Group::ALL.len()];
        for group in base.exceptions.groups() {
            groups[*group as usize].was_excepted = true;
        }
        let todo = (0..asked.len()).collect();
        let new = asked.iter().filter(|asked| asked.is_new && Group::of(&asked.file.path).is_none()).count();
        let bound = bound(listed);
        Self { target, base, bound, asked, todo, groups, new, missing: 0, new_missing: 0, asked_of_origin: 0 }
    }

    /// The generation that is checked.
    #[must_use]
    pub const fn target(&self) -> u32 {
        self.target
    }

    /// What the check builds on.
    #[must_use]
    pub const fn base(&self) -> &Base {
        &self.base
    }

    /// Takes the check up again: what was missed may be there by now, and is asked for first.
    pub fn resume(&mut self) {
        for group in &mut self.groups {
            group.missed = 0;
        }
        let (mut missed, mut open) = (Vec::new(), Vec::new());
        for (number, asked) in self.asked.iter_mut().enumerate() {
            match asked.mark {
                Mark::Seen => {}
                Mark::Open => open.push(number),
                Mark::Missed(..) => {
                    asked.mark = Mark::Open;
                    missed.push(number);
                }
            }
        }
        (self.missing, self.new_missing, self.asked_of_origin) = (0, 0, 0);
        self.todo = missed.into_iter().chain(open).collect();
    }

    /// The next file to be asked for, by its number. None once all were, or enough are missing.
    pub fn take(&mut self) -> Option<(usize, File)> {
        if self.is_refuted() {
            return None;
        }
        loop {
            let number = self.todo.pop_front()?;
            let file = &self.asked[number].file;
            if !Group::of(&file.path).is_some_and(|group| self.groups[group as usize].is_left_out()) {
                return Some((number, file.clone()));
            }
        }
    }

    /// The mirror has the file as it is listed.
    pub fn seen(&mut self, number: usize) {
        self.asked[number].mark = Mark::Seen;
    }

    /// It hasn't.
    pub fn missed(&mut self, number: usize, missed: Missed, fault: Fault) {
        match Group::of(&missed.path) {
            Some(group) => self.groups[group as usize].missed += 1,
            None if fault == Fault::Mirror => {
                self.missing += 1;
                self.new_missing += usize::from(self.asked[number].is_new);
            }
            None => {}
        }
        self.asked[number].mark = Mark::Missed(missed, fault);
    }

    /// The mirror gave no answer that says anything of the file: it is to be asked for once more.
    pub fn put_back(&mut self, number: usize) {
        self.todo.push_front(number);
    }

    /// Whether it is worth asking the origin for the file, too.
    pub fn asks_origin(&mut self, file: &File) -> bool {
        let asks = self.asked_of_origin < ASKED_OF_ORIGIN && Group::of(&file.path).is_none();
        self.asked_of_origin += usize::from(asks);
        asks
    }

    /// A file that is new and of some size, to see whether ranges are answered.
    #[must_use]
    pub fn ranged(&self) -> Option<&File> {
        let fits = |asked: &&Asked| matches!(asked.mark, Mark::Seen) && asked.file.size > 0;
        self.asked.iter().find(fits).map(|asked| &asked.file)
    }

    /// Those that were seen and that the base doesn't cover.
    pub fn new_files(&self) -> impl Iterator<Item = &File> {
        let is_new = |asked: &&Asked| asked.is_new && matches!(asked.mark, Mark::Seen);
        self.asked.iter().filter(is_new).map(|asked| &asked.file)
    }

    /// More is missing than may be: too many in all, or half of what is new there, which is a mirror in the midst of a sync.
    const fn is_refuted(&self) -> bool {
        self.missing > self.bound || (self.new_missing > 0 && 2 * self.new_missing >= self.new)
    }

    /// The first of the missing files that count.
    fn first_missed(&self) -> Option<&Missed> {
        self.asked.iter().find_map(|asked| match &asked.mark {
            Mark::Missed(missed, Fault::Mirror) => {
                Some(missed).filter(|missed| Group::of(&missed.path).is_none())
            }
            _ => None,
        })
    }

    /// What the check proves once nothing is to be asked any more.
    ///
    /// # Errors
    /// The first file that is missing, where more are than may be.
    pub fn result(&self) -> Result<Held, Missed> {
        if let Some(missed) = self.first_missed().filter(|_| self.is_refuted()) {
            return Err(missed.clone());
        }
        let files = self.asked.iter().filter(|asked| matches!(asked.mark, Mark::Seen)).count();
        let left_out = |group: &Group| self.groups[*group as usize].is_left_out();
        let missed = self.asked.iter().filter_map(|asked| match &asked.mark {
            Mark::Missed(missed, fault) => Some((missed.path.clone(), *fault)),
            Mark::Seen | Mark::Open => None,
        });
        Ok(Held { files, exceptions: Exceptions::new(Group::ALL.into_iter().filter(left_out), missed) })
    }
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
