//! Old files of a directory origin, kept reachable after rsync replaced or deleted them, named by digest.
//!
//! They lie in a directory of our own: reflinks where its file system has them, else hard links, which cost no space while the
//! file is also in the tree (rsync must not run `--inplace`: it would write through the link), else copies within a bound.
//! All calls block.

use super::OriginError;
use super::copies::{self, Copied, Copies, Wanted};
use super::directory::{DirectoryOrigin, Opened};
use crate::http::TreePath;
use crate::repo::{Algorithm, Digest};
use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Where the copies lie, beside the links.
const COPIES: &str = "copies";

/// The files of generations that are still served.
#[derive(Debug)]
pub struct Retained {
    dir: PathBuf,
    copies: Copies,
    /// The file system was seen refusing a reflink.
    no_reflinks: AtomicBool,
}

/// What [`Retained::link`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linked {
    /// Links made.
    pub made: usize,
    /// Links that were there.
    pub kept: usize,
    /// Files that could not be linked: absent, or of another size than listed.
    pub failed: usize,
    /// The first of these, and why.
    pub first_failure: Option<String>,
    /// Files of which the file system takes no link: they can only be copied.
    pub refused: Vec<Wanted>,
}

impl Retained {
    /// Opens, and makes where needed, the directory.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let copies = Copies::new(dir.join(COPIES));
        Ok(Self { dir: dir.to_owned(), copies, no_reflinks: AtomicBool::new(false) })
    }

    /// Whether files of `tree` can be kept in `dir` by hard links and by nothing else: on one file system, which has no reflinks.
    /// Leaves nothing behind.
    #[must_use]
    pub fn takes_hard_links_only(dir: &Path, tree: &Path) -> bool {
        let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
        device(dir).is_some() && device(dir) == device(tree) && !takes_reflinks(dir)
    }

    /// With at most so many bytes of copies.
    pub(super) const fn set_copy_bytes(&mut self, most_bytes: u64) {
        self.copies.most_bytes = most_bytes;
    }

    /// Copies what [`Retained::link`] could not link, in this order, as far as there is room; copies in `needed` are never
    /// given up for it.
    pub fn copy(&self, tree: &DirectoryOrigin, wanted: &[Wanted], needed: &HashSet<Digest>) -> Copied {
        self.copies.keep(tree, wanted, needed)
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
                Err(OriginError::Disk(error)) if is_refusal(&error) => {
                    linked.refused.push((path.clone(), digest, size));
                }
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
        match copies::open(&self.path(digest))? {
            Some(opened) => Ok(Some(opened)),
            None => self.copies.open_file(digest),
        }
    }

    /// Removes the links and copies that are not in `keep`; how many.
    pub fn sweep(&self, keep: &HashSet<Digest>) -> io::Result<usize> {
        let mut removed = self.copies.sweep(keep)?;
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

    /// Makes a reflink or link of `opened` and removes it again.
    pub(super) fn try_link(&self, opened: &Opened) -> io::Result<()> {
        let name = self.dir.join("probe");
        let _ = fs::remove_file(&name);
        self.link_or_reflink(opened, &name)?;
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
            if let Err(error) = fs::remove_file(&name)
                && error.kind() != ErrorKind::NotFound
            {
                return Err(OriginError::Disk(error));
            }
            self.copies.remove(digest).map_err(OriginError::Disk)?;
        }
        let opened = tree.file(path)?;
        if opened.stamp.length != size {
            return Err(OriginError::Length { promised: opened.stamp.length, listed: size });
        }
        let shard = name.parent().expect("a link lies in a shard");
        fs::create_dir_all(shard).map_err(OriginError::Disk)?;
        self.link_or_reflink(&opened, &name).map_err(OriginError::Disk)?;
        Ok(true)
    }

    fn link_or_reflink(&self, opened: &Opened, name: &Path) -> io::Result<()> {
        if !self.no_reflinks.load(Ordering::Relaxed) {
            match reflink(opened, name) {
                Err(error) if is_refusal(&error) => self.no_reflinks.store(true, Ordering::Relaxed),
                other => return other,
            }
        }
        link_inode(opened, name)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let name = name_of(digest);
        let (shard, rest) = name.split_at(name.len() - digest.hex().len() + 2);
        self.dir.join(shard).join(rest)
    }
}

/// Hex of a SHA-256; of any other digest with its algorithm before it.
pub(super) fn name_of(digest: &Digest) -> String {
    match digest.algorithm() {
        Algorithm::Sha256 => digest.hex(),
        other => format!("{}-{}", other.name(), digest.hex()),
    }
}

pub(super) fn digest_of(name: &str) -> Option<Digest> {
    match name.split_once('-') {
        None => Digest::from_hex(Algorithm::Sha256, name),
        Some((algorithm, hex)) => Digest::from_hex(Algorithm::named(algorithm)?, hex),
    }
}

/// Whether the file system, or the kernel, takes no link of that file, as opposed to a failure of the disk.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            // Of another owner; on another file system; too many; not a thing of this file system.
            Errno::PERM
                | Errno::XDEV
                | Errno::MLINK
                | Errno::OPNOTSUPP
                | Errno::NOTTY
                | Errno::INVAL
                | Errno::NOSYS
        )
    )
}

/// A file of its own that shares its blocks with `opened` until one of them is written.
fn reflink(opened: &Opened, name: &Path) -> io::Result<()> {
    let incoming = name.with_extension("new");
    let file = File::create(&incoming)?;
    let cloned = rustix::fs::ioctl_ficlone(&file, &opened.file).map_err(io::Error::from);
    let nanos = u64::try_from(opened.stamp.modified_nanos).unwrap_or(u64::MAX);
    let made = cloned
        .and_then(|()| file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)))
        .and_then(|()| fs::rename(&incoming, name));
    if made.is_err() {
        // The next attempt begins it anew.
        let _ = fs::remove_file(&incoming);
    }
    made
}

/// Tries it with a file of its own.
fn takes_reflinks(dir: &Path) -> bool {
    let names = ["probe.old", "probe.new"].map(|name| dir.join(name));
    let taken = fs::write(&names[0], "x").and_then(|()| {
        let (from, to) = (File::open(&names[0])?, File::create(&names[1])?);
        Ok(rustix::fs::ioctl_ficlone(&to, &from)?)
    });
    for name in names {
        let _ = fs::remove_file(name);
    }
    taken.is_ok()
}

/// Links the very inode that is open, whatever its name has become meanwhile.
fn link_inode(opened: &Opened, name: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", opened.file.as_raw_fd());
    match rustix::fs::linkat(CWD, open, CWD, name, AtFlags::SYMLINK_FOLLOW) {
        Err(Errno::EXIST) => Ok(()),
        other => other.map_err(io::Error::from),
    }
}
