//! Whether a request comes from the operator, or from a web page of somebody else's.
//!
//! A listener on loopback needs no token, and any page that a browser on this host shows can have it send a POST there (cross-site
//! request forgery), under a name of its own that it has made an address of loopback, too (DNS rebinding). The first is told by
//! Origin and Sec-Fetch-Site, which a page can't write, the second by Host. What is no browser sends neither Origin nor
//! Sec-Fetch-Site, and the Host that it was told to ask. Pure.

use crate::config;
use crate::http::host;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use http::uri::Uri;
use std::net::IpAddr;

/// Why a request was refused, and what an operator can do about it.
pub(super) const WHY: &str = "the request seems to come from another site (Host, Origin, Sec-Fetch-Site); \
     send the token, or list the name in admin.hosts";

/// Why a request was refused that was sent to another name.
pub(super) const FOREIGN: &str = "the Host is a name that this listener doesn't have; \
     ask by its address, send the token, or list the name in admin.hosts";

/// W3C Fetch Metadata.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether the request was sent to this listener: by any address, since no page can make one its own, by a name that only this
/// listener has, or without a Host, as no browser does.
pub(super) fn is_to_us(uri: &Uri, headers: &HeaderMap, settings: &config::Admin) -> bool {
    host_of(uri, headers).fits(|authority| {
        let name = host::split(authority).map(|(name, _)| name);
        name.is_some_and(|name| name.parse::<IpAddr>().is_ok() || is_known(name, settings))
    })
}

/// RFC 9112, section 3.2.2: the target's authority takes the place of Host.
fn host_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Field<'a> {
    let host = Field::of(headers, &HOST);
    uri.authority().map_or(host, |authority| Field::Given(authority.as_str().as_bytes()))
}

/// Whether the request was sent to this listener by name, and by nobody else's page.
pub(super) fn is_own(uri: &Uri, headers: &HeaderMap, settings: &config::Admin) -> bool {
    let [origin, site] = [ORIGIN, SEC_FETCH_SITE].map(|name| Field::of(headers, &name));
    let host = host_of(uri, headers);
    let is_known =
        |authority: &[u8]| host::split(authority).is_some_and(|(name, _)| is_known(name, settings));
    let is_listed =
        |authority: &[u8]| host::split(authority).is_some_and(|(name, _)| is_listed(name, settings));
    let to_us = host.fits(is_known);
    let from_us = origin.fits(|origin| {
        let Some(authority) = authority_of(origin) else { return false };
        // The very site that the request was sent to, or one whose pages the operator has released.
        is_listed(authority) || host.is(|host| host.eq_ignore_ascii_case(authority))
    });
    let is_asked_for = |site: &[u8]| {
        matches!(site, b"same-origin" | b"none")
            || origin.is(|origin| authority_of(origin).is_some_and(is_listed))
    };
    to_us && from_us && site.fits(is_asked_for)
}

/// A field that a request has at most once.
#[derive(Clone, Copy)]
enum Field<'a> {
    Missing,
    Given(&'a [u8]),
    Several,
}

impl<'a> Field<'a> {
    fn of(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        match (values.next(), values.next()) {
            (None, _) => Self::Missing,
            (Some(value), None) => Self::Given(value.trim_ascii()),
            (Some(_), Some(_)) => Self::Several,
        }
    }

    /// It is there, and so.
    fn is(self, holds: impl FnOnce(&[u8]) -> bool) -> bool {
        matches!(self, Self::Given(value) if holds(value))
    }

    /// It isn't there, as with what is no browser, or it is so.
    fn fits(self, holds: impl FnOnce(&[u8]) -> bool) -> bool {
        matches!(self, Self::Missing) || self.is(holds)
    }
}

/// Of `http://host:port`. `null`, the origin of a page without one, has none.
fn authority_of(origin: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| origin.strip_prefix(scheme))
}

/// A name that only this listener has: loopback's, since browsers ask nobody else for it, the address that it listens on, or
/// one of `admin.hosts`. An SSH tunnel's end is loopback, whatever its port.
fn is_known(name: &str, settings: &config::Admin) -> bool {
    let listen = settings.listen.ip();
    let is_address = |addr: IpAddr| {
        // With a listener on all addresses any of them may be this host's; no name can be made to stand for an address.
        addr.to_canonical().is_loopback() || addr == listen || listen.is_unspecified()
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_address) || is_listed(name, settings)
}

fn is_listed(name: &str, settings: &config::Admin) -> bool {
    settings.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(listen: &str, hosts: &[&str], fields: &[(&str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let settings = config::Admin { listen: listen.parse().unwrap(), token: None, hosts };
        is_own(&Uri::from_static("/api/v1/push"), &headers, &settings)
    }

    #[test]
    fn hosts_that_are_this_listener() {
        for (listen, host, own) in [
            ("127.0.0.1:9180", "127.0.0.1:9180", true),
            ("127.0.0.1:9180", "localhost", true),
            ("127.0.0.1:9180", "LOCALHOST:8080", true),
            ("127.0.0.1:9180", "127.0.0.53:1", true),
            ("127.0.0.1:9180", "[::1]:9180", true),
            ("127.0.0.1:9180", "[::ffff:127.0.0.1]", true),
            ("127.0.0.1:9180", "192.0.2.1", false),
            ("127.0.0.1:9180", "other.example", false),
            ("127.0.0.1:9180", "127.0.0.1.other.example", false),
            ("127.0.0.1:9180", "localhost.other.example", false),
            ("127.0.0.1:9180", "u@localhost", false),
            ("127.0.0.1:9180", "localhost, other.example", false),
            ("127.0.0.1:9180", "", false),
            ("192.0.2.1:9180", "192.0.2.1:9180", true),
            ("192.0.2.1:9180", "192.0.2.2:9180", false),
            ("0.0.0.0:9180", "192.0.2.2:9180", true),
            ("0.0.0.0:9180", "other.example:9180", false),
            ("127.0.0.1:9180", "Admin.example.org", true),
            ("127.0.0.1:9180", "admin.example.org:8443", true),
        ] {
            assert_eq!(taken(listen, &["admin.example.org"], &[("host", host)]), own, "{listen} {host}");
        }
        assert!(taken("127.0.0.1:1", &[], &[]), "HTTP/1.0, so no browser");
        assert!(!taken("127.0.0.1:1", &[], &[("host", "localhost"), ("host", "localhost")]));
    }

    #[test]
    fn a_page_can_make_a_name_its_own_but_no_address() {
        for (host, own) in [
            ("127.0.0.1:9180", true),
            ("192.0.2.77:9180", true),
            ("[2001:db8::1]:9180", true),
            ("localhost", true),
            ("admin.example.org", true),
            ("other.example", false),
            ("other.example:9180", false),
            ("127.0.0.1.other.example", false),
            ("", false),
        ] {
            let headers = [(HOST, HeaderValue::from_static(host))].into_iter().collect();
            let settings =
                config::Admin { hosts: vec!["admin.example.org".to_owned()], ..config::Admin::default() };
            assert_eq!(is_to_us(&Uri::from_static("/metrics"), &headers, &settings), own, "{host}");
            let absolute = Uri::from_static("http://other.example/metrics");
            assert!(!is_to_us(&absolute, &headers, &settings), "the target takes the place of Host");
        }
    }

    #[test]
    fn pages_that_are_this_listener_s() {
        for (origin, site, own) in [
            ("http://localhost:9180", None, true),
            ("http://localhost:9180", Some("same-origin"), true),
            ("http://LOCALHOST:9180", None, true),
            // Another server of this host is another site.
            ("http://localhost:3000", None, false),
            ("http://127.0.0.1:9180", None, false),
            ("https://other.example", None, false),
            ("http://other.example", Some("cross-site"), false),
            ("http://localhost:9180", Some("cross-site"), false),
            ("http://localhost:9180", Some("same-site"), false),
            ("null", None, false),
            ("", None, false),
            ("localhost:9180", None, false),
            // A reverse proxy that asks by loopback for a browser.
            ("https://admin.example.org", None, true),
            ("https://admin.example.org:8443", Some("same-origin"), true),
            ("https://admin.example.org", Some("cross-site"), true),
            ("https://admin.example.org.other.example", None, false),
        ] {
            let mut fields = vec![("host", "localhost:9180"), ("origin", origin)];
            fields.extend(site.map(|site| ("sec-fetch-site", site)));
            assert_eq!(taken("127.0.0.1:9180", &["admin.example.org"], &fields), own, "{origin} {site:?}");
        }
        let alone = |site| taken("127.0.0.1:1", &[], &[("host", "localhost"), ("sec-fetch-site", site)]);
        assert_eq!(
            [alone("none"), alone("same-origin"), alone("cross-site"), alone("")],
            [true, true, false, false]
        );
    }
}
