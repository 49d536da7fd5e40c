//! The mirrors' disks, and how they sync.

use super::tree::{File, Files, Origin};
use super::{Event, HOUR, Week};
use freshet::clock::Timestamp;
use freshet::repo::Sha256;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const FLIPPED: &[u8] = b"flipped";

fn is_flipped(file: &File) -> bool {
    file.sha256 == Sha256::of(FLIPPED)
}

/// In which order a sync does what it has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// As it should be: packages, metadata, and at the end what is to be deleted.
    PackagesFirst,
    MetadataFirst,
    /// One stage, in any order.
    Mixed,
    /// What is to be deleted comes first (`rsync --delete-before`).
    DeletesFirst,
    /// As the first, but it often breaks off.
    Halves,
    /// The same with the metadata first: it shows what it lacks, for hours.
    Hollow,
}

enum Step {
    Put(Arc<str>, File),
    Delete(Arc<str>),
    Show(Sha256),
}

pub struct Disk {
    pub files: Files,
    pub shown: Option<Sha256>,
    pub alive: bool,
    upstream: Option<usize>,
    style: Style,
    /// Half of the files that it writes have flipped bytes.
    flips: bool,
    steps: VecDeque<Step>,
    /// Between two steps.
    pace: Duration,
}

/// All of them, in sync.
pub fn disks(rng: &mut fastrand::Rng, count: usize, origin: &Origin) -> Vec<Disk> {
    const STYLES: [Style; 6] = [
        Style::PackagesFirst,
        Style::MetadataFirst,
        Style::Mixed,
        Style::DeletesFirst,
        Style::Halves,
        Style::Hollow,
    ];
    let disk = |mirror: usize| Disk {
        files: origin.files.clone(),
        shown: Some(origin.shown()),
        alive: true,
        upstream: (mirror >= 20 && rng.u32(..3) == 0).then(|| rng.usize(..20)),
        style: STYLES[rng.usize(..STYLES.len())],
        flips: mirror % 40 == 7,
        steps: VecDeque::new(),
        pace: Duration::ZERO,
    };
    (0..count).map(disk).collect()
}

impl Week {
    pub fn sync(&mut self, mirror: usize) {
        let (files, shown) = match self.mirrors[mirror].upstream {
            Some(upstream) => (self.mirrors[upstream].files.clone(), self.mirrors[upstream].shown),
            None => (self.origin.files.clone(), Some(self.origin.shown())),
        };
        let (rng, disk) = (&mut self.rng, &mut self.mirrors[mirror]);
        // Nothing shows rsync that bytes were flipped.
        let is_there =
            |found: &File, file: &File| found == file || (is_flipped(found) && found.size == file.size);
        let puts = files
            .iter()
            .filter(|(path, file)| !disk.files.get(*path).is_some_and(|found| is_there(found, file)));
        let (metadata, packages): (Vec<_>, Vec<_>) = puts
            .map(|(path, file)| (path.clone(), *file))
            .partition(|(path, _)| path.starts_with("repodata/"));
        let put = |(path, file)| Step::Put(path, file);
        let (mut packages, metadata): (Vec<_>, Vec<_>) =
            (packages.into_iter().map(put).collect(), metadata.into_iter().map(put).collect());
        rng.shuffle(&mut packages);
        let mut metadata = metadata;
        metadata.extend(shown.filter(|shown| disk.shown != Some(*shown)).map(Step::Show));
        let gone = disk.files.keys().filter(|path| !files.contains_key(*path)).cloned();
        let deletes: Vec<_> = gone.map(Step::Delete).collect();
        let mut steps: Vec<Step> = match disk.style {
            Style::PackagesFirst | Style::Halves => {
                packages.into_iter().chain(metadata).chain(deletes).collect()
            }
            Style::MetadataFirst | Style::Hollow => {
                metadata.into_iter().chain(deletes).chain(packages).collect()
            }
            Style::DeletesFirst => deletes.into_iter().chain(packages).chain(metadata).collect(),
            Style::Mixed => packages.into_iter().chain(metadata).chain(deletes).collect(),
        };
        match disk.style {
            Style::Mixed => rng.shuffle(&mut steps),
            Style::Halves | Style::Hollow if rng.bool() => steps.truncate(steps.len() / 2),
            _ => {}
        }
        let took = Duration::from_secs(60 + rng.u64(..2400));
        disk.pace = took / u32::try_from(steps.len() + 1).unwrap();
        disk.steps = steps.into();
        self.agenda.add(self.now.plus(disk.pace), Event::Step(mirror));
        let rest = HOUR.mul_f64(4.0 + 2.0 * self.rng.f64());
        self.agenda.add(self.now.plus(rest), Event::Sync(mirror));
    }

    pub fn step(&mut self, mirror: usize) {
        let disk = &mut self.mirrors[mirror];
        match disk.steps.pop_front() {
            Some(Step::Put(path, file)) => {
                let flips = disk.flips && self.rng.bool();
                let sha256 = if flips { Sha256::of(FLIPPED) } else { file.sha256 };
                disk.files.insert(path, File { sha256, ..file });
            }
            Some(Step::Delete(path)) => {
                disk.files.remove(&path);
            }
            Some(Step::Show(id)) => disk.shown = Some(id),
            None => return,
        }
        self.agenda.add(self.now.plus(disk.pace), Event::Step(mirror));
    }

    /// It dies for some hours, a day later again.
    pub fn turn(&mut self, mirror: usize) {
        let disk = &mut self.mirrors[mirror];
        disk.alive = !disk.alive;
        let hours = if disk.alive { 20.0 } else { 3.0 };
        let at: Timestamp = self.now.plus(HOUR.mul_f64(hours * (0.5 + self.rng.f64())));
        self.agenda.add(at, Event::Turn(mirror));
    }
}
