//! Which repo a list is asked for: the names that clients have for it, and those that the config has.

use super::Query;
use crate::config::{Alias, Repo};
use std::cmp::Reverse;

/// What the repos of CentOS Stream begin with in `repo=`: `centos-baseos-9-stream`.
const DISTRIBUTION: &str = "centos-";

/// How well a repo's release fits the one that is asked for, best first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It is that one.
    Same,
    /// An alias says so.
    Alias,
    /// It is written in another way: `f41` and `41`, `9-stream` and `9`.
    Written,
    /// A minor release of the one that is asked for; of several the latest.
    Minor(Reverse<Vec<u64>>),
    /// The major release of the minor one that is asked for, where the tree doesn't say which minor one it is.
    Major,
}

/// The number of the repo that `query` is for, of `repos` with theirs. Names count in any case, and a repo without architecture
/// is for all of them.
#[must_use]
pub fn find<'a>(
    repos: impl Iterator<Item = (usize, &'a Repo)>,
    aliases: &[Alias],
    query: &Query,
) -> Option<usize> {
    let judged = |(index, repo): (usize, &Repo)| {
        if !repo.arch.is_empty() && repo.arch != query.arch {
            return None;
        }
        let release = releases(repo, query).filter_map(|release| fit(repo, aliases, release)).min()?;
        // Of two that fit, the one with the longer name leaves less to guess.
        Some((release, repo.arch.is_empty(), Reverse(repo.name.len()), index))
    };
    repos.filter_map(judged).min().map(|(.., index)| index)
}

/// The releases that are asked for if `repo` is the one by its name; none if it isn't. An empty one is none.
fn releases<'q>(repo: &Repo, query: &'q Query) -> impl Iterator<Item = &'q str> {
    let text = query.text.as_str();
    let bare = text.get(..DISTRIBUTION.len()).is_some_and(|start| start.eq_ignore_ascii_case(DISTRIBUTION));
    let short = bare.then(|| &text[DISTRIBUTION.len()..]);
    let name = repo.name.clone();
    [Some(text), short].into_iter().flatten().filter_map(move |text| {
        let start = text.get(..name.len()).filter(|start| start.eq_ignore_ascii_case(&name))?;
        let rest = &text[start.len()..];
        match &query.release {
            Some(release) => rest.is_empty().then_some(release.as_str()),
            None if rest.is_empty() => Some(""),
            None => rest.strip_prefix('-').filter(|release| !release.is_empty()),
        }
    })
}

fn fit(repo: &Repo, aliases: &[Alias], asked: &str) -> Option<Fit> {
    let known = repo.release.as_str();
    if known.eq_ignore_ascii_case(asked) {
        return Some(Fit::Same);
    }
    if known.is_empty() || asked.is_empty() {
        return None;
    }
    let named = canonical(repo, aliases, known);
    if named == canonical(repo, aliases, asked) {
        return Some(Fit::Alias);
    }
    if plain(known).eq_ignore_ascii_case(plain(asked)) {
        return Some(Fit::Written);
    }
    let (known, asked) = (numbers(known)?, numbers(asked)?);
    match (known.len(), asked.len()) {
        (2.., 1) if known[0] == asked[0] => Some(Fit::Minor(Reverse(known))),
        (1, 2..) if known[0] == asked[0] && numbers(named).is_none_or(|named| named.len() == 1) => {
            Some(Fit::Major)
        }
        _ => None,
    }
}

/// What `release` is called where `repo` is: an alias that differs in nothing but a release says that its two are one.
fn canonical<'a>(repo: &Repo, aliases: &'a [Alias], release: &'a str) -> &'a str {
    let names = |alias: &'a Alias| {
        let (from, to) = (alias.from.as_str(), alias.to.as_str());
        let holds_repo = repo.path.strip_dir_prefix(to).is_some();
        let pairs = || from.split('/').zip(to.split('/')).filter(|(from, to)| from != to);
        let is_one = from.split('/').count() == to.split('/').count() && pairs().count() == 1;
        let (from, to) = pairs().next()?;
        (holds_repo && is_one && from == release).then_some(to)
    };
    aliases.iter().find_map(names).unwrap_or(release)
}

/// A release as others write it: Fedora's lists have an `f` before it, CentOS Stream's `-stream` behind.
fn plain(release: &str) -> &str {
    let release = release.strip_suffix("-stream").unwrap_or(release);
    let digits =
        release.strip_prefix('f').filter(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
    digits.unwrap_or(release)
}

/// `7.9.2009` as numbers; `None` for what is no such release.
fn numbers(release: &str) -> Option<Vec<u64>> {
    release.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    /// The id of the repo that is found.
    fn found(tables: &str, query: &str) -> Option<String> {
        let text = format!("[origin]\nurl = 'http://o/'\n[cache]\ndisk = '/c'\n{tables}");
        let config = Config::parse(&text, Path::new("f.toml")).unwrap().0;
        let index = find(config.repos.iter().enumerate(), &config.aliases, &Query::parse(query).unwrap())?;
        Some(config.repos[index].id.clone())
    }

    fn repo(name: &str, path: &str, releases: &str, arches: &str) -> String {
        let list =
            |key, list: &str| if list.is_empty() { String::new() } else { format!("{key} = [{list}]\n") };
        format!(
            "[[repo]]\nname = '{name}'\npath = '{path}'\n{}{}",
            list("releases", releases),
            list("arches", arches)
        )
    }

    fn expect(tables: &str, cases: &[(&str, Option<&str>)]) {
        for (query, id) in cases {
            assert_eq!(found(tables, query).as_deref(), *id, "{query}");
        }
    }

    #[test]
    fn releases_by_alias() {
        let alias = |from, to| format!("[[alias]]\nfrom = '{from}'\nto = '{to}'\n");
        let cases = [
            ("release=7&arch=x86_64&repo=updates", Some("updates/7.9.2009/x86_64")),
            ("release=7.9.2009&arch=x86_64&repo=updates", Some("updates/7.9.2009/x86_64")),
            ("release=latest&arch=x86_64&repo=updates", Some("updates/7.9.2009/x86_64")),
            ("release=7&arch=x86_64&repo=UPDATES", Some("updates/7.9.2009/x86_64")),
            ("repo=updates-7&arch=x86_64", Some("updates/7.9.2009/x86_64")),
            ("repo=updates/7/x86_64", Some("updates/7.9.2009/x86_64")),
            ("release=7.6.1810&arch=x86_64&repo=updates", None),
            ("release=8&arch=x86_64&repo=updates", None),
            ("release=7&arch=i386&repo=updates", None),
            ("release=7&arch=x86_64&repo=update", None),
            ("release=7&arch=x86_64&repo=updates-7", None),
        ];
        let aliases = alias("7", "7.9.2009") + &alias("latest", "7.9.2009");
        let config = repo("updates", "{release}/updates/{arch}", "'7.9.2009'", "'x86_64'") + &aliases;
        expect(&config, &cases);
        // The other way round: the config has the alias' name, and the tree says which minor release it is.
        let config = repo("updates", "{release}/updates/{arch}", "'7'", "'x86_64'") + &aliases;
        let cases = cases.map(|(query, id)| (query, id.map(|_| "updates/7/x86_64")));
        expect(&config, &cases);
        // An alias below another directory says nothing of this one.
        let config = repo("updates", "centos/{release}/{arch}", "'7.9.2009'", "'x86_64'");
        let in_tree = |from, to| config.clone() + &alias(from, to);
        let case = "release=7.9&arch=x86_64&repo=updates";
        assert_eq!(found(&in_tree("epel/7.9", "epel/7.9.2009"), case), None);
        assert!(found(&in_tree("centos/7.9", "centos/7.9.2009"), case).is_some());
    }

    #[test]
    fn releases_within_names() {
        let config = ["baseos", "appstream", "crb", "baseos-debug"]
            .map(|name| {
                repo(name, &format!("{{release}}/{name}/{{arch}}/os"), "'9-stream', '10-stream'", "'x86_64'")
            })
            .concat();
        expect(
            &config,
            &[
                ("repo=centos-baseos-9-stream&arch=x86_64", Some("baseos/9-stream/x86_64")),
                ("repo=centos-BaseOS-10-stream&arch=x86_64", Some("baseos/10-stream/x86_64")),
                ("repo=centos-baseos-debug-9-stream&arch=x86_64", Some("baseos-debug/9-stream/x86_64")),
                ("repo=baseos-9-stream&arch=x86_64", Some("baseos/9-stream/x86_64")),
                ("repo=crb&release=9-stream&arch=x86_64", Some("crb/9-stream/x86_64")),
                ("repo=centos-extras-9-stream&arch=x86_64", None),
                ("repo=centos-baseos-9-stream&arch=s390x", None),
                ("repo=centos-baseos-11-stream&arch=x86_64", None),
                ("repo=rocky-baseos-9-stream&arch=x86_64", None),
            ],
        );
        let config = repo("centos-baseos", "{release}-stream/BaseOS/{arch}/os", "'9'", "'x86_64'");
        expect(&config, &[("repo=centos-baseos-9-stream&arch=x86_64", Some("centos-baseos/9/x86_64"))]);
        let config = repo("updates-released", "updates/{release}/{arch}", "'41'", "'x86_64'")
            + &repo("rawhide", "development/rawhide/{arch}", "", "'x86_64'")
            + &repo("source", "{release}/source", "'41'", "");
        expect(
            &config,
            &[
                ("repo=updates-released-f41&arch=x86_64", Some("updates-released/41/x86_64")),
                ("repo=updates-released-f4&arch=x86_64", None),
                ("repo=rawhide&arch=x86_64", Some("rawhide/x86_64")),
                ("repo=rawhide&arch=s390x", None),
                ("repo=source-41&arch=x86_64", Some("source/41")),
            ],
        );
    }

    #[test]
    fn major_and_minor_releases() {
        let config = repo("BaseOS", "{release}/BaseOS/{arch}", "'9.5', '9.10', '9.6', '8'", "'x86_64'");
        expect(
            &config,
            &[
                ("repo=BaseOS-9&arch=x86_64", Some("BaseOS/9.10/x86_64")),
                ("repo=BaseOS-9.5&arch=x86_64", Some("BaseOS/9.5/x86_64")),
                ("repo=BaseOS-9.7&arch=x86_64", None),
                ("repo=BaseOS-8.10&arch=x86_64", Some("BaseOS/8/x86_64")),
                ("repo=BaseOS-10&arch=x86_64", None),
            ],
        );
    }
}
