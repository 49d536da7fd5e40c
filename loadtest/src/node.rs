//! The node under test, and what it says of itself while it is.

use crate::cpu::{Memory, Used};
use crate::peers::child::{self, Running, command, free_address};
use crate::peers::node::{get, wait_proven};
use anyhow::Context;
use freshet::clock::monotonic;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Lines of a config in which no connection waits for a seat.
pub const MANY_SEATS: &str = "http.max_connections = 20000\nhttp.max_connections_per_network = 20000\n";

/// It ends when this is dropped.
pub struct Node {
    running: Running,
    plain: SocketAddr,
    admin: SocketAddr,
    config: PathBuf,
    text: String,
}

/// One look at it.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the start of the run.
    pub at: Duration,
    /// Bytes on the wire since its start.
    pub wire_bytes: f64,
    /// Bytes that loopback has carried, whoever's they are.
    pub loopback_bytes: f64,
    /// Bytes beyond the capacity since its start.
    pub yielded_bytes: f64,
    /// Resident, in bytes.
    pub memory: Memory,
}

impl Node {
    /// Starts one that has its files from `origin`, a line of its config, with more such lines, and waits until so many mirrors
    /// are proven.
    pub fn start(
        binary: &Path,
        origin: &str,
        dir: &Path,
        more: &str,
        mirrors: usize,
        stop: &AtomicBool,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let (plain, admin) = (free_address()?, free_address()?);
        let at = dir.display();
        let text = format!(
            r#"
node.name = "node"
node.self_url = "http://{plain}/"
node.state = "{at}/state"
node.workers = 1
http.listen = ["{plain}"]
http.idle_timeout = "5m"
admin.listen = "{admin}"
{origin}
mirrors.contact = "http://{plain}/"
log.access = "{at}/access.log"
{more}
"#
        );
        let config = dir.join("freshet.toml");
        fs::write(&config, &text)?;
        let mut serve = command(binary.to_str().context("a path in UTF-8")?);
        serve.args(["serve", "--config"]).arg(&config);
        let mut running = Running::start("freshet", &mut serve, child::ONE, dir)?;
        running.wait_listening(plain)?;
        running.wait_until("ready", || Ok(get(admin, "/readyz").is_ok_and(|(status, _)| status == 200)))?;
        wait_proven(admin, mirrors, stop)?;
        Ok(Self { running, plain, admin, config, text })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// What it says of itself.
    pub fn status(&self) -> anyhow::Result<serde_json::Value> {
        let (_, body) = get(self.admin, "/api/v1/status")?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// The line of its config for a tree in place.
    pub fn in_place(tree: &Path) -> String {
        format!("origin.path = \"{}\"", tree.display())
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.plain
    }

    /// Has it read its config again, with `new` in place of `old`.
    pub fn reload(&self, old: &str, new: &str) -> anyhow::Result<()> {
        anyhow::ensure!(self.text.contains(old), "no {old} in its config");
        fs::write(&self.config, self.text.replace(old, new))?;
        let pid = i32::try_from(self.running.pid()).ok().and_then(Pid::from_raw).context("its process")?;
        Ok(kill_process(pid, Signal::HUP)?)
    }

    /// CPU time that it has used.
    pub fn used(&self) -> anyhow::Result<Used> {
        Used::by(&[self.running.pid()])
    }

    /// Looks at it.
    pub fn sample(&self, at: Duration) -> anyhow::Result<Sample> {
        let (_, body) = get(self.admin, "/metrics")?;
        let text = String::from_utf8_lossy(&body).into_owned();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.trim().parse().ok()).with_context(|| format!("no {name}"))
        };
        Ok(Sample {
            at,
            wire_bytes: value("freshet_egress_wire_bytes_total")?,
            loopback_bytes: loopback_bytes()?,
            yielded_bytes: value("freshet_egress_yielded_bytes_total")?,
            memory: Memory::of(&[self.running.pid()])?,
        })
    }
}

/// Looks at the node once a second until `ended`.
pub fn watch(node: &Node, ended: &AtomicBool) -> anyhow::Result<Vec<Sample>> {
    let begun = monotonic();
    let mut samples = vec![node.sample(Duration::ZERO)?];
    let mut second = 1;
    while !ended.load(Ordering::Relaxed) {
        let due = begun + Duration::from_secs(second);
        let now = monotonic();
        if now < due {
            std::thread::sleep((due - now).min(Duration::from_millis(50)));
            continue;
        }
        samples.push(node.sample(begun.elapsed())?);
        second += 1;
    }
    Ok(samples)
}

/// Bits per second on the wire between one sample and the next, as the node counts them: when the kernel takes them.
pub fn rates(samples: &[Sample]) -> Vec<f64> {
    rates_of(samples, |sample| sample.wire_bytes)
}

/// The same as loopback counts them: when they are sent.
pub fn carried(samples: &[Sample]) -> Vec<f64> {
    rates_of(samples, |sample| sample.loopback_bytes)
}

fn rates_of(samples: &[Sample], bytes: impl Fn(&Sample) -> f64) -> Vec<f64> {
    let rate =
        |pair: &[Sample]| (bytes(&pair[1]) - bytes(&pair[0])) * 8.0 / (pair[1].at - pair[0].at).as_secs_f64();
    samples.windows(2).map(rate).collect()
}

/// What `lo` has sent.
fn loopback_bytes() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("no lo")?;
    Ok(line.split_whitespace().nth(8).context("no bytes of lo")?.parse()?)
}
