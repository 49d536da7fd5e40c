//! The exceptions of a proof: files of a generation that a mirror lacks, though it holds all others.
//!
//! A few files at most, by their paths below the repo, and whole groups of files that some mirrors leave out. A path is excepted
//! whatever a generation lists there, until a check has seen it.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Files that some mirrors leave out as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Delta packages.
    DeltaRpms,
    /// Metadata as `SQLite` databases, which only yum reads.
    Sqlite,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::DeltaRpms, Self::Sqlite];

    /// The group of the file at `path`, below the repo. Most files are of none.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let is_sqlite = || dir == "repodata" && name.split('.').skip(1).any(|part| part == "sqlite");
        match dir {
            _ if dir.split('/').next() == Some("drpms") => Some(Self::DeltaRpms),
            _ if is_sqlite() => Some(Self::Sqlite),
            _ => None,
        }
    }

    /// Its files, for people and on disk.
    #[must_use]
    pub const fn pattern(self) -> &'static str {
        match self {
            Self::DeltaRpms => "drpms/*",
            Self::Sqlite => "repodata/*.sqlite*",
        }
    }
}

/// Whose fault it is that a file is excepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The mirror alone lacks it, as far as is known.
    Mirror,
    /// The origin lacks it as well: no other mirror can have it.
    Origin,
}

/// See the module. Nearly all proofs have none: then it is one null pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exceptions(Option<Arc<Excepted>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Excepted {
    groups: Vec<Group>,
    files: BTreeMap<Box<str>, Fault>,
}

impl Exceptions {
    /// These groups, and these files besides; files of the groups are left out.
    pub fn new(
        groups: impl IntoIterator<Item = Group>,
        files: impl IntoIterator<Item = (String, Fault)>,
    ) -> Self {
        let mut groups: Vec<Group> = groups.into_iter().collect();
        groups.sort_unstable();
        groups.dedup();
        let is_single = |path: &str| Group::of(path).is_none_or(|group| !groups.contains(&group));
        let files = files.into_iter().filter(|(path, _)| is_single(path));
        let files: BTreeMap<_, _> = files.map(|(path, fault)| (path.into(), fault)).collect();
        let is_any = !groups.is_empty() || !files.is_empty();
        Self(is_any.then(|| Arc::new(Excepted { groups, files })))
    }

    /// True where the proof has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the file at `path`, below the repo, is one.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        let Some(excepted) = &self.0 else { return false };
        excepted.files.contains_key(path)
            || Group::of(path).is_some_and(|group| excepted.groups.contains(&group))
    }

    /// The groups.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        self.0.as_ref().map_or(&[], |excepted| &excepted.groups)
    }

    /// The files that are of none of these groups, by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, Fault)> {
        self.0.iter().flat_map(|excepted| excepted.files.iter().map(|(path, fault)| (&**path, *fault)))
    }

    /// How many there are: files, and groups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |excepted| excepted.files.len() + excepted.groups.len())
    }

    /// How many count against the bound of a proof: files that this mirror lacks by its own fault and that no group has.
    #[must_use]
    pub fn counted(&self) -> usize {
        self.files().filter(|(path, fault)| *fault == Fault::Mirror && Group::of(path).is_none()).count()
    }

    /// Whether a client that asks the mirror for everything does as well there as anywhere: all that it lacks, the origin
    /// lacks, too.
    #[must_use]
    pub fn are_the_origins(&self) -> bool {
        self.groups().is_empty() && self.files().all(|(_, fault)| fault == Fault::Origin)
    }

    /// The same and this file.
    #[must_use]
    pub fn with(&self, path: &str, fault: Fault) -> Self {
        let files = self.files().map(|(path, fault)| (path.to_owned(), fault));
        Self::new(self.groups().iter().copied(), files.chain([(path.to_owned(), fault)]))
    }

    /// All of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        if other.is_empty() || self == other {
            return self.clone();
        }
        let groups = self.groups().iter().chain(other.groups());
        // Of what both have, what is known of the origin counts.
        let (origins, mirrors): (Vec<_>, Vec<_>) =
            self.files().chain(other.files()).partition(|(_, fault)| *fault == Fault::Origin);
        let files = mirrors.into_iter().chain(origins);
        Self::new(groups.copied(), files.map(|(path, fault)| (path.to_owned(), fault)))
    }

    /// Patterns and paths for people: the first `most`.
    #[must_use]
    pub fn names(&self, most: usize) -> Vec<String> {
        let groups = self.groups().iter().map(|group| group.pattern().to_owned());
        groups.chain(self.files().map(|(path, _)| path.to_owned())).take(most).collect()
    }

    /// In words that follow a sentence: empty where there are none.
    #[must_use]
    pub fn words(&self) -> String {
        match (self.names(1).pop(), self.len()) {
            (None, _) => String::new(),
            (Some(first), 1) => format!(", except {first}"),
            (Some(first), 2) => format!(", except {first} and 1 other"),
            (Some(first), count) => format!(", except {first} and {} others", count - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_told_by_their_paths() {
        let cases = [
            ("drpms/a-1_2.x86_64.drpm", Some(Group::DeltaRpms)),
            ("drpms/a/b.drpm", Some(Group::DeltaRpms)),
            ("Packages/drpms/a.rpm", None),
            ("drpms", None),
            ("repodata/0123-primary.sqlite.bz2", Some(Group::Sqlite)),
            ("repodata/0123-other.sqlite", Some(Group::Sqlite)),
            ("Packages/a.sqlite.rpm", None),
            ("repodata/sqlite-primary.xml.gz", None),
            ("Packages/sqlite-3.rpm", None),
        ];
        for (path, group) in cases {
            assert_eq!(Group::of(path), group, "{path}");
        }
    }

    #[test]
    fn exceptions_are_files_and_groups() {
        let none = Exceptions::default();
        assert!(none.is_empty() && !none.contains("a") && none.are_the_origins() && none.words().is_empty());
        let one = none.with("Packages/a.rpm", Fault::Mirror);
        assert!(
            one.contains("Packages/a.rpm") && !one.contains("Packages/a.rpm2") && !one.contains("drpms/x")
        );
        assert_eq!((one.len(), one.counted(), one.words().as_str()), (1, 1, ", except Packages/a.rpm"));
        let group = Exceptions::new([Group::DeltaRpms], [("drpms/x".to_owned(), Fault::Mirror)]);
        assert_eq!((group.len(), group.counted(), group.contains("drpms/y")), (1, 0, true));
        let origin = none.with("Packages/a.rpm", Fault::Origin);
        for both in [one.and(&origin), origin.and(&one)] {
            assert_eq!(both, origin, "what is known of the origin counts");
        }
        let all = group.and(&one);
        assert_eq!(all.names(9), ["drpms/*", "Packages/a.rpm"]);
        assert_eq!(all.words(), ", except drpms/* and 1 other");
        assert!(!all.are_the_origins() && !one.are_the_origins() && origin.are_the_origins());
        assert_eq!((all.and(&none), none.and(&all)), (all.clone(), all));
    }
}
