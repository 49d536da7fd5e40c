//! One client's transaction at a node, as dnf does it: repomd.xml, the other metadata, then packages, three at a time.
//!
//! Where a transaction stands for many hosts it asks for the first files one by one, since that is when redirects are held back
//! ([`Trail`]), and for the rest in bundles of about one size, which are decided alike.

use super::hosts::Host;
use super::world::{File, Rapid, Urgent, World};
use crate::policy::{Client, Trail};
use std::collections::VecDeque;

/// librepo's transfers at a time.
pub const SLOTS: usize = 3;
/// Files that are asked for one by one in any case.
const SINGLE: usize = 8;
/// A bundle holds such a part of the rest, unless one file does.
pub const BUNDLES: usize = 8;

/// Files that are asked for as one.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    /// One of them.
    pub file: &'a File,
    /// Of all of them.
    pub bytes: u64,
    /// How many.
    pub files: u32,
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The push; where there is a rapid repo, what is urgent, and maybe more.
    Update,
    /// What else the push brought.
    Rest,
    /// Something that was there before.
    Install,
}

/// One of them, as far as it has come.
#[derive(Debug)]
pub struct Transaction<'a> {
    /// What it is for.
    pub purpose: Purpose,
    /// Number of its region.
    pub region: usize,
    /// Number of its link in the region.
    pub link: usize,
    /// Who asks.
    pub client: Client,
    /// Its redirects.
    pub trail: Trail,
    /// Seconds after the start.
    pub began: f64,
    stages: VecDeque<VecDeque<Bundle<'a>>>,
    /// Seconds that each of the three has been busy since `began`, as a host would see it.
    clocks: [f64; SLOTS],
    busy: [bool; SLOTS],
}

/// The files of the push that a host fetches.
#[must_use]
pub fn updates<'a>(world: &'a World, host: &Host, rng: &mut fastrand::Rng) -> Vec<&'a File> {
    let all =
        world.pushed.iter().map(|(package, drpm)| drpm.as_ref().filter(|_| host.drpms).unwrap_or(package));
    some(all, host.needs, rng)
}

/// The urgent files that a host fetches, `by` the rapid repo or by updates.
#[must_use]
pub fn urgent<'a>(
    rapid: &'a Rapid,
    host: &Host,
    by: fn(&Urgent) -> &File,
    rng: &mut fastrand::Rng,
) -> Vec<&'a File> {
    some(rapid.urgent.iter().map(by), host.needs, rng)
}

/// The files of an installation.
#[must_use]
pub fn installs<'a>(world: &'a World, packages: u64, rng: &mut fastrand::Rng) -> Vec<&'a File> {
    let share = packages as f64 / world.old.len() as f64;
    some(world.old.iter(), share, rng)
}

/// That share of them, rounded, at least one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
fn some<'a>(
    all: impl ExactSizeIterator<Item = &'a File>,
    share: f64,
    rng: &mut fastrand::Rng,
) -> Vec<&'a File> {
    let count = ((all.len() as f64 * share).round() as usize).clamp(1, all.len());
    let mut chosen = rng.choose_multiple(all, count);
    rng.shuffle(&mut chosen);
    chosen
}

impl<'a> Transaction<'a> {
    /// For these files; `stands_for_many`: bundled.
    #[must_use]
    pub fn new(
        (purpose, region, link): (Purpose, usize, usize),
        client: Client,
        (root, metadata): (&'a File, &'a [File]),
        files: Vec<&'a File>,
        began: f64,
    ) -> Self {
        let single = |file: &'a File| Bundle { file, bytes: file.size, files: 1 };
        let stages = [
            VecDeque::from([single(root)]),
            metadata.iter().map(single).collect(),
            files.into_iter().map(single).collect(),
        ];
        Self {
            purpose,
            region,
            link,
            client,
            trail: Trail::default(),
            began,
            stages: stages.into(),
            clocks: [0.0; SLOTS],
            busy: [false; SLOTS],
        }
    }

    /// The same with the packages in bundles, but for the first.
    #[must_use]
    pub fn bundled(mut self, rng: &mut fastrand::Rng) -> Self {
        if let Some(files) = self.stages.back_mut().filter(|files| files.len() > SINGLE + BUNDLES) {
            let mut rest: Vec<Bundle<'a>> = files.drain(SINGLE..).collect();
            rest.sort_unstable_by_key(|bundle| bundle.bytes);
            let most = rest.iter().map(|bundle| bundle.bytes).sum::<u64>() / BUNDLES as u64;
            let mut bundles: Vec<Bundle<'a>> = Vec::new();
            for file in rest {
                match bundles.last_mut().filter(|bundle| bundle.bytes + file.bytes <= most) {
                    Some(bundle) => bundle.add(file),
                    None => bundles.push(file),
                }
            }
            rng.shuffle(&mut bundles);
            files.extend(bundles);
        }
        self
    }

    /// Bytes that it will fetch in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.stages.iter().flatten().map(|bundle| bundle.bytes).sum()
    }

    /// What slot number `slot` asks for next; None while it has to wait for others, or when all is asked for.
    pub fn next(&mut self, slot: usize) -> Option<Bundle<'a>> {
        if self.busy[slot] {
            return None;
        }
        while self.stages.front().is_some_and(VecDeque::is_empty) {
            if self.busy.contains(&true) {
                return None;
            }
            self.stages.pop_front();
            // All begin the next stage together.
            self.clocks = [self.seconds(); SLOTS];
        }
        let bundle = self.stages.front_mut()?.pop_front();
        self.busy[slot] = bundle.is_some();
        bundle
    }

    /// What slot number `slot` asked for is there, after so many seconds.
    pub fn has(&mut self, slot: usize, seconds: f64) {
        self.busy[slot] = false;
        self.clocks[slot] += seconds;
    }

    /// Nothing is left to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !self.busy.contains(&true) && self.stages.iter().all(VecDeque::is_empty)
    }

    /// Seconds that it has taken a host so far.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.clocks.iter().copied().fold(0.0, f64::max)
    }
}

impl<'a> Bundle<'a> {
    /// One more, that is no smaller than those in it.
    fn add(&mut self, other: Bundle<'a>) {
        *self = Bundle { file: other.file, bytes: self.bytes + other.bytes, files: self.files + other.files };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Scenario;
    use crate::geo::Whereabouts;
    use crate::plan::Who;
    use std::path::Path;

    fn world(text: &str) -> World {
        World::new(&Scenario::parse(text, Path::new("s.toml")).unwrap().0)
    }

    fn transaction(world: &World) -> Transaction<'_> {
        let who = Who { addr: [192, 0, 2, 1].into(), whereabouts: Whereabouts::default(), yum: false };
        let files = world.pushed.iter().map(|(package, _)| package).collect();
        let parts = (&world.root, world.metadata(1e9));
        Transaction::new((Purpose::Update, 0, 0), who.client(), parts, files, 0.0)
    }

    #[test]
    fn packages_wait_for_metadata_and_those_for_repomd() {
        let world = world("[push]\npackages = 2");
        let mut transaction = transaction(&world);
        assert_eq!(transaction.next(0).unwrap().file.path, world.root.path);
        assert!(transaction.next(1).is_none(), "what follows is in repomd.xml");
        transaction.has(0, 1.0);
        assert!((0..3).all(|slot| transaction.next(slot).unwrap().file.path.as_str().contains("repodata/")));
        transaction.has(0, 2.0);
        transaction.has(1, 5.0);
        assert!(transaction.next(0).is_none());
        transaction.has(2, 3.0);
        assert!((0..2).all(|slot| transaction.next(slot).unwrap().file.path.as_str().contains("Packages/")));
        assert!(transaction.next(2).is_none() && !transaction.is_over());
        transaction.has(0, 1.0);
        transaction.has(1, 4.0);
        assert!(transaction.is_over());
        assert_eq!(transaction.seconds(), 1.0 + 5.0 + 4.0);
    }

    #[test]
    fn bundles_lose_nothing() {
        let world = world("[push]\npackages = 100");
        let (whole, mut bundled) =
            (transaction(&world), transaction(&world).bundled(&mut fastrand::Rng::with_seed(1)));
        assert_eq!(whole.bytes(), bundled.bytes());
        let mut files = 0;
        while let Some(bundle) = bundled.next(0) {
            bundled.has(0, 0.0);
            files += bundle.files;
        }
        assert_eq!(files, 1 + 3 + 100);
    }

    #[test]
    fn a_host_fetches_what_it_has_installed() {
        let world = world(
            "[push]\npackages = 10\ndrpm = 0.1\n[[checks]]\nname = \"x\"\ndrpms = 1\nneeds = [0.5, 0.5]",
        );
        let (scenario, _) =
            Scenario::parse("[[checks]]\nname = \"x\"\ndrpms = 1\nneeds = [0.5, 0.5]", Path::new("s.toml"))
                .unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let host = Host::draw(&scenario, &mut rng);
        let files = updates(&world, &host, &mut rng);
        assert_eq!(files.len(), 5);
        assert!(files.iter().all(|file| file.path.as_str().ends_with(".drpm")));
    }
}
