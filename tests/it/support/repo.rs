//! Real RPM repositories in two states, made by rpmbuild and createrepo_c.
//!
//! Made once for each target directory: test processes that run at the same time share the result under a lock
//! file. Nobody writes into the shared copy; [`Tree`] gives a test one of its own, of hard links.

use super::run;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the repository is in the tree.
pub const REPO: &str = "7.9.2009/updates/x86_64";
/// The same by the release's symlink.
pub const ALIASED: &str = "7/updates/x86_64";
/// Packages in the first push; the second has two more.
pub const PACKAGES: usize = 60;

/// In the cached copy's name: change it with anything that changes the bytes below.
const RECIPE: u32 = 1;
const EPOCH: u64 = 1_700_000_000;
const SMALLEST: f64 = 8e3;
const LARGEST: f64 = 6.4e6;

/// The published states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// `freshet-000` to `freshet-059`, all of them 1.0-1.
    First,
    /// Every fourth package ([`updated`]) is 1.0-2, `freshet-060` and `freshet-061` are new; with drpms.
    Second,
}

/// The name of package number `i`. Sizes grow with it, from 16 kB to 6.4 MB, 60 MB together.
pub fn name(i: usize) -> String {
    format!("freshet-{i:03}")
}

/// Whether the second push updates package number `i`.
pub fn updated(i: usize) -> bool {
    i < PACKAGES && i % 4 == 1
}

/// The path of package number `i` within the repository, as `push` has it.
pub fn rpm(i: usize, push: Push) -> String {
    let release = if push == Push::Second && updated(i) { 2 } else { 1 };
    format!("Packages/{}-1.0-{release}.noarch.rpm", name(i))
}

/// A test's own copy of the tree in one state: `7.9.2009/`, and `7`, a symlink to it. Files may be added, removed and
/// replaced by rename, but never written in place, since they are links to the shared ones.
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Makes the copy in `root`, which must not exist; on the target directory's file system.
    pub fn link(push: Push, root: &Path) -> Self {
        run(Command::new("cp")
            .args(["-al", "--no-target-directory"])
            .arg(shared().join(dir(push)))
            .arg(root));
        Self { root: root.to_owned() }
    }

    /// The tree's root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The repository's directory.
    pub fn repo(&self) -> PathBuf {
        self.root.join(REPO)
    }

    /// Gives repomd.xml the date of now, as a push that has just been made has it. The shared copy keeps its own.
    pub fn date_now(&self) {
        let (repomd, new) = (self.repo().join("repodata/repomd.xml"), self.repo().join("repodata/new"));
        fs::write(&new, fs::read(&repomd).expect("repomd.xml")).expect("a new file");
        fs::rename(new, repomd).expect("a rename");
    }

    /// Brings the tree to the state `push` as `rsync --delete` does: packages, metadata, repomd.xml, each replaced by
    /// rename; then what is not in that state goes.
    pub fn sync(&self, push: Push) {
        self.sync_with(push, |_| {});
    }

    /// The same, with `spoil` done once all but repomd.xml is there.
    pub fn sync_with(&self, push: Push, spoil: impl FnOnce(&Self)) {
        self.take_all(&shared().join(dir(push)).join(REPO), spoil);
    }

    /// The same from another copy.
    pub fn take(&self, other: &Self) {
        self.take_all(&other.repo(), |_| {});
    }

    fn take_all(&self, from: &Path, spoil: impl FnOnce(&Self)) {
        let (to, wanted) = (self.repo(), files(from));
        let mut spoil = Some(spoil);
        for file in &wanted {
            if let Some(spoil) = spoil.take_if(|_| file.ends_with("repomd.xml")) {
                spoil(self);
            }
            let temporary = to.join(".sync");
            fs::create_dir_all(to.join(file).parent().expect("it is below the repository"))
                .expect("a directory");
            fs::hard_link(from.join(file), &temporary).expect("a link");
            fs::rename(&temporary, to.join(file)).expect("a rename");
            // Where both were links to one file already, rename leaves the temporary name.
            let _ = fs::remove_file(&temporary);
        }
        for file in files(&to).iter().filter(|file| !wanted.contains(file)) {
            fs::remove_file(to.join(file)).expect("a file to remove");
        }
    }
}

/// Every file of the repository in `repo`, relative to it; what names others comes after them.
pub fn files(repo: &Path) -> Vec<String> {
    fn walk(repo: &Path, below: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(below).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(repo, &path, found);
            } else {
                found.push(path.strip_prefix(repo).expect("it is below").to_str().expect("UTF-8").to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(repo, repo, &mut found);
    found.sort_by_key(|file| (file.starts_with("repodata/"), file.ends_with("repomd.xml"), file.clone()));
    found
}

fn dir(push: Push) -> &'static str {
    match push {
        Push::First => "push1",
        Push::Second => "push2",
    }
}

/// The shared copy, made by whoever comes first.
fn shared() -> &'static Path {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    SHARED.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let done = target.join(format!("rpm-repos-{RECIPE}"));
        let lock = File::create(target.join("rpm-repos.lock")).expect("a lock file");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("the lock");
        if !done.exists() {
            let scratch = tempfile::tempdir_in(target).expect("a scratch directory");
            let made = scratch.path().join("made");
            make(scratch.path(), &made);
            fs::rename(made, &done).expect("a rename");
        }
        done
    })
}

/// Builds both states below `made`.
fn make(scratch: &Path, made: &Path) {
    let first = build(&scratch.join("1"), &(0..PACKAGES).map(|i| (i, 1)).collect::<Vec<_>>());
    let news =
        (0..PACKAGES).filter(|i| updated(*i)).map(|i| (i, 2)).chain([(PACKAGES, 1), (PACKAGES + 1, 1)]);
    let second = build(&scratch.join("2"), &news.collect::<Vec<_>>());
    for push in [Push::First, Push::Second] {
        let repo = made.join(dir(push)).join(REPO);
        fs::create_dir_all(repo.join("Packages")).expect("the repository");
        symlink("7.9.2009", made.join(dir(push)).join("7")).expect("the release's symlink");
        for i in 0..PACKAGES + 2 * usize::from(push == Push::Second) {
            let file = rpm(i, push);
            let built = if push == Push::Second && (updated(i) || i >= PACKAGES) { &second } else { &first };
            fs::hard_link(built.join(Path::new(&file).file_name().expect("a name")), repo.join(&file))
                .expect("a package that rpmbuild has made");
        }
        let mut createrepo = Command::new("createrepo_c");
        createrepo.args([
            "--quiet",
            "--no-database",
            "--general-compress-type=gz",
            "--set-timestamp-to-revision",
        ]);
        createrepo.args(["--revision", &revision(push).to_string()]);
        if push == Push::Second {
            createrepo.args(["--deltas", "--oldpackagedirs"]).arg(&first);
        }
        run(createrepo.arg(&repo));
    }
}

fn revision(push: Push) -> u64 {
    match push {
        Push::First => EPOCH,
        Push::Second => EPOCH + 86_400,
    }
}

/// Builds packages, given by number and release, as subpackages of one spec: one rpmbuild takes a second, sixty take a
/// minute. Returns the directory of the RPMs.
fn build(top: &Path, packages: &[(usize, u32)]) -> PathBuf {
    let root = top.join("root");
    let mut spec = String::from(
        "Name: all\nVersion: 1.0\nRelease: 1\nSummary: For tests\nLicense: MIT\nBuildArch: noarch\n\
         %description\nFor tests.\n%install\ncp -al %{payload}/. %{buildroot}\n",
    );
    for &(i, release) in packages {
        let name = name(i);
        let dir = root.join("usr/share").join(&name);
        fs::create_dir_all(&dir).expect("a payload directory");
        fs::write(dir.join("data"), payload(i, release)).expect("a payload");
        for page in 0..12 {
            fs::write(dir.join(format!("page{page}")), format!("{name} {release} {page}\n")).expect("a page");
        }
        write!(
            spec,
            "%package -n {name}\nRelease: {release}\nSummary: Number {i}\nAutoReqProv: no\n{requires}\
             %description -n {name}\nNumber {i}.\n%files -n {name}\n/usr/share/{name}\n",
            // One in five brings a dependency into the transaction.
            requires = if i % 5 == 1 { format!("Requires: {}\n", self::name(i - 1)) } else { String::new() },
        )
        .expect("a String takes it");
    }
    fs::write(top.join("all.spec"), spec).expect("the spec");
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.env("SOURCE_DATE_EPOCH", EPOCH.to_string()).env("LC_ALL", "C");
    for (name, value) in [
        ("_topdir", top.to_str().expect("UTF-8")),
        ("payload", root.to_str().expect("UTF-8")),
        ("_buildhost", "build.example"),
        ("_binary_payload", "w1.gzdio"), // makedeltarpm reads it everywhere
        ("use_source_date_epoch_as_buildtime", "1"),
        ("clamp_mtime_to_source_date_epoch", "1"),
        ("source_date_epoch_from_changelog", "0"),
        ("debug_package", "%{nil}"),
        ("__os_install_post", "%{nil}"),
    ] {
        rpmbuild.args(["--define", &format!("{name} {value}")]);
    }
    run(rpmbuild.args(["-bb", "--quiet"]).arg(top.join("all.spec")));
    top.join("RPMS/noarch")
}

/// Bytes that don't compress, of a size that grows geometrically with `i`. A later release differs in a tenth of them,
/// so that a drpm is worth its while.
fn payload(i: usize, release: u32) -> Vec<u8> {
    let share = (i.min(PACKAGES - 1)) as f64 / (PACKAGES - 1) as f64;
    let size = if i < PACKAGES { SMALLEST * (LARGEST / SMALLEST).powf(share) } else { 3e5 };
    let mut bytes = vec![0; size as usize];
    fastrand::Rng::with_seed(i as u64).fill(&mut bytes);
    if release > 1 {
        let (start, length) = (bytes.len() / 3, bytes.len() / 10);
        fastrand::Rng::with_seed(1000 * u64::from(release) + i as u64)
            .fill(&mut bytes[start..start + length]);
    }
    bytes
}
