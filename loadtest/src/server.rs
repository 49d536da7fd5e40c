//! What the load costs the server.

use anyhow::Context;
use std::fs;

/// CPU seconds that a process has used in all its threads, user and system (proc_pid_stat(5), fields 14 and 15).
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name of the command may contain spaces; it ends with the last parenthesis.
    let fields = stat.rsplit_once(')').context("no command name")?.1;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().with_context(|| format!("{path}: {field:?}")))
        .sum::<anyhow::Result<u64>>()?;
    #[expect(clippy::cast_precision_loss, reason = "a report")]
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
