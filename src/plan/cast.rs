//! Who takes part: the same for a plan and for a load test that plays its scenario.

use super::hosts::Host;
use super::sync::{Synced, synced};
use crate::config::Scenario;
use crate::geo::Whereabouts;
use crate::policy::Client;
use crate::policy::client::Agent;
use std::net::Ipv4Addr;

/// Networks that the hosts of a region are in: enough that all mirrors are somebody's nearest.
const NETWORKS: u32 = 512;

/// All that are drawn before anything happens.
#[derive(Clone, Debug)]
pub struct Cast {
    /// The mirrors, in the order of the scenario's groups.
    pub synced: Vec<Synced>,
    /// Hosts that want the push.
    pub hosts: Vec<(Host, Who)>,
    /// For what is drawn later.
    pub rng: fastrand::Rng,
}

/// How a host looks from outside.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// Its address.
    pub addr: Ipv4Addr,
    /// Where that is.
    pub whereabouts: Whereabouts,
    /// It is yum 3.
    pub yum: bool,
}

impl Who {
    /// What it says of itself.
    #[must_use]
    pub const fn agent(&self) -> &'static str {
        if self.yum { "urlgrabber/3.10 yum/3.4.3" } else { "libdnf" }
    }

    /// As the policy sees it.
    #[must_use]
    pub fn client(&self) -> Client {
        let agent = Agent::new(self.addr.into(), self.whereabouts, self.agent().as_bytes());
        Client::new(agent, false, None)
    }
}

impl Cast {
    /// Of the scenario, with so many hosts.
    #[must_use]
    pub fn draw(scenario: &Scenario, hosts: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(scenario.seed);
        let synced = synced(scenario, &mut rng);
        let hosts = (0..hosts).map(|_| drawn(scenario, &mut rng)).collect();
        Self { synced, hosts, rng }
    }
}

/// A host, and where it is.
pub fn drawn(scenario: &Scenario, rng: &mut fastrand::Rng) -> (Host, Who) {
    let host = Host::draw(scenario, rng);
    let network = u32::try_from(host.region).unwrap_or_default() * NETWORKS + rng.u32(..NETWORKS);
    // Each network is a /24, from 11.0.0.0 on.
    let addr = Ipv4Addr::from((11 << 24) + (network << 8) + rng.u32(1..255));
    let continent = Some(scenario.regions[host.region].continent);
    let whereabouts = Whereabouts { continent, ..Whereabouts::default() };
    (host, Who { addr, whereabouts, yum: scenario.kinds[host.kind].yum })
}
