//! primary.xml: the packages of a repo.

use super::error::{Fault, RepodataError};
use super::listed::{Draft, ListedFile, MAX_FILES, Parsed};
use super::xml::{Step, walk};
use crate::config::Root;
use std::io::BufRead;

/// Reads the (decompressed) primary.xml of a repo at `root` and hands each package on, in document order. Memory: that of
/// one package.
///
/// # Errors
///
/// Not well-formed, hostile, more than two million packages, or `xml` fails. What was handed on before is to be
/// thrown away.
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
            Step::Close(2, "package", _) => parsed.take(std::mem::take(&mut draft), &mut each)?,
            Step::Open(..) | Step::Close(..) => {}
        }
        Ok(())
    })?;
    Ok(parsed)
}

impl Parsed {
    /// Hands the entry on, or counts it as left out.
    pub(super) fn take(&mut self, draft: Draft, each: &mut impl FnMut(ListedFile)) -> Result<(), Fault> {
        if self.packages + self.left_out >= MAX_FILES {
            return Err(Fault::Refused("more than 2,000,000 files"));
        }
        match draft.finish() {
            Some(file) => {
                self.packages += 1;
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
            assert_eq!(read(&primary(one)).1, Parsed { packages: 0, left_out: 1 }, "{one}");
        }
        let (files, parsed) = read(&primary(&(bad.concat() + &package(&sha256, size, location))));
        assert_eq!((files.len(), parsed.left_out), (1, 8));
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
