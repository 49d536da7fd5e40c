//! A rapid repo beside the window alone.

use super::{Table, duration, rate, size};
use crate::plan::{Outcome, RegionOutcome};

/// What came of the same files by a rapid repo, and in one push that the nodes deliver for the window.
#[must_use]
pub fn side_by_side(rapid: &Outcome, window: &Outcome) -> Table {
    let both = [rapid, window];
    let row = |name: &str, of: &dyn Fn(&Outcome) -> String| {
        std::iter::once(name.to_owned()).chain(both.map(of)).collect::<Vec<_>>()
    };
    let after = |seconds: Option<f64>| seconds.map_or_else(|| "not by the end".to_owned(), duration);
    let sum =
        |outcome: &Outcome, of: fn(&RegionOutcome) -> f64| size(outcome.regions.iter().map(of).sum::<f64>());
    let mut rows = vec![
        ["", "rapid repo", "window alone"].map(str::to_owned).to_vec(),
        row("50 % of hosts have what is urgent after", &|outcome| after(outcome.updated.p50)),
        row("80 %", &|outcome| after(outcome.updated.p80)),
        row("95 %", &|outcome| after(outcome.updated.p95)),
        row("out of the nodes", &|outcome| sum(outcome, |region| region.served)),
        row("redirected", &|outcome| sum(outcome, |region| region.redirected)),
        row("by lists to mirrors", &|outcome| sum(outcome, |region| region.direct)),
    ];
    for (number, region) in rapid.regions.iter().enumerate() {
        rows.push(row(&format!("peak egress, {}", region.name), &|outcome| {
            rate(outcome.regions[number].peak)
        }));
    }
    let short = |outcome: &Outcome| outcome.regions.iter().map(|region| region.short_for).fold(0.0, f64::max);
    let time = |seconds: f64| if seconds > 0.0 { duration(seconds) } else { "-".to_owned() };
    rows.push(row("some region is short for", &|outcome| time(short(outcome))));
    rows.push(row("the longest transaction at the nodes", &|outcome| duration(outcome.longest)));
    rows.push(row("the longest wait at a mirror", &|outcome| time(outcome.mirror_wait)));
    Table(rows)
}
