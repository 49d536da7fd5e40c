//! `[origin]`, `[tree]`, `[cache]` and `[push]`: where content comes from, what of it is for clients, where it is kept, and how
//! changes arrive.

use super::listen::readable;
use super::read::Table;
use super::{Cache, DiskCache, Origin, Push, QueryKey, Tree, kinds};
use std::path::Path;
use std::time::Duration;

/// Copies of a directory's files, unless the config says otherwise: some pushes of a large distribution.
pub(super) const RETAIN_SIZE: u64 = 10 << 30;

/// What a node stores, as far as the place of its state depends on it.
pub(super) struct Storage<'a> {
    pub(super) origin: &'a Origin,
    pub(super) cache: &'a Cache,
    /// How many repos there are.
    pub(super) repos: usize,
}

impl Storage<'_> {
    pub(super) fn origin_is_directory(&self) -> bool {
        matches!(self.origin, Origin::Directory { .. })
    }

    /// Reports `path` if it is in the tree.
    pub(super) fn outside_tree(&self, t: &Table<'_>, key: &'static str, path: Option<&Path>) {
        outside_tree(t, key, self.origin, path);
    }
}

/// A tree is public, and rsync removes from it what the master doesn't have.
fn outside_tree(t: &Table<'_>, key: &'static str, origin: &Origin, path: Option<&Path>) {
    let Origin::Directory { path: tree, .. } = origin else { return };
    if t.given(key) && !tree.as_os_str().is_empty() && path.is_some_and(|path| path.starts_with(tree)) {
        t.mistake(key, &format!("expected a directory outside of the tree, {}", tree.display()));
    }
}

/// Reads `[origin]`.
pub(super) fn origin(t: &mut Table<'_>) -> Origin {
    let file = kinds::file(t.source.folder());
    let ways = [t.given("url"), t.given("path")];
    if ways == [true, true] {
        t.mistake("path", "expected either origin.url or origin.path, not both");
    } else if ways == [false, false] {
        t.mistake("url", "missing, expected origin.url (an HTTP server) or origin.path (a local directory)");
    }
    if ways[1] {
        for key in ["ca", "connect_timeout", "first_byte_timeout", "stall_timeout", "patience"] {
            t.refuse(key, "expected only together with origin.url");
        }
        let path = t.optional("path", &file).unwrap_or_default();
        let retain_size = t.or("retain_size", &kinds::size("0 B", "1 PiB"), RETAIN_SIZE);
        let origin = Origin::Directory { path, retain: t.optional("retain", &file), retain_size };
        if let Origin::Directory { path, retain, .. } = &origin {
            outside_tree(t, "retain", &origin, retain.as_deref());
            warn_without_directory(t, path);
        }
        t.optional("url", &kinds::url());
        return origin;
    }
    t.refuse("retain", "expected only together with origin.path");
    t.refuse("retain_size", "expected only together with origin.path");
    let url = t.optional("url", &kinds::url()).unwrap_or_default();
    let ca = t.optional("ca", &file);
    if let Some(ca) = &ca {
        readable(t, "ca", ca);
        if url.starts_with("http:") {
            t.warn("ca", "has no effect, since origin.url is not https");
        }
    }
    Origin::Http {
        url,
        ca,
        connect_timeout: t.or("connect_timeout", &kinds::duration("10ms", "5m"), Duration::from_secs(5)),
        first_byte_timeout: t.or(
            "first_byte_timeout",
            &kinds::duration("10ms", "10m"),
            Duration::from_secs(8),
        ),
        stall_timeout: t.or("stall_timeout", &kinds::duration("10ms", "10m"), Duration::from_secs(30)),
        patience: t.or("patience", &kinds::duration("0s", "60s"), Duration::from_secs(15)),
    }
}

fn warn_without_directory(t: &Table<'_>, path: &Path) {
    if !path.as_os_str().is_empty() && !path.is_dir() {
        t.warn("path", &format!("there is no directory {} yet", path.display()));
    }
}

/// Reads `[tree]`.
pub(super) fn tree(t: &mut Table<'_>) -> Tree {
    Tree { shown: t.list("shown", &kinds::dotted_name()).unwrap_or_default() }
}

/// Reads `[cache]`.
pub(super) fn cache(t: &mut Table<'_>, origin: &Origin) -> Cache {
    let default = Cache::default();
    let memory = t.or("memory", &kinds::size("64 KiB", "1 TiB"), default.memory);
    let memory_object = t.or("memory_object", &kinds::size("1 KiB", "16 MiB"), default.memory_object);
    if memory_object > memory {
        t.mistake("memory_object", &format!("expected at most cache.memory, {memory} bytes"));
    }
    let path = t.optional("disk", &kinds::file(t.source.folder()));
    outside_tree(t, "disk", origin, path.as_deref());
    if !t.given("disk") {
        if matches!(origin, Origin::Http { .. }) {
            t.mistake("disk", "missing, expected a directory, since the origin is an HTTP server");
        }
        t.refuse("disk_size", "expected only together with cache.disk");
    }
    let size = t.or("disk_size", &kinds::size("64 KiB", "1 PiB"), 10 << 30);
    let revalidate = t.or("revalidate", &kinds::duration("0s", "7days"), default.revalidate);
    Cache {
        memory,
        memory_object,
        revalidate,
        stale_while_revalidate: t.or(
            "stale_while_revalidate",
            &kinds::duration("0s", "7days"),
            default.stale_while_revalidate,
        ),
        stale_if_error: t.or("stale_if_error", &kinds::duration("0s", "90days"), default.stale_if_error),
        query: t.or(
            "query",
            &kinds::choice([("ignore", QueryKey::Ignore), ("key", QueryKey::Key)]),
            default.query,
        ),
        absent: t.or("absent", &kinds::duration("0s", "1h"), default.absent),
        parts_from: t.or("parts_from", &kinds::size("1 MiB", "1 PiB"), default.parts_from),
        linger: t.or("linger", &kinds::duration("0s", "1h"), default.linger),
        finish_within: t.or("finish_within", &kinds::size("0 B", "1 PiB"), default.finish_within),
        disk: path.map(|path| DiskCache { path, size }),
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            memory_object: 32 << 10,
            revalidate: Duration::from_secs(60),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::from_secs(7 * 24 * 3600),
            query: QueryKey::Key,
            absent: Duration::from_secs(5),
            parts_from: 16 << 20,
            linger: Duration::from_secs(5),
            finish_within: 64 << 20,
            disk: None,
        }
    }
}

/// So much of a push is read before it is offered where the tree is served in place: at 250 MB/s in 40 s.
const READ_IN_PLACE: u64 = 10 << 30;

/// Reads `[push]`.
pub(super) fn push(t: &mut Table<'_>, cache: &Cache) -> Push {
    let default = Push::default();
    let disk = cache.disk.as_ref().map(|disk| disk.size);
    let warm = t.or("warm", &kinds::size("0 B", "1 PiB"), disk.map_or(READ_IN_PLACE, |disk| disk / 2));
    if let Some(disk) = disk.filter(|disk| *disk < warm) {
        t.mistake("warm", &format!("expected at most cache.disk_size, {disk} bytes"));
    }
    Push {
        poll: t.or("poll", &kinds::duration("10ms", "1day"), default.poll),
        stale: t.or("stale", &kinds::duration("0s", "90days"), default.stale),
        keep: t.or("keep", &kinds::duration("0s", "90days"), default.keep),
        warm,
        warm_for: t.or("warm_for", &kinds::duration("0s", "1day"), default.warm_for),
        warm_parallel: t.or("warm_parallel", &kinds::count(1, 256), default.warm_parallel),
        give_up: t.or("give_up", &kinds::duration("0s", "1day"), default.give_up),
    }
}

impl Default for Push {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(15),
            stale: Duration::from_secs(7 * 24 * 3600),
            keep: Duration::from_secs(48 * 3600),
            warm: 0,
            warm_for: Duration::from_secs(30),
            warm_parallel: 4,
            give_up: Duration::from_secs(60),
        }
    }
}
