//! `freshet plan`: reads what a plan is made of, and writes what comes of it.

use crate::ask;
use crate::config::Root;
use crate::config::scenario::PlannedFile;
use crate::config::{Config, Scenario};
use crate::plan::report::{self, Part, Table};
use crate::plan::sweep::{self, Sweep, Target, Tried};
use crate::plan::{self, Outcome};
use crate::repo::{ListedFile, RepodataError, Repomd, compression, prestodelta, primary, repomd};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

/// The longest metadata file that is read, in bytes as it unpacks.
const MOST_BYTES: u64 = 4 << 30;
/// What stands for never: longer than any scenario lasts.
const NEVER: Duration = Duration::from_secs(100 * 24 * 3600);

/// What is planned.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Hosts that are played.
    pub sample: usize,
    /// Other settings are tried for this.
    pub target: Option<Target>,
    /// The page is written there.
    pub html: Option<&'a Path>,
    /// Each plot is written into this directory.
    pub plots: Option<&'a Path>,
    /// Print JSON.
    pub json: bool,
}

#[derive(Serialize)]
struct Planned<'a> {
    outcome: &'a Outcome,
    /// Of the same files without the rapid repo, where the scenario has one.
    by_window: Option<&'a Outcome>,
    sweep: Option<&'a Sweep>,
}

/// Plays the scenario; what is to be printed.
///
/// # Errors
/// The page can't be written.
pub fn plan(scenario: &Scenario, wanted: &Wanted<'_>) -> Result<String> {
    let outcome = plan::simulate(scenario, wanted.sample);
    let by_window = scenario.by_window().map(|scenario| plan::simulate(&scenario, wanted.sample));
    let sweep = wanted.target.map(|target| sweep::sweep(scenario, target, wanted.sample.min(sweep::SAMPLE)));
    let mut parts = report::parts(scenario, &outcome);
    if let Some(by_window) = &by_window {
        let window = report::duration(scenario.policy.window.as_secs_f64());
        parts.push(Part::Heading(format!(
            "The rapid repo beside the same in one push, with a window of {window}"
        )));
        parts.push(Part::Table(report::side_by_side(&outcome, by_window)));
    }
    if let Some(sweep) = &sweep {
        parts.extend(advice(scenario, sweep));
    }
    if let Some(path) = wanted.html {
        let page = report::html("freshet plan", &parts)?;
        fs::write(path, page).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(dir) = wanted.plots {
        write_plots(dir, &parts)?;
    }
    if wanted.json {
        let planned = Planned { outcome: &outcome, by_window: by_window.as_ref(), sweep: sweep.as_ref() };
        return Ok(serde_json::to_string_pretty(&planned)? + "\n");
    }
    Ok(report::text(&parts))
}

/// One file for each plot, named after its title.
fn write_plots(dir: &Path, parts: &[Part]) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let plots = parts.iter().filter_map(|part| if let Part::Plot(plot) = part { Some(plot) } else { None });
    for plot in plots {
        let words: String = plot.title.chars().filter(|c| c.is_ascii_alphanumeric() || *c == ' ').collect();
        let path = dir.join(format!("{}.svg", words.to_lowercase().replace(' ', "-")));
        fs::write(&path, plot.svg()?).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// What the sweep says.
fn advice(scenario: &Scenario, sweep: &Sweep) -> Vec<Part> {
    let Target { share, within } = sweep.target;
    let (percent, time) = (share * 100.0, report::duration(within));
    let mut parts = vec![Part::Heading(format!("The cheapest setting for {percent:.0} % within {time}"))];
    if sweep.possible < share {
        parts.push(Part::Text(format!(
            "No setting reaches it: only {:.1} % of hosts look for updates within {time}. Shorten metadata_expire and the time \
             between looks, or take a later target.",
            sweep.possible * 100.0
        )));
    }
    let tried = match (sweep.cheapest(), sweep.nearest()) {
        (Some(cheapest), _) => {
            parts.push(Part::Text(said(cheapest, "It is enough to have")));
            cheapest
        }
        (None, Some(nearest)) => {
            parts.push(Part::Text(said(nearest, "None of those tried reaches it; nearest comes")));
            nearest
        }
        (None, None) => return parts,
    };
    parts.push(Part::Verbatim(sweep::snippet(scenario, tried)));
    parts.push(Part::Table(table(sweep)));
    parts
}

fn said(tried: &Tried, begin: &str) -> String {
    format!(
        "{begin} {} of the capacity: {:.1} % of hosts in time, {} out of the nodes.",
        tried.capacity,
        tried.updated * 100.0,
        report::size(tried.served)
    )
}

fn table(sweep: &Sweep) -> Table {
    let head = [
        "capacity",
        "window",
        "shed from",
        "shed all",
        "in time",
        "short for",
        "wait at mirrors",
        "out of the nodes",
        "meets",
    ];
    let time = |seconds: f64| if seconds > 0.0 { report::duration(seconds) } else { "-".to_owned() };
    let row = |tried: &Tried| {
        vec![
            format!("x {}", tried.capacity),
            time(tried.window),
            tried.shed_from.to_string(),
            tried.shed_all.to_string(),
            format!("{:.1} %", tried.updated * 100.0),
            time(tried.short_for),
            time(tried.mirror_wait),
            report::size(tried.served),
            if tried.meets { "yes" } else { "no" }.to_owned(),
        ]
    };
    let head = head.map(str::to_owned).to_vec();
    Table(std::iter::once(head).chain(sweep.tried.iter().map(row)).collect())
}

/// Takes the push out of two states of a repo: what `new` lists and `old` doesn't, with its drpms, and the metadata that
/// clients fetch.
///
/// # Errors
/// A file can't be read, or nothing is new.
pub fn from_repo(scenario: &mut Scenario, old: &Path, new: &Path) -> Result<()> {
    let known: HashSet<String> = read(old)?.packages.into_iter().map(|file| file.path).collect();
    let new_state = read(new)?;
    let mut drpms: HashMap<String, u64> = HashMap::new();
    for drpm in &new_state.drpms {
        for package in targets(&drpm.path) {
            // Of several, for different old versions, the largest.
            let bytes = drpms.entry(package).or_default();
            *bytes = (*bytes).max(drpm.size);
        }
    }
    let file = |listed: &ListedFile| PlannedFile { size: listed.size, drpm: drpm_of(&listed.path, &drpms) };
    let files: Vec<PlannedFile> =
        new_state.packages.iter().filter(|file| !known.contains(&file.path)).map(file).collect();
    if files.is_empty() {
        bail!("{} lists no package that {} doesn't", new.display(), old.display());
    }
    scenario.push.files = files;
    scenario.push.metadata = new_state.metadata.max(1);
    Ok(())
}

/// The file names, without their ends, of packages that a drpm may make: `NAME-OLD_NEW.ARCH.drpm` makes `NAME-NEW.ARCH`. Names
/// and versions may have underscores and dashes, so that there are several readings; packages decide.
fn targets(drpm: &str) -> Vec<String> {
    let name = drpm.rsplit('/').next().unwrap_or_default();
    let Some(stem) = name.strip_suffix(".drpm") else { return Vec::new() };
    let splits = stem.match_indices('_').map(|(at, _)| (&stem[..at], &stem[at + 1..]));
    let readings = splits
        .flat_map(|(left, new)| left.match_indices('-').map(move |(at, _)| format!("{}-{new}", &left[..at])));
    readings.collect()
}

fn drpm_of(package: &str, drpms: &HashMap<String, u64>) -> Option<u64> {
    let name = package.rsplit('/').next()?.strip_suffix(".rpm")?;
    drpms.get(name).copied()
}

/// What one state of a repo lists.
struct State {
    packages: Vec<ListedFile>,
    drpms: Vec<ListedFile>,
    /// Bytes of what dnf fetches after a push.
    metadata: u64,
}

/// Kinds of metadata that dnf fetches.
const FETCHED: [&str; 7] =
    ["primary", "filelists", "prestodelta", "updateinfo", "group_gz", "group_xz", "modules"];

fn read(directory: &Path) -> Result<State> {
    let path = directory.join("repodata/repomd.xml");
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let repomd = repomd::parse(&bytes, &Root::default()).with_context(|| path.display().to_string())?;
    let metadata = |repomd: &Repomd| {
        let fetched = repomd.records.iter().filter(|record| FETCHED.contains(&&*record.kind));
        fetched.filter_map(|record| record.size).sum()
    };
    let (mut packages, mut drpms) = (Vec::new(), Vec::new());
    let primary = repomd.record("primary").with_context(|| format!("{} names no primary", path.display()))?;
    document(&directory.join(&primary.path), |plain| {
        primary::parse(plain, &Root::default(), |file| packages.push(file)).map(drop)
    })?;
    if let Some(record) = repomd.record("prestodelta") {
        document(&directory.join(&record.path), |plain| {
            prestodelta::parse(plain, &Root::default(), |file| drpms.push(file)).map(drop)
        })?;
    }
    Ok(State { packages, drpms, metadata: metadata(&repomd) })
}

/// Hands on what is in a compressed document.
fn document(
    path: &Path,
    parse: impl FnOnce(Box<dyn std::io::BufRead + '_>) -> Result<(), RepodataError>,
) -> Result<()> {
    let file = fs::File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let plain = compression::decompress(BufReader::new(file), MOST_BYTES)
        .with_context(|| format!("unpacking {}", path.display()))?;
    parse(plain).with_context(|| path.display().to_string())
}

/// Takes from a running node how long its mirrors took to hold the last push of `repo`, or of the first repo; says what was found.
///
/// # Errors
/// The node can't be reached, has no such repo, or no mirror of it was ever proven.
pub fn from_node(scenario: &mut Scenario, config: &Config, repo: Option<&str>) -> Result<String> {
    let status = ask::status(config)?;
    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    let repos = list("repos");
    let found = repos.iter().find(|found| repo.is_none_or(|repo| found["id"] == repo));
    let found = found.with_context(|| format!("the node has no repo {}", repo.unwrap_or_default()))?;
    let time = |value: &serde_json::Value| humantime::parse_rfc3339(value.as_str()?).ok();
    let published = time(&found["generation"]["published"])
        .with_context(|| format!("{} has no generation yet", found["id"]))?;
    let delay = |mirror: &serde_json::Value| {
        let holding = mirror["repos"].as_array()?.iter().find(|holding| holding["id"] == found["id"])?;
        let is_fresh = holding["fresh"] == true;
        let after = time(&holding["proven_at"])?.duration_since(published).unwrap_or_default();
        Some(if is_fresh { after } else { NEVER })
    };
    let measured: Vec<Duration> = list("mirrors").iter().filter_map(delay).collect();
    let fresh = measured.iter().filter(|delay| **delay < NEVER).count();
    if fresh == 0 {
        bail!("no mirror is known to hold what was pushed to {}", found["id"]);
    }
    let said = format!(
        "{fresh} of {} mirrors hold what was pushed to {}; the others are taken as never holding it\n",
        measured.len(),
        found["id"]
    );
    scenario.sync.measured = measured;
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drpm_is_found_for_its_package() {
        let drpms: HashMap<String, u64> = targets("drpms/python3-six-1.9.0-2.el7_1.15.0-1.el7.noarch.drpm")
            .into_iter()
            .map(|name| (name, 7))
            .collect();
        assert_eq!(drpm_of("Packages/python3-six-1.15.0-1.el7.noarch.rpm", &drpms), Some(7));
        assert_eq!(drpm_of("Packages/python3-six-1.9.0-2.el7.noarch.rpm", &drpms), None);
        // An underscore in the old version, as CentOS has them.
        let drpms: HashMap<String, u64> = targets("drpms/bash-4.2.46-30.el7_4_4.2.46-34.el7_9.x86_64.drpm")
            .into_iter()
            .map(|name| (name, 9))
            .collect();
        assert_eq!(drpm_of("Packages/bash-4.2.46-34.el7_9.x86_64.rpm", &drpms), Some(9));
        assert!(targets("drpms/odd.rpm").is_empty());
    }
}
