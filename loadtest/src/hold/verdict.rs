//! What has to hold, and whether it does.

use serde::Serialize;

/// One thing that has to hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mark {
    /// In words.
    pub what: String,
    /// What was found, with its unit.
    pub found: String,
    pub holds: bool,
}

impl Mark {
    pub fn new(what: impl Into<String>, found: impl Into<String>, holds: bool) -> Self {
        Self { what: what.into(), found: found.into(), holds }
    }
}

/// Egress of each second against a capacity, after the first `skipped` seconds.
pub fn seconds(rates: &[f64], skipped: usize, least: f64, most: f64) -> Mark {
    let steady = rates.get(skipped..).unwrap_or_default();
    let (lowest, highest) = bounds(steady);
    let holds = !steady.is_empty() && lowest >= least && highest <= most;
    let what =
        format!("each second after the first {skipped} between {} and {}", percent(least), percent(most));
    Mark::new(what, format!("{} to {}", percent(lowest), percent(highest)), holds)
}

/// The mean of the same.
pub fn mean(rates: &[f64], skipped: usize, within: f64) -> Mark {
    let steady = rates.get(skipped..).unwrap_or_default();
    let mean = steady.iter().sum::<f64>() / steady.len().max(1) as f64;
    let what = format!("in the mean within {} of the capacity", percent(within));
    Mark::new(what, percent(mean), !steady.is_empty() && (mean - 1.0).abs() <= within)
}

/// Lowest and highest.
pub fn bounds(rates: &[f64]) -> (f64, f64) {
    rates.iter().fold((f64::INFINITY, 0.0), |(lowest, highest), rate| (lowest.min(*rate), rate.max(highest)))
}

pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_seconds_do_not_count() {
        let rates = [0.2, 1.4, 0.9, 0.95];
        assert!(seconds(&rates, 2, 0.8, 1.0).holds);
        assert!(!seconds(&rates, 1, 0.8, 1.0).holds);
        assert!(!seconds(&rates, 4, 0.8, 1.0).holds, "nothing is no proof");
        assert_eq!(seconds(&rates, 2, 0.8, 1.0).found, "90.0 % to 95.0 %");
        assert!(mean(&[9.0, 0.99, 1.01], 1, 0.02).holds);
        assert!(!mean(&[9.0, 0.9, 1.01], 1, 0.02).holds);
    }
}
