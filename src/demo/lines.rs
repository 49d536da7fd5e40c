//! What the demo prints: plain lines, each with the seconds since its start.

use crate::clock;
use bytesize::ByteSize;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Prints to standard output. Nobody need be reading: a closed pipe is no error.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    started: Instant,
}

impl Lines {
    /// Counts the seconds from here on.
    #[must_use]
    pub fn start() -> Self {
        Self { started: clock::monotonic() }
    }

    /// A line with the time and what it is about.
    pub fn say(&self, what: &str, text: impl Display) {
        let elapsed = clock::monotonic().saturating_duration_since(self.started);
        self.plain(format_args!("{:>5} s  {what:<15}{text}", seconds(elapsed)));
    }

    /// A line as it is.
    pub fn plain(&self, text: impl Display) {
        let _ = writeln!(io::stdout().lock(), "{text}");
    }
}

/// Seconds with one decimal.
#[must_use]
pub fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

/// A size as people write it.
#[must_use]
pub fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().si().to_string()
}

/// A part of a whole in percent, rounded down; of nothing it is 0.
#[must_use]
pub fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(0)
}
