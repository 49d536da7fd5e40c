//! Dates in headers (RFC 9110 section 5.6.7).

use crate::clock::Timestamp;
use http::HeaderValue;
use std::time::SystemTime;

/// The last second of the year 9999, after which the format has no room.
const LAST: Timestamp = Timestamp::from_secs(253_402_300_799);

/// As an IMF-fixdate, in whole seconds, rounded down; later than the year 9999 is its last second.
#[must_use]
pub fn format(time: Timestamp) -> HeaderValue {
    HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::from(time.min(LAST))))
        .expect("a date is a header value")
}

/// Any of the three formats; `None` for what is no date or lies before 1970.
#[must_use]
pub fn parse(value: &HeaderValue) -> Option<Timestamp> {
    let text = value.to_str().ok()?.trim();
    httpdate::parse_http_date(text).ok().map(Timestamp::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formats() {
        let time = Timestamp::from_millis(784_111_777_900);
        assert_eq!(format(time), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(Timestamp::from_millis(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
        let whole = Some(Timestamp::from_secs(784_111_777));
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", whole),
            ("Sunday, 06-Nov-94 08:49:37 GMT", whole),
            ("Sun Nov  6 08:49:37 1994", whole),
            ("Sun, 31 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1894 08:49:37 GMT", None),
            ("0", None),
            ("", None),
        ] {
            assert_eq!(parse(&HeaderValue::from_static(text)), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(secs in 0..253_402_300_800_u64) {
            let time = Timestamp::from_secs(secs);
            prop_assert_eq!(parse(&format(time)), Some(time));
        }

        #[test]
        fn any_header_is_harmless(bytes in prop::collection::vec(prop_oneof![32_u8..127, 128_u8..=255], 0..40)) {
            let _ = parse(&HeaderValue::from_bytes(&bytes).unwrap());
        }
    }
}
