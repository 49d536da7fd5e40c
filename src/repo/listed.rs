//! One file as a repodata document lists it, and the rules that its entry must keep.

use super::catalogue::FileFacts;
use super::digest::{Algorithm, Digest};
use crate::config::Root;

/// A file that a repodata document lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Below the repo's directory, or, with a leading '/', below the tree's root: no empty, `.` or `..` segments, at most
    /// 1024 bytes.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// None where the document gives no checksum of a known kind.
    pub digest: Option<Digest>,
}

/// What one document held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Files handed on.
    pub packages: u32,
    /// Entries that can't be served from this tree: an `xml:base` of another, an absolute or escaping location, no size, a
    /// damaged checksum.
    pub left_out: u32,
    /// Memory that the files handed on take, in bytes, by [`ListedFile::memory_bytes`].
    pub memory_bytes: usize,
}

/// Longest path of a listed file, in bytes. The longest in Fedora's Everything is under 200.
pub const MAX_PATH_BYTES: usize = 1024;

/// Longest location and `xml:base` in a document, in bytes: as it stands there, with whatever it may go up and down.
pub(super) const MAX_LOCATION_BYTES: usize = 4096;

/// Most files that one document may list. Debian and Fedora have fewer than 100,000 in one repo.
pub(super) const MAX_FILES: u32 = 2_000_000;

/// Memory that the files of one primary.xml may take while they are read, in bytes, by [`ListedFile::memory_bytes`]. The
/// 100,000 packages of the largest repos, with 100 bytes of path each, take 50 MiB.
pub(super) const MAX_PACKAGES_BYTES: usize = 192 << 20;

/// The same of one prestodelta.xml; real ones list some thousands of drpms.
pub(super) const MAX_DRPMS_BYTES: usize = 64 << 20;

/// Of a file in a catalogue, besides its path and what its digest has beyond 32 bytes.
const CATALOGUE_BYTES: usize = 68;

impl ListedFile {
    /// Memory that it takes until it is in a catalogue, in bytes: as it is listed, as it is sorted, and there.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let beyond = self.digest.map_or(0, |digest| digest.as_bytes().len().saturating_sub(32));
        size_of::<Self>() + size_of::<(String, FileFacts)>() + CATALOGUE_BYTES + beyond + 2 * self.path.len()
    }
}

/// An entry while its elements are read.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) path: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) digest: Option<Digest>,
    /// Something in the entry rules it out, whatever else it says.
    pub(super) spoiled: bool,
}

impl Draft {
    /// Takes a location; `base` is its `xml:base`.
    pub(super) fn location(&mut self, root: &Root, href: &str, base: Option<&str>) {
        if href.len().max(base.map_or(0, str::len)) > MAX_LOCATION_BYTES {
            self.spoiled = true;
            return;
        }
        let plain = relative(href).filter(|_| base.is_none_or(str::is_empty));
        let path = plain.or_else(|| root.resolve(href, base));
        self.path = path.filter(|path| path.len() <= MAX_PATH_BYTES);
        self.spoiled |= self.path.is_none();
    }

    /// Takes a checksum of the kind that its `type` attribute names.
    pub(super) fn checksum(&mut self, kind: &str, hex: &str) {
        if let Some(algorithm) = Algorithm::named(kind) {
            self.digest = Digest::from_hex(algorithm, hex);
            self.spoiled |= self.digest.is_none();
        }
    }

    /// The file, if the entry is whole.
    pub(super) fn finish(self) -> Option<ListedFile> {
        if self.spoiled {
            return None;
        }
        Some(ListedFile { path: self.path?, size: self.size?, digest: self.digest })
    }
}

/// The path that `href` names below the repo, in the one form in which requests are looked up; None if it leads out
/// of the repo or could never be asked for. Clients append it to the base URL as it stands, so it isn't percent-decoded.
pub(super) fn relative(href: &str) -> Option<String> {
    let scheme = href.split('/').next().is_some_and(|first| first.ends_with(':'));
    let unusable = |c: char| c.is_control() || c == '\\';
    if scheme || href.starts_with('/') || href.ends_with('/') || href.contains(unusable) {
        return None;
    }
    let mut path = String::with_capacity(href.len());
    for segment in href.split('/') {
        match segment {
            "" | "." => {}
            ".." => return None,
            _ => {
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(segment);
            }
        }
    }
    let last_is_dot = href.rsplit('/').next() == Some(".");
    (!path.is_empty() && !last_is_dot && path.len() <= MAX_PATH_BYTES).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_stay_below_the_repo() {
        let long = "x".repeat(MAX_PATH_BYTES + 1);
        let refused = [
            "",
            "/",
            "/etc/passwd",
            "../x.rpm",
            "a/../x.rpm",
            "a/..",
            "..",
            ".",
            "a/.",
            "a/",
            "http://h/x.rpm",
            "file:/x",
            "a\\b",
            "a\0b",
            "a\nb",
            long.as_str(),
        ];
        for href in refused {
            assert_eq!(relative(href), None, "{href:?}");
        }
        let taken = [
            ("x.rpm", "x.rpm"),
            ("Packages/libstdc++-1:2~3^4.rpm", "Packages/libstdc++-1:2~3^4.rpm"),
            ("./Packages//./x.rpm", "Packages/x.rpm"),
            ("a/..x/...", "a/..x/..."),
            ("a/%2e%2e/x", "a/%2e%2e/x"),
            ("ü/x.rpm", "ü/x.rpm"),
        ];
        for (href, path) in taken {
            assert_eq!(relative(href).as_deref(), Some(path));
        }
    }
}
