//! The line out of a region: who gets how much of it, as a fluid.
//!
//! Transfers of the same link are served alike, so that one sum tells what each of them has had: a transfer ends when that sum
//! has grown by its bytes. While not all links can be filled, each gets the same, and no more than its link (max-min fairness,
//! which is what the node's turns come to).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The line. Bytes are those on the wire of all hosts that a transfer stands for.
#[derive(Debug)]
pub struct Line {
    bytes_per_second: f64,
    /// The slowest links first.
    links: Vec<Link>,
    at: f64,
    /// Bytes since the start.
    sent: f64,
}

#[derive(Debug)]
struct Link {
    /// At most, for each transfer.
    bytes_per_second: f64,
    /// As it is now.
    rate: f64,
    /// What a transfer has had that was there from the start.
    served: f64,
    /// By the value of `served` with which they end.
    ends: BinaryHeap<Reverse<(Bytes, u64)>>,
}

/// Ordered as numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bytes(f64);

impl Eq for Bytes {}

impl PartialOrd for Bytes {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bytes {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Line {
    /// Of so many bytes per second, for links of so many.
    ///
    /// # Panics
    /// Where links don't come in the order of their rates.
    #[must_use]
    pub fn new(bytes_per_second: f64, links: impl IntoIterator<Item = f64>) -> Self {
        let link = |bytes_per_second| Link {
            bytes_per_second,
            rate: bytes_per_second,
            served: 0.0,
            ends: BinaryHeap::new(),
        };
        let links: Vec<Link> = links.into_iter().map(link).collect();
        assert!(
            links.is_sorted_by(|a, b| a.bytes_per_second <= b.bytes_per_second),
            "the slowest link first"
        );
        Self { bytes_per_second, links, at: 0.0, sent: 0.0 }
    }

    /// A transfer of `bytes` begins on link number `link` at `now`; it is told by `number` when it ends.
    pub fn join(&mut self, link: usize, bytes: f64, number: u64, now: f64) {
        self.advance(now);
        let link = &mut self.links[link];
        link.ends.push(Reverse((Bytes(link.served + bytes), number)));
        self.share();
    }

    /// When the next transfer ends, unless others begin before.
    #[must_use]
    pub fn next_end(&self) -> Option<f64> {
        let end = |link: &Link| {
            let Reverse((Bytes(bytes), _)) = link.ends.peek()?;
            Some(self.at + ((bytes - link.served) / link.rate).max(0.0))
        };
        self.links.iter().filter_map(end).min_by(f64::total_cmp)
    }

    /// The number of a transfer that has ended by `now`.
    pub fn ended(&mut self, now: f64) -> Option<u64> {
        self.advance(now);
        // What is left after rounding takes less than a millionth of a second.
        let is_over = |link: &Link, Bytes(bytes)| bytes - link.served <= link.rate * 1e-6;
        let found = self.links.iter_mut().find_map(|link| {
            let Reverse((end, number)) = *link.ends.peek()?;
            is_over(link, end).then(|| {
                link.ends.pop();
                number
            })
        });
        if found.is_some() {
            self.share();
        }
        found
    }

    /// Bytes that were sent until `now`.
    pub fn sent(&mut self, now: f64) -> f64 {
        self.advance(now);
        self.sent
    }

    /// Bytes per second that a transfer on link number `link` gets now.
    #[must_use]
    pub fn rate(&self, link: usize) -> f64 {
        self.links[link].rate
    }

    fn advance(&mut self, now: f64) {
        let elapsed = (now - self.at).max(0.0);
        for link in &mut self.links {
            link.served += link.rate * elapsed;
            self.sent += link.rate * elapsed * link.ends.len() as f64;
        }
        self.at = self.at.max(now);
    }

    /// Each link in turn, the slowest first, gets its rate or an equal part of what is left.
    fn share(&mut self) {
        let mut left = self.bytes_per_second;
        let mut transfers: usize = self.links.iter().map(|link| link.ends.len()).sum();
        for link in &mut self.links {
            let fair = if transfers == 0 { f64::INFINITY } else { left / transfers as f64 };
            link.rate = link.bytes_per_second.min(fair.max(0.0));
            left -= link.rate * link.ends.len() as f64;
            transfers -= link.ends.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(line: &mut Line) -> Vec<(f64, u64)> {
        let mut ends = Vec::new();
        while let Some(at) = line.next_end() {
            while let Some(number) = line.ended(at) {
                ends.push((at, number));
            }
        }
        ends
    }

    #[test]
    fn links_are_filled_while_there_is_room() {
        let mut line = Line::new(1000.0, [100.0, 400.0]);
        line.join(0, 100.0, 1, 0.0);
        line.join(1, 800.0, 2, 0.0);
        assert_eq!(run(&mut line), [(1.0, 1), (2.0, 2)]);
        assert!((line.sent(2.0) - 900.0).abs() < 1e-6);
    }

    #[test]
    fn what_is_short_is_shared() {
        let mut line = Line::new(100.0, [10.0, 1000.0]);
        // One gets its 10, two the rest in halves; once the first of them is over, the other gets it all.
        line.join(0, 100.0, 1, 0.0);
        line.join(1, 45.0, 2, 0.0);
        line.join(1, 135.0, 3, 0.0);
        assert_eq!(line.rate(1), 45.0);
        let ends = run(&mut line);
        assert_eq!(ends.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [2, 3, 1]);
        assert!((ends[0].0 - 1.0).abs() < 1e-6 && (ends[1].0 - 2.0).abs() < 1e-6, "{ends:?}");
    }

    proptest! {
        /// Nothing is lost, and never is more sent than the line holds.
        #[test]
        fn all_bytes_are_sent_and_no_more_than_fit(
            transfers in prop::collection::vec((0.0..50.0f64, 0usize..3, 1.0..500.0f64), 1..60)
        ) {
            let mut transfers = transfers;
            transfers.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut line = Line::new(50.0, [5.0, 20.0, 1000.0]);
            let (mut bytes, mut over) = (0.0, 0);
            for (number, (at, link, size)) in transfers.iter().enumerate() {
                while let Some(end) = line.next_end().filter(|end| end <= at) {
                    while line.ended(end).is_some() { over += 1; }
                }
                line.join(*link, *size, number as u64, *at);
                bytes += size;
                prop_assert!(line.sent(*at) <= 50.0 * at + 1e-6);
            }
            over += run(&mut line).len();
            prop_assert_eq!(over, transfers.len());
            let end = line.at;
            prop_assert!((line.sent(end) - bytes).abs() < 1e-3 * bytes);
        }
    }
}
