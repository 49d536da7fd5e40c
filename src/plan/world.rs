//! The repos before and after the push, and the mirrors, as the node's own types have them.

use crate::clock::Timestamp;
use crate::config::scenario::{PlannedFile, PlannedRapid, Scenario};
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

/// What clients may ask for; nothing changes in it but by what is published.
#[derive(Debug)]
pub struct World {
    /// What the nodes offer, and from when on, in seconds after the start.
    states: Vec<(f64, Repos)>,
    flips: f64,
    /// repomd.xml.
    pub root: File,
    /// The other metadata, before the push and after it.
    pub metadata: [Vec<File>; 2],
    /// New in the push: the package, and the drpm that may stand for it.
    pub pushed: Vec<(File, Option<File>)>,
    /// There before and after.
    pub old: Vec<File>,
    /// The rapid repo, if there is one.
    pub rapid: Option<Rapid>,
}

/// The rapid repo, and what is urgent.
#[derive(Debug)]
pub struct Rapid {
    flips: f64,
    /// repomd.xml.
    pub root: File,
    /// The other metadata.
    pub metadata: Vec<File>,
    /// New in it, and in the push.
    pub urgent: Vec<Urgent>,
}

/// An urgent package.
#[derive(Clone, Debug)]
pub struct Urgent {
    /// In the rapid repo.
    pub rapid: File,
    /// The same in updates.
    pub updates: File,
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
        let repos: Vec<Arc<Repo>> = scenario.repos().into_iter().map(Arc::new).collect();
        let updates = &*repos[0];
        let file = |below: &str, size| File::new(updates, below, size, Sha256::of(below.as_bytes()));
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
        let metadata = [1, 2].map(|generation| metadata(updates, generation, scenario.push.metadata));
        let rapid = scenario.rapid.as_ref().zip(repos.get(1)).map(|(planned, repo)| {
            Rapid::new(planned, [repo, updates], (scenario.push.at + scenario.push.flip).as_secs_f64())
        });
        let urgent = rapid.iter().flat_map(|rapid| &rapid.urgent);
        let new = pushed.iter().flat_map(|(package, drpm)| std::iter::once(package).chain(drpm));
        let new = new.chain(urgent.map(|urgent| &urgent.updates)).collect::<Vec<_>>();
        let published = scenario.published().as_secs_f64();
        let flips = (scenario.published() + scenario.push.flip).as_secs_f64();
        let old_files: Vec<&File> = old.iter().collect();
        let mut changes = vec![Change::new(&repos[0], &metadata, (&old_files, &new), (published, flips))];
        changes.extend(rapid.as_ref().map(|rapid| rapid.change(&repos[1], scenario.push.at.as_secs_f64())));
        let root = file("repodata/repomd.xml", 4096);
        Self { states: states(&changes), flips, root, metadata, pushed, old, rapid }
    }

    /// The nodes offer the push at `now`, in seconds after the start.
    #[must_use]
    pub fn is_pushed(&self, now: f64) -> bool {
        now >= self.flips
    }

    /// What the nodes offer at `now`, in seconds after the start.
    #[must_use]
    pub fn repos(&self, now: f64) -> &Repos {
        let later = self.states.partition_point(|(from, _)| *from <= now);
        &self.states[later.saturating_sub(1)].1
    }

    /// The metadata that go with it.
    #[must_use]
    pub fn metadata(&self, now: f64) -> &[File] {
        &self.metadata[usize::from(self.is_pushed(now))]
    }

    /// The name of what updates offer after the push (`pushed`), or before it.
    fn id(&self, pushed: bool) -> Option<Sha256> {
        let at = if pushed { f64::INFINITY } else { f64::NEG_INFINITY };
        self.repos(at).views()[0].history.current().map(|current| current.id)
    }
}

impl Rapid {
    fn new(planned: &PlannedRapid, [repo, updates]: [&Repo; 2], flips: f64) -> Self {
        let urgent = |(number, planned): (usize, &PlannedFile)| {
            let below = format!("Packages/u{number}-2.rpm");
            let [rapid, updates] = [repo, updates]
                .map(|repo| File::new(repo, &below, planned.size, Sha256::of(below.as_bytes())));
            Urgent { rapid, updates }
        };
        Self {
            flips,
            root: File::new(repo, "repodata/repomd.xml", 4096, Sha256::of(b"repodata/repomd.xml")),
            metadata: metadata(repo, 2, planned.metadata),
            urgent: planned.files.iter().enumerate().map(urgent).collect(),
        }
    }

    /// The nodes offer it at `now`, in seconds after the start.
    #[must_use]
    pub fn is_offered(&self, now: f64) -> bool {
        now >= self.flips
    }

    /// It is published in an empty repo.
    fn change(&self, repo: &Arc<Repo>, published: f64) -> Change {
        let metadata = [metadata(repo, 1, 1), self.metadata.clone()];
        let new: Vec<&File> = self.urgent.iter().map(|urgent| &urgent.rapid).collect();
        Change::new(repo, &metadata, (&[], &new), (published, self.flips))
    }
}

/// A repo before something is published in it, and after it.
struct Change {
    before: Arc<RepoView>,
    after: Arc<RepoView>,
    flips: f64,
}

impl Change {
    fn new(
        repo: &Arc<Repo>,
        metadata: &[Vec<File>; 2],
        (old, new): (&[&File], &[&File]),
        (published, flips): (f64, f64),
    ) -> Self {
        let first = generation(repo, &metadata[0], old, None, (START, START));
        let all = [old, new].concat();
        let second = generation(repo, &metadata[1], &all, Some(&first), (time(published), time(flips)));
        let window = Window::opened_by(&second, repo);
        let view = |history, window| Arc::new(RepoView::new(repo.clone(), history, window));
        let before = view(History::new([Arc::new(first.clone())]), None);
        Self { before, after: view(History::new([Arc::new(first), Arc::new(second)]), window), flips }
    }

    fn at(&self, now: f64) -> Arc<RepoView> {
        if now >= self.flips { self.after.clone() } else { self.before.clone() }
    }
}

/// What is offered from the start on, and from each flip on.
fn states(changes: &[Change]) -> Vec<(f64, Repos)> {
    let mut times: Vec<f64> = changes.iter().map(|change| change.flips).collect();
    times.push(f64::NEG_INFINITY);
    times.sort_by(f64::total_cmp);
    let state = |from| (from, Repos::new(changes.iter().map(|change| change.at(from)).collect()));
    times.into_iter().map(state).collect()
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

fn generation(
    repo: &Repo,
    metadata: &[File],
    files: &[&File],
    previous: Option<&Generation>,
    (published, flipped): (Timestamp, Timestamp),
) -> Generation {
    let below = |file: &File| file.path.strip_dir_prefix(repo.path.as_str()).unwrap_or_default().to_owned();
    let record = |(file, (kind, _)): (&File, (&str, u64))| Record {
        kind: kind.to_owned(),
        path: below(file),
        size: Some(file.size),
        digest: Some(file.sha256.into()),
    };
    let repomd = Repomd { records: metadata.iter().zip(KINDS).map(record).collect(), ..Repomd::default() };
    let packages = files
        .iter()
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
    let state = |mirror: &Mirror| Arc::new(state(mirror, 1, world.id(false), world));
    MirrorTable::new(mirrors.iter().map(state).collect())
}

/// Mirror number `mirror` is proven to hold the push.
pub fn proves(table: &mut MirrorTable, mirror: usize, world: &World) {
    let settings = table.states()[mirror].mirror.clone();
    table.replace(mirror, Arc::new(state(&settings, 2, world.id(true), world)));
}

/// Mirrors have updates alone.
fn state(mirror: &Mirror, sequence: u32, seen: Option<Sha256>, world: &World) -> MirrorState {
    let proof = Proof { sequence, shown: sequence, verified: START };
    let updates = Pair { proof: Some(proof), seen, ..Pair::default() };
    let pairs = std::iter::once(updates).chain(world.rapid.as_ref().map(|_| Pair::default())).collect();
    MirrorState {
        // Seen alive at any time.
        reach: Reach::Up { seen: Timestamp::from_millis(u64::MAX / 2) },
        ranges: true,
        ipv4: true,
        ipv6: true,
        pairs,
        ..MirrorState::untried(Arc::new(mirror.clone()), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Phase, decide};
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
        assert_eq!(table.states()[0].pairs.len(), 1);
        assert_eq!(table.fresh(0, 2), 0);
        proves(&mut table, 17, &world);
        assert_eq!(table.current(0, 2).collect::<Vec<_>>(), [17]);
    }

    #[test]
    fn what_is_urgent_is_in_the_rapid_repo_and_then_in_updates() {
        let text = "[push]\nat = \"1h\"\nflip = \"1m\"\n[rapid]\nbefore_updates = \"2h\"";
        let (scenario, _) = Scenario::parse(text, Path::new("s.toml")).unwrap();
        let world = World::new(&scenario);
        let rapid = world.rapid.as_ref().unwrap();
        let urgent = &rapid.urgent[0];
        let hour = |hours: f64| hours * 3600.0 + 60.0;
        for (now, listed, holdings) in
            [(0.5, [false, false], 0), (1.0, [true, false], 1), (3.0, [true, true], 2)]
        {
            let repos = world.repos(hour(now));
            let places = [&urgent.rapid, &urgent.updates].map(|file| repos.locate(&file.path).unwrap());
            assert_eq!(places.each_ref().map(|place| place.listed.is_some()), listed, "after {now} h");
            let found =
                places[0].listed.map_or(0, |listed| decide::holdings(repos, &places[0], &listed).len());
            assert_eq!(found, holdings, "after {now} h");
        }
        assert_eq!(
            [hour(0.5), hour(1.0), hour(3.0)].map(|now| (rapid.is_offered(now), world.is_pushed(now))),
            [(false, false), (true, false), (true, true)]
        );
    }
}
