//! One published state of a repo.

use super::catalogue::{Catalogue, Entry, FileFacts, Kind};
use super::checksum::Sha256;
use super::derived::Derived;
use super::listed::ListedFile;
use super::repomd::Repomd;
use crate::clock::Timestamp;
use crate::config::Repo;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Where repomd.xml stands in a repo.
pub const REPOMD: &str = "repodata/repomd.xml";

/// The document that names a repo's generations, relative to it: repomd.xml, or the list of checksums that it has instead.
#[must_use]
pub fn root_document(repo: &Repo) -> &str {
    repo.checksums.as_deref().unwrap_or(REPOMD)
}

/// One published state of a repo. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// SHA-256 of its repomd.xml. A repo that goes back to an older state has two generations of one id.
    pub id: Sha256,
    /// Its place in the order in which this node saw them, from 1 on.
    pub sequence: u32,
    /// When the distribution made it.
    pub published: Timestamp,
    /// When this node began to serve it.
    pub flipped: Timestamp,
    /// As repomd.xml has it.
    pub revision: Option<String>,
    /// All files but the pinned ones.
    pub catalogue: Catalogue,
    /// What is served from memory, with the generation: always repomd.xml, and its signature and key where they exist.
    pub pinned: Vec<Pinned>,
    /// Packages and drpms that the generation before doesn't list.
    pub new_files: u32,
    /// Their length in bytes.
    pub new_bytes: u64,
    /// Entries of the repodata that are not in the catalogue.
    pub left_out: u32,
    /// Every entry of the catalogue has a digest.
    pub verified: bool,
}

/// A small file that is kept whole with its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Relative to the repo, [`REPOMD`] for instance.
    pub path: String,
    /// All of it.
    pub body: Bytes,
    /// As the origin says.
    pub last_modified: Option<Timestamp>,
    /// SHA-256 of the body.
    pub sha256: Sha256,
    /// SHA-512 of the body in lower-case hex, as a metalink carries it.
    pub sha512: String,
    /// What is said of it in answers.
    pub derived: Derived,
}

impl Pinned {
    /// With the digests of `body`.
    #[must_use]
    pub fn new(path: String, body: Bytes, last_modified: Option<Timestamp>) -> Self {
        use aws_lc_rs::digest::{SHA512, digest};
        let sha512 = data_encoding::HEXLOWER.encode(digest(&SHA512, &body).as_ref());
        Self { path, sha256: Sha256::of(&body), body, last_modified, sha512, derived: Derived::default() }
    }
}

impl Generation {
    /// The generation that follows `previous`, of what its documents list.
    ///
    /// Not in the catalogue, and counted in `left_out`: what [`Repomd`] left out, records without a size (the caller
    /// may set it once it has fetched the file), paths that are listed with different facts, and packages that claim a
    /// place in `repodata/`, where they would be taken for metadata. What the parsers of `packages` and `drpms` left out,
    /// the caller adds. If `pinned` doesn't have `repomd_bytes`, they become its repomd.xml.
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another part of a push; all are needed, at one call site"
    )]
    pub fn assemble(
        repomd_bytes: &Bytes,
        repomd: &Repomd,
        packages: Vec<ListedFile>,
        drpms: Vec<ListedFile>,
        mut pinned: Vec<Pinned>,
        previous: Option<&Self>,
        published: Timestamp,
        flipped: Timestamp,
    ) -> Self {
        let id = Sha256::of(repomd_bytes);
        if !pinned.iter().any(|file| file.sha256 == id) {
            pinned.insert(0, Pinned::new(REPOMD.to_owned(), repomd_bytes.clone(), None));
        }
        let is_pinned = |path: &str| pinned.iter().any(|file| file.path == path);
        let sequence = previous.map_or(1, |previous| previous.sequence.saturating_add(1));

        let mut left_out = repomd.left_out;
        let mut files = Vec::with_capacity(packages.len() + drpms.len() + repomd.records.len());
        for record in &repomd.records {
            let Some(size) = record.size.filter(|_| !is_pinned(&record.path)) else {
                left_out += 1;
                continue;
            };
            let kind = if record.versioned() { Kind::Metadata } else { Kind::Reused };
            files.push((record.path.clone(), FileFacts { size, digest: record.digest, kind }));
        }
        for ListedFile { path, size, digest } in packages.into_iter().chain(drpms) {
            if path.starts_with("repodata/") || is_pinned(&path) {
                left_out += 1;
            } else {
                files.push((path, FileFacts { size, digest, kind: Kind::Package }));
            }
        }

        let (catalogue, contradicted) =
            Catalogue::build(files, previous.map(|previous| &previous.catalogue), sequence);
        let mut generation = Self {
            id,
            sequence,
            published,
            flipped,
            revision: repomd.revision.clone(),
            verified: false,
            catalogue,
            pinned,
            new_files: 0,
            new_bytes: 0,
            left_out: left_out.saturating_add(contradicted),
        };
        generation.count();
        generation
    }

    /// The same without these packages, as if its documents didn't list them. `previous` is the generation before.
    #[must_use]
    pub fn without<T>(mut self, packages: &BTreeMap<String, T>, previous: Option<&Self>) -> Self {
        let left = self.catalogue.iter().filter(|(path, _)| !packages.contains_key(*path));
        let files: Vec<_> = left.map(|(path, entry)| (path.to_owned(), entry.facts())).collect();
        self.left_out = self.left_out.saturating_add(
            u32::try_from(self.catalogue.len().saturating_sub(files.len())).unwrap_or(u32::MAX),
        );
        let previous = previous.map(|previous| &previous.catalogue);
        self.catalogue = Catalogue::build(files, previous, self.sequence).0;
        self.count();
        self
    }

    /// Sets what follows from the catalogue.
    fn count(&mut self) {
        (self.new_files, self.new_bytes) = (0, 0);
        let is_new = |entry: &Entry| entry.kind.is_package() && entry.since == self.sequence;
        for (_, entry) in self.catalogue.iter().filter(|(_, entry)| is_new(entry)) {
            self.new_files += 1;
            self.new_bytes = self.new_bytes.saturating_add(entry.size);
        }
        self.verified = self.catalogue.iter().all(|(_, entry)| entry.digest.is_some());
    }

    /// The document whose SHA-256 names the generation.
    #[must_use]
    pub fn root(&self) -> Option<&Pinned> {
        self.pinned.iter().find(|file| file.sha256 == self.id)
    }

    /// The pinned file at `path`, relative to the repo.
    #[must_use]
    pub fn pinned(&self, path: &str) -> Option<&Pinned> {
        self.pinned.iter().find(|file| file.path == path)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::repo::repomd::Record;

    /// A package whose content is named by a number.
    pub(in crate::repo) fn package(path: &str, content: u64) -> ListedFile {
        ListedFile {
            path: path.into(),
            size: 10 + content,
            digest: Some(Sha256::of(&content.to_le_bytes()).into()),
        }
    }

    /// A generation of these packages after `previous`, flipped at `secs`.
    pub(in crate::repo) fn generation(
        packages: Vec<ListedFile>,
        previous: Option<&Generation>,
        secs: u64,
    ) -> Generation {
        let repomd = Bytes::from(format!("<repomd>{secs}</repomd>"));
        let at = Timestamp::from_secs(secs);
        Generation::assemble(&repomd, &Repomd::default(), packages, vec![], vec![], previous, at, at)
    }

    #[test]
    fn assembled_of_its_parts() {
        let sha256 = Sha256::of(b"primary");
        let record = |path: &str, size| Record {
            kind: "x".into(),
            path: path.into(),
            size,
            digest: Some(sha256.into()),
        };
        let versioned = format!("repodata/{sha256}-primary.xml.gz");
        let records = vec![
            record(&versioned, Some(5)),
            record("repodata/comps.xml", Some(6)),
            record("repodata/sizeless.xml", None),
            record(REPOMD, Some(7)),
        ];
        let repomd = Repomd { revision: Some("r".into()), timestamp: None, records, left_out: 10 };
        let packages = vec![
            package("a", 1),
            package("b", 2),
            package("repodata/evil", 3),
            package("c", 4),
            package("c", 5),
        ];
        let bytes = Bytes::from_static(b"<repomd/>");
        let asc = Pinned::new("repodata/repomd.xml.asc".into(), Bytes::from_static(b"sig"), None);
        let (published, flipped) = (Timestamp::from_secs(1), Timestamp::from_secs(2));
        let first = Generation::assemble(
            &bytes,
            &repomd,
            packages,
            vec![package("d", 6)],
            vec![asc],
            None,
            published,
            flipped,
        );

        assert_eq!((first.id, first.sequence), (Sha256::of(&bytes), 1));
        assert_eq!((first.published, first.flipped), (published, flipped));
        assert_eq!(first.revision.as_deref(), Some("r"));
        let kinds: Vec<_> = first.catalogue.iter().map(|(path, entry)| (path, entry.kind)).collect();
        let expected = [
            ("a", Kind::Package),
            ("b", Kind::Package),
            ("d", Kind::Package),
            (versioned.as_str(), Kind::Metadata),
            ("repodata/comps.xml", Kind::Reused),
        ];
        assert_eq!(kinds, expected);
        assert_eq!((first.new_files, first.new_bytes, first.left_out), (3, 11 + 12 + 16, 14));
        assert!(first.verified);
        assert_eq!(first.pinned(REPOMD).map(|file| &file.body), Some(&bytes));
        assert!(first.pinned("repodata/repomd.xml.asc").is_some() && first.pinned("a").is_none());
        assert_eq!(&first.pinned[0].sha512[..8], "23c185e8");

        let unsummed = ListedFile { path: "e".into(), size: 100, digest: None };
        let second = generation(vec![package("a", 1), package("b", 3), unsummed], Some(&first), 3);
        assert_eq!((second.sequence, second.new_files, second.new_bytes), (2, 2, 113));
        assert!(!second.verified);

        let left_out = second.left_out;
        let third = second.without(&BTreeMap::from([("e".to_owned(), "absent")]), Some(&first));
        assert_eq!((third.new_files, third.new_bytes, third.left_out), (1, 13, left_out + 1));
        assert!(third.verified && third.catalogue.find("e").is_none());
        assert_eq!(third.catalogue.find("a").map(|entry| entry.since), Some(1));
    }
}
