//! CRC-32 of each block of a body: what an entry is verified by, block by block, so that its first bytes needn't wait for
//! its last. Pure. Against rot and lost writes, not against an enemy: that is what SHA-256 is for.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The smallest block, in bytes.
const BLOCK_BYTES: u64 = 1024 * 1024;
/// A giant has larger blocks instead of more: its list takes 64 KiB at most.
const MAX_BLOCKS: u64 = 16 * 1024;

/// Bytes of each block but the last, of a body of `length` bytes.
pub(super) const fn block_bytes(length: u64) -> u64 {
    block_bytes_within(BLOCK_BYTES, MAX_BLOCKS, length)
}

/// Blocks of a body of `length` bytes.
pub(super) const fn blocks(length: u64) -> u64 {
    length.div_ceil(block_bytes(length))
}

const fn block_bytes_within(smallest: u64, most: u64, length: u64) -> u64 {
    let mut bytes = smallest;
    while length.div_ceil(bytes) > most {
        bytes *= 2;
    }
    bytes
}

/// The sums of a body that comes in pieces, cut anyhow. Its length needn't be known.
#[derive(Clone, Debug)]
pub(super) struct BlockSums {
    most: u64,
    block_bytes: u64,
    full: Vec<u32>,
    /// Of the block that isn't full yet.
    last: crc32fast::Hasher,
    length: u64,
}

impl Default for BlockSums {
    fn default() -> Self {
        Self::within(BLOCK_BYTES, MAX_BLOCKS)
    }
}

impl BlockSums {
    fn within(block_bytes: u64, most: u64) -> Self {
        Self { most, block_bytes, full: Vec::new(), last: crc32fast::Hasher::new(), length: 0 }
    }

    /// Bytes so far.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.full.len() as u64 == self.most {
                self.double();
            }
            let room = self.block_bytes - self.length % self.block_bytes;
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            self.last.update(now);
            self.length += now.len() as u64;
            if self.length.is_multiple_of(self.block_bytes) {
                self.full.push(std::mem::take(&mut self.last).finalize());
            }
            bytes = later;
        }
    }

    /// One sum for each block of the body so far.
    pub(super) fn sums(&self) -> Vec<u32> {
        let last = (!self.length.is_multiple_of(self.block_bytes)).then(|| self.last.clone().finalize());
        self.full.iter().copied().chain(last).collect()
    }

    /// Makes one block of each two.
    fn double(&mut self) {
        let of = |sum: u32| crc32fast::Hasher::new_with_initial_len(sum, self.block_bytes);
        let joined = self.full.chunks(2).map(|pair| {
            let mut joined = of(pair[0]);
            pair[1..].iter().for_each(|second| joined.combine(&of(*second)));
            joined.finalize()
        });
        self.full = joined.collect();
        self.block_bytes *= 2;
    }
}

/// What a draft's writer tells of its bytes.
#[derive(Debug)]
pub(in crate::store) struct Written(Mutex<Option<BlockSums>>);

impl Default for Written {
    fn default() -> Self {
        Self(Mutex::new(Some(BlockSums::default())))
    }
}

impl Written {
    /// These bytes were written at `at`. Once they come out of order the sums are given up, and the commit reads the body
    /// instead.
    pub(in crate::store) fn note(&self, at: u64, bytes: &[u8]) {
        let mut sums = self.lock();
        if let Some(sums) = sums.as_mut().filter(|sums| sums.length() == at) {
            sums.update(bytes);
        } else {
            *sums = None;
        }
    }

    /// The sums, if they are of a body of this length.
    pub(super) fn of(&self, length: u64) -> Option<Vec<u32>> {
        self.lock().as_ref().filter(|sums| sums.length() == length).map(BlockSums::sums)
    }

    fn lock(&self) -> MutexGuard<'_, Option<BlockSums>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_split_makes_no_difference(
            body in prop::collection::vec(any::<u8>(), 0..400),
            pieces in prop::collection::vec(0..50_usize, 0..40),
        ) {
            let mut sums = BlockSums::within(4, 8);
            let mut rest = &body[..];
            for piece in pieces.into_iter().chain([body.len()]) {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                sums.update(now);
                rest = later;
            }
            let block = block_bytes_within(4, 8, body.len() as u64);
            let expected: Vec<u32> = body.chunks(block as usize).map(crc32fast::hash).collect();
            prop_assert_eq!(sums.sums(), expected);
            prop_assert!(sums.sums().len() <= 8);
        }
    }

    #[test]
    fn blocks_grow_with_the_body() {
        let gib = 1 << 30;
        for (length, block, count) in [
            (0, BLOCK_BYTES, 0),
            (1, BLOCK_BYTES, 1),
            (16 * gib, BLOCK_BYTES, 16_384),
            (16 * gib + 1, 2 * BLOCK_BYTES, 8193),
            (1024 * gib, 64 * BLOCK_BYTES, 16_384),
        ] {
            assert_eq!((block_bytes(length), blocks(length)), (block, count), "{length}");
        }
    }

    #[test]
    fn what_comes_out_of_order_has_no_sums() {
        let written = Written::default();
        written.note(0, b"abc");
        written.note(3, b"def");
        assert_eq!(written.of(6), Some(vec![crc32fast::hash(b"abcdef")]));
        assert_eq!(written.of(7), None);
        written.note(7, b"h");
        assert_eq!(written.of(8), None);
    }
}
