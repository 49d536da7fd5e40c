//! Buffers for file bytes on their way to TLS: of one size, kept by each worker for the next who needs one, so that
//! none is made or zeroed for a response.

use crate::http::range::ByteRange;
use bytes::Bytes;
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Of a buffer: four TLS records, as many as rustls takes at once.
pub const BYTES: usize = 64 << 10;
/// What is read for less than this gets memory of its own size.
const SMALL_BYTES: u64 = 32 << 10;
/// Kept by a worker at most; a busy one has as many connections that send at once.
const KEPT: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer, which goes back when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
}

/// A spare buffer, or a new one.
#[must_use]
pub fn take() -> Buffer {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    Buffer { bytes: spare.unwrap_or_else(|| vec![0; BYTES].into()), filled: 0 }
}

/// Bytes of a file, at most [`BYTES`]; none at the file's own end.
///
/// # Errors
/// The file can't be read.
pub fn read(file: &File, part: ByteRange) -> io::Result<Bytes> {
    if part.len() < SMALL_BYTES {
        let mut buffer = Buffer { bytes: vec![0; part.len() as usize].into(), filled: 0 };
        buffer.read(file, part.start, part.end)?;
        return Ok(buffer.into_bytes());
    }
    let mut buffer = take();
    buffer.read(file, part.start, part.end)?;
    Ok(buffer.into_bytes())
}

impl Buffer {
    /// Fills it with what the file has from `offset` on, at most up to `end`; empty at the file's own end.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(&mut self, file: &File, offset: u64, end: u64) -> io::Result<&[u8]> {
        let most = usize::try_from(end - offset).unwrap_or(BYTES).min(self.bytes.len());
        self.filled = loop {
            match file.read_at(&mut self.bytes[..most], offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        Ok(&self.bytes[..self.filled])
    }

    /// There is room for so many bytes more.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bytes.len() - self.filled >= bytes
    }

    /// Adds `bytes` to what it is filled with; there must be room for them.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// What it is filled with, as bytes that give it back when the last of them is dropped.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // A thread that ends keeps none.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if bytes.len() == BYTES && spare.len() < KEPT {
                spare.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_gives_only_what_was_read() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"0123456789").unwrap();
        let mut buffer = take();
        assert_eq!(buffer.read(&file, 2, 6).unwrap(), b"2345");
        let address = buffer.as_ref().as_ptr();
        let bytes = buffer.into_bytes();
        assert_eq!(&bytes[..], b"2345");
        drop(bytes);
        let mut again = take();
        assert_eq!(again.read(&file, 8, 100).unwrap(), b"89");
        assert_eq!(again.as_ref().as_ptr(), address);
        assert_eq!(again.read(&file, 10, 100).unwrap(), b"");
    }
}
