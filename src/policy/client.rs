//! What is known of the client that asks.

use crate::geo::Whereabouts;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// Bits of an IPv4 address that are steered as one network.
pub const NETWORK_BITS_V4: u8 = 24;
/// Bits of an IPv6 address that are steered as one network.
pub const NETWORK_BITS_V6: u8 = 48;

/// The client of one request, as far as the decision cares.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its address, IPv4-mapped IPv6 addresses unmapped.
    pub addr: IpAddr,
    /// Where it is.
    pub whereabouts: Whereabouts,
    /// It came over https, so a redirect must not lead it to plain http.
    pub https: bool,
    /// It asks for a part of the file.
    pub ranged: bool,
    /// It asks for several parts at once, as zchunk does.
    pub many_ranges: bool,
    /// It gives up on the first failure of a mirror (yum 3, by its User-Agent).
    pub fragile: bool,
    /// Address and User-Agent as one number: who is counted as one client for bounces.
    pub key: u64,
}

/// What address and User-Agent make of a client.
#[derive(Clone, Copy, Debug)]
pub struct Agent {
    addr: IpAddr,
    whereabouts: Whereabouts,
    fragile: bool,
    key: u64,
}

impl Agent {
    /// Of requests from `addr`, which is there, with this User-Agent.
    #[must_use]
    pub fn new(addr: IpAddr, whereabouts: Whereabouts, user_agent: &[u8]) -> Self {
        let addr = addr.to_canonical();
        Self { addr, whereabouts, fragile: is_fragile(user_agent), key: hash(&(addr, user_agent)) }
    }
}

impl Client {
    /// From what the connection and the Range field tell.
    #[must_use]
    pub fn new(agent: Agent, https: bool, range: Option<&[u8]>) -> Self {
        let Agent { addr, whereabouts, fragile, key } = agent;
        let many_ranges = range.is_some_and(|range| range.contains(&b','));
        Self { addr, whereabouts, https, ranged: range.is_some(), many_ranges, fragile, key }
    }

    /// One of whom nothing is known but this.
    #[cfg(test)]
    pub(crate) fn somewhere(addr: &str, user_agent: &str) -> Self {
        let addr = addr.parse().expect("an address");
        Self::new(Agent::new(addr, Whereabouts::default(), user_agent.as_bytes()), false, None)
    }

    /// The network that is steered as one: /24 for IPv4, /48 for IPv6. Hosts of one network go to one mirror.
    #[must_use]
    pub fn network(&self) -> u64 {
        network(self.addr)
    }
}

/// The network of an address, as a number: /24 for IPv4, also where it comes as an IPv6 one, /48 for IPv6.
#[must_use]
pub fn network(addr: IpAddr) -> u64 {
    match addr.to_canonical() {
        IpAddr::V4(v4) => u64::from(u32::from(v4) >> (32 - NETWORK_BITS_V4)),
        IpAddr::V6(v6) => 1 << 63 | (u128::from(v6) >> (128 - NETWORK_BITS_V6)) as u64,
    }
}

/// yum 3 downloads through urlgrabber and takes most failures of a redirect target as final (CLIENTS: "yum 3 forgives
/// less"). It also reads any header line with `location` in it as a redirect, so it gets no `Link` field.
#[must_use]
pub fn is_fragile(user_agent: &[u8]) -> bool {
    user_agent.windows(10).any(|part| part.eq_ignore_ascii_case(b"urlgrabber"))
}

/// A stable 64-bit hash (SipHash with fixed keys): equal on all nodes and across restarts of one build.
#[must_use]
pub fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    #[expect(deprecated, reason = "the only hasher of std whose keys are fixed")]
    let mut hasher = std::hash::SipHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yum_3_is_fragile_and_dnf_is_not() {
        assert!(is_fragile(b"urlgrabber/3.10 yum/3.4.3"));
        assert!(!is_fragile(b"libdnf (CentOS Stream 9; generic; Linux.x86_64)"));
        assert!(!is_fragile(b""));
    }

    #[test]
    fn one_network_is_one_number() {
        let client = |addr: &str| Client::somewhere(addr, "");
        assert_eq!(client("192.0.2.1").network(), client("192.0.2.254").network());
        assert_eq!(client("192.0.2.1").network(), client("::ffff:192.0.2.9").network());
        assert_ne!(client("192.0.2.1").network(), client("192.0.3.1").network());
        assert_eq!(client("2001:db8:1:2::3").network(), client("2001:db8:1:ffff::").network());
        assert_ne!(client("2001:db8:1::1").network(), client("2001:db8:2::1").network());
    }
}
