//! Which addresses of a mirror's name a probe may go to. Pure.
//!
//! A mirror's name is its own: its admin can have it stand for any address, also of hosts that only the node reaches
//! (databases, a cloud's metadata service). So internal addresses count only where the mirror itself is there: its URL has the
//! address in it, which isn't looked up at all, or its name has no public address and has had none since the node's start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Into the internet.
    Public,
    /// To a host of this site or this host (RFC 1918, 4193, 6598; loopback).
    Internal,
    /// To no host that a name stands for: link-local, multicast, unspecified, reserved.
    None,
}

impl Scope {
    pub(super) fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => of_v4(addr),
            IpAddr::V6(addr) => of_v6(addr),
        }
    }
}

/// By IANA's registry of special-purpose addresses (RFC 6890).
fn of_v4(addr: Ipv4Addr) -> Scope {
    match addr.octets() {
        [0 | 224..=255, ..] | [169, 254, ..] => Scope::None,
        [10 | 127, ..]
        | [100, 64..=127, ..]
        | [172, 16..=31, ..]
        | [192, 0, 0, _]
        | [192, 168, ..]
        | [198, 18 | 19, ..] => Scope::Internal,
        _ => Scope::Public,
    }
}

/// Likewise; an IPv4 address in an IPv6 one (mapped, NAT64, 6to4) leads where that does.
fn of_v6(addr: Ipv6Addr) -> Scope {
    let segments = addr.segments();
    let v4 = |high: u16, low: u16| of_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] | [0x64, 0xff9b, 1, ..] | [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => {
            Scope::Internal
        }
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        // Of Teredo (2001::/32) the client's address is hidden in it.
        [0x2001, 1..=0xffff, ..] | [0x2000 | 0x2002..=0x3fff, ..] => Scope::Public,
        _ => Scope::None,
    }
}

/// Of a name's addresses those that a probe may go to: the public ones. Where it has none, and has never had one
/// (`was_public`), the internal ones.
pub(super) fn allowed(addresses: &[IpAddr], was_public: bool) -> Vec<IpAddr> {
    let of =
        |scope| addresses.iter().copied().filter(move |addr| Scope::of(*addr) == scope).collect::<Vec<_>>();
    let public = of(Scope::Public);
    if public.is_empty() && !was_public { of(Scope::Internal) } else { public }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn where_addresses_lead() {
        for (scope, addresses) in [
            (
                Scope::Public,
                &["192.0.2.1", "8.8.8.8", "100.63.0.1", "100.128.0.1", "172.32.0.1", "223.1.1.1"][..],
            ),
            (
                Scope::Public,
                &["2001:db8::1", "2a00::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"],
            ),
            (
                Scope::Internal,
                &["127.0.0.1", "10.0.0.1", "172.16.0.1", "172.31.9.9", "192.168.1.1", "100.64.0.1"],
            ),
            (
                Scope::Internal,
                &["198.18.0.1", "192.0.0.8", "::1", "fd00::1", "fc00::1", "fec0::1", "64:ff9b:1::1"],
            ),
            (
                Scope::Internal,
                &["::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::192.168.0.1", "2002:a00:1::1"],
            ),
            (
                Scope::None,
                &["0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "240.0.0.1", "255.255.255.255"],
            ),
            (
                Scope::None,
                &["::", "fe80::1", "ff02::1", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254"],
            ),
            (Scope::None, &["2001::1", "100::1", "4000::1", "2002:a9fe:a9fe::1", "::ffff:0.0.0.0"]),
        ] {
            for address in addresses {
                assert_eq!(Scope::of(addr(address)), scope, "{address}");
            }
        }
    }

    #[test]
    fn internal_addresses_count_only_where_there_never_was_a_public_one() {
        let all = ["10.0.0.1", "169.254.169.254", "192.0.2.1", "fd00::1"].map(addr);
        let [private, link_local, public, unique_local] = all;
        assert_eq!(allowed(&all, false), [public]);
        assert_eq!(allowed(&all, true), [public]);
        let internal = [private, link_local, unique_local];
        assert_eq!(allowed(&internal, false), [private, unique_local]);
        assert_eq!(allowed(&internal, true), [] as [IpAddr; 0]);
        assert_eq!(allowed(&[link_local], false), [] as [IpAddr; 0]);
    }
}
