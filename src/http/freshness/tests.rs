//! Tables from the RFCs, and http-cache-semantics as an independent reading of them.

use super::*;
use http::header::{CACHE_CONTROL, HeaderName, PRAGMA};
use http::{HeaderValue, Request, Response};
use http_cache_semantics::{CacheOptions, CachePolicy};
use proptest::prelude::*;
use std::time::SystemTime;

const NOW: Timestamp = Timestamp::from_secs(784_111_777);
const AT_ONCE: Exchange = Exchange { asked: NOW, received: NOW, date: NOW };
const UNSTATED: Duration = Duration::from_secs(60);
const AT_NOW: (HeaderName, &str) = (DATE, "Sun, 06 Nov 1994 08:49:37 GMT");
const EARLIER: (HeaderName, &str) = (DATE, "Sun, 06 Nov 1994 08:49:07 GMT");
const LATER: (HeaderName, &str) = (DATE, "Sun, 06 Nov 1994 08:50:07 GMT");
const IN_100: (HeaderName, &str) = (EXPIRES, "Sun, 06 Nov 1994 08:51:17 GMT");
const MAX: u64 = MAX_DELTA.as_secs();

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
}

fn terms(fields: &[(HeaderName, &str)]) -> Option<Terms> {
    match judge(&headers(fields), UNSTATED, AT_ONCE) {
        Storage::Store(terms) => Some(terms),
        Storage::Pass => None,
    }
}

#[test]
fn how_long_what_is_fresh() {
    for (fields, seconds) in [
        (&[][..], Some(60)),
        (&[(CACHE_CONTROL, "public, immutable")], Some(60)),
        (&[(PRAGMA, "no-cache")], Some(60)),
        (&[(CACHE_CONTROL, "max-age=90"), (PRAGMA, "no-cache")], Some(90)),
        (&[(CACHE_CONTROL, "Max-Age=90")], Some(90)),
        (&[(CACHE_CONTROL, "max-age=\"90\"")], Some(90)),
        (&[(CACHE_CONTROL, "max-age=90, max-age=20")], Some(20)),
        (&[(CACHE_CONTROL, "max-age=90, s-maxage=30")], Some(30)),
        (&[(CACHE_CONTROL, "s-maxage=300"), (CACHE_CONTROL, "max-age=9")], Some(300)),
        (&[(CACHE_CONTROL, "max-age=99999999999999999999")], Some(MAX)),
        (&[(CACHE_CONTROL, "max-age=-1")], Some(0)),
        (&[(CACHE_CONTROL, "max-age=1.5")], Some(0)),
        (&[(CACHE_CONTROL, "max-age")], Some(0)),
        (&[(CACHE_CONTROL, "max-age=90, s-maxage=x")], Some(0)),
        (&[(CACHE_CONTROL, "max-age=90"), (AGE, "50")], Some(40)),
        (&[(CACHE_CONTROL, "max-age=90"), (AGE, "500")], Some(0)),
        (&[(CACHE_CONTROL, "max-age=90"), (AGE, "99999999999999999999")], Some(0)),
        (&[(CACHE_CONTROL, "max-age=4294967296"), (AGE, "2147483648")], Some(0)),
        (&[(CACHE_CONTROL, "max-age=90"), EARLIER], Some(60)),
        (&[(CACHE_CONTROL, "max-age=90"), EARLIER, (AGE, "50")], Some(40)),
        (&[(CACHE_CONTROL, "max-age=90"), LATER], Some(90)),
        (&[(CACHE_CONTROL, "max-age=90"), (DATE, "now")], Some(90)),
        (&[(CACHE_CONTROL, "max-age=90"), IN_100], Some(90)),
        (&[IN_100, AT_NOW], Some(100)),
        (&[IN_100], Some(100)),
        (&[IN_100, EARLIER], Some(100)),
        (&[IN_100, EARLIER, EARLIER], Some(100)),
        (&[IN_100, AT_NOW, (AGE, "30")], Some(70)),
        (&[IN_100, IN_100], Some(0)),
        (&[(EXPIRES, "0")], Some(0)),
        (&[(EXPIRES, "")], Some(0)),
        (&[(EXPIRES, "-1"), IN_100], Some(0)),
        (&[(EXPIRES, "Sun, 06 Nov 1994 08:49:37 GMT"), AT_NOW], Some(0)),
        (&[(EXPIRES, "Fri, 31 Dec 9999 23:59:59 GMT"), AT_NOW], Some(MAX)),
        (&[(CACHE_CONTROL, "no-cache, max-age=90")], Some(0)),
        (&[(CACHE_CONTROL, "no-cache=\"x, no-store\"")], Some(0)),
        (&[(CACHE_CONTROL, "x=\"no-store, private\", max-age=5")], Some(5)),
        (&[(CACHE_CONTROL, "\u{e9}")], Some(0)),
        (&[(CACHE_CONTROL, "no-store, must-understand, max-age=7")], Some(7)),
        (&[(CACHE_CONTROL, "must-revalidate, max-age=7")], Some(7)),
        (&[(VARY, "Accept-Encoding")], Some(60)),
        (&[(VARY, ""), (VARY, "accept-encoding, ,Accept-Encoding")], Some(60)),
        (&[(VARY, "accept-encoding, User-Agent")], None),
        (&[(VARY, "*")], None),
        (&[(VARY, "Accept-Encoding, *")], None),
        (&[(VARY, "Accept-Encoding"), (VARY, " * ")], None),
        (&[(CACHE_CONTROL, "max-age=90, No-Store")], None),
        (&[(CACHE_CONTROL, "private"), (CACHE_CONTROL, "max-age=90")], None),
        (&[(CACHE_CONTROL, "private=\"x\", public, max-age=90")], None),
        (&[(CACHE_CONTROL, "private, must-understand, no-store")], None),
        (&[(SET_COOKIE, "a=b")], None),
    ] {
        let left = terms(fields).map(|terms| terms.fresh_until().since(NOW));
        assert_eq!(left, seconds.map(secs), "{fields:?}");
    }
}

#[test]
fn how_old_what_is() {
    for (fields, delay, seconds) in [
        (&[][..], 0, 0),
        (&[AT_NOW], 0, 0),
        (&[EARLIER], 0, 30),
        (&[LATER], 0, 0),
        (&[EARLIER, LATER], 0, 0),
        (&[(AGE, "50")], 0, 50),
        (&[EARLIER, (AGE, "50")], 0, 50),
        (&[EARLIER, (AGE, "5")], 0, 30),
        // The whole time of the exchange may have passed since Age was told; Date needs no such care.
        (&[EARLIER, (AGE, "50")], 7, 57),
        (&[EARLIER], 7, 30),
        (&[AT_NOW], 7, 7),
        // 5.1: of a list the first; what is no number is ignored.
        (&[(AGE, "5, 500")], 0, 5),
        (&[(AGE, "5"), (AGE, "500")], 0, 5),
        (&[(AGE, ", 5")], 0, 5),
        (&[(AGE, "young, 500")], 0, 0),
        (&[(AGE, "-5")], 0, 0),
        (&[(AGE, "5.0")], 0, 0),
        (&[(AGE, "")], 0, 0),
        (&[(AGE, "2147483648")], 0, MAX),
        (&[(AGE, "2147483649")], 7, MAX),
        (&[(AGE, "99999999999999999999")], 0, MAX),
        (&[(DATE, "Thu, 01 Jan 1970 00:00:00 GMT")], 0, 784_111_777),
        (&[(DATE, "0")], 0, 0),
    ] {
        let exchange =
            Exchange { asked: Timestamp::from_secs(NOW.as_secs() - delay), received: NOW, date: NOW };
        let Storage::Store(terms) = judge(&headers(fields), UNSTATED, exchange) else { panic!("{fields:?}") };
        assert_eq!(terms.age(NOW), seconds, "{fields:?}");
        assert_eq!(terms.age(NOW.plus(Duration::from_millis(9_999))), (seconds + 9).min(MAX), "{fields:?}");
        assert_eq!(terms.age(Timestamp::EPOCH), seconds, "a clock that went back: {fields:?}");
    }
}

#[test]
fn how_long_what_may_be_used_stale() {
    // Operator's word for both: 5 s. Then seconds of use (behind a revalidation, while the origin fails), all stale at NOW.
    for (cache_control, behind, failing) in [
        ("max-age=0", 5, 5),
        ("max-age=0, stale-while-revalidate=30", 30, 5),
        ("max-age=0, stale-if-error=30", 5, 30),
        ("max-age=0, stale-if-error=30, stale-if-error=9", 5, 9),
        ("max-age=0, stale-if-error=0, stale-while-revalidate=0", 0, 0),
        ("max-age=0, stale-if-error=x", 5, 0),
        ("max-age=0, stale-if-error=30, stale-while-revalidate=30, must-revalidate", 0, 0),
        ("max-age=0, stale-if-error=30, stale-while-revalidate=30, proxy-revalidate", 0, 0),
        ("s-maxage=0, stale-if-error=30, stale-while-revalidate=30", 0, 0),
        ("no-cache, stale-if-error=30, stale-while-revalidate=30", 0, 0),
    ] {
        let terms = terms(&[(CACHE_CONTROL, cache_control)]).unwrap();
        let at = |seconds: u64| NOW.plus(secs(seconds));
        let until = |may: &dyn Fn(Timestamp) -> bool| (0..40).take_while(|second| may(at(*second))).count();
        let found = (
            until(&|at| terms.may_revalidate_behind(secs(5), at)),
            until(&|at| terms.may_cover_error(secs(5), at)),
        );
        assert_eq!(found, (behind, failing), "{cache_control}");
    }
    let old = terms(&[(CACHE_CONTROL, "max-age=10, stale-if-error=30"), (AGE, "25")]).unwrap();
    assert!(
        old.may_cover_error(secs(5), NOW.plus(secs(14))) && !old.may_cover_error(secs(5), NOW.plus(secs(15)))
    );
}

fn cache_control() -> impl Strategy<Value = String> {
    let directive = prop_oneof![
        (0_u64..300).prop_map(|secs| format!("max-age={secs}")),
        (0_u64..300).prop_map(|secs| format!("s-maxage={secs}")),
        (0_u64..300).prop_map(|secs| format!("stale-if-error={secs}")),
        prop::sample::select(vec!["no-store", "private", "no-cache", "public", "must-revalidate", "x=y"])
            .prop_map(str::to_owned),
    ];
    // Of a name only once: of two times the crate takes the last, we the shorter.
    prop::collection::vec(directive, 0..4).prop_map(|mut all| {
        all.sort_by_key(|directive| directive.split('=').next().map(str::to_owned));
        all.dedup_by_key(|directive| directive.split('=').next().map(str::to_owned));
        all.join(", ")
    })
}

proptest! {
    /// Where two readings of the RFC should agree: a 200 to a GET without credentials, each field at most once and well-formed,
    /// some lifetime stated. Left out on purpose: heuristics (we have none, cache.revalidate instead), `Pragma` (we ignore it),
    /// `must-understand` and cookies (unknown to the crate, or left to an option), Vary (decided by request there), a Date in
    /// the past (the crate counts age from Age and receipt alone, we from Date too), `proxy-revalidate` (which there makes an
    /// answer stale at once; 5.2.2.8 asks that only of one that is stale already).
    #[test]
    fn another_reading_of_the_rfc_agrees(
        cache_control in cache_control(),
        expires in prop::option::of(0_u64..300),
        age in prop::option::of(0_u64..300),
        later in 0_u64..400,
    ) {
        let says = ["max", "no-store", "private"].iter().any(|word| cache_control.contains(word));
        let expires = expires.or((!says).then_some(150));
        let date = |secs: u64| date::format(NOW.plus(Duration::from_secs(secs)));
        let mut fields = HeaderMap::from_iter([(DATE, date(0))]);
        if !cache_control.is_empty() {
            fields.insert(CACHE_CONTROL, HeaderValue::try_from(&cache_control).unwrap());
        }
        expires.map(|expires| fields.insert(EXPIRES, date(expires)));
        age.map(|age| fields.insert(AGE, age.into()));

        let request = Request::get("http://o.example/x").body(()).unwrap();
        let mut response = Response::new(());
        *response.headers_mut() = fields.clone();
        let options = CacheOptions { cache_heuristic: 0.0, immutable_min_time_to_live: Duration::ZERO, ignore_cargo_cult: false, shared: true };
        let policy = CachePolicy::new_options(&request, &response, SystemTime::from(NOW), options);
        match judge(&fields, UNSTATED, AT_ONCE) {
            Storage::Pass => prop_assert!(!policy.is_storable(), "{:?}", fields),
            Storage::Store(terms) => {
                prop_assert!(policy.is_storable(), "{:?}", fields);
                let at = NOW.plus(Duration::from_secs(later));
                prop_assert_eq!(terms.age(at), policy.age(SystemTime::from(at)).as_secs(), "{:?}", fields);
                prop_assert_eq!(at < terms.fresh_until(), !policy.is_stale(SystemTime::from(at)), "{:?} at {}", fields, later);
            }
        }
    }

    #[test]
    fn any_header_is_harmless(text in "(max-age|s-maxage|no-cache|stale-if-error|=|\"|,|[0-9]){0,12}|\\PC{0,20}", now: u64, asked: u64) {
        let Ok(value) = HeaderValue::from_str(&text) else { return Ok(()) };
        let now = Timestamp::from_millis(now);
        for name in [CACHE_CONTROL, AGE, DATE, EXPIRES, VARY] {
            let map = HeaderMap::from_iter([(name, value.clone())]);
            let exchange = Exchange { asked: Timestamp::from_millis(asked), received: now, date: now };
            if let Storage::Store(terms) = judge(&map, UNSTATED, exchange) {
                prop_assert!(terms.fresh_until().since(now) <= MAX_DELTA);
                prop_assert!(terms.age(now) <= MAX);
                let _ = (terms.may_cover_error(Duration::MAX, now), terms.may_revalidate_behind(Duration::MAX, now));
            }
        }
    }
}

/// The node's time and the wall clock differ once the latter was set. What the origin dates is compared to the wall clock.
#[test]
fn a_clock_that_was_set_makes_nothing_older() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    for date in [NOW.plus(hours(5)), NOW.plus(hours(0))] {
        let exchange = Exchange { asked: NOW, received: NOW, date };
        let expires = date::format(date.plus(hours(1)));
        let sent = date::format(date);
        let response: HeaderMap = [(DATE, sent), (EXPIRES, expires)].into_iter().collect();
        let Storage::Store(terms) = judge(&response, Duration::ZERO, exchange) else {
            panic!("it is for all")
        };
        assert_eq!((terms.confirmed, terms.initial_age, terms.lifetime), (NOW, Duration::ZERO, hours(1)));
    }
}
