//! Body bytes that a connection's HTTP/2 has taken and not yet written.

use bytes::Bytes;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;

/// Body bytes that all streams of a connection may have in memory. With the heads of three frames, 9 bytes each, they fill three
/// TLS records.
pub const MOST_BYTES: usize = (48 << 10) - 27;
/// A stream that has none there may always add so many: streams whose client takes nothing don't stop those that it reads. With
/// 64 streams of that kind it is 64 KiB in all.
pub const LEAST_BYTES: usize = 256;
/// A stream that hasn't had anything written yet adds so many at most: one that will never be read holds no more.
const FIRST_BYTES: usize = 16 << 10;

/// The account of one connection.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: AtomicUsize,
    /// The same of what the node keeps in memory for all: none of them has to wait.
    shared: AtomicUsize,
    /// Bytes that were written, from the connection's start on.
    written: AtomicU64,
    /// Payload of DATA that left the connection's buffers, from its start on.
    sent: AtomicU64,
    /// Of streams that wait until something is written.
    waiting: Mutex<Vec<Waker>>,
}

/// What one stream has on its account. It takes memory once there is something.
#[derive(Debug, Default)]
pub struct OfStream(OnceLock<Arc<AtomicUsize>>);

impl OfStream {
    /// Bytes that it has there.
    pub fn bytes(&self) -> usize {
        self.0.get().map_or(0, |bytes| bytes.load(Ordering::Relaxed))
    }

    fn is_idle(&self) -> bool {
        self.bytes() == 0
    }
}

/// Bytes on their way; off the account once the last reference to them is dropped.
struct Taken {
    bytes: Bytes,
    outgoing: Arc<Outgoing>,
    stream: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Taken {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.stream.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.outgoing.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.outgoing.written.fetch_add(self.bytes.len() as u64, Ordering::Relaxed);
        let waiting = std::mem::take(&mut *self.outgoing.lock());
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Bytes that the node kept for all when the response began, and may keep no more.
struct Shared {
    bytes: Bytes,
    outgoing: Arc<Outgoing>,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.outgoing.shared.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl Outgoing {
    /// How many bytes the stream may add now; `None` where it has to wait, and `waker` is woken once it may not have to.
    /// `has_begun`: something of it was written.
    pub fn room(&self, stream: &OfStream, has_begun: bool, waker: &Waker) -> Option<usize> {
        let room = self.free(stream, has_begun);
        if room.is_some() {
            return room;
        }
        self.lock().push(waker.clone());
        // Something may have been written meanwhile, by a thread that found no waker.
        self.free(stream, has_begun)
    }

    fn free(&self, stream: &OfStream, has_begun: bool) -> Option<usize> {
        let free = MOST_BYTES.saturating_sub(self.bytes.load(Ordering::Relaxed));
        let most = if has_begun { MOST_BYTES } else { FIRST_BYTES };
        if stream.is_idle() {
            return Some(free.clamp(LEAST_BYTES, most));
        }
        // In small pieces the rest of the room costs more than it sends.
        (free >= MOST_BYTES / 3 * 2).then_some(free.min(most))
    }

    /// Takes `bytes` of a stream onto the account.
    pub fn take(self: &Arc<Self>, stream: &OfStream, bytes: Bytes) -> Bytes {
        let stream = stream.0.get_or_init(Arc::default).clone();
        stream.fetch_add(bytes.len(), Ordering::Relaxed);
        self.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Taken { bytes, outgoing: self.clone(), stream })
    }

    /// Counts bytes that the node keeps for all, until the last reference to them is dropped.
    pub fn share(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        self.shared.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Shared { bytes, outgoing: self.clone() })
    }

    /// Bytes that were written, from the connection's start on.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes on the account, and those that are shared.
    pub fn held(&self) -> usize {
        self.bytes.load(Ordering::Relaxed) + self.shared.load(Ordering::Relaxed)
    }

    /// Some bytes are on their way.
    pub fn has_some(&self) -> bool {
        self.held() > 0
    }

    /// So much payload of DATA has left the connection's buffers.
    pub fn left(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Payload of DATA that has left the connection's buffers, from its start on.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(outgoing: &Outgoing, stream: &OfStream, has_begun: bool) -> Option<usize> {
        outgoing.room(stream, has_begun, Waker::noop())
    }

    #[test]
    fn streams_that_are_not_read_hold_little_and_stop_no_other() {
        let outgoing = Arc::new(Outgoing::default());
        let mut held = Vec::new();
        for _ in 0..64 {
            let stream = OfStream::default();
            while let Some(bytes) = room(&outgoing, &stream, false).filter(|_| held.len() < 1000) {
                held.push(outgoing.take(&stream, Bytes::from(vec![0; bytes])));
            }
        }
        let all: usize = held.iter().map(Bytes::len).sum();
        assert!(all <= 64 << 10, "{all}");
        let other = OfStream::default();
        assert_eq!(room(&outgoing, &other, true), Some(LEAST_BYTES));
        held.clear();
        assert_eq!((outgoing.bytes.load(Ordering::Relaxed), outgoing.written()), (0, all as u64));
        assert_eq!(room(&outgoing, &other, true), Some(MOST_BYTES));
    }

    #[test]
    fn what_is_kept_for_all_counts_and_lets_none_wait() {
        let (outgoing, stream) = (Arc::new(Outgoing::default()), OfStream::default());
        let all: Vec<Bytes> = (0..64).map(|_| outgoing.share(Bytes::from(vec![0; 32 << 10]))).collect();
        assert_eq!((outgoing.held(), room(&outgoing, &stream, true)), (64 * (32 << 10), Some(MOST_BYTES)));
        let slices: Vec<Bytes> = all.iter().map(|bytes| bytes.slice(..1)).collect();
        drop(all);
        assert!(outgoing.has_some());
        drop(slices);
        assert!(!outgoing.has_some());
    }

    #[test]
    fn a_slice_keeps_what_it_is_of() {
        let (outgoing, stream) = (Arc::new(Outgoing::default()), OfStream::default());
        let bytes = outgoing.take(&stream, Bytes::from_static(b"0123456789"));
        let rest = bytes.slice(5..);
        drop(bytes);
        assert_eq!(outgoing.written(), 0);
        drop(rest);
        assert_eq!(outgoing.written(), 10);
        assert!(stream.is_idle());
    }
}
