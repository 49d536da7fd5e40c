//! The order of the mirrors for the clients of one network, remembered.
//!
//! It follows from settings and the client's address alone ([`select::rank`]), and a thousand mirrors take a tenth of a
//! millisecond to rank: too much for each request. What changes by the second (who is up, holds the file, has room) is asked
//! of the mirrors in this order.
//!
//! A client may name another's address in a list's query (`ip=`). What is remembered for that lies apart, and counts for the
//! network that asks: however many addresses it names, the orders of clients that come themselves stay.

use super::{Client, MirrorTable, client, select};
use crate::config::Mirror;
use crate::shares::{Bounds, Sharded};
use moka::sync::Cache;
use std::net::IpAddr;
use std::sync::Arc;

/// Mirrors remembered for a network: the first that are fit are nearly always among them. Else all are ranked.
const REMEMBERED: usize = 32;
/// Networks remembered: 20 MB at most.
const MOST_NETWORKS: u64 = 100_000;
/// Networks of addresses that clients named, remembered: 5 MB at most. Beyond it the network that named most loses its first.
const MOST_NAMED: usize = 10_000;

/// Orders by network. For the mirrors of one config.
#[derive(Debug)]
pub struct Orders {
    /// Bits of an address that may make a difference: those of a network that is steered as one, or more where a mirror
    /// has a smaller network.
    bits: (u8, u8),
    known: Cache<u64, Arc<[u32]>>,
    /// Of clients that others named.
    named: Sharded<Arc<[u32]>>,
}

impl Orders {
    /// For these mirrors.
    #[must_use]
    pub fn new(mirrors: &[Mirror]) -> Self {
        let networks = || mirrors.iter().flat_map(|mirror| &mirror.networks);
        let longest = |v4: bool, least: u8| {
            let of_family = networks().filter(|network| network.addr().is_ipv4() == v4);
            of_family.map(ipnet::IpNet::prefix_len).max().unwrap_or(0).max(least)
        };
        let bits = (longest(true, client::NETWORK_BITS_V4), longest(false, client::NETWORK_BITS_V6));
        // An order doesn't age.
        let named = Bounds { entries: MOST_NAMED, of_client: MOST_NAMED, unused_for: u64::MAX };
        Self { bits, known: Cache::builder().max_capacity(MOST_NETWORKS).build(), named: Sharded::new(named) }
    }

    /// The best mirrors for `client`, best first, by number; not all of them.
    pub fn best(&self, mirrors: &MirrorTable, client: &Client) -> Arc<[u32]> {
        let number = |mirror| u32::try_from(mirror).unwrap_or(u32::MAX);
        let all = || 0..mirrors.states().len();
        let ranked = || select::best(mirrors, client, all(), REMEMBERED).into_iter().map(number).collect();
        let key = self.key(client);
        if client.network() == client.owner.network {
            self.known.get_with(key, ranked)
        } else {
            // One entry for each network that asks: else the first would own it for all.
            let own_key = client::hash(&(key, client.owner.network));
            self.named.get_or_insert(client.owner, own_key, 0, ranked)
        }
    }

    fn key(&self, client: &Client) -> u64 {
        let network = match client.addr {
            IpAddr::V4(addr) => u128::from(u32::from(addr).unbounded_shr(32 - u32::from(self.bits.0))),
            IpAddr::V6(addr) => u128::from(addr).unbounded_shr(128 - u32::from(self.bits.1)),
        };
        client::hash(&(client.addr.is_ipv4(), network, &client.whereabouts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geo::Whereabouts;
    use crate::policy::MirrorState;

    fn mirror(n: usize, networks: &[&str]) -> Mirror {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        Mirror { networks, ..Mirror::new(&format!("m{n}"), &format!("http://m{n}.example/")) }
    }

    fn client(addr: &str) -> Client {
        Client::somewhere(addr, "libdnf")
    }

    #[test]
    fn what_is_remembered_is_what_ranking_all_gives_for_each_client() {
        let mut settings: Vec<Mirror> = (0..200).map(|n| mirror(n, &[])).collect();
        // Smaller than what is steered as one: neighbours differ.
        settings.push(mirror(200, &["192.0.2.16/28", "2001:db8:0:7::/64"]));
        let orders = Orders::new(&settings);
        let states = settings.iter().map(|mirror| MirrorState::untried(Arc::new(mirror.clone()), 1));
        let table = MirrorTable::new(states.map(Arc::new).collect());
        for addr in
            ["192.0.2.17", "192.0.2.1", "192.0.2.31", "198.51.100.1", "2001:db8:0:7::1", "2001:db8:0:8::1"]
        {
            let client = client(addr);
            let mut all: Vec<u32> = (0..201).collect();
            let rank = |index: u32| select::rank(&table.states()[index as usize], &client);
            all.sort_by(|a, b| rank(*b).partial_cmp(&rank(*a)).unwrap());
            for _ in 0..2 {
                assert_eq!(*orders.best(&table, &client), all[..REMEMBERED], "{addr}");
            }
        }
        assert_eq!(orders.best(&table, &client("192.0.2.20"))[0], 200);
    }

    #[test]
    fn addresses_that_a_client_names_take_no_order_from_others() {
        let settings: Vec<Mirror> = (0..3).map(|n| mirror(n, &[])).collect();
        let orders = Orders::new(&settings);
        let states = settings.iter().map(|mirror| MirrorState::untried(Arc::new(mirror.clone()), 1));
        let table = MirrorTable::new(states.map(Arc::new).collect());
        let named =
            |by: &str, addr: &str| Client { owner: client::owner(by.parse().unwrap()), ..client(addr) };
        let own = orders.best(&table, &client("192.0.2.1"));
        let asked = named("203.0.113.1", "192.0.2.7");
        assert_eq!(orders.best(&table, &asked), own);
        // Of the same part of the table: every sixteenth network.
        for number in 0..3 * MOST_NAMED {
            let addr = format!("10.{}.{}.1", number / 256 % 256, number % 256);
            let _ = orders.best(&table, &named("198.51.97.1", &addr));
        }
        let key = |client: &Client| orders.key(client);
        assert!(orders.known.get(&key(&client("192.0.2.1"))).is_some());
        assert!(orders.known.get(&key(&client("10.0.0.1"))).is_none(), "only its own client makes an entry");
        let own_key = client::hash(&(key(&asked), asked.owner.network));
        assert!(orders.named.peek(asked.owner, own_key, 0).is_some(), "nor from another that names some");
    }

    #[test]
    fn a_network_is_ranked_once() {
        let orders = Orders::new(&[]);
        let key = |addr| orders.key(&client(addr));
        assert_eq!(key("192.0.2.1"), key("192.0.2.254"));
        assert_ne!(key("192.0.2.1"), key("192.0.3.1"));
        assert_eq!(key("2001:db8:1:2::3"), key("2001:db8:1:ffff::"));
        let whereabouts = Whereabouts { country: "DE".parse().ok(), ..Whereabouts::default() };
        assert_ne!(orders.key(&Client { whereabouts, ..client("192.0.2.1") }), key("192.0.2.1"));
    }
}
