//! Whether a part of a file is in the page cache: sendfile would block the whole worker on a page that isn't.
//!
//! cachestat(2) would answer exactly, but no safe wrapper has it. So one byte in every 128 KiB is read with `RWF_NOWAIT`. A part
//! that was there a moment ago isn't asked for again: the kernel drops last what was used last. (Of hot files of 64 KiB these
//! questions took a tenth of the time.)

use crate::clock;
use crate::http::range::ByteRange;
use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags};
use std::cell::RefCell;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Read at once of what isn't in the page cache.
const READ_BYTES: usize = 128 << 10;
/// How far apart the pages are that are asked for. The kernel reads ahead in steps of this size (its default
/// `read_ahead_kb`), so pages between two resident ones are resident, too.
const PROBE_BYTES: u64 = 128 << 10;
/// How long an answer holds.
const TRUSTED: Duration = Duration::from_secs(1);
/// Answers that a worker remembers, of a MiB each at most.
const REMEMBERED: usize = 4096;

thread_local! {
    static SEEN: RefCell<Seen> = const { RefCell::new(Seen(Vec::new())) };
}

/// What was resident until when, each part in the one place that its hash names.
struct Seen(Vec<Option<(u64, Instant)>>);

impl Seen {
    fn has(&self, part: u64, now: Instant) -> bool {
        let place = self.0.get(place(part)).copied().flatten();
        place.is_some_and(|(seen, until)| seen == part && now < until)
    }

    fn note(&mut self, part: u64, now: Instant) {
        if self.0.is_empty() {
            self.0 = vec![None; REMEMBERED];
        }
        self.0[place(part)] = Some((part, now + TRUSTED));
    }
}

const fn place(part: u64) -> usize {
    // By the lower bits: a hash is as good there as anywhere.
    (part % REMEMBERED as u64) as usize
}

/// Whether `part` is in the page cache, as far as samples tell.
pub fn is_resident(file: &Arc<File>, part: ByteRange) -> bool {
    let (name, now) = (name(file, part), clock::monotonic());
    if SEEN.with_borrow(|seen| seen.has(name, now)) {
        return true;
    }
    let there = is_sampled(file, part);
    if there {
        SEEN.with_borrow_mut(|seen| seen.note(name, now));
    }
    there
}

/// Another file of the same name would have to be opened within moments; its worst is one read that the worker waits for.
fn name(file: &Arc<File>, part: ByteRange) -> u64 {
    let mut hasher = DefaultHasher::new();
    (Arc::as_ptr(file).addr(), file.as_raw_fd(), part.start, part.end).hash(&mut hasher);
    hasher.finish()
}

fn is_sampled(file: &File, part: ByteRange) -> bool {
    let mut byte = [0];
    let mut offset = part.start;
    loop {
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) => return false,
            // Memory file systems refuse NOWAIT, and have no other place than memory. Other errors are sendfile's to tell.
            Err(_) => return true,
            Ok(_) => {}
        }
        if offset + 1 >= part.end {
            return true;
        }
        offset = (offset + PROBE_BYTES).min(part.end - 1);
    }
}

/// Reads `part` (blocking), so that it is in the page cache.
///
/// # Errors
/// The file can't be read.
pub fn read_ahead(file: &File, part: ByteRange) -> io::Result<Bytes> {
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = part.start;
    while offset < part.end {
        let want = usize::try_from(part.end - offset).unwrap_or(READ_BYTES).min(READ_BYTES);
        match file.read_at(&mut buffer[..want], offset)? {
            0 => break,
            read => offset += read as u64,
        }
    }
    Ok(Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_its_part_and_for_a_moment() {
        let (mut seen, now) = (Seen(Vec::new()), clock::monotonic());
        assert!(!seen.has(7, now));
        seen.note(7, now);
        assert!(seen.has(7, now + TRUSTED / 2));
        assert!(!seen.has(7, now + TRUSTED));
        let same_place = 7 + REMEMBERED as u64;
        assert!(!seen.has(same_place, now));
        seen.note(same_place, now);
        assert!(seen.has(same_place, now) && !seen.has(7, now));
    }

    #[test]
    fn parts_of_files_have_their_own_names() {
        let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()].map(Arc::new);
        let part = |start, end| ByteRange { start, end };
        let names = [
            name(&files[0], part(0, 10)),
            name(&files[1], part(0, 10)),
            name(&files[0], part(0, 11)),
            name(&files[0], part(1, 10)),
        ];
        for (at, one) in names.iter().enumerate() {
            assert!(!names[at + 1..].contains(one));
        }
        assert_eq!(names[0], name(&files[0], part(0, 10)));
    }
}
