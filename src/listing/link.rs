//! `Link` headers that name other copies of the same bytes (RFC 6249).

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What would end the header's `<...>`, or the header.
const ENDS: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>');

/// The value of one `Link` header: `url` holds the very same file, `pri` is its rank (1 is best), `geo` its country.
///
/// Not for yum 3, which takes any line with `location` in it for a redirect.
#[must_use]
pub fn duplicate(url: &str, pri: u32, geo: Option<&str>) -> String {
    let mut link = format!("<{}>; rel=duplicate; pri={}", utf8_percent_encode(url, ENDS), pri.max(1));
    if let Some(geo) =
        geo.filter(|geo| !geo.is_empty() && geo.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    {
        link.push_str("; geo=");
        link.push_str(&geo.to_ascii_lowercase());
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        for (url, pri, geo, expected) in [
            ("https://m/a%20b.rpm", 1, Some("DE"), "<https://m/a%20b.rpm>; rel=duplicate; pri=1; geo=de"),
            ("http://m/é", 7, None, "<http://m/%C3%A9>; rel=duplicate; pri=7"),
            (
                "http://m/>\r\nX: \"y\"",
                0,
                Some("d\r\n"),
                "<http://m/%3E%0D%0AX:%20%22y%22>; rel=duplicate; pri=1",
            ),
        ] {
            assert_eq!(duplicate(url, pri, geo), expected);
        }
    }
}
