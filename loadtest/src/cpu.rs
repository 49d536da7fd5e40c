//! What the load costs the server: CPU time and memory of all its processes and threads, from /proc.

use anyhow::Context;
use std::collections::HashMap;
use std::fs;

/// CPU time that some processes have used up to a moment.
#[derive(Debug)]
pub struct Used(Vec<Process>);

#[derive(Debug)]
struct Process {
    /// All threads, those that have ended included; in ticks of 10 ms.
    seconds: f64,
    /// The living threads, in nanoseconds.
    threads: HashMap<u32, u64>,
}

impl Used {
    /// Looks at these processes.
    pub fn by(pids: &[u32]) -> anyhow::Result<Self> {
        pids.iter().map(|pid| Process::look(*pid)).collect::<anyhow::Result<_>>().map(Self)
    }

    /// CPU seconds that these processes have used since they started.
    pub fn ever(pids: &[u32]) -> anyhow::Result<f64> {
        Ok(Self::by(pids)?.0.iter().map(|process| process.seconds).sum())
    }

    /// CPU seconds since an earlier look at the same processes.
    pub fn since(&self, before: &Self) -> f64 {
        self.0.iter().zip(&before.0).map(|(now, before)| now.since(before)).sum()
    }
}

impl Process {
    fn look(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
        let ticks = ticks(&stat).with_context(|| path)?;
        let mut threads = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            // A thread may end while it is looked for.
            let found = fs::read_to_string(entry.path().join("schedstat")).ok();
            let nanos: Option<u64> = found.and_then(|text| text.split_whitespace().next()?.parse().ok());
            let tid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            threads.extend(tid.zip(nanos));
        }
        #[expect(clippy::cast_precision_loss, reason = "a report")]
        let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok(Self { seconds, threads })
    }

    /// By the threads' nanoseconds, unless one of them has ended and taken its share along.
    fn since(&self, before: &Self) -> f64 {
        if before.threads.is_empty() || before.threads.keys().any(|tid| !self.threads.contains_key(tid)) {
            return self.seconds - before.seconds;
        }
        let nanos = self.threads.iter().map(|(tid, nanos)| nanos - before.threads.get(tid).unwrap_or(&0));
        #[expect(clippy::cast_precision_loss, reason = "a report")]
        nanos.map(|nanos| nanos as f64 / 1e9).sum()
    }
}

/// User and system time of a process (proc_pid_stat(5), fields 14 and 15).
fn ticks(stat: &str) -> anyhow::Result<u64> {
    fields(stat)?.skip(11).take(2).map(|field| field.parse::<u64>().context("no number")).sum()
}

/// The fields after the name of the command, which may contain spaces and ends with the last parenthesis: from field 3 on.
fn fields(stat: &str) -> anyhow::Result<impl Iterator<Item = &str>> {
    Ok(stat.rsplit_once(')').context("no command name")?.1.split_whitespace())
}

/// A process with all that descend from it.
pub fn family(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(one) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end while it is looked at.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(parent) = fields(&stat)?.nth(1).and_then(|field| field.parse().ok()) {
            parents.insert(one, parent);
        }
    }
    Ok(descend(pid, &parents))
}

fn descend(pid: u32, parents: &HashMap<u32, u32>) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        let mut children: Vec<u32> =
            parents.iter().filter(|(_, of)| **of == parent).map(|(child, _)| *child).collect();
        children.sort_unstable();
        family.extend(children);
    }
    family
}

/// Memory of processes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident, shared pages counted for each process.
    pub rss: u64,
    /// Resident, shared pages counted once.
    pub pss: u64,
}

impl Memory {
    /// Looks at these processes (`/proc/PID/smaps_rollup`).
    pub fn of(pids: &[u32]) -> anyhow::Result<Self> {
        let mut total = Self::default();
        for pid in pids {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(&path).with_context(|| path)?;
            total.rss += kilobytes(&text, "Rss:")? * 1024;
            total.pss += kilobytes(&text, "Pss:")? * 1024;
        }
        Ok(total)
    }

    /// The most that these processes have had resident, in bytes, since their starts or the last
    /// [`forget_peak`](Self::forget_peak).
    pub fn peak(pids: &[u32]) -> anyhow::Result<u64> {
        let peak = |pid| {
            let path = format!("/proc/{pid}/status");
            let text = fs::read_to_string(&path).with_context(|| path)?;
            Ok(kilobytes(&text, "VmHWM:")? * 1024)
        };
        pids.iter().map(peak).sum()
    }

    /// Has the peak of a process count from now on (proc(5), clear_refs). Where that isn't allowed it counts from its start.
    pub fn forget_peak(pid: u32) {
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

fn kilobytes(smaps: &str, name: &str) -> anyhow::Result<u64> {
    let line = smaps.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).with_context(|| format!("no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use freshet::clock::monotonic;
    use std::time::Duration;

    #[test]
    fn a_busy_process_is_seen_to_be_busy() {
        let pids = [std::process::id()];
        let before = Used::by(&pids).unwrap();
        let until = monotonic() + Duration::from_millis(300);
        while monotonic() < until {}
        let used = Used::by(&pids).unwrap().since(&before);
        assert!((0.05..5.0).contains(&used), "{used}");
    }

    #[test]
    fn the_name_of_a_command_may_be_anything() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 10 0 0 0 25 17 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat).unwrap(), 42);
        assert!(ticks("7 nothing").is_err());
    }

    #[test]
    fn families_are_whole() {
        let parents = [(2, 1), (3, 2), (4, 2), (5, 9), (6, 4)].into_iter().collect();
        assert_eq!(descend(2, &parents), [2, 3, 4, 6]);
        assert_eq!(descend(5, &parents), [5]);
        assert!(family(std::process::id()).unwrap().contains(&std::process::id()));
    }

    #[test]
    fn memory_is_read() {
        let text = "5581-7ffd ---p 0 00:00 0 [rollup]\nRss:    2100 kB\nPss:   1000 kB\n";
        assert_eq!((kilobytes(text, "Rss:").unwrap(), kilobytes(text, "Pss:").unwrap()), (2100, 1000));
        let own = Memory::of(&[std::process::id()]).unwrap();
        assert!(own.rss >= own.pss && own.pss > 0);
        assert!(Memory::peak(&[std::process::id()]).unwrap() > 0);
    }
}
