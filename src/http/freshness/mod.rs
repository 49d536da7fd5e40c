//! Whether and for how long an answer of the origin may be reused (RFC 9111 sections 3 and 4.2, RFC 5861).
//!
//! For what no catalogue lists: what one does list is kept by its checksum, whatever the origin's headers say. A node asks
//! for itself and forwards no field of its clients, so that nothing here depends on `Authorization`.

mod directives;
#[cfg(test)]
mod tests;

use super::date;
use crate::clock::Timestamp;
use directives::{Directives, MAX_DELTA, delta};
use http::HeaderMap;
use http::header::{AGE, DATE, EXPIRES, SET_COOKIE, VARY};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a cache may do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Keep it, on these terms.
    Store(Terms),
    /// It is for this one client or this one request only.
    Pass,
}

/// When the origin was asked, and when the head of its answer was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// `request_time` of RFC 9111 4.2.3.
    pub asked: Timestamp,
    /// `response_time`.
    pub received: Timestamp,
    /// The same by the wall clock, as the origin's own dates are.
    pub date: Timestamp,
}

/// On which terms a stored answer may be used without asking the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// When the origin last sent it, or said that it is still right.
    pub confirmed: Timestamp,
    /// How old it was then: not 0 where another cache is in between, or a clock is wrong.
    pub initial_age: Duration,
    /// Up to which age it is fresh.
    pub lifetime: Duration,
    /// How long it may be used beyond that while it is being revalidated.
    pub while_revalidating: Grace,
    /// How long it may be used beyond that while the origin fails.
    pub if_error: Grace,
}

/// For how long a stale answer may be used, by the origin's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grace {
    /// Not at all.
    Forbidden,
    /// For this time.
    Stated(Duration),
    /// As the operator thinks right: the origin doesn't say.
    Unstated,
}

impl Grace {
    const fn of(stated: Option<Duration>) -> Self {
        match stated {
            Some(time) => Self::Stated(time),
            None => Self::Unstated,
        }
    }

    fn or(self, unstated: Duration) -> Duration {
        match self {
            Self::Forbidden => Duration::ZERO,
            Self::Stated(time) => time,
            Self::Unstated => unstated,
        }
    }
}

impl Terms {
    /// An answer that says nothing about itself, of which nothing may be said either: stale at once.
    #[must_use]
    pub const fn none(received: Timestamp) -> Self {
        Self {
            confirmed: received,
            initial_age: Duration::ZERO,
            lifetime: Duration::ZERO,
            while_revalidating: Grace::Forbidden,
            if_error: Grace::Forbidden,
        }
    }

    /// `current_age` of 4.2.3 in whole seconds, for the `Age` field.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> u64 {
        self.initial_age.saturating_add(now.since(self.confirmed)).min(MAX_DELTA).as_secs()
    }

    /// From when on it is stale.
    #[must_use]
    pub fn fresh_until(&self) -> Timestamp {
        self.confirmed.plus(self.lifetime.saturating_sub(self.initial_age))
    }

    /// Whether it may be used at `now` while it is being revalidated behind (RFC 5861 section 3). `unstated` is for an
    /// origin that doesn't say.
    #[must_use]
    pub fn may_revalidate_behind(&self, unstated: Duration, now: Timestamp) -> bool {
        self.is_within(self.while_revalidating.or(unstated), now)
    }

    /// Whether it may be used at `now` while the origin fails (RFC 5861 section 4).
    #[must_use]
    pub fn may_cover_error(&self, unstated: Duration, now: Timestamp) -> bool {
        self.is_within(self.if_error.or(unstated), now)
    }

    fn is_within(&self, grace: Duration, now: Timestamp) -> bool {
        // What was stale when it came has used up some of its grace.
        let overdue = self.initial_age.saturating_sub(self.lifetime);
        now < self.fresh_until().plus(grace.saturating_sub(overdue))
    }
}

/// Reads the origin's 200, or what a 304 made of it. An answer that says nothing of its lifetime is fresh for `unstated` from
/// its receipt on, however old: that is the operator's word, not a guess from Last-Modified (4.2.2).
#[must_use]
pub fn judge(response: &HeaderMap, unstated: Duration, exchange: Exchange) -> Storage {
    let directives = Directives::of(response);
    if directives.forbid_sharing() || response.contains_key(SET_COOKIE) || varies(response) {
        return Storage::Pass;
    }
    let date = only_date(response);
    let initial_age = initial_age(response, date, exchange);
    let lifetime = if directives.no_cache {
        Duration::ZERO
    } else if let Some(stated) = directives.s_maxage.or(directives.max_age) {
        stated
    } else if response.contains_key(EXPIRES) {
        expires(response).since(date.unwrap_or(exchange.date)).min(MAX_DELTA)
    } else {
        initial_age.saturating_add(unstated)
    };
    let (while_revalidating, if_error) = if directives.forbid_stale() {
        (Grace::Forbidden, Grace::Forbidden)
    } else {
        (Grace::of(directives.stale_while_revalidate), Grace::of(directives.stale_if_error))
    };
    let confirmed = exchange.received;
    Storage::Store(Terms { confirmed, initial_age, lifetime, while_revalidating, if_error })
}

/// `corrected_initial_age` of 4.2.3. Dates are whole seconds, and so is the age that they tell.
fn initial_age(response: &HeaderMap, date: Option<Timestamp>, exchange: Exchange) -> Duration {
    let Exchange { asked, received, date: received_at } = exchange;
    let apparent = date.map_or(0, |date| received_at.as_secs().saturating_sub(date.as_secs()));
    let corrected = stated_age(response).saturating_add(received.since(asked));
    corrected.max(Duration::from_secs(apparent)).min(MAX_DELTA)
}

/// What `Age` says: of several the first; nothing where that is no number (5.1).
#[must_use]
pub fn stated_age(response: &HeaderMap) -> Duration {
    let first = response.get(AGE).and_then(|value| value.to_str().ok());
    let first = first.into_iter().flat_map(|text| text.split(',')).find(|member| !member.trim().is_empty());
    first.and_then(delta).unwrap_or(Duration::ZERO)
}

/// The one valid Date. Without one, the time of receipt stands for it (RFC 9110 6.6.1).
#[must_use]
pub fn only_date(response: &HeaderMap) -> Option<Timestamp> {
    let mut values = response.get_all(DATE).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => date::parse(value),
        _ => None,
    }
}

/// 5.3: what is no date, "0" above all, lies in the past; so do several that could contradict each other.
fn expires(response: &HeaderMap) -> Timestamp {
    let mut values = response.get_all(EXPIRES).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => date::parse(value).unwrap_or(Timestamp::EPOCH),
        _ => Timestamp::EPOCH,
    }
}

/// Whether another client could be due another answer (4.1), `*` anywhere in the list included. The node always asks for
/// `identity`, so that one is settled.
fn varies(response: &HeaderMap) -> bool {
    response.get_all(VARY).iter().any(|value| match value.to_str() {
        Ok(text) => text
            .split(',')
            .map(str::trim)
            .any(|name| !name.is_empty() && !name.eq_ignore_ascii_case("accept-encoding")),
        Err(_) => true,
    })
}
