//! What is kept of one repo over a restart: its generations and its window. All calls block.
//!
//! A directory for each repo, in it a file for each generation (`0000000007.generation`) and `window.json`. Each is written
//! under another name, synced and renamed, so that it is there whole or not at all. `confirmed` tells when the origin last answered.

use crate::clock::Timestamp;
use crate::policy::Window;
use crate::repo::{Generation, decode, encode};
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
pub(super) struct KeptWindow {
    /// Of the generation that opened it, or didn't.
    pub(super) sequence: u32,
    /// None: it opened none.
    pub(super) window: Option<Window>,
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
                for entry in entries {
                    let Some(sequence) = sequence_of(&entry.file_name().to_string_lossy()) else { continue };
                    loaded.newest = loaded.newest.max(sequence);
                    match read_generation(&entry.path(), sequence) {
                        Ok(generation) => loaded.generations.push(Arc::new(generation)),
                        Err(why) => loaded.damaged.push(format!("{}: {why}", entry.path().display())),
                    }
                }
            }
        }
        // One that can't be read is as good as none.
        loaded.confirmed =
            fs::read(self.0.join(CONFIRMED)).ok().and_then(|at| serde_json::from_slice(&at).ok());
        let window = self.0.join(WINDOW);
        match fs::read(&window).and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other)) {
            Ok(kept) => loaded.window = Some(kept),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => loaded.damaged.push(format!("{}: {error}", window.display())),
        }
        loaded
    }

    /// Writes `generation` and its window; then removes the files of generations that are not in `kept` (sequences).
    pub(super) fn save(
        &self,
        generation: &Generation,
        window: Option<Window>,
        kept: &[u32],
    ) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let sequence = generation.sequence;
        self.write(&format!("{sequence:010}{SUFFIX}"), &encode(generation))?;
        self.write(WINDOW, &serde_json::to_vec(&KeptWindow { sequence, window })?)?;
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if sequence_of(&entry.file_name().to_string_lossy())
                .is_some_and(|sequence| !kept.contains(&sequence))
            {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Notes that the origin answered at `at`.
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

fn read_generation(path: &Path, sequence: u32) -> Result<Generation, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let generation = decode(&bytes).map_err(|error| error.to_string())?;
    if generation.sequence != sequence {
        return Err(format!("holds generation {}", generation.sequence));
    }
    Ok(generation)
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
