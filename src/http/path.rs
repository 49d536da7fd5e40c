//! Paths below the root of the tree, and the one way in for paths that clients, configs and repodata name.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The longest path, in bytes before and after decoding: Linux' `PATH_MAX`.
pub const MAX_BYTES: usize = 4096;

/// All but RFC 3986's unreserved characters. Also encodes `+`, which object stores behind mirrors read as a space.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// As [`RESERVED`], for several segments.
const RESERVED_BUT_SLASH: &AsciiSet = &RESERVED.remove(b'/');

/// A path below the root of the tree, decoded.
///
/// Invariant: valid UTF-8 without a leading `/`, without empty, `.` or `..` segments, without control characters or `\`,
/// at most [`MAX_BYTES`] long. The empty path is the root; a trailing `/`, which is kept, says directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreePath(Arc<str>);

/// Why a path is none; `at` is a byte offset in the text as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A request path that does not start with `/`.
    #[error("a request target is a path that starts with '/', or an http or https URL with a host")]
    NotAbsolute,
    /// A path that is relative to the root or a directory, but starts with `/`.
    #[error("a path in the tree does not start with '/'")]
    Absolute,
    /// More than [`MAX_BYTES`].
    #[error("a path has at most {MAX_BYTES} bytes")]
    TooLong,
    /// A `%` that two hex digits do not follow.
    #[error("byte {at}: '%' without two hex digits")]
    BadEscape {
        /// Where the `%` stands.
        at: usize,
    },
    /// A control character, a backslash, or a `/` that was written as `%2F`.
    #[error("byte {at}: a character that no path may have")]
    Forbidden {
        /// Where the character, or its escape, starts.
        at: usize,
    },
    /// A segment `.` or `..` where paths are not resolved: in a config, or in repodata.
    #[error("a '.' or '..' segment")]
    DotSegment,
    /// A request path with more `..` than directories above them.
    #[error("'..' leads out of the tree")]
    OutOfTree,
    /// What the escapes stand for is not UTF-8.
    #[error("not UTF-8 once decoded")]
    NotUtf8,
}

impl TreePath {
    /// The path of a request target as received: percent-encoded, with its leading `/`, without a query.
    ///
    /// Segments `.` and `..` are resolved first (RFC 3986, section 5.2.4), also where they are percent-encoded, since an
    /// escaped dot is the same character (section 6.2.2.2). Not all clients do it themselves: curl before 7.32 doesn't. Then
    /// runs of `/` count as one, and a first segment `~1` to `~99` is dropped: with it the own nodes stand in a mirrorlist
    /// as entries that differ as strings.
    ///
    /// # Errors
    /// Whatever would break the invariant, `..` above the root, and escaped slashes, since whoever decodes them gets another
    /// path.
    pub fn from_uri(raw: &str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        if raw.len() > MAX_BYTES {
            return Err(PathError::TooLong);
        }
        if let Some(plain) = raw.get(1..).filter(|rest| !rest.starts_with(['~', '/']) && is_plain(rest)) {
            return Ok(Self(plain.into()));
        }
        let resolved = resolve_dots(decode(raw)?)?;
        let below = resolved.trim_start_matches('/');
        let (first, rest) = below.split_once('/').unwrap_or((below, ""));
        Self::checked(if is_own_entry(first) { rest.trim_start_matches('/') } else { below })
    }

    /// A path that is not percent-encoded: from a config, repodata, a directory. Runs of `/` count as one.
    ///
    /// # Errors
    /// A leading `/`, and whatever else would break the invariant.
    pub fn new(decoded: &str) -> Result<Self, PathError> {
        if decoded.starts_with('/') {
            return Err(PathError::Absolute);
        }
        Self::checked(decoded)
    }

    fn checked(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_BYTES {
            return Err(PathError::TooLong);
        }
        if is_plain(text) {
            return Ok(Self(text.into()));
        }
        if let Some((at, _)) = text.char_indices().find(|&(_, c)| c == '\\' || c.is_control()) {
            return Err(PathError::Forbidden { at });
        }
        if text.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(PathError::DotSegment);
        }
        if !text.contains("//") {
            return Ok(Self(text.into()));
        }
        let mut single = String::with_capacity(text.len());
        for c in text.chars() {
            if c != '/' || !single.ends_with('/') {
                single.push(c);
            }
        }
        Ok(Self(single.into()))
    }

    /// The root of the tree.
    #[must_use]
    pub fn root() -> Self {
        Self("".into())
    }

    /// The decoded path, without a leading `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this names a directory: the root, or anything with a trailing `/`.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.0.is_empty() || self.0.ends_with('/')
    }

    /// The path as it stands in a URL after the base's `/`.
    #[must_use]
    pub fn encoded(&self) -> String {
        utf8_percent_encode(&self.0, RESERVED_BUT_SLASH).to_string()
    }

    /// The last segment, without a trailing `/`; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }

    /// `relative`, taken from this directory, whether or not this has its trailing `/`.
    ///
    /// # Errors
    /// As [`TreePath::new`] has them for `relative`, or the sum is too long.
    pub fn join(&self, relative: &str) -> Result<Self, PathError> {
        if relative.starts_with('/') {
            return Err(PathError::Absolute);
        }
        match (relative, &*self.0) {
            ("", _) => Ok(self.clone()),
            (_, "") => Self::checked(relative),
            (_, dir) => Self::checked(&[dir, "/", relative].concat()),
        }
    }

    /// What stands below `dir` (with or without its trailing `/`), by whole segments: `a/b/c` without `a/b` is `c`. Empty for
    /// `dir` itself.
    #[must_use]
    pub fn strip_dir_prefix(&self, dir: &str) -> Option<&str> {
        let dir = dir.trim_end_matches('/');
        if dir.is_empty() {
            return Some(&self.0);
        }
        let rest = self.0.strip_prefix(dir)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }
}

/// One path segment as it stands in a URL.
#[must_use]
pub fn encode_segment(name: &str) -> String {
    utf8_percent_encode(name, RESERVED).to_string()
}

/// Whether there is nothing in it that has to be looked at more closely, as in nearly every path: ASCII without escapes,
/// and no segment that is empty or begins with a dot.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    // Without a branch for each byte, so that many are looked at in one instruction.
    let odd = bytes.iter().fold(0, |odd, byte| {
        odd | u8::from(byte.wrapping_sub(b' ') > b'~' - b' ')
            | u8::from(*byte == b'\\')
            | u8::from(*byte == b'%')
    });
    let pairs = bytes.iter().zip(bytes.get(1..).unwrap_or_default());
    let empty_or_dot = pairs.fold(u8::from(matches!(bytes.first(), Some(b'/' | b'.'))), |found, (a, b)| {
        found | (u8::from(*a == b'/') & (u8::from(*b == b'/') | u8::from(*b == b'.')))
    });
    odd | empty_or_dot == 0
}

/// Decodes `%XX`, once. The characters that only an escape can bring in are refused here, where they still look escaped.
fn decode(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if !raw.contains('%') {
        return Ok(raw.into());
    }
    let bytes = raw.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            decoded.push(byte);
            at += 1;
            continue;
        }
        let digits = bytes.get(at + 1..at + 3).ok_or(PathError::BadEscape { at })?;
        let byte =
            data_encoding::HEXLOWER_PERMISSIVE.decode(digits).map_err(|_| PathError::BadEscape { at })?[0];
        if matches!(byte, b'/' | b'\\') || byte.is_ascii_control() {
            return Err(PathError::Forbidden { at });
        }
        decoded.push(byte);
        at += 3;
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| PathError::NotUtf8)
}

/// `path`, which is decoded and starts with `/`, without its segments `.` and `..` (RFC 3986, section 5.2.4). An empty
/// segment is one of those that `..` takes back, as there. Where the RFC would ignore a `..` that has nothing to take back,
/// this is an error: such a path names nothing that a client of this tree could want.
fn resolve_dots(path: Cow<'_, str>) -> Result<Cow<'_, str>, PathError> {
    let segments = || path.split('/').skip(1);
    if !segments().any(|segment| matches!(segment, "." | "..")) {
        return Ok(path);
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in segments() {
        match segment {
            "." => {}
            ".." => drop(kept.pop().ok_or(PathError::OutOfTree)?),
            name => kept.push(name),
        }
    }
    // What ends in a dot segment is a directory.
    if matches!(path.rsplit('/').next(), Some("." | "..")) {
        kept.push("");
    }
    Ok(kept.iter().flat_map(|segment| ["/", segment]).collect::<String>().into())
}

/// `~1` to `~99`.
fn is_own_entry(segment: &str) -> bool {
    matches!(segment.as_bytes(), [b'~', b'1'..=b'9'] | [b'~', b'1'..=b'9', b'0'..=b'9'])
}

impl TryFrom<String> for TreePath {
    type Error = PathError;

    fn try_from(decoded: String) -> Result<Self, PathError> {
        Self::new(&decoded)
    }
}

impl From<TreePath> for String {
    fn from(path: TreePath) -> Self {
        path.as_str().to_owned()
    }
}

impl fmt::Display for TreePath {
    /// The decoded path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    #[test]
    fn request_paths() {
        for (raw, decoded) in [
            ("/", ""),
            ("//", ""),
            ("/7/updates/", "7/updates/"),
            ("//7///updates//", "7/updates/"),
            ("/a%20b/c%2B%2b-1.rpm", "a b/c++-1.rpm"),
            ("/%C3%A9?", "é?"),
            ("/%252e%252E/x", "%2e%2E/x"),
            ("/.treeinfo", ".treeinfo"),
            ("/.../x", ".../x"),
            ("/~1/7/x", "7/x"),
            ("/~99//x", "x"),
            ("/~1", ""),
            ("/%7E4/x", "x"),
            ("/~1/~2/x", "~2/x"),
            ("/~0/x", "~0/x"),
            ("/~100/x", "~100/x"),
            ("/a/~1/x", "a/~1/x"),
            ("/7/os/./Packages/a.rpm", "7/os/Packages/a.rpm"),
            ("/7/os/repodata/../Packages/a.rpm", "7/os/Packages/a.rpm"),
            ("/./a", "a"),
            ("/a/.", "a/"),
            ("/a/..", ""),
            ("/a/b/..", "a/"),
            ("/a/b/../", "a/"),
            ("/a/./../b/./c/../d", "b/d"),
            // RFC 3986, 6.2.2.2: an escaped dot is a dot. What is escaped twice is none.
            ("/a/%2e%2E/b", "b"),
            ("/a/.%2e/%2e/b", "b"),
            ("/a/%252e%252e/b", "a/%2e%2e/b"),
            // As a client that resolves them itself has it, empty segments included.
            ("/a//../b", "a/b"),
            ("/a/..//b", "b"),
            ("//../b", "b"),
            ("/~1/../a", "a"),
            ("/~1/a/../b", "b"),
            ("/~1/./a", "a"),
            ("/a/../~1/b", "b"),
            ("/a/...", "a/..."),
            ("/a/..b/.c", "a/..b/.c"),
        ] {
            assert_eq!(TreePath::from_uri(raw).as_ref().map(TreePath::as_str), Ok(decoded), "{raw}");
        }
        for (raw, error) in [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("a/b", PathError::NotAbsolute),
            ("/..", PathError::OutOfTree),
            ("/../a", PathError::OutOfTree),
            ("/./../a", PathError::OutOfTree),
            ("/a/../../b", PathError::OutOfTree),
            ("/%2e%2E/b", PathError::OutOfTree),
            ("/~1/../../a", PathError::OutOfTree),
            // In any order of decoding and resolving, these are refused.
            ("/a/..%2fb", PathError::Forbidden { at: 5 }),
            ("/a/%2e%2e%2Fb", PathError::Forbidden { at: 9 }),
            ("/a/..%5cb", PathError::Forbidden { at: 5 }),
            ("/a/..\\b", PathError::Forbidden { at: 4 }),
            ("/a%00/../b", PathError::Forbidden { at: 2 }),
            ("/a%2Fb", PathError::Forbidden { at: 2 }),
            ("/a%5cb", PathError::Forbidden { at: 2 }),
            ("/a%00", PathError::Forbidden { at: 2 }),
            ("/a%0d%0aX: y", PathError::Forbidden { at: 2 }),
            ("/%C2%85", PathError::Forbidden { at: 0 }),
            ("/a\\b", PathError::Forbidden { at: 1 }),
            ("/%", PathError::BadEscape { at: 1 }),
            ("/a%2", PathError::BadEscape { at: 2 }),
            ("/a%zz", PathError::BadEscape { at: 2 }),
            ("/%+1", PathError::BadEscape { at: 1 }),
            ("/%ff", PathError::NotUtf8),
        ] {
            assert_eq!(TreePath::from_uri(raw), Err(error), "{raw}");
        }
        assert_eq!(TreePath::from_uri(&format!("/{}", "a".repeat(MAX_BYTES))), Err(PathError::TooLong));
    }

    #[test]
    fn parts_of_paths() {
        assert_eq!(TreePath::new("/a"), Err(PathError::Absolute));
        assert_eq!(path("a//b/").as_str(), "a/b/");
        assert_eq!(path("~1/a").as_str(), "~1/a", "only requests have entry prefixes");
        for (text, directory, name) in
            [("", true, ""), ("a", false, "a"), ("a/b/", true, "b"), ("a/b.rpm", false, "b.rpm")]
        {
            assert_eq!((path(text).is_directory(), path(text).name()), (directory, name), "{text}");
        }
        assert_eq!(path("7/é/a b+c^d~e:f.rpm").encoded(), "7/%C3%A9/a%20b%2Bc%5Ed~e%3Af.rpm");
        for (dir, relative, joined) in [
            ("", "x", Ok("x")),
            ("a", "x/y", Ok("a/x/y")),
            ("a/", "x/", Ok("a/x/")),
            ("a/", "", Ok("a/")),
            ("", "/x", Err(PathError::Absolute)),
            ("a", "/x", Err(PathError::Absolute)),
            ("a", "../x", Err(PathError::DotSegment)),
        ] {
            assert_eq!(path(dir).join(relative), joined.map(path), "{dir} {relative}");
        }
        for (text, dir, rest) in [
            ("a/b/c", "a/b", Some("c")),
            ("a/b/c", "a/b/", Some("c")),
            ("a/b/", "a/b", Some("")),
            ("a/b", "a/b", Some("")),
            ("a/bc", "a/b", None),
            ("a", "a/b", None),
            ("a/b", "", Some("a/b")),
        ] {
            assert_eq!(path(text).strip_dir_prefix(dir), rest, "{text} {dir}");
        }
    }

    fn holds_invariant(path: &TreePath) -> bool {
        let text = path.as_str();
        let inner = text.strip_suffix('/').unwrap_or(text);
        text.len() <= MAX_BYTES
            && !text.chars().any(|c| c == '\\' || c.is_control())
            && (text.is_empty() || inner.split('/').all(|s| !matches!(s, "" | "." | "..")))
    }

    proptest! {
        #[test]
        fn never_escapes(raw in "(/|[.]|%2[eEfF]|%[0-9a-fA-F]{2}|~1|%|a|\\PC|\\x00){0,24}", tail in "[./a%2e]{0,8}") {
            for parsed in [TreePath::from_uri(&format!("/{raw}")), TreePath::new(&raw)].into_iter().flatten() {
                prop_assert!(holds_invariant(&parsed), "{parsed:?}");
                if let Ok(joined) = parsed.join(&tail) {
                    prop_assert!(holds_invariant(&joined), "{joined:?}");
                    prop_assert!(joined.strip_dir_prefix(parsed.as_str()).is_some());
                }
                // The entry prefix makes a name ~N at the root unreachable by its own URL; behind one it is as any other.
                prop_assert_eq!(TreePath::from_uri(&format!("/~1/{}", parsed.encoded())), Ok(parsed));
            }
        }

        #[test]
        fn any_text_is_harmless(raw in "\\PC*") {
            let _ = (TreePath::from_uri(&raw), TreePath::new(&raw));
        }
    }
}
