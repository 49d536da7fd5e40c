//! The own nodes' entries in mirrorlists and metalinks.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::TreePath;
    use std::collections::HashSet;

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
