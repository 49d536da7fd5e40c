//! What tells clients where to go, and people what there is: mirrorlist, metalink, `Link` headers, directory indexes.
//!
//! Pure: takes what policy has chosen, in the order it has chosen, and writes it down. Chooses nothing itself.

pub mod index;
pub mod link;
pub mod metalink;
pub mod mirrorlist;
pub mod named;
pub mod own;
pub mod query;

pub use index::{Extent, IndexEntry, index};
pub use metalink::{Metalink, Resource, Version, metalink};
pub use mirrorlist::{Order, mirrorlist};
pub use own::{OwnEntries, own_entries};
pub use query::{Form, Protocol, Query, QueryError};

/// Escapes text for XML and HTML, in content as in quoted attributes. What XML 1.0 can't carry at all is left out.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => {}
            _ if c.is_control() => {}
            _ => escaped.push(c),
        }
    }
    escaped
}
