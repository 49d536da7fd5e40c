//! What is told of a run: rows on the terminal, JSON with all figures, a Markdown table, and a plot.

use super::contest::Series;
use super::plot;
use super::server::Server;
use super::statistics::Estimate;
use super::work::{Goal, Kind, Limit, Name, Unit, Work};
use anyhow::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A run.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    versions: BTreeMap<Name, String>,
    rounds: usize,
    seconds_per_round: f64,
    mirrors: usize,
    /// What each server uses of a core while nobody asks, by how it was started.
    calm: BTreeMap<String, BTreeMap<Name, f64>>,
    /// How the intervals come about.
    method: &'static str,
    pub rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
}

/// What came of one work.
#[derive(Debug, Serialize)]
pub struct Row {
    pub key: &'static str,
    pub title: &'static str,
    connections: usize,
    server_cores: usize,
    unit: Unit,
    servers: Vec<Cell>,
    pub ratios: Vec<Ratio>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Limit>,
    #[serde(skip)]
    kind: Kind,
}

/// What one server did.
#[derive(Debug, Serialize)]
struct Cell {
    server: Name,
    figure: Estimate,
    figures: Vec<f64>,
    requests: u64,
    gigabits_per_second: f64,
    requests_per_second: f64,
    /// CPU time by wall time: near the number of cores where the load keeps it busy.
    utilisation: f64,
    latency_us: BTreeMap<&'static str, u64>,
}

/// How freshet compares; above one it is the better one, whatever the unit.
#[derive(Debug, Serialize)]
pub struct Ratio {
    pub to: Name,
    #[serde(flatten)]
    pub estimate: Estimate,
    pub goal: Option<Goal>,
    pub verdict: Verdict,
}

/// What became of a goal: its interval's lower end counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All that there was to go for.
    WentFor,
    Reached,
    Short,
    /// There was no goal.
    Reported,
}

impl Verdict {
    fn of(low: f64, goal: Option<Goal>) -> Self {
        match goal {
            None => Self::Reported,
            Some(goal) if low >= goal.go_for => Self::WentFor,
            Some(goal) if low >= goal.reach => Self::Reached,
            Some(_) => Self::Short,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::WentFor => "more than reached",
            Self::Reached => "reached",
            Self::Short => "short",
            Self::Reported => "",
        }
    }
}

impl Row {
    /// Of the servers' rounds; freshet is one of them.
    pub fn of(work: &Work, series: &[Series]) -> Self {
        let own = series.iter().find(|series| series.name == Name::Freshet);
        let peers = series.iter().filter(|series| series.name != Name::Freshet);
        let ratios = own.into_iter().flat_map(|own| peers.clone().filter_map(|peer| ratio(work, own, peer)));
        Self {
            key: work.key,
            title: work.title,
            connections: work.connections,
            server_cores: work.cores,
            unit: work.unit,
            servers: series.iter().filter_map(Cell::of).collect(),
            ratios: ratios.collect(),
            limit: work.limit,
            kind: work.kind,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{} ({}), {} connections\n", self.title, self.unit.word(), self.connections);
        for cell in &self.servers {
            let Estimate { median, low, high, .. } = cell.figure;
            let _ = write!(text, "  {:<8} {median:>8.2} [{low:.2}, {high:.2}]", cell.server.word());
            let latency = |name| cell.latency_us.get(name).copied().unwrap_or_default();
            let _ = writeln!(
                text,
                "  {:>7.2} Gbit/s {:>8.0} req/s  busy {:>4.0} %  p50 {} p99 {} p99.9 {} us",
                cell.gigabits_per_second,
                cell.requests_per_second,
                cell.utilisation * 100.0,
                latency("p50"),
                latency("p99"),
                latency("p99.9"),
            );
        }
        for ratio in &self.ratios {
            let Estimate { median, low, high, .. } = ratio.estimate;
            let _ = write!(text, "  to {:<8} {median:>5.2} [{low:.2}, {high:.2}]", ratio.to.word());
            let _ = match ratio.goal {
                Some(goal) => writeln!(text, "  reach {:.2}: {}", goal.reach, ratio.verdict.word()),
                None => writeln!(text),
            };
        }
        if let Some((limit, verdict)) = self.within() {
            let _ = writeln!(text, "  at most {}: {}", limit.reach, verdict.word());
        }
        text
    }

    /// How the figure itself stands, where that is limited.
    fn within(&self) -> Option<(Limit, Verdict)> {
        let limit = self.limit?;
        let own = self.servers.iter().find(|cell| cell.server == Name::Freshet)?.figure.high;
        let verdict = match own {
            _ if own <= limit.go_for => Verdict::WentFor,
            _ if own <= limit.reach => Verdict::Reached,
            _ => Verdict::Short,
        };
        Some((limit, verdict))
    }

    fn markdown(&self) -> String {
        let figure = |name| {
            let cell = self.servers.iter().find(|cell| cell.server == name);
            cell.map_or_else(String::new, |cell| format!("{:.1}", cell.figure.median))
        };
        let ratio = |name| {
            let ratio = self.ratios.iter().find(|ratio| ratio.to == name);
            ratio.map_or_else(String::new, |ratio| {
                let Estimate { median, low, high, .. } = ratio.estimate;
                let interval =
                    if self.kind == Kind::Idle { String::new() } else { format!(" ({low:.2} to {high:.2})") };
                let mark = if ratio.verdict == Verdict::Short { ", short" } else { "" };
                format!("{median:.2}{interval}{mark}")
            })
        };
        let mut reach: Vec<String> = Vec::new();
        reach.extend(self.ratios.iter().filter_map(|ratio| Some(format!("{:.2}", ratio.goal?.reach))));
        reach
            .extend(self.within().map(|(limit, verdict)| format!("{} KiB: {}", limit.reach, verdict.word())));
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            self.title,
            self.unit.word(),
            figure(Name::Freshet),
            figure(Name::Nginx),
            figure(Name::Varnish),
            ratio(Name::Nginx),
            ratio(Name::Varnish),
            reach.join(", "),
        )
    }
}

impl Cell {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn of(series: &Series) -> Option<Self> {
        let figures: Vec<f64> = series.samples.iter().map(|sample| sample.figure).collect();
        let seconds: f64 = series.samples.iter().map(|sample| sample.outcome.took.as_secs_f64()).sum();
        let requests: u64 = series.samples.iter().map(|sample| sample.outcome.requests).sum();
        let bytes: u64 = series.samples.iter().map(|sample| sample.outcome.body_bytes).sum();
        let latency = series.latency_us();
        let quantiles = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
        Some(Self {
            server: series.name,
            figure: Estimate::of(&figures)?,
            figures,
            requests,
            gigabits_per_second: bytes as f64 * 8.0 / 1e9 / seconds,
            requests_per_second: requests as f64 / seconds,
            utilisation: series.samples.iter().map(|sample| sample.cpu).sum::<f64>() / seconds,
            latency_us: quantiles.map(|(name, at)| (name, latency.value_at_quantile(at))).into(),
        })
    }
}

/// Round by round, then the median of that.
fn ratio(work: &Work, own: &Series, peer: &Series) -> Option<Ratio> {
    let pairs = own.samples.iter().zip(&peer.samples);
    let ratios: Vec<f64> = pairs
        .map(|(own, peer)| {
            let ratio = own.figure / peer.figure;
            if work.unit.less_is_better() { ratio.recip() } else { ratio }
        })
        .collect();
    let estimate = Estimate::of(&ratios)?;
    let goal = work.goals.iter().find(|goal| goal.peer == peer.name).copied();
    Some(Ratio { to: peer.name, estimate, goal, verdict: Verdict::of(estimate.low, goal) })
}

impl Report {
    pub fn new(rounds: usize, seconds_per_round: f64, mirrors: usize) -> Self {
        Self {
            machine: Machine::here(),
            versions: BTreeMap::new(),
            rounds,
            seconds_per_round,
            mirrors,
            calm: BTreeMap::new(),
            method: "median of the rounds' paired ratios; interval by order statistics, 95 % from six rounds on",
            rows: Vec::new(),
        }
    }

    /// These have been started.
    pub fn met(&mut self, servers: &[Server]) {
        self.versions.extend(servers.iter().map(|server| (server.name, server.version.clone())));
    }

    /// What a server uses of a core while nobody asks.
    pub fn calm(&mut self, setup: &str, name: Name, share: f64) {
        self.calm.entry(setup.to_owned()).or_default().insert(name, share);
    }

    /// Into files in `dir`, and the table on stdout.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        fs::write(dir.join("peers.json"), serde_json::to_string_pretty(self)?)?;
        let markdown = self.markdown();
        println!("{markdown}");
        fs::write(dir.join("peers.md"), markdown)?;
        plot::draw(&dir.join("peers.svg"), &self.rows, &self.caption())?;
        println!("peers.json, peers.md and peers.svg are in {}", dir.display());
        Ok(())
    }

    fn caption(&self) -> String {
        let versions = self.versions.iter().map(|(name, version)| format!("{} {version}", name.word()));
        let versions: Vec<String> = versions.collect();
        format!(
            "{}; {}, {} cores, Linux {}",
            versions.join(", "),
            self.machine.processor,
            self.machine.cores,
            self.machine.kernel
        )
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "{}; server on one core, load on the other, loopback. {} paired rounds of {} s; medians, and of the ratios the \
             95 % interval. Above 1 freshet is ahead.\n\n",
            self.caption(),
            self.rounds,
            self.seconds_per_round
        );
        text += "| work | unit | freshet | nginx | Varnish | to nginx | to Varnish | reach |\n";
        text += "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
        for row in &self.rows {
            text += &row.markdown();
            text.push('\n');
        }
        text
    }
}

impl Machine {
    fn here() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: model.map_or("an unknown processor", |(_, name)| name).to_owned(),
            // This thread may be confined to one of them.
            cores: info.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: kernel.trim().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Outcome;
    use crate::peers::contest::Sample;
    use crate::peers::work::WORKS;
    use std::time::Duration;

    fn series(name: Name, figures: &[f64]) -> Series {
        let sample = |figure: &f64| Sample {
            figure: *figure,
            outcome: Outcome { took: Duration::from_secs(1), requests: 7, ..Outcome::empty() },
            cpu: 0.5,
        };
        Series { name, samples: figures.iter().map(sample).collect() }
    }

    fn work(key: &str) -> &'static Work {
        WORKS.iter().find(|work| work.key == key).unwrap()
    }

    #[test]
    fn ratios_are_of_one_round_each() {
        // The machine was twice as fast from round to round: the ratio is the same in all of them.
        let own = series(Name::Freshet, &[1.2, 2.4, 4.8, 9.6, 19.2, 38.4]);
        let peer = series(Name::Nginx, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]);
        let row = Row::of(work("100mb"), &[own, peer]);
        let ratio = &row.ratios[0];
        assert!((ratio.estimate.low - 1.2).abs() < 1e-9 && (ratio.estimate.high - 1.2).abs() < 1e-9);
        assert_eq!(ratio.verdict, Verdict::WentFor);
        assert!(row.text().contains("to nginx     1.20 [1.20, 1.20]"), "{}", row.text());
        assert!(row.markdown().contains("| 1.20 (1.20 to 1.20) |"), "{}", row.markdown());
    }

    #[test]
    fn the_lower_end_decides_and_less_may_be_better() {
        let own = series(Name::Freshet, &[0.9, 1.3, 1.3, 1.3, 1.3, 1.3]);
        let row = Row::of(work("100mb"), &[own, series(Name::Nginx, &[1.0; 6])]);
        assert_eq!(row.ratios[0].verdict, Verdict::Short);
        let row =
            Row::of(work("cold"), &[series(Name::Freshet, &[100.0; 6]), series(Name::Nginx, &[150.0; 6])]);
        assert!((row.ratios[0].estimate.median - 1.5).abs() < 1e-9);
        assert_eq!(row.ratios[0].verdict, Verdict::Reached);
        let row = Row::of(work("idle"), &[series(Name::Freshet, &[9.0])]);
        assert_eq!(row.within().map(|(_, verdict)| verdict), Some(Verdict::Reached));
        assert!(row.markdown().contains("12 KiB: reached"), "{}", row.markdown());
    }
}
