//! Ways in which a file of a tree, or the origin's answers for it, can be wrong; each can be mended.

use super::origin::{Act, Origin};
use super::repo::REPO;
use std::fs;
use std::path::{Path, PathBuf};

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// It isn't there.
    Missing,
    /// It has no bytes.
    Empty,
    /// Its last four bytes are missing.
    Short,
    /// Four bytes follow it.
    Long,
    /// One of its bytes is another.
    Flipped,
    /// Its bytes are those of an error page.
    Page,
    /// The origin answers with this status, and has the file.
    Status(u16),
    /// The origin promises all of it, and closes the connection within it.
    Cut,
    /// The origin resets the connection within it.
    Reset,
    /// The origin takes the request and says nothing.
    Silent,
    /// The origin sends so many bytes each second: nothing is wrong with the file.
    Slow(u64),
}

impl Breakage {
    /// Those of the file itself, which an origin in a directory can have as well.
    pub const OF_FILES: [Self; 6] =
        [Self::Missing, Self::Empty, Self::Short, Self::Long, Self::Flipped, Self::Page];
    /// Those of an HTTP origin's answers.
    pub const OF_ANSWERS: [Self; 9] = [
        Self::Status(403),
        Self::Status(404),
        Self::Status(500),
        Self::Status(502),
        Self::Status(503),
        Self::Cut,
        Self::Reset,
        Self::Silent,
        Self::Slow(20_000),
    ];

    /// Whether a client that asks for the file fails.
    pub fn fails_clients(self) -> bool {
        !matches!(self, Self::Slow(_))
    }

    fn acts(self) -> Option<Vec<Act>> {
        Some(match self {
            Self::Status(status) => vec![Act::Status(status)],
            Self::Cut => vec![Act::Truncate(100)],
            Self::Reset => vec![Act::Reset(100)],
            Self::Silent => vec![Act::Hang],
            Self::Slow(rate) => vec![Act::Throttle(rate)],
            _ => return None,
        })
    }

    fn bytes(self, right: &[u8]) -> Vec<u8> {
        let mut bytes = right.to_vec();
        match self {
            Self::Empty => bytes.clear(),
            Self::Short => bytes.truncate(bytes.len() - 4),
            Self::Long => bytes.extend(b"more"),
            Self::Flipped => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            Self::Page => bytes = b"<!DOCTYPE html><title>Sorry</title>".to_vec(),
            _ => {}
        }
        bytes
    }
}

/// A file that is broken until it is mended.
pub struct Broken {
    path: PathBuf,
    file: String,
    right: Vec<u8>,
}

impl Broken {
    /// Breaks `file`, a path relative to the repository in the directory `repo`, there or in the answers of the `origin` that
    /// serves it.
    pub fn new(breakage: Breakage, repo: &Path, origin: Option<&Origin>, file: &str) -> Self {
        let path = repo.join(file);
        let right = fs::read(&path).expect("the file that is to be broken");
        let broken = Self { path, file: file.to_owned(), right };
        match (breakage, breakage.acts(), origin) {
            (_, Some(acts), Some(origin)) => origin.act(&broken.url_path(), acts),
            (_, Some(_), None) => panic!("{breakage:?} needs an HTTP origin"),
            (Breakage::Missing, ..) => fs::remove_file(&broken.path).expect("a file to remove"),
            (breakage, ..) => broken.write(&breakage.bytes(&broken.right)),
        }
        broken
    }

    /// Puts the right file back, under another inode, and has the origin answer as usual.
    pub fn mend(self, origin: Option<&Origin>) {
        if let Some(origin) = origin {
            origin.act(&self.url_path(), []);
            origin.release(&self.url_path());
        }
        self.write(&self.right);
    }

    /// From the tree's root.
    pub fn url_path(&self) -> String {
        format!("{REPO}/{}", self.file)
    }

    /// As rsync does: the tree's files are links to others'.
    fn write(&self, bytes: &[u8]) {
        let new = self.path.with_extension("new");
        fs::write(&new, bytes).expect("a new file");
        fs::rename(new, &self.path).expect("a rename");
    }
}
