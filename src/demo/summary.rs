//! What freshet promises, held against what happened.

use super::ledger::{Fetched, Totals};
use super::lines::{Lines, percent, seconds, size};
use super::scene::MIRRORS;
use crate::clock::Timestamp;
use crate::repo::Sha256;
use std::time::Duration;

/// A push is to be offered within this time.
const OFFERED_WITHIN: Duration = Duration::from_secs(60);
/// Of the bytes downloaded after a window, at least so many percent are to come from mirrors.
const LEAST_SHARE: u64 = 50;

/// Who served a number of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Files.
    pub files: u64,
    /// Files that were redirected.
    pub redirected: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes of each mirror.
    pub mirror_bytes: [u64; MIRRORS.len()],
}

impl Share {
    /// Of these files.
    #[must_use]
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Fetched>) -> Self {
        let mut share = Self::default();
        for file in files {
            share.files += 1;
            share.bytes += file.bytes;
            if let Some(mirror) = file.mirror {
                share.redirected += 1;
                share.mirror_bytes[mirror] += file.bytes;
            }
        }
        share
    }

    /// Of the bytes, how many percent came from mirrors.
    #[must_use]
    pub fn percent(&self) -> u64 {
        percent(self.mirror_bytes.iter().sum(), self.bytes)
    }

    /// In words: `81 % of the bytes (quick 50 %, stale 31 %)`.
    #[must_use]
    pub fn words(&self) -> String {
        let each = MIRRORS.iter().zip(self.mirror_bytes);
        let each: Vec<String> =
            each.map(|(name, bytes)| format!("{name} {} %", percent(bytes, self.bytes))).collect();
        format!("{} % of the bytes ({})", self.percent(), each.join(", "))
    }

    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.redirected += other.redirected;
        self.bytes += other.bytes;
        for (sum, bytes) in self.mirror_bytes.iter_mut().zip(other.mirror_bytes) {
            *sum += bytes;
        }
    }
}

/// One push, with the times that files are held against.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The generation that it made.
    pub generation: Sha256,
    /// By then the window was open.
    pub open: Timestamp,
    /// It was to end then.
    pub until: Timestamp,
    /// By then it was closed.
    pub closed: Timestamp,
}

impl Span {
    /// What was surely decided inside the window, by clients that had the new metadata. (With the old metadata, a client
    /// may rightly be redirected for a package that the push has removed.)
    #[must_use]
    pub fn inside(&self, files: &[Fetched]) -> Share {
        Share::of(files.iter().filter(|file| {
            file.generation == self.generation && file.asked >= self.open && file.answered < self.until
        }))
    }

    /// What was decided after the window.
    #[must_use]
    pub fn after(&self, files: &[Fetched]) -> Share {
        Share::of(files.iter().filter(|file| file.asked >= self.closed))
    }
}

/// What came of all pushes.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Pushes whose story was told to its end.
    pub pushes: u64,
    /// The longest time from a change at the origin to its offer.
    pub slowest_offer: Duration,
    /// Inside the windows.
    pub inside: Share,
    /// After them.
    pub after: Share,
    /// Clients that came back from a mirror, as the node counts them.
    pub bounces: u64,
}

impl Sums {
    /// Takes a push.
    pub fn add(&mut self, offer: Duration, inside: &Share, after: &Share) {
        self.pushes += 1;
        self.slowest_offer = self.slowest_offer.max(offer);
        self.inside.add(inside);
        self.after.add(after);
    }
}

/// Prints each promise and whether it was kept; whether all were.
pub fn print(lines: Lines, sums: &Sums, totals: &Totals) -> bool {
    lines.plain("\n  summary");
    let mut all = true;
    for (kept, text) in promises(sums, totals) {
        all &= kept;
        lines.plain(format_args!("    {:<6} {text}", if kept { "ok" } else { "WRONG" }));
    }
    all
}

/// Those on pushes only once there was one.
fn promises(sums: &Sums, totals: &Totals) -> Vec<(bool, String)> {
    let Sums { pushes, slowest_offer, inside, after, bounces } = sums;
    let Totals { files, wrong, .. } = totals;
    let (from_node, from_mirrors) = (size(totals.node_bytes), size(totals.mirror_bytes));
    let mut promises = vec![
        (
            *wrong == 0 && *files > 0,
            format!(
                "{files} files: {from_node} from the node, {from_mirrors} from mirrors, {wrong} wrong in size or SHA-256"
            ),
        ),
        (*bounces == 0, format!("{bounces} clients came back from a mirror that failed them")),
    ];
    if *pushes > 0 {
        let (slowest, s) = (seconds(*slowest_offer), if *pushes == 1 { "" } else { "es" });
        promises.extend([
            (
                *slowest_offer <= OFFERED_WITHIN,
                format!("{pushes} push{s}, offered within {slowest} s of the change at the origin"),
            ),
            (
                inside.files > 0 && inside.redirected == 0,
                format!("inside the window {} of {} files redirected", inside.redirected, inside.files),
            ),
            (after.percent() >= LEAST_SHARE, format!("after the window mirrors served {}", after.words())),
        ]);
    }
    promises
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(generation: &[u8], asked: u64, answered: u64, mirror: Option<usize>) -> Fetched {
        let (asked, answered) = (Timestamp::from_millis(asked), Timestamp::from_millis(answered));
        Fetched { generation: Sha256::of(generation), asked, answered, mirror, bytes: 100 }
    }

    #[test]
    fn files_count_only_where_the_node_must_have_decided_inside_or_after_the_window() {
        let [open, until, closed] = [100, 200, 210].map(Timestamp::from_millis);
        let span = Span { generation: Sha256::of(b"new"), open, until, closed };
        let files = [
            file(b"new", 99, 101, Some(0)),  // may have been decided before the window
            file(b"new", 100, 199, None),    // inside
            file(b"new", 150, 200, Some(0)), // may have been decided after it
            file(b"old", 150, 160, Some(1)), // old metadata
            file(b"new", 210, 220, Some(0)), // after
            file(b"old", 211, 220, Some(1)), // after
            file(b"new", 212, 220, None),    // after
        ];
        let (inside, after) = (span.inside(&files), span.after(&files));
        assert_eq!((inside.files, inside.redirected), (1, 0));
        assert_eq!((after.files, after.redirected, after.mirror_bytes), (3, 2, [100, 100]));
        assert_eq!(after.words(), "66 % of the bytes (quick 33 %, stale 33 %)");
    }

    #[test]
    fn each_promise_can_be_broken() {
        let good = Sums {
            pushes: 1,
            slowest_offer: Duration::from_secs(1),
            inside: Share { files: 1, ..Share::default() },
            after: Share { files: 1, redirected: 1, bytes: 100, mirror_bytes: [50, 0] },
            bounces: 0,
        };
        let totals = Totals { files: 1, ..Totals::default() };
        assert!(promises(&good, &totals).iter().all(|(kept, _)| *kept));
        assert_eq!(promises(&Sums::default(), &totals).len(), 2);
        type Break = fn(&mut Sums, &mut Totals);
        let broken: [(usize, Break); 6] = [
            (0, |_, totals| totals.wrong = 1),
            (0, |_, totals| totals.files = 0),
            (1, |sums, _| sums.bounces = 1),
            (2, |sums, _| sums.slowest_offer = Duration::from_secs(61)),
            (3, |sums, _| sums.inside.redirected = 1),
            (4, |sums, _| sums.after.mirror_bytes = [49, 0]),
        ];
        for (index, break_it) in broken {
            let (mut sums, mut totals) = (good.clone(), totals.clone());
            break_it(&mut sums, &mut totals);
            assert!(!promises(&sums, &totals)[index].0, "promise {index}");
        }
    }
}
