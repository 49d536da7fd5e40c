//! Text with a unit: durations, sizes, and bandwidths. A bare number is refused, since nobody can tell what it counts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Bits per second, at most `u64::MAX`; written as `"20 Gbit/s"`, with decimal prefixes, as network hardware is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bandwidth(u64);

/// Names of the units and the bits per second in one; the largest first.
const BANDWIDTHS: [(&str, u64); 5] = [
    ("Tbit/s", 1_000_000_000_000),
    ("Gbit/s", 1_000_000_000),
    ("Mbit/s", 1_000_000),
    ("kbit/s", 1_000),
    ("bit/s", 1),
];

impl Bandwidth {
    /// From bits per second.
    #[must_use]
    pub const fn from_bits_per_second(bits: u64) -> Self {
        Self(bits)
    }

    /// Bits per second.
    #[must_use]
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }

    /// Bytes per second, rounded down.
    #[must_use]
    pub const fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }
}

/// Why a text is not a bandwidth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a bandwidth such as \"20 Gbit/s\" or \"500 kbit/s\"")]
pub struct NotABandwidth;

impl FromStr for Bandwidth {
    type Err = NotABandwidth;

    /// A decimal number, optional spaces, and a unit. Capitals make no difference: there is no milli-bit to mistake it for.
    fn from_str(text: &str) -> Result<Self, NotABandwidth> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(NotABandwidth)?;
        let (number, unit) = (&text[..end], text[end..].trim_start());
        let (_, factor) =
            BANDWIDTHS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(NotABandwidth)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits =
            u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 12).ok_or(NotABandwidth)?;
        let whole: u64 = whole.parse().map_err(|_| NotABandwidth)?;
        let fraction: u64 = fraction.parse().map_err(|_| NotABandwidth)?;
        let below_one = u128::from(fraction) * u128::from(*factor) / 10_u128.pow(digits);
        let bits = u128::from(whole) * u128::from(*factor) + below_one;
        u64::try_from(bits).map(Self).map_err(|_| NotABandwidth)
    }
}

impl fmt::Display for Bandwidth {
    /// In the largest unit that leaves a whole number, so that it reads back as the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = BANDWIDTHS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        let (unit, factor) = fits.unwrap_or(&("bit/s", 1));
        write!(f, "{} {unit}", self.0 / factor)
    }
}

/// A duration such as `"250ms"`, `"15s"`, `"1h 30m"`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok()
}

/// A size in bytes, such as `"200 GiB"` or `"64 kB"`.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
    text.parse::<bytesize::ByteSize>().ok().filter(|_| has_unit).map(|size| size.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bandwidths_are_exact_and_need_a_unit() {
        for (text, bits) in [
            ("20 Gbit/s", Some(20_000_000_000)),
            ("500 kbit/s", Some(500_000)),
            ("2.5Gbit/s", Some(2_500_000_000)),
            ("1 tbit/s", Some(1_000_000_000_000)),
            ("0 bit/s", Some(0)),
            ("20", None),
            ("20 GB/s", None),
            ("20 Gbps", None),
            ("-1 bit/s", None),
            ("1. bit/s", None),
            (".5 bit/s", None),
            ("1.2.3 bit/s", None),
            ("", None),
            ("99999999 Tbit/s", None),
        ] {
            let expected = bits.map(Bandwidth::from_bits_per_second).ok_or(NotABandwidth);
            assert_eq!(text.parse(), expected, "{text:?}");
        }
        assert_eq!(Bandwidth(1_500_000_000).to_string(), "1500 Mbit/s");
        assert_eq!(Bandwidth(8_000).bytes_per_second(), 1_000);
    }

    #[test]
    fn durations_and_sizes_need_a_unit() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("1h 30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        assert_eq!([duration("15"), duration("fast"), duration("")], [None; 3]);
        assert_eq!(size("200 GiB"), Some(200 << 30));
        assert_eq!(size("64 kB"), Some(64_000));
        assert_eq!([size("64"), size("GiB"), size("1 sack")], [None; 3]);
    }

    proptest! {
        #[test]
        fn bandwidth_reads_back(bits: u64) {
            let bandwidth = Bandwidth(bits);
            prop_assert_eq!(bandwidth.to_string().parse::<Bandwidth>(), Ok(bandwidth));
        }

        #[test]
        fn any_text_is_a_value_or_none(text in ".{0,24}") {
            let _ = (text.parse::<Bandwidth>(), duration(&text), size(&text));
        }
    }
}
