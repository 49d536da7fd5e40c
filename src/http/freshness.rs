//! Whether and for how long an answer of the origin may be reused (RFC 9111 sections 3 and 4.2).
//!
//! For what no catalogue lists: what one does list is kept by its checksum, whatever the origin's headers say.

use super::date;
use crate::clock::Timestamp;
use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL, DATE, EXPIRES, SET_COOKIE, VARY};
use std::time::Duration;

/// The longest lifetime that RFC 9111 1.2.2 asks a cache to tell apart, in seconds.
const MAX_DELTA_SECONDS: u64 = 1 << 31;

/// What a cache may do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Keep it; fresh for `lifetime` from now on. Zero: revalidate before each use.
    Store {
        /// The time from now until it is stale.
        lifetime: Duration,
    },
    /// It is for this one client or this one request only.
    Pass,
}

/// The directives of `Cache-Control` that a shared cache heeds.
#[derive(Default)]
struct Directives {
    no_store: bool,
    no_cache: bool,
    max_age: Option<u64>,
    s_maxage: Option<u64>,
}

/// Reads the origin's answer to a request without credentials (a node forwards none, so nothing here depends on
/// `Authorization`). `default_lifetime` is for an answer that says nothing about its own.
#[must_use]
pub fn storage(response: &HeaderMap, default_lifetime: Duration, now: Timestamp) -> Storage {
    let directives = directives(response);
    if directives.no_store || response.contains_key(SET_COOKIE) || varies(response) {
        return Storage::Pass;
    }
    if directives.no_cache {
        return Storage::Store { lifetime: Duration::ZERO };
    }
    let date = response.get(DATE).and_then(date::parse);
    let lifetime = match directives.s_maxage.or(directives.max_age) {
        Some(seconds) => Duration::from_secs(seconds),
        None => match response.get(EXPIRES) {
            // 5.3: what is no date, "0" above all, lies in the past.
            Some(value) => date::parse(value).unwrap_or(Timestamp::EPOCH).since(date.unwrap_or(now)),
            None => return Storage::Store { lifetime: default_lifetime },
        },
    };
    Storage::Store { lifetime: lifetime.saturating_sub(age(response, date, now)) }
}

/// How old the answer was when it came (4.2.3).
fn age(response: &HeaderMap, date: Option<Timestamp>, now: Timestamp) -> Duration {
    let apparent = date.map_or(Duration::ZERO, |date| now.since(date));
    let stated = response.get(AGE).and_then(|value| delta_seconds(value.to_str().ok()?));
    apparent.max(Duration::from_secs(stated.unwrap_or(0)))
}

/// Whether another client could be due another answer. The node asks for no content coding, so that one is settled.
fn varies(response: &HeaderMap) -> bool {
    response.get_all(VARY).iter().any(|value| match value.to_str() {
        Ok(text) => text
            .split(',')
            .map(str::trim)
            .any(|name| !name.is_empty() && !name.eq_ignore_ascii_case("accept-encoding")),
        Err(_) => true,
    })
}

/// All `Cache-Control` fields taken together; of two lifetimes the shorter, of what can't be read the strictest.
fn directives(response: &HeaderMap) -> Directives {
    let mut all = Directives::default();
    for value in response.get_all(CACHE_CONTROL) {
        let Ok(text) = value.to_str() else {
            all.no_cache = true;
            continue;
        };
        for directive in elements(text) {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            let seconds = || delta_seconds(argument.trim().trim_matches('"')).unwrap_or(0);
            match name.trim().to_ascii_lowercase().as_str() {
                // With field names these are narrower (5.2.2.4, 5.2.2.7); so rare that the wide reading does.
                "no-store" | "private" => all.no_store = true,
                "no-cache" => all.no_cache = true,
                "max-age" => {
                    all.max_age = Some(all.max_age.map_or_else(seconds, |known| known.min(seconds())));
                }
                "s-maxage" => {
                    all.s_maxage = Some(all.s_maxage.map_or_else(seconds, |known| known.min(seconds())));
                }
                _ => {}
            }
        }
    }
    all
}

/// Splits at the commas outside of quotes.
fn elements(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

/// `None` for what is no number; more than the cap is the cap.
fn delta_seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(MAX_DELTA_SECONDS).min(MAX_DELTA_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::{AUTHORIZATION, HeaderName};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_secs(784_111_777);
    const DEFAULT: Duration = Duration::from_secs(60);

    fn storage_of(fields: &[(HeaderName, &str)]) -> Storage {
        let map = fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        storage(&map, DEFAULT, NOW)
    }

    #[test]
    fn lifetimes() {
        const AT_NOW: (HeaderName, &str) = (DATE, "Sun, 06 Nov 1994 08:49:37 GMT");
        const EARLIER: (HeaderName, &str) = (DATE, "Sun, 06 Nov 1994 08:49:07 GMT");
        const IN_100: (HeaderName, &str) = (EXPIRES, "Sun, 06 Nov 1994 08:51:17 GMT");
        for (fields, seconds) in [
            (&[][..], Some(60)),
            (&[(CACHE_CONTROL, "public, immutable")], Some(60)),
            (&[(CACHE_CONTROL, "Max-Age=90")], Some(90)),
            (&[(CACHE_CONTROL, "max-age=\"90\"")], Some(90)),
            (&[(CACHE_CONTROL, "max-age=90, max-age=20")], Some(20)),
            (&[(CACHE_CONTROL, "max-age=90, s-maxage=30")], Some(30)),
            (&[(CACHE_CONTROL, "s-maxage=300"), (CACHE_CONTROL, "max-age=9")], Some(300)),
            (&[(CACHE_CONTROL, "max-age=99999999999999999999")], Some(MAX_DELTA_SECONDS)),
            (&[(CACHE_CONTROL, "max-age=-1")], Some(0)),
            (&[(CACHE_CONTROL, "max-age")], Some(0)),
            (&[(CACHE_CONTROL, "max-age=90"), (AGE, "50")], Some(40)),
            (&[(CACHE_CONTROL, "max-age=90"), (AGE, "500")], Some(0)),
            (&[(CACHE_CONTROL, "max-age=90"), (AGE, "young")], Some(90)),
            (&[(CACHE_CONTROL, "max-age=90"), EARLIER], Some(60)),
            (&[(CACHE_CONTROL, "max-age=90"), EARLIER, (AGE, "50")], Some(40)),
            (&[(CACHE_CONTROL, "max-age=90"), IN_100], Some(90)),
            (&[IN_100, AT_NOW], Some(100)),
            (&[IN_100], Some(100)),
            (&[IN_100, EARLIER], Some(100)),
            (&[(EXPIRES, "0")], Some(0)),
            (&[(CACHE_CONTROL, "no-cache, max-age=90")], Some(0)),
            (&[(CACHE_CONTROL, "no-cache=\"x, no-store\"")], Some(0)),
            (&[(CACHE_CONTROL, "x=\"no-store, private\", max-age=5")], Some(5)),
            (&[(CACHE_CONTROL, "\u{e9}")], Some(0)),
            (&[(VARY, "Accept-Encoding")], Some(60)),
            (&[(AUTHORIZATION, "x")], Some(60)),
            (&[(VARY, "accept-encoding, User-Agent")], None),
            (&[(VARY, "*")], None),
            (&[(CACHE_CONTROL, "max-age=90, No-Store")], None),
            (&[(CACHE_CONTROL, "private"), (CACHE_CONTROL, "max-age=90")], None),
            (&[(SET_COOKIE, "a=b")], None),
        ] {
            let expected = seconds
                .map_or(Storage::Pass, |seconds| Storage::Store { lifetime: Duration::from_secs(seconds) });
            assert_eq!(storage_of(fields), expected, "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_harmless(text in "(max-age|s-maxage|no-cache|=|\"|,|[0-9]){0,12}|\\PC{0,20}", secs: u64) {
            let Ok(value) = HeaderValue::from_str(&text) else { return Ok(()) };
            for name in [CACHE_CONTROL, AGE, DATE, EXPIRES, VARY] {
                let map = HeaderMap::from_iter([(name, value.clone())]);
                if let Storage::Store { lifetime } = storage(&map, DEFAULT, Timestamp::from_millis(secs)) {
                    prop_assert!(lifetime <= Duration::from_secs(MAX_DELTA_SECONDS));
                }
            }
        }
    }
}
