//! A plan for people: tables, what they mean, and plots.

mod beside;
mod page;
mod plot;

pub use beside::side_by_side;
pub use page::{Part, Table, html, text};
pub use plot::{Line, NoPlot, Plot};

use super::outcome::{Outcome, RegionOutcome, RegionPoint, Spread};
use crate::config::{Delivery, Scenario, Scope};
use crate::policy::fair::FLOOR;

/// What came of the scenario, as the parts of a page.
#[must_use]
pub fn parts(scenario: &Scenario, outcome: &Outcome) -> Vec<Part> {
    let mut parts = vec![
        Part::Text(premise(scenario)),
        Part::Heading("When hosts have the push".into()),
        Part::Table(spread(outcome)),
        Part::Heading("What the nodes of each region do".into()),
        Part::Table(regions(outcome)),
    ];
    parts.extend(findings(scenario, outcome).into_iter().map(Part::Text));
    parts.push(Part::Heading("Bytes asked of the nodes, by the reason of the decision".into()));
    parts.push(Part::Table(reasons(outcome)));
    parts.extend(plots(outcome).into_iter().map(Part::Plot));
    parts
}

fn premise(scenario: &Scenario) -> String {
    let Scenario { push, policy, .. } = scenario;
    let bytes: u64 = push.files.iter().map(|file| file.size).sum();
    let delivery = match (policy.delivery, policy.window_scope) {
        (Delivery::Own, _) => "the nodes alone deliver".to_owned(),
        (Delivery::Offload, _) => "mirrors deliver as far as they are fresh".to_owned(),
        (Delivery::Window, Scope::Repo) => {
            format!("the nodes deliver for {}", duration(policy.window.as_secs_f64()))
        }
        (Delivery::Window, Scope::Push) => {
            format!("the nodes deliver what is new for {}", duration(policy.window.as_secs_f64()))
        }
    };
    let rapid = scenario.rapid.as_ref().map_or_else(String::new, |rapid| {
        let bytes: u64 = rapid.files.iter().map(|file| file.size).sum();
        let first = match rapid.before_updates.as_secs_f64() {
            seconds if seconds > 0.0 => format!(" for {} before updates", duration(seconds)),
            _ => String::new(),
        };
        let files = rapid.files.len();
        format!(" {files} more packages with {} are in the rapid repo{first}, too.", size(bytes as f64))
    });
    format!(
        "{} hosts, a push of {} packages with {} and {} of metadata, {} mirrors; {delivery}.{rapid}",
        count(scenario.hosts),
        push.files.len(),
        size(bytes as f64),
        size(push.metadata as f64),
        scenario.mirrors.iter().map(|group| group.count).sum::<usize>()
    )
}

fn spread(outcome: &Outcome) -> Table {
    let row = |name: &str, of: fn(&Spread) -> Option<f64>| {
        let after = |spread: &Spread| of(spread).map_or_else(|| "not by the end".to_owned(), duration);
        vec![name.to_owned(), after(&outcome.updated), after(&outcome.by_mirrors_alone)]
    };
    Table(vec![
        vec!["share of hosts".into(), "with freshet".into(), "by mirrors alone".into()],
        row("50 %", |spread| spread.p50),
        row("80 %", |spread| spread.p80),
        row("95 %", |spread| spread.p95),
        row("99 %", |spread| spread.p99),
    ])
}

fn regions(outcome: &Outcome) -> Table {
    let head = [
        "region",
        "capacity",
        "peak egress",
        "needed at most",
        "short for",
        "served",
        "redirected",
        "by lists to mirrors",
        "slowest transfer",
    ];
    let row = |region: &RegionOutcome| {
        let redirected = format!("{} ({:.0} %)", size(region.redirected), region.redirected_share() * 100.0);
        vec![
            region.name.clone(),
            rate(region.capacity),
            rate(region.peak),
            rate(region.needed),
            if region.short_for > 0.0 { duration(region.short_for) } else { "-".into() },
            size(region.served),
            redirected,
            size(region.direct),
            region.slowest.map_or_else(|| "-".into(), |bytes| rate(bytes * 8.0)),
        ]
    };
    let head = head.map(str::to_owned).to_vec();
    Table(std::iter::once(head).chain(outcome.regions.iter().map(row)).collect())
}

/// What an operator should know of it.
fn findings(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    for region in &outcome.regions {
        if region.short_for > 0.0 {
            found.push(format!(
                "{} is short of {} at the worst, and of something for {} in all: nobody else can take that, so clients wait.",
                region.name,
                rate(region.needed - region.capacity),
                duration(region.short_for)
            ));
        }
        if region.slowest.is_some_and(|slowest| slowest < FLOOR as f64) {
            found.push(format!(
                "{} can't give each transfer {}: there the capacity would yield.",
                region.name,
                rate(FLOOR as f64 * 8.0)
            ));
        }
    }
    if outcome.regions.iter().all(|region| region.short_for <= 0.0) {
        found.push("No region is short of anything.".into());
    }
    if outcome.mirror_wait > LONG_AT_MIRROR {
        found.push(format!(
            "Lists send more clients to the first fresh mirrors than these donate: somebody waits there for {}.",
            duration(outcome.mirror_wait)
        ));
    }
    if scenario.policy.delivery == Delivery::Window {
        let fresh =
            |at: f64| outcome.points.iter().rfind(|point| point.at <= at).map_or(0, |point| point.fresh);
        found.push(match outcome.closed {
            Some(at) => {
                format!("The window closes after {}, with {} fresh mirrors.", duration(at), fresh(at))
            }
            None if outcome.points.last().is_some_and(|last| last.open) => {
                "The window is open at the end.".into()
            }
            None => "No window opens.".into(),
        });
    }
    found.push(format!(
        "Mirrors deliver {:.0} % of all bytes. A transaction at the nodes takes {} for half of the hosts, {} for 99 %, and {} at most.",
        outcome.mirrors_share() * 100.0,
        duration(outcome.transaction.0),
        duration(outcome.transaction.1),
        duration(outcome.longest)
    ));
    found
}

fn reasons(outcome: &Outcome) -> Table {
    let row = |(reason, bytes): &(&'static str, f64)| vec![(*reason).to_owned(), size(*bytes)];
    let head = vec!["reason".to_owned(), "bytes".to_owned()];
    Table(std::iter::once(head).chain(outcome.reasons.iter().map(row)).collect())
}

fn plots(outcome: &Outcome) -> Vec<Plot> {
    let (unit, seconds) = unit(outcome.lasts);
    let span = (-outcome.push_at / seconds, (outcome.lasts - outcome.push_at) / seconds);
    let plot = |title: String, y: &str, lines| Plot {
        title,
        x: format!("{unit} after the push"),
        y: y.to_owned(),
        mark: outcome.closed.map(|at| (at / seconds, "the window closes".to_owned())),
        lines,
    };
    let line = |name: &str, of: &dyn Fn(&super::Point) -> f64| {
        Line::new(name, outcome.points.iter().map(|point| (point.at / seconds, of(point))).collect())
    };
    let mut plots: Vec<Plot> = Vec::new();
    for (number, region) in outcome.regions.iter().enumerate() {
        let of = |name: &str, of: fn(&RegionPoint) -> f64| {
            line(name, &move |point| of(&point.regions[number]) / GIGA)
        };
        let lines = vec![
            of("out of the nodes", |region| region.egress),
            of("redirected", |region| region.redirected),
            of("by lists to mirrors", |region| region.direct),
            Line::bound("capacity", region.capacity / GIGA, span),
        ];
        plots.push(plot(format!("{}: who delivers", region.name), "Gbit/s", lines));
    }
    let percent = vec![
        line("with freshet", &|point| point.updated * 100.0),
        line("by mirrors alone", &|point| point.by_mirrors_alone * 100.0),
    ];
    plots.push(plot("Hosts that have the push".into(), "% of all", percent));
    let fresh = vec![line("proven to hold it", &|point| point.fresh as f64)];
    plots.push(plot("Mirrors".into(), "mirrors", fresh));
    plots
}

/// Seconds that clients may wait for others at a mirror before it is worth a word.
pub(super) const LONG_AT_MIRROR: f64 = 600.0;

const GIGA: f64 = 1e9;

/// The unit of time for something that lasts so many seconds, and its seconds.
const fn unit(lasts: f64) -> (&'static str, f64) {
    match lasts {
        ..600.0 => ("seconds", 1.0),
        600.0..14_400.0 => ("minutes", 60.0),
        _ => ("hours", 3600.0),
    }
}

/// A time for people: three digits, in the unit that suits it.
#[must_use]
pub fn duration(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        1.0..120.0 => format!("{seconds:.1} s"),
        120.0..7200.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// Bits per second for people.
#[must_use]
pub fn rate(bits: f64) -> String {
    scaled(bits, "bit/s")
}

/// Bytes for people.
#[must_use]
pub fn size(bytes: f64) -> String {
    scaled(bytes, "B")
}

fn scaled(value: f64, unit: &str) -> String {
    let prefixes = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match prefixes.into_iter().find(|(factor, _)| value >= *factor) {
        Some((factor, prefix)) if value / factor >= 100.0 => format!("{:.0} {prefix}{unit}", value / factor),
        Some((factor, prefix)) => format!("{:.1} {prefix}{unit}", value / factor),
        None => format!("{value:.0} {unit}"),
    }
}

/// With a space between thousands.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn figures_are_short() {
        assert_eq!(duration(0.04), "40 ms");
        assert_eq!(duration(59_999.0), "16.7 h");
        assert_eq!(rate(17_558_557_696.0), "17.6 Gbit/s");
        assert_eq!(size(250e6), "250 MB");
        assert_eq!(count(1_000_000), "1 000 000");
        assert_eq!(count(42), "42");
    }

    #[test]
    fn what_is_short_is_said() {
        let text =
            "hosts = 200000\n[[region]]\nname = \"far\"\ncapacity = \"1 Gbit/s\"\n[[mirrors]]\ncount = 0";
        let (scenario, _) = Scenario::parse(text, Path::new("s.toml")).unwrap();
        let outcome = super::super::simulate(&scenario, 1000);
        let parts = parts(&scenario, &outcome);
        let said = super::text(&parts);
        assert!(said.contains("far is short of ") && said.contains("200 000 hosts"), "{said}");
        assert!(said.contains("The window is open at the end."), "no mirror is ever fresh: {said}");
        let page = html("a plan", &parts).unwrap();
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(page.contains("far: who delivers"));
    }
}
