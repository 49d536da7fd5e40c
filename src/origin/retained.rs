//! Old files of a directory origin, kept reachable after rsync replaced or deleted them: hard links, named by digest.
//!
//! The links live in a directory of our own on the tree's file system and cost no space while the file is also in the
//! tree. rsync must not run `--inplace`: it would write through the link. All calls block.

use super::OriginError;
use super::directory::{DirectoryOrigin, Opened, stamp};
use crate::http::TreePath;
use crate::repo::{Algorithm, Digest};
use rustix::fs::{AtFlags, CWD};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The links to files of generations that are still served.
#[derive(Debug)]
pub struct Retained {
    dir: PathBuf,
}

/// What [`Retained::link`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linked {
    /// Links made.
    pub made: usize,
    /// Links that were there.
    pub kept: usize,
    /// Files that could not be linked: absent, of another size than listed, or refused by the file system.
    pub failed: usize,
    /// The first of these, and why.
    pub first_failure: Option<String>,
}

impl Retained {
    /// Opens, and makes where needed, the directory of links.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Links files of `tree` by digest: (path, digest, listed size). Those already linked stay as they are.
    pub fn link<'a>(
        &self,
        tree: &DirectoryOrigin,
        sources: impl IntoIterator<Item = (&'a TreePath, Digest, u64)>,
    ) -> Linked {
        let mut linked = Linked::default();
        for (path, digest, size) in sources {
            match self.link_one(tree, path, &digest, size) {
                Ok(true) => linked.made += 1,
                Ok(false) => linked.kept += 1,
                Err(error) => {
                    linked.failed += 1;
                    linked.first_failure.get_or_insert_with(|| format!("{path}: {error}"));
                }
            }
        }
        linked
    }

    /// Opens a retained file.
    pub fn open_file(&self, digest: &Digest) -> io::Result<Option<Opened>> {
        let file = match File::open(self.path(digest)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let (_, stamp) = stamp(&file)?;
        Ok(Some(Opened { file, stamp }))
    }

    /// Removes the links that are not in `keep`; how many.
    pub fn sweep(&self, keep: &HashSet<Digest>) -> io::Result<usize> {
        let mut removed = 0;
        for shard in fs::read_dir(&self.dir)? {
            let shard = shard?;
            if !shard.file_type()?.is_dir() {
                continue;
            }
            for link in fs::read_dir(shard.path())? {
                let link = link?;
                let name = format!("{}{}", shard.file_name().display(), link.file_name().display());
                if digest_of(&name).is_some_and(|digest| !keep.contains(&digest)) {
                    fs::remove_file(link.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Makes a link to `opened` and removes it again.
    pub(super) fn try_link(&self, opened: &Opened) -> io::Result<()> {
        let name = self.dir.join("probe");
        let _ = fs::remove_file(&name);
        link_inode(opened, &name)?;
        fs::remove_file(&name)
    }

    fn link_one(
        &self,
        tree: &DirectoryOrigin,
        path: &TreePath,
        digest: &Digest,
        size: u64,
    ) -> Result<bool, OriginError> {
        let name = self.path(digest);
        if let Some(kept) = self.open_file(digest).map_err(OriginError::Disk)? {
            if kept.stamp.length == size {
                return Ok(false);
            }
            // Somebody wrote through it: it isn't what its name says.
            fs::remove_file(&name).map_err(OriginError::Disk)?;
        }
        let opened = tree.file(path)?;
        if opened.stamp.length != size {
            return Err(OriginError::Length { promised: opened.stamp.length, listed: size });
        }
        let shard = name.parent().expect("a link lies in a shard");
        fs::create_dir_all(shard).map_err(OriginError::Disk)?;
        link_inode(&opened, &name).map_err(OriginError::Disk)?;
        Ok(true)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let name = name_of(digest);
        let (shard, rest) = name.split_at(name.len() - digest.hex().len() + 2);
        self.dir.join(shard).join(rest)
    }
}

/// Hex of a SHA-256; of any other digest with its algorithm before it.
fn name_of(digest: &Digest) -> String {
    match digest.algorithm() {
        Algorithm::Sha256 => digest.hex(),
        other => format!("{}-{}", other.name(), digest.hex()),
    }
}

fn digest_of(name: &str) -> Option<Digest> {
    match name.split_once('-') {
        None => Digest::from_hex(Algorithm::Sha256, name),
        Some((algorithm, hex)) => Digest::from_hex(Algorithm::named(algorithm)?, hex),
    }
}

/// Links the very inode that is open, whatever its name has become meanwhile.
fn link_inode(opened: &Opened, name: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", opened.file.as_raw_fd());
    match rustix::fs::linkat(CWD, open, CWD, name, AtFlags::SYMLINK_FOLLOW) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        other => other.map_err(io::Error::from),
    }
}
