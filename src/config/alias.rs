//! One identity for each file: symlinked names are replaced by the canonical one before anything is looked up.

use super::{Alias, Moved, Unlisted};
use crate::http::path::TreePath;
use std::time::Duration;

/// `path` under its canonical name. `aliases` are those of a `Config` (the longest `from` first); the first that
/// fits by whole segments is applied, once.
#[must_use]
pub fn canonical(aliases: &[Alias], path: &TreePath) -> TreePath {
    let renamed = aliases.iter().find_map(|alias| {
        let rest = below(alias.from.as_str(), path.as_str())?;
        let renamed = format!("{}{rest}", alias.to.as_str());
        // An alias of the root has nothing before the '/'.
        TreePath::new(renamed.trim_start_matches('/')).ok()
    });
    renamed.unwrap_or_else(|| path.clone())
}

/// Where the canonical `path` has moved to: an absolute URL. `all` are those of a `Config`.
#[must_use]
pub fn moved(all: &[Moved], path: &TreePath) -> Option<String> {
    all.iter().find_map(|moved| {
        below(moved.from.as_str(), path.as_str())?;
        let rest = path.encoded();
        let rest = rest.get(moved.from.encoded().len()..)?.trim_start_matches('/');
        Some(format!("{}{rest}", moved.to))
    })
}

/// What follows `directory` in `path`: empty, or from a '/' on, or all of it below the root. None if `path` is not in it.
pub(super) fn below<'a>(directory: &str, path: &'a str) -> Option<&'a str> {
    if directory.is_empty() {
        return Some(path);
    }
    path.strip_prefix(directory).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// For how long a sighting of the file at `path`, which is canonical, counts; `None` where none does. Never for metadata.
#[must_use]
pub fn unlisted(all: &[Unlisted], path: &TreePath) -> Option<Duration> {
    let text = path.as_str();
    let one = all.iter().find(|one| below(one.path.as_str(), text).is_some())?;
    let is_metadata = || text.split('/').any(|segment| segment == "repodata");
    (!path.is_directory() && !is_metadata()).then_some(one.age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_segments_the_longest_first_and_once() {
        let path = |text| TreePath::new(text).unwrap();
        let alias = |from, to| Alias { from: path(from), to: path(to) };
        let aliases = [alias("7/os", "base/7"), alias("7", "7.9.2009"), alias("7.9.2009", "8")];
        for (from, to) in [
            ("7", "7.9.2009"),
            ("7/", "7.9.2009/"),
            ("7/updates/x.rpm", "7.9.2009/updates/x.rpm"),
            ("7/os/a", "base/7/a"),
            ("7/osx", "7.9.2009/osx"),
            ("70/a", "70/a"),
            ("a/7/b", "a/7/b"),
            ("", ""),
        ] {
            assert_eq!(canonical(&aliases, &path(from)).as_str(), to, "{from}");
        }
    }

    #[test]
    fn moved_keeps_the_rest_of_the_path() {
        let path = |text| TreePath::new(text).unwrap();
        let all = [Moved { from: path("5 old"), to: "http://vault.example.org/5/".to_owned() }];
        for (from, rest) in [
            ("5 old", Some("")),
            ("5 old/", Some("")),
            ("5 old/os/a b.rpm", Some("os/a%20b.rpm")),
            ("5 older", None),
        ] {
            let expected = rest.map(|rest| format!("http://vault.example.org/5/{rest}"));
            assert_eq!(moved(&all, &path(from)), expected, "{from}");
        }
    }
}
