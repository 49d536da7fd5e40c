//! What every request needs, put together once.

use super::access_log::AccessLog;
use super::cache_status::CacheStatus;
use super::clients::Clients;
use super::egress::Egress;
use super::listings::Listings;
use super::memory::Memory;
use super::seats::Seats;
use super::taken::Taken;
use crate::config::{Bandwidth, Config, Mirror};
use crate::geo::Geo;
use crate::listing::OwnEntries;
use crate::metrics::Metrics;
use crate::policy::Lines;
use crate::policy::load::MirrorLoad;
use crate::policy::{BounceReport, Doubts, Orders, Published, Sightings, sightings};
use crate::store::Store;
use http::HeaderValue;
use prometheus::IntCounter;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Own entries that each list has at least: a client's failure budget is counted for each distinct string.
const OWN_ENTRIES: usize = 4;

/// The node as its data plane sees it. Shared by all workers; nothing in it is locked across a wait.
pub struct Edge {
    /// The settings.
    pub config: Arc<Config>,
    /// Repos and mirrors.
    pub published: Arc<Published>,
    /// The content.
    pub store: Arc<Store>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Where requests are written down.
    pub log: AccessLog,
    /// The budget, and the measured egress.
    pub egress: Arc<Egress>,
    /// Redirects in the air, by client.
    pub clients: Clients,
    /// Which generations clients took last.
    pub taken: Taken,
    /// What mirrors are sent.
    pub load: MirrorLoad,
    /// What clients can be expected to fetch of it.
    pub lines: Lines,
    /// In which order they are asked.
    pub orders: Orders,
    /// Where clients are.
    pub geo: Geo,
    /// Who may be connected.
    pub seats: Seats,
    /// What connections hold of memory.
    pub memory: Arc<Memory>,
    /// The counters of redirects to each mirror, and of their bytes.
    pub redirected: Vec<(IntCounter, IntCounter)>,
    /// Directory listings made just now.
    pub listings: Listings,
    /// Tells the prober of mirrors that failed a client.
    pub bounces: mpsc::Sender<BounceReport>,
    /// What mirrors were seen to have of files that no list names.
    pub sightings: Arc<Sightings>,
    /// What clients that come back from a mirror may set off.
    pub doubts: Doubts,
    /// Has the prober look at mirrors for such a file.
    pub looks: mpsc::Sender<sightings::Request>,
    /// The own nodes' base URLs as lists name them.
    pub own_entries: OwnEntries,
    /// `Via` of every response (RFC 9110, section 7.6.3).
    pub via: HeaderValue,
    /// `Cache-Status` of every response.
    pub cache_status: CacheStatus,
}

/// What an [`Edge`] shares with others; each as it is named there.
pub struct Parts {
    /// Repos and mirrors.
    pub published: Arc<Published>,
    /// The content.
    pub store: Arc<Store>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Where requests are written down.
    pub log: AccessLog,
    /// The measured egress.
    pub egress: Arc<Egress>,
    /// Where clients are.
    pub geo: Geo,
    /// Tells the prober of mirrors that failed a client.
    pub bounces: mpsc::Sender<BounceReport>,
    /// What mirrors were seen to have of files that no list names.
    pub sightings: Arc<Sightings>,
    /// Has the prober look at mirrors for such a file.
    pub looks: mpsc::Sender<sightings::Request>,
}

impl Edge {
    /// From its parts.
    #[must_use]
    pub fn new(config: Arc<Config>, parts: Parts) -> Self {
        let Parts { published, store, metrics, log, egress, geo, bounces, sightings, looks } = parts;
        let donated: Vec<Bandwidth> = config.mirrors.iter().map(|mirror| mirror.bandwidth).collect();
        let redirected = |mirror: &Mirror| {
            let of = [mirror.name.as_str()];
            let (count, bytes) = (&metrics.mirror_redirects, &metrics.mirror_redirected_bytes);
            (count.with_label_values(&of), bytes.with_label_values(&of))
        };
        let memory = Memory::new(config.http.memory, metrics.connections_ended_for_memory.clone());
        let via = HeaderValue::try_from(format!("1.1 {} (freshet)", config.node.name));
        Self {
            clients: Clients::default(),
            taken: Taken::default(),
            doubts: Doubts::default(),
            listings: Listings::new(memory.clone()),
            seats: Seats::new(config.http.max_connections, config.http.max_connections_per_network),
            memory,
            load: MirrorLoad::new(donated, config.probes.ahead),
            lines: Lines::default(),
            orders: Orders::new(&config.mirrors),
            redirected: config.mirrors.iter().map(redirected).collect(),
            own_entries: OwnEntries::new(&config.node.urls, OWN_ENTRIES),
            cache_status: CacheStatus::new(&config.node.name),
            via: via.unwrap_or_else(|_| HeaderValue::from_static("1.1 freshet")),
            config,
            published,
            store,
            metrics,
            log,
            egress,
            geo,
            bounces,
            sightings,
            looks,
        }
    }
}
