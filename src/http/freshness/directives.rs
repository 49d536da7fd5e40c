//! `Cache-Control` as a shared cache reads it (RFC 9111 section 5.2.2, RFC 5861).

use http::HeaderMap;
use http::header::CACHE_CONTROL;
use std::time::Duration;

/// More seconds than this are this many (RFC 9111 1.2.2).
pub(super) const MAX_DELTA: Duration = Duration::from_secs(1 << 31);

/// The directives of a response that a shared cache heeds. `public` and `immutable` change nothing here: the node's own
/// requests carry no credentials, and what is fresh is never revalidated.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Directives {
    pub(super) no_store: bool,
    pub(super) private: bool,
    pub(super) no_cache: bool,
    /// `must-revalidate` or `proxy-revalidate`.
    pub(super) must_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) s_maxage: Option<Duration>,
    pub(super) stale_while_revalidate: Option<Duration>,
    pub(super) stale_if_error: Option<Duration>,
}

impl Directives {
    /// All `Cache-Control` fields taken together; of two times the shorter, of what can't be read the strictest.
    pub(super) fn of(response: &HeaderMap) -> Self {
        let mut all = Self::default();
        for value in response.get_all(CACHE_CONTROL) {
            match value.to_str() {
                Ok(text) => elements(text).for_each(|directive| all.take(directive)),
                Err(_) => all.no_cache = true,
            }
        }
        all
    }

    fn take(&mut self, directive: &str) {
        let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
        let shorter = |known: &mut Option<Duration>| {
            // A time that is none has passed (4.2.1).
            let stated = delta(argument.trim().trim_matches('"')).unwrap_or(Duration::ZERO);
            *known = Some(known.map_or(stated, |known| known.min(stated)));
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" => self.no_store = true,
            // With field names these two are narrower (5.2.2.4, 5.2.2.7); so rare that the wide reading does.
            "private" => self.private = true,
            "no-cache" => self.no_cache = true,
            "must-revalidate" | "proxy-revalidate" => self.must_revalidate = true,
            "must-understand" => self.must_understand = true,
            "max-age" => shorter(&mut self.max_age),
            "s-maxage" => shorter(&mut self.s_maxage),
            "stale-while-revalidate" => shorter(&mut self.stale_while_revalidate),
            "stale-if-error" => shorter(&mut self.stale_if_error),
            _ => {}
        }
    }

    /// Whether it may not be shared. A 200 is understood, so that `must-understand` lifts `no-store` (5.2.2.3).
    pub(super) const fn forbid_sharing(&self) -> bool {
        self.private || (self.no_store && !self.must_understand)
    }

    /// Whether it may not be used stale, whatever befalls the origin (4.2.4). `s-maxage` implies `proxy-revalidate`
    /// (5.2.2.10).
    pub(super) const fn forbid_stale(&self) -> bool {
        self.no_cache || self.must_revalidate || self.s_maxage.is_some()
    }
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
pub(super) fn delta(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().map_or(MAX_DELTA, Duration::from_secs).min(MAX_DELTA))
}
