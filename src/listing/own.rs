//! The own nodes' entries in mirrorlists and metalinks.

use super::Protocol;

/// The highest `N` of a `~N` prefix: what [`TreePath::from_uri`](crate::http::TreePath::from_uri) strips.
const MAX_PREFIX: usize = 99;

/// Base URLs of the own nodes, each with a trailing `/`, all distinct, at least `at_least` of them (and at most 99 for each URL).
///
/// librepo allows three failures for each entry and tells entries apart as strings, so the own nodes stand there several times:
/// first all of `urls`, then, where these are too few, the same once more behind `~1/`, `~2/`, which a node strips. Empty only
/// where `urls` is.
#[must_use]
pub fn own_entries(urls: &[String], at_least: usize) -> Vec<String> {
    let mut bases: Vec<String> = Vec::with_capacity(urls.len());
    for url in urls {
        let base = format!("{}/", url.trim_end_matches('/'));
        if !bases.contains(&base) {
            bases.push(base);
        }
    }
    let missing = at_least.saturating_sub(bases.len());
    let more: Vec<String> = (1..=MAX_PREFIX)
        .flat_map(|n| bases.iter().map(move |base| format!("{base}~{n}/")))
        .take(missing)
        .collect();
    bases.extend(more);
    bases
}

/// The own nodes' entries by the scheme that a client takes.
#[derive(Clone, Debug, Default)]
pub struct OwnEntries {
    all: Vec<String>,
    http: Vec<String>,
    https: Vec<String>,
}

impl OwnEntries {
    /// [`own_entries`] of `urls`, and of those with either scheme alone.
    #[must_use]
    pub fn new(urls: &[String], at_least: usize) -> Self {
        let with = |scheme: &str| {
            let urls: Vec<String> = urls.iter().filter(|url| url.starts_with(scheme)).cloned().collect();
            own_entries(&urls, at_least)
        };
        Self { all: own_entries(urls, at_least), http: with("http://"), https: with("https://") }
    }

    /// Those that a client can use.
    #[must_use]
    pub fn of(&self, protocol: Option<Protocol>) -> &[String] {
        match protocol {
            None => &self.all,
            Some(Protocol::Http) => &self.http,
            Some(Protocol::Https) => &self.https,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::TreePath;
    use std::collections::HashSet;

    #[test]
    fn entries_of_one_scheme_are_as_many() {
        let own = OwnEntries::new(&["http://a/".to_owned(), "https://b/".to_owned()], 4);
        assert_eq!(own.of(None), ["http://a/", "https://b/", "http://a/~1/", "https://b/~1/"]);
        assert_eq!(
            own.of(Some(Protocol::Https)),
            ["https://b/", "https://b/~1/", "https://b/~2/", "https://b/~3/"]
        );
        assert_eq!(own.of(Some(Protocol::Http)).len(), 4);
        assert!(OwnEntries::new(&["http://a/".to_owned()], 4).of(Some(Protocol::Https)).is_empty());
    }

    #[test]
    fn entries() {
        for (urls, at_least, expected) in [
            (&["http://a/"][..], 4, &["http://a/", "http://a/~1/", "http://a/~2/", "http://a/~3/"][..]),
            (
                &["http://a/", "http://b", "http://a"],
                4,
                &["http://a/", "http://b/", "http://a/~1/", "http://b/~1/"],
            ),
            (&["http://a/", "http://b/", "http://c/"], 2, &["http://a/", "http://b/", "http://c/"]),
            (&[], 4, &[]),
        ] {
            let urls: Vec<_> = urls.iter().copied().map(String::from).collect();
            assert_eq!(own_entries(&urls, at_least), expected);
        }
        let many = own_entries(&["http://a/".to_owned()], usize::from(u16::MAX));
        assert_eq!(many.iter().collect::<HashSet<_>>().len(), MAX_PREFIX + 1);
        for entry in many {
            let path = format!("{}7/x", entry.strip_prefix("http://a").unwrap());
            assert_eq!(TreePath::from_uri(&path), TreePath::new("7/x"), "{entry}: a node strips it");
        }
    }
}
