//! Which header fields of an answer a cache keeps and sends on (RFC 9111 sections 3.1 and 3.2).
//!
//! All end-to-end ones, but for those that the node itself determines, and those that speak of the host that answers rather than
//! of the file. To yum 3 those are not sent that it misreads.

use super::{date, freshness};
use crate::clock::Timestamp;
use http::header::{
    ACCEPT_RANGES, AGE, ALT_SVC, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderName, LAST_MODIFIED, LINK, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, STRICT_TRANSPORT_SECURITY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

/// Names, values and their punctuation together; an answer with more passes by uncached.
pub const MAX_FIELDS_BYTES: usize = 16 * 1024;
/// `: ` and the line's end.
const PUNCTUATION_BYTES: usize = 4;

/// Of one connection only (RFC 9110 7.6.1, RFC 9111 3.1), whether Connection names them or not.
const HOP_BY_HOP: [HeaderName; 11] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("proxy-connection"),
];

/// What the node says itself.
const OWN: [HeaderName; 6] = [ACCEPT_RANGES, AGE, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED];

/// What a 304 can't change of a stored answer: how its bytes are to be read (RFC 9111 3.2).
const OF_THE_BYTES: [HeaderName; 2] = [CONTENT_ENCODING, CONTENT_RANGE];

/// What holds for the origin's host: cookies (a client's never reach the origin), transport, other addresses.
const OF_THE_HOST: [HeaderName; 4] =
    [ALT_SVC, SET_COOKIE, STRICT_TRANSPORT_SECURITY, HeaderName::from_static("set-cookie2")];

/// The fields of a stored answer that are sent with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(HeaderMap);

impl Fields {
    /// Those of an answer that came at `received`. One without a usable Date gets one (RFC 9110 6.6.1).
    #[must_use]
    pub fn of(response: &HeaderMap, received: Timestamp) -> Self {
        let mut kept = HeaderMap::new();
        for (name, value) in response {
            if is_kept(response, name) {
                kept.append(name.clone(), value.clone());
            }
        }
        if freshness::only_date(response).is_none() {
            kept.insert(DATE, date::format(received));
        }
        Self(kept)
    }

    /// The same after a 304 that came at `received`: what it names is replaced, all fields of a name together (RFC 9111
    /// 3.2).
    #[must_use]
    pub fn updated(&self, not_modified: &HeaderMap, received: Timestamp) -> Self {
        let (mut kept, mut newer) = (self.0.clone(), Self::of(not_modified, received).0);
        for name in &OF_THE_BYTES {
            newer.remove(name);
        }
        for name in newer.keys() {
            kept.remove(name);
        }
        kept.extend(newer);
        Self(kept)
    }

    /// Whether they are few enough to be stored.
    #[must_use]
    pub fn fit(&self) -> bool {
        self.bytes() <= MAX_FIELDS_BYTES
    }

    /// What they take, punctuation included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.as_str().len() + value.len() + PUNCTUATION_BYTES).sum()
    }

    /// All of them, those of one name in the order in which they came.
    #[must_use]
    pub const fn map(&self) -> &HeaderMap {
        &self.0
    }

    /// Whether they tell caches downstream what to do.
    #[must_use]
    pub fn govern_caching(&self) -> bool {
        self.0.contains_key(CACHE_CONTROL) || self.0.contains_key(EXPIRES)
    }

    /// Whether yum 3 misreads one of them.
    #[must_use]
    pub fn has_misread(&self) -> bool {
        self.0.iter().any(|(name, value)| is_misread(name, value))
    }

    /// As pairs, to be written down.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, Vec<u8>)> {
        self.0.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
    }

    /// From such pairs; `None` where one is no field.
    #[must_use]
    pub fn from_pairs(pairs: &[(String, Vec<u8>)]) -> Option<Self> {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::try_from(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        }
        Some(Self(map))
    }
}

/// Takes out what yum 3 misreads.
pub fn remove_misread(headers: &mut HeaderMap) {
    let misread = |(name, value): (&HeaderName, &HeaderValue)| is_misread(name, value).then(|| name.clone());
    let names: Vec<HeaderName> = headers.iter().filter_map(misread).collect();
    for name in names {
        headers.remove(name);
    }
}

/// Takes out what describes a body, which isn't sent.
pub fn remove_content(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("content-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn is_kept(response: &HeaderMap, name: &HeaderName) -> bool {
    let unwanted = [&HOP_BY_HOP[..], &OWN[..], &OF_THE_HOST[..]].iter().any(|names| names.contains(name));
    // Date is the node's to set where the origin's is unusable.
    let no_date = name == DATE && freshness::only_date(response).is_none();
    !unwanted && !no_date && !is_named_in_connection(response, name)
}

fn is_named_in_connection(response: &HeaderMap, name: &HeaderName) -> bool {
    response.get_all(CONNECTION).iter().any(|value| {
        let mut options = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        options.any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

/// yum 3 (urlgrabber) takes any header line with `location` in it for a redirect, and one with `content-length:` for the
/// length. Of Link there is no telling what it will name.
fn is_misread(name: &HeaderName, value: &HeaderValue) -> bool {
    let contains =
        |text: &[u8], word: &[u8]| text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    name == LINK
        || contains(name.as_str().as_bytes(), b"location")
        || contains(value.as_bytes(), b"location")
        || contains(value.as_bytes(), b"content-length:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_secs(784_111_777);
    const DATED: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:00 GMT");

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |&(name, value): &(&str, &str)| {
            (HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        fields.iter().map(field).collect()
    }

    fn kept(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = Fields::of(&headers(fields), NOW).pairs();
        pairs.into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect()
    }

    #[test]
    fn end_to_end_fields_are_kept_in_order() {
        let fields = [
            DATED,
            ("x-b", "1"),
            ("x-a", "\u{e9}"),
            ("x-b", "2"),
            ("expires", "0"),
            ("vary", "accept-encoding"),
        ];
        let of = |name: &str| -> Vec<String> {
            kept(&fields).into_iter().filter(|(known, _)| known == name).map(|(_, value)| value).collect()
        };
        assert_eq!(kept(&fields).len(), 6);
        assert_eq!(
            (of("x-b"), of("x-a"), of("expires")),
            (vec!["1".into(), "2".into()], vec!["\u{e9}".into()], vec!["0".into()])
        );
    }

    #[test]
    fn what_is_not_kept() {
        for unwanted in [
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("trailer", "x"),
            ("content-length", "5"),
            ("content-type", "text/plain"),
            ("accept-ranges", "none"),
            ("etag", "\"1\""),
            ("last-modified", "Sun, 06 Nov 1994 08:49:00 GMT"),
            ("age", "5"),
            ("set-cookie", "a=b"),
            ("set-cookie2", "a=b"),
            ("alt-svc", "h3=\":443\""),
            ("strict-transport-security", "max-age=5"),
        ] {
            assert_eq!(kept(&[DATED, unwanted]), [(DATED.0.to_owned(), DATED.1.to_owned())], "{unwanted:?}");
        }
    }

    #[test]
    fn what_yum_3_misreads_is_kept_and_not_sent_to_it() {
        for misread in [
            ("link", "</x>; rel=next"),
            ("content-location", "/x"),
            ("x-original-location", "/x"),
            ("access-control-expose-headers", "LoCation"),
            ("x-said", "Content-Length: 7"),
        ] {
            let fields = Fields::of(&headers(&[DATED, ("x-a", "1"), misread, ("x-a", "2")]), NOW);
            assert_eq!(
                (fields.has_misread(), fields.map().get(misread.0).is_some()),
                (true, true),
                "{misread:?}"
            );
            let mut sent = fields.map().clone();
            remove_misread(&mut sent);
            assert_eq!(sent, headers(&[DATED, ("x-a", "1"), ("x-a", "2")]), "{misread:?}");
        }
        for harmless in
            [("content-encoding", "gzip"), ("via", "1.1 x"), ("cache-status", "x; hit"), ("x", "loc")]
        {
            let fields = Fields::of(&headers(&[DATED, harmless]), NOW);
            assert_eq!((fields.has_misread(), fields.map().len()), (false, 2), "{harmless:?}");
        }
    }

    #[test]
    fn fields_named_in_connection_are_of_that_connection() {
        let fields = [
            DATED,
            ("connection", "close, X-Hop ,, x-two"),
            ("connection", "X-Three"),
            ("x-hop", "1"),
            ("x-hop", "2"),
            ("x-two", "3"),
            ("x-three", "4"),
            ("x-end", "5"),
        ];
        assert_eq!(kept(&fields)[1..], [("x-end".to_owned(), "5".to_owned())]);
    }

    #[test]
    fn a_date_that_is_missing_or_wrong_is_the_time_of_receipt() {
        let now = [("date".to_owned(), "Sun, 06 Nov 1994 08:49:37 GMT".to_owned())];
        assert_eq!(kept(&[]), now);
        assert_eq!(kept(&[("date", "yesterday")]), now);
        assert_eq!(kept(&[DATED, DATED]), now);
    }

    #[test]
    fn a_304_replaces_what_it_names() {
        let stored = Fields::of(
            &headers(&[DATED, ("x-a", "1"), ("x-a", "2"), ("x-b", "3"), ("cache-control", "max-age=5")]),
            NOW,
        );
        let newer = headers(&[
            ("x-a", "4"),
            ("x-c", "5"),
            ("content-type", "x/y"),
            ("content-length", "0"),
            ("content-encoding", "gzip"),
            ("content-range", "bytes 0-1/2"),
            ("connection", "x-b"),
            ("x-b", "6"),
            ("cache-control", "no-cache"),
        ]);
        let expected = [
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("x-a", "4"),
            ("x-b", "3"),
            ("x-c", "5"),
            ("cache-control", "no-cache"),
        ];
        assert_eq!(*stored.updated(&newer, NOW).map(), headers(&expected));
    }

    #[test]
    fn their_size_is_bounded() {
        let long = "x".repeat(MAX_FIELDS_BYTES - "x-a".len() - PUNCTUATION_BYTES - 39);
        let fields = Fields::of(&headers(&[DATED, ("x-a", &long)]), NOW);
        assert_eq!((fields.bytes(), fields.fit()), (MAX_FIELDS_BYTES - 2, true));
        assert!(!fields.updated(&headers(&[("x-b", "")]), NOW).fit());
    }

    proptest! {
        #[test]
        fn what_is_written_down_is_read_back(fields in prop::collection::vec(("[a-z]{1,6}", "[ -~]{0,9}"), 0..12)) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.trim())).collect();
            let fields = Fields::of(&headers(&fields), NOW);
            prop_assert_eq!(Fields::from_pairs(&fields.pairs()), Some(fields.clone()));
            prop_assert_eq!(fields.updated(&HeaderMap::from_iter([(DATE, fields.map()[DATE].clone())]), NOW), fields);
        }
    }
}
