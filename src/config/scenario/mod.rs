//! A scenario: what `freshet plan` simulates, and what a load test plays over real sockets.
//!
//! TOML as the node's configuration is, and read like it: every mistake with its line, all of them at once. Each key has a
//! default, so that an empty file is a whole scenario.

mod reader;
#[cfg(test)]
mod tests;

use super::{Bandwidth, Delivery, OutsideWindow, Priority, Repo, Scope};
use crate::geo::Code;
use crate::http::path::TreePath;
use std::time::Duration;

/// A push, those who want it, and those who deliver it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// From its start to its end. 1s to 60d, default 48h.
    pub lasts: Duration,
    /// That want the push. 1 to a thousand million, default a million.
    pub hosts: u64,
    /// Of all draws. Default 1.
    pub seed: u64,
    /// `[push]`
    pub push: PlannedPush,
    /// `[rapid]`; None: there is no rapid repo.
    pub rapid: Option<PlannedRapid>,
    /// `[installs]`
    pub installs: Installs,
    /// `[clients]`
    pub clients: Clients,
    /// `[[checks]]`: their shares come to 1.
    pub kinds: Vec<HostKind>,
    /// `[[region]]`: their shares come to 1.
    pub regions: Vec<Region>,
    /// `[[mirrors]]`
    pub mirrors: Vec<MirrorGroup>,
    /// `[sync]`
    pub sync: Sync,
    /// `[policy]`
    pub policy: Policy,
}

/// What is pushed.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedPush {
    /// After the start. Default 0s.
    pub at: Duration,
    /// The time of day, UTC, after midnight. Default 14h.
    pub time: Duration,
    /// From the publication until the nodes offer it. Default 30s.
    pub flip: Duration,
    /// New packages, and of each the drpm that hosts may take instead.
    pub files: Vec<PlannedFile>,
    /// Of the metadata that a host fetches, without repomd.xml. Default 12 MB.
    pub metadata: u64,
}

/// An urgent update, that is in a rapid repo before it is in updates.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedRapid {
    /// Its packages, which are new in updates beside those of the push. Nobody takes drpms of them.
    pub files: Vec<PlannedFile>,
    /// Of the metadata of the rapid repo that a host fetches, without repomd.xml. Default 100 kB.
    pub metadata: u64,
    /// Hosts use these for so long without asking (`metadata_expire`). Default 15m.
    pub expire: Duration,
    /// From its publication in the rapid repo, which is when times of a plan begin, until updates are published. Default 0s.
    pub before_updates: Duration,
    /// Of the rapid repo, as `[[repo]]` has it. Default own.
    pub delivery: Delivery,
}

/// One package of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// In bytes.
    pub size: u64,
    /// Bytes of the drpm to it.
    pub drpm: Option<u64>,
}

/// What goes on besides: hosts that install something that was there before the push.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Installs {
    /// In all regions together. Default 0.
    pub per_hour: u64,
    /// Packages of each. Default 12.
    pub packages: u64,
    /// Bytes of these. Default 30 MB.
    pub bytes: u64,
}

/// What holds for all clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clients {
    /// To nodes and mirrors. Default 40ms.
    pub round_trip: Duration,
    /// Bytes of an IP packet: heads take their share of the capacity. Default 1500.
    pub mtu: u64,
}

/// Hosts that are alike in how they look for updates.
#[derive(Clone, Debug, PartialEq)]
pub struct HostKind {
    /// In reports.
    pub name: String,
    /// Of all hosts.
    pub share: f64,
    /// Between two looks. Default 24h.
    pub every: Duration,
    /// The local time of day of the first that look, if they all do at a certain one.
    pub from: Option<Duration>,
    /// So long after it do the last. Default: `every`.
    pub spread: Duration,
    /// Metadata are used for so long without asking. Default 0s: each look asks.
    pub expire: Duration,
    /// The mirrorlist is used for so long. yum: 24h; dnf asks with the metadata. Default 0s.
    pub list: Duration,
    /// yum 3, whom one bad mirror fails.
    pub yum: bool,
    /// Share of them that take drpms. Default 0.
    pub drpms: f64,
    /// Least and most share of the push that one of them has installed. Default 0.2 to 1.
    pub needs: (f64, f64),
}

/// Clients and nodes of one part of the world.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Unique.
    pub name: String,
    /// Of all hosts.
    pub share: f64,
    /// Where the hosts are, and so which mirrors are near.
    pub continent: Code,
    /// Of its nodes together, on the wire.
    pub capacity: Bandwidth,
    /// Of its hosts, as many of each, the slowest first. Default 50, 200 and 1000 Mbit/s.
    pub links: Vec<Bandwidth>,
    /// The time zones of its hosts lie between these two, in hours to UTC. Default 0 to 0.
    pub zones: (i64, i64),
}

/// Mirrors that are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct MirrorGroup {
    /// How many.
    pub count: usize,
    /// Where they are.
    pub continent: Code,
    /// That each donates. Default 1 Gbit/s.
    pub bandwidth: Bandwidth,
}

/// How mirrors get what is pushed.
#[derive(Clone, Debug, PartialEq)]
pub struct Sync {
    /// A mirror syncs each so often, at most and at least. Default 4h to 6h.
    pub every: (Duration, Duration),
    /// That it takes. Default 20m.
    pub takes: Duration,
    /// Share of mirrors that sync from another one. Default 0.6.
    pub second_hand: f64,
    /// Share of mirrors that never get it. Default 0.02.
    pub dead: f64,
    /// From being there until the nodes have proven it, at most. Default 90s.
    pub proven: Duration,
    /// Measured: how long after a push mirrors held it, in place of all draws above; as many mirrors are slower than an
    /// entry as entries are. Empty: drawn.
    pub measured: Vec<Duration>,
}

/// What the nodes do.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// As `[[repo]]` has it.
    pub delivery: Delivery,
    /// As `[[repo]]` has it.
    pub window: Duration,
    /// As `[[repo]]` has it.
    pub window_scope: Scope,
    /// As `[[repo]]` has it.
    pub window_max_push: u64,
    /// As `[[repo]]` has it.
    pub window_min_mirrors: usize,
    /// As `[listing]` has it.
    pub outside_window: OutsideWindow,
    /// As `[egress]` has it.
    pub shed_from: f64,
    /// As `[egress]` has it.
    pub shed_all: f64,
}

impl Scenario {
    /// When updates are published, after the start.
    #[must_use]
    pub fn published(&self) -> Duration {
        self.push.at + self.rapid.as_ref().map_or(Duration::ZERO, |rapid| rapid.before_updates)
    }

    /// The same without the rapid repo: one push to updates, that the nodes deliver for the window. None where there is no
    /// rapid repo.
    #[must_use]
    pub fn by_window(&self) -> Option<Self> {
        let mut scenario = self.clone();
        scenario.push.files.extend(scenario.rapid.take()?.files);
        scenario.policy.delivery = Delivery::Window;
        Some(scenario)
    }

    /// The repo that is pushed to, as a node has it.
    #[must_use]
    pub fn updates(&self) -> Repo {
        self.policy.repo("updates")
    }

    /// All repos: updates first, then the rapid repo, if there is one.
    #[must_use]
    pub fn repos(&self) -> Vec<Repo> {
        let rapid = self.rapid.as_ref().map(|rapid| Repo {
            delivery: rapid.delivery,
            twin: Some(0),
            ..self.policy.repo("rapid")
        });
        std::iter::once(self.updates()).chain(rapid).collect()
    }
}

impl Policy {
    /// As the settings of a repo with that name.
    fn repo(&self, name: &str) -> Repo {
        Repo {
            name: name.to_owned(),
            release: "9".to_owned(),
            arch: "x86_64".to_owned(),
            id: format!("{name}/9/x86_64"),
            path: TreePath::new(&format!("9/{name}/x86_64")).expect("it is one"),
            delivery: self.delivery,
            window: self.window,
            window_scope: self.window_scope,
            window_max_push: self.window_max_push,
            window_min_mirrors: self.window_min_mirrors,
            twin: None,
            priority: Priority::Normal,
            checksums: None,
        }
    }
}
