//! prestodelta.xml (and deltainfo.xml, its older name): the delta RPMs of a repo.

use super::error::RepodataError;
use super::listed::{Draft, ListedFile, MAX_DRPMS_BYTES, Parsed};
use super::xml::{Step, walk};
use crate::config::Root;
use std::borrow::Cow;
use std::io::BufRead;

/// Reads a (decompressed) prestodelta.xml and hands each drpm on, in document order.
///
/// # Errors
///
/// As [`super::primary::parse`], and 64 MiB of memory for the drpms.
pub fn parse(
    xml: impl BufRead,
    root: &Root,
    mut each: impl FnMut(ListedFile),
) -> Result<Parsed, RepodataError> {
    let mut parsed = Parsed::default();
    let (mut checksum_kind, mut base, mut draft) = (String::new(), None, Draft::default());
    walk("prestodelta", &["prestodelta", "deltainfo"], xml, |step| {
        match step {
            Step::Open(3, "delta", _) => draft = Draft::default(),
            Step::Open(4, "filename", attributes) => {
                base = attributes.find("xml:base")?.map(Cow::into_owned);
            }
            Step::Open(4, "checksum", attributes) => {
                checksum_kind = attributes.find("type")?.unwrap_or_default().into_owned();
            }
            Step::Close(4, "filename", text) => draft.location(root, text, base.as_deref()),
            Step::Close(4, "checksum", text) => draft.checksum(&checksum_kind, text),
            Step::Close(4, "size", text) => draft.size = text.parse().ok(),
            Step::Close(3, "delta", _) => {
                parsed.take(std::mem::take(&mut draft), MAX_DRPMS_BYTES, &mut each)?;
            }
            Step::Open(..) | Step::Close(..) => {}
        }
        Ok(())
    })?;
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::super::digest::{Algorithm, Digest};
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "d3b558874218ef469c10536ebfba35ce7a37cd6065cd089b60952db04b65bc8a";

    fn prestodelta(filename: &str) -> String {
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<prestodelta>
  <newpackage name="synth-002" epoch="0" version="1.0" release="2" arch="noarch">
    <delta oldepoch="0" oldversion="1.0" oldrelease="1">
      {filename}
      <sequence>synth-002-1.0-1-8c7dd16dafaa3ad21e3bc0a4a6d90722e2</sequence>
      <size>6904</size>
      <checksum type="sha256">{HASH}</checksum>
    </delta>
    <delta oldepoch="0" oldversion="0.9" oldrelease="1">
      <filename>drpms/synth-002-0.9-1_1.0-2.noarch.drpm</filename>
      <size>7000</size>
      <checksum type="sha">da39a3ee5e6b4b0d3255bfef95601890afd80709</checksum>
    </delta>
  </newpackage>
</prestodelta>"#
        )
    }

    #[test]
    fn reads_what_createrepo_c_writes() {
        let mut files = Vec::new();
        let xml = prestodelta("<filename>drpms/synth-002-1.0-1_1.0-2.noarch.drpm</filename>");
        let parsed = parse(xml.as_bytes(), &Root::default(), |file| files.push(file)).unwrap();
        assert_eq!((parsed.packages, parsed.left_out), (2, 0));
        let path = "drpms/synth-002-1.0-1_1.0-2.noarch.drpm".to_owned();
        assert_eq!(
            files[0],
            ListedFile { path, size: 6904, digest: Digest::from_hex(Algorithm::Sha256, HASH) }
        );
        assert_eq!((files[1].size, files[1].digest), (7000, Some(Digest::of(Algorithm::Sha1, b""))));

        let bad =
            ["", "<filename/>", "<filename>/x</filename>", r#"<filename xml:base="http://h/">x</filename>"#];
        for filename in bad {
            let parsed = parse(prestodelta(filename).as_bytes(), &Root::default(), |_| ()).unwrap();
            assert_eq!((parsed.packages, parsed.left_out), (1, 1), "{filename}");
        }
    }

    #[test]
    fn what_the_drpms_take_is_bounded() {
        let delta = "<delta><filename>x</filename><size>1</size></delta>";
        let xml = format!("<prestodelta><n>{}</n></prestodelta>", delta.repeat(MAX_DRPMS_BYTES / 250));
        let mut taken = 0;
        let error = parse(xml.as_bytes(), &Root::default(), |file| taken += file.memory_bytes()).unwrap_err();
        assert!(error.to_string().contains("refused: more files"), "{error}");
        assert!((MAX_DRPMS_BYTES / 2..=MAX_DRPMS_BYTES).contains(&taken));
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, at: prop::sample::Index) {
            let _ = parse(bytes.as_slice(), &Root::default(), |_| ());
            let mut whole = prestodelta("<filename>x</filename>").into_bytes();
            let at = at.index(whole.len());
            whole.splice(at..at, bytes);
            let _ = parse(whole.as_slice(), &Root::default(), |file| assert!(file.path.len() < 2000));
        }
    }
}
