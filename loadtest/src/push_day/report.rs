//! The day as an outcome like the plan's, and the two side by side.

use super::client::By;
use super::day::Seen;
use crate::hold::verdict::Mark;
use crate::node::{Sample, rates};
use freshet::config::Scenario;
use freshet::plan::report::{Line, Part, Plot, Table, duration, rate, size};
use freshet::plan::{Outcome, Point, RegionOutcome, RegionPoint, Spread};
use serde::Serialize;

/// How far the plan may be off.
const TOLERANCE: f64 = 0.10;

/// All there is to say.
#[derive(Serialize)]
pub struct Whole<'a> {
    pub planned: &'a Outcome,
    pub measured: &'a Outcome,
    pub marks: &'a [Mark],
}

/// The day in the plan's terms: a point for each second.
pub fn outcome(scenario: &Scenario, seen: &Seen, samples: &[Sample]) -> Outcome {
    let push = scenario.push.at.as_secs_f64();
    let capacity = scenario.regions[0].capacity.bits_per_second() as f64;
    let egress = rates(samples);
    let mut region =
        RegionOutcome { name: scenario.regions[0].name.clone(), capacity, ..RegionOutcome::default() };
    let mut points: Vec<Point> = Vec::new();
    for (rate, second) in egress.iter().zip(1u32..) {
        let now = RegionPoint { egress: *rate, ..RegionPoint::default() };
        points.push(Point { at: f64::from(second) - push, regions: vec![now], ..Point::default() });
    }
    for delivery in &seen.books.deliveries {
        let second = (delivery.asked - seen.begun).as_secs();
        let bytes = delivery.bytes as f64;
        let point = usize::try_from(second).ok().and_then(|second| points.get_mut(second));
        let mut scratch = RegionPoint::default();
        let now = point.map_or(&mut scratch, |point| &mut point.regions[0]);
        let (total, now) = match delivery.by {
            By::Node => (&mut region.served, &mut now.taken),
            By::Redirect => (&mut region.redirected, &mut now.redirected),
            By::Mirror => (&mut region.direct, &mut now.direct),
        };
        *total += bytes;
        *now += bytes * 8.0;
    }
    region.peak = egress.iter().copied().fold(0.0, f64::max);
    let after: Vec<f64> = seen.updated.iter().map(|at| at - push).collect();
    let hosts = usize::try_from(scenario.hosts).unwrap_or(usize::MAX);
    for point in &mut points {
        let updated = after.iter().filter(|at| **at <= point.at).count();
        point.updated = updated as f64 / hosts as f64;
    }
    let mut took = seen.took.clone();
    took.sort_by(f64::total_cmp);
    let quantile = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    Outcome {
        hosts: scenario.hosts,
        weight: 1.0,
        lasts: scenario.lasts.as_secs_f64(),
        push_at: push,
        regions: vec![region],
        updated: Spread::of(after, hosts),
        by_mirrors_alone: Spread::default(),
        transaction: (quantile(50), quantile(99)),
        longest: took.last().copied().unwrap_or_default(),
        closed: None,
        mirror_wait: 0.0,
        reasons: Vec::new(),
        points,
    }
}

/// What is compared: a name, the plan's figure, the day's, and how to write it.
type Compared = (&'static str, f64, f64, fn(f64) -> String);

fn compared(planned: &Outcome, measured: &Outcome) -> Vec<Compared> {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let region = |outcome: &Outcome| outcome.regions[0].clone();
    let (plan, day) = (region(planned), region(measured));
    let mean = |outcome: &Outcome| {
        let sum: f64 = outcome.points.iter().map(|point| point.regions[0].egress).sum();
        sum / outcome.points.len().max(1) as f64
    };
    let after = |time: Option<f64>| time.unwrap_or(f64::NAN);
    vec![
        ("mean egress", mean(planned), mean(measured), rate),
        ("share redirected", planned.redirected_share(), measured.redirected_share(), percent),
        (
            "half of the hosts have it after",
            after(planned.updated.p50),
            after(measured.updated.p50),
            duration,
        ),
        (
            "95 % of the hosts have it after",
            after(planned.updated.p95),
            after(measured.updated.p95),
            duration,
        ),
        ("served by the node", plan.served, day.served, size),
        ("redirected", plan.redirected, day.redirected, size),
        ("by lists to mirrors", plan.direct, day.direct, size),
        ("peak egress", plan.peak, day.peak, rate),
        ("a transaction takes, half of them", planned.transaction.0, measured.transaction.0, duration),
    ]
}

/// The first so many of the compared have to agree.
const AGREE: usize = 4;

pub fn marks(planned: &Outcome, measured: &Outcome, seen: &Seen, whole: bool) -> Vec<Mark> {
    let found = |fault: &Option<String>| fault.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
    let books = &seen.books;
    let mut marks = vec![
        Mark::new(
            "no transaction is lost",
            format!("{}{}", seen.lost, found(&seen.first_lost)),
            seen.lost == 0 && !seen.updated.is_empty(),
        ),
        Mark::new(
            "no byte is wrong",
            format!("{} of {} files that were looked at", books.wrong, books.checked),
            books.wrong == 0 && books.checked > 0,
        ),
        Mark::new("transfers are taken up again", books.resumed.to_string(), books.resumed > 0),
        Mark::new(
            "no first byte waits for more than 20 s",
            format!("{:.2} s", books.longest_first_byte.as_secs_f64()),
            books.longest_first_byte.as_secs_f64() <= 20.0,
        ),
    ];
    if whole {
        marks.extend(compared(planned, measured).into_iter().take(AGREE).map(
            |(name, plan, day, written)| {
                let holds = (day / plan - 1.0).abs() <= TOLERANCE;
                Mark::new(
                    format!("{name}: within 10 % of the plan"),
                    format!("{} for {} ({:+.1} %)", written(day), written(plan), (day / plan - 1.0) * 100.0),
                    holds,
                )
            },
        ));
    }
    marks
}

pub fn parts(
    scenario: &Scenario,
    planned: &Outcome,
    measured: &Outcome,
    marks: &[Mark],
    seen: &Seen,
) -> Vec<Part> {
    let row = |(name, plan, day, written): Compared| {
        let off = day / plan - 1.0;
        let off = if off.is_finite() { format!("{:+.1} %", off * 100.0) } else { "-".to_owned() };
        vec![name.to_owned(), written(plan), written(day), off]
    };
    let head = ["", "plan", "push day", "off by"].map(str::to_owned).to_vec();
    let table = std::iter::once(head).chain(compared(planned, measured).into_iter().map(row)).collect();
    let mark = |mark: &Mark| {
        vec![mark.what.clone(), mark.found.clone(), if mark.holds { "holds" } else { "MISSED" }.to_owned()]
    };
    let head = ["mark", "found", ""].map(str::to_owned).to_vec();
    let books = &seen.books;
    let said = format!(
        "{} hosts over {}: {} updated, {} transfers failed and were tried again{}, {} transactions not over by the end.",
        scenario.hosts,
        duration(scenario.lasts.as_secs_f64()),
        seen.updated.len(),
        books.failures,
        books.first_failure.as_ref().map(|fault| format!(" (the first: {fault})")).unwrap_or_default(),
        seen.unfinished
    );
    let mut parts = vec![
        Part::Heading("The plan and the day".into()),
        Part::Table(Table(table)),
        Part::Text(said),
        Part::Heading("Marks".into()),
        Part::Table(Table(std::iter::once(head).chain(marks.iter().map(mark)).collect())),
    ];
    parts.extend(plots(planned, measured).into_iter().map(Part::Plot));
    parts
}

fn plots(planned: &Outcome, measured: &Outcome) -> Vec<Plot> {
    let capacity = planned.regions[0].capacity / 1e9;
    let span = (-planned.push_at, planned.lasts - planned.push_at);
    let line = |name: &str, outcome: &Outcome, of: fn(&Point) -> f64| {
        Line::new(name, outcome.points.iter().map(|point| (point.at, of(point))).collect())
    };
    let both = |title: &str, y: &str, of: fn(&Point) -> f64| Plot {
        title: title.to_owned(),
        x: "seconds after the push".to_owned(),
        y: y.to_owned(),
        mark: planned.closed.map(|at| (at, "the window closes".to_owned())),
        lines: vec![line("plan", planned, of), line("push day", measured, of)],
    };
    let mut egress = both("Out of the node", "Gbit/s", |point| point.regions[0].egress / 1e9);
    egress.lines.push(Line::bound("capacity", capacity, span));
    vec![
        egress,
        both("Redirected", "Gbit/s", |point| point.regions[0].redirected / 1e9),
        both("Hosts that have the push", "% of all", |point| point.updated * 100.0),
    ]
}
