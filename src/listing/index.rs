//! Directory listings for people with browsers.

use super::escape;
use crate::clock::Timestamp;
use crate::http::TreePath;
use crate::http::path::encode_segment;
use std::borrow::Cow;
use std::fmt::Write;

/// The last second of the year 9999, after which RFC 3339 has no room.
const LAST: Timestamp = Timestamp::from_secs(253_402_300_799);

/// The whole style. Hashed by nobody: a policy for it needs `style-src 'unsafe-inline'`.
const STYLE: &str = ":root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:64rem;\
padding:0 1rem}h1{font-size:1.3rem;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.15rem .6rem;vertical-align:top}td:first-child{overflow-wrap:anywhere}\
th:nth-child(2),td:nth-child(2){text-align:right}td:nth-child(n+2){white-space:nowrap;font-variant-numeric:tabular-nums}\
tbody tr:hover{background:color-mix(in srgb,currentColor 8%,transparent)}";

/// One thing in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its name: one segment, not encoded, without a trailing `/`.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Its length in bytes, where known; not shown for directories.
    pub size: Option<u64>,
    /// Its last modification, where known.
    pub modified: Option<Timestamp>,
}

/// How much of a directory a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All.
    Whole,
    /// Some of its entries: there are more than a page takes.
    Cut,
}

/// The page for `dir`: one self-contained `text/html; charset=utf-8` document, directories first, then by name.
///
/// Its links are relative, so it must be served at a URL that ends in `/`. What no request can name (see [`TreePath`]) is left
/// out.
#[must_use]
pub fn index(dir: &TreePath, entries: &[IndexEntry], extent: Extent) -> String {
    let mut shown: Vec<&IndexEntry> = entries.iter().filter(|entry| can_be_asked_for(&entry.name)).collect();
    shown.sort_by(|a, b| b.is_directory.cmp(&a.is_directory).then_with(|| a.name.cmp(&b.name)));
    let at_root = dir.as_str().is_empty();
    let path = if at_root { String::new() } else { escape(dir.as_str().trim_end_matches('/')) + "/" };
    let mut html = String::with_capacity(2048 + 256 * shown.len());
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Index of /{path}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Index of /{path}</h1>\n<table>\n\
         <thead><tr><th scope=\"col\">Name</th><th scope=\"col\">Size</th>\
         <th scope=\"col\">Modified (UTC)</th></tr></thead>\n<tbody>\n"
    );
    if !at_root {
        html.push_str("<tr><td><a href=\"../\">Parent directory</a></td><td></td><td></td></tr>\n");
    }
    for entry in shown {
        row(&mut html, entry);
    }
    html.push_str("</tbody>\n</table>\n");
    if extent == Extent::Cut {
        let _ = writeln!(
            html,
            "<p>This list is cut: the directory has more than these {} entries.</p>",
            entries.len()
        );
    }
    html.push_str("</main>\n</body>\n</html>\n");
    // It may be sent for a while.
    html.shrink_to_fit();
    html
}

fn can_be_asked_for(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && TreePath::new(name).is_ok()
}

fn row(html: &mut String, entry: &IndexEntry) {
    let slash = if entry.is_directory { "/" } else { "" };
    let (href, name) = (encode_segment(&entry.name), escape(&entry.name));
    let _ = write!(html, "<tr><td><a href=\"{href}{slash}\">{name}{slash}</a></td><td>");
    if let Some(bytes) = entry.size.filter(|_| !entry.is_directory) {
        let _ = write!(html, "<data value=\"{bytes}\">{}</data>", human_size(bytes));
    }
    html.push_str("</td><td>");
    if let Some(modified) = entry.modified {
        let text = modified.min(LAST).to_string(); // 1994-11-06T08:49:37.000Z
        let (date, time) = (&text[..10], &text[11..16]);
        let _ = write!(html, "<time datetime=\"{date}T{time}Z\">{date} {time}</time>");
    }
    html.push_str("</td></tr>\n");
}

/// Three digits or so, in binary units.
fn human_size(bytes: u64) -> Cow<'static, str> {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B").into();
    }
    // In tenths, rounded; 128 bits so that no size overflows. A unit is left when its rounded value reaches 1024.
    let mut unit = 0;
    let tenths = |unit: usize| (u128::from(bytes) * 10 + (512 << (10 * unit))) >> (10 * (unit + 1));
    while tenths(unit) >= 10_240 && unit + 1 < UNITS.len() {
        unit += 1;
    }
    match tenths(unit) {
        tenths @ 0..100 => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]).into(),
        tenths => format!("{} {}", (tenths + 5) / 10, UNITS[unit]).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str, is_directory: bool) -> IndexEntry {
        let modified = Some(Timestamp::from_secs(784_111_777));
        IndexEntry { name: name.to_owned(), is_directory, size: Some(14_336), modified }
    }

    fn page(dir: &str, entries: &[IndexEntry]) -> String {
        index(&TreePath::new(dir).unwrap(), entries, Extent::Whole)
    }

    #[test]
    fn rows() {
        let html =
            page("7/<os>/", &[entry("b.rpm", false), entry("a&\"b\" c:+.rpm", false), entry("z", true)]);
        let body = html.split_once("<tbody>\n").unwrap().1.split_once("</tbody>").unwrap().0;
        assert_eq!(
            body.lines().collect::<Vec<_>>(),
            [
                "<tr><td><a href=\"../\">Parent directory</a></td><td></td><td></td></tr>",
                "<tr><td><a href=\"z/\">z/</a></td><td></td>\
                 <td><time datetime=\"1994-11-06T08:49Z\">1994-11-06 08:49</time></td></tr>",
                "<tr><td><a href=\"a%26%22b%22%20c%3A%2B.rpm\">a&amp;&quot;b&quot; c:+.rpm</a></td>\
                 <td><data value=\"14336\">14 KiB</data></td>\
                 <td><time datetime=\"1994-11-06T08:49Z\">1994-11-06 08:49</time></td></tr>",
                "<tr><td><a href=\"b.rpm\">b.rpm</a></td><td><data value=\"14336\">14 KiB</data></td>\
                 <td><time datetime=\"1994-11-06T08:49Z\">1994-11-06 08:49</time></td></tr>",
            ]
        );
        assert!(html.contains("<h1>Index of /7/&lt;os&gt;/</h1>"));
        assert_eq!(html.capacity(), html.len());
        assert!(page("7", &[]).contains("<title>Index of /7/</title>") && !html.contains("is cut"));
        let cut = index(&TreePath::new("7").unwrap(), &[entry("a", false)], Extent::Cut);
        assert!(cut.contains("This list is cut: the directory has more than these 1 entries."));
        let root = page("", &[entry("..", true), entry("a/b", false), entry("a\nb", false), entry("", true)]);
        assert!(root.contains("<title>Index of /</title>") && !root.contains("href"));
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10_188, "9.9 KiB"),
            (10_189, "10 KiB"),
            (14_336, "14 KiB"),
            (1_048_575, "1.0 MiB"),
            (20 << 20, "20 MiB"),
            (4_700_000_000, "4.4 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(human_size(bytes), text, "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn names_stay_text(name in "[<>&\"'/:~%a é\\x00]{0,12}|\\PC{0,12}", size: u64, millis: u64, is_directory: bool) {
            let modified = Some(Timestamp::from_millis(millis));
            let html = page("a/", &[IndexEntry { name: name.clone(), is_directory, size: Some(size), modified }]);
            let rows: Vec<_> = html.split("<tr>").skip(3).collect();
            prop_assert_eq!(rows.len(), usize::from(can_be_asked_for(&name)));
            for row in rows {
                let (href, rest) = row.strip_prefix("<td><a href=\"").unwrap().split_once("\">").unwrap();
                let shown = rest.split_once("</a>").unwrap().0;
                prop_assert!(!shown.contains(['<', '>', '"']));
                // Where a browser at /~1/a/ goes from there.
                let asked = TreePath::from_uri(&format!("/~1/a/{href}")).unwrap();
                prop_assert_eq!(asked.name(), name.as_str());
                prop_assert_eq!(asked.is_directory(), is_directory);
            }
        }
    }
}
