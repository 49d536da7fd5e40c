//! Media types, by name alone: the tree's files are what their names say.

use super::path::TreePath;
use http::HeaderValue;

/// For all that no rule below names.
const OTHER: &str = "application/octet-stream";
/// What a browser may show as it is.
const TEXT: &str = "text/plain; charset=utf-8";

/// By extension, in lower case.
const BY_EXTENSION: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("asc", TEXT),
    ("bz2", "application/x-bzip2"),
    ("cfg", TEXT),
    ("conf", TEXT),
    ("css", "text/css; charset=utf-8"),
    ("discinfo", TEXT),
    ("drpm", "application/x-rpm"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("iso", "application/x-iso9660-image"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("key", TEXT),
    ("md", TEXT),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("qcow2", "application/x-qemu-disk"),
    ("repo", TEXT),
    ("rpm", "application/x-rpm"),
    ("sha1sum", TEXT),
    ("sha256sum", TEXT),
    ("sha512sum", TEXT),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tgz", "application/gzip"),
    ("torrent", "application/x-bittorrent"),
    ("treeinfo", TEXT),
    ("txt", TEXT),
    ("xml", "text/xml"),
    ("xz", "application/x-xz"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// Texts that distributions put at the top of their trees, and in repodata's directories, without an extension.
const TEXTS: &[&str] =
    &["CHECKSUM", "COMPOSE_ID", "EULA", "GPL", "LICENSE", "MD5SUM", "README", "SHA256SUM", "TIME"];

/// The media type of the file at `path`.
#[must_use]
pub fn of(path: &TreePath) -> HeaderValue {
    let name = path.name();
    if TEXTS.contains(&name) || name.starts_with("RPM-GPG-KEY") {
        return HeaderValue::from_static(TEXT);
    }
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let known = BY_EXTENSION.iter().find(|(known, _)| extension.eq_ignore_ascii_case(known));
    HeaderValue::from_static(known.map_or(OTHER, |(_, media_type)| media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (path, media_type) in [
            ("7/updates/x86_64/Packages/bash-4.2.46-31.el7.x86_64.rpm", "application/x-rpm"),
            ("repodata/repomd.xml", "text/xml"),
            ("repodata/ab-primary.xml.gz", "application/gzip"),
            ("repodata/ab-primary.xml.zst", "application/zstd"),
            ("repodata/repomd.xml.asc", TEXT),
            ("isos/X.ISO", "application/x-iso9660-image"),
            (".treeinfo", TEXT),
            ("RPM-GPG-KEY-CentOS-7", TEXT),
            ("EULA", TEXT),
            ("images/pxeboot/vmlinuz", OTHER),
            ("x.y/vmlinuz", OTHER),
            ("a.", OTHER),
            ("", OTHER),
        ] {
            assert_eq!(of(&TreePath::new(path).unwrap()), media_type, "{path}");
        }
        assert!(BY_EXTENSION.is_sorted());
    }
}
