//! `Cache-Status` (RFC 9211): every value that the node can send, made once.

use crate::policy::Reason;
use http::HeaderValue;

/// What the cache had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// It was there.
    Hit,
    /// It was there, and past its lifetime.
    Stale,
    /// It is just arriving, and stored.
    Fill,
    /// It comes from the origin, and isn't stored.
    Pass,
    /// The cache wasn't asked.
    None,
}

impl Cached {
    const ALL: [Self; 5] = [Self::Hit, Self::Stale, Self::Fill, Self::Pass, Self::None];

    /// The word of the access log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Fill => "fill",
            Self::Pass => "pass",
            Self::None => "none",
        }
    }

    const fn parameters(self) -> &'static str {
        match self {
            Self::Hit => "hit; ",
            Self::Stale => "fwd=stale; ",
            Self::Fill => "fwd=uri-miss; stored; ",
            Self::Pass => "fwd=uri-miss; ",
            Self::None => "",
        }
    }
}

/// The values of one node.
#[derive(Debug)]
pub struct CacheStatus(Vec<HeaderValue>);

impl CacheStatus {
    /// Of the node of this name.
    #[must_use]
    pub fn new(node: &str) -> Self {
        let value = |cached: Cached, reason: Reason| {
            let text = format!("{node}; {}detail={}", cached.parameters(), reason.word());
            HeaderValue::try_from(text).expect("a node's name is letters, digits, '.', '_' and '-'")
        };
        Self(Cached::ALL.iter().flat_map(|cached| Reason::ALL.map(|reason| value(*cached, reason))).collect())
    }

    /// The value, with the decision's reason as its detail.
    #[must_use]
    pub fn value(&self, cached: Cached, reason: Reason) -> HeaderValue {
        self.0[cached as usize * Reason::ALL.len() + reason as usize].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own() {
        let status = CacheStatus::new("use1");
        for (cached, reason, expected) in [
            (Cached::Hit, Reason::Own, "use1; hit; detail=own"),
            (Cached::Stale, Reason::Unlisted, "use1; fwd=stale; detail=unlisted"),
            (Cached::Fill, Reason::Window, "use1; fwd=uri-miss; stored; detail=window"),
            (Cached::Pass, Reason::Internal, "use1; fwd=uri-miss; detail=internal"),
            (Cached::None, Reason::Metadata, "use1; detail=metadata"),
        ] {
            assert_eq!(status.value(cached, reason), expected);
        }
    }
}
