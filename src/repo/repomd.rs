//! repomd.xml: the root of a repo's metadata.

use super::digest::Digest;
use super::error::{Fault, RepodataError};
use super::listed::Draft;
use super::xml::{Step, walk};
use crate::clock::Timestamp;
use crate::config::Root;

/// Largest repomd.xml that is read; real ones are under 20 KiB.
pub const MAX_BYTES: usize = 1 << 20;

/// Most records in one repomd.xml; real ones have about 20.
pub const MAX_RECORDS: usize = 256;

const DOCUMENT: &str = "repomd";

/// What repomd.xml says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repomd {
    /// The distribution's own name of this state; often the time of its making in seconds. Printable, at most 128 bytes.
    pub revision: Option<String>,
    /// The newest timestamp of a record.
    pub timestamp: Option<Timestamp>,
    /// The other metadata files, in document order.
    pub records: Vec<Record>,
    /// Records without a usable location, kind or checksum.
    pub left_out: u32,
}

/// One metadata file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `primary`, `filelists`, `prestodelta`...
    pub kind: String,
    /// Relative to the repo, `repodata/...-primary.xml.gz`, or from the tree's root on, with a leading '/'.
    pub path: String,
    /// Length of the file as it stands there, in bytes. Absent from repomd.xml of the CentOS 5 era.
    pub size: Option<u64>,
    /// Of the file as it stands there. None where it has no checksum of a known kind.
    pub digest: Option<Digest>,
}

impl Record {
    /// True if the file's name carries its own checksum, so that the name is never reused for other bytes.
    #[must_use]
    pub fn versioned(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.digest.is_some_and(|digest| {
            let hex = digest.hex();
            name.get(..hex.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(&hex))
        })
    }
}

impl Repomd {
    /// The first record of this kind.
    #[must_use]
    pub fn record(&self, kind: &str) -> Option<&Record> {
        self.records.iter().find(|record| record.kind == kind)
    }
}

/// Reads the repomd.xml of a repo at `root`.
///
/// # Errors
///
/// Not well-formed, hostile, or beyond [`MAX_BYTES`] or [`MAX_RECORDS`].
pub fn parse(xml: &[u8], root: &Root) -> Result<Repomd, RepodataError> {
    if xml.len() > MAX_BYTES {
        let fault = Fault::Refused("a repomd.xml of more than 1 MiB");
        return Err(RepodataError { document: DOCUMENT, at: MAX_BYTES as u64, fault });
    }
    let mut repomd = Repomd::default();
    let (mut kind, mut checksum_kind, mut draft) = (String::new(), String::new(), Draft::default());
    walk(DOCUMENT, &["repomd"], xml, |step| {
        match step {
            Step::Open(2, "data", attributes) => {
                kind = attributes.find("type")?.unwrap_or_default().into_owned();
                draft = Draft::default();
            }
            Step::Open(3, "location", attributes) => {
                let href = attributes.find("href")?.unwrap_or_default();
                draft.location(root, &href, attributes.find("xml:base")?.as_deref());
            }
            Step::Open(3, "checksum", attributes) => {
                checksum_kind = attributes.find("type")?.unwrap_or_default().into_owned();
            }
            Step::Close(3, "checksum", text) => draft.checksum(&checksum_kind, text),
            Step::Close(3, "size", text) => draft.size = text.parse().ok(),
            Step::Close(3, "timestamp", text) => repomd.timestamp = repomd.timestamp.max(timestamp(text)),
            Step::Close(2, "revision", text) => {
                let usable = !text.is_empty() && text.len() <= 128 && !text.contains(char::is_control);
                repomd.revision = usable.then(|| text.to_owned());
            }
            Step::Close(2, "data", _) => {
                repomd.take(std::mem::take(&mut kind), std::mem::take(&mut draft))?;
            }
            Step::Open(..) | Step::Close(..) => {}
        }
        Ok(())
    })?;
    Ok(repomd)
}

impl Repomd {
    fn take(&mut self, kind: String, draft: Draft) -> Result<(), Fault> {
        if self.records.len() == MAX_RECORDS {
            return Err(Fault::Refused("more than 256 records"));
        }
        match draft.path {
            Some(path) if !draft.spoiled && is_kind(&kind) => {
                self.records.push(Record { kind, path, size: draft.size, digest: draft.digest });
            }
            _ => self.left_out += 1,
        }
        Ok(())
    }
}

/// Whether a record can be of this type. It stands in messages and logs as it is.
pub(crate) fn is_kind(text: &str) -> bool {
    const LONGEST: usize = 64;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=LONGEST).contains(&text.len()) && text.chars().all(fits)
}

/// Whole seconds; the createrepo of yum's time wrote a fraction behind them.
fn timestamp(text: &str) -> Option<Timestamp> {
    text.split('.').next()?.parse().ok().map(Timestamp::from_secs)
}

#[cfg(test)]
mod tests {
    use super::super::digest::Algorithm;
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "b1e2f17b2798ef923726d155399cfd4f7d45720c0a0621306437088a448d173e";

    fn repomd(data: &str) -> String {
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">
  <revision>1700086400</revision>
{data}</repomd>
"#
        )
    }

    fn record(location: &str, rest: &str) -> String {
        format!("<data type=\"primary\">\n  {location}\n  {rest}\n</data>\n")
    }

    #[test]
    fn reads_what_createrepo_c_writes() {
        let data = format!(
            r#"  <data type="primary">
    <checksum type="sha256">{HASH}</checksum>
    <open-checksum type="sha256">a81ab5a2fdd190f14726323b721312f4609b767d01ab39659d52218f9bc83159</open-checksum>
    <location href="repodata/{HASH}-primary.xml.gz"/>
    <timestamp>1700086400</timestamp>
    <size>1507</size>
    <open-size>8259</open-size>
  </data>
  <data type="group">
    <checksum type="sha">da39a3ee5e6b4b0d3255bfef95601890afd80709</checksum>
    <location href="repodata/comps.xml"/>
    <timestamp>1700086500.25</timestamp>
  </data>
"#
        );
        let parsed = parse(repomd(&data).as_bytes(), &Root::default()).unwrap();
        assert_eq!(parsed.revision.as_deref(), Some("1700086400"));
        assert_eq!(parsed.timestamp, Some(Timestamp::from_secs(1_700_086_500)));
        assert_eq!(parsed.left_out, 0);
        let primary = Record {
            kind: "primary".into(),
            path: format!("repodata/{HASH}-primary.xml.gz"),
            size: Some(1507),
            digest: Digest::from_hex(Algorithm::Sha256, HASH),
        };
        let group = Record {
            kind: "group".into(),
            path: "repodata/comps.xml".into(),
            size: None,
            digest: Some(Digest::of(Algorithm::Sha1, b"")),
        };
        assert!(primary.versioned() && !group.versioned());
        assert_eq!(parsed.record("primary"), Some(&primary));
        assert_eq!(parsed.records, [primary.clone(), group]);
        let reused = Record { path: "repodata/primary.xml.gz".into(), ..primary.clone() };
        let of_another = Record { digest: Some(Digest::of(Algorithm::Sha256, b"")), ..primary };
        assert!(!reused.versioned() && !of_another.versioned());
    }

    #[test]
    fn a_name_may_begin_with_a_digest_of_any_kind() {
        for algorithm in Algorithm::ALL {
            let (digest, other) = (Digest::of(algorithm, b"x"), Digest::of(algorithm, b"y"));
            let record = |name: String| Record {
                kind: "primary".into(),
                path: format!("repodata/{name}"),
                size: None,
                digest: Some(digest),
            };
            assert!(record(format!("{}-primary.xml.gz", digest.hex())).versioned(), "{algorithm:?}");
            assert!(record(digest.hex().to_uppercase()).versioned());
            assert!(!record(format!("{}-primary.xml.gz", other.hex())).versioned());
            assert!(!record(digest.hex()[1..].to_owned()).versioned());
            assert!(!record("primary.xml.gz".to_owned()).versioned());
        }
    }

    #[test]
    fn unusable_records_are_left_out_and_counted() {
        let cases = [
            record("", ""),
            record(r#"<location href="/repodata/x.gz"/>"#, ""),
            record(r#"<location href="../x.gz"/>"#, ""),
            record(r#"<location href="http://elsewhere/x.gz"/>"#, ""),
            record(r#"<location xml:base="http://elsewhere/" href="x.gz"/>"#, ""),
            record(r#"<location href="x.gz"/>"#, r#"<checksum type="sha256">b1e2</checksum>"#),
            r#"<data><location href="x.gz"/></data>"#.to_owned(),
        ];
        for data in &cases {
            let parsed = parse(repomd(data).as_bytes(), &Root::default()).unwrap();
            assert_eq!((parsed.records.len(), parsed.left_out), (0, 1), "{data}");
        }
        let good = record(r#"<location href="x.gz"/>"#, "");
        let parsed = parse(repomd(&(cases.concat() + &good)).as_bytes(), &Root::default()).unwrap();
        assert_eq!((parsed.records.len(), parsed.left_out), (1, 7));
    }

    #[test]
    fn types_of_other_characters_are_left_out() {
        let of = |kind: &str| format!(r#"<data type="{kind}"><location href="x.gz"/></data>"#);
        for kind in ["primary_db", "updateinfo-2.0", &"a".repeat(64)] {
            let parsed = parse(repomd(&of(kind)).as_bytes(), &Root::default()).unwrap();
            assert_eq!((parsed.records[0].kind.as_str(), parsed.left_out), (kind, 0));
        }
        for kind in ["&#27;[2J", "a&#10;b", "a b", "a/b", "&#x202e;", "é", &"a".repeat(65)] {
            let parsed = parse(repomd(&of(kind)).as_bytes(), &Root::default()).unwrap();
            assert_eq!((parsed.records.len(), parsed.left_out), (0, 1), "{kind}");
        }
    }

    #[test]
    fn bounds() {
        let data = record(r#"<location href="x.gz"/>"#, "");
        assert!(parse(repomd(&data.repeat(MAX_RECORDS)).as_bytes(), &Root::default()).is_ok());
        let error = parse(repomd(&data.repeat(MAX_RECORDS + 1)).as_bytes(), &Root::default())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("repomd: byte ") && error.contains("256 records"), "{error}");
        let padded = repomd("") + &" ".repeat(MAX_BYTES);
        assert!(parse(padded.as_bytes(), &Root::default()).is_err());
        assert!(parse(b"<html>not found</html>", &Root::default()).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, at: prop::sample::Index, cut: prop::sample::Index) {
            let _ = parse(&bytes, &Root::default());
            let mut whole = repomd(&record(r#"<location href="x.gz" xml:base="a&amp;b"/>"#, "<size>1</size>")).into_bytes();
            let at = at.index(whole.len());
            whole.splice(at..at, bytes);
            whole.truncate(cut.index(whole.len() + 1));
            let _ = parse(&whole, &Root::default());
        }
    }
}
