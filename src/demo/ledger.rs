//! What the clients got, and what was wrong with it.

use super::lines::Lines;
use crate::clock::Timestamp;
use crate::repo::Sha256;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Faults that are printed; the others are only counted.
const PRINTED: u64 = 10;

/// One file that a host got.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// SHA-256 of the repomd.xml that told the host of it.
    pub generation: Sha256,
    /// When the node was asked.
    pub asked: Timestamp,
    /// When the node had answered, with the file or a redirect.
    pub answered: Timestamp,
    /// The number of the mirror that served it; `None`: the node.
    pub mirror: Option<usize>,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Sums over all downloads.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Files, all right.
    pub files: u64,
    /// Their bytes that the node served.
    pub node_bytes: u64,
    /// Their bytes that mirrors served.
    pub mirror_bytes: u64,
    /// Downloads that were wrong.
    pub wrong: u64,
}

/// What the clients got.
pub struct Ledger {
    lines: Lines,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// Since it was last taken.
    fetched: Vec<Fetched>,
    totals: Totals,
}

impl Ledger {
    /// An empty one. What is wrong is printed when it happens.
    #[must_use]
    pub fn new(lines: Lines) -> Self {
        Self { lines, book: Mutex::default() }
    }

    /// All that was fetched since it was last taken.
    #[must_use]
    pub fn take(&self) -> Vec<Fetched> {
        std::mem::take(&mut self.book().fetched)
    }

    /// The sums.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.book().totals.clone()
    }

    /// Takes a file that is all right.
    pub fn right(&self, fetched: Fetched) {
        let mut book = self.book();
        let totals = &mut book.totals;
        totals.files += 1;
        match fetched.mirror {
            Some(_) => totals.mirror_bytes += fetched.bytes,
            None => totals.node_bytes += fetched.bytes,
        }
        book.fetched.push(fetched);
    }

    /// Takes a fault.
    pub fn wrong(&self, fault: &str) {
        let mut book = self.book();
        book.totals.wrong += 1;
        let nth = book.totals.wrong;
        drop(book);
        if nth <= PRINTED {
            self.lines.say("WRONG", fault);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
