//! How far a reader looks ahead: what the origin is asked for before it is read. Pure.
//!
//! A reader that has taken little asks for little ahead, so that a client that leaves has cost the origin about what it took and
//! no more than a few MiB beyond. The window grows with what is taken, so that a fast reader never waits for a request.

use super::spans::Spans;
use super::wants::BLOCK_BYTES;
use crate::http::ByteRange;

/// So much ahead at first.
const FIRST_BYTES: u64 = 2 << 20;
/// So much at most: what a line of 10 Gbit/s carries in 50 ms.
const MOST_BYTES: u64 = 64 << 20;
/// Of several ranges at first: as many blocks as are fetched at once.
const FIRST_OF_RANGES_BYTES: u64 = 8 * BLOCK_BYTES;

/// A place in a list of ranges: which one, and an offset of the object.
pub(super) type Mark = (usize, u64);

/// The window of a reader that has taken so many bytes.
pub(super) fn window(taken: u64) -> u64 {
    taken.clamp(FIRST_BYTES, MOST_BYTES)
}

/// What is to be fetched for a reader.
#[derive(Debug)]
pub(super) struct Request {
    /// Whole blocks.
    pub(super) blocks: Spans,
    /// How many bytes of them are read.
    pub(super) read_bytes: u64,
}

/// What one reader of ranges reads, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// In the order in which they are read.
    ranges: Vec<ByteRange>,
    at: Mark,
    taken: u64,
    /// From here on more is to be asked for.
    ask_from: Option<Mark>,
}

impl Reading {
    /// Of these ranges, in this order.
    pub(super) fn of(ranges: &[ByteRange]) -> Self {
        let start = ranges.first().map_or(0, |range| range.start);
        Self { ranges: ranges.to_vec(), at: (0, start), taken: 0, ask_from: Some((0, start)) }
    }

    /// The reader is at the start of `rest`, and goes on to its end: the blocks to ask for now, `None` where those asked for before are
    /// enough.
    pub(super) fn goes_on(&mut self, rest: ByteRange) -> Option<Request> {
        self.moves_to(rest);
        if self.ask_from.is_none_or(|from| self.at < from) {
            return None;
        }
        let (request, ask_from) = self.ahead();
        self.ask_from = ask_from;
        Some(request)
    }

    fn moves_to(&mut self, rest: ByteRange) {
        let (index, offset) = self.at;
        let is_in = |range: &ByteRange| range.end == rest.end && range.start <= rest.start;
        if self.ranges.get(index).is_some_and(is_in) && offset <= rest.start {
            self.taken += rest.start - offset;
            self.at = (index, rest.start);
            return;
        }
        match self.ranges.iter().skip(index + 1).position(is_in) {
            Some(further) => self.at = (index + 1 + further, rest.start),
            // Another range than it said.
            None => *self = Self { taken: self.taken, ..Self::of(&[rest]) },
        }
    }

    /// The blocks within the window, and the place about halfway through them; `None` where nothing comes after them.
    fn ahead(&self) -> (Request, Option<Mark>) {
        let first = if self.ranges.len() > 1 { FIRST_OF_RANGES_BYTES } else { FIRST_BYTES };
        let window = window(self.taken).max(first);
        let (mut request, mut half, mut left) =
            (Request { blocks: Spans::default(), read_bytes: 0 }, None, window);
        let (index, offset) = self.at;
        for (further, range) in self.ranges[index..].iter().enumerate() {
            let start = if further == 0 { offset } else { range.start };
            if left == 0 {
                return (request, half);
            }
            let before = request.blocks.bytes();
            let end = range.end.min(start.saturating_add(left));
            request.blocks.insert(whole_blocks(ByteRange { start, end }));
            request.read_bytes = request.read_bytes.saturating_add(end - start);
            left = left.saturating_sub(request.blocks.bytes() - before);
            if left <= window / 2 && half.is_none() {
                let into = (end - start).min(window / 2);
                half = Some((index + further, start + into));
            }
            if end < range.end {
                return (request, half.or(Some((index + further, start + (end - start) / 2))));
            }
        }
        (request, None)
    }
}

fn whole_blocks(range: ByteRange) -> ByteRange {
    let start = range.start - range.start % BLOCK_BYTES;
    ByteRange { start, end: range.end.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    #[test]
    fn a_long_range_is_asked_for_as_it_is_read() {
        let all = range(0, 1 << 30);
        let mut reading = Reading::of(&[all]);
        let (mut at, mut asked) = (0, 0);
        while at < all.end {
            if let Some(Request { blocks, .. }) = reading.goes_on(range(at, all.end)) {
                assert!(blocks.end_of(at).is_some(), "what is read next is asked for");
                asked = asked.max(blocks.end());
            }
            assert!(asked > at && asked <= all.end, "{at} {asked}");
            assert!(asked <= at + window(at) + MIB, "no more ahead than was taken: {at} {asked}");
            at += MIB / 2;
        }
    }

    #[test]
    fn tiny_ranges_are_asked_for_a_few_blocks_at_a_time() {
        let ranges: Vec<_> = (0..1024).map(|n| range(n * MIB, n * MIB + 1)).collect();
        let mut reading = Reading::of(&ranges);
        let first = reading.goes_on(ranges[0]).unwrap();
        assert_eq!((first.blocks.bytes(), first.read_bytes), (8 * MIB, 8));
        let mut told = 1;
        for (n, one) in ranges.iter().enumerate().skip(1) {
            if let Some(Request { blocks, .. }) = reading.goes_on(*one) {
                told += 1;
                assert!(blocks.end_of(one.start).is_some() && blocks.bytes() <= 8 * MIB, "{n}");
            }
        }
        assert!((200..400).contains(&told), "several at a time: {told}");
    }

    proptest! {
        #[test]
        fn what_is_read_was_asked_for(
            lengths in prop::collection::vec((0_u64..100_000_000, 1_u64..20_000_000), 1..20), step in 1_u64..5_000_000,
        ) {
            let ranges: Vec<_> = lengths.iter().map(|(start, length)| range(*start, start + length)).collect();
            let mut reading = Reading::of(&ranges);
            let mut asked = Spans::default();
            for one in &ranges {
                let mut at = one.start;
                while at < one.end {
                    if let Some(request) = reading.goes_on(range(at, one.end)) {

                        asked = request.blocks;
                    }
                    prop_assert!(asked.end_of(at).is_some(), "{at} of {one:?} in {ranges:?}");
                    at = (at + step).min(asked.end_of(at).unwrap());
                }
            }
        }
    }
}
