//! What is known of the client that asks.

use crate::geo::Whereabouts;
use crate::shares::Owner;
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
    /// What it does where the target of a redirect fails it.
    pub recovery: Recovery,
    /// It is yum 3: its TLS is old, and it reads any header line with `location` in it as a redirect.
    pub is_yum3: bool,
    /// Address and User-Agent as one number: what counts as one client for bounces.
    pub key: u64,
    /// Whose use its own is ([`owner`]).
    pub owner: Owner,
}

/// What a client does where the target of a redirect fails it, as far as its User-Agent tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It comes back to the node at once, for a few times: librepo, so dnf, dnf5, microdnf and PackageKit.
    Retries,
    /// It isn't known to retry. yum 3 takes most failures of a target as final, zypper with one URL nearly all.
    Unknown,
    /// It is firmware or a boot loader, and follows no redirect.
    Boots,
}

/// Parts of the User-Agents of clients that download by librepo.
const RETRYING: [&[u8]; 3] = [b"libdnf", b"librepo", b"PackageKit"];
/// How the User-Agents of firmware and boot loaders begin: GRUB, UEFI (EDK II), iPXE and its forerunner, Syslinux, and U-Boot by
/// itself or by its network stack.
const BOOTING: [&[u8]; 7] = [b"GRUB", b"UefiHttpBoot", b"iPXE", b"gPXE", b"Syslinux", b"U-Boot", b"lwIP"];

impl Recovery {
    /// Of a client with this User-Agent.
    #[must_use]
    pub fn of(user_agent: &[u8]) -> Self {
        let begins =
            |word: &&[u8]| user_agent.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        if BOOTING.iter().any(begins) {
            Self::Boots
        } else if begins(&&b"dnf/"[..]) || RETRYING.iter().any(|word| contains(user_agent, word)) {
            Self::Retries
        } else {
            Self::Unknown
        }
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

/// What address and User-Agent make of a client.
#[derive(Clone, Copy, Debug)]
pub struct Agent {
    addr: IpAddr,
    whereabouts: Whereabouts,
    recovery: Recovery,
    is_yum3: bool,
    key: u64,
    owner: Owner,
}

impl Agent {
    /// Of requests from `addr`, which is there, with this User-Agent.
    #[must_use]
    pub fn new(addr: IpAddr, whereabouts: Whereabouts, user_agent: &[u8]) -> Self {
        let addr = addr.to_canonical();
        let (recovery, is_yum3) = (Recovery::of(user_agent), contains(user_agent, b"urlgrabber"));
        Self { addr, whereabouts, recovery, is_yum3, key: hash(&(addr, user_agent)), owner: owner(addr) }
    }
}

impl Client {
    /// From what the connection and the Range field tell.
    #[must_use]
    pub fn new(agent: Agent, https: bool, range: Option<&[u8]>) -> Self {
        let Agent { addr, whereabouts, recovery, is_yum3, key, owner } = agent;
        let many_ranges = range.is_some_and(|range| range.contains(&b','));
        Self { addr, whereabouts, https, ranged: range.is_some(), many_ranges, recovery, is_yum3, key, owner }
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

/// Whose use of the node a client's is: its address and its network, whatever it calls itself.
#[must_use]
pub fn owner(addr: IpAddr) -> Owner {
    Owner::new(network(addr), hash(&addr.to_canonical()))
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
    fn only_librepo_is_known_to_retry_and_boot_loaders_follow_nothing() {
        for (user_agent, recovery, is_yum3) in [
            ("libdnf (CentOS Stream 9; generic; Linux.x86_64)", Recovery::Retries, false),
            ("libdnf5/5.2.6 (Fedora Linux 41; container; Linux.x86_64)", Recovery::Retries, false),
            ("librepo/1.14.5", Recovery::Retries, false),
            ("dnf/2.7.5", Recovery::Retries, false),
            ("PackageKit-hawkey", Recovery::Retries, false),
            ("urlgrabber/3.10 yum/3.4.3", Recovery::Unknown, true),
            ("ZYpp 17.31.8 (curl 7.88.1) openSUSE-Leap-15.5-x86_64", Recovery::Unknown, false),
            ("curl/7.88.1", Recovery::Unknown, false),
            ("Mozilla/5.0 (X11; Linux x86_64)", Recovery::Unknown, false),
            ("", Recovery::Unknown, false),
            ("my-grub-mirror/1", Recovery::Unknown, false),
            ("GRUB 2.06", Recovery::Boots, false),
            ("UefiHttpBoot/1.0", Recovery::Boots, false),
            ("iPXE/1.21.1+ (g3ae8)", Recovery::Boots, false),
            ("Syslinux/6.04", Recovery::Boots, false),
            ("U-Boot", Recovery::Boots, false),
            ("lwIP/2.2.0 (http://savannah.nongnu.org/projects/lwip)", Recovery::Boots, false),
        ] {
            let client = Client::somewhere("192.0.2.1", user_agent);
            assert_eq!((client.recovery, client.is_yum3), (recovery, is_yum3), "{user_agent}");
        }
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
