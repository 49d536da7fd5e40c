//! When hosts look for updates, and whom they ask.
//!
//! A host looks every so often, but uses its metadata until they expire and its mirrorlist until that does. So a push waits on
//! each host for the next look that asks, and what that is told depends on a list that may be older than the push.

use crate::config::Scenario;
use crate::config::scenario::{HostKind, Region};
use std::time::Duration;

const DAY: f64 = 24.0 * 3600.0;

/// A host that has its place in a region, and its habits.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Number of its kind in [`Scenario::kinds`].
    pub kind: usize,
    /// Number of its region in [`Scenario::regions`].
    pub region: usize,
    /// Number of its link in [`Region::links`].
    pub link: usize,
    /// It takes drpms.
    pub drpms: bool,
    /// Share of the push that it has installed.
    pub needs: f64,
    asks: Asks,
    /// Its looks at which it asks for metadata of the rapid repo: one of them, and from one to the next, in seconds.
    rapid: (f64, f64),
}

/// The looks at which it asks for metadata.
#[derive(Clone, Copy, Debug)]
struct Asks {
    /// One of them, in seconds after the start.
    first: f64,
    /// Seconds from one to the next.
    every: f64,
    /// Each so many of them it asks for a mirrorlist, too; at those that leave this remainder.
    list_each: i64,
    remainder: i64,
}

/// One time at which a host asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask {
    /// Seconds after the start.
    pub at: f64,
    /// When it got the mirrorlist that it goes by; at the latest now.
    pub listed: f64,
}

impl Host {
    /// One of those that the scenario has.
    #[must_use]
    pub fn draw(scenario: &Scenario, rng: &mut fastrand::Rng) -> Self {
        let kind = weighted(scenario.kinds.iter().map(|kind| kind.share), rng);
        let region = weighted(scenario.regions.iter().map(|region| region.share), rng);
        let (habits, place) = (&scenario.kinds[kind], &scenario.regions[region]);
        let (least, most) = habits.needs;
        let (link, drpms) = (rng.usize(..place.links.len()), rng.f64() < habits.drpms);
        let needs = least + (most - least) * rng.f64();
        let asks = Asks::draw(habits, place, midnight(scenario), rng);
        let rapid = rapid(asks.first, habits, scenario, rng);
        Self { kind, region, link, drpms, needs, asks, rapid }
    }

    /// The first time that it asks for metadata of the rapid repo at `from` or later, in seconds after the start.
    #[must_use]
    pub fn asks_rapid_from(&self, from: f64) -> f64 {
        let (first, every) = self.rapid;
        first + ((from - first) / every).ceil() * every
    }

    /// The first time that it asks at `from` or later, in seconds after the start.
    #[must_use]
    pub fn ask_from(&self, from: f64) -> Ask {
        let Asks { first, every, list_each, remainder } = self.asks;
        #[expect(clippy::cast_possible_truncation, reason = "some asks after the first")]
        let number = ((from - first) / every).ceil() as i64;
        let since_list = (number - remainder).rem_euclid(list_each);
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let (number, since_list) = (number as f64, since_list as f64);
        let at = first + number * every;
        Ask { at, listed: at - since_list * every }
    }
}

impl Asks {
    fn draw(kind: &HostKind, region: &Region, midnight: f64, rng: &mut fastrand::Rng) -> Self {
        let every = kind.every.as_secs_f64();
        let looks = looks(kind, kind.expire);
        let asks_every = every * looks;
        let begin = kind.from.map_or(0.0, |from| {
            let (east, west) = (region.zones.1 as f64, region.zones.0 as f64);
            let zone = west + (east - west) * rng.f64();
            midnight + from.as_secs_f64() - zone * 3600.0
        });
        let spread = kind.spread.as_secs_f64() * rng.f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few looks")]
        let which = rng.u64(..looks as u64) as f64;
        #[expect(clippy::cast_possible_truncation, reason = "few asks")]
        let list_each = (kind.list.as_secs_f64() / asks_every).ceil().max(1.0) as i64;
        let first = begin + spread + which * every;
        Self { first, every: asks_every, list_each, remainder: rng.i64(..list_each) }
    }
}

/// The looks at which a host asks for the rapid repo's metadata: one of them, and from one to the next, in seconds.
fn rapid(look: f64, kind: &HostKind, scenario: &Scenario, rng: &mut fastrand::Rng) -> (f64, f64) {
    let expire = scenario.rapid.as_ref().map_or(Duration::ZERO, |rapid| rapid.expire);
    let (every, looks) = (kind.every.as_secs_f64(), looks(kind, expire));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few looks")]
    let which = if looks > 1.0 { rng.u64(..looks as u64) as f64 } else { 0.0 };
    (look + which * every, every * looks)
}

/// Looks from one that asks to the next, where metadata that are as old as `expire` aren't used any more.
fn looks(kind: &HostKind, expire: Duration) -> f64 {
    (expire.as_secs_f64() / kind.every.as_secs_f64()).ceil().max(1.0)
}

/// The midnight, UTC, of the day of the push, in seconds after the start.
fn midnight(scenario: &Scenario) -> f64 {
    let time = scenario.push.time.min(Duration::from_secs_f64(DAY));
    scenario.push.at.as_secs_f64() - time.as_secs_f64()
}

/// A number, drawn by its share of all.
fn weighted(shares: impl Iterator<Item = f64> + Clone, rng: &mut fastrand::Rng) -> usize {
    let mut left = rng.f64() * shares.clone().sum::<f64>();
    let mut last = 0;
    for (number, share) in shares.enumerate().filter(|(_, share)| *share > 0.0) {
        last = number;
        left -= share;
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn hosts(checks: &str) -> Vec<Host> {
        let text = format!("[[checks]]\nname = \"host\"\n{checks}");
        let (scenario, _) = Scenario::parse(&text, Path::new("s.toml")).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        (0..20_000).map(|_| Host::draw(&scenario, &mut rng)).collect()
    }

    fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
        values.sort_by(f64::total_cmp);
        values[(values.len() as f64 * share) as usize]
    }

    #[test]
    fn looks_come_by_the_day() {
        // A push at 14:00 UTC is first looked for from 03:00 local time on, at most 8 hours before UTC or 10 after it.
        let hosts = hosts("from = \"3h\"\nspread = \"1h\"");
        let waits: Vec<f64> = hosts.iter().map(|host| host.ask_from(0.0).at / 3600.0).collect();
        assert!(waits.iter().all(|wait| (0.0..24.0).contains(wait)));
        let us: Vec<f64> =
            hosts.iter().filter(|host| host.region == 0).map(|host| host.ask_from(0.0).at / 3600.0).collect();
        // 03:00 to 04:00 at UTC-8 to UTC-5 is 08:00 to 12:00 UTC: 18 to 22 h after the push.
        assert!(us.iter().all(|wait| (18.0..22.0).contains(wait)));
    }

    #[test]
    fn metadata_are_used_until_they_expire() {
        let waits: Vec<f64> =
            hosts("expire = \"48h\"").iter().map(|host| host.ask_from(0.0).at / 3600.0).collect();
        let median = quantile(waits.clone(), 0.5);
        assert!((23.0..25.0).contains(&median), "{median}");
        assert!(quantile(waits, 0.99) < 48.0);
    }

    #[test]
    fn a_list_is_as_old_as_it_may_be() {
        let asks: Vec<Ask> =
            hosts("every = \"6h\"\nlist = \"24h\"").iter().map(|host| host.ask_from(0.0)).collect();
        let of_before = asks.iter().filter(|ask| ask.listed < 0.0).count() as f64 / asks.len() as f64;
        assert!((of_before - 0.75).abs() < 0.02, "three of four asks go by an older list: {of_before}");
        assert!(asks.iter().all(|ask| ask.at - ask.listed < 24.0 * 3600.0));
        let next = hosts("every = \"6h\"")[0].ask_from(1.0);
        assert_eq!(next.at, next.listed, "without a cache each ask brings a list");
    }

    #[test]
    fn a_rapid_repo_is_asked_at_each_look_after_its_metadata_have_expired() {
        let asks = |text: &str| -> Vec<(f64, f64)> {
            hosts(text).iter().map(|host| (host.asks_rapid_from(0.0), host.ask_from(0.0).at)).collect()
        };
        let day = 24.0 * 3600.0;
        for (rapid, updates) in asks("expire = \"48h\"\n[rapid]") {
            assert!(rapid < day && updates < 2.0 * day);
            assert!(((updates - rapid) / day).fract().min(1.0) < 1e-9, "{rapid} {updates}: the same looks");
        }
        assert!(asks("[rapid]\nexpire = \"48h\"").iter().any(|(rapid, _)| *rapid > day));
    }

    #[test]
    fn shares_are_kept() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut counts = [0; 3];
        for _ in 0..30_000 {
            counts[weighted([0.5, 0.0, 0.25].into_iter(), &mut rng)] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((counts[0] - 20_000_i32).abs() < 500, "{counts:?}");
    }
}
