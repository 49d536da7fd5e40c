//! `Link` headers that name other copies of the same bytes (RFC 6249).

use crate::geo::Code;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::fmt::Write;

/// What would end the header's `<...>`, or the header.
const ENDS: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>');

/// Appends the value of one `Link` header to `out`: `url` (a base, and a path that is encoded already) holds the very same
/// file, `pri` is its rank (1 is best), `geo` its country.
///
/// Not for yum 3, which takes any line with `location` in it for a redirect.
pub fn duplicate(out: &mut String, url: (&str, &str), pri: u32, geo: Option<Code>) {
    out.push('<');
    out.extend(utf8_percent_encode(url.0, ENDS));
    out.push_str(url.1);
    // Writing to a string can't fail.
    let _ = write!(out, ">; rel=duplicate; pri={}", pri.max(1));
    if let Some(geo) = geo {
        out.push_str("; geo=");
        out.extend(geo.as_str().chars().map(|letter| letter.to_ascii_lowercase()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        for (url, pri, geo, expected) in [
            ("https://m", 1, "DE".parse().ok(), "<https://m/a%20b.rpm>; rel=duplicate; pri=1; geo=de"),
            ("http://m/é", 7, None, "<http://m/%C3%A9/a%20b.rpm>; rel=duplicate; pri=7"),
            (
                "http://m/>\r\nX: \"y\"",
                0,
                None,
                "<http://m/%3E%0D%0AX:%20%22y%22/a%20b.rpm>; rel=duplicate; pri=1",
            ),
        ] {
            let mut link = String::from("before");
            duplicate(&mut link, (url, "/a%20b.rpm"), pri, geo);
            assert_eq!(link.strip_prefix("before"), Some(expected));
        }
    }
}
