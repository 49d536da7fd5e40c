//! A repository that is pushed to again and again: real RPMs and real createrepo_c, and a served copy of it that a test may break.

use crate::support::repo::{self, REPO};
use crate::support::run;
use rpm::{BuildConfig, CompressionWithLevel, FileOptions, PackageBuilder};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The signature of repomd.xml, relative to the repository.
pub const SIGNATURE: &str = "repodata/repomd.xml.asc";
/// Packages in the repository.
pub const PACKAGES: usize = 12;
/// Packages that each push brings anew.
pub const UPDATES: usize = 3;

/// The repository as it was made, and as it is served.
pub struct Tree {
    made: PathBuf,
    served: PathBuf,
    /// The release of each package.
    releases: [u32; PACKAGES],
    pushes: u32,
}

/// A state of it.
pub struct Push {
    /// The packages that are new.
    pub news: Vec<String>,
    /// Name, version and release of what a host has after its update.
    pub installed: Vec<String>,
    /// All files, packages before metadata, repomd.xml and then its signature last.
    pub files: Vec<String>,
}

fn name(package: usize) -> String {
    format!("torture-{package:02}")
}

impl Tree {
    /// The first state, made and served below `dir`.
    pub fn make(dir: &Path) -> Self {
        let (made, served) = (dir.join("made"), dir.join("served"));
        for root in [&made, &served] {
            fs::create_dir_all(root.join(REPO).join("Packages")).expect("the repository");
        }
        let mut tree = Self { made, served, releases: [0; PACKAGES], pushes: 0 };
        let push = tree.next(&(0..PACKAGES).collect::<Vec<_>>(), "gz");
        push.files.iter().for_each(|file| tree.put(file));
        tree
    }

    /// The root of what is served.
    pub fn root(&self) -> &Path {
        &self.served
    }

    /// Makes the next state, in which these packages are new.
    pub fn next(&mut self, updated: &[usize], compression: &str) -> Push {
        self.pushes += 1;
        let repo = self.made.join(REPO);
        let mut news = Vec::new();
        for &package in updated {
            let _ = fs::remove_file(repo.join(file(package, self.releases[package])));
            self.releases[package] = self.pushes;
            news.push(file(package, self.pushes));
            build(&repo, package, self.pushes);
        }
        run(Command::new("createrepo_c")
            .args(["--quiet", "--no-database", "--revision", &self.pushes.to_string()])
            .arg(format!("--general-compress-type={compression}"))
            .arg(format!("--compress-type={compression}"))
            .arg(&repo));
        let repomd = fs::read(repo.join("repodata/repomd.xml")).expect("repomd.xml");
        let signed = freshet::repo::Sha256::of(&repomd);
        let signature = format!("-----BEGIN PGP SIGNATURE-----\n\n{signed}\n-----END PGP SIGNATURE-----\n");
        fs::write(repo.join(SIGNATURE), signature).expect("a signature");
        let mut files = repo::files(&repo);
        files.retain(|file| file != SIGNATURE);
        files.push(SIGNATURE.to_owned());
        let installed =
            (0..PACKAGES).map(|package| format!("{}-1-{}", name(package), self.releases[package])).collect();
        Push { news, installed, files }
    }

    /// The bytes of a file of the newest state.
    pub fn right(&self, path: &str) -> Vec<u8> {
        fs::read(self.made.join(REPO).join(path)).expect("it was made")
    }

    /// Serves a file of the newest state as it is, with its own date.
    pub fn put(&self, path: &str) {
        let (from, to) = (self.made.join(REPO).join(path), self.served.join(REPO).join(path));
        let bytes = fs::read(&from).expect("it was made");
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            return;
        }
        self.write(path, &bytes);
        let modified = fs::metadata(from).and_then(|facts| facts.modified()).expect("its date");
        let served = fs::File::options().write(true).open(to).expect("it was written");
        served.set_modified(modified).expect("its date is set");
    }

    /// Serves these bytes in a file's place, by rename.
    pub fn write(&self, path: &str, bytes: &[u8]) {
        let place = self.served.join(REPO).join(path);
        let temporary = self.served.join(REPO).join(".sync");
        fs::create_dir_all(place.parent().expect("it is below the repository")).expect("a directory");
        fs::write(&temporary, bytes).expect("a new file");
        fs::rename(temporary, place).expect("a rename");
    }

    /// Serves a file no more.
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.served.join(REPO).join(path)).expect("a file to remove");
    }

    /// Removes what `push` doesn't have.
    pub fn delete_old(&self, push: &Push) {
        for file in repo::files(&self.served.join(REPO)) {
            if !push.files.contains(&file) {
                self.remove(&file);
            }
        }
    }

    /// Brings the copy in `root` to what is served.
    pub fn mirror(&self, root: &Path) {
        let (from, to) = (self.served.join(REPO), root.join(REPO));
        let there = repo::files(&from);
        for file in &there {
            let (temporary, place) = (to.join(".sync"), to.join(file));
            fs::create_dir_all(place.parent().expect("it is below the repository")).expect("a directory");
            fs::hard_link(from.join(file), &temporary).expect("a link");
            fs::rename(&temporary, &place).expect("a rename");
            // Where both were links to one file already, rename leaves the temporary name.
            let _ = fs::remove_file(&temporary);
        }
        for file in repo::files(&to).iter().filter(|file| !there.contains(file)) {
            fs::remove_file(to.join(file)).expect("a file to remove");
        }
    }
}

fn file(package: usize, release: u32) -> String {
    format!("Packages/{}-1-{release}.noarch.rpm", name(package))
}

/// Builds a package with a file of some kilobytes that doesn't compress.
fn build(repo: &Path, package: usize, release: u32) {
    let mut payload = vec![0; 20_000 + 7_000 * package];
    fastrand::Rng::with_seed(u64::from(release) << 8 | package as u64).fill(&mut payload);
    let name = name(package);
    let config = BuildConfig::v4().compression(CompressionWithLevel::None).reserved_space(None);
    let built = PackageBuilder::new(&name, "1", "MIT", "noarch", "For tests")
        .using_config(config)
        .release(release.to_string())
        .with_file_contents(payload, FileOptions::new(format!("/usr/share/{name}")).permissions(0o644))
        .and_then(PackageBuilder::build)
        .expect("a package");
    built.write_file(repo.join(file(package, release))).expect("the package is written");
}
