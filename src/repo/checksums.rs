//! A list of checksums, as it lies beside images: what `sha256sum` writes, in its own form and in BSD's (`--tag`), signed in
//! clear or not. Fedora's says sizes in comments.

use super::checksum::Sha256;
use super::listed::relative;
use std::collections::HashMap;

/// Most files that one list may name.
const MAX_FILES: usize = 100_000;

/// A file that the list names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summed {
    /// Below the list's directory.
    pub path: String,
    /// Of its bytes.
    pub sha256: Sha256,
    /// Where the list says so.
    pub size: Option<u64>,
}

/// What a list says: the files, in order, each once, and how many lines were left out: that name a file by a path that leads
/// elsewhere, or that was named before with another checksum. A file with several checksums is none of them.
///
/// Lines that are none of this, and checksums of other kinds, say nothing. None of all but SHA-256 would prove anything.
#[must_use]
pub fn parse(list: &[u8]) -> (Vec<Summed>, u32) {
    let text = String::from_utf8_lossy(list);
    // What follows is the signature's, not the list's.
    let text = text.split("\n-----BEGIN PGP SIGNATURE").next().unwrap_or_default();
    let (mut files, mut sizes, mut left_out) = (Vec::<Summed>::new(), HashMap::new(), 0);
    // None: with several checksums.
    let mut known = HashMap::<String, Option<Sha256>>::new();
    for line in text.lines().map(str::trim_end) {
        if let Some((name, size)) = line.strip_prefix('#').and_then(size) {
            sizes.insert(name, size);
        } else if let Some((name, sha256)) = coreutils(line).or_else(|| bsd(line)) {
            match relative(name) {
                Some(path) if files.len() < MAX_FILES => match known.get_mut(&path) {
                    Some(before) if *before == Some(sha256) => {}
                    Some(before) => {
                        *before = None;
                        left_out += 1;
                    }
                    None => {
                        known.insert(path.clone(), Some(sha256));
                        files.push(Summed { path, sha256, size: None });
                    }
                },
                _ => left_out += 1,
            }
        }
    }
    files.retain(|file| known.get(&file.path).is_some_and(Option::is_some));
    for file in &mut files {
        file.size = sizes.get(file.path.as_str()).copied();
    }
    (files, left_out)
}

/// `<hex>  name`, or ` *name` for what was read as binary.
fn coreutils(line: &str) -> Option<(&str, Sha256)> {
    let (hex, name) = line.split_once(' ')?;
    let name = name.strip_prefix([' ', '*'])?;
    Some((name, hex.parse().ok()?))
}

/// `SHA256 (name) = <hex>`.
fn bsd(line: &str) -> Option<(&str, Sha256)> {
    let (name, hex) = line.strip_prefix("SHA256 (")?.rsplit_once(") = ")?;
    Some((name, hex.parse().ok()?))
}

/// ` name: 123 bytes`.
fn size(comment: &str) -> Option<(&str, u64)> {
    let (name, size) = comment.rsplit_once(": ")?;
    Some((name.trim_start(), size.strip_suffix(" bytes")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_forms() {
        let (a, b) = (Sha256::of(b"a"), Sha256::of(b"b"));
        let file = |path: &str, sha256, size| Summed { path: path.into(), sha256, size };
        let gnu = format!("{a}  a.iso\n{b} *images/./boot.iso\r\n");
        assert_eq!(
            parse(gnu.as_bytes()),
            (vec![file("a.iso", a, None), file("images/boot.iso", b, None)], 0)
        );
        let fedora = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# a.iso: 2295853056 bytes\nSHA256 (a.iso) = {a}\n\
             MD5 (a.iso) = d41d8cd98f00b204e9800998ecf8427e\n-----BEGIN PGP SIGNATURE-----\n{b}  not-signed.iso\n"
        );
        assert_eq!(parse(fedora.as_bytes()), (vec![file("a.iso", a, Some(2_295_853_056))], 0));
        let astray =
            format!("{a}  ../a.iso\n{a}  /a.iso\nSHA256 (http://h/a) = {a}\nSHA256 (a (1).iso) = {b}\n");
        assert_eq!(parse(astray.as_bytes()), (vec![file("a (1).iso", b, None)], 3));
        let twice = format!("{a}  a.iso\n{b}  b.iso\n{a}  ./a.iso\n{a}  b.iso\n{b}  b.iso\n");
        assert_eq!(parse(twice.as_bytes()), (vec![file("a.iso", a, None)], 2));
        assert_eq!(parse(b""), (vec![], 0));
        assert_eq!(parse(b"<html>not found</html>"), (vec![], 0));
    }

    proptest! {
        #[test]
        fn never_panics(list in prop::collection::vec(any::<u8>(), 0..300), text in "(SHA256 [(]|[)] = |[0-9a-f]{64}|  |[*]|#|: | bytes|\n){0,20}") {
            let _ = (parse(&list), parse(text.as_bytes()));
        }
    }
}
