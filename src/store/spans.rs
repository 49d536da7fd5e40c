//! Which bytes of an object are there: a set of byte ranges. Pure.

use crate::http::ByteRange;

/// Byte ranges in order, none of which touches the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<ByteRange>);

impl Spans {
    /// Adds `range`, which may overlap with what is there.
    pub(super) fn insert(&mut self, range: ByteRange) {
        // Those that overlap with it or touch it become one with it.
        let first = self.0.partition_point(|span| span.end < range.start);
        let last = self.0.partition_point(|span| span.start <= range.end);
        let joined = self.0[first..last].iter().fold(range, |joined, span| ByteRange {
            start: joined.start.min(span.start),
            end: joined.end.max(span.end),
        });
        self.0.splice(first..last, [joined]);
    }

    /// Takes `range` out.
    pub(super) fn remove(&mut self, range: ByteRange) {
        let first = self.0.partition_point(|span| span.end <= range.start);
        let last = self.0.partition_point(|span| span.start < range.end);
        let before = self.0[first..last].first().filter(|span| span.start < range.start);
        let after = self.0[first..last].last().filter(|span| span.end > range.end);
        let rest = [
            before.map(|span| ByteRange { start: span.start, end: range.start }),
            after.map(|span| ByteRange { start: range.end, end: span.end }),
        ];
        self.0.splice(first..last, rest.into_iter().flatten());
    }

    /// Where the span ends that `offset` lies in.
    pub(super) fn end_of(&self, offset: u64) -> Option<u64> {
        let next = self.0.partition_point(|span| span.start <= offset);
        self.0[..next].last().map(|span| span.end).filter(|end| *end > offset)
    }

    /// Where the first span begins that begins at `offset` or after it.
    pub(super) fn next_start(&self, offset: u64) -> Option<u64> {
        self.0.get(self.0.partition_point(|span| span.start < offset)).map(|span| span.start)
    }

    /// What of `within` is not there, in order.
    pub(super) fn gaps(&self, within: ByteRange) -> Vec<ByteRange> {
        let mut gaps = Vec::new();
        let mut at = within.start;
        while at < within.end {
            let Some(end) = self.end_of(at) else {
                let end = self.next_start(at).unwrap_or(u64::MAX).min(within.end);
                gaps.push(ByteRange { start: at, end });
                at = end;
                continue;
            };
            at = end;
        }
        gaps
    }

    /// Whether all of the first `length` bytes are there.
    pub(super) fn is_whole(&self, length: u64) -> bool {
        length == 0 || self.end_of(0).is_some_and(|end| end >= length)
    }

    /// Bytes in the set.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|span| span.len()).sum()
    }

    /// The end of the last span; 0 without any.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(0, |span| span.end)
    }

    pub(super) fn first(&self) -> Option<ByteRange> {
        self.0.first().copied()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<ByteRange> for Spans {
    fn from_iter<I: IntoIterator<Item = ByteRange>>(ranges: I) -> Self {
        let mut spans = Self::default();
        ranges.into_iter().for_each(|range| spans.insert(range));
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    #[test]
    fn neighbours_become_one() {
        let mut spans: Spans = [range(10, 20), range(0, 5), range(20, 30), range(4, 6)].into_iter().collect();
        assert_eq!(spans.iter().collect::<Vec<_>>(), [range(0, 6), range(10, 30)]);
        assert_eq!((spans.bytes(), spans.end(), spans.end_of(6), spans.end_of(10)), (26, 30, None, Some(30)));
        assert_eq!(spans.gaps(range(3, 40)), [range(6, 10), range(30, 40)]);
        assert_eq!(
            (spans.next_start(0), spans.next_start(1), spans.next_start(11)),
            (Some(0), Some(10), None)
        );
        spans.remove(range(12, 14));
        assert_eq!(spans.iter().collect::<Vec<_>>(), [range(0, 6), range(10, 12), range(14, 30)]);
        assert!(spans.is_whole(6) && spans.is_whole(0) && !spans.is_whole(7));
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_bytes(
            steps in prop::collection::vec((any::<bool>(), 0_u64..60, 1_u64..20), 0..30), within in (0_u64..60, 1_u64..40),
        ) {
            let (mut spans, mut bytes) = (Spans::default(), [false; 128]);
            for (inserts, start, length) in steps {
                let one = range(start, start + length);
                if inserts { spans.insert(one) } else { spans.remove(one) }
                bytes[start as usize..(start + length) as usize].fill(inserts);
            }
            prop_assert!(spans.0.windows(2).all(|pair| pair[0].end < pair[1].start), "{:?}", spans);
            prop_assert!(spans.iter().all(|span| span.start < span.end));
            for offset in 0..100_u64 {
                let end = (offset..).find(|at| !bytes[*at as usize]).unwrap();
                prop_assert_eq!(spans.end_of(offset), Some(end).filter(|end| *end > offset));
            }
            prop_assert_eq!(spans.bytes(), bytes.iter().filter(|there| **there).count() as u64);
            let within = range(within.0, within.0 + within.1);
            let missing: u64 = spans.gaps(within).into_iter().map(ByteRange::len).sum();
            let expected = bytes[within.start as usize..within.end as usize].iter().filter(|there| !**there).count();
            prop_assert_eq!(missing, expected as u64);
            prop_assert!(spans.gaps(within).iter().all(|gap| gap.start >= within.start && gap.end <= within.end));
        }
    }
}
