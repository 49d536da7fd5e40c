//! Where the files lie that repodata lists.
//!
//! Clients resolve a location as the URL reference that it is, against the repo's URL or an `xml:base`: it may lead out of the
//! repo's directory. Whatever stays below the tree's root is the node's to serve.

use super::{Alias, Config, Origin, Repo, canonical};
use crate::http::path::TreePath;

/// What locations are resolved against: where the repo lies, and by which URLs its tree is known.
#[derive(Clone, Debug, Default)]
pub struct Root {
    /// The repo's path; `None`: the tree's root.
    repo: Option<TreePath>,
    urls: Vec<String>,
    aliases: Vec<Alias>,
}

impl Root {
    /// Of `repo`. The tree's URLs are the node's own and the origin's.
    #[must_use]
    pub fn of(config: &Config, repo: &Repo) -> Self {
        let origin = match &config.origin {
            Origin::Http { url, .. } => Some(url.clone()),
            Origin::Directory { .. } => None,
        };
        let urls = config.node.urls.iter().cloned().chain(origin).collect();
        Self { repo: Some(repo.path.clone()), urls, aliases: config.aliases.clone() }
    }

    /// The path that `href` names, with `base` as its `xml:base`: relative to the repo if it lies below it, else from the
    /// tree's root on, with a leading '/'. In the one form in which requests are looked up; it isn't percent-decoded, since
    /// clients append it to the base URL as it stands. None if it leads out of the tree or could never be asked for, and for
    /// what would be taken for the metadata of another repo.
    #[must_use]
    pub fn resolve(&self, href: &str, base: Option<&str>) -> Option<String> {
        let dir = match base.filter(|base| !base.is_empty()) {
            Some(base) => self.below(base)?,
            None => self.repo.clone().unwrap_or_else(TreePath::root),
        };
        let path = canonical(&self.aliases, &joined(dir.as_str(), href)?);
        let repo = self.repo.as_ref().map_or("", TreePath::as_str);
        let found = match path.strip_dir_prefix(repo) {
            Some(below) => below.to_owned(),
            None if path.as_str().split('/').any(|segment| segment == "repodata") => return None,
            None => format!("/{path}"),
        };
        (!found.is_empty()).then_some(found)
    }

    /// The directory that an absolute URL names, if it is one of the tree's.
    fn below(&self, base: &str) -> Option<TreePath> {
        let rest =
            self.urls.iter().find_map(|url| strip(base, url)).filter(|rest| !rest.contains(['?', '#']))?;
        TreePath::from_uri(&format!("/{rest}")).ok()
    }
}

/// What follows `url`, a directory's, in `base`; over http or https, as a node has both. None if it isn't below it.
fn strip<'a>(base: &'a str, url: &str) -> Option<&'a str> {
    let ((scheme, base), (_, url)) = (base.split_once("://")?, url.split_once("://")?);
    let url = url.trim_end_matches('/');
    let (start, rest) = (base.get(..url.len())?, base.get(url.len()..)?);
    let host = url.find('/').unwrap_or(url.len());
    let is_it = start.get(..host)?.eq_ignore_ascii_case(&url[..host]) && start.get(host..)? == &url[host..];
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    (is_http && is_it && (rest.is_empty() || rest.starts_with('/'))).then(|| rest.trim_start_matches('/'))
}

/// `href`, taken from `dir`, its dot segments resolved (RFC 3986, 5.2.4). None if it names a directory, or is no relative path,
/// or leads out of the tree.
fn joined(dir: &str, href: &str) -> Option<TreePath> {
    let is_directory = matches!(href.rsplit('/').next(), Some("" | "." | ".."));
    let has_scheme = href.split('/').next().is_some_and(|first| first.ends_with(':'));
    if is_directory || has_scheme || href.starts_with('/') {
        return None;
    }
    let mut segments: Vec<&str> = dir.split('/').filter(|segment| !segment.is_empty()).collect();
    for segment in href.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            _ => segments.push(segment),
        }
    }
    TreePath::new(&segments.join("/")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(repo: &str) -> Root {
        let path = |text| TreePath::new(text).unwrap();
        Root {
            repo: Some(path(repo)),
            urls: vec!["http://node.example:8080/".into(), "https://master.example/centos/".into()],
            aliases: vec![Alias { from: path("7"), to: path("7.9") }],
        }
    }

    #[test]
    fn locations_are_resolved_within_the_tree() {
        let (long, none) = (format!("../{}", "x".repeat(5000)), None);
        for (href, base, expected) in [
            ("a/x.rpm", none, Some("a/x.rpm")),
            ("a/x.rpm", Some(""), Some("a/x.rpm")),
            ("x/../pool/y.rpm", none, Some("pool/y.rpm")),
            ("../noarch/x.rpm", none, Some("/7.9/os/noarch/x.rpm")),
            ("./..//noarch/./x.rpm", none, Some("/7.9/os/noarch/x.rpm")),
            ("../x86_64/a/x.rpm", none, Some("a/x.rpm")),
            ("../../../7/os/x86_64/a/x.rpm", none, Some("a/x.rpm")),
            ("../../../x.rpm", none, Some("/x.rpm")),
            ("../../../../x.rpm", none, None),
            ("../other/repodata/repomd.xml", none, None),
            ("../x/", none, None),
            ("../x/..", none, None),
            ("..", none, None),
            ("../x86_64", none, None),
            ("/7/os/x.rpm", none, None),
            ("../a\\b", none, None),
            ("../a\nb", none, None),
            ("http://node.example:8080/x.rpm", none, None),
            (long.as_str(), none, None),
            ("x.rpm", Some("http://node.example:8080/7/os/x86_64/"), Some("x.rpm")),
            ("x.rpm", Some("http://NODE.example:8080/7/os/x86_64"), Some("x.rpm")),
            ("x.rpm", Some("https://node.example:8080/~2/pool/"), Some("/pool/x.rpm")),
            ("../x.rpm", Some("https://master.example/centos/pool"), Some("/x.rpm")),
            ("x.rpm", Some("http://node.example:8080"), Some("/x.rpm")),
            ("x.rpm", Some("https://master.example/centosx/"), None),
            ("x.rpm", Some("https://master.example/fedora/"), None),
            ("x.rpm", Some("http://node.example:80801/"), None),
            ("x.rpm", Some("http://elsewhere.example/"), None),
            ("x.rpm", Some("http://node.example:8080/?a"), None),
            ("x.rpm", Some("ftp://node.example:8080/"), None),
            ("x.rpm", Some("media://1"), None),
        ] {
            assert_eq!(root("7.9/os/x86_64").resolve(href, base).as_deref(), expected, "{href:?} {base:?}");
        }
        for (href, base, expected) in [
            ("x/../y.rpm", none, Some("y.rpm")),
            ("../y.rpm", none, None),
            ("y.rpm", Some("http://node.example:8080/a/"), Some("a/y.rpm")),
        ] {
            assert_eq!(root("").resolve(href, base).as_deref(), expected, "{href:?} {base:?} at the root");
        }
    }
}
