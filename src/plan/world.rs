//! The repo before and after the push, and the mirrors, as the node's own types have them.

use crate::clock::Timestamp;
use crate::config::scenario::{PlannedFile, Scenario};
use crate::config::{Mirror, Repo};
use crate::http::TreePath;
use crate::policy::{MirrorState, MirrorTable, Pair, Proof, Reach, RepoView, Repos, Window};
use crate::repo::{Generation, History, ListedFile, Record, Repomd, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// When the scenario starts. Any time will do.
const START: Timestamp = Timestamp::from_secs(1_700_000_000);
/// Of what is installed besides, there are so many times more packages than one host takes.
const CHOICE: u64 = 5;
/// Metadata are in so many files: primary, filelists, other.
const KINDS: [(&str, u64); 3] = [("primary", 5), ("filelists", 3), ("other", 2)];

/// A file that is asked for.
#[derive(Clone, Debug)]
pub struct File {
    /// In the tree.
    pub path: TreePath,
    /// In bytes.
    pub size: u64,
    sha256: Sha256,
}

impl File {
    fn new(repo: &Repo, below: &str, size: u64, sha256: Sha256) -> Self {
        Self { path: repo.path.join(below).expect("it is short"), size, sha256 }
    }
}

/// What clients may ask for; nothing changes in it but by the push.
#[derive(Debug)]
pub struct World {
    before: Repos,
    after: Repos,
    flips: f64,
    /// repomd.xml.
    pub root: File,
    /// The other metadata, before the push and after it.
    pub metadata: [Vec<File>; 2],
    /// New in the push: the package, and the drpm that may stand for it.
    pub pushed: Vec<(File, Option<File>)>,
    /// There before and after.
    pub old: Vec<File>,
}

/// `seconds` after the start.
#[must_use]
pub fn time(seconds: f64) -> Timestamp {
    START.plus(Duration::from_secs_f64(seconds.max(0.0)))
}

impl World {
    /// As the scenario has it.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let repo = Arc::new(scenario.policy.repo());
        let file = |below: &str, size| File::new(&repo, below, size, Sha256::of(below.as_bytes()));
        let metadata = |generation: u64| metadata(&repo, generation, scenario.push.metadata);
        let pushed = |(number, planned): (usize, &PlannedFile)| {
            let package = file(&format!("Packages/p{number}-2.rpm"), planned.size);
            let drpm = planned.drpm.map(|size| file(&format!("drpms/p{number}-1_2.drpm"), size));
            (package, drpm)
        };
        let pushed: Vec<_> = scenario.push.files.iter().enumerate().map(pushed).collect();
        let size = (scenario.installs.bytes / scenario.installs.packages).max(1);
        let old: Vec<_> = (0..scenario.installs.packages * CHOICE)
            .map(|number| file(&format!("Packages/old{number}-1.rpm"), size))
            .collect();
        let (published, flips) =
            (scenario.push.at.as_secs_f64(), (scenario.push.at + scenario.push.flip).as_secs_f64());
        let metadata = [metadata(1), metadata(2)];
        let first = generation(&repo, &metadata[0], old.iter(), None, (START, START));
        let new = pushed.iter().flat_map(|(package, drpm)| std::iter::once(package).chain(drpm));
        let at = (time(published), time(flips));
        let second = generation(&repo, &metadata[1], old.iter().chain(new), Some(&first), at);
        let window = Window::opened_by(&second, &repo);
        let view = |history, window| {
            let view = RepoView { repo: repo.clone(), history, window, confirmed: Arc::default() };
            Repos::new(vec![Arc::new(view)])
        };
        let before = view(History::new([Arc::new(first.clone())]), None);
        let history = History::new([Arc::new(first), Arc::new(second)]);
        let root = file("repodata/repomd.xml", 4096);
        Self { before, after: view(history, window), flips, root, metadata, pushed, old }
    }

    /// The nodes offer the push at `now`, in seconds after the start.
    #[must_use]
    pub fn is_pushed(&self, now: f64) -> bool {
        now >= self.flips
    }

    /// What the nodes offer at `now`, in seconds after the start.
    #[must_use]
    pub fn repos(&self, now: f64) -> &Repos {
        if self.is_pushed(now) { &self.after } else { &self.before }
    }

    /// The metadata that go with it.
    #[must_use]
    pub fn metadata(&self, now: f64) -> &[File] {
        &self.metadata[usize::from(self.is_pushed(now))]
    }
}

/// The files of a generation's metadata.
fn metadata(repo: &Repo, generation: u64, bytes: u64) -> Vec<File> {
    let file = |(kind, tenths): (&str, u64)| {
        let sha256 = Sha256::of(format!("{kind} {generation}").as_bytes());
        let below = format!("repodata/{sha256}-{kind}.xml.gz");
        File::new(repo, &below, (bytes * tenths / 10).max(1), sha256)
    };
    KINDS.into_iter().map(file).collect()
}

fn generation<'a>(
    repo: &Repo,
    metadata: &[File],
    files: impl Iterator<Item = &'a File>,
    previous: Option<&Generation>,
    (published, flipped): (Timestamp, Timestamp),
) -> Generation {
    let below = |file: &File| file.path.as_str()[repo.path.as_str().len() + 1..].to_owned();
    let record = |(file, (kind, _)): (&File, (&str, u64))| Record {
        kind: kind.to_owned(),
        path: below(file),
        size: Some(file.size),
        digest: Some(file.sha256.into()),
    };
    let repomd = Repomd { records: metadata.iter().zip(KINDS).map(record).collect(), ..Repomd::default() };
    let packages = files
        .map(|file| ListedFile { path: below(file), size: file.size, digest: Some(file.sha256.into()) })
        .collect();
    let bytes = format!("generation {}", previous.map_or(1, |previous| previous.sequence + 1)).into();
    Generation::assemble(&bytes, &repomd, packages, vec![], vec![], previous, published, flipped)
}

/// The mirrors of the scenario, in the order of its groups.
#[must_use]
pub fn mirrors(scenario: &Scenario) -> Vec<Mirror> {
    let groups = scenario.mirrors.iter().flat_map(|group| std::iter::repeat_n(group, group.count));
    let mirror = |(number, group): (usize, &crate::config::scenario::MirrorGroup)| Mirror {
        continent: Some(group.continent),
        bandwidth: group.bandwidth,
        ..Mirror::new(&format!("m{number}"), &format!("http://m{number}.example/"))
    };
    groups.enumerate().map(mirror).collect()
}

/// As they stand before the push: all hold what was there.
#[must_use]
pub fn table(mirrors: &[Mirror], world: &World) -> MirrorTable {
    let id = world.before.views()[0].history.current().map(|current| current.id);
    MirrorTable::new(mirrors.iter().map(|mirror| Arc::new(state(mirror, 1, id))).collect())
}

/// Mirror number `mirror` is proven to hold the push.
pub fn proves(table: &mut MirrorTable, mirror: usize, world: &World) {
    let id = world.after.views()[0].history.current().map(|current| current.id);
    let settings = table.states()[mirror].mirror.clone();
    table.replace(mirror, Arc::new(state(&settings, 2, id)));
}

fn state(mirror: &Mirror, sequence: u32, seen: Option<Sha256>) -> MirrorState {
    let proof = Proof { sequence, shown: sequence, verified: START };
    let pair = Pair { proof: Some(proof), seen, ..Pair::default() };
    MirrorState {
        // Seen alive at any time.
        reach: Reach::Up { seen: Timestamp::from_millis(u64::MAX / 2) },
        ranges: true,
        ipv4: true,
        ipv6: true,
        pairs: vec![pair],
        ..MirrorState::untried(Arc::new(mirror.clone()), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Phase;
    use std::path::Path;

    #[test]
    fn the_push_is_a_generation_that_opens_a_window() {
        let text = "[push]\nat = \"1h\"\nflip = \"1m\"\ndrpm = 0.2";
        let (scenario, _) = Scenario::parse(text, Path::new("s.toml")).unwrap();
        let world = World::new(&scenario);
        let place = |now: f64, file: &File| {
            world.repos(now).locate(&file.path).map(|place| (place.listed, place.view.phase(600, time(now))))
        };
        let (package, drpm) = &world.pushed[3];
        let (listed, phase) = place(3600.0, package).unwrap();
        assert!(listed.is_none() && phase == Phase::Closed, "it isn't offered yet");
        for file in [package, drpm.as_ref().unwrap(), &world.metadata(3660.0)[0]] {
            let (listed, phase) = place(3660.0, file).unwrap();
            let listed = listed.unwrap();
            assert_eq!((listed.entry.since, listed.entry.size), (2, file.size));
            assert!(listed.entry.digest.is_some() && listed.entry.kind.is_provable());
            assert_eq!(phase, Phase::Open { closes: time(3600.0 + 24.0 * 3600.0) });
        }
        let (old, _) = place(3660.0, &world.old[0]).unwrap();
        assert_eq!(old.unwrap().entry.since, 1);

        let mut table = table(&mirrors(&scenario), &world);
        assert_eq!(table.fresh(0, 2), 0);
        proves(&mut table, 17, &world);
        assert_eq!(table.current(0, 2).collect::<Vec<_>>(), [17]);
    }
}
