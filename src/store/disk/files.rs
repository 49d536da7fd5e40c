//! What the disk tier needs of a file system: the seam at which tests put a model that forgets what wasn't synced.
//!
//! Nothing else in the tier does IO by path, so every operation that a crash can tear passes here. Readers of entries get
//! the real file, since sendfile wants a descriptor. All calls block.

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// What a file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Facts {
    pub(in crate::store) length: u64,
    /// Bytes that it takes: less than its length where it has holes.
    pub(in crate::store) allocated: u64,
    pub(in crate::store) is_dir: bool,
    pub(in crate::store) modified: Modified,
    /// Seconds since the epoch.
    pub(in crate::store) accessed: i64,
    pub(in crate::store) seal: Seal,
}

/// Which file it is, and when it was last changed: by the kernel's own time of that, which nobody can set. Bytes that were
/// verified are as they were while the seal is. (A disk that rots breaks none.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Seal(u64);

impl Seal {
    /// Of an open file: one call that never waits for a disk. `None` where it fails.
    pub(in crate::store) fn of(file: &File) -> Option<Self> {
        let stat = rustix::fs::fstat(file).ok()?;
        Some(Self::made_of(stat.st_dev, stat.st_ino, stat.st_ctime, i128::from(stat.st_ctime_nsec)))
    }

    fn made_of(device: u64, inode: u64, seconds: i64, nanoseconds: i128) -> Self {
        let mut hasher = DefaultHasher::new();
        (device, inode, seconds, nanoseconds).hash(&mut hasher);
        Self(hasher.finish())
    }

    /// As a number, of which 0 is none.
    pub(in crate::store) const fn number(self) -> u64 {
        self.0
    }

    /// From its number.
    pub(in crate::store) const fn from_number(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }
}

/// A modification time, as file systems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Modified {
    pub(in crate::store) seconds: i64,
    pub(in crate::store) nanoseconds: u32,
}

/// A file system. What is written is durable once its file was synced, a name once its directory was.
pub(in crate::store) trait Files: Send + Sync + 'static {
    /// An open file.
    type File: Debug + Send + Sync + 'static;

    /// A new file, to read and write; fails where there is one.
    fn create_new(&self, path: &Path) -> io::Result<Self::File>;
    /// A file, to read.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// The same, to read and write.
    fn open_to_write(&self, path: &Path) -> io::Result<Self::File>;
    fn read_exact_at(&self, file: &Self::File, bytes: &mut [u8], at: u64) -> io::Result<()>;
    fn write_all_at(&self, file: &Self::File, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Cuts a file that is longer.
    fn truncate(&self, file: &Self::File, length: u64) -> io::Result<()>;
    /// Promises blocks for `length` bytes from `offset` on, where the file system can; the file's length stays.
    fn reserve(&self, file: &Self::File, offset: u64, length: u64) -> io::Result<()>;
    fn facts(&self, file: &Self::File) -> io::Result<Facts>;
    fn set_modified(&self, file: &Self::File, modified: Modified) -> io::Result<()>;
    /// Makes data, length and times durable. Once it failed, what the kernel dropped is not written by trying again.
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    fn facts_at(&self, path: &Path) -> io::Result<Facts>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Opens a file, making it where there is none, that this process alone holds as long as it is open;
    /// `ResourceBusy` where another does.
    fn lock(&self, path: &Path) -> io::Result<Self::File>;
    /// Whether `path` still names this very file.
    fn is_at(&self, file: &Self::File, path: &Path) -> bool;
    /// Another text after each boot of the machine.
    fn boot(&self) -> io::Result<String>;
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct System;

impl Files for System {
    type File = File;

    fn create_new(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn open_to_write(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn read_exact_at(&self, file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
        file.read_exact_at(bytes, at)
    }

    fn write_all_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn reserve(&self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn facts(&self, file: &File) -> io::Result<Facts> {
        Ok(file.metadata()?.into())
    }

    fn set_modified(&self, file: &File, modified: Modified) -> io::Result<()> {
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let to = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanoseconds.into() };
        let times = Timestamps { last_access: omit, last_modification: to };
        Ok(rustix::fs::futimens(file, &times)?)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn facts_at(&self, path: &Path) -> io::Result<Facts> {
        Ok(fs::symlink_metadata(path)?.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn lock(&self, path: &Path) -> io::Result<File> {
        // Not held open for writing: that would keep an operator from a read-only remount.
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
                File::open(path)?
            }
            other => other?,
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(Errno::WOULDBLOCK) => {
                let root = path.parent().unwrap_or(path).display();
                Err(io::Error::new(ErrorKind::ResourceBusy, format!("another process uses {root}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn is_at(&self, file: &File, path: &Path) -> bool {
        let (Ok(held), Ok(there)) =
            (rustix::fs::fstat(file), rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW))
        else {
            return false;
        };
        (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino)
    }

    fn boot(&self) -> io::Result<String> {
        Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
    }
}

impl From<Metadata> for Facts {
    fn from(metadata: Metadata) -> Self {
        let nanoseconds = u32::try_from(metadata.mtime_nsec()).unwrap_or(0);
        Self {
            length: metadata.len(),
            allocated: metadata.blocks() * 512,
            is_dir: metadata.is_dir(),
            modified: Modified { seconds: metadata.mtime(), nanoseconds },
            accessed: metadata.atime(),
            seal: Seal::made_of(
                metadata.dev(),
                metadata.ino(),
                metadata.ctime(),
                i128::from(metadata.ctime_nsec()),
            ),
        }
    }
}
