//! Text from outside, as it is shown to people: in logs, in the admin API's answers, on a terminal.
//!
//! Origins, mirrors and clients write it: names in repodata, header fields, URLs. A line break in it would forge a line of
//! the log, an escape sequence would command the terminal, a mark of direction would hide what stands behind it. Pure.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` on one line: with each character that isn't shown as itself as `\u` and four hex digits, as in JSON.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_odd)
}

/// `text` on as many lines as it has: the same, but for line feeds.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_odd(c))
}

/// Control characters, line and paragraph separators, and marks that change the direction of what follows.
fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_odd: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_odd) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_odd(c) {
            // Writing to a String never fails, and all of them have four digits at most.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_commands_a_terminal_or_forges_a_line_is_escaped() {
        for (text, shown) in [
            ("", ""),
            ("Packages/é-1.rpm 日本", "Packages/é-1.rpm 日本"),
            ("a\nb\r\0\tc", r"a\u000ab\u000d\u0000\u0009c"),
            ("\u{1b}[2J\u{7}\u{8}\u{7f}", r"\u001b[2J\u0007\u0008\u007f"),
            ("\u{9b}31m\u{85}", r"\u009b31m\u0085"),
            ("a\u{202e}b\u{2066}c\u{200f}d\u{2028}e", r"a\u202eb\u2066c\u200fd\u2028e"),
        ] {
            assert_eq!(line(text), shown);
        }
        assert_eq!(lines("a\n\u{1b}b\n"), "a\n\\u001bb\n");
    }

    proptest! {
        #[test]
        fn nothing_odd_is_left_and_json_stays_what_it_was(text: String) {
            prop_assert!(!line(&text).chars().any(is_odd));
            let json = serde_json::to_string_pretty(&[&text]).unwrap();
            let [read]: [String; 1] = serde_json::from_str(&lines(&json)).unwrap();
            prop_assert_eq!(read, text);
        }
    }
}
