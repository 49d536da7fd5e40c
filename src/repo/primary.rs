//! primary.xml: the packages of a repo.

use super::error::{Fault, RepodataError};
use super::listed::{Draft, ListedFile, MAX_FILES, MAX_PACKAGES_BYTES, Parsed};
use super::xml::{Step, walk};
use crate::config::Root;
use std::io::BufRead;

/// Reads the (decompressed) primary.xml of a repo at `root` and hands each package on, in document order. Memory: that of
/// one package.
///
/// # Errors
///
/// Not well-formed, hostile, more than two million packages or more than 192 MiB of memory for them, or `xml` fails. What was
/// handed on before is to be thrown away.
pub fn parse(
    xml: impl BufRead,
    root: &Root,
    mut each: impl FnMut(ListedFile),
) -> Result<Parsed, RepodataError> {
    let mut parsed = Parsed::default();
    let (mut checksum_kind, mut draft) = (String::new(), Draft::default());
    walk("primary", &["metadata"], xml, |step| {
        match step {
            Step::Open(2, "package", _) => draft = Draft::default(),
            Step::Open(3, "checksum", attributes) => {
                checksum_kind = attributes.find("type")?.unwrap_or_default().into_owned();
            }
            Step::Open(3, "size", attributes) => {
                draft.size = attributes.find("package")?.and_then(|size| size.parse().ok());
            }
            Step::Open(3, "location", attributes) => {
                let href = attributes.find("href")?.unwrap_or_default();
                draft.location(root, &href, attributes.find("xml:base")?.as_deref());
            }
            Step::Close(3, "checksum", text) => draft.checksum(&checksum_kind, text),
            Step::Close(2, "package", _) => {
                parsed.take(std::mem::take(&mut draft), MAX_PACKAGES_BYTES, &mut each)?;
            }
            Step::Open(..) | Step::Close(..) => {}
        }
        Ok(())
    })?;
    Ok(parsed)
}

impl Parsed {
    /// Hands the entry on, or counts it as left out. All that are handed on take at most `max_bytes` of memory.
    pub(super) fn take(
        &mut self,
        draft: Draft,
        max_bytes: usize,
        each: &mut impl FnMut(ListedFile),
    ) -> Result<(), Fault> {
        if self.packages + self.left_out >= MAX_FILES {
            return Err(Fault::Refused("more than 2,000,000 files"));
        }
        match draft.finish() {
            Some(file) => {
                self.packages += 1;
                self.memory_bytes += file.memory_bytes();
                if self.memory_bytes > max_bytes {
                    return Err(Fault::Refused(
                        "more files, or longer names, than fit into the memory for them",
                    ));
                }
                each(file);
            }
            None => self.left_out += 1,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest::{Algorithm, Digest};
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "8d11cfc6bdf25233b50673376b3023ab16bbbfd3cdc8f98557b7df0823663921";

    fn package(checksum: &str, size: &str, location: &str) -> String {
        format!(
            r#"<package type="rpm">
  <name>synth-000</name>
  <arch>noarch</arch>
  <version epoch="0" ver="1.0" rel="1"/>
  {checksum}
  <summary>synthetic &lt;synth&gt; &amp; &#252;</summary>
  <description>checksum, size and location stand below</description>
  <packager></packager>
  <url></url>
  <time file="1700000000" build="1700000000"/>
  {size}
  {location}
  <format>
    <rpm:license>MIT</rpm:license>
    <rpm:header-range start="4504" end="8693"/>
    <rpm:provides>
      <rpm:entry name="synth&amp;000" flags="EQ" epoch="0" ver="1.0" rel="1"/>
    </rpm:provides>
    <file>/usr/share/synth</file>
    <size package="99"/>
    <location href="not/this/one"/>
  </format>
</package>
"#
        )
    }

    fn primary(packages: &str) -> String {
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="8">
{packages}</metadata>"#
        )
    }

    fn read(xml: &str) -> (Vec<ListedFile>, Parsed) {
        let mut files = Vec::new();
        let parsed = parse(xml.as_bytes(), &Root::default(), |file| files.push(file)).unwrap();
        assert_eq!(files.len(), parsed.packages as usize);
        (files, parsed)
    }

    #[test]
    fn reads_what_createrepo_c_writes() {
        let sha256 = format!(r#"<checksum type="sha256" pkgid="YES">{HASH}</checksum>"#);
        let sha1 = r#"<checksum type="sha" pkgid="YES">da39a3ee5e6b4b0d3255bfef95601890afd80709</checksum>"#;
        let size = r#"<size package="14041" installed="5290" archive="8600"/>"#;
        let location = r#"<location href="Packages/synth-000-1.0-1.noarch.rpm"/>"#;
        let listed = |path: &str, digest| ListedFile { path: path.into(), size: 14041, digest };

        let sha1_of_nothing = Some(Digest::of(Algorithm::Sha1, b""));
        let xml = primary(
            &(package(&sha256, size, location) + &package(sha1, size, r#"<location href="a&amp;b.rpm"/>"#)),
        );
        let (files, parsed) = read(&xml);
        assert_eq!(
            files,
            [
                listed("Packages/synth-000-1.0-1.noarch.rpm", Digest::from_hex(Algorithm::Sha256, HASH)),
                listed("a&b.rpm", sha1_of_nothing)
            ]
        );
        assert_eq!(parsed.left_out, 0);

        let bad = [
            package(&sha256, "", location),
            package(&sha256, r#"<size package="-1"/>"#, location),
            package(&sha256, size, ""),
            package(&sha256, size, r#"<location href="/x.rpm"/>"#),
            package(&sha256, size, r#"<location href="a/../../x.rpm"/>"#),
            package(&sha256, size, r#"<location xml:base="media://1" href="x.rpm"/>"#),
            package(r#"<checksum type="sha256" pkgid="YES">nothex</checksum>"#, size, location),
            package(&sha256.replace("sha256", "sha512"), size, location),
        ];
        for one in &bad {
            assert_eq!(read(&primary(one)).1, Parsed { left_out: 1, ..Parsed::default() }, "{one}");
        }
        let (files, parsed) = read(&primary(&(bad.concat() + &package(&sha256, size, location))));
        assert_eq!((files.len(), parsed.left_out), (1, 8));
    }

    /// The document in pieces: whole, it would be larger than what it may make the node hold.
    struct Pieces<I>(I, std::io::Cursor<String>);

    impl<I: Iterator<Item = String>> std::io::Read for Pieces<I> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            loop {
                let amount = self.1.read(into)?;
                if amount > 0 {
                    return Ok(amount);
                }
                let Some(next) = self.0.next() else { return Ok(0) };
                self.1 = std::io::Cursor::new(next);
            }
        }
    }

    #[test]
    fn what_the_files_take_is_bounded_and_far_above_the_largest_repos() {
        let document = |packages: usize, path: usize| {
            let package = move |n: usize| {
                format!(r#"<package><size package="1"/><location href="{n:0path$}"/></package>"#)
            };
            let start = std::iter::once("<metadata>".to_owned());
            let pieces = start.chain((0..packages).map(package)).chain(["</metadata>".to_owned()]);
            std::io::BufReader::new(Pieces(pieces, std::io::Cursor::default()))
        };
        let mut taken = 0;
        let count = |file: ListedFile| taken += file.memory_bytes();
        let error = parse(document(2_000_000, 1000), &Root::default(), count).unwrap_err().to_string();
        assert!(error.contains("refused: more files, or longer names"), "{error}");
        assert!(taken <= MAX_PACKAGES_BYTES && taken > MAX_PACKAGES_BYTES / 2);
        // As in Fedora: Everything.
        let parsed = parse(document(100_000, 100), &Root::default(), |_| ()).unwrap();
        assert!(parsed.packages == 100_000 && parsed.memory_bytes * 3 < MAX_PACKAGES_BYTES, "{parsed:?}");
    }

    #[test]
    fn a_location_of_any_length_costs_its_package_only() {
        let long = format!(r#"<location href="{}x.rpm"/>"#, "a/../".repeat(1000));
        let base = format!(r#"<location xml:base="http://{}/" href="x.rpm"/>"#, "h".repeat(5000));
        for location in [long, base] {
            let xml = primary(&package("", r#"<size package="1"/>"#, &location));
            assert_eq!(read(&xml).1, Parsed { left_out: 1, ..Parsed::default() });
        }
    }

    #[test]
    fn a_cut_document_is_an_error() {
        let xml = primary(&package("", r#"<size package="1"/>"#, r#"<location href="x.rpm"/>"#));
        assert_eq!(read(&xml).1.packages, 1);
        for cut in 0..xml.len() {
            assert!(parse(&xml.as_bytes()[..cut], &Root::default(), |_| ()).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, at: prop::sample::Index) {
            let _ = parse(bytes.as_slice(), &Root::default(), |_| ());
            let mut whole = primary(&package("", r#"<size package="1"/>"#, r#"<location href="x"/>"#)).into_bytes();
            let at = at.index(whole.len());
            whole.splice(at..(at + bytes.len() / 2).min(whole.len()), bytes);
            let _ = parse(whole.as_slice(), &Root::default(), |file| assert!(file.size > 0 || file.path.len() < 2000));
        }
    }
}
