//! What the servers serve: one tree of repositories, the same files for all, in a directory that goes when the run is over.

use anyhow::{Context, ensure};
use freshet::clock::{self, Timestamp};
use freshet::demo::repository::{PackageSpec, Repository};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The repo that the node delivers itself.
pub const OWN: &str = "own/x86_64";
/// Repos of which mirrors take the packages: this with a number behind it.
pub const OFFLOADED: &str = "offloaded";
/// Of a repomd.xml, as those of large repos have it.
const REPOMD_BYTES: usize = 4096;
/// More than the headers of a small RPM.
const SPARE: usize = 8192;
const SEED: u64 = 4;
/// Of an offloaded repo: long ago, so that its window is over.
const LONG_AGO: Timestamp = Timestamp::from_secs(1_700_000_000);

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Files of 100 MB, 1 MB and 64 KiB.
    pub large: usize,
    pub medium: usize,
    pub small: usize,
    /// Repos of which mirrors take the packages, and packages in each.
    pub repos: usize,
    pub packages: usize,
    /// Files that are dropped from the page cache, and their size.
    pub cold: usize,
    pub cold_bytes: usize,
}

impl Extent {
    /// For figures.
    pub const WHOLE: Self =
        Self { large: 4, medium: 64, small: 256, repos: 50, packages: 100, cold: 128, cold_bytes: 16 << 20 };
    /// For a look at whether it works.
    pub const QUICK: Self =
        Self { large: 1, medium: 4, small: 8, repos: 2, packages: 100, cold: 4, cold_bytes: 4 << 20 };
}

/// The tree.
pub struct Site {
    dir: TempDir,
    repos: usize,
    large: Vec<String>,
    medium: Vec<String>,
    small: Vec<String>,
    offloaded: Vec<String>,
    cold: Vec<String>,
}

/// The files that a work asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// 100 MB.
    Large,
    /// 1 MB.
    Medium,
    /// 64 KiB.
    Small,
    /// repomd.xml, 4 KiB.
    Repomd,
    /// Packages that mirrors take.
    Offloaded,
    /// What is dropped from the page cache.
    Cold,
}

impl Site {
    /// Makes it in a temporary directory below `parent`.
    pub fn make(parent: &Path, extent: Extent) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("freshet-peers-").tempdir_in(parent)?;
        let mut site = Self {
            dir,
            repos: extent.repos,
            large: Vec::new(),
            medium: Vec::new(),
            small: Vec::new(),
            offloaded: Vec::new(),
            cold: Vec::new(),
        };
        site.make_own(extent).context("making the repo that is delivered")?;
        for repo in 0..extent.repos {
            site.make_offloaded(repo, extent.packages).context("making a repo that mirrors have")?;
        }
        site.make_cold(extent).context("making cold files")?;
        Ok(site)
    }

    /// The directory of the run.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The root of what is served.
    pub fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// How many repos mirrors take packages of.
    pub fn repos(&self) -> usize {
        self.repos
    }

    /// The directories of all repos, below the tree's root.
    pub fn repo_paths(&self) -> Vec<String> {
        let offloaded = (0..self.repos).map(|repo| format!("{OFFLOADED}/{repo}"));
        std::iter::once(OWN.to_owned()).chain(offloaded).collect()
    }

    /// Paths with a leading slash.
    pub fn paths(&self, files: Files) -> Vec<String> {
        match files {
            Files::Large => self.large.clone(),
            Files::Medium => self.medium.clone(),
            Files::Small => self.small.clone(),
            Files::Repomd => vec![format!("/{OWN}/repodata/repomd.xml")],
            Files::Offloaded => self.offloaded.clone(),
            Files::Cold => self.cold.clone(),
        }
    }

    /// Drops the cold files from the page cache.
    pub fn chill(&self) -> anyhow::Result<()> {
        for path in &self.cold {
            let file = File::open(self.tree().join(&path[1..]))?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        Ok(())
    }

    fn make_own(&mut self, extent: Extent) -> anyhow::Result<()> {
        let kinds = [
            ("large", 100_000_000, extent.large),
            ("medium", 1_000_000, extent.medium),
            ("small", 65_536, extent.small),
        ];
        let mut specs = Vec::new();
        for (name, bytes, count) in kinds {
            // RPM pads files to four bytes.
            let payload = (bytes - headers(self.dir.path(), name, bytes)?) / 4 * 4;
            specs.extend((0..count).map(|number| spec(&format!("{name}-{number:03}"), payload)));
        }
        let root = self.tree().join(OWN);
        Repository::create(&root, &specs, SEED, clock::now())?;
        let paths = |(name, bytes, count): (&str, usize, usize)| -> anyhow::Result<Vec<String>> {
            let path = |number| format!("Packages/{}", spec(&format!("{name}-{number:03}"), 0).file_name());
            let paths: Vec<String> = (0..count).map(path).collect();
            for path in &paths {
                let found = fs::metadata(root.join(path))?.len();
                let missing = (bytes as u64).checked_sub(found);
                ensure!(missing.is_some_and(|missing| missing < 4), "{path} has {found} bytes, not {bytes}");
            }
            Ok(paths.iter().map(|path| format!("/{OWN}/{path}")).collect())
        };
        [self.large, self.medium, self.small] = [paths(kinds[0])?, paths(kinds[1])?, paths(kinds[2])?];
        pad(&root.join("repodata/repomd.xml"))
    }

    fn make_offloaded(&mut self, repo: usize, packages: usize) -> anyhow::Result<()> {
        let specs: Vec<_> = (0..packages).map(|number| spec(&format!("p{repo}-{number:03}"), 64)).collect();
        let path = format!("{OFFLOADED}/{repo}");
        Repository::create(&self.tree().join(&path), &specs, SEED, LONG_AGO)?;
        let names = specs.iter().map(|spec| format!("/{path}/Packages/{}", spec.file_name()));
        self.offloaded.extend(names);
        Ok(())
    }

    fn make_cold(&mut self, extent: Extent) -> anyhow::Result<()> {
        fs::create_dir_all(self.tree().join("cold"))?;
        let mut bytes = vec![0; extent.cold_bytes];
        fastrand::Rng::with_seed(SEED).fill(&mut bytes);
        for number in 0..extent.cold {
            let path = format!("/cold/{number:03}.iso");
            let mut file = File::create_new(self.tree().join(&path[1..]))?;
            file.write_all(&bytes)?;
            // Dirty pages can't be dropped.
            file.sync_data()?;
            self.cold.push(path);
        }
        Ok(())
    }
}

fn spec(name: &str, payload_bytes: usize) -> PackageSpec {
    PackageSpec { name: name.to_owned(), version: "1.0".into(), release: "1".into(), payload_bytes }
}

/// What an RPM has besides its payload, if it is to have so many bytes together. Found by making one.
fn headers(dir: &Path, name: &str, bytes: usize) -> anyhow::Result<usize> {
    let spec = spec(&format!("{name}-000"), bytes - SPARE);
    let scratch = tempfile::tempdir_in(dir)?;
    let root = scratch.path().join("repo");
    Repository::create(&root, std::slice::from_ref(&spec), SEED, Timestamp::EPOCH)?;
    let found = fs::metadata(root.join("Packages").join(spec.file_name()))?.len();
    Ok(usize::try_from(found)? - spec.payload_bytes)
}

/// Makes the file as long as those of large repos are, by white space at its end.
fn pad(repomd: &Path) -> anyhow::Result<()> {
    let mut text = fs::read(repomd)?;
    ensure!(text.len() <= REPOMD_BYTES, "repomd.xml has {} bytes", text.len());
    text.resize(REPOMD_BYTES, b'\n');
    Ok(fs::write(repomd, text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_sizes_that_the_table_names() {
        let parent = tempfile::tempdir().unwrap();
        let extent = Extent { large: 0, ..Extent::QUICK };
        let site = Site::make(parent.path(), extent).unwrap();
        let bytes = |path: &String| fs::metadata(site.tree().join(&path[1..])).unwrap().len();
        let near =
            |files, all: u64| site.paths(files).iter().all(|path| (all - 3..=all).contains(&bytes(path)));
        assert!(near(Files::Medium, 1_000_000) && near(Files::Small, 65_536));
        assert_eq!(site.paths(Files::Repomd).iter().map(bytes).collect::<Vec<_>>(), [4096]);
        assert_eq!(site.paths(Files::Offloaded).len(), 200);
        assert_eq!(site.repo_paths().len(), 3);
        site.chill().unwrap();
        let dir = site.dir().to_owned();
        drop(site);
        assert!(!dir.exists());
    }
}
