//! The kinds of values that keys have: how each is read, and in which words it is asked for.

use super::read::Kind;
use super::units::{self, Bandwidth};
use crate::geo::{Code, Point};
use crate::http::{hidden, host, path::TreePath};
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

/// A duration within bounds, which are written as in the file.
pub(super) fn duration(min: &'static str, max: &'static str) -> Kind<Duration> {
    let bounds = [min, max].map(|bound| units::duration(bound).expect("bounds are written in this crate"));
    let what = format!("a duration with a unit, from {min} to {max}, such as \"15s\"");
    Kind::text(what, move |text| units::duration(text).filter(|d| (bounds[0]..=bounds[1]).contains(d)))
}

/// A size in bytes within bounds, which are written as in the file.
pub(super) fn size(min: &'static str, max: &'static str) -> Kind<u64> {
    let bounds = [min, max].map(|bound| units::size(bound).expect("bounds are written in this crate"));
    let what = format!("a size with a unit, from {min} to {max}, such as \"64 MiB\"");
    Kind::text(what, move |text| units::size(text).filter(|s| (bounds[0]..=bounds[1]).contains(s)))
}

/// A bandwidth above zero.
pub(super) fn bandwidth() -> Kind<Bandwidth> {
    let what =
        "a bandwidth above zero with a unit (bit/s, kbit/s, Mbit/s, Gbit/s, Tbit/s), such as \"20 Gbit/s\"";
    Kind::text(what, |text| text.trim().parse().ok().filter(|b: &Bandwidth| b.bits_per_second() > 0))
}

/// A whole number within bounds.
pub(super) fn count(min: usize, max: usize) -> Kind<usize> {
    Kind::new(format!("a whole number from {min} to {max}"), move |value| {
        let DeValue::Integer(number) = value else { return None };
        usize::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| (min..=max).contains(n))
    })
}

/// A share, from 0 to 1.
pub(super) fn share() -> Kind<f64> {
    Kind::new("a number from 0 to 1, such as 0.8", |value| {
        let number = match value {
            DeValue::Float(number) => number.as_str().parse::<f64>().ok()?,
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok()?,
            _ => return None,
        };
        (0.0..=1.0).contains(&number).then_some(number)
    })
}

/// `true` or `false`.
pub(super) fn truth() -> Kind<bool> {
    Kind::new("true or false", |value| match value {
        DeValue::Boolean(truth) => Some(*truth),
        _ => None,
    })
}

/// One of the words given.
pub(super) fn choice<T: Copy + 'static, const N: usize>(of: [(&'static str, T); N]) -> Kind<T> {
    let what = format!("one of {}", of.map(|(word, _)| format!("{word:?}")).join(", "));
    Kind::text(what, move |text| of.iter().find(|(word, _)| *word == text).map(|(_, value)| *value))
}

/// A name that can stand in a header, a metrics label, a URL and a file name.
pub(super) fn name() -> Kind<String> {
    const LONGEST: usize = 64;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let what = format!(
        "a name of letters, digits, '.', '_' and '-', at most {LONGEST} long, that starts with a letter or digit"
    );
    Kind::text(what, move |text| {
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        (starts && text.len() <= LONGEST && text.chars().all(fits)).then(|| text.to_owned())
    })
}

/// A host as it stands in a URL: a name or an address, without a port.
pub(super) fn host() -> Kind<String> {
    Kind::text("a host without a port, such as \"admin.example.org\"", |text| {
        host::split(text.as_bytes()).filter(|(_, port)| port.is_none()).map(|(host, _)| host.to_owned())
    })
}

/// The name of a network interface, as Linux limits it.
pub(super) fn interface() -> Kind<String> {
    const IFNAMSIZ: usize = 16;
    Kind::text("the name of a network interface, such as \"eth0\"", |text| {
        let fits = !["", ".", ".."].contains(&text) && text.len() < IFNAMSIZ;
        (fits && text.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':')).then(|| text.to_owned())
    })
}

/// Two capital letters; small ones are accepted.
pub(super) fn country() -> Kind<Code> {
    Kind::text("a country code of two letters (ISO 3166), such as \"DE\"", |text| text.parse().ok())
}

/// A continent's two letters, as GeoIP databases have them; small ones are accepted.
pub(super) fn continent() -> Kind<Code> {
    const ALL: [&str; 7] = ["AF", "AN", "AS", "EU", "NA", "OC", "SA"];
    Kind::text(format!("a continent, one of {}", ALL.join(", ")), |text| {
        text.parse().ok().filter(|code: &Code| ALL.contains(&code.as_str()))
    })
}

/// The number of an autonomous system.
pub(super) fn asn() -> Kind<u32> {
    Kind::new("the number of an autonomous system, such as 64500", |value| match value {
        DeValue::Integer(number) => {
            u32::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| *n > 0)
        }
        _ => None,
    })
}

/// A place on the earth.
pub(super) fn point() -> Kind<Point> {
    Kind::text("latitude and longitude in degrees, such as \"52.52, 13.40\"", |text| text.parse().ok())
}

/// An address and port to listen on.
pub(super) fn address() -> Kind<SocketAddr> {
    Kind::text("an IP address and a port, such as \"0.0.0.0:80\" or \"[::]:80\"", |text| text.parse().ok())
}

/// A network in CIDR notation; host bits are cleared.
pub(super) fn network() -> Kind<IpNet> {
    let what = "a network in CIDR notation, such as \"192.0.2.0/24\" or \"2001:db8::/32\"";
    Kind::text(what, |text| text.parse::<IpNet>().ok().map(|network| network.trunc()))
}

/// An absolute http or https URL of a directory; the result ends in '/'.
pub(super) fn url() -> Kind<String> {
    Kind::text(
        "an http or https URL without query or user, such as \"http://mirror.example.org/\"",
        directory_url,
    )
}

fn directory_url(text: &str) -> Option<String> {
    let scheme = text.split_once("://")?.0.to_ascii_lowercase();
    let uri: ::http::Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let plain = !authority.as_str().contains('@') && uri.query().is_none() && !text.contains('#');
    let port = authority.as_str().strip_prefix(authority.host())?;
    let reachable = port.is_empty() || port.strip_prefix(':')?.parse::<u16>().is_ok_and(|port| port != 0);
    let host = !authority.host().is_empty() && reachable;
    if !["http", "https"].contains(&scheme.as_str()) || !plain || !host {
        return None;
    }
    let slash = if uri.path().ends_with('/') { "" } else { "/" };
    Some(format!("{scheme}://{authority}{}{slash}", uri.path()))
}

/// Where a person can be reached: a web page or a mail address; goes into a User-Agent.
pub(super) fn contact() -> Kind<String> {
    Kind::text(
        "a web page or mail address for mirror admins, such as \"https://example.org/mirrors\"",
        |text| {
            let fits = (1..=200).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
            (fits && !text.contains(['(', ')', '\\'])).then(|| text.to_owned())
        },
    )
}

/// A path below the tree's root, without a '/' at its end.
pub(super) fn tree_path() -> Kind<TreePath> {
    Kind::text(
        "a path below the tree's root, such as \"7/updates\", without '/' at its start and without '.' or '..'",
        |text| TreePath::new(text.strip_suffix('/').unwrap_or(text)).ok(),
    )
}

/// A name in a path that begins with a dot.
pub(super) fn dotted_name() -> Kind<String> {
    Kind::text("one name that begins with '.', without '/', such as \".snapshot\"", |text| {
        hidden::is_dotted_name(text).then(|| text.to_owned())
    })
}

/// A file or directory on this host; relative ones start from `folder`.
pub(super) fn file(folder: &Path) -> Kind<PathBuf> {
    let folder = folder.to_owned();
    Kind::text("a file path", move |text| {
        let fits = !text.is_empty() && !text.contains('\0');
        fits.then(|| folder.join(text))
    })
}

/// Text of any form, that is checked elsewhere.
pub(super) fn text(what: &'static str) -> Kind<String> {
    Kind::text(what, |text| Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_absolute_and_end_in_a_slash() {
        for (text, expected) in [
            ("http://ftp.example.de/centos", Some("http://ftp.example.de/centos/")),
            ("HTTPS://ftp.example.de", Some("https://ftp.example.de/")),
            ("http://[::1]:8081/", Some("http://[::1]:8081/")),
            ("ftp://ftp.example.de/", None),
            ("//ftp.example.de/", None),
            ("/centos/", None),
            ("http://", None),
            ("http:///x", None),
            ("http://me@ftp.example.de/", None),
            ("http://ftp.example.de/?a=b", None),
            ("http://ftp.example.de/#top", None),
            ("http://ftp.example.de/a b", None),
            ("http://ftp.example.de:0/", None),
            ("http://ftp.example.de:99999/", None),
        ] {
            assert_eq!(directory_url(text).as_deref(), expected, "{text:?}");
        }
    }
}
