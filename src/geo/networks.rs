//! What the operator says of networks.

use super::Whereabouts;
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;

/// A network, and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Its addresses.
    pub addresses: IpNet,
    /// Where they are.
    pub whereabouts: Whereabouts,
}

/// Networks by their addresses.
#[derive(Debug, Default)]
pub struct Networks {
    known: HashMap<IpNet, Whereabouts>,
    /// Lengths of prefixes that occur, longest first.
    lengths: Vec<u8>,
}

impl Networks {
    /// Of these; the last of those with the same addresses holds.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        let known: HashMap<_, _> =
            networks.into_iter().map(|network| (network.addresses.trunc(), network.whereabouts)).collect();
        let mut lengths: Vec<u8> = known.keys().map(IpNet::prefix_len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self { known, lengths }
    }

    /// Of the networks around `addr`, what the smallest says, and what it doesn't say from those around it.
    #[must_use]
    pub fn find(&self, addr: IpAddr) -> Whereabouts {
        let around = |length: &u8| Some(*self.known.get(&IpNet::new(addr, *length).ok()?.trunc())?);
        self.lengths.iter().filter_map(around).fold(Whereabouts::default(), Whereabouts::or)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_network_comes_first() {
        let network = |addresses: &str, country: Option<&str>, asn| Network {
            addresses: addresses.parse().unwrap(),
            whereabouts: Whereabouts {
                country: country.map(|code| code.parse().unwrap()),
                asn,
                ..Whereabouts::default()
            },
        };
        let networks = Networks::new([
            network("10.0.0.0/8", Some("US"), Some(1)),
            network("10.1.0.0/16", Some("DE"), None),
            network("2001:db8::/32", Some("FR"), None),
        ]);
        let found = |addr: &str| {
            let Whereabouts { country, asn, .. } = networks.find(addr.parse().unwrap());
            (country.map(|code| code.to_string()), asn)
        };
        assert_eq!(found("10.1.2.3"), (Some("DE".into()), Some(1)));
        assert_eq!(found("10.2.2.3"), (Some("US".into()), Some(1)));
        assert_eq!(found("2001:db8:1::1"), (Some("FR".into()), None));
        assert_eq!(found("192.0.2.1"), (None, None));
    }
}
