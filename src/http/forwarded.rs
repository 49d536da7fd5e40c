//! `X-Forwarded-For` and `X-Forwarded-Proto`: for whom a proxy asks. Anybody may write them, so they count only where the
//! connection comes from a proxy that is trusted.

use std::net::{IpAddr, SocketAddr};

/// Of the field, so much is read: a chain of a few proxies.
const MOST_BYTES: usize = 1024;

/// What the two fields of a request say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The addresses, in order; several fields are one list.
    chain: Vec<u8>,
    https: Option<bool>,
}

impl Forwarded {
    /// Takes note of an `X-Forwarded-For` field.
    pub fn note_for(&mut self, value: &[u8]) {
        if !self.chain.is_empty() {
            self.chain.push(b',');
        }
        self.chain.extend_from_slice(value);
    }

    /// Takes note of an `X-Forwarded-Proto` field. Of several, the last proxy's holds.
    pub fn note_proto(&mut self, value: &[u8]) {
        let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
        self.https = match last {
            _ if last.eq_ignore_ascii_case(b"https") => Some(true),
            _ if last.eq_ignore_ascii_case(b"http") => Some(false),
            _ => self.https,
        };
    }

    /// Whether the client speaks https, where the proxy says so.
    #[must_use]
    pub const fn https(&self) -> Option<bool> {
        self.https
    }

    /// The client: each proxy adds at the end whom it speaks for, so it is the last who isn't a trusted proxy himself, or the
    /// first in the list. `None` where the proxy named nobody.
    pub fn client(&self, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let tail = &self.chain[self.chain.len().saturating_sub(MOST_BYTES)..];
        let mut nearest = None;
        for entry in tail.rsplit(|byte| *byte == b',') {
            // What can't be read was written by somebody whom no proxy vouches for.
            let Some(addr) = address(entry.trim_ascii()) else { break };
            nearest = Some(addr);
            if !is_trusted(addr) {
                break;
            }
        }
        nearest
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().map(|addr| addr.ip());
    bare.parse().or_else(|_| with_port()).ok().map(|addr: IpAddr| addr.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_last_whom_a_trusted_proxy_names() {
        let trusted = |addr: IpAddr| addr.to_string().starts_with("10.");
        for (fields, expected) in [
            (&["192.0.2.1"][..], Some("192.0.2.1")),
            (&["192.0.2.1, 10.0.0.1"], Some("192.0.2.1")),
            (&["192.0.2.1", "10.0.0.2", "10.0.0.1"], Some("192.0.2.1")),
            // What the client itself wrote comes first.
            (&["203.0.113.9, 192.0.2.1, 10.0.0.1"], Some("192.0.2.1")),
            (&["10.0.0.2,10.0.0.1"], Some("10.0.0.2")),
            (&["unknown, 10.0.0.1"], Some("10.0.0.1")),
            (&["192.0.2.1, garbage"], None),
            (&["[2001:db8::1]:443"], Some("2001:db8::1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["::ffff:192.0.2.1"], Some("192.0.2.1")),
            (&["192.0.2.1:4711"], Some("192.0.2.1")),
            (&[""], None),
            (&[], None),
        ] {
            let mut forwarded = Forwarded::default();
            fields.iter().for_each(|field| forwarded.note_for(field.as_bytes()));
            let expected = expected.map(|addr| addr.parse().unwrap());
            assert_eq!(forwarded.client(trusted), expected, "{fields:?}");
        }
        let mut long = Forwarded::default();
        (0..10_000).for_each(|_| long.note_for(b"10.0.0.1"));
        assert!(long.client(trusted).is_some());
    }

    #[test]
    fn the_last_proxy_says_what_is_spoken() {
        for (fields, expected) in [
            (&["https"][..], Some(true)),
            (&["HTTP"], Some(false)),
            (&["http, https"], Some(true)),
            (&["https", "http"], Some(false)),
            (&["https", "gopher"], Some(true)),
            (&["ws"], None),
            (&[], None),
        ] {
            let mut forwarded = Forwarded::default();
            fields.iter().for_each(|field| forwarded.note_proto(field.as_bytes()));
            assert_eq!(forwarded.https(), expected, "{fields:?}");
        }
    }
}
