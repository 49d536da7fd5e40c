//! What of a changed configuration a running node can take over.
//!
//! `[egress]`, and of each repo who delivers it, its window and its priority: what operators tune while a push is under way.
//! All else (addresses, directories, the origin, which repos and mirrors there are) needs a restart, which drains.

use super::{Config, Repo};

/// What is different in another configuration.
#[derive(Debug, PartialEq)]
pub struct Changes {
    /// `[egress]`
    pub egress: bool,
    /// Numbers of the repos whose settings are others.
    pub repos: Vec<usize>,
    /// The tables that need a restart, as they are written in the file.
    pub restart: Vec<&'static str>,
}

impl Changes {
    /// From `old` to `new`.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Self {
        let repos = || old.repos.iter().zip(&new.repos);
        let same_repos =
            old.repos.len() == new.repos.len() && repos().all(|(old, new)| old.with_settings_of(new) == *new);
        let tables = [
            ("[node]", old.node == new.node),
            ("[http]", old.http == new.http),
            ("[https]", old.https == new.https),
            ("[admin]", old.admin == new.admin),
            ("[origin]", old.origin == new.origin),
            ("[tree]", old.tree == new.tree),
            ("[cache]", old.cache == new.cache),
            ("[[repo]]", same_repos),
            ("[[alias]]", old.aliases == new.aliases),
            ("[[moved]]", old.moved == new.moved),
            ("[listing]", old.listing == new.listing),
            ("[push]", old.push == new.push),
            ("[mirrors]", old.probes == new.probes && old.geoip == new.geoip),
            ("[[mirror]]", old.mirrors == new.mirrors),
            ("[[unlisted]]", old.unlisted == new.unlisted),
            ("[[network]]", old.networks == new.networks),
            ("[log]", old.log == new.log),
        ];
        let changed = repos().enumerate().filter(|(_, (old, new))| old != new).map(|(index, _)| index);
        Self {
            egress: old.egress != new.egress,
            repos: if same_repos { changed.collect() } else { Vec::new() },
            restart: tables.iter().filter(|(_, same)| !same).map(|(table, _)| *table).collect(),
        }
    }
}

impl Config {
    /// This configuration with what a running node takes over from `new`.
    #[must_use]
    pub fn with_changes_of(&self, new: &Self, changes: &Changes) -> Self {
        let mut config = self.clone();
        config.egress = new.egress.clone();
        for index in &changes.repos {
            config.repos[*index] = new.repos[*index].clone();
        }
        config
    }
}

impl Repo {
    /// This repo with the settings of `new` that may change while the node runs.
    #[must_use]
    pub fn with_settings_of(&self, new: &Self) -> Self {
        Self {
            delivery: new.delivery,
            window: new.window,
            window_scope: new.window_scope,
            window_max_push: new.window_max_push,
            window_min_mirrors: new.window_min_mirrors,
            priority: new.priority,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Delivery, Priority, Scope};
    use crate::http::TreePath;
    use std::path::Path;
    use std::time::Duration;

    fn config() -> Config {
        let mut config = Config::for_tree(Path::new("/srv/tree"));
        let repo = |name: &str| Repo {
            name: name.to_owned(),
            release: String::new(),
            arch: String::new(),
            id: name.to_owned(),
            path: TreePath::new(name).unwrap(),
            delivery: Delivery::Window,
            window: Duration::from_secs(3600),
            window_scope: Scope::Repo,
            window_max_push: 1,
            window_min_mirrors: 1,
            twin: None,
            priority: Priority::Normal,
            checksums: None,
        };
        config.repos = vec![repo("a"), repo("b")];
        config
    }

    #[test]
    fn only_what_is_tuned_is_taken_over() {
        let old = config();
        assert_eq!(Changes::between(&old, &old), Changes { egress: false, repos: vec![], restart: vec![] });
        let mut new = old.clone();
        new.egress.shed_from = 0.5;
        new.repos[1].window = Duration::from_secs(7);
        new.repos[1].delivery = Delivery::Offload;
        new.http.idle_timeout = Duration::from_secs(1);
        let changes = Changes::between(&old, &new);
        assert_eq!(changes, Changes { egress: true, repos: vec![1], restart: vec!["[http]"] });
        let applied = old.with_changes_of(&new, &changes);
        assert_eq!(applied.repos, new.repos);
        assert_eq!(applied.egress, new.egress);
        assert_eq!(applied.http, old.http);
        assert_eq!(
            Changes::between(&applied, &new).restart,
            ["[http]"],
            "it is told again until the restart"
        );
    }

    #[test]
    fn other_repos_are_no_settings() {
        let old = config();
        let mut moved = old.clone();
        moved.repos[0].path = TreePath::new("c").unwrap();
        moved.repos[1].window = Duration::from_secs(7);
        let mut fewer = old.clone();
        fewer.repos.pop();
        for new in [moved, fewer] {
            let changes = Changes::between(&old, &new);
            assert_eq!((changes.repos.len(), &changes.restart[..]), (0, &["[[repo]]"][..]));
            assert_eq!(old.with_changes_of(&new, &changes), old);
        }
    }
}
