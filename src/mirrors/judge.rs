//! What the answers of a mirror prove. Pure: no IO, no clock.
//!
//! A mirror shows a generation by its repomd.xml, and holds one when every file in it was seen there. The two differ
//! while it syncs: a proof covers what stayed listed, without a gap, from the oldest to the newest of the generations
//! that it was proven for and has shown since ([`Covered::covers`](crate::policy::Covered::covers)). [`unproven`] lists the rest of a generation; once all
//! of that was seen, the proof is that generation's. Files that the mirror lacks for itself are exceptions of it, within a
//! bound ([`super::findings`]).
//!
//! A mirror that shows a generation that is unknown here may have deleted anything: its proof covers nothing (`shown` is
//! 0) until this node flips to that very generation.

use super::findings::{Base, Held, bound};
use crate::clock::Timestamp;
use crate::http::ByteRange;
use crate::policy::{Exceptions, Fault, Pair, Proof};
use crate::repo::{Digest, Entry, History, Sha256};

/// Files that are drawn before all are looked at for one that fits: almost all do.
const DRAWS: u32 = 8;
/// Files as new as one that is gone, and others, that are asked for as well: is it gone alone?
const WITNESSES: (usize, usize) = (8, 4);
/// Bytes of a sample: a few packets.
pub const SAMPLE_BYTES: u64 = 16 << 10;
/// Bytes of a sample that is to tell how fast the mirror is.
pub const LONG_SAMPLE_BYTES: u64 = 1 << 20;

/// What a mirror has at the place of a repomd.xml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A document of this SHA-256.
    Shows(Sha256),
    /// No repomd.xml, in words: whoever has none doesn't carry the repo (any more).
    Gone(String),
    /// An answer that says nothing of the repo, in words.
    Unclear(String),
}

/// What has to be asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Rest,
    /// All [`unproven`] files of this generation.
    Verify(u32),
    /// One file that this proof covers.
    Spot(Proof),
}

/// A file as a mirror should have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Below the repo's root.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Of all of them, where the repo says so.
    pub digest: Option<Digest>,
}

/// A file that a mirror did not show as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Below the repo's root.
    pub path: String,
    /// In words that follow the path.
    pub why: String,
    /// The mirror gave no answer, or an error of its own: the file may well be there.
    pub transient: bool,
}

/// A file that a proof covers, and that the mirror was found to lack all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapse {
    /// The file.
    pub missed: Missed,
    /// Whose fault it is.
    pub fault: Fault,
    /// One of its [`witnesses`] is gone, too.
    pub more: bool,
}

/// Takes the answer to a GET of repomd.xml.
#[must_use]
pub fn look(history: &History, old: &Pair, seen: Seen, now: Timestamp) -> (Pair, Next) {
    let mut pair = Pair { checked: now, seen: None, ..old.clone() };
    match seen {
        Seen::Shows(id) => {
            pair.seen = Some(id);
            // What it deleted under another repomd.xml, of which nothing is known here, can't be told.
            pair.proof = old.proof.filter(|proof| proof.shown > 0 || old.seen == pair.seen);
            let next = settle(history, &mut pair);
            if old.seen == pair.seen && Base::of(old).is_of(&pair) {
                pair.note.clone_from(&old.note);
            }
            return (pair, next);
        }
        Seen::Gone(words) => {
            (pair.proof, pair.exceptions) = (None, Exceptions::default());
            pair.note = words.into();
        }
        Seen::Unclear(words) => pair.note = (words + &still(pair.proof)).into(),
    }
    (pair, Next::Rest)
}

/// Takes a flip: what the mirror showed last now means something else.
#[must_use]
pub fn flipped(history: &History, old: &Pair) -> Pair {
    let mut pair = old.clone();
    settle(history, &mut pair);
    pair
}

/// Takes the result of a [`Next::Verify`]: what is held, or a file that was not seen. `base` is what the files were picked
/// against; `None` if the pair has another by now, so that the result says nothing.
#[must_use]
pub fn verified(
    history: &History,
    old: &Pair,
    (target, base): (u32, &Base),
    result: &Result<Held, Missed>,
    now: Timestamp,
) -> Option<Pair> {
    if !base.is_of(old) || history.by_sequence(target).is_none() {
        return None;
    }
    let mut pair = old.clone();
    match result {
        Ok(held) => {
            let was_proven = old.proof.is_some_and(|proof| proof.sequence == target);
            pair.proof = Some(Proof { sequence: target, shown: target, verified: now });
            pair.since = if was_proven { old.since } else { now };
            pair.exceptions = held.exceptions.clone();
            pair.note = holds(history, &pair, target, Some(held.files)).into();
        }
        Err(missed) => {
            let (Missed { path, why, .. }, still) = (missed, still(pair.proof));
            pair.note = format!("shows generation {target}, but {path} {why}{still}").into();
        }
    }
    Some(pair)
}

/// Takes the result of a [`Next::Spot`].
#[must_use]
pub fn spotted(history: &History, old: &Pair, result: Result<(), Lapse>, now: Timestamp) -> Pair {
    match result {
        Ok(()) => Pair { proof: old.proof.map(|proof| Proof { verified: now, ..proof }), ..old.clone() },
        Err(lapse) if lapse.missed.transient => old.clone(),
        Err(lapse) => {
            let Missed { path, why, .. } = &lapse.missed;
            lapsed(history, old, &lapse, &format!("{path} {why}, though it was proven"))
        }
    }
}

/// What a proof is worth that a file contradicts: one file alone is an exception of it, while there may be more. If others
/// are gone as well, it is no proof.
#[must_use]
pub fn lapsed(history: &History, old: &Pair, lapse: &Lapse, note: &str) -> Pair {
    let Some(proof) = old.proof else { return old.clone() };
    let exceptions = old.exceptions.with(&lapse.missed.path, lapse.fault);
    let listed = history.by_sequence(proof.sequence).map_or(0, |generation| generation.catalogue.len());
    if lapse.more || exceptions.counted() > bound(listed) {
        return refuted(old, note);
    }
    let note = format!("{note}; still proven for generation {}{}", proof.sequence, exceptions.words());
    Pair { exceptions, note: note.into(), ..old.clone() }
}

/// Files that a mirror's proof covers and that are asked for once the one at `path` turned out to be gone: those that came
/// with it before others.
#[must_use]
pub fn witnesses(history: &History, pair: &Pair, path: &str, rng: &mut fastrand::Rng) -> Vec<File> {
    let Some(proof) = pair.proof else { return Vec::new() };
    let Some(generation) = history.by_sequence(proof.sequence) else { return Vec::new() };
    let base = Base::of(pair);
    let since = generation.catalogue.find(path).map(|entry| entry.since);
    let is_other = |(other, entry): &(&str, Entry)| {
        *other != path && covers(history, &base, proof.sequence, other, entry)
    };
    let others = || generation.catalogue.iter().filter(is_other);
    let as_new = others().filter(|(_, entry)| Some(entry.since) == since);
    let mut found = rng.choose_multiple(as_new, WITNESSES.0);
    found.extend(rng.choose_multiple(others(), WITNESSES.1));
    found.into_iter().map(|(path, entry)| file(path, &entry)).collect()
}

/// Drops the proof, and all that would let the next look rest on what was known.
#[must_use]
pub fn refuted(old: &Pair, note: &str) -> Pair {
    Pair { note: note.into(), checked: old.checked, ..Pair::default() }
}

/// The files of generation `target` that a mirror that stands so is not known to hold: its exceptions, all of them and first,
/// and at most `most` others, picked at random.
#[must_use]
pub fn unproven(
    history: &History,
    base: &Base,
    target: u32,
    most: usize,
    rng: &mut fastrand::Rng,
) -> Vec<File> {
    let files = || history.to_check(target, None);
    let is_excepted = |path: &str| base.exceptions.contains(path);
    let mut excepted: Vec<_> = files().filter(|(path, _)| is_excepted(path)).collect();
    let others =
        files().filter(|(path, entry)| !is_excepted(path) && !covers(history, base, target, path, entry));
    let mut others = rng.choose_multiple(others, most);
    excepted.sort_unstable_by_key(|(path, _)| *path);
    others.sort_unstable_by_key(|(path, _)| *path);
    excepted.into_iter().chain(others).map(|(path, entry)| file(path, &entry)).collect()
}

/// One file that the proof covers and a range can be asked of, at random.
#[must_use]
pub fn spot(history: &History, pair: &Pair, rng: &mut fastrand::Rng) -> Option<File> {
    let (sequence, base) = (pair.proof?.sequence, Base::of(pair));
    let fits =
        |(path, entry): &(&str, Entry)| entry.size > 0 && covers(history, &base, sequence, path, entry);
    let catalogue = &history.by_sequence(sequence)?.catalogue;
    let mut drawn = (0..DRAWS).filter_map(|_| catalogue.at(rng.usize(..catalogue.len().max(1))));
    let (path, entry) = match drawn.find(fits) {
        Some(drawn) => drawn,
        None => rng.choose_multiple(catalogue.iter().filter(fits), 1).pop()?,
    };
    Some(file(path, &entry))
}

fn file(path: &str, entry: &Entry) -> File {
    File { path: path.to_owned(), size: entry.size, digest: entry.digest }
}

/// A part of a file, at random: to be compared with the node's own bytes.
#[must_use]
pub fn sample(file: &File, bytes: u64, rng: &mut fastrand::Rng) -> ByteRange {
    let start = rng.u64(..=file.size.saturating_sub(bytes));
    ByteRange { start, end: file.size.min(start + bytes) }
}

/// Whether generation `target` lists these very bytes there.
#[must_use]
pub fn lists(history: &History, target: u32, file: &File) -> bool {
    let entry = history.by_sequence(target).and_then(|generation| generation.catalogue.find(&file.path));
    entry.is_some_and(|entry| (entry.size, entry.digest) == (file.size, file.digest))
}

/// The file that generation `target` lists at `path`.
#[must_use]
pub fn listed(history: &History, target: u32, path: &str) -> Option<File> {
    history.by_sequence(target)?.catalogue.find(path).map(|entry| file(path, &entry))
}

/// Files of generation `target`, at random, of which parts can be compared: at most `most`.
#[must_use]
pub fn comparable(history: &History, target: u32, most: usize, rng: &mut fastrand::Rng) -> Vec<File> {
    let files = history.to_check(target, None).filter(|(_, entry)| entry.size > 0);
    rng.choose_multiple(files, most).into_iter().map(|(path, entry)| file(path, &entry)).collect()
}

/// Whether the proof covers a file of generation `target`: it is in the newest generation of all concerned as well, and
/// listed without a gap since the oldest.
fn covers(history: &History, base: &Base, target: u32, path: &str, entry: &Entry) -> bool {
    let Some(proof) = base.proof.filter(|_| !base.exceptions.contains(path)) else { return false };
    let (oldest, newest) = (proof.sequence.min(proof.shown), proof.sequence.max(proof.shown));
    if target >= newest {
        return entry.since <= oldest;
    }
    let there = history.by_sequence(newest).and_then(|generation| generation.catalogue.find(path));
    there.is_some_and(|there| {
        (there.size, there.digest) == (entry.size, entry.digest) && there.since <= oldest.min(target)
    })
}

/// Brings proof and note in line with what the mirror shows, and says what is to be asked.
fn settle(history: &History, pair: &mut Pair) -> Next {
    let next = settled(history, pair);
    if pair.proof.is_none() {
        pair.exceptions = Exceptions::default();
    }
    next
}

fn settled(history: &History, pair: &mut Pair) -> Next {
    let kept = |proof: &Proof| history.by_sequence(proof.sequence).is_some();
    if pair.proof.as_ref().is_some_and(|proof| !kept(proof)) {
        pair.proof = None;
        pair.note = "what it was proven for is no longer kept here".into();
    }
    let Some(id) = pair.seen else { return Next::Rest };
    let Some(current) = history.current() else {
        pair.note = "nothing to compare it with: the origin was not seen yet".into();
        return Next::Rest;
    };
    let Some(shown) = history.by_id(&id).map(|generation| generation.sequence) else {
        // It comes to be known by a flip, which is newer than all that the proof could remember.
        let is_widened_by_newer = |proof: &Proof| proof.shown == 0 || proof.shown >= proof.sequence;
        pair.proof = pair.proof.filter(is_widened_by_newer).map(|proof| Proof { shown: 0, ..proof });
        let id = &id.hex()[..12];
        pair.note =
            format!("shows repomd.xml of an unknown generation ({id}…): no redirects until it is known")
                .into();
        return Next::Rest;
    };
    pair.proof = pair.proof.and_then(|proof| match proof.shown {
        // This node has flipped to what the mirror showed before it.
        0 => widened(Proof { shown: proof.sequence, ..proof }, shown),
        _ => widened(proof, shown),
    });
    match pair.proof {
        Some(proof) if proof.sequence == shown && proof.shown == shown => {
            pair.note = holds(history, pair, shown, None).into();
            Next::Spot(proof)
        }
        proof => {
            let (stale, of, still) = (stale(history, shown), current.sequence, still(proof));
            pair.note = format!("{stale}shows generation {shown} of {of}, not checked yet{still}").into();
            Next::Verify(shown)
        }
    }
}

/// The proof of a mirror that now shows `shown`. None if it went to both sides of what it was proven for: a proof
/// remembers one.
fn widened(proof: Proof, shown: u32) -> Option<Proof> {
    let oldest = proof.sequence.min(proof.shown).min(shown);
    let newest = proof.sequence.max(proof.shown).max(shown);
    match proof.sequence {
        sequence if sequence == oldest => Some(Proof { shown: newest, ..proof }),
        sequence if sequence == newest => Some(Proof { shown: oldest, ..proof }),
        _ => None,
    }
}

fn stale(history: &History, shown: u32) -> &'static str {
    let current = history.current().map(|generation| generation.sequence);
    if current == Some(shown) { "" } else { "stale: " }
}

fn holds(history: &History, pair: &Pair, sequence: u32, files: Option<usize>) -> String {
    let checked = files.map(|files| format!(" ({files} files checked)")).unwrap_or_default();
    let except = pair.exceptions.words();
    match history.current().map(|generation| generation.sequence) {
        Some(current) if current != sequence => {
            format!("stale: shows generation {sequence} of {current}, proven for it{checked}{except}")
        }
        _ => format!("proven: holds generation {sequence}{checked}{except}"),
    }
}

fn still(proof: Option<Proof>) -> String {
    let proof = proof.filter(|proof| proof.shown > 0);
    proof.map(|proof| format!("; still proven for generation {}", proof.sequence)).unwrap_or_default()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
