//! `[[repo]]`, `[[alias]]`, `[[moved]]` and `[[unlisted]]`: what is where in the tree.
//!
//! A `[[repo]]` table stands for one repo of each release and arch. Their paths are made canonical here, so that everybody
//! else compares plain paths.

use super::alias::{below, canonical};
use super::read::{Place, Report, Table};
use super::{Alias, Delivery, Moved, Priority, Repo, Scope, Unlisted, kinds};
use crate::http::path::{PathError, TreePath};
use std::collections::HashMap;
use std::time::Duration;

/// More repos than this are a slip; Fedora has some hundreds.
const MAX_REPOS: usize = 4096;

/// What these tables say together.
pub(super) struct Content {
    pub(super) repos: Vec<Repo>,
    pub(super) aliases: Vec<Alias>,
    pub(super) moved: Vec<Moved>,
    pub(super) unlisted: Vec<Unlisted>,
    tables: Vec<RepoTable>,
}

/// A `[[repo]]` as written.
struct RepoTable {
    name: String,
    /// None if it is wrong.
    path: Option<String>,
    /// One empty text if the table has none.
    releases: Vec<String>,
    arches: Vec<String>,
    rules: Rules,
    twin: Option<String>,
    priority: Priority,
    checksums: Option<String>,
    places: Places,
}

/// Who delivers a repo, and for how long.
pub(super) struct Rules {
    pub(super) delivery: Delivery,
    pub(super) window: Duration,
    pub(super) window_scope: Scope,
    pub(super) window_max_push: u64,
    pub(super) window_min_mirrors: usize,
}

struct Places {
    name: Place,
    path: Place,
    delivery: Place,
    window_min_mirrors: Place,
    twin: Place,
}

/// Reads all four.
pub(super) fn read(root: &mut Table<'_>) -> Content {
    let aliases = aliases(root);
    let moved = moved(root, &aliases);
    let unlisted = unlisted(root, &aliases);
    let tables = root.sections("repo", table);
    let (repos, tables_of) = expand(root.report, &tables, &aliases);
    no_overlap(root.report, &repos, &tables_of);
    for (moved, place) in &moved {
        if let Some(repo) = repos.iter().find(|repo| below(moved.from.as_str(), repo.path.as_str()).is_some())
        {
            root.report
                .mistake(place, &format!("expected a directory without repos, but {} is in it", repo.id));
        }
    }
    let repos = with_twins(root.report, repos, &tables_of);
    drop(tables_of);
    let moved = moved.into_iter().map(|(moved, _)| moved).collect();
    Content { repos, aliases, moved, unlisted, tables }
}

impl Content {
    /// Warns of repos that need more mirrors than the `mirrors` there are.
    pub(super) fn check_mirrors(&self, report: &Report, mirrors: usize) {
        for table in &self.tables {
            if mirrors == 0 && table.rules.delivery != Delivery::Own {
                report.warn(&table.places.delivery, "without any [[mirror]] the nodes deliver everything");
            } else if mirrors < table.rules.window_min_mirrors && table.rules.delivery == Delivery::Window {
                let what = format!("there are fewer mirrors ({mirrors}), so a window never closes");
                report.warn(&table.places.window_min_mirrors, &what);
            }
        }
    }
}

fn aliases(root: &mut Table<'_>) -> Vec<Alias> {
    let path = kinds::tree_path();
    let mut all: Vec<(Alias, Place)> = Vec::new();
    let read = root.sections("alias", |t| {
        let from = t.required("from", &path).filter(|from| not_root(t, "from", from));
        let to = t.required("to", &path);
        Some((Alias { from: from?, to: to? }, t.place("from"), t.place("to")))
    });
    let read: Vec<_> = read.into_iter().flatten().collect();
    for (alias, _, to) in &read {
        if read.iter().any(|(other, ..)| below(other.from.as_str(), alias.to.as_str()).is_some()) {
            root.report
                .mistake(to, "expected a path that is not in an alias itself: aliases are applied once");
        }
    }
    for (alias, from, _) in read {
        if let Some((_, first)) = all.iter().find(|(other, _)| other.from == alias.from) {
            root.report.mistake(
                &from,
                &format!("expected one alias for a path, but line {} has it too", first.line),
            );
        }
        all.push((alias, from));
    }
    all.sort_by_key(|(alias, _)| std::cmp::Reverse(alias.from.as_str().len()));
    all.into_iter().map(|(alias, _)| alias).collect()
}

fn not_root(t: &Table<'_>, key: &'static str, path: &TreePath) -> bool {
    if path.as_str().is_empty() {
        t.mistake(key, "expected a path below the tree's root");
    }
    !path.as_str().is_empty()
}

fn moved(root: &mut Table<'_>, aliases: &[Alias]) -> Vec<(Moved, Place)> {
    let read = root.sections("moved", |t| {
        t.refuse(
            "state",
            "this version knows no ended releases; remove the key: [[moved]] alone sends clients on",
        );
        let from = t.required("from", &kinds::tree_path()).filter(|from| not_root(t, "from", from));
        let to = t.required("to", &kinds::url());
        if from.as_ref().is_some_and(|from| aliases.iter().any(|alias| alias.from == *from)) {
            t.mistake("from", "expected a path that is no alias");
        }
        Some((Moved { from: canonical(aliases, &from?), to: to? }, t.place("from")))
    });
    let mut all: Vec<_> = read.into_iter().flatten().collect();
    let mut seen = HashMap::new();
    for (moved, place) in &all {
        if let Some(first) = seen.insert(moved.from.clone(), place.line) {
            root.report.mistake(
                place,
                &format!("expected one place to move to, but line {first} has this path too"),
            );
        }
    }
    all.sort_by_key(|(moved, _)| std::cmp::Reverse(moved.from.as_str().len()));
    all
}

fn unlisted(root: &mut Table<'_>, aliases: &[Alias]) -> Vec<Unlisted> {
    let read = root.sections("unlisted", |t| {
        let path = t.required("path", &kinds::tree_path()).filter(|path| not_root(t, "path", path));
        let age = t.or("age", &kinds::duration("1s", "1day"), Duration::from_secs(600));
        Some((Unlisted { path: canonical(aliases, &path?), age }, t.place("path")))
    });
    let mut seen = HashMap::new();
    for (one, place) in read.iter().flatten() {
        if let Some(first) = seen.insert(&one.path, place.line) {
            let what = format!("expected one table for a directory, but line {first} has this one too");
            root.report.mistake(place, &what);
        }
    }
    drop(seen);
    let mut all: Vec<Unlisted> = read.into_iter().flatten().map(|(one, _)| one).collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.path.as_str().len()));
    all
}

/// Reads who delivers a repo.
pub(super) fn delivery(t: &mut Table<'_>, default: Delivery) -> Delivery {
    let deliveries = [("window", Delivery::Window), ("own", Delivery::Own), ("offload", Delivery::Offload)];
    t.or("delivery", &kinds::choice(deliveries), default)
}

/// Reads who delivers a repo, and for how long.
pub(super) fn rules(t: &mut Table<'_>) -> Rules {
    let scopes = [("repo", Scope::Repo), ("push", Scope::Push)];
    Rules {
        delivery: delivery(t, Delivery::Window),
        window: t.or("window", &kinds::duration("1ms", "90days"), Duration::from_secs(24 * 3600)),
        window_scope: t.or("window_scope", &kinds::choice(scopes), Scope::Repo),
        window_max_push: t.or("window_max_push", &kinds::size("1 B", "1 PiB"), 2 << 30),
        window_min_mirrors: t.or("window_min_mirrors", &kinds::count(0, 10_000), 1),
    }
}

fn table(t: &mut Table<'_>) -> RepoTable {
    t.refuse(
        "state",
        "this version knows no ended releases; remove the repo, and send its clients on with [[moved]]",
    );
    let priorities = [("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)];
    let path = t.required("path", &template());
    let table = RepoTable {
        name: t.required("name", &kinds::name()).unwrap_or_default(),
        releases: values(t, "releases", "{release}", path.as_deref()),
        arches: values(t, "arches", "{arch}", path.as_deref()),
        path,
        rules: rules(t),
        twin: t.optional("twin", &kinds::name()),
        priority: t.or("priority", &kinds::choice(priorities), Priority::Normal),
        checksums: t.optional("checksums", &kinds::name()),
        places: Places {
            name: t.place("name"),
            path: t.place("path"),
            delivery: t.place("delivery"),
            window_min_mirrors: t.place("window_min_mirrors"),
            twin: t.place("twin"),
        },
    };
    if table.rules.delivery != Delivery::Window {
        let keys = ["window", "window_scope", "window_max_push", "window_min_mirrors"];
        for key in keys.into_iter().filter(|key| t.given(key)) {
            t.warn(key, "has no effect unless delivery = \"window\"");
        }
    }
    table
}

/// A path with the placeholders that a repo may have.
fn template() -> super::read::Kind<String> {
    let what = "a path below the tree's root with no placeholders but {release} and {arch}, such as \"{release}/updates/{arch}\"";
    super::read::Kind::text(what, |text| {
        let text = text.strip_suffix('/').unwrap_or(text);
        let sample = fill(text, "7", "x86_64");
        (!sample.contains(['{', '}']) && TreePath::new(&sample).is_ok()).then(|| text.to_owned())
    })
}

fn fill(template: &str, release: &str, arch: &str) -> String {
    template.replace("{release}", release).replace("{arch}", arch)
}

/// What a placeholder stands for: several values, or at most one where the path doesn't have it. None at all where that
/// can't be told, which is reported.
fn values(t: &mut Table<'_>, key: &'static str, placeholder: &str, path: Option<&str>) -> Vec<String> {
    let given = t.given(key);
    let mut list = t.list(key, &kinds::name()).unwrap_or_default();
    let is_empty = t.place(key).value.is_none_or(|value| value == "[]");
    match path {
        Some(path) if path.contains(placeholder) && is_empty => {
            let missing = if given { "" } else { "missing, " };
            t.mistake(key, &format!("{missing}expected at least one, since the path has {placeholder}"));
        }
        Some(path) if !path.contains(placeholder) && is_empty => list.push(String::new()),
        Some(path) if !path.contains(placeholder) && list.len() > 1 => {
            t.mistake(key, &format!("expected at most one, since the path has no {placeholder}"));
            list.truncate(1);
        }
        _ => {}
    }
    list
}

/// The repos of all tables, without twins, and for each the table it is from.
fn expand<'a>(
    report: &Report,
    tables: &'a [RepoTable],
    aliases: &[Alias],
) -> (Vec<Repo>, Vec<&'a RepoTable>) {
    let (mut repos, mut tables_of) = (Vec::new(), Vec::new());
    let mut ids: HashMap<String, &Place> = HashMap::new();
    for table in tables.iter().filter(|table| !table.name.is_empty()) {
        let Some(template) = &table.path else { continue };
        let place = &table.places.name;
        if repos.len() + table.releases.len().saturating_mul(table.arches.len()) > MAX_REPOS {
            report.mistake(
                place,
                &format!("expected at most {MAX_REPOS} repos, of all releases and arches together"),
            );
            break;
        }
        for (release, arch) in
            table.releases.iter().flat_map(|release| table.arches.iter().map(move |arch| (release, arch)))
        {
            let Ok(path) = TreePath::new(&fill(template, release, arch)) else {
                report.mistake(
                    &table.places.path,
                    &format!("expected a shorter path for {release} and {arch}"),
                );
                continue;
            };
            let repo = table.repo(release, arch, canonical(aliases, &path));
            if let Some(first) = ids.insert(repo.id.clone(), place) {
                let what = format!(
                    "expected a name, release and arch together only once, but {} is on line {} too",
                    repo.id, first.line
                );
                report.mistake(place, &what);
            }
            repos.push(repo);
            tables_of.push(table);
        }
    }
    (repos, tables_of)
}

impl RepoTable {
    fn repo(&self, release: &str, arch: &str, path: TreePath) -> Repo {
        let id = [&self.name, release, arch]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("/");
        Repo {
            name: self.name.clone(),
            release: release.to_owned(),
            arch: arch.to_owned(),
            id,
            path,
            delivery: self.rules.delivery,
            window: self.rules.window,
            window_scope: self.rules.window_scope,
            window_max_push: self.rules.window_max_push,
            window_min_mirrors: self.rules.window_min_mirrors,
            twin: None,
            priority: self.priority,
            checksums: self.checksums.clone(),
        }
    }
}

impl Repo {
    /// The path of a file as a catalogue of this repo has it: below the repo, or, with a leading '/', below the tree's root.
    ///
    /// # Errors
    /// The path is too long, or none.
    pub fn file(&self, listed: &str) -> Result<TreePath, PathError> {
        match listed.strip_prefix('/') {
            Some(from_root) => TreePath::new(from_root),
            None => self.path.join(listed),
        }
    }
}

/// Reports repos that are in one another. Sorted with a '/' at the end, all that is in a directory follows right behind it.
fn no_overlap(report: &Report, repos: &[Repo], tables_of: &[&RepoTable]) {
    let slashed = |repo: &Repo| {
        if repo.path.as_str().is_empty() { String::new() } else { format!("{}/", repo.path.as_str()) }
    };
    let mut sorted: Vec<_> = repos.iter().enumerate().map(|(index, repo)| (slashed(repo), index)).collect();
    sorted.sort();
    let mut outer: Option<&(String, usize)> = None;
    for inner in &sorted {
        let Some(around) = outer.filter(|outer| inner.0.starts_with(&outer.0)) else {
            outer = Some(inner);
            continue;
        };
        let (later, earlier) = (inner.1.max(around.1), inner.1.min(around.1));
        if repos[later].id == repos[earlier].id {
            continue; // reported already
        }
        let other = &repos[earlier];
        let what = format!(
            "expected a directory of its own: {} is at {}, {} at {}",
            repos[later].id,
            repos[later].path.as_str(),
            other.id,
            other.path.as_str()
        );
        report.mistake(&tables_of[later].places.path, &what);
    }
}

/// The repos with their twins: those of the twin's name with the same release and arch.
fn with_twins(report: &Report, repos: Vec<Repo>, tables_of: &[&RepoTable]) -> Vec<Repo> {
    let index = |twin: &str, repo: &Repo| {
        repos
            .iter()
            .position(|other| other.name == twin && other.release == repo.release && other.arch == repo.arch)
    };
    let find = |(at, table): (usize, &&RepoTable)| {
        let twin = table.twin.as_deref()?;
        let found = index(twin, &repos[at]);
        if found == Some(at) {
            report.mistake(&table.places.twin, "expected the name of another repo");
        } else if found.is_none() {
            let what =
                format!("expected the name of a repo with the same release and arch as {}", repos[at].id);
            report.mistake(&table.places.twin, &what);
        }
        found
    };
    let twins: Vec<Option<usize>> = tables_of.iter().enumerate().map(find).collect();
    repos.into_iter().zip(twins).map(|(repo, twin)| Repo { twin, ..repo }).collect()
}
