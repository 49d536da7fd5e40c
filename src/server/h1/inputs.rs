//! Buffers for what clients send, kept by each worker for the connection that speaks next.

use bytes::BytesMut;
use std::cell::RefCell;

/// Kept by a worker at most: more than requests of which a part has come.
const KEPT: usize = 64;
/// A buffer that has grown beyond this for a long head isn't kept.
const MOST_BYTES: usize = 2 * super::READ_BYTES;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A spare one, or a new one.
pub(super) fn take() -> BytesMut {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps one for another connection; what is in it is lost.
pub(super) fn put_back(mut input: BytesMut) {
    input.clear();
    if (1..=MOST_BYTES).contains(&input.capacity()) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT {
                spare.push(input);
            }
        });
    }
}
