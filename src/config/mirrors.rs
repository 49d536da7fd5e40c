//! `[mirrors]` and `[[mirror]]`: who else has the tree, and how that is probed.

use super::listen::readable;
use super::read::{Place, Report, Table};
use super::{Bandwidth, Mirror, Probes, kinds};
use crate::geo::{Code, Network, Whereabouts};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

/// What a mirror donates if nobody says.
pub(super) const DONATED: Bandwidth = Bandwidth::from_bits_per_second(1_000_000_000);

/// Reads `[mirrors]`.
pub(super) fn probes(t: &mut Table<'_>, urls: &[String], any_mirror: bool) -> Probes {
    let default = Probes::default();
    let every = kinds::duration("10ms", "7days");
    let probe_every = t.or("probe_every", &every, default.probe_every);
    let contact = t.optional("contact", &kinds::contact()).or_else(|| urls.first().cloned());
    if contact.is_none() && any_mirror && !t.given("contact") {
        t.warn("contact", "missing: the admins of the mirrors should know whom to ask about the probes");
    }
    Probes {
        probe_every,
        probe_lagging: t.or("probe_lagging", &every, default.probe_lagging).min(probe_every),
        liveness_every: t.or("liveness_every", &every, default.liveness_every).min(probe_every),
        timeout: t.or("timeout", &kinds::duration("10ms", "5m"), default.timeout),
        parallel: t.or("parallel", &kinds::count(1, 4096), default.parallel),
        sample: t.or("sample", &kinds::count(1, 1_000_000), default.sample),
        ahead: t.or("ahead", &kinds::duration("1s", "1h"), default.ahead),
        contact: contact.unwrap_or_default(),
    }
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            probe_every: Duration::from_secs(600),
            probe_lagging: Duration::from_secs(60),
            liveness_every: Duration::from_secs(20),
            timeout: Duration::from_secs(10),
            parallel: 64,
            sample: 5000,
            ahead: Duration::from_secs(10),
            contact: String::new(),
        }
    }
}

/// A mirror, and where its name and URL stand.
pub(super) struct Placed {
    mirror: Mirror,
    name: Place,
    url: Place,
}

/// Reads one `[[mirror]]`.
pub(super) fn mirror(t: &mut Table<'_>) -> Placed {
    let Whereabouts { country, continent, point, .. } = whereabouts(t);
    let mirror = Mirror {
        name: t.required("name", &kinds::name()).unwrap_or_default(),
        url: t.required("url", &kinds::url()).unwrap_or_default(),
        country,
        continent: continent.or_else(|| country.and_then(Code::continent)),
        point,
        bandwidth: t.or("bandwidth", &kinds::bandwidth(), DONATED),
        networks: t.list("networks", &kinds::network()).unwrap_or_default(),
        asns: t.list("asns", &kinds::asn()).unwrap_or_default(),
        private: t.or("private", &kinds::truth(), false),
    };
    let is_empty = |key| t.place(key).value.is_none_or(|value| value == "[]");
    let anywhere =
        mirror.networks.is_empty() && mirror.asns.is_empty() && is_empty("networks") && is_empty("asns");
    if mirror.private && anywhere {
        t.mistake(
            "private",
            "expected false, or the networks that the mirror is for in mirror.networks or mirror.asns",
        );
    } else if anywhere && !t.given("country") && !t.given("continent") {
        t.warn("country", "missing, and no networks either: no client is near to this mirror");
    }
    Placed { mirror, name: t.place("name"), url: t.place("url") }
}

/// Where a mirror or a network is.
fn whereabouts(t: &mut Table<'_>) -> Whereabouts {
    Whereabouts {
        country: t.optional("country", &kinds::country()),
        continent: t.optional("continent", &kinds::continent()),
        asn: None,
        point: t.optional("location", &kinds::point()),
    }
}

/// Reads one `[[network]]`: several networks may be at one place.
pub(super) fn networks(t: &mut Table<'_>) -> Vec<Network> {
    let addresses = t.list("addresses", &kinds::network()).unwrap_or_default();
    if addresses.is_empty() && t.place("addresses").value.is_none_or(|value| value == "[]") {
        t.mistake("addresses", "expected the networks that this is said of");
    }
    let whereabouts = Whereabouts { asn: t.optional("asn", &kinds::asn()), ..whereabouts(t) };
    addresses.into_iter().map(|addresses| Network { addresses, whereabouts }).collect()
}

/// Reads `mirrors.geoip`.
pub(super) fn geoip(t: &mut Table<'_>) -> Vec<PathBuf> {
    let paths = t.one_or_more("geoip", &kinds::file(t.source.folder()));
    for path in &paths {
        readable(t, "geoip", path);
    }
    paths
}

/// The mirrors, after reporting those that are there twice or are this node.
pub(super) fn sound(report: &Report, all: Vec<Placed>, own: &[String]) -> Vec<Mirror> {
    let (mut names, mut urls) = (HashMap::new(), HashMap::new());
    for Placed { mirror, name, url } in &all {
        once(report, &mut names, &mirror.name, name, "name");
        once(report, &mut urls, &mirror.url, url, "URL");
        if own.contains(&mirror.url) {
            report.mistake(url, "expected another host than this node, which node.urls names");
        }
    }
    all.into_iter().map(|placed| placed.mirror).collect()
}

fn once<'a>(
    report: &Report,
    seen: &mut HashMap<&'a str, &'a Place>,
    value: &'a str,
    place: &'a Place,
    what: &str,
) {
    if value.is_empty() {
        return; // reported already
    }
    if let Some(first) = seen.get(value) {
        let at = format!("{}:{}", first.file.display(), first.line);
        report.mistake(place, &format!("expected a {what} that no other mirror has, but {at} has it too"));
    } else {
        seen.insert(value, place);
    }
}
