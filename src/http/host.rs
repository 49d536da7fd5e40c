//! Whom a request is for: the authority of a URL, and the Host field (RFC 9110, section 7.2).
//!
//! The node serves one tree under all names, so that a host's name decides nothing but whether the request is well formed.

use std::net::Ipv6Addr;

/// Whether `text` is a host with or without a port, as in a Host field or in an http URL: `uri-host [ ":" port ]` (RFC 9110,
/// section 7.2; RFC 3986, section 3.2). An empty host is none (RFC 9110, section 4.2.1), nor is one with user information
/// (section 4.2.4).
#[must_use]
pub fn is_host(text: &[u8]) -> bool {
    split(text).is_some()
}

/// Host and port of `host[:port]`; an address in brackets comes without them. `None` where [`is_host`] says no.
#[must_use]
pub fn split(text: &[u8]) -> Option<(&str, Option<&str>)> {
    let text = std::str::from_utf8(text).ok()?;
    let (host, rest) = match text.strip_prefix('[') {
        Some(literal) => {
            let (address, rest) = literal.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (address, rest)
        }
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (!name.is_empty() && is_name(name.as_bytes())).then_some((name, rest))?
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(port).filter(|port| !port.is_empty())
        }
        None if rest.is_empty() => None,
        _ => return None,
    };
    Some((host, port))
}

/// `reg-name`, which has room for IPv4 addresses.
fn is_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            (byte, _) if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) => after,
            _ => return false,
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, host, port) in [
            ("mirror.example.org", "mirror.example.org", None),
            ("mirror.example.org:8080", "mirror.example.org", Some("8080")),
            ("my_node:80", "my_node", Some("80")),
            ("192.0.2.1", "192.0.2.1", None),
            ("h:", "h", None),
            ("[::1]", "::1", None),
            ("[2001:db8::1]:443", "2001:db8::1", Some("443")),
            ("a%2db", "a%2db", None),
        ] {
            assert_eq!(split(text.as_bytes()), Some((host, port)), "{text}");
        }
        for text in [
            "", ":80", "a/b", "u@a", "a, b", "a b", "a,\tb", "http://a", "a:b", "a:80:80", "a?b", "a#b",
            "a%2", "a%zz", "::1", "[::1", "[::1]a", "[a]", "[]", "a\\b", "a[::1]", "é", "a\"b", "<a>",
        ] {
            assert!(!is_host(text.as_bytes()), "{text}");
        }
        assert!(!is_host(b"\xff") && !is_host(b"a\0"));
    }
}
