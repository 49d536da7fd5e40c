//! Conditional requests (RFC 9110 section 13).

use super::date;
use crate::clock::Timestamp;
use http::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};

/// What names the state of a representation that exists.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// The entity tag with its quotes, and `W/` where it is weak.
    pub etag: Option<&'a str>,
    /// The last modification; compared in whole seconds, as the header carries it.
    pub last_modified: Option<Timestamp>,
}

/// What the preconditions of a GET or HEAD come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were none.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Evaluates the preconditions of a GET or HEAD, in the order of section 13.2.2. `If-Range` is apart: [`if_range_holds`].
#[must_use]
pub fn evaluate(headers: &HeaderMap, validators: &Validators<'_>) -> Outcome {
    if headers.is_empty() {
        return Outcome::Proceed;
    }
    if headers.contains_key(IF_MATCH) {
        if !any_tag(headers, IF_MATCH, validators.etag, Comparison::Strong) {
            return Outcome::PreconditionFailed;
        }
    } else if modified_after(headers, IF_UNMODIFIED_SINCE, validators) == Some(true) {
        return Outcome::PreconditionFailed;
    }
    let unchanged = if headers.contains_key(IF_NONE_MATCH) {
        any_tag(headers, IF_NONE_MATCH, validators.etag, Comparison::Weak)
    } else {
        modified_after(headers, IF_MODIFIED_SINCE, validators) == Some(false)
    };
    if unchanged { Outcome::NotModified } else { Outcome::Proceed }
}

/// Whether a `Range` header is to be followed (13.1.5): true without `If-Range`; with it, when its one validator is strong and
/// exactly the current one.
#[must_use]
pub fn if_range_holds(headers: &HeaderMap, validators: &Validators<'_>) -> bool {
    let mut values = headers.get_all(IF_RANGE).iter();
    let Some(value) = values.next() else { return true };
    if values.next().is_some() {
        return false;
    }
    match tags(value.as_bytes()).next() {
        Some(tag) => validators.etag.is_some_and(|etag| matches(tag, etag.as_bytes(), Comparison::Strong)),
        None => date::parse(value)
            .zip(validators.last_modified)
            .is_some_and(|(asked, modified)| asked.as_secs() == modified.as_secs()),
    }
}

/// Section 8.8.3.2.
#[derive(Clone, Copy)]
enum Comparison {
    Strong,
    Weak,
}

/// `None` where the condition is to be ignored: no such header, more than one, no date in it, or no known modification.
fn modified_after(headers: &HeaderMap, name: HeaderName, validators: &Validators<'_>) -> Option<bool> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    Some(validators.last_modified?.as_secs() > date::parse(value)?.as_secs())
}

fn any_tag(headers: &HeaderMap, name: HeaderName, etag: Option<&str>, comparison: Comparison) -> bool {
    headers.get_all(name).iter().any(|value| {
        value.as_bytes().trim_ascii() == b"*"
            || etag.is_some_and(|etag| {
                tags(value.as_bytes()).any(|tag| matches(tag, etag.as_bytes(), comparison))
            })
    })
}

fn matches(asked: &[u8], etag: &[u8], comparison: Comparison) -> bool {
    match comparison {
        Comparison::Strong => asked == etag && !etag.starts_with(b"W/"),
        Comparison::Weak => {
            asked.strip_prefix(b"W/").unwrap_or(asked) == etag.strip_prefix(b"W/").unwrap_or(etag)
        }
    }
}

/// The entity tags of a list, which may have commas inside their quotes; ends at the first thing that is none.
fn tags(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b',', after @ ..] = rest {
            rest = after;
        }
        let opening = if rest.starts_with(b"W/") { 2 } else { 0 };
        if rest.get(opening) != Some(&b'"') {
            return None;
        }
        let closing = opening + 1 + rest[opening + 1..].iter().position(|&byte| byte == b'"')?;
        let (tag, after) = rest.split_at(closing + 1);
        rest = after;
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const STRONG: Validators<'_> =
        Validators { etag: Some("\"a,b\""), last_modified: Some(Timestamp::from_millis(784_111_777_900)) };
    const WEAK: Validators<'_> = Validators { etag: Some("W/\"a,b\""), last_modified: None };
    const NONE: Validators<'_> = Validators { etag: None, last_modified: None };

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn preconditions() {
        use Outcome::{NotModified, PreconditionFailed, Proceed};
        for (fields, validators, outcome) in [
            (&[][..], STRONG, Proceed),
            (&[(IF_NONE_MATCH, "\"x\", W/\"a,b\"")], STRONG, NotModified),
            (&[(IF_NONE_MATCH, "\"x\",,\"a,b\"")], WEAK, NotModified),
            (&[(IF_NONE_MATCH, "\"x\", \"a\"")], STRONG, Proceed),
            (&[(IF_NONE_MATCH, " * ")], NONE, NotModified),
            (&[(IF_NONE_MATCH, "\"a,b\"")], NONE, Proceed),
            (&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"a,b\"")], STRONG, NotModified),
            (&[(IF_NONE_MATCH, "a,b")], STRONG, Proceed),
            (&[(IF_NONE_MATCH, "\"a,b")], STRONG, Proceed),
            (&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, AFTER)], STRONG, Proceed),
            (&[(IF_MODIFIED_SINCE, MODIFIED)], STRONG, NotModified),
            (&[(IF_MODIFIED_SINCE, AFTER)], STRONG, NotModified),
            (&[(IF_MODIFIED_SINCE, BEFORE)], STRONG, Proceed),
            (&[(IF_MODIFIED_SINCE, AFTER)], NONE, Proceed),
            (&[(IF_MODIFIED_SINCE, "tomorrow")], STRONG, Proceed),
            (&[(IF_MODIFIED_SINCE, AFTER), (IF_MODIFIED_SINCE, AFTER)], STRONG, Proceed),
            (&[(IF_MATCH, "\"x\", \"a,b\"")], STRONG, Proceed),
            (&[(IF_MATCH, "*")], NONE, Proceed),
            (&[(IF_MATCH, "\"x\"")], STRONG, PreconditionFailed),
            (&[(IF_MATCH, "W/\"a,b\"")], WEAK, PreconditionFailed),
            (&[(IF_MATCH, "\"a,b\""), (IF_UNMODIFIED_SINCE, BEFORE)], STRONG, Proceed),
            (&[(IF_MATCH, "\"a,b\""), (IF_NONE_MATCH, "\"a,b\"")], STRONG, NotModified),
            (&[(IF_UNMODIFIED_SINCE, BEFORE)], STRONG, PreconditionFailed),
            (&[(IF_UNMODIFIED_SINCE, MODIFIED)], STRONG, Proceed),
            (&[(IF_UNMODIFIED_SINCE, BEFORE)], NONE, Proceed),
            (&[(IF_UNMODIFIED_SINCE, "x")], STRONG, Proceed),
        ] {
            assert_eq!(evaluate(&headers(fields), &validators), outcome, "{fields:?} {validators:?}");
        }
    }

    #[test]
    fn if_range() {
        for (fields, validators, holds) in [
            (&[][..], NONE, true),
            (&[(IF_RANGE, "\"a,b\"")], STRONG, true),
            (&[(IF_RANGE, "\"x\"")], STRONG, false),
            (&[(IF_RANGE, "W/\"a,b\"")], WEAK, false),
            (&[(IF_RANGE, "\"a,b\"")], WEAK, false),
            (&[(IF_RANGE, "\"a,b\"")], NONE, false),
            (&[(IF_RANGE, MODIFIED)], STRONG, true),
            (&[(IF_RANGE, AFTER)], STRONG, false),
            (&[(IF_RANGE, BEFORE)], STRONG, false),
            (&[(IF_RANGE, MODIFIED)], NONE, false),
            (&[(IF_RANGE, "x")], STRONG, false),
            (&[(IF_RANGE, "\"a,b\""), (IF_RANGE, "\"a,b\"")], STRONG, false),
        ] {
            assert_eq!(if_range_holds(&headers(fields), &validators), holds, "{fields:?} {validators:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_harmless(text in "[W/\",* a]{0,20}|\\PC{0,20}") {
            let Ok(value) = HeaderValue::from_str(&text) else { return Ok(()) };
            for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE] {
                let headers = HeaderMap::from_iter([(name, value.clone())]);
                let _ = (evaluate(&headers, &STRONG), if_range_holds(&headers, &STRONG));
            }
        }
    }
}
