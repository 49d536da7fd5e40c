//! A small yum repository on disk: real RPMs and real repodata, made without rpmbuild or createrepo_c.
//!
//! A [`Repository`] is one published state in a directory of its own. Its bytes follow from its arguments alone: no
//! clock, host name or unseeded randomness gets in, so that two runs of the demo show the same sizes and
//! checksums. What exists is never rewritten; the next state goes to a fresh directory.

use crate::clock::Timestamp;
use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};
use rpm::{BuildConfig, CompressionWithLevel, FileOptions, PackageBuilder};
use rpmrepo_metadata as md;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// When every package says that it was built (seconds since the Unix epoch): fixed, so that an RPM's bytes do not
/// depend on when the demo runs.
const BUILD_TIME: u32 = 1_700_000_000;

/// What the next package is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageSpec {
    /// Its name: what a client asks dnf for.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its release.
    pub release: String,
    /// Bytes of its one big file, which do not compress; the RPM is larger by 2 to 4 kB of headers.
    pub payload_bytes: usize,
}

impl PackageSpec {
    /// The file's name, below `Packages/`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}-{}-{}.noarch.rpm", self.name, self.version, self.release)
    }

    /// The RPM's bytes: one directory with one file of pseudo-random bytes.
    fn build(&self, seed: u64) -> Result<Vec<u8>> {
        let mut payload = vec![0; self.payload_bytes];
        fastrand::Rng::with_seed(seed ^ fnv1a(&self.file_name())).fill(&mut payload);
        let directory = format!("/usr/share/{}", self.name);
        let config = BuildConfig::v4()
            .source_date(BUILD_TIME)
            .compression(CompressionWithLevel::None)
            .reserved_space(None);
        let mut rpm = Vec::with_capacity(self.payload_bytes + 4096);
        PackageBuilder::new(&self.name, &self.version, "MIT", "noarch", "Made by freshet demo")
            .using_config(config)
            .release(&self.release)
            .description(format!("{} bytes that do not compress.", self.payload_bytes))
            .with_dir_entry(FileOptions::dir(&directory).permissions(0o755))?
            .with_file_contents(payload, FileOptions::new(format!("{directory}/data")).permissions(0o644))?
            .build()?
            .write(&mut rpm)?;
        Ok(rpm)
    }
}

/// One published state of a repository, in a directory of its own.
pub struct Repository {
    dir: PathBuf,
    seed: u64,
    packages: Vec<Published>,
    files: Vec<String>,
}

/// A package in the repository, with what its RPM's headers said.
#[derive(Clone)]
struct Published {
    spec: PackageSpec,
    listed: md::Package,
}

impl Repository {
    /// Makes the first state in `dir`, which must be absent or empty. `published` becomes the files' modification
    /// time and the timestamps in repomd.xml (whole seconds).
    ///
    /// # Errors
    /// When a file can't be written, or a spec has a name or version that RPM does not allow.
    pub fn create(dir: &Path, packages: &[PackageSpec], seed: u64, published: Timestamp) -> Result<Self> {
        let nothing = Self { dir: PathBuf::new(), seed, packages: Vec::new(), files: Vec::new() };
        nothing.publish(dir, packages, published)
    }

    /// Makes the next state in `dir`, which must be absent or empty: RPMs that `packages` names as before are
    /// hard-linked (so it must be on the same file system), the others built. This state stays as it is.
    ///
    /// # Errors
    /// As [`create`](Self::create), and when a link can't be made.
    pub fn publish(&self, dir: &Path, packages: &[PackageSpec], published: Timestamp) -> Result<Self> {
        fs::create_dir_all(dir.join("Packages")).with_context(|| format!("creating {}", dir.display()))?;
        ensure!(!dir.join("repodata").exists(), "{} already holds a repository", dir.display());
        let mut next = Self { dir: dir.to_owned(), seed: self.seed, packages: Vec::new(), files: Vec::new() };
        for spec in packages {
            let package =
                next.add(self, spec, published).with_context(|| format!("package {}", spec.file_name()))?;
            next.files.push(package.listed.location_href().to_owned());
            next.packages.push(package);
        }
        next.write_repodata(published)?;
        Ok(next)
    }

    /// Where this state is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every file, relative to [`dir`](Self::dir), in the order in which a careful mirror copies them: packages, then
    /// the metadata that names them, then repomd.xml.
    #[must_use]
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// Copies one of [`files`](Self::files) to the mirror at `to`, by hard link and rename: a reader there sees
    /// the old bytes or the new ones.
    ///
    /// # Errors
    /// When a directory, link or rename fails.
    pub fn sync_file(&self, file: &str, to: &Path) -> Result<()> {
        let target = to.join(file);
        let parent = target.parent().context("a file has a directory")?;
        fs::create_dir_all(parent)?;
        // rename does nothing where both names are links to one file, and the temporary name would stay.
        let temporary = tempfile::Builder::new().prefix(".sync").tempdir_in(parent)?;
        let link = temporary.path().join("file");
        fs::hard_link(self.dir.join(file), &link).with_context(|| format!("linking {file}"))?;
        fs::rename(&link, &target).with_context(|| format!("renaming {file}"))?;
        Ok(())
    }

    fn add(&self, before: &Self, spec: &PackageSpec, published: Timestamp) -> Result<Published> {
        let href = format!("Packages/{}", spec.file_name());
        let path = self.dir.join(&href);
        if let Some(known) = before.packages.iter().find(|known| known.spec == *spec) {
            fs::hard_link(before.dir.join(&href), path)?;
            return Ok(known.clone());
        }
        let rpm = spec.build(self.seed)?;
        write(&path, &rpm, published)?;
        let source = md::PackageSource {
            checksum: None,
            size_package: None,
            time_file: published.as_secs(),
            location_href: href,
            location_base: None,
        };
        let listed = md::Package::from_buffer(&rpm, source, md::PackageOptions::default())?;
        Ok(Published { spec: spec.clone(), listed })
    }

    fn write_repodata(&mut self, published: Timestamp) -> Result<()> {
        let mut repository = md::Repository::new();
        for package in &self.packages {
            repository.add_package(package.listed.clone());
        }
        repository.sort();
        fs::create_dir(self.dir.join("repodata"))?;
        for (kind, xml) in [
            ("primary", repository.write_metadata_bytes::<md::PrimaryXml>()?),
            ("filelists", repository.write_metadata_bytes::<md::FilelistsXml>()?),
            ("other", repository.write_metadata_bytes::<md::OtherXml>()?),
        ] {
            let record = self.write_record(kind, &xml, published)?;
            repository.repomd_mut().add_record(record);
        }
        repository.repomd_mut().set_revision(&published.as_secs().to_string());
        let repomd = "repodata/repomd.xml";
        write(&self.dir.join(repomd), &repository.write_metadata_bytes::<md::RepomdXml>()?, published)?;
        self.files.push(repomd.to_owned());
        Ok(())
    }

    /// Writes one compressed repodata file under a name that carries its checksum.
    fn write_record(&mut self, kind: &str, xml: &[u8], published: Timestamp) -> Result<md::RepomdRecord> {
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
        gzip.write_all(xml)?;
        let packed = gzip.finish()?;
        let checksum = md::utils::checksum_bytes(&packed, md::ChecksumType::Sha256)?;
        let (_, hex) = checksum.to_values()?;
        let href = format!("repodata/{hex}-{kind}.xml.gz");
        write(&self.dir.join(&href), &packed, published)?;
        let record = md::RepomdRecord::new(kind, Path::new(&href), &self.dir, md::ChecksumType::Sha256)?;
        self.files.push(href);
        Ok(record)
    }
}

/// Writes a new file with the modification time `modified`; refuses to touch one that exists.
fn write(path: &Path, bytes: &[u8], modified: Timestamp) -> Result<()> {
    let mut file = File::create_new(path).with_context(|| format!("creating {}", path.display()))?;
    file.write_all(bytes)?;
    file.set_modified(SystemTime::from(Timestamp::from_secs(modified.as_secs())))?;
    Ok(())
}

/// FNV-1a, 64 bit: gives each package a payload of its own, the same in every build of the program.
fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn spec(name: &str, release: &str, payload_bytes: usize) -> PackageSpec {
        PackageSpec { name: name.into(), version: "1.0".into(), release: release.into(), payload_bytes }
    }

    #[test]
    fn two_runs_make_the_same_bytes_and_a_parser_reads_them_back() {
        let scratch = tempfile::tempdir().unwrap();
        let specs = [spec("small", "1", 10), spec("large", "1", 300_000)];
        let at = Timestamp::from_secs(1_750_000_000);
        let [one, two] =
            ["a", "b"].map(|name| Repository::create(&scratch.path().join(name), &specs, 7, at).unwrap());
        assert_eq!(one.files(), two.files());
        for file in one.files() {
            let [a, b] = [&one, &two].map(|state| fs::read(state.dir().join(file)).unwrap());
            assert_eq!(a, b, "{file}");
        }
        let other_seed = Repository::create(&scratch.path().join("c"), &specs, 8, at).unwrap();
        assert_ne!(one.files(), other_seed.files());

        let read = md::Repository::load_from_directory(one.dir()).unwrap();
        let sizes: Vec<(&str, u64)> =
            read.packages().values().map(|p| (p.location_href(), p.size_package())).collect();
        for (href, size) in &sizes {
            assert_eq!(fs::metadata(one.dir().join(href)).unwrap().len(), *size, "{href}");
        }
        assert_eq!(sizes.len(), 2);
        let large = sizes.iter().find(|(href, _)| href.contains("large")).unwrap().1;
        assert!((300_000..304_096).contains(&large), "{large}");
        for record in read.repomd().records() {
            assert_eq!(record.timestamp, 1_750_000_000, "{}", record.metadata_name);
        }
    }

    #[test]
    fn a_push_links_what_is_unchanged_and_a_mirror_copies_it_file_by_file() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = |name: &str| scratch.path().join(name);
        let first = Repository::create(
            &dir("1"),
            &[spec("same", "1", 99), spec("old", "1", 99)],
            1,
            Timestamp::EPOCH,
        )
        .unwrap();
        let second = first
            .publish(&dir("2"), &[spec("same", "1", 99), spec("old", "2", 99)], Timestamp::from_secs(60))
            .unwrap();
        let inode =
            |state: &Repository, file: &str| fs::metadata(state.dir().join(file)).map(|m| m.ino()).ok();
        let same = "Packages/same-1.0-1.noarch.rpm";
        assert_eq!(inode(&first, same), inode(&second, same));
        assert_eq!(inode(&second, "Packages/old-1.0-1.noarch.rpm"), None);
        assert_eq!(second.files().last().map(String::as_str), Some("repodata/repomd.xml"));
        assert!(first.publish(&dir("2"), &[], Timestamp::EPOCH).is_err(), "a state is never written over");

        for state in [&first, &second, &second] {
            for file in state.files() {
                state.sync_file(file, &dir("mirror")).unwrap();
            }
        }
        let read = md::Repository::load_from_directory(&dir("mirror")).unwrap();
        assert_eq!(read.packages().len(), 2);
        assert_eq!(
            fs::read_dir(dir("mirror").join("Packages")).unwrap().count(),
            3,
            "no temporary names are left"
        );
    }
}
