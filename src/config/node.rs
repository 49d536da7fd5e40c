//! `[node]` and `[egress]`: who this node is, and what it may send.

use super::content::Storage;
use super::read::Table;
use super::{Egress, Node, Origin, kinds};
use std::thread::available_parallelism;

/// Reads `[node]`; where its state is depends on what it stores.
pub(super) fn node(t: &mut Table<'_>, storage: &Storage<'_>) -> Node {
    let default = Node::default();
    let self_url = t.optional("self_url", &kinds::url());
    let urls = t.list("urls", &kinds::url());
    if let Origin::Http { url, .. } = storage.origin {
        let itself = format!("expected another URL than origin.url, {url}: the node would fetch from itself");
        if urls.iter().flatten().any(|own| own == url) {
            t.mistake("urls", &itself);
        }
        if self_url.as_ref() == Some(url) {
            t.mistake("self_url", &itself);
        }
    }
    let urls = urls.filter(|urls| !urls.is_empty()).unwrap_or_else(|| self_url.iter().cloned().collect());
    if urls.is_empty() && storage.repos > 0 && !t.given("urls") {
        t.warn("urls", "missing: a mirrorlist needs URLs by which clients reach the nodes");
    }
    let state = t.optional("state", &kinds::file(t.source.folder()));
    let state = state.or_else(|| storage.cache.disk.as_ref().map(|disk| disk.path.join("state")));
    if state.is_none() && storage.repos > 0 && storage.origin_is_directory() && !t.given("state") {
        t.mistake("state", "missing, expected a directory: repos need one, unless cache.disk is given");
    }
    storage.outside_tree(t, "state", state.as_deref());
    Node {
        name: t.or("name", &kinds::name(), default.name),
        region: t.optional("region", &kinds::name()),
        self_url,
        urls,
        state,
        workers: t.or("workers", &kinds::count(1, 1024), default.workers),
        confine: confine(t),
    }
}

/// `confine`
fn confine(t: &mut Table<'_>) -> bool {
    let confine = t.or("confine", &kinds::truth(), true);
    if !confine {
        t.warn("confine", "a process that is taken over may do all that its user may; only for debugging");
    }
    confine
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: "freshet".to_owned(),
            region: None,
            self_url: None,
            urls: Vec::new(),
            state: None,
            workers: available_parallelism().map_or(1, usize::from),
            confine: true,
        }
    }
}

/// Reads `[egress]`.
pub(super) fn egress(t: &mut Table<'_>) -> Egress {
    let (shed_from, shed_all) = thresholds(t);
    let egress = Egress {
        capacity: t.optional("capacity", &kinds::bandwidth()),
        interface: t.optional("interface", &kinds::interface()),
        shed_from,
        shed_all,
    };
    if !t.given("capacity") {
        for key in ["interface", "shed_from", "shed_all"].into_iter().filter(|key| t.given(key)) {
            t.warn(key, "has no effect without egress.capacity");
        }
    }
    egress
}

/// `shed_from` and `shed_all`.
pub(super) fn thresholds(t: &mut Table<'_>) -> (f64, f64) {
    let default = Egress::default();
    let from = t.or("shed_from", &kinds::share(), default.shed_from);
    let all = t.or("shed_all", &kinds::share(), default.shed_all);
    if from > all {
        if t.given("shed_from") {
            t.mistake("shed_from", &format!("expected at most {}, {all}", t.place("shed_all").key));
        } else {
            t.mistake("shed_all", &format!("expected at least {}, {from}", t.place("shed_from").key));
        }
    }
    (from, all)
}

impl Default for Egress {
    fn default() -> Self {
        Self { capacity: None, interface: None, shed_from: 0.80, shed_all: 0.95 }
    }
}
