//! The origin as a local directory: a node that is rsynced, or the master itself.
//!
//! Every name is resolved below the root by the kernel (`openat2` with `RESOLVE_BENEATH`), so that neither a path nor
//! a symlink leads out of it. A symlink that names a place in the tree by its absolute path is followed: it is rewritten
//! (`symlinks`), and what comes of it is resolved in the same way. All calls block.

use super::{MAX_POLLED_BYTES, OriginError, PollValidators, Polled, Retained, Sight, symlinks};
use crate::clock::Timestamp;
use crate::http::TreePath;
use crate::repo::Digest;
use hyper::header::HeaderValue;
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Entries of one directory that a listing shows at most. [`DirectoryOrigin::list`] has one more where there are more.
pub const MAX_LISTED: usize = 100_000;
/// `openat2` says EAGAIN when a rename somewhere made a ".." uncertain; it is asked again so many times.
const RESOLVE_ATTEMPTS: usize = 16;

/// One version of a file, as the file system tells versions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The inode's number.
    pub inode: u64,
    /// Length in bytes.
    pub length: u64,
    /// Last modification, nanoseconds since the epoch.
    pub modified_nanos: u128,
}

impl Stamp {
    /// When it was last modified.
    #[must_use]
    pub fn modified(&self) -> Timestamp {
        Timestamp::from_millis(u64::try_from(self.modified_nanos / 1_000_000).unwrap_or(u64::MAX))
    }

    /// A strong ETag; it means nothing on another node.
    #[must_use]
    pub fn etag(&self) -> HeaderValue {
        HeaderValue::try_from(format!("\"{:x}-{:x}-{:x}\"", self.modified_nanos, self.length, self.inode))
            .expect("hex digits and dashes in quotes are a header value")
    }
}

/// An open regular file and what it was when it was opened.
#[derive(Debug)]
pub struct Opened {
    /// Open for reading.
    pub file: File,
    /// Its version.
    pub stamp: Stamp,
}

/// What a path names.
#[derive(Debug)]
pub enum Node {
    /// A regular file.
    File(Opened),
    /// A directory.
    Directory,
}

/// One line of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without a slash.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Bytes; 0 for a directory.
    pub size: u64,
    /// Last modification.
    pub modified: Timestamp,
}

/// A tree in the local file system.
#[derive(Debug)]
pub struct DirectoryOrigin {
    root: OwnedFd,
    path: PathBuf,
    /// How absolute symlinks name the root: as the config does, and by its canonical path.
    names: Vec<PathBuf>,
    retained: Option<Retained>,
}

impl DirectoryOrigin {
    /// Opens the tree at `path`; old files are kept in `retain` (made if it isn't there), or not at all.
    pub fn open(path: &Path, retain: Option<&Path>) -> Result<Self, OriginError> {
        let refuse = |error: io::Error| OriginError::Setup(format!("origin {}: {error}", path.display()));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| refuse(e.into()))?;
        let keep = |dir: &Path| {
            Retained::open(dir).map_err(|error| OriginError::Setup(format!("{}: {error}", dir.display())))
        };
        let retained = retain.map(keep).transpose()?;
        let canonical = std::fs::canonicalize(path).map_err(refuse)?;
        let names = vec![path.to_owned(), canonical];
        let origin = Self { root, path: path.to_owned(), names, retained };
        origin.resolve(".").map_err(refuse)?;
        Ok(origin)
    }

    /// The same with at most so many bytes of copies, where files can't be linked.
    #[must_use]
    pub const fn copying(mut self, most_bytes: u64) -> Self {
        if let Some(retained) = &mut self.retained {
            retained.set_copy_bytes(most_bytes);
        }
        self
    }

    /// Where the tree is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The old files, where any are kept.
    #[must_use]
    pub const fn retained(&self) -> Option<&Retained> {
        self.retained.as_ref()
    }

    /// Opens what `path` names: `Absent` for whatever isn't a readable file or directory of this tree.
    pub fn node(&self, path: &TreePath) -> Result<Node, OriginError> {
        match self.inspect(path.as_str().trim_end_matches('/'))? {
            Node::File(_) if path.is_directory() => Err(OriginError::Absent),
            node => Ok(node),
        }
    }

    /// Opens a file: `IsDirectory` for a directory asked for without its slash, `Absent` for one asked for with it.
    pub fn file(&self, path: &TreePath) -> Result<Opened, OriginError> {
        match self.node(path)? {
            Node::File(opened) => Ok(opened),
            Node::Directory if path.is_directory() => Err(OriginError::Absent),
            Node::Directory => Err(OriginError::IsDirectory),
        }
    }

    /// Looks at the file in place: not at a retained one, which nobody copies from here.
    pub(super) fn see(&self, path: &TreePath, size: u64) -> Result<Sight, OriginError> {
        Ok(Sight { is_measured: true, stamp: Some(self.file_of(path, size)?.stamp) })
    }

    /// Opens the file in place, which has to be of this length.
    pub fn file_of(&self, path: &TreePath, size: u64) -> Result<Opened, OriginError> {
        let opened = self.file(path)?;
        if opened.stamp.length == size {
            return Ok(opened);
        }
        Err(OriginError::Length { promised: opened.stamp.length, listed: size })
    }

    /// Opens the file that a catalogue lists as `digest` and `size` at `path`: the one in place if it may be that, else the one retained.
    ///
    /// The one in place may be it if it has the size, and is the retained inode where one is retained: rsync replaces
    /// files by new inodes, so another inode is another version.
    pub fn listed_file(&self, path: &TreePath, digest: &Digest, size: u64) -> Result<Opened, OriginError> {
        let kept = self.retained.as_ref().map(|retained| retained.open_file(digest)).transpose();
        let kept = kept.map_err(OriginError::Disk)?.flatten().filter(|kept| kept.stamp.length == size);
        match (self.file(path), kept) {
            (Ok(in_place), None) if in_place.stamp.length == size => Ok(in_place),
            (Ok(in_place), None) => {
                Err(OriginError::Length { promised: in_place.stamp.length, listed: size })
            }
            (Err(error), None) => Err(error),
            (_, Some(kept)) => Ok(kept),
        }
    }

    /// The files and directories in a directory that can be opened, in no order; one more than [`MAX_LISTED`] at most.
    pub fn list(&self, dir: &TreePath) -> Result<Vec<DirEntry>, OriginError> {
        let base = dir.as_str().trim_end_matches('/');
        let fd = self.resolve(if base.is_empty() { "." } else { base }).map_err(absent)?;
        let entries = match Dir::read_from(&fd) {
            Err(Errno::NOTDIR) => return Err(OriginError::Absent),
            other => other.map_err(|e| OriginError::Disk(e.into()))?,
        };
        let mut listed = Vec::new();
        for entry in entries {
            if listed.len() > MAX_LISTED {
                break;
            }
            let entry = entry.map_err(|e| OriginError::Disk(e.into()))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(name, "." | "..") {
                continue;
            }
            let path = if base.is_empty() { name.to_owned() } else { format!("{base}/{name}") };
            // One that can't be opened now would be a 404 after a click.
            if let Ok((_, file_type, stamp)) = self.stat(&path) {
                let is_directory = file_type == FileType::Directory;
                if is_directory || file_type == FileType::RegularFile {
                    let size = if is_directory { 0 } else { stamp.length };
                    let modified = stamp.modified();
                    listed.push(DirEntry { name: name.to_owned(), is_directory, size, modified });
                }
            }
        }
        Ok(listed)
    }

    /// Reads `path` if it is another version than `known`.
    pub fn poll(&self, path: &TreePath, known: &PollValidators) -> Result<Polled, OriginError> {
        let opened = match self.file(path) {
            Err(OriginError::Absent | OriginError::IsDirectory) => return Ok(Polled::Absent),
            other => other?,
        };
        if known.stamp == Some(opened.stamp) {
            return Ok(Polled::Unchanged);
        }
        let body = opened.read(MAX_POLLED_BYTES)?;
        let validators = PollValidators { stamp: Some(opened.stamp), ..PollValidators::default() };
        Ok(Polled::Changed { body: body.into(), last_modified: Some(opened.stamp.modified()), validators })
    }

    /// Whether files of the tree can be hard-linked into the retained ones' directory; else why not.
    ///
    /// Tries it with the first regular file found, since ownership (`fs.protected_hardlinks`) matters as well as the file system.
    pub fn can_link(&self) -> Result<(), String> {
        let Some(retained) = &self.retained else { return Ok(()) };
        let mut dirs = vec![TreePath::new("").map_err(|e| e.to_string())?];
        let mut seen = 0;
        while let Some(dir) = dirs.pop() {
            for entry in self.list(&dir).map_err(|e| e.to_string())? {
                // rsync's temporaries come and go.
                if entry.name.starts_with('.') {
                    continue;
                }
                let Ok(path) = TreePath::new(&format!(
                    "{}{}{}",
                    dir.as_str(),
                    entry.name,
                    if entry.is_directory { "/" } else { "" }
                )) else {
                    continue;
                };
                if entry.is_directory {
                    dirs.push(path);
                } else {
                    let opened = self.file(&path).map_err(|e| e.to_string())?;
                    return retained.try_link(&opened).map_err(|e| format!("{path}: {e}"));
                }
                seen += 1;
            }
            if seen > MAX_LISTED {
                break;
            }
        }
        Ok(())
    }

    fn inspect(&self, path: &str) -> Result<Node, OriginError> {
        let (fd, file_type, stamp) = self.stat(if path.is_empty() { "." } else { path })?;
        match file_type {
            FileType::RegularFile => Ok(Node::File(Opened { file: File::from(fd), stamp })),
            FileType::Directory => Ok(Node::Directory),
            _ => Err(OriginError::Absent),
        }
    }

    fn stat(&self, path: &str) -> Result<(OwnedFd, FileType, Stamp), OriginError> {
        let fd = self.resolve(path).map_err(absent)?;
        let (file_type, stamp) = stamp(&fd).map_err(OriginError::Disk)?;
        Ok((fd, file_type, stamp))
    }

    fn resolve(&self, path: &str) -> io::Result<OwnedFd> {
        let opened = self.resolve_beneath(path);
        let leads_out = opened.as_ref().is_err_and(|error| Errno::from_io_error(error) == Some(Errno::XDEV));
        match leads_out.then(|| symlinks::rewritten(&self.root, &self.names, path)).flatten() {
            Some(path) => self.resolve_beneath(&path),
            None => opened,
        }
    }

    fn resolve_beneath(&self, path: &str) -> io::Result<OwnedFd> {
        // Non-blocking: a FIFO must not stop us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let below = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), below) {
                Err(Errno::AGAIN) if attempts < RESOLVE_ATTEMPTS => attempts += 1,
                other => return other.map_err(io::Error::from),
            }
        }
    }
}

impl Opened {
    /// All of the file, if it is at most `max_bytes` and is as long as it was when it was opened.
    pub fn read(&self, max_bytes: u64) -> Result<Vec<u8>, OriginError> {
        let length = self.stamp.length;
        if length > max_bytes {
            return Err(OriginError::TooLong { expected: max_bytes });
        }
        let mut body = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut body, 0).map_err(OriginError::Disk)?;
        Ok(body)
    }
}

/// Type and version of an open file.
pub(super) fn stamp(fd: impl std::os::fd::AsFd) -> io::Result<(FileType, Stamp)> {
    let stat = rustix::fs::fstat(fd)?;
    let seconds = u128::try_from(stat.st_mtime).unwrap_or(0);
    let modified_nanos = seconds * 1_000_000_000 + u128::from(stat.st_mtime_nsec);
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    Ok((FileType::from_raw_mode(stat.st_mode), Stamp { inode: stat.st_ino, length, modified_nanos }))
}

/// What the file system says of names that are not there for us.
fn absent(error: io::Error) -> OriginError {
    let errno = Errno::from_io_error(&error);
    match errno {
        Some(
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::ACCESS
            | Errno::PERM
            | Errno::LOOP
            | Errno::XDEV
            | Errno::NAMETOOLONG
            | Errno::NXIO,
        ) => OriginError::Absent,
        _ => OriginError::Disk(error),
    }
}
