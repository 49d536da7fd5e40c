//! Configurations that tests share. All keys of the first part are dotted, so that a test can add some of the same tables.

use super::origin::Origin;

/// A node with an HTTP origin and a disk cache that tells of failures at once. `more` follows: dotted keys first, then
/// tables.
pub fn cached(origin: &Origin, more: &str) -> String {
    format!(
        r#"
        node.name = "node"
        node.urls = ["http://{{http}}/"]
        http.listen = ["{{http}}"]
        admin.listen = "{{admin}}"
        origin.url = "{}"
        cache.disk = "{{dir}}/cache"
        cache.disk_size = "4 GiB"
        cache.revalidate = "1h"
        {more}
        "#,
        origin.url()
    )
}

/// A node that serves a directory in place.
pub fn in_place(tree: &std::path::Path, more: &str) -> String {
    format!(
        r#"
        node.name = "node"
        node.state = "{{dir}}/state"
        http.listen = ["{{http}}"]
        admin.listen = "{{admin}}"
        origin.path = "{}"
        {more}
        "#,
        tree.display()
    )
}

/// Polls and probes at a test's pace.
pub const BRISK: &str = r#"
        push.poll = "200ms"
        mirrors.probe_every = "300ms"
        mirrors.probe_lagging = "200ms"
        mirrors.liveness_every = "200ms"
        "#;

/// The repo of [`super::repo`], by its canonical path.
pub fn updates(window: &str) -> String {
    format!(
        r#"
        [[repo]]
        name = "updates"
        path = "{{release}}/updates/{{arch}}"
        releases = ["7.9.2009"]
        arches = ["x86_64"]
        window = "{window}"
        "#
    )
}

/// An external mirror.
pub fn mirror(name: &str, mirror: &Origin) -> String {
    format!(
        r#"
        [[mirror]]
        name = "{name}"
        url = "{}"
        bandwidth = "100 Gbit/s"
        "#,
        mirror.url()
    )
}
