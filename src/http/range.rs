//! `Range` requests (RFC 9110 section 14).

use http::HeaderValue;

/// The most ranges that one request may ask for; zchunk asks for up to 256. A request for more gets the whole.
pub const MAX_RANGES: usize = 1024;

/// Bytes `start` up to but not including `end` of a representation. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The byte after the last one.
    pub end: u64,
}

impl ByteRange {
    /// Bytes in the range.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }
}

/// What of a representation a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requested {
    /// All of it: 200.
    Whole,
    /// These, in the order asked, overlaps and all: 206. Never empty.
    Ranges(Vec<ByteRange>),
    /// Nothing that exists: 416.
    Unsatisfiable,
}

/// One range as written.
enum Asked {
    From(u64),
    FromTo(u64, u64),
    Last(u64),
}

/// Reads a `Range` header for a representation of `length` bytes.
///
/// Another unit, a malformed header, and more than [`MAX_RANGES`] mean the whole (14.2 lets a server ignore the header), as do
/// three or more ranges that together exceed the representation: no request is answered with much more than one that has
/// no ranges (17.15).
#[must_use]
pub fn requested(range_header: Option<&HeaderValue>, length: u64) -> Requested {
    let Some(asked) = range_header.and_then(|value| parse(value.as_bytes())) else {
        return Requested::Whole;
    };
    let mut ranges = Vec::with_capacity(asked.len());
    for one in asked {
        let range = match one {
            Asked::From(start) => ByteRange { start, end: length },
            Asked::FromTo(start, last) => ByteRange { start, end: last.saturating_add(1).min(length) },
            // Satisfiable by 14.1.2, but no Content-Range can say "nothing of nothing".
            Asked::Last(1..) if length == 0 => return Requested::Whole,
            Asked::Last(count) => ByteRange { start: length.saturating_sub(count), end: length },
        };
        if range.start < range.end {
            ranges.push(range);
        }
    }
    match ranges.len() {
        0 => Requested::Unsatisfiable,
        1 | 2 => Requested::Ranges(ranges),
        _ => {
            let total = ranges.iter().fold(0_u64, |total, range| total.saturating_add(range.len()));
            if total > length { Requested::Whole } else { Requested::Ranges(ranges) }
        }
    }
}

/// `None` for what 14.2 tells to ignore.
fn parse(value: &[u8]) -> Option<Vec<Asked>> {
    let (unit, set) = std::str::from_utf8(value).ok()?.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut asked = Vec::new();
    for one in set.split(',').map(|one| one.trim_matches([' ', '\t'])) {
        if one.is_empty() {
            continue; // 5.6.1.2: empty list elements are to be ignored
        }
        if asked.len() == MAX_RANGES {
            return None;
        }
        let (first, last) = one.split_once('-')?;
        asked.push(match (first, last) {
            ("", count) => Asked::Last(number(count)?),
            (first, "") => Asked::From(number(first)?),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                Asked::FromTo(first, last)
            }
        });
    }
    (!asked.is_empty()).then_some(asked)
}

/// Digits only; what exceeds a `u64` exceeds every length too.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// `Content-Range` of a 206, or of one of its parts.
#[must_use]
pub fn content_range(range: ByteRange, length: u64) -> HeaderValue {
    ascii(format!("bytes {}-{}/{length}", range.start, range.end - 1))
}

/// `Content-Range` of a 416.
#[must_use]
pub fn unsatisfied_range(length: u64) -> HeaderValue {
    ascii(format!("bytes */{length}"))
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("words and numbers are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(header: &str, length: u64) -> Requested {
        requested(Some(&HeaderValue::from_str(header).unwrap()), length)
    }

    fn ranges(pairs: &[(u64, u64)]) -> Requested {
        Requested::Ranges(pairs.iter().map(|&(start, end)| ByteRange { start, end }).collect())
    }

    #[test]
    fn headers() {
        assert_eq!(requested(None, 10), Requested::Whole);
        for (header, length, expected) in [
            ("bytes=0-", 10, ranges(&[(0, 10)])),
            ("bytes=3-", 10, ranges(&[(3, 10)])),
            ("BYTES = 3-5", 10, ranges(&[(3, 6)])),
            ("bytes=3-99999999999999999999", 10, ranges(&[(3, 10)])),
            ("bytes=-3", 10, ranges(&[(7, 10)])),
            ("bytes=-30", 10, ranges(&[(0, 10)])),
            ("bytes=9-9, ,0-0 ,\t5-6", 10, ranges(&[(9, 10), (0, 1), (5, 7)])),
            ("bytes=0-3,2-5", 10, ranges(&[(0, 4), (2, 6)])),
            ("bytes=0-,0-", 10, ranges(&[(0, 10), (0, 10)])),
            ("bytes=50-,2-3,-0", 10, ranges(&[(2, 4)])),
            ("bytes=0-3,4-6,7-", 10, ranges(&[(0, 4), (4, 7), (7, 10)])),
            ("bytes=0-3,3-6,7-", 10, Requested::Whole),
            ("bytes=10-", 10, Requested::Unsatisfiable),
            ("bytes=99999999999999999999-", 10, Requested::Unsatisfiable),
            ("bytes=-0", 10, Requested::Unsatisfiable),
            ("bytes=0-", 0, Requested::Unsatisfiable),
            ("bytes=-5", 0, Requested::Whole),
            ("bytes=5-3", 10, Requested::Whole),
            ("bytes=0-1,5-3", 10, Requested::Whole),
            ("bytes=", 10, Requested::Whole),
            ("bytes=,", 10, Requested::Whole),
            ("bytes=-", 10, Requested::Whole),
            ("bytes=+1-2", 10, Requested::Whole),
            ("bytes=1-2-3", 10, Requested::Whole),
            ("bytes=a-", 10, Requested::Whole),
            ("bytes 0-1", 10, Requested::Whole),
            ("seconds=0-1", 10, Requested::Whole),
        ] {
            assert_eq!(ask(header, length), expected, "{header} of {length}");
        }
        assert_eq!(content_range(ByteRange { start: 3, end: 6 }, 10), "bytes 3-5/10");
        assert_eq!(unsatisfied_range(10), "bytes */10");
    }

    #[test]
    fn number_of_ranges_is_bounded() {
        let header = |count: u64| {
            let list: Vec<_> = (0..count).rev().map(|n| format!("{}-{}", 2 * n, 2 * n)).collect();
            format!("bytes={}", list.join(","))
        };
        let most = MAX_RANGES as u64;
        let expected: Vec<_> = (0..most).rev().map(|n| (2 * n, 2 * n + 1)).collect();
        assert_eq!(ask(&header(most), 1 << 20), ranges(&expected));
        assert_eq!(ask(&header(most + 1), 1 << 20), Requested::Whole);
    }

    proptest! {
        #[test]
        fn ranges_are_inside_and_in_order(
            asked in prop::collection::vec((0_u64..200, 0_u64..50), 1..20), length in 0_u64..150,
        ) {
            let list: Vec<_> = asked.iter().map(|(start, more)| format!("{start}-{}", start + more)).collect();
            let kept: Vec<_> = asked.iter().filter(|(start, _)| *start < length)
                .map(|&(start, more)| (start, (start + more + 1).min(length))).collect();
            let total: u64 = kept.iter().map(|(start, end)| end - start).sum();
            let expected = match kept.len() {
                0 => Requested::Unsatisfiable,
                3.. if total > length => Requested::Whole,
                _ => ranges(&kept),
            };
            prop_assert_eq!(ask(&format!("bytes={}", list.join(", ")), length), expected);
        }

        #[test]
        fn any_header_is_harmless(header in "(bytes=)?[0-9,=\\- ]{0,40}|\\PC{0,40}", length: u64) {
            let Ok(value) = HeaderValue::from_str(&header) else { return Ok(()) };
            if let Requested::Ranges(ranges) = requested(Some(&value), length) {
                prop_assert!(!ranges.is_empty());
                prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= length));
            }
        }
    }
}
