//! What is kept of one repo over a restart: its generations and its window. All calls block.
//!
//! A directory for each repo, in it a file for each generation (`0000000007.generation`) and `window.json`. Each is written
//! under another name, synced and renamed, so that it is there whole or not at all. `confirmed` tells when the origin last answered.
//!
//! The newest two generations have all their files in them, so that the loss of one doesn't take the other; an older one what
//! makes it different from the one after it.

use crate::clock::{Ahead, Timestamp};
use crate::policy::Window;
use crate::repo::{Generation, History, Stored, decode, encode, encode_difference};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const WINDOW: &str = "window.json";
const CONFIRMED: &str = "confirmed";
const SUFFIX: &str = ".generation";

/// The directory of one repo's state.
#[derive(Clone, Debug)]
pub(super) struct RepoDir(PathBuf);

/// What a directory held.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Those that could be read, in no order.
    pub(super) generations: Vec<Arc<Generation>>,
    /// The highest sequence for which there is a file, readable or not.
    pub(super) newest: u32,
    /// The window of the generation with this sequence.
    pub(super) window: Option<KeptWindow>,
    /// When the origin last answered for it, a little earlier than true.
    pub(super) confirmed: Option<Timestamp>,
    /// What could not be read, in words.
    pub(super) damaged: Vec<String>,
}

/// `window.json`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptWindow {
    /// Of the generation that opened it, or didn't.
    pub(super) sequence: u32,
    /// None: it opened none.
    pub(super) window: Option<Window>,
    /// What the times in these files lack to be dates.
    #[serde(default, skip_serializing_if = "Ahead::is_zero")]
    pub(super) ahead: Ahead,
}

impl RepoDir {
    /// The directory of the repo `id` below `state`. It is made when something is saved.
    pub(super) fn new(state: &Path, id: &str) -> Self {
        Self(state.join("repos").join(file_name(id)))
    }

    /// Reads what is there. An absent directory is an empty one.
    pub(super) fn load(&self) -> Loaded {
        let mut loaded = Loaded::default();
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return loaded,
            entries => entries,
        };
        match entries.and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Err(error) => loaded.damaged.push(format!("{}: {error}", self.0.display())),
            Ok(entries) => {
                let sequence = |entry: &fs::DirEntry| sequence_of(&entry.file_name().to_string_lossy());
                let named = entries.iter().filter_map(|entry| Some((sequence(entry)?, entry.path())));
                loaded.read(named.collect());
            }
        }
        // One that can't be read is as good as none.
        loaded.confirmed =
            fs::read(self.0.join(CONFIRMED)).ok().and_then(|at| serde_json::from_slice(&at).ok());
        let window = self.0.join(WINDOW);
        match fs::read(&window).and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other)) {
            Ok(kept) => loaded.date(kept),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => loaded.damaged.push(format!("{}: {error}", window.display())),
        }
        loaded
    }

    /// Makes the files those of `history` after a flip, with the window of its current generation. What was older before is as
    /// it was saved then; the files of generations that are no longer kept are removed. The times in them are the node's, and
    /// `ahead` is what the wall clock is ahead of it.
    pub(super) fn save(&self, history: &History, window: Option<Window>, ahead: Ahead) -> io::Result<()> {
        let generations = history.generations();
        let Some(current) = generations.first() else { return Ok(()) };
        fs::create_dir_all(&self.0)?;
        for whole in generations.iter().take(2) {
            self.write(&generation_name(whole.sequence), &encode(whole))?;
        }
        if let [_, next, older, ..] = generations {
            self.write(&generation_name(older.sequence), &encode_difference(older, next))?;
        }
        self.write(WINDOW, &serde_json::to_vec(&KeptWindow { sequence: current.sequence, window, ahead })?)?;
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let sequence = sequence_of(&entry.file_name().to_string_lossy());
            if sequence.is_some_and(|sequence| history.by_sequence(sequence).is_none()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Notes that the origin answered at `at`, a date.
    pub(super) fn confirm(&self, at: Timestamp) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        self.write(CONFIRMED, &serde_json::to_vec(&at)?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.0.join(format!("{name}.new"));
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, self.0.join(name))?;
        File::open(&self.0)?.sync_all()
    }
}

impl KeptWindow {
    /// The same with dates for times.
    pub(crate) fn dated(self) -> Self {
        let date = |time| self.ahead.date_of(time);
        let dated = |window: Window| Window { opened: date(window.opened), closes: date(window.closes) };
        Self { window: self.window.map(dated), ahead: Ahead::default(), ..self }
    }
}

impl Loaded {
    /// Takes this window, and makes dates of the times in it and in the generations: at its start the node's time is the wall
    /// clock's.
    fn date(&mut self, kept: KeptWindow) {
        self.window = Some(kept.dated());
        if kept.ahead.is_zero() {
            return;
        }
        let date = |time| kept.ahead.date_of(time);
        for generation in &mut self.generations {
            let generation = Arc::make_mut(generation);
            (generation.published, generation.flipped) =
                (date(generation.published), date(generation.flipped));
        }
    }

    /// Reads these files of generations, each with the sequence that it is named by.
    fn read(&mut self, mut files: Vec<(u32, PathBuf)>) {
        // A difference is told from a later one.
        files.sort_unstable_by(|a, b| b.cmp(a));
        self.newest = files.first().map_or(0, |(sequence, _)| *sequence);
        let mut read: Vec<Generation> = Vec::with_capacity(files.len());
        for (sequence, path) in files {
            let later = |sequence| read.iter().find(|generation| generation.sequence == sequence);
            let generation = read_stored(&path, sequence)
                .and_then(|stored| stored.complete(later).map_err(|error| error.to_string()));
            match generation {
                Ok(generation) => read.push(generation),
                Err(why) => self.damaged.push(format!("{}: {why}", path.display())),
            }
        }
        self.generations = read.into_iter().map(Arc::new).collect();
    }
}

fn read_stored(path: &Path, sequence: u32) -> Result<Stored, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let stored = decode(&bytes).map_err(|error| error.to_string())?;
    if stored.sequence() != sequence {
        return Err(format!("holds generation {}", stored.sequence()));
    }
    Ok(stored)
}

fn generation_name(sequence: u32) -> String {
    format!("{sequence:010}{SUFFIX}")
}

fn sequence_of(name: &str) -> Option<u32> {
    name.strip_suffix(SUFFIX)?.parse().ok()
}

/// A repo's id as one file name. No two ids share one: `updates/7` is `updates+7`, and `updates+7` is `updates%2B7`.
fn file_name(id: &str) -> String {
    let mut name = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'/' => name.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(byte.into()),
            // Not at the start: a hidden file, or "..".
            b'.' if !name.is_empty() => name.push('.'),
            _ => write!(name, "%{byte:02X}").expect("writing to memory can't fail"),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_confirmation_is_kept_and_a_damaged_one_is_none() {
        let state = tempfile::tempdir().unwrap();
        let dir = RepoDir::new(state.path(), "updates/7");
        assert_eq!(dir.load().confirmed, None);
        for secs in [7, 5] {
            dir.confirm(Timestamp::from_secs(secs)).unwrap();
            assert_eq!(dir.load().confirmed, Some(Timestamp::from_secs(secs)));
        }
        fs::write(dir.0.join(CONFIRMED), "x").unwrap();
        let loaded = dir.load();
        assert_eq!((loaded.confirmed, loaded.damaged.len()), (None, 0));
    }

    #[test]
    fn times_are_dates_after_a_restart_however_the_clock_was_set() {
        let (at, hour) = (Timestamp::from_secs(1_700_000_000), Duration::from_secs(3600));
        let window = Window { opened: at, closes: at.plus(24 * hour) };
        let none = crate::repo::Repomd::default();
        let repomd = bytes::Bytes::from_static(b"x");
        let generation = Generation::assemble(&repomd, &none, vec![], vec![], vec![], None, at, at);
        let history = History::new([Arc::new(generation)]);
        for ahead in [Ahead::default(), Ahead::at(at, at.plus(5 * hour)), Ahead::at(at.plus(5 * hour), at)] {
            let state = tempfile::tempdir().unwrap();
            let dir = RepoDir::new(state.path(), "updates/7");
            dir.save(&history, Some(window), ahead).unwrap();
            let loaded = dir.load();
            let kept = loaded.window.unwrap().window.unwrap();
            assert_eq!((kept.opened, kept.closes), (ahead.date_of(at), ahead.date_of(window.closes)));
            let generation = &loaded.generations[0];
            assert_eq!((generation.published, generation.flipped), (kept.opened, kept.opened));
            let text = fs::read_to_string(dir.0.join(WINDOW)).unwrap();
            assert_eq!(text.contains("ahead"), !ahead.is_zero(), "as before, where nothing was set: {text}");
        }
    }

    #[test]
    fn the_newest_two_are_whole_and_older_ones_differences() {
        let state = tempfile::tempdir().unwrap();
        let dir = RepoDir::new(state.path(), "updates/7");
        let mut history = History::default();
        for push in 1..=6_u64 {
            // A thousand packages of which one is new.
            let package = |number: u64| {
                let name = if number == push { push } else { 0 };
                let path = format!("Packages/package-{number}-{name}.rpm");
                crate::repo::ListedFile {
                    digest: Some(crate::repo::Sha256::of(path.as_bytes()).into()),
                    path,
                    size: 1,
                }
            };
            let (at, repomd) = (Timestamp::from_secs(push), bytes::Bytes::from(push.to_string()));
            let packages = (0..1000).map(package).collect();
            let before = history.current().map(|current| &**current);
            let none = crate::repo::Repomd::default();
            let next = Generation::assemble(&repomd, &none, packages, vec![], vec![], before, at, at);
            history = history.with(next, std::time::Duration::from_secs(3), at);
            dir.save(&history, None, Ahead::default()).unwrap();
            let loaded = dir.load();
            assert!(loaded.damaged.is_empty(), "{:?}", loaded.damaged);
            assert_eq!(loaded.newest, push as u32);
            let restored = History::new(loaded.generations);
            assert_eq!(restored.generations(), history.generations());
        }
        let file = |sequence| dir.0.join(generation_name(sequence));
        let size = |sequence| fs::metadata(file(sequence)).unwrap().len();
        assert!(!file(1).exists() && size(2) < 1000 && size(4) < 1000, "{} {}", size(2), size(4));
        assert!(size(5) > 30_000 && size(6) > 30_000);

        fs::write(file(6), "damaged").unwrap();
        let loaded = dir.load();
        assert_eq!((loaded.newest, loaded.generations.len(), loaded.damaged.len()), (6, 4, 1));
        // The one that others are told from.
        fs::write(file(5), "damaged").unwrap();
        let loaded = dir.load();
        assert_eq!((loaded.generations.len(), loaded.damaged.len()), (0, 5));
        assert!(
            loaded.damaged.iter().any(|why| why.ends_with("what differs from generation 5, which is lost"))
        );
        dir.save(&history, None, Ahead::default()).unwrap();
        assert_eq!(History::new(dir.load().generations).generations(), history.generations());
    }

    #[test]
    fn ids_are_file_names_without_collisions() {
        let cases = [
            ("updates/7/x86_64", "updates+7+x86_64"),
            ("updates/7.9/x", "updates+7.9+x"),
            ("..", "%2E."),
            ("a+b/ü", "a%2Bb+%C3%BC"),
        ];
        for (id, expected) in cases {
            assert_eq!(file_name(id), expected);
        }
    }
}
