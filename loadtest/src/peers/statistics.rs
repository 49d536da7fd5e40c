//! What repeated measurements say. Pure.

use serde::Serialize;

/// A median with an interval around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    /// How sure it is that the true median lies within: at least 0.95 from six values on; less for fewer.
    pub confidence: f64,
}

impl Estimate {
    /// By order statistics: no assumption about how the values are distributed. Of n independent values, as many lie below
    /// the true median as a fair coin falls on one side; the interval leaves out as many at each end as may be so that it
    /// still holds the median in 95 % of all cases.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let count = sorted.len();
        let last = count.checked_sub(1)?;
        let left_out = (0..=last / 2).take_while(|out| confidence(count, *out) >= 0.95).last().unwrap_or(0);
        let confidence = confidence(count, left_out);
        Some(Self {
            median: median(&sorted),
            low: sorted[left_out],
            high: sorted[last - left_out],
            confidence,
        })
    }
}

/// Of values in order.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// How sure it is that the median of the whole lies within all but `left_out` values at each end: 1 - 2 P(X <= left_out),
/// X binomial over `count` throws.
fn confidence(count: usize, left_out: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "some hundred")]
    let (mut chance, count) = (0.5_f64.powf(count as f64), count as f64);
    let mut below = chance;
    for number in 1..=left_out {
        #[expect(clippy::cast_precision_loss, reason = "some hundred")]
        let number = number as f64;
        chance *= (count - number + 1.0) / number;
        below += chance;
    }
    2.0_f64.mul_add(-below, 1.0).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_tables() {
        let values = |count: u32| (1..=count).map(f64::from).collect::<Vec<_>>();
        // (values, median, ranks of the ends): Conover, Practical Nonparametric Statistics.
        for (count, median, low, high) in
            [(20, 10.5, 6.0, 15.0), (25, 13.0, 8.0, 18.0), (6, 3.5, 1.0, 6.0), (9, 5.0, 2.0, 8.0)]
        {
            let mut values = values(count);
            values.reverse();
            let found = Estimate::of(&values).unwrap();
            assert_eq!((found.median, found.low, found.high), (median, low, high), "{count}");
            assert!(found.confidence >= 0.95);
        }
    }

    #[test]
    fn few_values_are_told_to_be_few() {
        assert_eq!(Estimate::of(&[]), None);
        let one = Estimate::of(&[2.0]).unwrap();
        assert_eq!((one.low, one.median, one.high, one.confidence), (2.0, 2.0, 2.0, 0.0));
        let two = Estimate::of(&[2.0, 1.0]).unwrap();
        assert_eq!((two.low, two.median, two.high, two.confidence), (1.0, 1.5, 2.0, 0.5));
    }
}
