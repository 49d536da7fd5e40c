//! What the store counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the store counts; gauges first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Objects in the disk tier.
    pub objects: u64,
    /// Bytes in the disk tier.
    pub disk_bytes: u64,
    /// Bytes of the disk tier's bound that fills hold, beyond what is stored.
    pub reserved_bytes: u64,
    /// Purges whose sweep isn't through.
    pub bans: u64,
    /// Bytes in the memory tier.
    pub memory_bytes: u64,
    /// Open files at hand.
    pub open_files: u64,
    /// Lookups, revalidations and fills under way.
    pub flights: u64,
    /// Whether the disk is in trouble: from the first failure (`io_errors`) until an entry is committed a minute after the
    /// last one. New objects may pass through uncached.
    pub disk_trouble: bool,
    /// Fresh answers from memory.
    pub hits_memory: u64,
    /// Fresh answers from disk.
    pub hits_disk: u64,
    /// Fresh answers from the tree.
    pub hits_tree: u64,
    /// Answers from a fill.
    pub hits_fill: u64,
    /// Fills begun.
    pub fills_started: u64,
    /// Fills committed.
    pub fills_finished: u64,
    /// Fills that failed, or that the disk refused.
    pub fills_failed: u64,
    /// Fills given up far from their end, since nobody read them any more.
    pub fills_abandoned: u64,
    /// Fills in memory, since the disk tier had no room or took nothing.
    pub fills_unstored: u64,
    /// Bodies that broke off and were gone on with where they stopped.
    pub resumed: u64,
    /// Requests for parts that a fill made beside or instead of one for the whole.
    pub parts_fetched: u64,
    /// Fills that left parts to be gone on with.
    pub parts_kept: u64,
    /// Stale objects that the origin found current.
    pub revalidated: u64,
    /// Stale objects served since the origin gave no usable answer.
    pub served_stale: u64,
    /// Bodies passed through.
    pub passed: u64,
    /// Bodies not stored for want of room.
    pub no_room: u64,
    /// Objects evicted.
    pub evicted: u64,
    /// Entries whose bytes were verified, since the machine had gone down after they were stored.
    pub verified: u64,
    /// Entries removed since they didn't verify.
    pub damaged: u64,
    /// Objects removed from disk by purges.
    pub purged: u64,
    /// Failed disk operations.
    pub io_errors: u64,
}

/// The running totals of [`StoreStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits_memory: AtomicU64,
    pub(super) hits_disk: AtomicU64,
    pub(super) hits_tree: AtomicU64,
    pub(super) hits_fill: AtomicU64,
    pub(super) fills_started: AtomicU64,
    pub(super) fills_finished: AtomicU64,
    pub(super) fills_failed: AtomicU64,
    pub(super) fills_abandoned: AtomicU64,
    pub(super) fills_unstored: AtomicU64,
    pub(super) resumed: AtomicU64,
    pub(super) parts_fetched: AtomicU64,
    pub(super) parts_kept: AtomicU64,
    pub(super) revalidated: AtomicU64,
    pub(super) served_stale: AtomicU64,
    pub(super) passed: AtomicU64,
    pub(super) no_room: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) verified: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) purged: AtomicU64,
    pub(super) io_errors: AtomicU64,
}

impl Counters {
    /// The totals; the gauges are for the store to fill in.
    pub(super) fn totals(&self) -> StoreStats {
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            hits_memory: total(&self.hits_memory),
            hits_disk: total(&self.hits_disk),
            hits_tree: total(&self.hits_tree),
            hits_fill: total(&self.hits_fill),
            fills_started: total(&self.fills_started),
            fills_finished: total(&self.fills_finished),
            fills_failed: total(&self.fills_failed),
            fills_abandoned: total(&self.fills_abandoned),
            fills_unstored: total(&self.fills_unstored),
            resumed: total(&self.resumed),
            parts_fetched: total(&self.parts_fetched),
            parts_kept: total(&self.parts_kept),
            revalidated: total(&self.revalidated),
            served_stale: total(&self.served_stale),
            passed: total(&self.passed),
            no_room: total(&self.no_room),
            evicted: total(&self.evicted),
            verified: total(&self.verified),
            damaged: total(&self.damaged),
            purged: total(&self.purged),
            io_errors: total(&self.io_errors),
            ..StoreStats::default()
        }
    }
}
