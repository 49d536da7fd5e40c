//! The configuration: TOML as written, resolved to types with units, bounds and defaults.
//!
//! [`Config::load`] finds all mistakes at once, each with file and line; a `Config` that exists is sound: every path is
//! resolved against the folder of the file that names it, every twin exists, no two repos overlap, and every bound holds.
//! Immutable; whoever needs a part of it keeps a clone or an `Arc`. It reads the files that are named (configuration,
//! includes, token), looks whether others exist (certificate, key, CA), and does no other IO.

mod alias;
mod content;
mod kinds;
mod listen;
mod load;
mod location;
mod mirrors;
mod node;
mod read;
mod reload;
mod repos;
pub mod scenario;
mod units;

#[cfg(test)]
mod tests;

pub use alias::{canonical, moved, unlisted};
pub use location::Root;
pub use read::{Mistake, Warning};
pub use reload::Changes;
pub use scenario::Scenario;
pub use units::{Bandwidth, NotABandwidth};

use crate::geo::{Code, Network, Point};
use crate::http::path::TreePath;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The configuration of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[node]`
    pub node: Node,
    /// `[http]`
    pub http: Http,
    /// `[https]`; None if the file has no such table.
    pub https: Option<Https>,
    /// `[admin]`
    pub admin: Admin,
    /// `[origin]`
    pub origin: Origin,
    /// `[cache]`
    pub cache: Cache,
    /// `[egress]`
    pub egress: Egress,
    /// `[tree]`
    pub tree: Tree,
    /// `[[repo]]`: one for each release and arch, in the order of the file. Ids are unique, paths don't overlap.
    pub repos: Vec<Repo>,
    /// `[[alias]]`: the longest `from` first, as [`canonical`] needs them.
    pub aliases: Vec<Alias>,
    /// `[[moved]]`: the longest `from` first, as [`moved`] needs them.
    pub moved: Vec<Moved>,
    /// `[listing]`
    pub listing: Listing,
    /// `[push]`
    pub push: Push,
    /// `[mirrors]`
    pub probes: Probes,
    /// `[[mirror]]`, of this file and of included ones. Names and URLs are unique.
    pub mirrors: Vec<Mirror>,
    /// `[[unlisted]]`: the longest path first.
    pub unlisted: Vec<Unlisted>,
    /// `[[network]]`, likewise: what is known of clients' networks.
    pub networks: Vec<Network>,
    /// `mirrors.geoip`: databases, asked in this order.
    pub geoip: Vec<PathBuf>,
    /// `[log]`
    pub log: Log,
    /// The files that were read for it or looked at, and that a reload looks at again: its own, what it includes (patterns with
    /// a '*' as they are written), certificate, key, CA and token.
    pub sources: Vec<PathBuf>,
}

/// Who this node is, and what it keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// In `Via`, `Cache-Status` and metrics. Default: "freshet".
    pub name: String,
    /// A label for metrics and listings.
    pub region: Option<String>,
    /// How siblings and their clients reach this very node; ends in '/'.
    pub self_url: Option<String>,
    /// How clients reach the fleet: what a mirrorlist names as its own. Each ends in '/'. Default: `self_url`.
    pub urls: Vec<String>,
    /// Generations, proofs and windows. Default: `state` in the disk cache. None only where there is neither a disk
    /// cache nor a repo.
    pub state: Option<PathBuf>,
    /// Threads that serve, 1 to 1024. Default: one for each core.
    pub workers: usize,
    /// Once it has started, the process gives up whatever it needs no more. Default: true.
    pub confine: bool,
}

/// The data listener, and the limits that hold for https as well.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Default: port 80 of all addresses; nothing if only `[https]` is given.
    pub listen: Vec<SocketAddr>,
    /// For a request's head to be complete. 100ms to 10m, default 15s.
    pub head_timeout: Duration,
    /// For the next request on a connection to begin. 100ms to 1h, default 75s.
    pub idle_timeout: Duration,
    /// Without any progress in writing. 100ms to 1h, default 60s.
    pub write_timeout: Duration,
    /// For running responses at the end; then they are cut. 0s to 1h, default 30s.
    pub drain_timeout: Duration,
    /// On all data listeners together. 1 to 1,000,000, default 20,000.
    pub max_connections: usize,
    /// Of one network (/24, /48), unless it is one of `trusted_proxies`. 1 to 1,000,000, default 2000.
    pub max_connections_per_network: usize,
    /// What connections may hold of memory together, in bytes. 16 MiB to 1 TiB, default 1 GiB.
    pub memory: u64,
    /// Of load balancers and proxies that say truly whom they speak for. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Their connections begin with a PROXY header (version 1 or 2). Default: false.
    pub proxy_protocol: bool,
}

impl Http {
    /// Whether `addr` is one of those that say truly whom they speak for.
    #[must_use]
    pub fn trusts(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&addr))
    }
}

/// The data listener over TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct Https {
    /// Default: port 443 of all addresses.
    pub listen: Vec<SocketAddr>,
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// Handshakes of one client network (/24, /48) in a second, for each thread that serves; of 8 s at once. 1 to 1,000,000,
    /// default 500.
    pub handshakes_per_network: usize,
}

/// The admin listener.
#[derive(Clone, PartialEq)]
pub struct Admin {
    /// Default: 127.0.0.1:9180.
    pub listen: SocketAddr,
    /// The bearer token, out of `token_file`. Some unless `listen` is loopback.
    pub token: Option<String>,
    /// Names under which browsers reach the listener, besides loopback's and the address it listens on. Default: none.
    pub hosts: Vec<String>,
}

impl fmt::Debug for Admin {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "...");
        let mut debug = f.debug_struct("Admin");
        debug.field("listen", &self.listen).field("token", &token).field("hosts", &self.hosts).finish()
    }
}

/// Where the tree is mastered.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// An HTTP(S) server.
    Http {
        /// Ends in '/'.
        url: String,
        /// PEM: trusted instead of the system's CAs.
        ca: Option<PathBuf>,
        /// 10ms to 5m, default 5s.
        connect_timeout: Duration,
        /// From the request, on a connection, to the first byte of the answer. 10ms to 10m, default 8s: clients give up after
        /// 30 s without a byte, and a second request must have had its time by then.
        first_byte_timeout: Duration,
        /// Between two pieces of a body. 10ms to 10m, default 30s.
        stall_timeout: Duration,
        /// How long a client's request for what isn't cached is tried again while the origin fails. A quick error would
        /// cost librepo, which comes back at once, all its retries within a moment.
        patience: Duration,
    },
    /// A local directory.
    Directory {
        /// The tree's root.
        path: PathBuf,
        /// Where what a push removes is kept: by reflinks or hard links where it is on the tree's file system and the kernel
        /// takes them, else by copies. Default: `retained` in `node.state`; None only where there is no state.
        retain: Option<PathBuf>,
        /// Bytes of such copies at most. 0 B to 1 PiB, default 10 GiB.
        retain_size: u64,
    },
}

/// What the node keeps of the origin's content.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// Bytes of bodies in memory. 64 KiB to 1 TiB, default 256 MiB.
    pub memory: u64,
    /// The largest object that memory takes, in bytes. 1 KiB to 16 MiB and at most `memory`, default 32 KiB.
    pub memory_object: u64,
    /// How long an object is fresh that no repo lists and about which the origin says nothing. 0s to 7d, default 60s.
    pub revalidate: Duration,
    /// How long such an object may be used stale while it is revalidated, where the origin doesn't say. 0s to 7d, default 0s.
    pub stale_while_revalidate: Duration,
    /// How long it may be used stale while the origin fails, where that doesn't say. 0s to 90d, default 7d.
    pub stale_if_error: Duration,
    /// Whether the query is a part of the name of what no repo lists. Default: it is.
    pub query: QueryKey,
    /// How long what the origin doesn't have is taken as absent. 0s to 1h, default 5s.
    pub absent: Duration,
    /// Objects of at least so many bytes are fetched in parts where only parts are asked for. 1 MiB to 1 PiB, default 16 MiB.
    pub parts_from: u64,
    /// How long a fill goes on that nobody reads and that is far from its end. 0s to 1h, default 5s.
    pub linger: Duration,
    /// A fill with at most so many bytes to go, or at most half of all, is near its end. 0 B to 1 PiB, default 64 MiB.
    pub finish_within: u64,
    /// Some for every HTTP origin.
    pub disk: Option<DiskCache>,
}

/// What the query of a request is to the cache, where no repo lists the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKey {
    /// Nothing: the origin is asked without it.
    Ignore,
    /// A part of the object's name, which the origin is asked for.
    Key,
}

/// The disk tier.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskCache {
    /// `cache.disk`
    pub path: PathBuf,
    /// `cache.disk_size`: bytes of bodies. 64 KiB to 1 PiB, default 10 GiB.
    pub size: u64,
}

/// What the node may send, and when it sheds.
#[derive(Clone, Debug, PartialEq)]
pub struct Egress {
    /// On the wire. None: it never sheds for load.
    pub capacity: Option<Bandwidth>,
    /// Whose counters tell the egress, instead of what freshet itself sends.
    pub interface: Option<String>,
    /// The pressure from which a share is redirected. 0 to `shed_all`, default 0.80.
    pub shed_from: f64,
    /// The pressure from which everything redirectable is. At most 1, default 0.95.
    pub shed_all: f64,
}

/// What of the tree is for clients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// Names that begin with a dot and are served all the same, besides those that [`hidden`](crate::http::hidden) knows.
    /// Default: none.
    pub shown: Vec<String>,
}

/// One yum repository.
#[derive(Clone, Debug, PartialEq)]
pub struct Repo {
    /// As in the mirrorlist's `repo=`: `updates`.
    pub name: String,
    /// Empty if the table has no `releases`.
    pub release: String,
    /// Empty if the table has no `arches`.
    pub arch: String,
    /// `name/release/arch`, without what is empty. Unique.
    pub id: String,
    /// The directory that has `repodata/` in it, or a list of checksums: canonical (aliases applied), no '/' at its end.
    pub path: TreePath,
    /// Who delivers it.
    pub delivery: Delivery,
    /// For how long after a push the nodes deliver. 1ms to 90d, default 24h.
    pub window: Duration,
    /// What the window holds on the nodes. Default: `Scope::Repo`.
    pub window_scope: Scope,
    /// A push of more bytes opens no window of scope repo. Default 2 GiB.
    pub window_max_push: u64,
    /// Fewer fresh mirrors at the deadline keep the window open. 0 to 10,000, default 1.
    pub window_min_mirrors: usize,
    /// Index, in [`Config::repos`], of the repo that gets the same packages later.
    pub twin: Option<usize>,
    /// What goes first while the capacity is used up. Default: `Priority::Normal`.
    pub priority: Priority,
    /// The name of the list of checksums by which the files of this directory are known, instead of repodata.
    pub checksums: Option<String>,
}

/// Who delivers a repo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The nodes while a window is open, then the mirrors.
    Window,
    /// Always the nodes.
    Own,
    /// The mirrors, as far as they are fresh.
    Offload,
}

/// What of a repo's packages goes first while the capacity is used up; its metadata go before all packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Before the others.
    High,
    /// As most.
    Normal,
    /// After the others.
    Low,
}

/// What a window holds on the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole repo.
    Repo,
    /// Metadata, and the files that are new in the push.
    Push,
}

/// Two names of one directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Alias {
    /// The name that is replaced: `7`.
    pub from: TreePath,
    /// The canonical one: `7.9.2009`.
    pub to: TreePath,
}

/// A directory that is elsewhere now: clients get a 301.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// Canonical (aliases applied).
    pub from: TreePath,
    /// Absolute; ends in '/'.
    pub to: String,
}

/// Mirrorlist and metalink.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// What comes first when no window is open. Default: mirrors.
    pub outside_window: OutsideWindow,
    /// At most so many mirrors in a list. 1 to 1000, default 20.
    pub max_mirrors: usize,
}

/// What comes first in a mirrorlist when no window is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutsideWindow {
    /// Mirrors that are proven to hold the current generation, then the nodes.
    MirrorsFirst,
    /// The nodes, who redirect.
    OwnFirst,
}

/// How pushes are noticed and prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// Between two looks at the origin's repomd.xml. 10ms to 1d, default 15s.
    pub poll: Duration,
    /// For how long repomd.xml is served while the origin is silent; at least a few polls. 0s to 90d, default 7d.
    pub stale: Duration,
    /// For how long a superseded generation stays served. 0s to 90d, default 48h (dnf's expiry).
    pub keep: Duration,
    /// At most so many bytes are read and checked before the flip. Default: half of the disk cache; 10 GiB without one.
    pub warm: u64,
    /// The flip waits for them no longer than this; the rest is fetched behind it. 0s to 1d, default 30s.
    pub warm_for: Duration,
    /// Fetches at a time. 1 to 256, default 4.
    pub warm_parallel: usize,
    /// After so long without the origin the node counts as ready all the same. 0s to 1d, default 60s.
    pub give_up: Duration,
}

/// How mirrors are probed.
#[derive(Clone, Debug, PartialEq)]
pub struct Probes {
    /// In calm, each pair of mirror and repo. 10ms to 7d, default 10m.
    pub probe_every: Duration,
    /// While a mirror lags behind a push. Default 60s; never longer than `probe_every`.
    pub probe_lagging: Duration,
    /// Where redirects go. Default 20s; never longer than `probe_every`.
    pub liveness_every: Duration,
    /// Of one probe. 10ms to 5m, default 10s.
    pub timeout: Duration,
    /// Probes at a time. 1 to 4096, default 64.
    pub parallel: usize,
    /// At most so many files are asked for to promote a mirror. 1 to 1,000,000, default 5000.
    pub sample: usize,
    /// So much of the bandwidth that it donates each mirror may be sent ahead. 1s to 1h, default 10s.
    pub ahead: Duration,
    /// In the probes' User-Agent: a web page or mail address. Default: the first of `node.urls`; else empty.
    pub contact: String,
}

/// A directory whose files mirrors may take though no list names them, by their size and modification time.
#[derive(Clone, Debug, PartialEq)]
pub struct Unlisted {
    /// Canonical (aliases applied).
    pub path: TreePath,
    /// For how long it counts that a mirror was seen to have the file. 1s to 1d, default 10m.
    pub age: Duration,
}

/// An external host with a copy of the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Unique.
    pub name: String,
    /// Of the tree's root there: http or https, ends in '/'. Unique.
    pub url: String,
    /// Where it stands.
    pub country: Option<Code>,
    /// Default: the country's.
    pub continent: Option<Code>,
    /// `location`
    pub point: Option<Point>,
    /// What it donates. Default: 1 Gbit/s.
    pub bandwidth: Bandwidth,
    /// Clients that it is nearest to.
    pub networks: Vec<IpNet>,
    /// The same, by the number of the autonomous system that they are in.
    pub asns: Vec<u32>,
    /// Only for clients in `networks` or `asns`.
    pub private: bool,
}

impl Mirror {
    /// One of which nothing else is said.
    #[must_use]
    pub fn new(name: &str, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            url: url.to_owned(),
            country: None,
            continent: None,
            point: None,
            bandwidth: mirrors::DONATED,
            networks: Vec::new(),
            asns: Vec::new(),
            private: false,
        }
    }
}

/// What is logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Default: standard output.
    pub access: AccessLog,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// Nowhere.
    Off,
    /// Appended to a file.
    File(PathBuf),
}
