//! Processes that a run starts, each on the cores that it is to have. They end with it, whatever happens: at the end, on an
//! error, on Ctrl-C.

use anyhow::{Context, bail, ensure};
use freshet::clock::monotonic;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The core of the load, and those of servers on one core and on two.
pub const LOAD: &[usize] = &[1];
pub const ONE: &[usize] = &[0];
pub const BOTH: &[usize] = &[0, 1];

/// For a server to start, or to end after it was told to.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);
/// For a port: the kernel has some 28,000, and names one of them at random.
const TRIES: u32 = 1000;

/// A running process and its descendants. Dropping it ends them.
pub struct Running {
    child: Child,
    name: &'static str,
    log: PathBuf,
}

impl Running {
    /// Starts it on these cores. What it says goes to a file in `dir`.
    pub fn start(
        name: &'static str,
        command: &mut Command,
        cores: &[usize],
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.out"));
        let output = File::options().create(true).append(true).open(&log)?;
        // A group of its own: a Ctrl-C at the terminal is for us alone, and all that it starts can be ended together.
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        pin(cores)?;
        let child = command.spawn().with_context(|| format!("starting {name}"));
        pin(LOAD)?;
        Ok(Self { child: child?, name, log })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something listens there.
    pub fn wait_listening(&mut self, addr: SocketAddr) -> anyhow::Result<()> {
        self.wait_until("listening", || Ok(TcpStream::connect_timeout(&addr, PATIENCE).is_ok()))
    }

    /// Waits until `ready`, or says why that won't be.
    pub fn wait_until(
        &mut self,
        what: &str,
        mut ready: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let begun = monotonic();
        while !ready()? {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}): {}", self.name, self.said());
            }
            ensure!(monotonic() < begun + PATIENCE, "{} is not {what} in time: {}", self.name, self.said());
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The end of what it said.
    pub fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        // It may have ended by itself.
        let _ = kill_process_group(group, Signal::TERM);
        let begun = monotonic();
        while matches!(self.child.try_wait(), Ok(None)) && monotonic() < begun + Duration::from_secs(5) {
            std::thread::sleep(LOOK);
        }
        // Whatever is left of the group.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Puts this thread, and what it starts, on these cores.
pub fn pin(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).with_context(|| format!("running on cores {cores:?}"))
}

/// An address on loopback that nothing listens on at present. Never the same twice.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..TRIES {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(address.port()) {
            return Ok(address);
        }
    }
    bail!("no port of 127.0.0.1 is free that wasn't used before")
}

/// Whether a command is installed; daemons live in sbin, which isn't in everybody's PATH.
pub fn is_installed(command: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(command).is_file())
}

/// The command by its name, with sbin in its PATH.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_started_ends_with_all_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mut shell = command("sh");
        shell.args(["-c", "sleep 600 & echo $!; wait"]);
        let mut running = Running::start("shell", &mut shell, &[0], dir.path()).unwrap();
        running.wait_until("talking", || Ok(dir.path().join("shell.out").metadata()?.len() > 0)).unwrap();
        let sleeper: u32 = running.said().trim().parse().unwrap();
        drop(running);
        let ended = || {
            let stat = std::fs::read_to_string(format!("/proc/{sleeper}/stat"));
            stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
        };
        let begun = monotonic();
        while !ended() {
            assert!(monotonic() < begun + PATIENCE, "its child still runs");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn no_address_is_given_twice() {
        let given: BTreeSet<SocketAddr> = (0..3000).map(|_| free_address().unwrap()).collect();
        assert_eq!(given.len(), 3000);
    }

    #[test]
    fn one_that_ends_by_itself_is_told_with_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut shell = command("sh");
        shell.args(["-c", "echo no such option >&2; exit 3"]);
        let mut running = Running::start("shell", &mut shell, &[0], dir.path()).unwrap();
        let error = running.wait_until("ready", || Ok(false)).unwrap_err().to_string();
        assert!(error.contains("no such option"), "{error}");
        assert!(is_installed("sh") && !is_installed("no-such-command"));
    }
}
