//! Copies of a directory origin's files, for where the file system takes neither a reflink nor a hard link of them: trees of
//! another owner (`fs.protected_hardlinks`), or on another file system.
//!
//! A copy is committed once all of its bytes had the listed digest. Copies are bounded together: where there isn't room for
//! all, the newest files are kept, since those are what the next pushes replace; what only superseded generations list stays.
//! All calls block.

use super::OriginError;
use super::directory::{DirectoryOrigin, Opened, stamp};
use super::retained::{digest_of, name_of};
use crate::http::TreePath;
use crate::repo::{Digest, Digester};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Read at once.
const PIECE_BYTES: usize = 1 << 20;
/// The name of the copy that is being written.
const INCOMING: &str = "incoming";

/// A file as a catalogue lists it: path, digest, length in bytes.
pub type Wanted = (TreePath, Digest, u64);

/// The copies below one directory.
#[derive(Debug)]
pub(super) struct Copies {
    dir: PathBuf,
    /// All copies together, at most.
    pub(super) most_bytes: u64,
    /// Held while copies are made or removed.
    writing: Mutex<()>,
}

/// What became of files that were to be copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Copies made.
    pub made: usize,
    /// Copies that were there.
    pub kept: usize,
    /// Files for which there is no room.
    pub left_out: usize,
    /// Their length in bytes.
    pub left_out_bytes: u64,
    /// Files that could not be copied: absent, not as listed, or the disk failed.
    pub failed: usize,
    /// The first of these, and why.
    pub first_failure: Option<String>,
}

/// A copy that is there.
struct Held {
    modified_nanos: u128,
    length: u64,
    name: String,
}

impl Copies {
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self { dir, most_bytes: 0, writing: Mutex::new(()) }
    }

    pub(super) fn open_file(&self, digest: &Digest) -> io::Result<Option<Opened>> {
        open(&self.dir.join(name_of(digest)))
    }

    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        match fs::remove_file(self.dir.join(name_of(digest))) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Copies `wanted` of `tree`, in this order, as far as there is room. Copies in `needed` are never given up for it.
    pub(super) fn keep(&self, tree: &DirectoryOrigin, wanted: &[Wanted], needed: &HashSet<Digest>) -> Copied {
        let mut copied = Copied::default();
        if let Err(error) = self.keep_all(tree, wanted, needed, &mut copied) {
            // The disk failed: what is left would fail, too.
            let done = copied.made + copied.kept + copied.left_out + copied.failed;
            copied.failed += wanted.len() - done;
            copied.first_failure = Some(format!("{}: {error}", self.dir.display()));
        }
        copied
    }

    fn keep_all(
        &self,
        tree: &DirectoryOrigin,
        wanted: &[Wanted],
        needed: &HashSet<Digest>,
        copied: &mut Copied,
    ) -> io::Result<()> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        fs::create_dir_all(&self.dir)?;
        let mut held = self.held()?;
        held.sort_by_key(|copy| copy.modified_nanos);
        let mut used: u64 = held.iter().map(|copy| copy.length).sum();
        for (path, digest, length) in wanted {
            if self.open_file(digest)?.is_some_and(|opened| opened.stamp.length == *length) {
                copied.kept += 1;
                continue;
            }
            let opened = match tree.file(path) {
                Ok(opened) if opened.stamp.length == *length => opened,
                other => {
                    let why = other.err().unwrap_or(OriginError::Absent);
                    copied.fail(path, &why.to_string());
                    continue;
                }
            };
            if !self.make_room(*length, opened.stamp.modified_nanos, &mut held, &mut used, needed)? {
                copied.left_out += 1;
                copied.left_out_bytes += length;
            } else if self.copy(&opened, digest)? {
                used += length;
                copied.made += 1;
            } else {
                copied.fail(path, "its bytes are not those that are listed");
            }
        }
        Ok(())
    }

    /// Removes older copies that can be made again, if that makes room for `length` bytes; whether there is room.
    fn make_room(
        &self,
        length: u64,
        modified_nanos: u128,
        held: &mut Vec<Held>,
        used: &mut u64,
        needed: &HashSet<Digest>,
    ) -> io::Result<bool> {
        let is_spare = |copy: &Held| {
            let is_older = copy.modified_nanos < modified_nanos;
            is_older && digest_of(&copy.name).is_none_or(|digest| !needed.contains(&digest))
        };
        let spare: u64 = held.iter().filter(|copy| is_spare(copy)).map(|copy| copy.length).sum();
        if used.saturating_sub(spare).saturating_add(length) > self.most_bytes {
            return Ok(false);
        }
        while used.saturating_add(length) > self.most_bytes {
            let Some(at) = held.iter().position(is_spare) else { return Ok(false) };
            let oldest = held.remove(at);
            fs::remove_file(self.dir.join(&oldest.name))?;
            *used = used.saturating_sub(oldest.length);
        }
        Ok(true)
    }

    /// Copies all of `opened`; false if it isn't what `digest` names.
    fn copy(&self, opened: &Opened, digest: &Digest) -> io::Result<bool> {
        let incoming = self.dir.join(INCOMING);
        let mut file = File::create(&incoming)?;
        let (mut digester, mut piece, mut at) = (Digester::new(digest.algorithm()), vec![0; PIECE_BYTES], 0);
        loop {
            match opened.file.read_at(&mut piece, at) {
                Ok(0) => break,
                Ok(read) => {
                    digester.update(&piece[..read]);
                    file.write_all(&piece[..read])?;
                    at += read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if digester.finish() != *digest {
            fs::remove_file(&incoming)?;
            return Ok(false);
        }
        // As the original has it: clients see its date, and the order of copies goes by it.
        let nanos = u64::try_from(opened.stamp.modified_nanos).unwrap_or(u64::MAX);
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos))?;
        file.sync_all()?;
        fs::rename(&incoming, self.dir.join(name_of(digest)))?;
        Ok(true)
    }

    fn held(&self) -> io::Result<Vec<Held>> {
        let mut held = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if digest_of(&name).is_some()
                && let Some(opened) = open(&self.dir.join(&name))?
            {
                let (modified_nanos, length) = (opened.stamp.modified_nanos, opened.stamp.length);
                held.push(Held { modified_nanos, length, name });
            }
        }
        Ok(held)
    }

    /// Removes the copies that are not in `keep`; how many.
    pub(super) fn sweep(&self, keep: &HashSet<Digest>) -> io::Result<usize> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut removed = 0;
        if !self.dir.exists() {
            return Ok(removed);
        }
        for copy in self.held()? {
            if digest_of(&copy.name).is_some_and(|digest| !keep.contains(&digest)) {
                fs::remove_file(self.dir.join(&copy.name))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl Copied {
    fn fail(&mut self, path: &TreePath, why: &str) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| format!("{path}: {why}"));
    }
}

/// Opens a kept file; None where it isn't there.
pub(super) fn open(path: &Path) -> io::Result<Option<Opened>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let (_, stamp) = stamp(&file)?;
    Ok(Some(Opened { file, stamp }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::Sha256;

    fn file(dir: &Path, name: &str, bytes: &[u8], secs: u64) -> Wanted {
        let file = dir.join(name);
        fs::write(&file, bytes).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        File::options().write(true).open(&file).unwrap().set_modified(at).unwrap();
        (TreePath::new(name).unwrap(), Sha256::of(bytes).into(), bytes.len() as u64)
    }

    #[test]
    fn the_newest_are_kept_within_the_bound_and_what_is_needed_stays() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let origin = DirectoryOrigin::open(&tree, None).unwrap();
        let mut copies = Copies::new(dir.path().join("copies"));
        copies.most_bytes = 100;
        let (old, middle, new) = (
            file(&tree, "old", &[1; 40], 1_000),
            file(&tree, "middle", &[2; 40], 2_000),
            file(&tree, "new", &[3; 40], 3_000),
        );
        let none = HashSet::new();
        let outcome = |copied: &Copied| (copied.made, copied.kept, copied.left_out, copied.failed);

        let first = copies.keep(&origin, &[old.clone(), middle.clone()], &none);
        assert_eq!(outcome(&first), (2, 0, 0, 0), "{first:?}");
        let needed = HashSet::from([old.1]);
        let all = [new.clone(), middle.clone(), old.clone()];
        let second = copies.keep(&origin, &all[..1], &needed);
        assert_eq!(outcome(&second), (1, 0, 0, 0), "the middle one makes room");
        let third = copies.keep(&origin, &all, &needed);
        assert_eq!((outcome(&third), third.left_out_bytes), ((0, 2, 1, 0), 40), "{third:?}");
        let kept = |copies: &Copies, wanted: &Wanted| copies.open_file(&wanted.1).unwrap();
        assert!(kept(&copies, &old).is_some() && kept(&copies, &new).is_some());
        assert!(kept(&copies, &middle).is_none());
        assert_eq!(kept(&copies, &new).unwrap().stamp.modified().as_secs(), 3_000, "its own date");

        let lie = (new.0.clone(), Sha256::of(b"lie").into(), 40);
        let absent = (TreePath::new("absent").unwrap(), Sha256::of(b"absent").into(), 40);
        copies.most_bytes = 1000;
        let failed = copies.keep(&origin, &[lie, absent], &none);
        assert_eq!(outcome(&failed), (0, 0, 0, 2));
        assert!(failed.first_failure.is_some_and(|why| why.starts_with("new: its bytes")));
        assert_eq!(copies.sweep(&HashSet::from([old.1])).unwrap(), 1);
        assert!(kept(&copies, &old).is_some() && kept(&copies, &new).is_none());
    }
}
