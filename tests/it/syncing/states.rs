//! A repository in several states, a push apart: real RPMs and real createrepo_c, its metadata compressed in turn as gz and xz.

use super::super::support::repo::{self, Push, REPO, Tree};
use super::super::support::run;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The packages: the small ones, so that many clients can fetch many.
const PACKAGES: usize = 32;

/// The states, each a tree in a directory of its own.
pub struct States(Vec<PathBuf>);

impl States {
    /// The first, and one for each of so many pushes.
    pub fn make(below: &Path, pushes: usize) -> Self {
        let [old, new] =
            [Push::First, Push::Second].map(|push| Tree::link(push, &below.join(format!("{push:?}"))));
        let state = |number: usize| {
            let root = below.join(format!("state-{number}"));
            let folder = root.join(REPO);
            fs::create_dir_all(folder.join("Packages")).expect("the repository");
            // Every push updates another part of those that have an update.
            let updates = (0..PACKAGES).filter(|package| repo::updated(*package));
            let updated: Vec<usize> =
                updates.enumerate().filter(|(at, _)| at % pushes < number).map(|(_, of)| of).collect();
            for package in 0..PACKAGES {
                let (tree, push) =
                    if updated.contains(&package) { (&new, Push::Second) } else { (&old, Push::First) };
                let file = repo::rpm(package, push);
                fs::hard_link(tree.repo().join(&file), folder.join(&file)).expect("a link");
            }
            let compression = ["gz", "xz"][number % 2];
            run(Command::new("createrepo_c")
                .args(["--quiet", "--no-database", "--revision", &number.to_string()])
                .arg(format!("--general-compress-type={compression}"))
                .arg(format!("--compress-type={compression}"))
                .arg(&folder));
            root
        };
        Self((0..=pushes).map(state).collect())
    }

    /// The repository's directory in one of them.
    pub fn repo(&self, number: usize) -> PathBuf {
        self.0[number].join(REPO)
    }
}

/// What a sync has to do.
pub enum Step {
    /// A file of the state.
    Put(String),
    /// One that isn't in it any more.
    Delete(String),
}

/// What brings the repository in `to` to the state of `from`: what is to be put (packages, metadata, repomd.xml), and what is to be
/// deleted.
pub fn steps(from: &Path, to: &Path) -> (Vec<Step>, Vec<Step>) {
    let (wanted, there) = (repo::files(from), repo::files(to));
    let gone = there.iter().filter(|file| !wanted.contains(file)).cloned().map(Step::Delete).collect();
    let is_new = |file: &String| file.ends_with("repomd.xml") || !there.contains(file);
    (wanted.into_iter().filter(is_new).map(Step::Put).collect(), gone)
}

/// Does one step, as rsync does it: by rename.
pub fn take(step: &Step, from: &Path, to: &Path) {
    match step {
        Step::Put(file) => {
            let (temporary, place) = (to.join(".sync"), to.join(file));
            fs::create_dir_all(place.parent().expect("it is below the repository")).expect("a directory");
            fs::copy(from.join(file), &temporary).expect("a copy");
            fs::rename(&temporary, place).expect("a rename");
        }
        Step::Delete(file) => fs::remove_file(to.join(file)).expect("a file to remove"),
    }
}
