//! What a store is told of its bounds and times.

use std::path::PathBuf;
use std::time::Duration;

/// Bounds and times.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The disk tier's directory (`objects/` and `tmp/` in it). Not used over a directory origin.
    pub disk: PathBuf,
    /// Its bound in bytes, counted in blocks of 4 KiB.
    pub disk_bytes: u64,
    /// The memory tier's bound in bytes.
    pub memory_bytes: u64,
    /// The largest body kept in memory.
    pub memory_object_bytes: u64,
    /// Open files kept at hand.
    pub open_files: u64,
    /// An open file that wasn't used for so long is closed.
    pub open_file_idle: Duration,
    /// Lifetime of what no catalogue lists and the origin says nothing about.
    pub revalidate: Duration,
    /// What is stale is used for so long while it is revalidated, where the origin doesn't say.
    pub stale_while_revalidate: Duration,
    /// What is stale is used for so long while the origin fails, where it doesn't say.
    pub stale_if_error: Duration,
    /// How long an absent object is not asked for again.
    pub absent_for: Duration,
    /// How long after a failure the origin is not asked again for that object.
    pub failed_for: Duration,
    /// Fills at once; more wait. As many revalidations have places of their own.
    pub max_fills: usize,
    /// How long they wait.
    pub fill_patience: Duration,
    /// A fill goes on while its origin fails, for so long after it last got on.
    pub resume_for: Duration,
    /// Objects of at least so many bytes are fetched in parts where only parts are asked for.
    pub part_from: u64,
    /// A fill that nobody follows goes on for so long where it is far from its end; near it, to the end.
    pub linger: Duration,
    /// Far from its end is a fill with more than so many bytes, and more than half, to go.
    pub abandon_bytes: u64,
    /// Bodies passed through at once; more wait.
    pub max_passes: usize,
    /// How long they wait.
    pub pass_patience: Duration,
}

impl Settings {
    /// The defaults: 256 MiB of memory for bodies up to 64 KiB, 4096 open files.
    #[must_use]
    pub fn new(disk: PathBuf, disk_bytes: u64) -> Self {
        Self {
            disk,
            disk_bytes,
            memory_bytes: 256 * 1024 * 1024,
            memory_object_bytes: 64 * 1024,
            open_files: 4096,
            open_file_idle: Duration::from_secs(300),
            revalidate: Duration::from_secs(60),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::from_secs(7 * 24 * 3600),
            absent_for: Duration::from_secs(5),
            failed_for: Duration::from_secs(1),
            max_fills: 256,
            fill_patience: Duration::from_secs(10),
            resume_for: Duration::from_secs(15),
            part_from: 16 * 1024 * 1024,
            linger: Duration::from_secs(5),
            abandon_bytes: 64 * 1024 * 1024,
            max_passes: 256,
            pass_patience: Duration::from_secs(30),
        }
    }
}
