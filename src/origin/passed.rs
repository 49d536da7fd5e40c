//! An answer of the origin that is neither a file nor a failure: a client gets it as it is.
//!
//! Such answers are short: a redirect, "no such file", "payment required". Their bodies are read here, within a bound, so
//! that one answer serves all who ask at that moment.

use super::http::is_chunked;
use super::{OriginBody, OriginError};
use crate::clock::Timestamp;
use crate::http::freshness::{self, Exchange, Storage};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use hyper::header::HeaderMap;
use std::time::Duration;

/// The largest body that is passed on. What is longer is no error page.
const MAX_BODY_BYTES: u64 = 64 * 1024;

/// For how long one is remembered at most, whatever its fields say.
const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// The answer.
#[derive(Debug)]
pub struct Passed {
    /// Neither 200 nor a failure.
    pub status: StatusCode,
    /// All its header fields.
    pub headers: HeaderMap,
    /// All of its body; `None` if it is too long, or its end can't be told from a cut.
    pub body: Option<Bytes>,
    /// When the origin was asked, and answered.
    pub exchange: Exchange,
}

impl Passed {
    /// Reads the body. An answer of success without its body would be a wrong one.
    pub(super) async fn read(
        response: hyper::Response<Incoming>,
        exchange: Exchange,
        stall_timeout: Duration,
    ) -> Result<Self, OriginError> {
        let (parts, incoming) = response.into_parts();
        let promised = incoming.size_hint().exact();
        let has_end = promised.is_some() || is_chunked(&parts.headers);
        let body = if has_end && promised.is_none_or(|promised| promised <= MAX_BODY_BYTES) {
            OriginBody::new(incoming, promised, stall_timeout).collect(MAX_BODY_BYTES).await.ok()
        } else {
            None
        };
        if body.is_none() && parts.status.is_success() {
            return Err(OriginError::Status(parts.status));
        }
        Ok(Self { status: parts.status, headers: parts.headers, body, exchange })
    }

    /// For how long it answers others too: as its header fields say. Where they say nothing, only 404 and 410 hold for a while
    /// (RFC 9110 15.1); others are for those who asked meanwhile. A file may appear at any moment: that there is none holds for
    /// `absent` at most.
    #[must_use]
    pub fn lifetime(&self, absent: Duration) -> Duration {
        let (unstated, at_most) = match self.status {
            StatusCode::FORBIDDEN => (Duration::ZERO, absent),
            _ if self.is_absence() => (absent, absent),
            _ => (Duration::ZERO, MAX_LIFETIME),
        };
        match freshness::judge(&self.headers, unstated, self.exchange) {
            Storage::Store(terms) => terms.fresh_until().since(self.exchange.received).min(at_most),
            Storage::Pass => Duration::ZERO,
        }
    }

    /// Whether it says that there is no such file. A release that is being staged is unreadable: 403 is as absent as 404.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self.status, StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN)
    }

    /// Its age at `now` in seconds (RFC 9111 4.2.3).
    #[must_use]
    pub fn age(&self, now: Timestamp) -> u64 {
        let age = freshness::stated_age(&self.headers).saturating_add(now.since(self.exchange.received));
        age.as_secs()
    }

    /// What it takes in memory, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let fields = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        fields.sum::<usize>() + self.body.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    const NOW: Timestamp = Timestamp::from_secs(784_111_777);

    fn passed(status: u16, fields: &[(&'static str, &'static str)]) -> Passed {
        let fields =
            fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        Passed {
            status: StatusCode::from_u16(status).unwrap(),
            headers: fields.collect(),
            body: Some(Bytes::from_static(b"12345")),
            exchange: Exchange { asked: NOW, received: NOW, date: NOW },
        }
    }

    #[test]
    fn how_long_which_answer_is_remembered() {
        for (status, fields, seconds) in [
            (404, &[][..], 5),
            (410, &[], 5),
            (403, &[], 0),
            (403, &[("cache-control", "max-age=3600")], 5),
            (404, &[("cache-control", "no-store")], 0),
            (404, &[("cache-control", "private")], 0),
            (404, &[("cache-control", "no-cache")], 0),
            (404, &[("cache-control", "max-age=2")], 2),
            (404, &[("cache-control", "max-age=3600")], 5),
            (404, &[("cache-control", "max-age=3600"), ("age", "3599")], 1),
            (404, &[("vary", "user-agent")], 0),
            (301, &[], 0),
            (301, &[("cache-control", "max-age=1800")], 1800),
            (301, &[("cache-control", "max-age=86400")], 3600),
            (203, &[("expires", "Sun, 06 Nov 1994 08:49:47 GMT")], 10),
            (302, &[("cache-control", "max-age=3")], 3),
            (401, &[], 0),
            (451, &[], 0),
            (204, &[], 0),
        ] {
            let lifetime = passed(status, fields).lifetime(Duration::from_secs(5));
            assert_eq!(lifetime, Duration::from_secs(seconds), "{status} {fields:?}");
        }
        let old = passed(404, &[("age", "7")]);
        assert_eq!((old.age(NOW), old.age(NOW.plus(Duration::from_secs(3))), old.bytes()), (7, 10, 9));
    }
}
