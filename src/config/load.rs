//! From a file to a `Config`: reads it and what it includes, section by section, so that each sees those it depends on.

use super::content::{self, Storage};
use super::read::{Report, Source, Table};
use super::{
    AccessLog, Admin, Cache, Config, Egress, Http, Listing, Log, Mistake, Node, Origin, OutsideWindow,
};
use super::{Probes, Push, Tree, Warning, kinds, listen, mirrors, node, repos};
use crate::geo::Network;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// The longest file that is read, in bytes: far above a thousand mirrors.
const MAX_FILE_BYTES: u64 = 16 << 20;

impl Config {
    /// Reads `path` and the files that it includes.
    ///
    /// # Errors
    /// All mistakes in them, those of `path` first and by line.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), Vec<Mistake>> {
        match text_of(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) => {
                let text = format!("expected a configuration file, but it can't be read: {error}");
                Err(vec![Mistake { file: path.to_owned(), line: 1, text }])
            }
        }
    }

    /// Reads `text` as if it stood in `path`, and the files that it includes.
    ///
    /// # Errors
    /// All mistakes in them, those of `path` first and by line.
    pub fn parse(text: &str, path: &Path) -> Result<(Self, Vec<Warning>), Vec<Mistake>> {
        let report = Report::default();
        report.source(path);
        let source = Source::new(path, text);
        let config = toml(&report, &source, text).map(|entries| {
            let mut root = Table::root(&report, &source, entries);
            let config = sections(&mut root);
            root.finish();
            Self { sources: report.take_sources(), ..config }
        });
        let config = config.unwrap_or_else(|| Self::for_tree(Path::new("")));
        report.into_result(config, path)
    }

    /// What `freshet serve --tree` does without any file: serves `directory` as it is, to this host only.
    #[must_use]
    pub fn for_tree(directory: &Path) -> Self {
        let loopback = |port| [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
        let listen: [SocketAddr; 2] = loopback(8080);
        Self {
            node: Node::default(),
            http: Http { listen: listen.to_vec(), ..Http::default() },
            https: None,
            admin: Admin::default(),
            origin: Origin::Directory {
                path: directory.to_owned(),
                retain: None,
                retain_size: content::RETAIN_SIZE,
            },
            cache: Cache::default(),
            egress: Egress::default(),
            tree: Tree::default(),
            repos: Vec::new(),
            aliases: Vec::new(),
            moved: Vec::new(),
            unlisted: Vec::new(),
            listing: Listing::default(),
            push: Push::default(),
            probes: Probes::default(),
            mirrors: Vec::new(),
            networks: Vec::new(),
            geoip: Vec::new(),
            log: Log::default(),
            sources: Vec::new(),
        }
    }
}

/// At most `MAX_FILE_BYTES` of a regular file.
pub(super) fn text_of(path: &Path) -> io::Result<String> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    let bytes = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if bytes as u64 > MAX_FILE_BYTES { Err(io::Error::other("it is longer than 16 MiB")) } else { Ok(text) }
}

/// The entries of a file; None, and every mistake reported, where it is not TOML.
pub(super) fn toml<'a>(report: &Report, source: &Source, text: &'a str) -> Option<DeTable<'a>> {
    let (entries, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = source.place(error.span().unwrap_or_default().start);
        report.mistake(&place, &format!("expected TOML: {}", error.message().replace('\n', "; ")));
    }
    errors.is_empty().then(|| entries.into_inner())
}

fn sections(root: &mut Table<'_>) -> Config {
    root.refuse("fleet", "this version's nodes run alone; remove the table");
    root.refuse(
        "region",
        "this version has no budgets for regions, only [egress] of each node; remove the table",
    );
    let content = repos::read(root);
    let (http, https, admin) = listen::read(root);
    let mut origin = root.section("origin", content::origin);
    let cache = root.section("cache", |t| content::cache(t, &origin));
    let storage = Storage { origin: &origin, cache: &cache, repos: content.repos.len() };
    let node = root.section("node", |t| node::node(t, &storage));
    if let (Origin::Directory { retain: retain @ None, .. }, Some(state)) = (&mut origin, &node.state) {
        *retain = Some(state.join("retained"));
    }
    let (named, networks) = included_tables(root);
    let all = mirrors::sound(root.report, named, &node.urls);
    content.check_mirrors(root.report, all.len());
    let (probes, geoip) =
        root.section("mirrors", |t| (mirrors::probes(t, &node.urls, !all.is_empty()), mirrors::geoip(t)));
    Config {
        http,
        https,
        admin,
        egress: root.section("egress", node::egress),
        tree: root.section("tree", content::tree),
        repos: content.repos,
        aliases: content.aliases,
        moved: content.moved,
        unlisted: content.unlisted,
        listing: root.section("listing", listing),
        push: root.section("push", |t| content::push(t, &cache)),
        probes,
        geoip,
        networks,
        mirrors: all,
        log: root.section("log", log),
        origin,
        cache,
        node,
        sources: Vec::new(),
    }
}

/// The mirrors and networks of this file, then those of the included ones, in the order of their names.
fn included_tables(root: &mut Table<'_>) -> (Vec<mirrors::Placed>, Vec<Network>) {
    let mut all = root.sections("mirror", mirrors::mirror);
    let mut networks = root.sections("network", mirrors::networks);
    for path in included(root) {
        root.report.source(&path);
        match text_of(&path) {
            Ok(text) => {
                let source = Source::new(&path, &text);
                let Some(entries) = toml(root.report, &source, &text) else { continue };
                let mut table = Table::root(root.report, &source, entries);
                all.append(&mut table.sections("mirror", mirrors::mirror));
                networks.append(&mut table.sections("network", mirrors::networks));
                table.finish();
            }
            Err(error) => root.mistake("include", &format!("expected to read {}: {error}", path.display())),
        }
    }
    (all, networks.into_iter().flatten().collect())
}

/// The files that `include` names.
fn included(root: &mut Table<'_>) -> Vec<PathBuf> {
    let patterns = root.list("include", &kinds::file(root.source.folder())).unwrap_or_default();
    let mut all = Vec::new();
    for pattern in patterns {
        let name = pattern.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let folder = pattern.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        if folder.to_string_lossy().contains('*') {
            root.mistake("include", "expected '*' only in the last part of a path");
        } else if name.contains('*') {
            // Also where none matches yet.
            root.report.source(&pattern);
            match folder.read_dir() {
                Ok(entries) => all.append(&mut matching(entries, &name)),
                Err(error) => {
                    root.warn("include", &format!("nothing is included by {}: {error}", pattern.display()));
                }
            }
        } else {
            all.push(pattern);
        }
    }
    all
}

/// The entries whose names match, sorted; hidden ones, such as editors leave behind, don't.
fn matching(entries: std::fs::ReadDir, pattern: &str) -> Vec<PathBuf> {
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        !name.starts_with('.') && matches(pattern, &name)
    };
    let mut all: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(fits).collect();
    all.sort();
    all
}

/// Whether `name` matches `pattern`, in which each '*' stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(last)
}

fn listing(t: &mut Table<'_>) -> Listing {
    let default = Listing::default();
    Listing {
        outside_window: outside_window(t),
        max_mirrors: t.or("max_mirrors", &kinds::count(1, 1000), default.max_mirrors),
    }
}

/// `outside_window`.
pub(super) fn outside_window(t: &mut Table<'_>) -> OutsideWindow {
    let orders = [("mirrors-first", OutsideWindow::MirrorsFirst), ("own-first", OutsideWindow::OwnFirst)];
    t.or("outside_window", &kinds::choice(orders), OutsideWindow::MirrorsFirst)
}

impl Default for Listing {
    fn default() -> Self {
        Self { outside_window: OutsideWindow::MirrorsFirst, max_mirrors: 20 }
    }
}

fn log(t: &mut Table<'_>) -> Log {
    let what = kinds::text("\"stdout\", \"off\" or the path of a file");
    let access = match t.optional("access", &what).as_deref() {
        None | Some("stdout") => AccessLog::Stdout,
        Some("off") => AccessLog::Off,
        Some(path) => AccessLog::File(t.source.folder().join(path)),
    };
    Log { access }
}

impl Default for Log {
    fn default() -> Self {
        Self { access: AccessLog::Stdout }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", true),
            ("*.toml", "a.toml.orig", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
