//! How the directory was left, and thus what its entries' bytes are worth.
//!
//! A process that is killed leaves the page cache behind, and all that it wrote. A machine that goes down leaves what the
//! hardware really wrote, which may be less than it reported as synced. So the directory holds the boot id under which it
//! is in use and whether that use came to an orderly end. Where it didn't and the boot is another one, a new *epoch* begins:
//! a random number, which each entry carries in the nanoseconds of its modification time from when it is committed or
//! verified. An entry of another epoch is verified before its first use. Clocks play no part in that, and an entry whose
//! mark got lost is verified once too often.

use super::files::{Files, Modified};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use std::path::Path;

/// The file below the root.
const BOOT: &str = "boot";

/// What is known of the bytes of all entries that carry it: they were good while this epoch's boots lasted. Never 0, which
/// is what a file system without nanoseconds gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Epoch(u32);

impl Epoch {
    pub(super) fn random() -> Self {
        Self(fastrand::u32(1..1_000_000_000))
    }

    /// The time to give to an entry; its seconds tell when it was stored.
    pub(super) const fn mark(self, seconds: i64) -> Modified {
        Modified { seconds, nanoseconds: self.0 }
    }

    pub(super) const fn is_on(self, modified: Modified) -> bool {
        modified.nanoseconds == self.0
    }
}

/// The directory's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The boot id under which it was last in use.
    boot: String,
    pub(super) epoch: Epoch,
    /// That use came to an orderly end.
    clean: bool,
    /// No entry of another epoch is left.
    pub(super) settled: bool,
}

impl State {
    /// In use from now on. `before` is how it was left, where that can be read; `boot` may be empty where nothing tells.
    pub(super) fn resume(before: Option<Self>, boot: String, new: Epoch) -> Self {
        match before {
            Some(state) if state.clean || (state.boot == boot && !boot.is_empty()) => {
                Self { boot, clean: false, ..state }
            }
            _ => Self { boot, epoch: new, clean: false, settled: false },
        }
    }

    pub(super) fn ended(&self) -> Self {
        Self { clean: true, ..self.clone() }
    }

    pub(super) fn settled(&self) -> Self {
        Self { settled: true, ..self.clone() }
    }

    /// As it was left; `None` where that can't be read, whatever the reason: it is the careful answer.
    pub(super) fn load<F: Files>(files: &F, root: &Path) -> Option<Self> {
        let file = files.open(&root.join(BOOT)).ok()?;
        let length = files.facts(&file).ok()?.length;
        let mut bytes = vec![0; usize::try_from(length.min(4096)).ok()?];
        files.read_exact_at(&file, &mut bytes, 0).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Durable when it returns. On a full disk none is left instead, which stands for an unclean end.
    pub(super) fn save<F: Files>(&self, files: &F, root: &Path, tmp: &Path) -> io::Result<()> {
        let saved = self.replace(files, root, tmp);
        match &saved {
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                remove(files, &tmp.join(BOOT))?;
                remove(files, &root.join(BOOT))?;
                files.sync_dir(root)
            }
            _ => saved,
        }
    }

    fn replace<F: Files>(&self, files: &F, root: &Path, tmp: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        let draft = tmp.join(BOOT);
        remove(files, &draft)?;
        let file = files.create_new(&draft)?;
        files.write_all_at(&file, &bytes, 0)?;
        files.sync(&file)?;
        files.rename(&draft, &root.join(BOOT))?;
        files.sync_dir(root)
    }
}

fn remove<F: Files>(files: &F, path: &Path) -> io::Result<()> {
    match files.remove(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_boot_after_a_use_without_an_end_begins_an_epoch() {
        let (old, new) = (Epoch(7), Epoch(8));
        let left =
            |boot: &str, clean| Some(State { boot: boot.to_owned(), epoch: old, clean, settled: true });
        for (before, boot, epoch) in [
            (left("a", true), "a", old),
            (left("a", false), "a", old),
            (left("a", true), "b", old),
            (left("a", false), "b", new),
            (left("", false), "", new),
            (left("", true), "", old),
            (None, "a", new),
        ] {
            let state = State::resume(before.clone(), boot.to_owned(), new);
            assert_eq!(state.epoch, epoch, "{before:?} {boot}");
            assert_eq!(state.settled, epoch == old);
            assert!(!state.clean && state.boot == boot);
            assert_eq!(State::resume(Some(state.ended()), "z".to_owned(), Epoch(9)).epoch, epoch);
        }
    }
}
