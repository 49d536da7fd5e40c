//! The file that the access log is written to, under its name: where it was renamed, a new one of that name.

use crate::clock;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A file that was renamed is followed by a new one at once, whose owner and mode are those that a rotation gives it. If there is
/// none for so long, the log makes one.
const PATIENCE: Duration = Duration::from_secs(5);

/// A log that others may rotate.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and inode.
    id: (u64, u64),
    gone_since: Option<Instant>,
    /// That it can't be opened anew was said.
    said: bool,
}

impl LogFile {
    /// Opens the file, and makes it where it is missing.
    ///
    /// # Errors
    /// It can't be opened for appending.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, id) = opened(path)?;
        Ok(Self { path: path.to_owned(), file, id, gone_since: None, said: false })
    }

    /// Writes whole lines, to the file that has the name by now.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.follow(clock::monotonic());
        self.file.write_all(lines)
    }

    fn follow(&mut self, now: Instant) {
        match fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == self.id => {
                self.gone_since = None;
                return;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let gone_since = *self.gone_since.get_or_insert(now);
                if now.duration_since(gone_since) < PATIENCE {
                    return;
                }
            }
            // The one that is open is as good as any.
            Err(_) => return,
            Ok(_) => {}
        }
        match opened(&self.path) {
            Ok((file, id)) => (self.file, self.id, self.gone_since, self.said) = (file, id, None, false),
            Err(error) if !self.said => {
                self.said = true;
                tracing::error!(
                    %error,
                    file = %self.path.display(),
                    "the access log was renamed and can't be opened anew: it goes on in the old file. Give it a directory that the node may write to, or rotate it with copytruncate"
                );
            }
            Err(_) => {}
        }
    }
}

fn opened(path: &Path) -> io::Result<(File, (u64, u64))> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let facts = file.metadata()?;
    Ok((file, (facts.dev(), facts.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_renamed_goes_on_in_the_new_file_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let [path, old] = ["access.log", "access.log.1"].map(|name| dir.path().join(name));
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        let mut log = LogFile::open(&path).unwrap();
        log.write(b"1\n").unwrap();

        // Between the two steps of a rotation nothing is made in the new file's place.
        fs::rename(&path, &old).unwrap();
        log.write(b"2\n").unwrap();
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        log.write(b"3\n").unwrap();
        assert_eq!((text(&old).as_str(), text(&path).as_str()), ("1\n2\n", "3\n"));

        // A rotation that makes no new file.
        fs::rename(&path, &old).unwrap();
        let now = clock::monotonic();
        log.follow(now);
        assert!(!path.exists());
        log.follow(now + PATIENCE);
        log.write(b"4\n").unwrap();
        assert_eq!((text(&old).as_str(), text(&path).as_str()), ("3\n", "4\n"));

        // It is cut where it lies: copytruncate.
        File::create(&path).unwrap();
        log.write(b"5\n").unwrap();
        assert_eq!(text(&path), "5\n");
    }

    #[test]
    fn where_no_new_file_can_be_opened_the_old_one_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let [path, old] = ["access.log", "access.log.1"].map(|name| dir.path().join(name));
        let mut log = LogFile::open(&path).unwrap();
        fs::rename(&path, &old).unwrap();
        fs::create_dir(&path).unwrap();
        log.write(b"1\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "1\n");
    }
}
